"""Checkouts over HTTP: the frames of the socket, asked and answered as JSON, and the leases as they stand.

Everything is decided by the engine, as for a device at the socket; here it only gets its words.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from crdt_sync.ids import OpaqueId
from crdt_sync.protocol.frames import CheckIn, CheckOut, CheckoutAnswer, CheckoutResult
from crdt_sync.roles import Role
from crdt_sync_server.checkouts import LeaseBook
from crdt_sync_server.effects import Send
from crdt_sync_server.http import bodies
from crdt_sync_server.http.lease_views import lease_view
from crdt_sync_server.http.routing import Call, Operation
from crdt_sync_server.http.service import Service
from crdt_sync_server.http.tokens import Holder
from crdt_sync_server.spaces import Space

_PATH: Final = "/v1/spaces/{space}/checkouts"


class Checkouts:
    """See the module."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def operations(self) -> list[Operation]:
        """For the table."""
        return [
            Operation(
                "GET",
                _PATH,
                "checkouts",
                "Which records are checked out, by whom, until when",
                lambda call: self._list(_holder(call), call.query),
                auth="device",
                query=bodies.CheckoutsQuery,
                answer=bodies.CheckoutsPage,
            ),
            Operation(
                "POST",
                _PATH,
                "check_out",
                "Have records to oneself for a while, or longer those that one has",
                self._check_out,
                body=bodies.CheckOutBody,
                auth="device",
                answer=bodies.CheckoutResults,
                problems=(503,),
            ),
            Operation(
                "POST",
                f"{_PATH}/return",
                "check_in",
                "Give records back",
                lambda call: self._check_in(call, breaks=False),
                body=bodies.CheckInBody,
                auth="device",
                answer=bodies.CheckoutResults,
                problems=(503,),
            ),
            Operation(
                "POST",
                f"{_PATH}/break",
                "break_checkouts",
                "Free records, whoever has them; for admins of the space",
                lambda call: self._check_in(call, breaks=True),
                body=bodies.CheckInBody,
                auth="device",
                answer=bodies.CheckoutResults,
                problems=(503,),
            ),
        ]

    async def _list(self, holder: Holder, query: bodies.CheckoutsQuery) -> bodies.CheckoutsPage:
        now_ms = self._service.hub.now_ms()

        def read(space: Space, _: Role) -> bodies.CheckoutsPage:
            book = space.leases
            wanted = [
                lease_view(row, lease, in_force=in_force)
                for row, lease in book.all()
                if ((in_force := book.in_force(lease, now_ms)) or query.all) and row > query.after
            ]
            page = wanted[: query.limit]
            return bodies.CheckoutsPage(
                checkouts=page,
                cursor=page[-1].row if page else query.after,
                at_end=len(page) == len(wanted),
                now_ms=now_ms,
            )

        return await self._service.as_member(holder, read)

    async def _check_out(self, call: Call) -> bodies.CheckoutResults:
        body: bodies.CheckOutBody = call.body
        asked = CheckOut(_records(body.records), body.ttl_s * 1000, body.newest_token)
        return await self._ask(_holder(call), asked)

    async def _check_in(self, call: Call, *, breaks: bool) -> bodies.CheckoutResults:
        body: bodies.CheckInBody = call.body
        return await self._ask(_holder(call), CheckIn(_records(body.records), breaks))

    async def _ask(self, holder: Holder, asked: CheckOut | CheckIn) -> bodies.CheckoutResults:
        effects = await self._service.exchange(holder, asked)
        answers = (one.frame for one in effects if isinstance(one, Send))
        results = next(frame.results for frame in answers if isinstance(frame, CheckoutAnswer))
        now_ms = self._service.hub.now_ms()

        def viewed(space: Space, _: Role) -> bodies.CheckoutResults:
            return bodies.CheckoutResults(
                results=[_result_view(space.leases, one, now_ms) for one in results], now_ms=now_ms
            )

        return await self._service.as_member(holder, viewed)


def _result_view(book: LeaseBook, result: CheckoutResult, now_ms: int) -> bodies.CheckoutResultView:
    lease = result.lease
    shown = (
        None if lease is None else lease_view(result.sequence, lease, in_force=book.in_force(lease, now_ms))
    )
    return bodies.CheckoutResultView(record=result.record.hex(), code=result.code, lease=shown)


def _records(ids: Sequence[str]) -> list[OpaqueId]:
    return [OpaqueId(bytes.fromhex(each)) for each in ids]


def _holder(call: Call) -> Holder:
    assert call.holder is not None  # asked by the router
    return call.holder
