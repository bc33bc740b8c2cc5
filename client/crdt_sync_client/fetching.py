"""Fetching single records in a session, without I/O: what to ask the relay for, and when its answer counts.

The store says which records are wanted, the relay is asked for some of them at a time (one question is open
at a time, see `crdt_sync.protocol.frames.FetchRecords`), and what is whole goes to the store. An answer
counts from the moment on in which the store is at the end of the log and not behind the answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from crdt_sync.crypto.envelope import Header
from crdt_sync.errors import ProtocolViolation
from crdt_sync.ids import OpaqueId, SpaceId
from crdt_sync.protocol.frames import Fetched, Row
from crdt_sync.protocol.limits import MAX_FETCH_RECORDS

from .engine import Engine
from .engine.fetched import FetchedRecord
from .session_steps import FetchedStep, Step, WantedStep

MAX_RECORD_BYTES: Final = 64 * 1024 * 1024
"""Rows of one record that are held in memory until it is whole. A relay is asked to compact long before."""


class Fetching:
    """What one session fetches."""

    def __init__(self) -> None:
        self._due = False
        self._at_work = False
        self._asked: list[OpaqueId] = []
        self._answer: Fetched | None = None
        self._part: list[Row] = []
        """Of the first record that was asked for, when it did not fit one answer."""
        self.paused = False
        """Nothing is asked for: the network is not for that."""

    @property
    def idle(self) -> bool:
        """Nothing to look for, to wait for or to store."""
        return self.paused or not (self._due or self._at_work or self._asked)

    def look(self) -> None:
        """Something may be wanted."""
        self._due = True

    def arrived(self, answer: Fetched) -> None:
        self._answer = answer

    def ready(self, *, cursor: int, at_end: bool) -> bool:
        """Whether there is a step to do; `at_end`: what is stored ended where the log did, at `cursor`."""
        if not at_end:
            return False
        if self._answer is not None:
            return self._answer.head <= cursor
        return self._due and not (self._at_work or self._asked or self.paused)

    def next_step(self, engine: Engine, space: SpaceId) -> Step:
        """What the store has to do when it is ready. Raises RemoteError for an answer that cannot be."""
        answer = self._answer
        self._at_work = True
        if answer is not None:
            self._answer = None
            step = FetchedStep(engine, space, self._whole(answer))
            step.needs_store = bool(step.records)
            return step
        self._due = False
        return WantedStep(engine, space, MAX_FETCH_RECORDS)

    def done(self, step: WantedStep | FetchedStep) -> tuple[Sequence[OpaqueId], int] | None:
        """A step of ours was run. Gives what to ask for now: records, and from where on of the first."""
        self._at_work = False
        if isinstance(step, WantedStep):
            self._asked = step.wanted
        elif not self._asked:
            self._due = True  # there may be more
        if not self._asked or step.error is not None:
            return None
        return self._asked, self._part[-1].sequence if self._part else 0

    def _whole(self, answer: Fetched) -> list[FetchedRecord]:
        """The records that are whole with this answer; the others are asked for again."""
        rows: dict[OpaqueId, list[Row]] = {record: [] for record in self._asked}
        first = self._asked[0]
        rows[first] += self._part
        for row in answer.rows:
            record = Header.unpack(row.payload).record
            if record not in rows:
                raise ProtocolViolation("the relay sent rows of a record that was not asked for")
            rows[record].append(row)
        whole, self._asked = self._asked[: answer.whole], self._asked[answer.whole :]
        self._part = rows[self._asked[0]] if self._asked else []
        if sum(len(row.payload) for row in self._part) > MAX_RECORD_BYTES:
            raise ProtocolViolation(f"a record of more than {MAX_RECORD_BYTES // 1024**2} MiB of updates")
        return [
            FetchedRecord(
                record, [(row.sequence, int(row.kind), row.payload) for row in rows[record]], answer.head
            )
            for record in whole
        ]
