"""The command-line reference, `docs/cli.md`, made from the commands themselves.

    python -m crdt_sync_client.cli.reference > docs/cli.md

A test compares the file with what this prints, so the two cannot drift apart.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Final

import click

from . import failures
from .main import cli

_WIDTH: Final = 100

_HEAD: Final = """\
# The command `crdt-sync`

Made by `python -m crdt_sync_client.cli.reference > docs/cli.md` from the commands; a test compares it.

Contract: the commands, their options, the exit codes and the keys of the JSON are stable. Texts for people
are not.

- Standard output carries the answer: text, or one line of JSON with `--json`. Progress, notes and errors go
  to standard error.
- An error is one line `error: what. why. what to do`. With `--json` the last line of standard error is an
  object `{"error": {"code", "message", "hint"}}`, with `field` for a wrong value and `problems` for a wrong
  schema.
- A command on a device takes its store from `--store` or `CRDT_SYNC_STORE`, and the passphrase from the first
  of `--passphrase-file`, `CRDT_SYNC_PASSPHRASE`, the system's keychain, and a hidden prompt on a terminal. A
  passphrase is never an argument.
- Moments in JSON are ISO 8601 in UTC, byte values are base64 text.
- A record is one object: its fields by name beside `id`, `type` and `_sync` (`state` is `synced`, `pending`,
  `conflict` or `failed`; `conflicts` are ids, `provisional` the fields whose value waits for a decision,
  `orphaned` says that the record it belongs to is deleted or not on this device). Where a schema has a field
  called `type`, that field is shown, and `_sync.type` still is the record type.
"""


def commands(
    group: click.Group = cli, parent: click.Context | None = None
) -> Iterator[tuple[click.Context, click.Command]]:
    """Every command with its context, groups before their members, in the order of the help."""
    context = _context(group, "crdt-sync" if parent is None else str(group.name), parent)
    yield context, group
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from commands(command, context)
        elif command is not None:
            yield _context(command, name, context), command


def _context(command: click.Command, name: str, parent: click.Context | None) -> click.Context:
    settings = {**command.context_settings, "terminal_width": _WIDTH}
    return click.Context(command, info_name=name, parent=parent, **settings)


def reference() -> str:
    """The whole of `docs/cli.md`."""
    parts = [_HEAD, "## Exit codes\n", "| code | meaning |\n|---|---|"]
    parts += [f"| {code} | {meaning} |" for code, meaning in failures.EXIT_CODES]
    for context, command in commands():
        parts.append(f"\n## `{context.command_path}`\n\n```text\n{command.get_help(context)}\n```")
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    sys.stdout.write(reference())
