"""Checkouts of one space: who has which record, decided on opaque ids and by the relay's clock.

A `LeaseBook` is the memory of the lease rows in a space's log. It decides and writes inside the engine's
transaction, as `spaces` does, and is thrown away with its space when that fails. What it decides:

- a record has one holder at a time; who asks again renews, and keeps its token;
- who comes to a lease that ran out, or that an admin broke, gets the next token, and its holder before stands
  among the *former* ones until it asks or gives back: its work may be still to come, and is *late* then;
- a push of somebody else's is refused whole, before anything of it is stored, so that what was written
  together is never half here because of a checkout;
- a holder that is no member any more, or may not write any more, holds nothing;
- what a device was promised before this relay lost its memory is granted for what is left of it, if nobody
  else has the record, and else noted, so that its work counts as late.

It knows nothing of records but their ids, and nothing of devices but their role.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol

import msgspec

from crdt_sync.crypto.envelope import Envelope, Header
from crdt_sync.ids import Author, DeviceId, OpaqueId
from crdt_sync.membership.log import MembershipLog
from crdt_sync.protocol.frames import CheckedOut, CheckIn, CheckOut, CheckoutResult
from crdt_sync.protocol.leases import (
    Former,
    Late,
    Lease,
    LeaseState,
    Promised,
    decode_lease,
    encode_lease,
    next_token,
    plausible,
)
from crdt_sync.protocol.limits import DEFAULT_LEASE_MS, MAX_LEASE_MS, MAX_LEASE_NOTES, MIN_LEASE_MS
from crdt_sync.roles import Role
from crdt_sync_server.storage.port import SpaceKey, Storage

FORGET_ENDED_MS: Final = 8 * 24 * 3_600_000
"""After so long a lease that was given back is forgotten: whoever missed that has seen it run out since."""
FORGET_MS: Final = 90 * 24 * 3_600_000
"""After so long any is: a device that comes with late work after a quarter of a year comes unmarked."""
FORGET_AT_ONCE: Final = 64
"""Bounds what one request pays for the tidiness of all."""


class Log(Protocol):
    """The log that the leases are rows of."""

    def put_lease(self, record: OpaqueId, payload: bytes) -> int:
        """Write it at the end, in place of the record's row before it. Gives the row's number."""
        ...

    def drop_lease(self, record: OpaqueId) -> None:
        """Take the record's row out."""
        ...


