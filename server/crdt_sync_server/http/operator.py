"""What the operator's commands ask a running relay: one program talking to itself, no documented API."""

from __future__ import annotations

import asyncio
import hmac
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import msgspec
from starlette.responses import Response
from starlette.routing import Route

from crdt_sync.errors import CrdtSyncError
from crdt_sync.ids import SpaceId
from crdt_sync_server.data_dir import DataDir
from crdt_sync_server.http.api import disk_bytes
from crdt_sync_server.http.problems import ApiError
from crdt_sync_server.http.routing import Call, Operation, Router
from crdt_sync_server.hub import Hub
from crdt_sync_server.operating import backup, views
from crdt_sync_server.operating.log_check import LogCheck
from crdt_sync_server.storage.port import Storage

PREFIX: Final = "/operator"


class _Space(msgspec.Struct, forbid_unknown_fields=True):
    space: str = ""


class _To(msgspec.Struct, forbid_unknown_fields=True):
    to: str


class OperatorApi:
    """See the module. `token` is the one of `operator.json`."""

    def __init__(self, hub: Hub, storage: Storage, data: DataDir, token: str) -> None:
        self._hub = hub
        self._storage = storage
        self._data = data
        self._token = token
        self._started_s = time.monotonic()

    def routes(self, router: Router) -> list[Route]:
        """For starlette."""
        table = [
            Operation("GET", f"{PREFIX}/status", "op_status", "", self._status, auth="operator"),
            Operation("GET", f"{PREFIX}/spaces", "op_spaces", "", self._spaces, auth="operator"),
            Operation(
                "GET", f"{PREFIX}/devices", "op_devices", "", self._devices, auth="operator", query=_Space
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
        try:
            space = SpaceId(bytes.fromhex(call.query.space)) if call.query.space else None
        except ValueError:
            raise ApiError(404, "unknown_space", "a space is 32 hex digits") from None
        return _json(
            await self._hub.on_thread(lambda: views.device_views(self._storage, live, now_ms, space))
        )

    async def _backup(self, call: Call) -> Response:
        self._allow(call)
        try:
            made = await asyncio.to_thread(backup.back_up, self._storage, self._data, Path(call.body.to))
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
