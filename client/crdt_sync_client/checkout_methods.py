"""Part of `Device`: checking records out for oneself, and in again.

    async with device.checkout("work_order", where={"asset_id": "RIG-7"}) as lease:
        for refused in lease.refused:
            print(refused.id, "is with", refused.checkout.device, "until", refused.checkout.until_at)
        ...

A checkout needs the relay, which arbitrates; work on what is checked out does not. What belongs to a record
comes along with it, out and in. While the block lasts it is renewed, when the relay can be reached; at its
end everything is sent and checked in.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Final, Self, TypeVar

from crdt_sync.errors import (
    ConnectionFailed,
    CrdtSyncError,
    RecordNotFound,
    RelayUnreachable,
    ValidationError,
)
from crdt_sync.ids import SpaceId
from crdt_sync.protocol.limits import DEFAULT_LEASE_MS, MAX_CHECKOUT_RECORDS, MAX_LEASE_MS

from .checkout_desk import Question, Told
from .checkout_values import CheckinResult, CheckinState, Checkout, CheckoutResult
from .device_part import DevicePart
from .engine import Engine
from .engine.checkouts import CheckoutOutcome, Chosen
from .engine.model import ConflictFilter
from .engine.queries import Where

T = TypeVar("T")
logger = logging.getLogger("crdt_sync.client")

DEFAULT_TTL_S: Final = DEFAULT_LEASE_MS / 1000
MAX_TTL_S: Final = MAX_LEASE_MS / 1000


class CheckoutMethods(DevicePart):
    """See the module."""

    def checkout(
        self,
        type: str,
        ids: Sequence[str] = (),
        *,
        where: Where = None,
        ttl_s: float = DEFAULT_TTL_S,
        children: bool = True,
        space: str | None = None,
    ) -> CheckoutBlock:
        """`check_out` for an `async with` block, which renews it and at its end checks everything in."""
        return CheckoutBlock(self, type, ids, where, ttl_s, children, space)

    async def check_out(
        self,
        type: str,
        ids: Sequence[str] = (),
        *,
        where: Where = None,
        ttl_s: float = DEFAULT_TTL_S,
        children: bool = True,
        space: str | None = None,
    ) -> list[CheckoutResult]:
        """Have records for this device alone, for `ttl_s` seconds: these, or those for which `where` holds.

        With `children` also those that belong to them, at any depth. This device is brought up to date first,
        so that what is new is among them, and again when they are granted. Each is granted or refused by
        itself. Raises RelayUnreachable when the relay cannot be asked; RecordNotFound, UnknownType,
        ValidationError, also for a `ttl_s` of more than seven days.
        """
        engine, chosen_space = self._engine, await self._one_space(space)
        _check_ttl(ttl_s)
        await self._reach(self._syncs[chosen_space].sync(patient=False))
        chosen = await self._run(
            lambda: engine.choose_records(type, ids, where, children=children, space=chosen_space)
        )
        outcomes = await self._ask(chosen_space, chosen, ttl_s=ttl_s)
        await self._syncs[chosen_space].sync(patient=False)
        return [CheckoutResult.of(outcome) for outcome in outcomes]

    async def renew_checkouts(
        self, *, ttl_s: float = DEFAULT_TTL_S, space: str | None = None
    ) -> list[CheckoutResult]:
        """Keep what is checked out here for `ttl_s` seconds from now, and never for less than it was.

        What has run out is asked for anew: another device may have it by now. Raises as `check_out`.
        """
        engine, chosen_space = self._engine, await self._one_space(space)
        chosen = await self._run(lambda: engine.own_checkouts(chosen_space))
        return await self._renew(chosen_space, chosen, ttl_s)

    async def _renew(self, space: SpaceId, chosen: Sequence[Chosen], ttl_s: float) -> list[CheckoutResult]:
        _check_ttl(ttl_s)
        return [CheckoutResult.of(outcome) for outcome in await self._ask(space, chosen, ttl_s=ttl_s)]

    async def check_in(
        self, type: str | None = None, ids: Sequence[str] = (), *, space: str | None = None
    ) -> list[CheckinResult]:
        """Send everything, then give records back: these, those of that type, or all checked out here.

        What belongs to them and is checked out here goes back with them. Says for each record what was
        delivered and what was not. When the relay cannot be reached, everything stays checked out. Raises
        RelayUnreachable; RecordNotFound for what this device has not checked out.
        """
        chosen_space = await self._one_space(space)
        return await self._give_back(
            chosen_space, await self._run(lambda: self._to_check_in(chosen_space, type, ids))
        )

    async def _give_back(self, chosen_space: SpaceId, chosen: Sequence[Chosen]) -> list[CheckinResult]:
        engine = self._engine
        if not chosen:
            return []
        await self._reach(self._syncs[chosen_space].sync(patient=False))
        ended = {
            (held.type, held.id): held.state
            for held in await self._run(lambda: engine.checkouts(chosen_space))
        }
        outcomes = await self._ask(chosen_space, chosen, back=True)

        def settle() -> list[CheckinResult]:
            unsent = engine.outbox(chosen_space)
            results = []
            for outcome in outcomes:
                items = [item for item in unsent if (item.type, item.id) == (outcome.type, outcome.id)]
                wanted = ConflictFilter("open", type=outcome.type, record=outcome.id)
                results.append(
                    CheckinResult(
                        outcome.type,
                        outcome.id,
                        _checkin_state(outcome, ended.get((outcome.type, outcome.id))),
                        sent=0 if outcome.checkout is None else outcome.checkout.sent,
                        pending=sum(item.updates for item in items if item.state in ("pending", "sending")),
                        refused=sum(item.updates for item in items if item.state in ("waiting", "failed")),
                        late=_late(engine, outcome),
                        conflicts=tuple(conflict.id for conflict in engine.find_conflicts(wanted)),
                    )
                )
            engine.forget_checkouts(chosen_space, [each.opaque for each in chosen])
            return sorted(results, key=lambda each: (each.type, each.id))

        return await self._run(settle)

    async def break_checkouts(
        self,
        type: str | None = None,
        ids: Sequence[str] = (),
        *,
        holder: str | None = None,
        space: str | None = None,
    ) -> list[CheckoutResult]:
        """As an admin free records, whoever has them, and what belongs to them and is checked out.

        Or everything that one device has: `holder` is its name, or its hex id; also records that are not on
        this device. What holders still send is merged, and marked as late. Raises RelayUnreachable,
        UnknownType, ValidationError.
        """
        if (type is None) is (holder is None):
            raise ValidationError("break_checkouts", "needs a type with ids, or a holder")
        engine, chosen_space = self._engine, await self._one_space(space)

        def choose() -> list[Chosen]:
            if type is None:
                return engine.checked_out_by(holder or "", space=chosen_space)
            named = [engine.chosen_record(type, id, space=chosen_space) for id in ids]
            return engine.with_checked_out_below(chosen_space, named)

        chosen = await self._run(choose)
        outcomes = await self._ask(chosen_space, chosen, back=True, breaks=True)
        return [CheckoutResult.of(outcome) for outcome in outcomes]

    async def checkouts(self, space: str | None = None) -> list[Checkout]:
        """Who has which record, as far as this device knows, its own first; also without a network.

        What was checked out here stays in the list until it is checked in, whatever became of it.
        """
        engine, chosen = self._engine, await self._space_id(space)
        return await self._run(lambda: engine.checkouts(chosen))

    # Inside -----------------------------------------------------------------------------------------

    def _to_check_in(self, space: SpaceId, type: str | None, ids: Sequence[str]) -> list[Chosen]:
        engine = self._engine
        own = engine.own_checkouts(space)
        if type is None:
            return own
        named = [each for each in own if each.type == type and (not ids or each.id in ids)]
        missing = set(ids) - {each.id for each in named}
        if missing:
            raise RecordNotFound(
                f"{type} {min(missing)} is not checked out on this device",
                hint="`crdt-sync checkouts ls` shows what is",
            )
        with_below = {each.opaque for each in engine.with_checked_out_below(space, named)}
        return [each for each in own if each.opaque in with_below]

    async def _one_space(self, space: str | None) -> SpaceId:
        engine = self._engine
        return (await self._run(lambda: engine.space(space))).id

    async def _ask(
        self,
        space: SpaceId,
        chosen: Sequence[Chosen],
        *,
        ttl_s: float = 0.0,
        back: bool = False,
        breaks: bool = False,
    ) -> list[CheckoutOutcome]:
        engine, sync = self._engine, self._syncs[space]

        async def ask() -> list[CheckoutOutcome]:
            outcomes: list[CheckoutOutcome] = []
            async with sync.held():
                for records in _batches(chosen):
                    newest = await self._run(lambda: engine.newest_token(space))
                    session = await sync.live(patient=False)

                    def question(
                        told: Told, records: Sequence[Chosen] = records, newest: int = newest
                    ) -> Question:
                        return Question(records, told, int(ttl_s * 1000), newest, back, breaks)

                    outcomes += await session.ask_checkouts(question)
            return outcomes

        return await self._reach(ask())

    @staticmethod
    async def _reach(asking: Awaitable[T]) -> T:
        try:
            return await asking
        except RelayUnreachable as exc:
            raise RelayUnreachable(
                f"checking out and in needs the relay: {exc.message}",
                hint="work goes on without it; `crdt-sync sync` tells whether it can be reached",
            ) from exc


class CheckoutBlock:
    """What `Device.checkout` gives: `results` per record, `granted` and `refused` of them.

    `lost` are those that another device got while the block lasted, because they had run out, were broken, or
    forgotten by a relay; it is as of the last renewal.
    """

    def __init__(
        self,
        device: CheckoutMethods,
        type: str,
        ids: Sequence[str],
        where: Where,
        ttl_s: float,
        children: bool,
        space: str | None,
    ) -> None:
        self.results: list[CheckoutResult] = []
        self.checked_in: list[CheckinResult] = []
        """After the block."""
        self.lost: list[CheckoutResult] = []
        self._device = device
        self._asked = (type, ids, where, children, space)
        self._ttl_s = ttl_s
        self._renewing: asyncio.Task[None] | None = None

    @property
    def granted(self) -> list[CheckoutResult]:
        return [result for result in self.results if result.done]

    @property
    def refused(self) -> list[CheckoutResult]:
        return [result for result in self.results if not result.done]

    async def __aenter__(self) -> Self:
        type, ids, where, children, space = self._asked
        self.results = await self._device.check_out(
            type, ids, where=where, ttl_s=self._ttl_s, children=children, space=space
        )
        self._renewing = asyncio.create_task(self._renew())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._renewing is not None:
            self._renewing.cancel()
            await asyncio.gather(self._renewing, return_exceptions=True)
        device = self._device
        try:
            space = await device._one_space(self._asked[-1])
            self.checked_in = await device._give_back(space, await self._still_own(space))
        except ConnectionFailed:
            if kind is None:
                raise
            logger.warning("the records stay checked out: the relay cannot be reached")

    async def _renew(self) -> None:
        """Halfway, so that an hour without a network does not cost the checkout."""
        while True:
            await asyncio.sleep(self._ttl_s / 2)
            with suppress(CrdtSyncError):  # the next one may come through; until then it holds
                space = await self._device._one_space(self._asked[-1])
                renewed = await self._device._renew(space, await self._still_own(space), self._ttl_s)
                self.lost = [result for result in renewed if not result.done]

    async def _still_own(self, space: SpaceId) -> list[Chosen]:
        """What the block got and nobody has checked in since."""
        device, names = self._device, {(result.type, result.id) for result in self.granted}
        own = await device._run(lambda: device._engine.own_checkouts(space))
        return [each for each in own if (each.type, each.id) in names]


def _check_ttl(ttl_s: float) -> None:
    if not 0 < ttl_s <= MAX_TTL_S:
        days = MAX_TTL_S / 86_400
        raise ValidationError(
            "ttl",
            f"a checkout lasts at most {days:.0f} days, not {ttl_s / 86_400:.4g}",
            hint="renew it later",
        )


def _batches(chosen: Sequence[Chosen]) -> list[Sequence[Chosen]]:
    size = MAX_CHECKOUT_RECORDS
    return [chosen[at : at + size] for at in range(0, len(chosen), size)]


def _checkin_state(outcome: CheckoutOutcome, before: str | None) -> CheckinState:
    if outcome.code == "returned":
        return "returned"
    return "broken" if before == "broken" else "taken" if before == "taken" else "expired"


def _late(engine: Engine, outcome: CheckoutOutcome) -> int:
    held = outcome.checkout
    return 0 if held is None else sum(each.device_id == engine.device_id.hex() for each in held.late)
