"""What a command prints: tables for people, one line of JSON for programs.

Values come from other people's devices, so nothing of them may steer the terminal: control characters are
shown, not sent (`printable`). In a pipe, tables are plain and as wide as they need to be: ids are never cut.
"""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table

_PIPE_WIDTH: Final = 4096
"""Columns of a table that goes to a pipe: wide enough that none of our rows wraps."""


@dataclass(frozen=True, slots=True)
class Output:
    """Where and how one command answers."""

    as_json: bool

    def result(self, value: Any) -> None:
        """One line of JSON on standard output, always UTF-8 whatever the locale."""
        click.echo(json.dumps(value, ensure_ascii=False, default=_json_default).encode() + b"\n", nl=False)

    def say(self, text: str) -> None:
        """An answer for people; silent with `--json`."""
        if not self.as_json:
            click.echo(text)

    def note(self, text: str) -> None:
        """Something worth knowing that is not the answer: standard error, silent with `--json`."""
        if not self.as_json:
            click.echo(click.style(text, dim=True), err=True)

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[Any]], *, none: str) -> None:
        """Print a table, or the sentence `none` when there is nothing in it."""
        filled = [[_cell(value) for value in row] for row in rows]
        if not filled:
            click.echo(none)
            return
        table = new_table()
        for column in columns:
            table.add_column(column, overflow="fold")
        for row in filled:
            table.add_row(*row)
        print_rich(table)


def console(*, stderr: bool = False) -> Console:
    """A console that colours and fits a terminal, and is plain and unwrapped in a pipe."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else _PIPE_WIDTH
    return Console(stderr=stderr, width=width, highlight=False, markup=False, emoji=False, soft_wrap=False)


def print_rich(*parts: RenderableType) -> None:
    """Print what rich can draw on standard output; in a pipe without the blanks that fill up its lines."""
    out = console()
    if out.is_terminal:
        out.print(*parts)
        return
    with out.capture() as drawn:
        out.print(*parts)
    click.echo("".join(f"{line.rstrip()}\n" for line in drawn.get().splitlines()), nl=False)


def new_table(**options: Any) -> Table:
    """The one table style: a rule under the headings, no boxes."""
    from rich import box
    from rich.table import Table

    return Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold", show_edge=False, **options)


def printable(text: str, *, keep_lines: bool = False) -> str:
    """`text` with every control character made visible, so that it cannot steer a terminal."""
    if text.isprintable():
        return text
    return "".join(ch if ch.isprintable() or (keep_lines and ch == "\n") else _visible(ch) for ch in text)


def _visible(char: str) -> str:
    return {"\n": "⏎", "\t": " "}.get(char) or char.encode("unicode_escape").decode("ascii")


def show(value: Any) -> str:
    """A field's value for people: text as it is, the rest as JSON, nothing as a dash."""
    if value is None or value in ([], {}):
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, bytes):
        return f"{len(value):,} bytes"
    return printable(json.dumps(value, ensure_ascii=False, default=_json_default))


def to_json(value: Any) -> Any:
    """A value in its JSON form: bytes become base64 text."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    return value


def iso_time(at_ms: int | None) -> str | None:
    """Milliseconds since 1970 as ISO 8601 in UTC, to the second."""
    if at_ms is None:
        return None
    from datetime import UTC, datetime

    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def local_time(at_ms: int | None) -> str:
    """A moment for people, in the local time zone."""
    if at_ms is None:
        return "never"
    from datetime import datetime

    return datetime.fromtimestamp(at_ms / 1000).astimezone().strftime("%d %b %Y %H:%M:%S")


def _cell(value: Any) -> Any:
    from rich.text import Text

    return value if isinstance(value, Text) else Text(show(value))


def _json_default(value: Any) -> Any:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    raise TypeError(f"{type(value).__name__} has no JSON form")
