"""Operations as a table: what is called how, what it takes and gives. Routes and document come from it.

An operation's handler is given a `Call` whose parts are checked already: path ids, query, body, token. It
gives an answer from `bodies`, or a response of its own.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from crdt_sync.errors import CrdtSyncError
from crdt_sync_server.http import problems
from crdt_sync_server.http.problems import ApiError
from crdt_sync_server.http.tokens import Holder
from crdt_sync_server.naming import named

log: Final = logging.getLogger("crdt_sync_server")

JSON: Final = "application/json"
FRAMES: Final = "application/vnd.crdt-sync.frames"
_ID: Final = re.compile("[0-9a-f]{32}", re.ASCII)
_BODY_ROOM: Final = 4096
"""Of a JSON body around its base64."""


@dataclass(slots=True)
class Call:
    """One request, checked."""

    request: Request
    ids: dict[str, bytes] = field(default_factory=dict)
    query: Any = None
    body: Any = None
    token: str = ""
    holder: Holder | None = None


Handler = Callable[[Call], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Operation:
    """One of them. `auth` is `device` for an access token, `tunnel` for a tunnel's, or empty."""

    method: str
    path: str
    name: str
    summary: str
    handler: Handler
    query: type[msgspec.Struct] | None = None
    body: type[msgspec.Struct] | None = None
    frames: bool = False
    """The body is protocol frames, not JSON."""
    answer: type[msgspec.Struct] | None = None
    status: int = 200
    media: str = JSON
    auth: str = ""
    problems: Sequence[int] = ()


class Router:
    """Makes routes of operations. `holder_of` says whose an access token is, or raises."""

    def __init__(self, holder_of: Callable[[str], Holder], max_body_bytes: int) -> None:
        self._holder_of = holder_of
        self._max_body_bytes = max_body_bytes

    def route(self, operation: Operation) -> Route:
        """For starlette."""

        async def endpoint(request: Request) -> Response:
            try:
                given = await operation.handler(await self._checked(operation, request))
            except (ApiError, CrdtSyncError):
                raise
            except Exception as exc:
                # Its kind only: an error's text, or a traceback, could hold what a device sent.
                log.error("%s could not be answered (%s)", operation.name, named(exc))
                return problems.internal("the relay could not do its work; nothing was kept", exc)
            if isinstance(given, Response):
                return given
            if given is None:
                return Response(status_code=operation.status)
            return Response(msgspec.json.encode(given), operation.status, media_type=operation.media)

        return Route(operation.path, endpoint, methods=[operation.method], name=operation.name)

    async def _checked(self, operation: Operation, request: Request) -> Call:
        call = Call(request)
        if operation.auth:
            call.token = _bearer(request)
        if operation.auth == "device":
            call.holder = self._holder_of(call.token)
        for name, value in request.path_params.items():
            if not _ID.fullmatch(value):
                raise ApiError(404, f"unknown_{name}", f"{name}: an id is 32 hex digits")
            call.ids[name] = bytes.fromhex(value)
        if call.holder is not None and call.ids.get("space", call.holder.space) != call.holder.space:
            raise ApiError(403, "other_space", "the access token is for another space")
        call.query = _query(operation.query, request)
        if operation.frames:
            _expect_type(request, FRAMES)
            call.body = await self._read(request)
        elif operation.body is not None:
            _expect_type(request, JSON)
            call.body = _decoded(operation.body, await self._read(request))
        return call

    async def _read(self, request: Request) -> bytes:
        most = self._max_body_bytes
        told = request.headers.get("content-length", "")
        if told.isdecimal() and int(told) > most:
            raise ApiError(413, "too_large", f"a body of {int(told):,} bytes; at most {most:,} are taken")
        chunks: list[bytes] = []
        size_bytes = 0
        try:
            async for chunk in request.stream():
                size_bytes += len(chunk)
                if size_bytes > most:
                    raise ApiError(413, "too_large", f"a body of more than {most:,} bytes")
                chunks.append(chunk)
        except ClientDisconnect:
            raise ApiError(400, "disconnected", "the body ended early") from None
        return b"".join(chunks)


def max_body_bytes(max_frame_bytes: int) -> int:
    """A frame's worth of envelopes as base64."""
    return max_frame_bytes // 3 * 4 + _BODY_ROOM


def _bearer(request: Request) -> str:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise ApiError(
            401,
            "no_token",
            "a bearer token is needed",
            hint="POST /v1/tokens/challenge, then POST /v1/tokens",
        )
    return token.strip()


def _query(kind: type[msgspec.Struct] | None, request: Request) -> Any:
    if kind is None:
        return None  # whatever a monitor or a cache hangs on
    given = dict(request.query_params.multi_items())
    if len(given) != len(request.query_params.multi_items()):
        raise ApiError(422, "query", "a parameter is given twice")
    try:
        return msgspec.convert(given, kind, strict=False)
    except (msgspec.ValidationError, ValueError) as exc:
        raise ApiError(422, "query", str(exc)[:200]) from None


def _decoded(kind: type[msgspec.Struct], raw: bytes) -> Any:
    try:
        return msgspec.json.decode(raw, type=kind)
    except msgspec.ValidationError as exc:
        raise ApiError(422, "body", str(exc)[:200]) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise ApiError(400, "not_json", str(exc)[:200]) from None


def _expect_type(request: Request, media: str) -> None:
    given = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if given != media:
        raise ApiError(415, "media_type", f"the body is to be {media}")
