"""The caller asked for something that cannot be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from crdt_sync.errors.base import CrdtSyncError


class LocalError(CrdtSyncError):
    """The caller asked for something that cannot be; nothing was changed."""

    code = "local"


@dataclass(frozen=True, slots=True, order=True)
class SchemaProblem:
    """One thing wrong in a schema file. Lines and columns count from 1."""

    source: str
    line: int
    column: int
    message: str

    def __str__(self) -> str:
        return f"{self.source}:{self.line}:{self.column}: {self.message}"


class SchemaError(LocalError):
    """A schema that cannot be used, with everything wrong in it."""

    code = "schema"

    def __init__(self, problems: Sequence[SchemaProblem]) -> None:
        super().__init__(
            "\n".join(str(problem) for problem in problems),
            hint="correct the file and run `crdt-sync schema check FILE`",
        )
        self.problems = tuple(problems)


class ValidationError(LocalError):
    """A value that does not fit its field. `field` is the dotted path."""

    code = "validation"

    def __init__(self, field: str, message: str, *, hint: str = "") -> None:
        super().__init__(f"{field}: {message}", hint=hint)
        self.field = field


class TransitionError(ValidationError):
    """A status that may not follow the one before."""

    code = "transition"


class MergeFailed(ValidationError):
    """A function that was to decide a conflict raised (it is the cause), or returned what does not fit."""

    code = "merge_function"


class PermissionDenied(LocalError):
    """This device's role may not do that."""

    code = "permission"


class UnknownType(LocalError):
    code = "unknown_type"


class UnknownSpace(LocalError):
    code = "unknown_space"


class RecordNotFound(LocalError):
    code = "not_found"


class RecordAbsent(LocalError):
    """The space has that record; this device does not hold it now, and can fetch it from the relay."""

    code = "absent"


class NotReady(LocalError):
    """A space was not received whole yet, and the app asked to be told."""

    code = "not_ready"


class SchemaRefused(LocalError):
    """A schema that may not follow the one that a space carries. `unsafe`: why its changes are, if so."""

    code = "schema_refused"

    def __init__(self, message: str, *, hint: str = "", unsafe: Sequence[str] = ()) -> None:
        super().__init__(message, hint=hint)
        self.unsafe = tuple(unsafe)


class RecordDeleted(LocalError):
    code = "deleted"


class ConflictNotFound(LocalError):
    code = "conflict_not_found"


class ConflictClosed(LocalError):
    code = "conflict_closed"


class RecordTooLarge(LocalError):
    code = "too_large"


class TransactionError(LocalError):
    """A transaction that is over, too long, goes from one space to another, or was open during a lock."""

    code = "transaction"


class UnsyncedWork(LocalError):
    """A logout that would lose work which no relay has. `records` says in how many records."""

    code = "unsynced"

    def __init__(self, message: str, *, records: int, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.records = records


class RecordHasChildren(LocalError):
    """A record that cannot be deleted while others belong to it. `children`: their types and ids, if told."""

    code = "has_children"

    def __init__(self, message: str, *, hint: str = "", children: Sequence[tuple[str, str]] = ()) -> None:
        super().__init__(message, hint=hint)
        self.children = tuple(children)


class ImportFileError(LocalError):
    code = "import_file"


class InviteError(LocalError):
    code = "invite"


class InviteGarbled(InviteError):
    code = "invite_garbled"


class InviteExpired(InviteError):
    code = "invite_expired"


class InviteUsed(InviteError):
    code = "invite_used"


class InviteWithdrawn(InviteError):
    code = "invite_withdrawn"
