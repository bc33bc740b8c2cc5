"""What a session asks of the store: one object per hop to the engine's thread.

A step is made in the event loop, run on the engine's thread, and handed back to `SessionDriver.done` in the
event loop. `run` never raises: `error` holds what stopped it.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence

from crdt_sync.crypto.envelope import Header
from crdt_sync.ids import OpaqueId, RelayId, SpaceId
from crdt_sync.protocol.frames import ConfirmRequest, FromRelay, Welcome
from crdt_sync.protocol.leases import Promised

from .engine import Engine
from .engine.checkouts import Chosen
from .engine.fetched import FetchedRecord
from .engine.model import Received, Welcomed
from .incoming_batch import IncomingBatch

PushBounds = tuple[int, int]
"""At most that many envelopes, and bytes of envelopes, in one push."""


class Step(ABC):
    """See the module."""

    needs_store = True
    """False: there is nothing to run, `done` is due at once."""

    def __init__(self, engine: Engine, space: SpaceId) -> None:
        self.engine = engine
        self.space = space
        self.error: Exception | None = None

    def run(self) -> None:
        """On the engine's thread."""
        try:
            self.work()
        except Exception as exc:
            self.error = exc

    @abstractmethod
    def work(self) -> None:
        """What it is there for. What this raises becomes `error`."""


class WelcomeStep(Step):
    """Compare chains with the relay. Its welcome also proves that it took our genesis or join."""

    def __init__(self, engine: Engine, space: SpaceId, relay: RelayId, frame: Welcome) -> None:
        super().__init__(engine, space)
        self.frame = frame
        self.welcomed = Welcomed(resend=0)
        self.more = False
        """Whether there may be something to push."""
        self.wants = False
        """Whether records are to be fetched."""
        self.lost_entries: tuple[bytes, ...] = ()
        """Membership entries that the relay lacks."""
        self.gives_back = False
        """Whether the relay may lack records."""
        self.promised: list[tuple[Chosen, Promised]] = []
        """Checkouts of which the relay may know nothing."""
        self._relay = relay

    def work(self) -> None:
        self.engine.confirm_taken(self.space)
        frame = self.frame
        self.engine.begin_leases(self.space, self._relay, frame.cursor, frame.now_ms)
        self.welcomed = self.engine.welcome(
            self.space, self._relay, frame.own_sequence, frame.own_hash, frame.head, frame.cursor
        )
        self.more = self.engine.has_more_to_push(self.space)
        self.lost_entries = self.engine.lost_entries(self.space, frame.members_head)
        self.promised = self.engine.promised_checkouts(self.space)
        self.wants = self.engine.wants(self.space)
        self.gives_back = self.engine.gives_back(self.space)


class PushStep(Step):
    """Seal and line up what may go out now."""

    def __init__(self, engine: Engine, space: SpaceId, bounds: PushBounds) -> None:
        super().__init__(engine, space)
        self.envelopes: list[bytes] = []
        self.more = False
        """Whether there may be more to push at once."""
        self.rest_s: float | None = None
        """How long the first of what is held back stays so, because others have it checked out."""
        self.over = False
        """Whether work that waited for a checkout to end may go in another session."""
        self.relay_now_ms: int | None = None
        """What the relay's clock shows, where that is known."""
        self._bounds = bounds

    def work(self) -> None:
        count, size_bytes = self._bounds
        if self.relay_now_ms is not None:
            self.engine.hear_relay_clock(self.space, self.relay_now_ms)
        self.envelopes = self.engine.next_push(self.space, max_count=count, max_bytes=size_bytes)
        self.more = self.engine.has_more_to_push(self.space)
        self.rest_s = self.engine.lease_rest_s(self.space)
        self.over = self.engine.passed_over_is_due(self.space)


class BatchStep(PushStep):
    """Store what came in, and with the same hop take what may go out now."""

    def __init__(
        self,
        engine: Engine,
        space: SpaceId,
        frames: Sequence[FromRelay],
        *,
        appends: Sequence[bytes],
        bounds: PushBounds | None,
    ) -> None:
        """`appends` are our membership entries that wait for an answer, oldest first."""
        super().__init__(engine, space, bounds or (0, 0))
        self.frames = frames
        self.batch = IncomingBatch(engine, space, frames, appends=appends)
        self.pushes = bounds is not None
        self.wants = False
        """Whether records are to be fetched."""
        self.gives_back = False
        """Whether the relay may lack records."""

    def work(self) -> None:
        self.batch.store()
        if self.batch.error is not None:
            raise self.batch.error
        self.wants = self.engine.wants(self.space)
        self.gives_back = self.engine.gives_back(self.space)
        if self.pushes and not (self.batch.reconnect or self.batch.over):
            super().work()


class SnapshotStep(Step):
    """Compact those records that this device can vouch for."""

    def __init__(self, engine: Engine, space: SpaceId, records: Sequence[OpaqueId]) -> None:
        super().__init__(engine, space)
        self.records = records
        self.snapshots: list[bytes] = []

    def work(self) -> None:
        self.snapshots = self.engine.make_snapshots(self.space, self.records)

    @property
    def left_out(self) -> list[OpaqueId]:
        """Those of the records that no snapshot was made of."""
        made = {Header.unpack(snapshot).record for snapshot in self.snapshots}
        return [record for record in self.records if record not in made]


class WantedStep(Step):
    """Which records the relay is to be asked for."""

    def __init__(self, engine: Engine, space: SpaceId, limit: int) -> None:
        super().__init__(engine, space)
        self.wanted: list[OpaqueId] = []
        self._limit = limit

    def work(self) -> None:
        self.wanted = self.engine.wanted(self.space, self._limit)


class FetchedStep(Step):
    """Make records anew that have come whole."""

    def __init__(self, engine: Engine, space: SpaceId, records: Sequence[FetchedRecord]) -> None:
        super().__init__(engine, space)
        self.records = records
        self.received: Received | None = None

    def work(self) -> None:
        self.received = self.engine.take_fetched(self.space, self.records)


class ConfirmStep(Step):
    """See whether another device's snapshot holds what it covers."""

    def __init__(self, engine: Engine, space: SpaceId, asked: ConfirmRequest) -> None:
        super().__init__(engine, space)
        self.record = Header.unpack(asked.envelope).record
        self.snapshot = hashlib.sha256(asked.envelope).digest()
        self.answer = ""
        self._asked = asked

    def work(self) -> None:
        self.answer = self.engine.confirm_snapshot(self.space, self._asked.envelope, self._asked.rest)


class CursorStep(Step):
    """Keep a cursor that moved over our own rows, so that the next session does not walk them again."""

    def __init__(self, engine: Engine, space: SpaceId, cursor: int) -> None:
        super().__init__(engine, space)
        self._cursor = cursor

    def work(self) -> None:
        self.engine.receive(self.space, [], self._cursor, caught_up=False)
