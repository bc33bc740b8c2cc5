"""What a relay does that has lost something: how it finds out, and how devices give it back.

A relay loses rows of its logs by being restored from a backup, by a disk that lied about a commit, or all of
them by beginning anew. Nobody has to tell it. Every opening of its database is a *life* with an id, and the
database knows where each log ended with each life that it knows of. A device says up to where it has seen a
log, or was promised something, in which life (`place_of`). What is beyond that life's end, or belongs to a
life that the database has never heard of, is gone: the device is sent everything that there is from the
beginning on, its own rows too, and finds out what is missing.

What is given back:

- **the membership log**, in a session or, when the relay does not know the space or the member, in place of
  a hello (`revive`). It is chained and signed, so nobody can give back anything but what was there. What a
  stranger could do is to found a space without the setup token by calling it a lost one; so a relay takes
  back a whole space only while its operator allows it. An invite that has expired by now was used before it
  had: whoever is a member without the entry in question may vouch for that. Where the log here has gone on
  meanwhile, the device is told how (`fork_of`) and brings one log made of both.
- **the end of the device's own chain** (`resume`), by its own word: updates that were acknowledged do not
  come again, and those that are sent go on from there.
- **records**, as snapshots (`GiveBack`, judged in `snapshots`): devices do not keep each other's updates.
"""

from __future__ import annotations

from collections.abc import Sequence

from crdt_sync.crypto.chain import ChainHead
from crdt_sync.crypto.device_keys import verify_signature
from crdt_sync.errors import BadSignature, UnknownMember, UnknownSpace
from crdt_sync.ids import Author, DeviceId, RelayId
from crdt_sync.membership.entries import parse_entry
from crdt_sync.membership.log import MembershipLog
from crdt_sync.protocol.frames import Forked, Hello, Revive, revive_message
from crdt_sync_server.limits import RelayLimits
from crdt_sync_server.spaces import Chain, Space
from crdt_sync_server.storage.port import Storage


class NotTakenBack(UnknownSpace):
    """A whole space comes back only while the operator allows it."""

    code = "not_taken_back"


def place_of(storage: Storage, space: Space, hello: Hello) -> tuple[int, int]:
    """Where delivery starts, and up to where the device is to get its own rows as well."""
    of_now = hello.relay_id_seen == storage.relay_id
    end = space.head if of_now else storage.life_end(space.key, hello.relay_id_seen)
    known = end is not None and max(hello.cursor, hello.promised) <= end
    cursor = hello.cursor if known else 0
    compares = cursor == 0 and max(hello.cursor, hello.promised) > 0
    return cursor, space.head if compares else 0


def resume(space: Space, author: Author, hello: Hello) -> Chain:
    """The device's chain; where the relay has lost the end of it, by the device's own word."""
    acked = ChainHead(hello.acked_sequence, hello.acked_hash)
    return space.resume(author, acked) if acked.sequence else space.chain(author)


def check_log(frame: Revive, nonce: bytes, relay_id: RelayId) -> MembershipLog:
    """The log that a device gives back, checked in itself. Raises CrdtSyncError."""
    log = MembershipLog(frame.space)
    for raw in frame.entries:
        log.apply(raw)
    member = log.members.get(DeviceId(frame.party))
    if member is None:
        raise UnknownMember("who gives a membership log back has to be a member by it")
    message = revive_message(
        nonce=nonce, relay_id=relay_id, space=frame.space, party=frame.party, entries=frame.entries
    )
    if not verify_signature(member.sign, message, frame.signature):
        raise BadSignature("the membership log is not signed by the device that gives it back")
    return log


def found_again(
    storage: Storage, entries: Sequence[bytes], now_ms: int, limits: RelayLimits, *, allowed: bool
) -> Space:
    """A space that this relay does not know, from its whole membership log. Raises NotTakenBack."""
    if not allowed:
        raise NotTakenBack(
            "this relay does not hold the space, and takes lost ones back only while its operator allows it",
            hint="on the relay: crdt-sync relay take-back",
        )
    space = Space.found(storage, entries[0], now_ms, limits)
    for raw in entries[1:]:
        space.append_entry(raw, None)
    return space


def give_entries_back(space: Space, frame: Revive, now_ms: int, *, allowed: bool) -> int:
    """Take the entries that the relay lost from the end of its log; how many there were.

    Raises InviteError, BadMembership.
    """
    device, taken = DeviceId(frame.party), 0
    for raw in frame.entries:
        vouched = allowed or device in space.members.members
        taken += space.append_entry(raw, None if vouched else now_ms) > 0
    return taken


def fork_of(space: Space, frame: Revive) -> Forked | None:
    """How the log here went on where the device's goes on differently; None where it does not.

    The device makes one log of both (see `crdt_sync.membership.carrying`) and brings that.
    """
    common = 0
    for raw in frame.entries:
        if space.members.position_of(parse_entry(raw).hash) != common:
            break
        common += 1
    here = space.members.entries[common:]
    if common == len(frame.entries) or not here:
        return None
    return Forked(common, [parse_entry(raw).without_hpke() for raw in here])