class LeaseBook:
    """See the module."""

    def __init__(self, storage: Storage, key: SpaceKey, members: MembershipLog, log: Log) -> None:
        self._leases = storage.leases
        self._key = key
        self._members = members
        self._log = log
        self._rows: dict[OpaqueId, tuple[int, Lease]] = {
            record: (sequence, decode_lease(payload)) for record, sequence, payload in self._leases.all(key)
        }
        """By record: its row in the log and the lease; the oldest row first."""
        self._newest_token = self._leases.newest_token(key)

    def __bool__(self) -> bool:
        return bool(self._rows)

    def all(self) -> list[tuple[int, Lease]]:
        """What is known and the row where it stands, the oldest change first; run out ones too."""
        return list(self._rows.values())

    def answer(self, asked: CheckOut | CheckIn, device: DeviceId, now_ms: int) -> list[CheckoutResult]:
        """Do what a device asks, record by record."""
        if isinstance(asked, CheckIn):
            return [self._check_in(record, device, asked.breaks, now_ms) for record in asked.records]
        self._forget(now_ms)
        ttl_ms = min(max(asked.ttl_ms or DEFAULT_LEASE_MS, MIN_LEASE_MS), MAX_LEASE_MS)
        before = self._newest_token
        promised: Sequence[Promised | None] = asked.held or [None] * len(asked.records)
        results = [
            self._check_out(record, device, now_ms, ttl_ms, asked.newest_token, held)
            for record, held in zip(asked.records, promised, strict=True)
        ]
        if self._newest_token > before:
            self._leases.set_newest_token(self._key, self._newest_token)
        return results

    # Checking out and in

    def _check_out(
        self,
        record: OpaqueId,
        device: DeviceId,
        now_ms: int,
        ttl_ms: int,
        seen: int,
        held: Promised | None,
    ) -> CheckoutResult:
        row, lease = self._rows.get(record, (0, None))
        if not self._may_write(device):
            return CheckoutResult(record, "permission", row, lease)
        expires_ms = now_ms + ttl_ms if held is None else min(held.expires_ms, now_ms + MAX_LEASE_MS)
        if lease is not None and self.in_force(lease, now_ms):
            if lease.device != device:
                return self._remember(CheckoutResult(record, "checked_out", row, lease), device, held, now_ms)
            if held is not None and expires_ms <= lease.expires_ms:
                return CheckoutResult(record, "renewed", row, lease)
            # A shorter one was not asked for: whoever wants that checks in.
            expires_ms = max(lease.expires_ms, expires_ms)
            return self._put("renewed", msgspec.structs.replace(lease, expires_ms=expires_ms))
        if held is not None and (expires_ms <= now_ms or _ended(lease, device, held)):
            return self._remember(CheckoutResult(record, "not_held", row, lease), device, held, now_ms)
        self._newest_token = next_token(self._newest_token, seen, now_ms)
        former = () if lease is None else _left_by(lease, device)
        late = () if lease is None else lease.late
        return self._put(
            "granted",
            Lease(record, device, self._newest_token, now_ms, expires_ms, LeaseState.HELD, former, late),
        )

    def _remember(
        self, result: CheckoutResult, device: DeviceId, held: Promised | None, now_ms: int
    ) -> CheckoutResult:
        """Note what this relay forgot: that device had the record. What it still sends of it is late."""
        lease = result.lease
        if held is None or not plausible(held.token, now_ms) or _ended(lease, device, held):
            return result
        self._newest_token = max(self._newest_token, held.token)
        ended_ms = min(held.expires_ms, now_ms)
        if lease is None or lease.device == device:
            former, late = ((), ()) if lease is None else (lease.former, lease.late)
            state = LeaseState.HELD
            run_out = Lease(result.record, device, held.token, ended_ms, ended_ms, state, former, late)
            return self._put(result.code, run_out)
        others = [each for each in lease.former if each.device != device]
        former = (*others, Former(device, held.token, ended_ms))[-MAX_LEASE_NOTES:]
        return self._put(result.code, msgspec.structs.replace(lease, former=former))

    def _check_in(self, record: OpaqueId, device: DeviceId, breaks: bool, now_ms: int) -> CheckoutResult:
        row, lease = self._rows.get(record, (0, None))
        if breaks and self._members.role_of(device) is not Role.ADMIN:
            return CheckoutResult(record, "permission", row, lease)
        if lease is None:
            return CheckoutResult(record, "not_held", 0, None)
        if lease.device == device and lease.state is not LeaseState.RETURNED:
            held = self.in_force(lease, now_ms)
            expires_ms = now_ms if held else min(lease.expires_ms, now_ms)
            ended = msgspec.structs.replace(lease, state=LeaseState.RETURNED, expires_ms=expires_ms)
            return self._put("returned" if held else "not_held", ended)
        if self.in_force(lease, now_ms):
            if not breaks:
                return self._forgive(CheckoutResult(record, "checked_out", row, lease), device)
            ended = msgspec.structs.replace(lease, state=LeaseState.BROKEN, expires_ms=now_ms)
            return self._put("broken", ended)
        return self._forgive(CheckoutResult(record, "not_held", row, lease), device)

    def _forgive(self, result: CheckoutResult, device: DeviceId) -> CheckoutResult:
        """Who checks in what it lost long ago has no work of then any more: it is no former holder."""
        lease = result.lease
        assert lease is not None
        former = tuple(each for each in lease.former if each.device != device)
        if former == lease.former:
            return result
        return self._put(result.code, msgspec.structs.replace(lease, former=former))

    def _put(self, code: str, lease: Lease) -> CheckoutResult:
        record = lease.record
        sequence = self._log.put_lease(record, encode_lease(lease))
        self._rows.pop(record, None)
        self._rows[record] = (sequence, lease)
        return CheckoutResult(record, code, sequence, lease)

    def in_force(self, lease: Lease, now_ms: int) -> bool:
        """Whether it holds others off now."""
        return lease.held(now_ms) and self._may_write(lease.device)

    def _may_write(self, device: DeviceId) -> bool:
        role = self._members.role_of(device)
        return role is not None and role.may_write

    def _forget(self, now_ms: int) -> None:
        """Drop what nobody needs to know any more, the oldest first. The newest row of a log never goes."""
        candidates = list(self._rows.items())[:-1][:FORGET_AT_ONCE]
        for record, (_, lease) in candidates:
            ended = lease.state is LeaseState.RETURNED and not lease.former and not lease.late
            if lease.expires_ms < now_ms - (FORGET_ENDED_MS if ended else FORGET_MS):
                self._log.drop_lease(record)
                del self._rows[record]

    # Updates

    def refusal(
        self, device: DeviceId, envelopes: Sequence[Envelope], taken: Callable[[Author], int], now_ms: int
    ) -> CheckedOut | None:
        """Why nothing of a push is taken, if so. `taken`: up to where the log has an author's chain.

        What the log has already is acknowledged again, whoever has the record now.
        """
        if not self._rows:
            return None
        for envelope in envelopes:
            header = envelope.header
            row, lease = self._rows.get(header.record, (0, None))
            if lease is None or lease.device == device or not self.in_force(lease, now_ms):
                continue
            end = taken(header.author)
            if header.sequence > end:
                return CheckedOut(header.incarnation, header.sequence, end, row, lease)
        return None

    def took(self, header: Header, now_ms: int) -> None:
        """This update was stored: mark it if it comes after its author's lease has ended."""
        _, lease = self._rows.get(header.record, (0, None))
        ended = None if lease is None else _ended_for(lease, header.device, now_ms)
        if lease is not None and ended is not None:
            late = _with_late(lease.late, ended, header, now_ms)
            self._put("", msgspec.structs.replace(lease, late=late))


