"""`config`: what is in force, and where it comes from."""

from __future__ import annotations

from typing import Any, Final

import click

from crdt_sync_server.cli.shape import Command, json_option, print_json, print_table
from crdt_sync_server.setting_sources import origin_of, setting_options
from crdt_sync_server.settings import SETTINGS, limits_of


@click.command(
    cls=Command,
    examples=(
        "crdt-sync relay config --config /etc/crdt-sync/relay.toml",
        "CRDT_SYNC_RELAY_SPACE_QUOTA=2GiB crdt-sync relay config --data ./relay --json",
    ),
)
@setting_options()
@json_option
@click.pass_context
def config(ctx: click.Context, /, as_json: bool, **values: Any) -> None:
    """Show every setting that `serve` would have, and its source.

    Give it the same flags, environment and file as `serve`: what is wrong is said as `serve` would say it,
    and nothing is started. Secrets are not shown.
    """
    limits_of(values)
    rows = [
        (setting, setting.show(values[setting.name]), origin_of(ctx, setting.name)) for setting in SETTINGS
    ]
    if as_json:
        print_json([{"name": s.name, "value": value, "from": origin} for s, value, origin in rows])
    else:
        print_table(("setting", "value", "from"), [(s.name, value, origin) for s, value, origin in rows])


COMMANDS: Final = (config,)
