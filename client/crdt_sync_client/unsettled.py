"""Spaces of which this device does not know yet whether the relay has them: `creating` and `joining`.

The store keeps such a space from before the entry leaves until the relay's answer. A welcome as a member
settles it. A relay that does not know us settles it too, but only once the entry cannot be on its way any
more: what was sent into a link that broke may still arrive when it works again.
"""

from __future__ import annotations

from typing import Final

from crdt_sync.errors import InviteError, RelayRefused, ShutOut
from crdt_sync.ids import SpaceId
from crdt_sync.membership.entries import parse_entry
from crdt_sync.protocol.codes import CloseCode
from crdt_sync.schemas.builtin import SCHEMA_TYPE

from .engine import Engine
from .engine.model import SpaceState

ON_ITS_WAY_MS: Final = 120_000
"""Relays close a connection of which they hear nothing after 40 s; what comes later comes too late."""
_NEVER_WAS: Final = frozenset({CloseCode.UNAUTHENTICATED, CloseCode.FORBIDDEN, CloseCode.UNKNOWN_SPACE})


def says_no(error: Exception | None) -> bool:
    """Whether this is the relay's word that we, our invite or the space are not known to it."""
    if isinstance(error, ShutOut):
        return False  # it is known, or it would not be shut out
    if isinstance(error, RelayRefused):
        return error.close_code in _NEVER_WAS
    return isinstance(error, InviteError)


def unsettled(engine: Engine, space: SpaceId) -> SpaceState | None:
    """The space, if the store has it and it is not settled. On the engine's thread."""
    for state in engine.spaces():
        if state.id == space and state.stage != "active":
            return state
    return None


def forget(engine: Engine, space: SpaceId) -> None:
    """It never was: forget it, if the store has it. On the engine's thread."""
    if unsettled(engine, space) is not None:
        engine.abandon_space(space)


def forget_what_never_was(engine: Engine, space: SpaceId, refused: RelayRefused, now_ms: int) -> bool:
    """Forget a space that the relay refused, if that can be known and nobody has written into it.

    `now_ms` is the device's clock, by which the entry was made. On the engine's thread.
    """
    state = unsettled(engine, space)
    if state is None or not says_no(refused):
        return False
    if state.stage == "joining" and state.pending_entry is not None:
        age_ms = now_ms - parse_entry(state.pending_entry).at_ms
        if 0 <= age_ms < ON_ITS_WAY_MS:
            return False
    if any(item.type != SCHEMA_TYPE for item in engine.outbox(space)):
        return False
    engine.abandon_space(space)
    return True