def _ended(lease: Lease | None, device: DeviceId, held: Promised) -> bool:
    """Whether it is known here that what was promised has ended: it ran out, was broken or given back."""
    if lease is None:
        return False
    known = {each.device: each.token for each in lease.former} | {lease.device: lease.token}
    return held.token <= known.get(device, -1)


def _left_by(lease: Lease, device: DeviceId) -> tuple[Former, ...]:
    """The former holders once that device has the record after this lease."""
    former = [each for each in lease.former if each.device not in (device, lease.device)]
    if lease.device != device and lease.state is not LeaseState.RETURNED:
        former.append(Former(lease.device, lease.token, lease.expires_ms))
    return tuple(former[-MAX_LEASE_NOTES:])


def _ended_for(lease: Lease, device: DeviceId, now_ms: int) -> Former | None:
    """The lease of that device that has ended without being given back, if there is one."""
    if lease.device == device:
        if lease.state is LeaseState.RETURNED or lease.held(now_ms):
            return None
        return Former(device, lease.token, lease.expires_ms)
    return next((each for each in lease.former if each.device == device), None)


def _with_late(late: tuple[Late, ...], ended: Former, header: Header, now_ms: int) -> tuple[Late, ...]:
    """The notes with one more update in them; updates of one author after one lease share a note."""
    first = header.sequence
    rest = []
    for each in late:
        if (each.device, each.token, each.incarnation) == (ended.device, ended.token, header.incarnation):
            first = min(first, each.first)
        else:
            rest.append(each)
    note = Late(ended.device, ended.token, ended.ended_ms, header.incarnation, first, header.sequence, now_ms)
    return (*rest, note)[-MAX_LEASE_NOTES:]
