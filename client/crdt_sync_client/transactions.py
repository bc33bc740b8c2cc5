"""Transactions: writes to several records that are all done or none, here and on every other device.

    async with device.transaction() as t:
        order = await t.create("work_order", {"title": "Swap bucket teeth"})
        await t.update("asset", asset_id, {"status": "in_repair", "work_order_id": order.id})

Nothing is written before the block ends; then all of it is one durable commit, and one change for whoever
watches. When the block raises, or one of its writes cannot be done at the end, nothing has changed. Other
devices show all of it or nothing, also when the relay or this device dies while it is sent.

Each call is checked when it is made, upon the records as they are then and what the transaction did to them
before, so what is wrong raises there. Reading with the device shows the state before. A transaction
takes no lock: other tasks, and what comes from other devices, may change its records until its end, when each
of its writes is made upon what stands there then. One that is open while the device is locked is given up:
what comes in its block afterwards, and its end, raise TransactionError.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Protocol, Self, TypeVar

from crdt_sync.errors import TransactionError
from crdt_sync.ids import RecordId, SpaceId

from .create_method import Changes
from .engine import Engine, model
from .engine.local_writes import Draft
from .records import FollowsWrites, WriteResult, write_result
from .write_methods import WriteMethods

T = TypeVar("T")


class RunOnThread(Protocol):
    """Does work on the store's thread."""

    def __call__(self, work: Callable[[], T], /) -> Awaitable[T]: ...


class Transaction(WriteMethods):
    """See the module. Made by `Device.transaction`, for one block.

    `create`, `update`, `delete`, `restore`, `resolve`, `resolve_record` and `restore_version` take and raise
    what the device's do, and return what the write is going to do. `results` has what was done.
    """

    def __init__(
        self,
        engine: Callable[[], Engine],
        run: RunOnThread,
        space_id: Callable[[str | None], Awaitable[SpaceId | None]],
        commit: Callable[[model.Transaction], Awaitable[model.TransactionResult]],
        space: str | None,
        priority: int | None = None,
        device: FollowsWrites | None = None,
    ) -> None:
        self._device = device
        self._engine_now = engine
        self._engine = engine()
        """The device's when the block began: it has another one after it was locked."""
        self._run_on_thread = run
        self._find_space = space_id
        self._commit = commit
        self._space = space
        self._priority = priority
        self._draft: Draft | None = None
        self._ops: list[model.Operation] = []
        self._entered = self._over = False
        self.results: list[WriteResult] = []
        """What each write did, in their order; empty until the block has ended."""

    async def __aenter__(self) -> Self:
        if self._entered:
            raise TransactionError("a transaction is for one block", hint="call device.transaction() again")
        self._entered = True
        self._engine = self._engine_now()
        self._draft = await self._run(self._engine.draft)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._draft, self._over = None, True
        if kind is None and self._ops:
            await self._check_engine()
            done = await self._commit(model.Transaction(tuple(self._ops), self._priority))
            self.results = [write_result(result, self._device) for result in done.results]

    async def create(
        self,
        type: str,
        values: Changes,
        *,
        id: str | None = None,
        space: str | None = None,
        priority: int | None = None,
    ) -> WriteResult:
        """Make a record. Its id is in the result, so that what follows can name it.

        With the `id` of a record that is there, that one gets the values instead. Raises UnknownType,
        ValidationError, PermissionDenied.
        """
        chosen = None if id is None else RecordId(id)
        op = model.CreateOp(type, values, chosen, await self._space_id(space), priority)
        return await self._write(op)

    # Inside -----------------------------------------------------------------------------------------

    def _run(self, work: Callable[[], T]) -> Awaitable[T]:
        return self._run_on_thread(work)

    async def _space_id(self, space: str | None) -> SpaceId | None:
        return await self._find_space(self._space if space is None else space)

    async def _write(self, op: model.Operation) -> WriteResult:
        def add() -> model.WriteResult:
            if self._draft is None:
                raise TransactionError(
                    "the transaction is not open", hint="write within its block: async with … as t"
                )
            done, result = self._draft.add(op)
            self._ops.append(done)
            return result

        if self._entered and not self._over:
            await self._check_engine()
        return write_result(await self._run(add))

    async def _check_engine(self) -> None:
        """Raises StoreLocked and StoreClosed as the device does, and TransactionError after an `unlock`."""
        if self._engine is self._engine_now():
            return
        self._draft = None  # it is of a store that was closed
        await self._run(lambda: None)
        raise TransactionError(
            "the device was locked after this transaction had begun: nothing of it was written",
            hint="begin it again: async with device.transaction() as t",
        )
