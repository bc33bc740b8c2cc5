"""Making one log of two: what a branch of the membership log brings that a relay had and lost.

A relay that was restored from a backup, or began anew, has a shorter log. When somebody makes an entry there
before a member with the newer entries has come back, two entries claim one place, and each is signed. Which
branch stands is no choice of taste: the relay has one log, and whoever comes new knows only that one. So *the
relay's branch stands*, and a device that has another takes it over and puts what its own has besides into one
or more entries of kind carry, at the end. The entries inside keep their signatures, so nobody can carry
what never was, and any member may do it, also one that is a member only by what it carries.

What cannot be carried: a join whose invite was used by another device or withdrawn on the branch that stands,
and what such a device did as an admin. A withdrawal of an invite that was used there comes too late, as ever.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from crdt_sync.crypto.device_keys import DeviceKeys, device_id_of
from crdt_sync.ids import DeviceId
from crdt_sync.membership.entries import (
    MAX_ENTRY_BYTES,
    Carry,
    Entry,
    Invite,
    Join,
    make_entry,
    parse_entry,
)
from crdt_sync.membership.log import MembershipLog

ROOM_BYTES: Final = MAX_ENTRY_BYTES - 512
"""For the entries in one carry: what stands around them takes some 200 bytes, and 5 for each."""
_ITEM_BYTES: Final = 5


class Carried(NamedTuple):
    """`entries` are at the end of the log now; `left_out` could not be carried."""

    entries: list[bytes]
    left_out: list[Entry]


def carry_over(log: MembershipLog, lost: Sequence[bytes], device: DeviceKeys, *, at_ms: int) -> Carried:
    """Put what another branch of the log brings at its end, in entries that `device` makes.

    Nothing is carried when the device is no member even then; so ask the log.
    """
    entries = [parse_entry(raw) for raw in _flat(lost)]
    own = _way_in(entries, device.device_id)
    first = [entry for entry in entries if entry.hash in own]
    rest = [entry for entry in entries if entry.hash not in own]
    trial = log.copy()
    taken: list[bytes] = []
    left_out: list[Entry] = []
    for entry in (*first, *rest):
        bare = entry.without_hpke()
        if trial.holds(entry.hash):
            continue
        if len(bare) + _ITEM_BYTES <= ROOM_BYTES and trial.try_carried(bare):
            taken.append(bare)
        else:
            left_out.append(entry)
    if trial.role_of(device.device_id) is None:
        return Carried([], entries)
    made = []
    for part in _parts(taken):
        made.append(
            make_entry(
                Carry(tuple(part)),
                space=log.space_id,
                index=log.index + 1,
                prev=log.head,
                at_ms=at_ms,
                keys=device,
            )
        )
        log.apply(made[-1])
    return Carried(made, left_out)


def _flat(entries: Sequence[bytes]) -> Iterator[bytes]:
    """Without the carries, but with what they brought."""
    for raw in entries:
        payload = parse_entry(raw).payload
        if isinstance(payload, Carry):
            yield from payload.entries
        else:
            yield raw


def _way_in(entries: Sequence[Entry], device: DeviceId) -> set[bytes]:
    """Hashes of the entries by which the device came in: its join, the invite, and whoever invited."""
    joins = {device_id_of(e.payload.sign): (e, e.payload) for e in entries if isinstance(e.payload, Join)}
    invites = {e.payload.invite_id: e for e in entries if isinstance(e.payload, Invite)}
    found: set[bytes] = set()
    who: DeviceId | None = device
    while who in joins:
        join, payload = joins.pop(who)
        found.add(join.hash)
        invite = invites.get(payload.invite_id)
        who = None if invite is None else invite.signer
        if invite is not None:
            found.add(invite.hash)
    return found


def _parts(entries: Sequence[bytes]) -> Iterator[list[bytes]]:
    """As many as fit into one carry each."""
    part: list[bytes] = []
    size_bytes = 0
    for raw in entries:
        if part and size_bytes + len(raw) + _ITEM_BYTES > ROOM_BYTES:
            yield part
            part, size_bytes = [], 0
        part.append(raw)
        size_bytes += len(raw) + _ITEM_BYTES
    if part:
        yield part
