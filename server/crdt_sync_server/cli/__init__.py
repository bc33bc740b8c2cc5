"""`crdt-sync relay`: the operator's commands. Failures are raised; the root command words them."""

from __future__ import annotations

import click

from crdt_sync_server.cli import configuring, operating, restoring, revoking, serving, top


@click.group()
def relay() -> None:
    """Run the relay that stores and forwards what devices encrypt.

    A relay can read none of what it stores. It needs one directory and one port.
    """


for _module in (serving, configuring, operating, restoring, revoking, top):
    for _command in _module.COMMANDS:
        relay.add_command(_command)
