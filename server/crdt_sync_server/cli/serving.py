"""`serve`, `token` and `take-back`."""

from __future__ import annotations

import json
import os
import time
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import click

from crdt_sync_server.cli.shape import Command, json_option
from crdt_sync_server.data_dir import DataDir
from crdt_sync_server.setting_sources import setting_options
from crdt_sync_server.setting_types import Duration
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


@click.command(
    cls=Command,
    examples=(
        "crdt-sync relay take-back --data ./relay",
        "crdt-sync relay take-back --for 2h --data ./relay",
        "crdt-sync relay take-back --stop --data ./relay",
    ),
)
@setting_options("data")
@click.option(
    "--for", "span_s", type=Duration(60, 90 * 86_400), default="7d", show_default=True, help="How long."
)
@click.option("--stop", is_flag=True, help="Not any longer.")
@json_option
def take_back(data: Path, span_s: float, stop: bool, as_json: bool) -> None:
    """Let devices bring back spaces that this relay has lost.

    For a relay that begins with an empty directory in the place of one that was lost. Its members' devices
    bring what they have by themselves. Meanwhile founding a space needs no setup token, if it is called a
    lost one. A relay restored from a backup needs this only for spaces that are not in the backup. Works
    while the relay runs.
    """
    until_ms = 0 if stop else time.time_ns() // 1_000_000 + int(span_s * 1000)
    DataDir.open(data, create=False).take_back(until_ms)
    if as_json:
        click.echo(json.dumps({"until_ms": until_ms}))
    elif stop:
        click.echo("Lost spaces are not taken back any longer.")
    else:
        until = datetime.fromtimestamp(until_ms / 1000).astimezone()
        click.echo(f"Lost spaces are taken back until {until:%Y-%m-%d %H:%M %Z}.")


COMMANDS: Final = (serve, token, take_back)
