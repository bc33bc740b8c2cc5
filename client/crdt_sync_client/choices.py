"""What somebody may choose where a conflict stands, and how a merge function is asked."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from crdt_sync.errors import ConflictNotFound, MergeFailed, ValidationError

from .engine.model import UNSET, Alternative, ConflictEntry, Keep, ResolveOp

MergeFunction: TypeAlias = Callable[[tuple[Alternative, ...]], Any | Awaitable[Any]]
"""Takes all alternatives and returns the value that shall stand, or an awaitable of it."""


@dataclass(frozen=True, slots=True)
class OwnValue:
    """A value of one's own, in place of all alternatives."""

    value: Any


Choice: TypeAlias = Keep | int | OwnValue | MergeFunction
"""A side to keep, the index of an alternative, a value of one's own, or a function that makes one."""


async def operation(entry: ConflictEntry, choice: Choice, *, remember: bool = False) -> ResolveOp:
    """The choice as the engine knows it. Raises MergeFailed when a merge function raises.

    It holds for these alternatives only: when another one comes in, the conflict has another id.
    """
    if isinstance(choice, str):
        return ResolveOp(entry.id, keep=choice, remember=remember)
    if isinstance(choice, bool):
        raise ValidationError(entry.field, "a choice is no truth value", hint="wrap a value: OwnValue(True)")
    if isinstance(choice, int):
        return ResolveOp(entry.id, alternative=choice, remember=remember)
    if isinstance(choice, OwnValue):
        return ResolveOp(entry.id, value=choice.value, remember=remember)
    return ResolveOp(entry.id, value=await _merged(entry, choice), remember=remember)


async def _merged(entry: ConflictEntry, merge: MergeFunction) -> Any:
    if entry.about_deletion:
        raise ValidationError(
            entry.field, "is about a deletion and cannot be merged", hint="keep 'deleted' or 'record'"
        )
    try:
        value = merge(entry.alternatives)
        if inspect.isawaitable(value):
            value = await value
    except Exception as exc:
        raise MergeFailed(
            entry.field,
            f"the merge function raised {type(exc).__name__}; nothing was changed",
            hint="mend the function, or decide with keep, alternative or value",
        ) from exc
    if value is UNSET:
        raise MergeFailed(entry.field, "the merge function gave no value", hint="return one; None clears")
    return value


def does_not_fit(error: ValidationError) -> MergeFailed:
    """What a merge function returned was refused: said as that."""
    return MergeFailed(
        error.field, f"what the merge function returned {_bare(error)}; nothing was changed", hint=error.hint
    )


def _bare(error: ValidationError) -> str:
    return error.message.removeprefix(f"{error.field}: ")


def for_record(
    standing: Mapping[str, ConflictEntry], choices: Mapping[str, Choice], keep: Keep | None, what: str
) -> list[tuple[ConflictEntry, Choice]]:
    """Pair each choice with its conflict; `keep` is for the open ones not named.

    `standing` are all standing conflicts of the record by dotted field, `what` names the record. Raises
    ConflictNotFound naming the fields that are in conflict.
    """
    for field in choices:
        if field not in standing:
            there = ", ".join(sorted(standing)) or "none"
            raise ConflictNotFound(
                f"no conflict stands about {field[:60]} of {what}",
                hint=f"those that stand are about: {there}",
            )
    chosen: list[tuple[ConflictEntry, Choice]] = [(standing[field], each) for field, each in choices.items()]
    if keep is not None:
        chosen += [
            (entry, keep)
            for field, entry in standing.items()
            if field not in choices and entry.state == "open"
        ]
    if not chosen:
        raise ConflictNotFound(
            f"{what} has no open conflict", hint="list all with `crdt-sync conflicts ls --all`"
        )
    return chosen
