"""Group commit: local writes that come at the same time share one durable commit.

Each `await device.update(...)` is one operation that succeeds or fails by itself and resolves only after
the commit that holds it. Operations that arrive while a commit runs go with the next one, so the busier
the device, the more of them share an fsync, and a single write never waits for company.

When a space is connected and has room on its way to the relay, its new updates are sealed in the same hop
to the engine's thread and the same commit, and go out as soon as that is done.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final, overload

from crdt_sync.errors import CrdtSyncError
from crdt_sync.ids import SpaceId

from .database_thread import DatabaseThread
from .engine import Engine, model
from .live_session import LiveSession, Publish
from .session_steps import PushBounds
from .sync_loop import SpaceSync

logger = logging.getLogger("crdt_sync.client")

MAX_OPERATIONS: Final = 1_024
"""In one commit. Bounds how long the first caller waits for the last one's share: some 100 ms."""

_Work = model.Operation | model.Transaction
_Waiting = tuple[_Work, "asyncio.Future[Any]"]
_Done = tuple[Sequence[model.Outcome], dict[SpaceId, list[bytes]], set[SpaceId]]


class WriteQueue:
    """See the module. Lives in the event loop."""

    def __init__(
        self,
        thread: DatabaseThread,
        syncs: Callable[[], Mapping[SpaceId, SpaceSync]],
        publish: Publish,
    ) -> None:
        self._thread = thread
        self._syncs = syncs
        self._publish = publish
        self._waiting: deque[_Waiting] = deque()
        self._task: asyncio.Task[None] | None = None

    @overload
    async def write(self, op: model.Operation) -> model.WriteResult: ...

    @overload
    async def write(self, op: model.Transaction) -> model.TransactionResult: ...

    async def write(self, op: _Work) -> model.WriteResult | model.TransactionResult:
        """Do an operation or a transaction; returns after its durable commit, or raises why not."""
        done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append((op, done))
        if self._task is None:
            self._task = asyncio.create_task(self._commit_all(), name="local writes")
        outcome: model.WriteResult | model.TransactionResult = await done
        return outcome

    async def drained(self) -> None:
        """Returns when no write is on its way."""
        while self._task is not None:
            await asyncio.wait((self._task,))

    async def _commit_all(self) -> None:
        try:
            while self._waiting:
                taken = self._take()
                # A caller that was cancelled before its operation was taken gets what it asked for: nothing.
                taken = [item for item in taken if not item[1].cancelled()]
                await self._commit(taken)
        finally:
            self._task = None

    def _take(self) -> list[_Waiting]:
        taken: list[_Waiting] = []
        operations = 0
        while self._waiting and operations < MAX_OPERATIONS:
            work, done = self._waiting.popleft()
            operations += len(work.ops) if isinstance(work, model.Transaction) else 1
            taken.append((work, done))
        return taken

    async def _commit(self, taken: Sequence[_Waiting]) -> None:
        ready = self._begin()
        sealed: dict[SpaceId, list[bytes]] = {}
        again: set[SpaceId] = set()
        try:
            results, sealed, again = await self._thread.run(self._work(taken, ready))
        except Exception as exc:
            _fail(taken, exc)
            return
        finally:
            for space, session in ready.items():
                session.pushed(sealed.get(space), more=space in again)
        self._settle(taken, results, sealed)

    def _work(self, taken: Sequence[_Waiting], ready: Mapping[SpaceId, LiveSession]) -> Callable[[], _Done]:
        """What the engine's thread does: write, and seal what that gave for the sessions that have room."""
        engine = self._thread.store.engine
        ops = [op for op, _ in taken]
        pushes = {space: session.bounds for space, session in ready.items()}
        return lambda: write_and_seal(engine, ops, pushes)

    def _begin(self) -> dict[SpaceId, LiveSession]:
        """The sessions that may be given something in this commit's hop."""
        ready = {}
        for space, sync in self._syncs().items():
            session = sync.session
            if session is not None and session.live and session.window.begin():
                ready[space] = session
        return ready

    def _settle(
        self,
        taken: Sequence[_Waiting],
        results: Sequence[model.Outcome],
        sealed: Collection[SpaceId],
    ) -> None:
        unsealed: set[SpaceId] = set()
        for (_, done), result in zip(taken, results, strict=True):
            if isinstance(result, CrdtSyncError):
                if not done.cancelled():
                    done.set_exception(result)
                continue
            if result.changed and result.space not in sealed:
                unsealed.add(result.space)
            if not done.cancelled():
                done.set_result(result)
        for space in unsealed:
            sync = self._syncs().get(space)
            if sync is not None:
                sync.push_soon()
        self._publish(model.changes_of(results))


def write_and_seal(engine: Engine, ops: Sequence[_Work], pushes: Mapping[SpaceId, PushBounds]) -> _Done:
    """On the engine's thread: do the operations, and seal what they gave for the spaces that have room.

    Returns the results, the envelopes of each space that was written to and has room, and those of the spaces
    whose sessions are to ask again: there is more to send, or something is held back for a while.
    """
    if pushes:
        try:
            results, sealed = engine.write_and_push(ops, pushes)
            again = {
                space
                for space in sealed
                if engine.has_more_to_push(space) or engine.lease_rest_s(space) is not None
            }
            return results, sealed, again
        except Exception:
            logger.exception("sealing failed; the write is tried without it")
    return engine.write(ops), {}, set()


def _fail(taken: Sequence[_Waiting], error: Exception) -> None:
    """The commit failed as a whole: nothing of it was done."""
    for _, done in taken:
        if not done.done():
            done.set_exception(error)
