"""Which value of a status field may follow which.

Checked when a device writes, never when documents merge: two legal steps made while apart can meet in
a state that no table foresaw, and refusing it would lose a write. The table is the schema's
`x-transitions`: each value with the values that may follow; a value without an entry is final.

The first value of a field is free (imported records arrive in any state), writing the value that
stands is no step, and from a value the table does not know (a newer schema's) every step is allowed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from crdt_sync.errors import TransitionError
from crdt_sync.records.changes import Value
from crdt_sync.schemas.sentences import shown

if TYPE_CHECKING:
    from crdt_sync.schemas.model import FieldSpec


def next_values(spec: FieldSpec, current: Value) -> tuple[str, ...] | None:
    """The values that may follow `current`; None when any may."""
    if spec.transitions is None or not isinstance(current, str) or current not in spec.transitions:
        return None
    return spec.transitions[current]


def check_transition(spec: FieldSpec, field: str, current: Value, new: Value) -> None:
    """Raises TransitionError when `new` may not follow `current`, naming what may.

    `current` is the value as the writer sees it (None when there is none), `field` the dotted path.
    """
    allowed = next_values(spec, current)
    if allowed is None or new == current or new in allowed:
        return
    what = "be cleared" if new is None else f"become {shown(new)}"
    if not allowed:
        raise TransitionError(field, f"{shown(current)} is final and may not {what}")
    listed = ", ".join(allowed[:-1]) + " or " * (len(allowed) > 1) + allowed[-1]
    raise TransitionError(
        field, f"{shown(current)} may not {what}", hint=f"from {shown(current)} it may become {listed}"
    )
