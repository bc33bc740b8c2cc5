"""`serve` and `token`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Final

import click

from crdt_sync_server.cli.shape import Command, json_option
from crdt_sync_server.data_dir import DataDir
from crdt_sync_server.setting_sources import setting_options
from crdt_sync_server.settings import limits_of


@click.command(
    cls=Command,
    examples=(
        "crdt-sync relay serve --data ./relay",
        "crdt-sync relay serve --config /etc/crdt-sync/relay.toml",
        "crdt-sync relay serve --data /var/lib/crdt-sync --host 0.0.0.0 --port 8787 --json",
    ),
)
@setting_options()
@json_option
def serve(as_json: bool, **values: Any) -> None:
    """Serve devices until stopped with Ctrl-C or SIGTERM.

    The first start prints the setup token, once: whoever has it may create spaces on this relay. With --json,
    one line with `url` and `setup_token` (null on later starts) is printed when the relay listens.

    Every setting can stand in a TOML file (max_frame = "2MiB") or in the environment
    (CRDT_SYNC_RELAY_MAX_FRAME=2MiB); a flag counts before the environment, and that before the file.
    """
    limits = limits_of(values)
    from crdt_sync_server.serve import Listening, ServeSettings
    from crdt_sync_server.serve import serve as run

    def announce(listening: Listening) -> None:
        if as_json:
            click.echo(json.dumps({"url": listening.url, "setup_token": listening.setup_token}))
            return
        click.echo(f"The relay listens on {listening.url}")
        if listening.setup_token is not None:
            click.echo(f"Setup token: {listening.setup_token}")
            click.echo("Keep it: it is shown only now, and whoever has it may create spaces on this relay.")

    run(ServeSettings.of(values, limits), announce)


@click.command(cls=Command, examples=("crdt-sync relay token --data ./relay",))
@setting_options("data")
@json_option
def token(data: Path, as_json: bool) -> None:
    """Make a new setup token. The one before is not valid any more.

    Works while the relay runs. Spaces that exist are not touched.
    """
    made = DataDir.open(data, create=False).new_token(os.urandom)
    click.echo(json.dumps({"setup_token": made}) if as_json else f"Setup token: {made}")


COMMANDS: Final = (serve, token)
