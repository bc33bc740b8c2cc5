"""The shape every command has: examples in its help, `--json`, and where its device and key come from."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from .output import Output

R = TypeVar("R")

HELP_WIDTH: Final = 100
"""Columns of the help text; an example with a whole relay address still fits on one line."""
CONTEXT_SETTINGS: Final = {"max_content_width": HELP_WIDTH, "help_option_names": ["-h", "--help"]}


class Command(click.Command):
    """A command whose help ends with examples that can be copied."""

    def __init__(self, *args: Any, examples: Sequence[str] = (), **kwargs: Any) -> None:
        kwargs.setdefault("context_settings", CONTEXT_SETTINGS)
        super().__init__(*args, **kwargs)
        self.examples = tuple(examples)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        write_examples(formatter, self.examples)
        super().format_epilog(ctx, formatter)


class Group(click.Group):
    """A group of such commands."""

    command_class = Command

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("context_settings", CONTEXT_SETTINGS)
        super().__init__(*args, **kwargs)


def write_examples(formatter: click.HelpFormatter, examples: Sequence[str]) -> None:
    """Examples as they would be typed, never re-wrapped."""
    if not examples:
        return
    with formatter.section("Example" if len(examples) == 1 else "Examples"):
        for example in examples:
            formatter.write(f"{' ' * formatter.current_indent}{example}\n")


@dataclass(frozen=True, slots=True)
class Target:
    """The store a command works on, and where its passphrase is read from."""

    store: Path
    passphrase_file: Path | None


def json_option(command: Callable[..., R]) -> Callable[..., R]:
    """Add `--json`; the command receives `out`, an `Output` for the chosen form."""

    @functools.wraps(command)
    def wrapper(*args: Any, as_json: bool, **kwargs: Any) -> R:
        return command(*args, out=Output(as_json=as_json), **kwargs)

    option = click.option("--json", "as_json", is_flag=True, help="Print one line of JSON for programs.")
    return option(wrapper)


def store_options(command: Callable[..., R]) -> Callable[..., R]:
    """Add `--store`, `--passphrase-file` and `--json`; the command receives `target` and `out`."""

    @functools.wraps(command)
    def wrapper(*args: Any, store: Path, passphrase_file: Path | None, **kwargs: Any) -> R:
        return command(*args, target=Target(store, passphrase_file), **kwargs)

    store = _store_option(
        envvar="CRDT_SYNC_STORE", show_envvar=True, required=True, help="The device's database."
    )
    return store(_passphrase_option(json_option(wrapper)))


def optional_store_options(command: Callable[..., R]) -> Callable[..., R]:
    """As `store_options` for a command that does without a store; `target` is None then.

    The environment does not choose: what such a command says would depend on where it is typed.
    """

    @functools.wraps(command)
    def wrapper(*args: Any, store: Path | None, passphrase_file: Path | None, **kwargs: Any) -> R:
        target = None if store is None else Target(store, passphrase_file)
        return command(*args, target=target, **kwargs)

    store = _store_option(help="A device's database: its spaces' record types, not those that ship.")
    return store(_passphrase_option(json_option(wrapper)))


def _store_option(**options: Any) -> Callable[[Callable[..., R]], Callable[..., R]]:
    kind = click.Path(path_type=Path, dir_okay=False)
    return click.option("--store", type=kind, metavar="FILE", **options)


_passphrase_option = click.option(
    "--passphrase-file",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    metavar="FILE",
    help="Read the passphrase from FILE. Otherwise: CRDT_SYNC_PASSPHRASE, the keychain, a hidden prompt.",
)


space_option = click.option(
    "--space", metavar="NAME", help="The space, by name or id. Needed when the device is in several."
)


class Duration(click.ParamType[int]):
    """`30m`, `12h`, `7d`, `2w`: a time span as seconds."""

    name = "duration"
    _UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        number, unit = value[:-1], value[-1:]
        if not (number.isascii() and number.isdigit()) or unit not in self._UNITS or int(number) == 0:
            self.fail(
                f"{value!r} is not a time span; write a number and s, m, h, d or w, as in 7d", param, ctx
            )
        return int(number) * self._UNITS[unit]
