"""What the HTTP API does, without HTTP: tokens, the log, pushes, devices, the audit log."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Callable
from typing import Final, TypeVar

import msgspec

from crdt_sync.crypto.device_keys import verify_signature
from crdt_sync.crypto.envelope import Header, Kind, parse
from crdt_sync.errors import (
    BadSignature,
    FrameTooLarge,
    MalformedEnvelope,
    PermissionDenied,
    UnknownMember,
    UnknownSpace,
)
from crdt_sync.ids import Author, DeviceId, Entropy, Incarnation, SpaceId
from crdt_sync.protocol.codes import CloseCode
from crdt_sync.protocol.frames import Ack, Bye, CheckedOut, FromDevice, Push, Refuse
from crdt_sync.protocol.limits import MAX_ENVELOPE_BYTES
from crdt_sync.protocol.tokens import token_message
from crdt_sync.roles import Role
from crdt_sync_server.effects import Close, Effect, Peer, Send
from crdt_sync_server.engine import RelayEngine
from crdt_sync_server.http import bodies
from crdt_sync_server.http.lease_views import lease_view, why_checked_out
from crdt_sync_server.http.problems import ApiError
from crdt_sync_server.http.tokens import NONCE_TTL_S, Holder, Tokens
from crdt_sync_server.hub import Hub
from crdt_sync_server.limits import RateLimited, RelayLimits
from crdt_sync_server.reports import DeviceFigures, device_figures, space_figures
from crdt_sync_server.spaces import Space, travelling
from crdt_sync_server.storage.port import AuditEvent, Page, Storage, Visit

PAGE_BYTES: Final = 4 * 1024 * 1024
"""Of payloads in one page; one row at least comes, however large."""
_STATUS_OF: Final[dict[int, int]] = {
    CloseCode.MALFORMED: 422, CloseCode.UNAUTHENTICATED: 401, CloseCode.FORBIDDEN: 403,
    CloseCode.UNKNOWN_SPACE: 404, CloseCode.TOO_LARGE: 413, CloseCode.RATE: 429,
    # As over the socket: the device may come again, for example when the disk has room.
    CloseCode.INTERNAL: 503,
}  # fmt: skip
"""HTTP status by what the engine would close a connection with."""
T = TypeVar("T")


class Service:
    """See the module. One for the relay."""

    def __init__(
        self,
        hub: Hub,
        engine: RelayEngine,
        storage: Storage,
        *,
        entropy: Entropy,
        limits: RelayLimits,
        token_ttl_s: int,
    ) -> None:
        self.hub = hub
        self.limits = limits
        self.tokens = Tokens(entropy, token_ttl_s)
        self._engine = engine
        self._storage = storage

    # Tokens

    def challenge(self) -> bodies.Challenge:
        """Something to sign."""
        nonce = self.tokens.challenge(time.monotonic())
        return bodies.Challenge(
            nonce=nonce,
            relay_id=self._engine.relay_id.hex(),
            now_ms=self.hub.now_ms(),
            expires_in_s=NONCE_TTL_S,
        )

    async def issue(self, asked: bodies.TokenRequest) -> bodies.Token:
        """A token for whoever signed the challenge.

        Raises BadSignature, UnknownSpace, UnknownMember, ShutOut.
        """
        space, device = SpaceId(bytes.fromhex(asked.space)), DeviceId(bytes.fromhex(asked.device))
        author = Author(device, Incarnation(asked.incarnation))
        nonce = base64.b64decode(asked.nonce)
        message = token_message(nonce=nonce, relay_id=self._engine.relay_id, space=space, author=author)

        def check() -> None:
            found = self._engine.space(space, self.hub.now_ms())
            if found is None:
                raise UnknownSpace("this relay does not hold the space", hint="check the relay's address")
            if not verify_signature(
                found.members.member(device).sign, message, base64.b64decode(asked.signature)
            ):
                raise BadSignature("the challenge is not signed with the key of the device that it names")
            self._engine.revocations.check(space, device)
            if not self.tokens.redeem(nonce, time.monotonic()):
                raise ApiError(401, "bad_nonce", "no challenge of this relay, too old, or used already")
            now_ms = self.hub.now_ms()
            with self._storage.transaction():
                self._storage.books.visit([Visit(found.key, device, now_ms, agent=asked.agent)])
                self._storage.books.note([AuditEvent(now_ms, found.key, device, "token", "{}")])

        await self.hub.on_thread(check)
        token = self.tokens.issue(Holder(space, author, asked.agent, set()), time.monotonic())
        return bodies.Token(access_token=token, token_type=bodies.BEARER, expires_in_s=self.tokens.ttl_s)

    def holder(self, token: str) -> Holder:
        """Whose token it is. Raises ApiError 401."""
        holder = self.tokens.holder(token, time.monotonic())
        if holder is None:
            raise ApiError(
                401, "token", "the access token is over or was never given",
                hint="get another one: POST /v1/tokens/challenge, then POST /v1/tokens",
                headers={"WWW-Authenticate": 'Bearer error="invalid_token"'},
            )  # fmt: skip
        return holder

    async def as_member(self, holder: Holder, work: Callable[[Space, Role], T]) -> T:
        """Do something on the storage's thread for who is still a member. Raises UnknownMember, ShutOut."""

        def checked() -> T:
            space = self._engine.space(holder.space, self.hub.now_ms())
            role = None if space is None else space.members.role_of(holder.author.device)
            if role is None:
                raise UnknownMember("this device is not a member of the space any more")
            assert space is not None
            self._engine.revocations.check(space.id, holder.author.device)
            return work(space, role)

        return await self.hub.on_thread(checked)

    # Spaces and devices

    async def space(self, holder: Holder) -> bodies.SpaceView:
        """What is known of a space."""
        live = self.hub.live()
        found = await self.as_member(
            holder, lambda space, _: space_figures(self._storage, space.id, space.members, live)
        )
        return bodies.SpaceView(
            space=found.space.hex(),
            head=found.head,
            size_bytes=found.size_bytes,
            quota_bytes=self.limits.space_bytes,
            members=found.members,
            connections=found.connections,
        )

    async def devices(self, holder: Holder) -> bodies.Devices:
        """All members and where they stand."""
        live, now_ms = self.hub.live(), self.hub.now_ms()

        def read(space: Space, _: Role) -> bodies.Devices:
            figures = device_figures(self._storage, space.id, space.members, live, now_ms)
            return bodies.Devices(head=space.head, devices=[device_view(device) for device in figures])

        return await self.as_member(holder, read)

    async def rename(self, holder: Holder, device: DeviceId, label: str) -> bodies.DeviceView:
        """Name a device at the relay: its own holder or an admin may. Raises PermissionDenied."""
        live, now_ms = self.hub.live(), self.hub.now_ms()

        def write(space: Space, role: Role) -> bodies.DeviceView:
            if device != holder.author.device and role is not Role.ADMIN:
                raise PermissionDenied("a device names itself; only an admin names others")
            found = device_figures(self._storage, space.id, space.members, live, now_ms)
            figures = {one.device: one for one in found}
            if device not in figures:
                raise ApiError(404, "unknown_device", "the space has no such device")
            detail = json.dumps({"device": device.hex(), "label": label})
            with self._storage.transaction():
                self._storage.books.set_label(space.key, device, label, now_ms)
                event = AuditEvent(now_ms, space.key, holder.author.device, "renamed", detail)
                self._storage.books.note([event])
            view = device_view(figures[device])
            view.label = label
            return view

        return await self.as_member(holder, write)

    async def audit(self, holder: Holder, query: bodies.AuditQuery) -> bodies.AuditPage:
        """What happened in the space, for its admins. Raises PermissionDenied."""

        def read(space: Space, role: Role) -> bodies.AuditPage:
            if role is not Role.ADMIN:
                raise PermissionDenied("the audit log is for admins of the space")
            return bodies.AuditPage(
                events=[
                    bodies.AuditView(
                        number=row.number,
                        at_ms=row.event.at_ms,
                        device=None if row.event.device is None else row.event.device.hex(),
                        event=row.event.event,
                        detail=msgspec.json.decode(row.event.detail),
                    )
                    for row in self._storage.books.audit(space.key, query.after, query.limit)
                ]
            )

        return await self.as_member(holder, read)

    async def exchange(self, holder: Holder, frame: FromDevice, peer: Peer | None = None) -> list[Effect]:
        """Have a frame of that device handled, as if it came by the socket; gives what is for the device.

        Raises ApiError for what would close a connection, unless it is told by an answer as well.
        """
        peer = Peer(b"") if peer is None else peer
        peer.space, peer.author, peer.agent = holder.space, holder.author, holder.agent
        if holder.refused is not None:
            peer.refused = holder.refused
        effects = await self.hub.exchange(peer, frame)
        if not any(isinstance(effect, Send) and isinstance(effect.frame, Refuse) for effect in effects):
            _raise_if_closed(effects)
        return effects

    # The log

    async def pull(self, holder: Holder, query: bodies.LogQuery) -> bodies.LogPage:
        """Rows behind a cursor; waits for some, if asked to."""
        deadline_s = time.monotonic() + query.wait_s
        while True:
            grown = self.hub.growth(holder.space)
            page, head = await self.as_member(holder, lambda space, _: self._read(space, holder, query))
            left_s = deadline_s - time.monotonic()
            if page.rows or left_s <= 0 or self.hub.closing:
                break
            try:
                async with asyncio.timeout(left_s):
                    await grown.wait()
            except TimeoutError:
                break
        rows = [_row_view(row.sequence, row.kind.name, row.payload) for row in page.rows]
        return bodies.LogPage(rows=rows, cursor=page.cursor, at_end=page.at_end, head=head)

    def _read(self, space: Space, holder: Holder, query: bodies.LogQuery) -> tuple[Page, int]:
        without = None if query.own else space.chain(holder.author).key
        after = min(query.after, space.head)
        page = self._storage.read(
            space.key, after, max_rows=query.limit, max_bytes=PAGE_BYTES, without=without
        )
        if page.at_end and (page.rows or after < page.cursor):
            now_ms = self.hub.now_ms()
            visit = Visit(space.key, holder.author.device, now_ms, cursor=page.cursor, synced_ms=now_ms)
            with self._storage.transaction():
                self._storage.books.visit([visit])
        return Page([travelling(row) for row in page.rows], page.cursor, page.at_end), space.head

    async def push(self, holder: Holder, envelopes: list[bytes]) -> bodies.Pushed:
        """Push updates as the socket would; a result for each. Raises what closes a connection."""
        most = self.limits.wire.max_push_envelopes
        if len(envelopes) > most:
            raise FrameTooLarge(f"{len(envelopes)} envelopes in one push, the limit is {most}")
        headers = []
        malformed: MalformedEnvelope | None = None
        for raw in envelopes:
            try:
                headers.append(_header(raw, holder))
            except MalformedEnvelope as exc:
                malformed = exc
                break
        peer = Peer(b"")
        effects = await self.exchange(holder, Push(envelopes[: len(headers)]), peer) if headers else []
        answers = [effect.frame for effect in effects if isinstance(effect, Send)]
        refused = next((frame for frame in answers if isinstance(frame, Refuse | CheckedOut)), None)
        heads = [frame.head for frame in answers if isinstance(frame, Ack)]
        head = heads[-1] if heads else (await self.space(holder)).head
        results = _results(headers, refused)
        if malformed is not None:
            results.append(_malformed(malformed, tried=refused is None))
        left = len(envelopes) - len(results)
        results += [bodies.PushResult(incarnation=0, sequence=0, status="not_tried") for _ in range(left)]
        held = None if peer.held is None else peer.held[2]
        wait_s = held.wait_s if isinstance(held, RateLimited) else None
        return bodies.Pushed(results=results, head=head, retry_after_s=wait_s)


