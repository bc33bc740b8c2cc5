"""Errors as problem details for HTTP APIs (RFC 9457): one shape for all of them, with a stable `code`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from crdt_sync.errors import (
    BadMembership,
    BadSignature,
    CrdtSyncError,
    FrameTooLarge,
    PermissionDenied,
    RemoteError,
    ShutOut,
    UnknownMember,
    UnknownSpace,
)
from crdt_sync_server.limits import OverQuota, RateLimited, RecordOverQuota, TooManyConnections
from crdt_sync_server.revocations import NotRevoked

MEDIA_TYPE: Final = "application/problem+json"


class Problem(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What went wrong. `code` is for programs, `detail` and `hint` are for people."""

    title: str
    status: int
    code: str
    detail: str = ""
    hint: str = ""


class ApiError(Exception):
    """Answered as a problem. `headers` are added to the answer."""

    def __init__(
        self, status: int, code: str, detail: str, *, hint: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.hint = hint
        self.headers = dict(headers or {})


_TITLES: Final = {
    400: "Bad request", 401: "Not authenticated", 403: "Not allowed", 404: "Not found",
    405: "Method not allowed", 409: "Conflict", 410: "Gone", 413: "Too large",
    415: "Unsupported media type", 422: "Not valid",
    429: "Too many requests", 500: "Internal error", 503: "Not available", 507: "Over quota",
}  # fmt: skip
_STATUS: Final[tuple[tuple[type[CrdtSyncError], int], ...]] = (
    (UnknownSpace, 404),
    (UnknownMember, 403),
    (PermissionDenied, 403),
    (ShutOut, 403),
    (NotRevoked, 409),
    (BadSignature, 401),
    (FrameTooLarge, 413),
    (OverQuota, 507),
    (RecordOverQuota, 507),
    (RateLimited, 429),
    (TooManyConnections, 429),
    (BadMembership, 422),
    (RemoteError, 422),
)
RETRY_AFTER_S: Final = "5"
_AGAIN: Final = {429, 503, 507}


def answer(
    status: int, code: str, detail: str, hint: str = "", headers: Mapping[str, str] | None = None
) -> Response:
    """The problem as a response."""
    problem = Problem(title=_TITLES.get(status, "Error"), status=status, code=code, detail=detail, hint=hint)
    added = dict(headers or {})
    if status in _AGAIN:
        added.setdefault("Retry-After", RETRY_AFTER_S)
    if status == 401:
        added.setdefault("WWW-Authenticate", "Bearer")
    return Response(msgspec.json.encode(problem), status, added, media_type=MEDIA_TYPE)


def internal(detail: str, exc: Exception) -> Response:
    """A bug, or a disk that fails. Says nothing of the error but what the storage has noted on it."""
    notes = ", ".join(getattr(exc, "__notes__", ())) or "the relay's log has its kind"
    return answer(500, "internal", detail, f"{notes}; for its operator: `crdt-sync relay check`")


def of_error(error: CrdtSyncError) -> Response:
    """An error of ours."""
    status = next((status for family, status in _STATUS if isinstance(error, family)), 500)
    return answer(status, error.code, error.message, error.hint)


async def on_api_error(_request: Request, exc: Exception) -> Response:
    """For starlette."""
    assert isinstance(exc, ApiError)
    return answer(exc.status, exc.code, exc.detail, exc.hint, exc.headers)


async def on_our_error(_request: Request, exc: Exception) -> Response:
    """For starlette."""
    assert isinstance(exc, CrdtSyncError)
    return of_error(exc)


async def on_http_error(_request: Request, exc: Exception) -> Response:
    """For starlette: what its router says by itself."""
    assert isinstance(exc, HTTPException)
    codes = {404: "no_such_path", 405: "method_not_allowed"}
    hint = "GET /openapi.json lists what there is" if exc.status_code in codes else ""
    return answer(exc.status_code, codes.get(exc.status_code, "http"), exc.detail, hint, exc.headers)


async def on_bug(_request: Request, exc: Exception) -> Response:
    """For starlette. What it was is in the log, by its kind only: its text could hold what a device sent."""
    return internal("the relay could not do its work; nothing of it was kept", exc)
