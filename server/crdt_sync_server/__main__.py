"""`python -m crdt_sync_server`: the relay's commands without the rest of `crdt-sync`."""

from __future__ import annotations

import sys

import click

from crdt_sync.errors import ConnectionFailed, CrdtSyncError
from crdt_sync_server.cli import relay


def main() -> int:
    """Run a command; failures become a line and the same exit codes as in `crdt-sync`."""
    try:
        relay(prog_name="crdt-sync relay", standalone_mode=True)
    except CrdtSyncError as exc:
        click.echo(f"error: {exc.message}. {exc.hint}", err=True)
        return 6 if isinstance(exc, ConnectionFailed) else 5
    return 0


if __name__ == "__main__":
    sys.exit(main())