def device_view(device: DeviceFigures) -> bodies.DeviceView:
    """As it is answered."""
    return bodies.DeviceView(
        device=device.device.hex(),
        role=device.role,
        label=device.label,
        agent=device.agent,
        app=device.app,
        os=device.os,
        connected=device.connected,
        first_seen_ms=device.first_seen_ms,
        last_seen_ms=device.last_seen_ms,
        last_sync_ms=device.last_sync_ms,
        cursor=device.cursor,
        lag=device.lag,
        revoked_ms=None if device.revoked is None else device.revoked.at_ms,
    )


def _row_view(sequence: int, kind: str, payload: bytes) -> bodies.LogRow:
    return msgspec.convert({"sequence": sequence, "kind": kind.lower(), "payload": payload}, bodies.LogRow)


def _header(raw: bytes, holder: Holder) -> Header:
    header = parse(raw, max_bytes=MAX_ENVELOPE_BYTES).header
    if header.kind is not Kind.UPDATE or header.space != holder.space:
        raise MalformedEnvelope("not an update of this space")
    return header


def _malformed(error: MalformedEnvelope, *, tried: bool) -> bodies.PushResult:
    if not tried:
        return bodies.PushResult(incarnation=0, sequence=0, status="not_tried")
    return bodies.PushResult(
        incarnation=0, sequence=0, status="refused", code=error.code, reason=error.message
    )


