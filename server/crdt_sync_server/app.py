"""The HTTP side: one WebSocket path, and a health check."""

from __future__ import annotations

from importlib.metadata import version

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route, WebSocketRoute

from crdt_sync.protocol.limits import PATH
from crdt_sync_server.hub import Hub


def make_app(hub: Hub) -> Starlette:
    """The ASGI application around a hub."""

    async def healthz(request: Request) -> JSONResponse:
        return JSONResponse({"status": "ok", "version": version("crdt-sync"), "connections": hub.connections})

    return Starlette(routes=[Route("/healthz", healthz), WebSocketRoute(PATH, hub)])
