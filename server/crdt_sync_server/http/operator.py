"""What the operator's commands ask a running relay: one program talking to itself, no documented API."""

from __future__ import annotations

import asyncio
import hmac
import os
import time
from importlib.metadata import version
from typing import Any, Final

import msgspec
from starlette.responses import Response
from starlette.routing import Route

from crdt_sync.errors import CrdtSyncError
from crdt_sync_server.data_dir import DataDir
from crdt_sync_server.effects import Close
from crdt_sync_server.http.api import disk_bytes
from crdt_sync_server.http.problems import ApiError
from crdt_sync_server.http.routing import Call, Operation, Router
from crdt_sync_server.hub import Hub
from crdt_sync_server.operating import handing_over, views
from crdt_sync_server.operating.log_check import LogCheck
from crdt_sync_server.revocations import Revocations
from crdt_sync_server.storage.port import Storage

PREFIX: Final = "/operator"


class _Space(msgspec.Struct, forbid_unknown_fields=True):
    space: str = ""


class _To(msgspec.Struct, forbid_unknown_fields=True):
    to: str
    device: int
    inode: int


class _Revoke(msgspec.Struct, forbid_unknown_fields=True):
    device: str
    space: str
    reason: str
    undo: bool


class OperatorApi:
    """See the module. `token` is the one of `operator.json`."""

    def __init__(
        self, hub: Hub, storage: Storage, data: DataDir, token: str, revocations: Revocations
    ) -> None:
        self._hub = hub
        self._storage = storage
        self._data = data
        self._token = token
        self._revocations = revocations
        self._started_s = time.monotonic()

    def routes(self, router: Router) -> list[Route]:
        """For starlette."""
        table = [
            Operation("GET", f"{PREFIX}/status", "op_status", "", self._status, auth="operator"),
            Operation("GET", f"{PREFIX}/spaces", "op_spaces", "", self._spaces, auth="operator"),
            Operation(
                "GET", f"{PREFIX}/devices", "op_devices", "", self._devices, auth="operator", query=_Space
            ),
            Operation(
                "GET",
                f"{PREFIX}/checkouts",
                "op_checkouts",
                "",
                self._checkouts,
                auth="operator",
                query=_Space,
            ),
            Operation(
                "POST", f"{PREFIX}/revoke", "op_revoke", "", self._revoke, auth="operator", body=_Revoke
            ),
            Operation("POST", f"{PREFIX}/backup", "op_backup", "", self._backup, auth="operator", body=_To),
            Operation("POST", f"{PREFIX}/check", "op_check", "", self._check, auth="operator"),
        ]
        return [router.route(one) for one in table]

    def _allow(self, call: Call) -> None:
        if not hmac.compare_digest(call.token.encode(), self._token.encode()):
            raise ApiError(401, "token", "not the operator's token of this run")

    async def _status(self, call: Call) -> Response:
        self._allow(call)
        hub, seen = self._hub, self._hub.metrics
        stored = await hub.on_thread(lambda: views.totals(self._storage))
        return _json(
            {
                "running": True,
                "version": version("crdt-sync"),
                "uptime_s": round(time.monotonic() - self._started_s, 1),
                **stored,
                "disk_bytes": disk_bytes(self._data.database),
                "connections": hub.connections,
                "frames_waiting": hub.waiting,
                "lag_rows_max": hub.most_lag,
                "counters": {
                    name: seen.total(name)
                    for name in (
                        "received_bytes",
                        "sent_bytes",
                        "log_rows",
                        "refusals",
                        "sessions",
                        "commit_seconds",
                    )
                }
                | {"commits": seen.commits},
            }
        )

    async def _spaces(self, call: Call) -> Response:
        self._allow(call)
        live = self._hub.live()
        return _json(await self._hub.on_thread(lambda: views.space_views(self._storage, live)))

    async def _devices(self, call: Call) -> Response:
        self._allow(call)
        live, now_ms = self._hub.live(), self._hub.now_ms()
        space = views.space_named(call.query.space)
        return _json(
            await self._hub.on_thread(lambda: views.device_views(self._storage, live, now_ms, space))
        )

    async def _checkouts(self, call: Call) -> Response:
        self._allow(call)
        space, now_ms = views.space_named(call.query.space), self._hub.now_ms()
        return _json(await self._hub.on_thread(lambda: views.checkout_views(self._storage, now_ms, space)))

    async def _revoke(self, call: Call) -> Response:
        self._allow(call)
        asked, revocations, now_ms = call.body, self._revocations, self._hub.now_ms()
        device, space = views.device_named(asked.device), views.space_named(asked.space)
        closed = 0

        def work() -> list[Close]:
            nonlocal closed
            if asked.undo:
                revocations.admit(device, space, now_ms)
                return []
            closes = revocations.revoke(device, space, asked.reason, now_ms)
            closed = len(closes)
            return closes

        await self._hub.operate(work)
        return _json({"running": True, "closed": closed})

    async def _backup(self, call: Call) -> Response:
        self._allow(call)
        asked = msgspec.to_builtins(call.body)
        try:
            made = await asyncio.to_thread(handing_over.make, self._storage, self._data, asked, os.urandom)
        except CrdtSyncError as exc:
            raise ApiError(409, exc.code, exc.message, hint=exc.hint) from None
        return _json(made)

    async def _check(self, call: Call) -> Response:
        self._allow(call)
        check = LogCheck(self._storage)
        while await self._hub.on_thread(check.step):
            pass
        return _json(
            {
                "spaces": check.spaces,
                "rows": check.rows,
                "findings": [finding.to_json() for finding in check.findings],
            }
        )


def _json(value: Any) -> Response:
    return Response(msgspec.json.encode(value), media_type="application/json")
