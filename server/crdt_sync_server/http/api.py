"""The table of operations and their handlers, and the ASGI application around them."""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import quote

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Route, WebSocketRoute

from crdt_sync.errors import CrdtSyncError
from crdt_sync.ids import DeviceId
from crdt_sync.protocol.limits import PATH
from crdt_sync_server import metrics
from crdt_sync_server.http import bodies, openapi, problems
from crdt_sync_server.http.checkouts import Checkouts
from crdt_sync_server.http.problems import ApiError
from crdt_sync_server.http.routing import FRAMES, Call, Operation, Router, max_body_bytes
from crdt_sync_server.http.service import Service
from crdt_sync_server.http.tunnel import (
    CLOSE_HEADER,
    IDLE_S,
    REASON_HEADER,
    SENT_HEADER,
    Tunnel,
    Tunnels,
    joined,
)
from crdt_sync_server.naming import named
from crdt_sync_server.storage.port import Storage

READY_S: Final = 2.0
"""A storage that takes longer to answer is not ready."""


class OperatorRoutes(Protocol):
    """What has routes of its own."""

    def routes(self, router: Router) -> list[Route]: ...


@dataclass(frozen=True, slots=True)
class ApiSettings:
    """What an operator decides about it. `metrics_token` is a secret."""

    http_api: bool = True
    metrics: bool = True
    metrics_token: str | None = None

    def __repr__(self) -> str:
        return f"ApiSettings(http_api={self.http_api}, metrics={self.metrics})"


