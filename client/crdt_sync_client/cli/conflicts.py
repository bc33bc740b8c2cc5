"""`crdt-sync conflicts`: what people wrote at the same time, side by side, and which of it stays."""

from __future__ import annotations

import click

from .command import Group
from .conflict_deciding import conflicts_resolve, conflicts_restore
from .conflict_exporting import conflicts_export
from .conflict_listing import conflicts_count, conflicts_ls, conflicts_show
from .conflict_preferring import conflicts_prefer


@click.group(cls=Group, name="conflicts")
def command_conflicts() -> None:
    """List, compare and resolve conflicts.

    A conflict is two or more values for one field, written by people who had not seen each other's. An ID may
    be shortened to its first characters, as long as only one conflict starts with them.
    """


for _command in (
    conflicts_ls,
    conflicts_count,
    conflicts_show,
    conflicts_resolve,
    conflicts_restore,
    conflicts_prefer,
    conflicts_export,
):
    command_conflicts.add_command(_command)
