"""How the command line ends: exit codes, and what it says when something went wrong.

Every failure prints one line, `error: what. why. what to do`, on standard error. With `--json` a second line
follows, an object with a stable `code`, so that a program never has to read prose.
"""

from __future__ import annotations

import json
import os
import traceback
from typing import Any, Final

import click

from crdt_sync import errors

OK: Final = 0
UNEXPECTED: Final = 1
USAGE: Final = 2
NOT_FOUND: Final = 3
INVALID: Final = 4
STORE: Final = 5
RELAY: Final = 6
PERMISSION: Final = 7
PARTIAL: Final = 8
CLOSED: Final = 9
UNSAFE: Final = 10
DAMAGED: Final = 11
INTERRUPTED: Final = 130
"""128 + SIGINT, as shells report it."""

EXIT_CODES: Final = (
    (OK, "done"),
    (UNEXPECTED, "unexpected failure; CRDT_SYNC_DEBUG=1 shows where"),
    (USAGE, "wrong usage: unknown command, missing or malformed option"),
    (NOT_FOUND, "no such record, conflict, type or space"),
    (INVALID, "invalid value, status transition, schema, invite or import file"),
    (STORE, "the store: wrong passphrase, not a store, in use, already there; its disk"),
    (RELAY, "the relay cannot be reached, refused, or its port is taken"),
    (PERMISSION, "this device's role may not do that"),
    (PARTIAL, "an import left rows out; the others went in"),
    (CLOSED, "the conflict is resolved already"),
    (UNSAFE, "a schema may not follow the version before it, or not safely"),
    (DAMAGED, "the doctor found damage, or could not save everything"),
    (INTERRUPTED, "interrupted with Ctrl-C"),
)

# First match wins: the narrower family stands before the wider one.
_BY_FAMILY: Final[tuple[tuple[type[errors.CrdtSyncError], int], ...]] = (
    (errors.RecordNotFound, NOT_FOUND),
    (errors.RecordAbsent, NOT_FOUND),
    (errors.RecordDeleted, NOT_FOUND),
    (errors.ConflictNotFound, NOT_FOUND),
    (errors.UnknownType, NOT_FOUND),
    (errors.UnknownSpace, NOT_FOUND),
    (errors.PermissionDenied, PERMISSION),
    (errors.SchemaRefused, UNSAFE),
    (errors.ConflictClosed, CLOSED),
    (errors.LocalError, INVALID),
    (errors.StoreError, STORE),
    (errors.ConnectionFailed, RELAY),
    (errors.RemoteError, RELAY),
)


class UsageProblem(click.UsageError):
    """Wrong usage that only shows when the command runs; `hint` says what would have been right."""

    def __init__(self, message: str, *, hint: str = "", ctx: click.Context | None = None) -> None:
        super().__init__(message, ctx)
        self.hint = hint


def exit_code_of(error: BaseException) -> int:
    """The documented exit code for an error."""
    for family, code in _BY_FAMILY:
        if isinstance(error, family):
            return code
    return UNEXPECTED


def report(error: BaseException, *, as_json: bool) -> int:
    """Print `error` on standard error and return the exit code."""
    if isinstance(error, errors.CrdtSyncError):
        message, hint = error.message, error.hint or _last_resort(error)
        body: dict[str, Any] = {"code": error.code, "message": message, "hint": hint}
        if isinstance(error, errors.ValidationError):
            body["field"] = error.field
        if isinstance(error, errors.SchemaRefused):
            body["unsafe"] = list(error.unsafe)
        if isinstance(error, errors.RecordHasChildren):
            body["children"] = [{"type": record_type, "id": id} for record_type, id in error.children]
        if isinstance(error, errors.SchemaError):
            body["problems"] = [
                {"source": p.source, "line": p.line, "column": p.column, "message": p.message}
                for p in error.problems
            ]
        code = exit_code_of(error)
    elif isinstance(error, click.ClickException):
        message, hint = error.format_message(), _usage_hint(error)
        body = {"code": "usage", "message": message, "hint": hint}
        code = USAGE
    else:
        message = f"unexpected {type(error).__name__}: {error}"
        hint = "" if _debugging() else "set CRDT_SYNC_DEBUG=1 to see where it happened"
        body = {"code": "unexpected", "message": message, "hint": hint}
        code = UNEXPECTED
        if _debugging():
            click.echo("".join(traceback.format_exception(error)), err=True, nl=False)
    click.echo(click.style("error:", fg="red", bold=True) + " " + _sentences(message, hint), err=True)
    if as_json:
        click.echo(json.dumps({"error": body}, ensure_ascii=False), err=True)
    return code


def _last_resort(error: errors.CrdtSyncError) -> str:
    """The next step where the message already says what would be right."""
    if isinstance(error, errors.ValidationError):
        return "nothing was changed; correct it and run the command again"
    return ""


def _usage_hint(error: click.ClickException) -> str:
    if isinstance(error, UsageProblem) and error.hint:
        return error.hint
    ctx = getattr(error, "ctx", None)
    path = ctx.command_path if ctx is not None else "crdt-sync"
    return f"run `{path} --help` for its options and an example"


def _sentences(message: str, hint: str) -> str:
    """`what. why. hint`, or the hint on a line of its own under a message of several lines."""
    from .output import printable

    message = printable(message, keep_lines=True)
    if not hint:
        return message
    if "\n" in message:
        return f"{message}\n{hint}"
    end = "" if message.endswith(("?", "!", ".")) else "."
    # A command is written as it is typed, at the beginning of a sentence too.
    start = hint[:1] if hint.startswith("crdt-sync") else hint[:1].upper()
    return f"{message}{end} {start}{hint[1:]}"


def _debugging() -> bool:
    return os.environ.get("CRDT_SYNC_DEBUG", "") not in ("", "0")