def _results(headers: list[Header], refused: Refuse | CheckedOut | None) -> list[bodies.PushResult]:
    at_fault = None if refused is None else (refused.incarnation, refused.sequence)
    results: list[bodies.PushResult] = []
    over = False
    for header in headers:
        result = bodies.PushResult(
            incarnation=header.incarnation, sequence=header.sequence, status="not_tried"
        )
        if not over and (header.incarnation, header.sequence) == at_fault:
            over = True
            result.status = "refused"
            if isinstance(refused, CheckedOut):
                result.code, result.reason = "checked_out", why_checked_out(refused)
                result.lease = lease_view(refused.row, refused.lease, in_force=True)
            elif refused is not None:
                result.code, result.reason = refused.code, refused.reason
        elif not over and _is_stored(header, refused):
            result.status = "stored"
        results.append(result)
    return results


def _is_stored(header: Header, refused: Refuse | CheckedOut | None) -> bool:
    """Whether an envelope before the one that was refused is in the log."""
    if not isinstance(refused, CheckedOut):
        return True
    return header.incarnation == refused.incarnation and header.sequence <= refused.taken


def _raise_if_closed(effects: list[Effect]) -> None:
    for effect in effects:
        if isinstance(effect, Close):
            bye: Bye = effect.bye
            raise ApiError(_STATUS_OF.get(bye.code, 500), bye.error, bye.reason)
