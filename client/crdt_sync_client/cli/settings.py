"""`crdt-sync settings`: what is chosen about syncing and keeping on this device."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from .command import Group, Target, store_options
from .failures import UsageProblem
from .output import Output

if TYPE_CHECKING:
    from crdt_sync_client import Device

_WORDS = {"true": True, "false": False, "default": None}


@click.group(cls=Group, name="settings")
def command_settings() -> None:
    """Choose how this device syncs and what it keeps."""


@command_settings.command(
    name="ls",
    examples=("crdt-sync settings ls --store tablet7.db", "crdt-sync settings ls --store tablet7.db --json"),
)
@store_options
def settings_ls(out: Output, target: Target) -> None:
    """Say what is chosen."""
    from . import opening

    async def work(device: Device) -> None:
        settings = (await device.settings()).to_json()
        if out.as_json:
            out.result(settings)
        else:
            out.table(
                ("setting", "value"), [(name, _said(value)) for name, value in settings.items()], none=""
            )

    opening.run(target, work)


@command_settings.command(
    name="set",
    examples=(
        "crdt-sync settings set sync_every_s=300 metered_snapshots=false --store tablet7.db",
        "crdt-sync settings set keep_days.work_order=30 metered_priority=default --store tablet7.db",
    ),
)
@click.argument("assignments", nargs=-1, required=True, metavar="NAME=VALUE...")
@store_options
def settings_set(out: Output, target: Target, assignments: tuple[str, ...]) -> None:
    """Choose; NAME=default takes a choice back."""
    from . import opening

    chosen = [_assignment(text) for text in assignments]

    async def work(device: Device) -> None:
        from crdt_sync_client.settings import Settings, changed

        settings = await device.settings()
        for name, value in chosen:  # all of them or, when one cannot be, none
            settings = changed(settings, name, value)
        for name, value in chosen:
            settings = await device.set_setting(name, value)
        assert isinstance(settings, Settings)
        if out.as_json:
            out.result(settings.to_json())
        else:
            for name, _ in chosen:
                out.say(f"{name} is {_said(settings.to_json().get(name, 'as its schema says'))}.")

    opening.run(target, work)


def _assignment(text: str) -> tuple[str, int | bool | None]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise UsageProblem(f"{text[:60]!r} sets nothing", hint="write NAME=VALUE, such as sync_every_s=300")
    if value in _WORDS:
        return name, _WORDS[value]
    try:
        return name, int(value)
    except ValueError:
        raise UsageProblem(
            f"{name} cannot be {value[:40]!r}", hint="a whole number, true, false, or default"
        ) from None


def _said(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