class Api:
    """See the module."""

    def __init__(
        self,
        service: Service,
        tunnels: Tunnels,
        storage: Storage,
        database: Path | None,
        settings: ApiSettings,
    ) -> None:
        self._service = service
        self._hub = service.hub
        self._tunnels = tunnels
        self._storage = storage
        self._database = database
        self._settings = settings
        self.operations = [*self._operating()]
        if settings.http_api:
            self.operations += [*self._device_operations(), *Checkouts(service).operations()]
            self.operations += self._tunnel_operations()
        self.operator: OperatorRoutes | None = None
        """Set before `app` is called, if there is an operator to talk to."""
        self._document = msgspec.json.encode(openapi.document(self.operations, version("crdt-sync")))

    def app(self) -> Starlette:
        """The ASGI application."""
        router = Router(self._service.holder, max_body_bytes(self._service.limits.wire.max_frame_bytes))
        own = [] if self.operator is None else self.operator.routes(router)
        app = Starlette(
            routes=[*(router.route(one) for one in self.operations), *own, WebSocketRoute(PATH, self._hub)],
            exception_handlers={
                ApiError: problems.on_api_error,
                CrdtSyncError: problems.on_our_error,
                HTTPException: problems.on_http_error,
                Exception: problems.on_bug,
            },
        )
        app.add_middleware(_Counting, seen=self._hub.metrics)
        return app

    # Operating

    def _operating(self) -> list[Operation]:
        table = [
            Operation(
                "GET", "/healthz", "health", "The process is alive", self._health, answer=bodies.Health
            ),
            Operation(
                "GET",
                "/readyz",
                "ready",
                "Whether devices are served",
                self._ready,
                answer=bodies.Readiness,
                problems=(503,),
            ),
            Operation("GET", "/openapi.json", "openapi", "This document", self._openapi),
        ]
        if self._settings.metrics:
            auth = "metrics" if self._settings.metrics_token else ""
            table.append(
                Operation(
                    "GET",
                    "/metrics",
                    "metrics",
                    "Sums for Prometheus",
                    self._metrics,
                    media="text/plain",
                    auth=auth,
                )
            )
        return table

    async def _health(self, _: Call) -> bodies.Health:
        return bodies.Health(status="ok", version=version("crdt-sync"), connections=self._hub.connections)

    async def _ready(self, _: Call) -> bodies.Readiness:
        if self._hub.closing:
            raise ApiError(503, "draining", "the relay is about to stop")
        if self._hub.failing:
            raise ApiError(
                503, "storage", "the last commit failed", hint="the relay's log says why; is the disk full?"
            )
        try:
            async with asyncio.timeout(READY_S):
                await self._hub.on_thread(self._storage.spaces)
        except Exception as exc:  # whatever it is, the storage does not serve
            raise ApiError(503, "storage", f"the storage does not answer ({named(exc)})") from None
        return bodies.Readiness(status="ready")

    async def _openapi(self, _: Call) -> Response:
        return Response(self._document, media_type="application/json")

    async def _metrics(self, call: Call) -> Response:
        expected = self._settings.metrics_token
        if expected and not hmac.compare_digest(call.token.encode(), expected.encode()):
            raise ApiError(401, "token", "not the relay's metrics_token")
        storage, seen = self._storage, self._hub.metrics

        def sizes() -> tuple[int, int]:
            spaces = storage.spaces()
            return len(spaces), sum(storage.size_bytes(space.key) for space in spaces)

        spaces, size_bytes = await self._hub.on_thread(sizes)
        seen.connections.set(self._hub.connections)
        seen.tunnels.set(len(self._tunnels))
        seen.waiting.set(self._hub.waiting)
        seen.lag.set(self._hub.most_lag)
        seen.spaces.set(spaces)
        seen.log_bytes.set(size_bytes)
        seen.disk_bytes.set(disk_bytes(self._database))
        return Response(seen.text(), media_type=metrics.MEDIA_TYPE)

    # Devices and spaces

    def _device_operations(self) -> list[Operation]:
        service = self._service

        async def challenge(_: Call) -> bodies.Challenge:
            return service.challenge()

        async def revoke(call: Call) -> None:
            service.holder(call.token)
            service.tokens.revoke(call.token)

        async def rename(call: Call) -> bodies.DeviceView:
            return await service.rename(_holder(call), DeviceId(call.ids["device"]), call.body.label)

        def of_holder(work: Callable[..., Awaitable[Any]]) -> Callable[[Call], Awaitable[Any]]:
            async def handler(call: Call) -> Any:
                return await (work(_holder(call)) if call.query is None else work(_holder(call), call.query))

            return handler

        space = "/v1/spaces/{space}"
        return [
            Operation(
                "POST",
                "/v1/tokens/challenge",
                "challenge",
                "Something to sign",
                challenge,
                answer=bodies.Challenge,
            ),
            Operation(
                "POST",
                "/v1/tokens",
                "issue_token",
                "An access token for a signed challenge",
                lambda call: service.issue(call.body),
                body=bodies.TokenRequest,
                answer=bodies.Token,
                status=201,
                problems=(401, 403, 404),
            ),
            Operation(
                "DELETE",
                "/v1/tokens/current",
                "revoke_token",
                "End this access token",
                revoke,
                auth="device",
                status=204,
            ),
            Operation(
                "GET",
                space,
                "space",
                "What the relay knows of a space",
                of_holder(service.space),
                auth="device",
                answer=bodies.SpaceView,
            ),
            Operation(
                "GET",
                f"{space}/devices",
                "devices",
                "Every device: when seen, cursor, lag, versions",
                of_holder(service.devices),
                auth="device",
                answer=bodies.Devices,
            ),
            Operation(
                "PATCH",
                f"{space}/devices/{{device}}",
                "rename_device",
                "Name a device at the relay",
                rename,
                auth="device",
                body=bodies.Label,
                answer=bodies.DeviceView,
            ),
            Operation(
                "GET",
                f"{space}/log",
                "pull",
                "Rows of the log behind a cursor, with long poll",
                of_holder(service.pull),
                auth="device",
                query=bodies.LogQuery,
                answer=bodies.LogPage,
            ),
            Operation(
                "POST",
                f"{space}/envelopes",
                "push",
                "Push updates; a result for each",
                lambda call: service.push(_holder(call), call.body.envelopes),
                auth="device",
                body=bodies.Envelopes,
                answer=bodies.Pushed,
                problems=(429, 503, 507),
            ),
            Operation(
                "GET",
                f"{space}/audit",
                "audit",
                "What happened, for admins of the space",
                of_holder(service.audit),
                auth="device",
                query=bodies.AuditQuery,
                answer=bodies.AuditPage,
            ),
        ]

    # Frames over HTTP

    def _tunnel_operations(self) -> list[Operation]:
        path = "/v1/tunnel"
        return [
            Operation(
                "POST",
                path,
                "open_tunnel",
                "Open a tunnel for the frames of the socket",
                self._open_tunnel,
                answer=bodies.Opened,
                status=201,
                problems=(503,),
            ),
            Operation(
                "DELETE",
                path,
                "close_tunnel",
                "Close a tunnel",
                self._close_tunnel,
                auth="tunnel",
                status=204,
            ),
            Operation(
                "POST",
                f"{path}/messages",
                "send_messages",
                "Messages to the relay, each after its length",
                self._send,
                auth="tunnel",
                frames=True,
                answer=bodies.Taken,
                problems=(410,),
            ),
            Operation(
                "GET",
                f"{path}/messages",
                "fetch_messages",
                "Messages from the relay, each after its length",
                self._fetch,
                auth="tunnel",
                query=bodies.TunnelQuery,
                media=FRAMES,
                problems=(409,),
            ),
        ]

    async def _open_tunnel(self, _: Call) -> bodies.Opened:
        if self._hub.closing:
            raise ApiError(503, "draining", "the relay is about to stop")
        most = self._service.limits.wire.max_frame_bytes
        return bodies.Opened(tunnel_token=self._tunnels.open(), max_message_bytes=most, idle_s=IDLE_S)

    async def _close_tunnel(self, call: Call) -> None:
        await self._tunnels.find(call.token).close()

    async def _send(self, call: Call) -> bodies.Taken:
        return bodies.Taken(sent=await self._tunnels.find(call.token).post(call.body))

    async def _fetch(self, call: Call) -> Response:
        tunnel = self._tunnels.find(call.token)
        messages = await tunnel.fetch(call.query.wait_s)
        headers = {SENT_HEADER: str(tunnel.sent), "Cache-Control": "no-store"}
        if tunnel.drained:
            await self._finish(tunnel, headers)
        return Response(joined(messages), headers=headers, media_type=FRAMES)

    @staticmethod
    async def _finish(tunnel: Tunnel, headers: dict[str, str]) -> None:
        assert tunnel.closed is not None
        code, reason = tunnel.closed
        headers[CLOSE_HEADER] = str(code)
        headers[REASON_HEADER] = quote(reason)
        await tunnel.close()


def _holder(call: Call) -> Any:
    assert call.holder is not None  # asked by the router
    return call.holder


def disk_bytes(database: Path | None) -> int:
    """Of a database file and what stands beside it."""
    if database is None:
        return 0
    return sum(path.stat().st_size for path in database.parent.glob(f"{database.name}*"))


class _Counting:
    """Counts requests by operation and status."""

    def __init__(self, app: Any, seen: metrics.Metrics) -> None:
        self._app = app
        self._seen = seen

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started_s = time.perf_counter()
        status = 500

        async def counted(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, counted)
        finally:
            name = getattr(scope.get("route"), "name", "none")
            self._seen.http.labels(name, str(status)).inc()
            if name not in ("pull", "fetch_messages"):
                self._seen.http_seconds.observe(time.perf_counter() - started_s)
