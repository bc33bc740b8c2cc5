"""`crdt-sync relay`: the operator's commands. Failures are raised; the root command words them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Final

import click

from crdt_sync_server.data_dir import DataDir

_data_option: Final = click.option(
    "--data",
    type=click.Path(path_type=Path),
    required=True,
    metavar="DIR",
    help="The relay's data directory; made if it is new.",
)
_json_option: Final = click.option(
    "--json", "as_json", is_flag=True, help="Print one line of JSON for programs."
)


class _Command(click.Command):
    """A command whose help ends with examples that can be copied."""

    def __init__(self, *args: Any, examples: tuple[str, ...] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.examples = examples

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Example" if len(self.examples) == 1 else "Examples"):
            for example in self.examples:
                formatter.write(f"{' ' * formatter.current_indent}{example}\n")


@click.group()
def relay() -> None:
    """Run the relay that stores and forwards what devices encrypt.

    A relay can read none of what it stores. It needs one directory and one port.
    """


@relay.command(
    cls=_Command,
    examples=(
        "crdt-sync relay serve --data ./relay",
        "crdt-sync relay serve --data /var/lib/crdt-sync --host 0.0.0.0 --port 8787 --json",
    ),
)
@_data_option
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    default=8787,
    show_default=True,
    type=click.IntRange(0, 65535),
    help="Port to listen on; 0 takes any free one.",
)
@_json_option
def serve(data: Path, host: str, port: int, as_json: bool) -> None:
    """Serve devices until stopped with Ctrl-C or SIGTERM.

    The first start prints the setup token, once: whoever has it may create spaces on this relay. With --json,
    one line with `url` and `setup_token` (null on later starts) is printed when the relay listens.
    """
    from crdt_sync_server.serve import Listening
    from crdt_sync_server.serve import serve as run

    def announce(listening: Listening) -> None:
        if as_json:
            click.echo(json.dumps({"url": listening.url, "setup_token": listening.setup_token}))
            return
        click.echo(f"The relay listens on {listening.url}")
        if listening.setup_token is not None:
            click.echo(f"Setup token: {listening.setup_token}")
            click.echo("Keep it: it is shown only now, and whoever has it may create spaces on this relay.")

    run(data, host, port, announce)


@relay.command(cls=_Command, examples=("crdt-sync relay token --data ./relay",))
@_data_option
@_json_option
def token(data: Path, as_json: bool) -> None:
    """Make a new setup token. The one before is not valid any more.

    Works while the relay runs. Spaces that exist are not touched.
    """
    made = DataDir.open(data, create=False).new_token(os.urandom)
    click.echo(json.dumps({"setup_token": made}) if as_json else f"Setup token: {made}")
