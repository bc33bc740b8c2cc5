"""The root command: which commands there are, how they are found, and how every failure ends.

Commands are loaded when they are needed. Other packages add theirs through the entry point group
`crdt_sync.commands`; that is how `crdt-sync relay` gets here without the client importing the server.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

import click

from . import failures
from .command import CONTEXT_SETTINGS, Group, write_examples

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

PLUGIN_GROUP: Final = "crdt_sync.commands"

# Command -> module of this package that defines it as `command_<name>`, in the order of the help.
_OWN: Final = {
    "init": "setup",
    "space": "spaces",
    "invite": "spaces",
    "join": "spaces",
    "create": "records",
    "set": "records",
    "get": "records",
    "ls": "records",
    "rm": "records",
    "restore": "records",
    "import": "importing",
    "sync": "syncing",
    "status": "syncing",
    "outbox": "outbox",
    "queue": "syncing",
    "conflicts": "conflicts",
    "checkout": "checkouts",
    "checkin": "checkouts",
    "renew": "checkouts",
    "checkouts": "checkouts",
    "explain": "explain",
    "history": "explain",
    "schema": "schemas",
    "fetch": "scoping",
    "scope": "scoping",
    "settings": "settings",
    "store": "store",
    "doctor": "doctoring",
    "logout": "store",
}

_EXAMPLES: Final = (
    "crdt-sync relay serve --data ./relay",
    "crdt-sync init --store office.db --name Office",
    "crdt-sync space create 'Pit 4' --store office.db --relay ws://127.0.0.1:8787 --schema work_order",
    "crdt-sync create work_order --store office.db title='Swap bucket' asset_id=A",
    "crdt-sync sync --store office.db",
)


class Root(Group):
    """`crdt-sync`: loads commands lazily and turns every error into a line and an exit code."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*_OWN, *sorted(name for name in _plugins() if name not in _OWN)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if module := _OWN.get(cmd_name):
            command = getattr(import_module(f"{__package__}.{module}"), f"command_{cmd_name}")
            assert isinstance(command, click.Command)
            return command
        if plugin := _plugins().get(cmd_name):
            return _load(plugin)
        return None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_commands(ctx, formatter)
        with formatter.section("Exit codes"):
            formatter.write_dl([(str(code), meaning) for code, meaning in failures.EXIT_CODES])

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        write_examples(formatter, _EXAMPLES)

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Run; ends the process with the documented code unless `standalone_mode=False`."""
        given = list(args) if args is not None else sys.argv[1:]

        def invoke() -> Any:
            # Without standalone mode click hands back the code of `ctx.exit`, or what the command returned.
            return super(Root, self).main(given, prog_name, complete_var, standalone_mode=False, **extra)

        if not standalone_mode:
            return invoke()
        try:
            code = invoke()
        except click.exceptions.NoArgsIsHelpError as exc:
            click.echo(exc.format_message(), err=True)
            code = failures.USAGE
        except (click.Abort, KeyboardInterrupt):
            click.echo("interrupted", err=True)
            code = failures.INTERRUPTED
        except BrokenPipeError:
            # The reader of our output (`head`, say) left; nothing failed here.
            sys.stdout = None
            code = failures.OK
        except Exception as exc:  # the one place where any failure becomes a line and a code
            code = failures.report(exc, as_json="--json" in given)
        sys.exit(code if isinstance(code, int) else failures.OK)


def _plugins() -> dict[str, EntryPoint]:
    from importlib.metadata import entry_points  # 20 ms, which commands of our own need not wait for

    return {point.name: point for point in entry_points(group=PLUGIN_GROUP)}


def _load(plugin: EntryPoint) -> click.Command:
    """The plugin's command; when it cannot be imported, one that says so, so that the others still work."""
    try:
        command = plugin.load()
    except ImportError as exc:
        reason = f"{plugin.name} is not installed completely: {exc}"

        def complain() -> None:
            raise click.ClickException(reason)

        return click.Command(plugin.name, callback=complain, short_help=f"(not available: {exc})")
    assert isinstance(command, click.Command), f"{plugin.value} is not a click command"
    return command


def _print_version(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if value:
        from importlib.metadata import version

        click.echo(f"crdt-sync {version('crdt-sync')}")
        ctx.exit()


@click.command(cls=Root, context_settings=CONTEXT_SETTINGS)
@click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_print_version,
    help="Print the version and exit.",
)
def cli() -> None:
    """Records that several people edit without a network, merged by a rule per field.

    Everything is read and written in the device's own encrypted database; `crdt-sync sync` exchanges
    encrypted changes with the others through a relay that can read none of them.
    """


def main() -> None:
    """Entry point of the `crdt-sync` script."""
    cli.main(prog_name="crdt-sync")
