"""The shape every command has: examples in its help, `--json`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

import click

json_option: Final = click.option(
    "--json", "as_json", is_flag=True, help="Print one line of JSON for programs."
)


class Command(click.Command):
    """A command whose help ends with examples that can be copied."""

    def __init__(self, *args: Any, examples: tuple[str, ...] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.examples = examples

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Example" if len(self.examples) == 1 else "Examples"):
            for example in self.examples:
                formatter.write(f"{' ' * formatter.current_indent}{example}\n")


def print_json(value: Any) -> None:
    """One line, UTF-8 whatever the locale."""
    click.echo(json.dumps(value, ensure_ascii=False).encode() + b"\n", nl=False)


def print_table(columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    """A table; in a pipe plain, and as wide as it needs to be: nothing is cut."""
    import sys

    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*columns, box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold", show_edge=False)
    table.show_header = any(columns)
    for row in rows:
        table.add_row(*(Text(cell, overflow="fold") for cell in row))
    console = Console(width=None if sys.stdout.isatty() else 4096, highlight=False, markup=False, emoji=False)
    with console.capture() as drawn:
        console.print(table)
    click.echo("".join(f"{line.rstrip()}\n" for line in drawn.get().splitlines()), nl=False)
