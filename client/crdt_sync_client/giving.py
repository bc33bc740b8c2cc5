"""Giving a relay back, in a session, what it has lost, without I/O: see `engine.giving_back`.

The store says which snapshots the relay lacks, some at a time. When all of those were answered the store is
asked for more, also when something has come meanwhile that may have made more possible.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from crdt_sync.crypto.envelope import Header
from crdt_sync.errors import RelayRefused
from crdt_sync.ids import OpaqueId, SpaceId
from crdt_sync.protocol.codes import CloseCode
from crdt_sync.protocol.frames import Forked

from .endings import Reconnect
from .engine import Engine
from .session_steps import Step

logger = logging.getLogger("crdt_sync.client")

_NOT_KNOWN = frozenset({CloseCode.UNKNOWN_SPACE, CloseCode.UNAUTHENTICATED})


class GiveBackStep(Step):
    """Tell the store the relay's answers, and take what to give back next."""

    def __init__(
        self,
        engine: Engine,
        space: SpaceId,
        answers: Sequence[tuple[OpaqueId, str]],
        *,
        again: bool,
        max_bytes: int,
    ) -> None:
        super().__init__(engine, space)
        self.snapshots: list[bytes] = []
        self.looks_on = False
        """Whether there is more to look at."""
        self._answers = answers
        self._again = again
        self._max_bytes = max_bytes

    def work(self) -> None:
        for record, code in self._answers:
            self.engine.gave_back(self.space, record, code)
        self.snapshots = self.engine.give_back(self.space, max_bytes=self._max_bytes, again=self._again)
        self.looks_on = self.engine.looks_on(self.space)


class ForkStep(Step):
    """The membership log went on differently at the relay: make one log of both."""

    def __init__(self, engine: Engine, space: SpaceId, frame: Forked) -> None:
        super().__init__(engine, space)
        self._frame = frame

    def work(self) -> None:
        self.engine.take_branch(self.space, self._frame.common, self._frame.entries)


class GivingBack:
    """What one session gives back."""

    def __init__(self) -> None:
        self._due = False
        self._again = False
        self._on_its_way: set[OpaqueId] = set()
        self._answers: list[tuple[OpaqueId, str]] = []

    @property
    def idle(self) -> bool:
        """Nothing to give back, and nothing to hear about what was."""
        return not (self._due or self._on_its_way or self._answers)

    @property
    def ready(self) -> bool:
        """Whether the store is to be asked now."""
        return not self._on_its_way and (self._due or bool(self._answers))

    def look(self, *, again: bool = False) -> None:
        """The relay may lack something; `again`: more can be given back than before."""
        self._due = True
        self._again = self._again or again

    def next_step(self, engine: Engine, space: SpaceId, max_bytes: int) -> GiveBackStep:
        answers, self._answers = self._answers, []
        again, self._due, self._again = self._again, False, False
        return GiveBackStep(engine, space, answers, again=again, max_bytes=max_bytes)

    def done(self, step: GiveBackStep) -> list[bytes]:
        """What to send."""
        if step.error is not None:
            return []
        self._due |= step.looks_on
        self._on_its_way = {Header.unpack(snapshot).record for snapshot in step.snapshots}
        return step.snapshots

    def answered(self, record: OpaqueId, code: str) -> bool:
        """The relay's word about a snapshot; whether it was one of ours."""
        if record not in self._on_its_way:
            return False
        self._on_its_way.discard(record)
        self._answers.append((record, code))
        return True


def after_refusal(engine: Engine, space: SpaceId, refused: RelayRefused, *, tried: bool) -> Exception:
    """What to make of it that the relay does not know us: it may have lost that it did.

    `tried`: the membership log was given back in this connection. On the engine's thread.
    """
    if tried or refused.close_code not in _NOT_KNOWN or not engine.revive(space, wanted=True):
        return refused
    logger.warning("the relay does not know this space or this device any more; giving the members back")
    return Reconnect("the relay is given the membership log", hint="the device tries again")
