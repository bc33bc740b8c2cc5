"""What `space leave` and `logout` have in common: what they ask before, and what became of unsent work."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, TypeVar

import click

from .failures import UsageProblem
from .output import Output

R = TypeVar("R")


class Removed(Protocol):
    """Either report: how many operations no relay had, and the file that has them, if they are in one."""

    @property
    def unsynced_operations(self) -> int: ...

    @property
    def exported_to(self) -> str | None: ...


def removal_options(command: Callable[..., R]) -> Callable[..., R]:
    """Add `--force`, `--export` and `--yes`; the command receives `force`, `export_to` and `yes`."""
    file: Any = click.Path(path_type=Path, dir_okay=False)
    for option in (
        click.option("--yes", is_flag=True, help="Do not ask."),
        click.option(
            "--export",
            "export_to",
            type=file,
            metavar="FILE",
            help="Write that work to a new file first, one JSON object a line. The file is NOT encrypted.",
        ),
        click.option("--force", is_flag=True, help="Also when work that no relay has is lost by it."),
    ):
        command = option(command)
    return command


def confirm(what: str, *, refused: str) -> None:
    """Ask at a terminal; raise UsageProblem with `refused` where nobody can answer."""
    from . import opening

    if not opening.at_a_terminal():
        raise UsageProblem(refused, hint="give --yes to do it without asking")
    click.confirm(f"Remove {what}?", abort=True, err=True)


def say_what_became(out: Output, removed: Removed) -> None:
    """Of work that no relay had."""
    count = removed.unsynced_operations
    some = f"{count} {'change' if count == 1 else 'changes'} that no relay has"
    if removed.exported_to is not None and not count:
        out.say(f"A relay had everything: {removed.exported_to} is empty.")
    elif removed.exported_to is not None:
        out.say(f"{some} {'is' if count == 1 else 'are'} in {removed.exported_to}.")
        out.note("That file can be read by whoever has it; keep it safe, and delete it after use.")
    elif count:
        out.say(f"{some} {'was' if count == 1 else 'were'} given up.")
