"""The relay has a part of a group of ours and not the rest: what that means for the records it was about."""

from __future__ import annotations

import pytest

from crdt_sync.crypto.cover import CoverVector
from crdt_sync.crypto.envelope import Header, parse
from crdt_sync.ids import Author, Incarnation, RecordId, RelayId
from crdt_sync.protocol.limits import MAX_ENVELOPE_BYTES
from crdt_sync_client.engine.model import Quarantined, UpdateOp
from tests.client.engine_world import Peer, World
from tests.client.group_kit import set_all, shown, together
from tests.client.test_engine_refusals import push, refuse_record

ANOTHER_LIFE = RelayId(b"another life....")


def take_first_of(anna: Peer, ids: list[RecordId]) -> Header:
    """Anna writes to all together; the relay takes the first envelope. Gives its header."""
    set_all(anna, ids, notes="together")
    first, *_ = push(anna)
    assert anna.world.relay.push(first)
    header = Header.unpack(first)
    anna.engine.acked(anna.space, header.incarnation, header.sequence)
    return header


def read_anew(anna: Peer) -> None:
    """The relay has lost something that Anna had, and delivers from the beginning, Anna's own rows too."""
    relay, start = anna.world.relay, anna.engine.session_start(anna.space)
    sequence, link = relay.chains[Author(start.device, start.incarnation)]
    welcomed = anna.engine.welcome(anna.space, ANOTHER_LIFE, sequence, link, relay.head, 0)
    assert welcomed.relay_behind
    reader = Author(anna.world.office.engine.device_id, Incarnation(1))
    anna.engine.receive(anna.space, relay.after(0, reader), relay.head)


def cover_of(peer: Peer, id: RecordId) -> CoverVector:
    (raw,) = peer.engine.make_snapshots(peer.space, [peer.opaque(id)])
    return parse(raw, max_bytes=MAX_ENVELOPE_BYTES).cover()


@pytest.mark.parametrize("code", ["permission", "record_over_quota", "checked_out"])
def test_whoever_had_the_rest_refused_names_the_part_that_was_taken(
    world: World, anna: Peer, ids: list[RecordId], code: str
) -> None:
    """The relay would take no snapshot of the record from it: it does not pass over what it has."""
    a, b, *_ = ids
    taken = take_first_of(anna, [a, b])
    anna.pull()  # from here on: a relay does not send to anyone what it has from that session
    refuse_record(anna, b, code)
    anna.engine.retry()
    anna.reopen()
    world.settle()
    world.assert_converged()
    assert shown(world.office, [a, b]) == ["together", "together"]
    assert cover_of(anna, a) == cover_of(world.office, a)
    assert cover_of(anna, a).unmerged == {(taken.author, taken.sequence)}
    assert cover_of(anna, b).unmerged == frozenset()
    aside: list[Quarantined] = anna.engine.quarantined(anna.space)
    assert (aside, anna.engine.status_counts().quarantined) == ([], 0)  # it is nobody's loss


def test_a_part_that_comes_back_to_its_author_is_made_again_with_the_rest(
    world: World, anna: Peer, ids: list[RecordId]
) -> None:
    a, b, *_ = ids
    taken = take_first_of(anna, [a, b])
    read_anew(anna)
    refuse_record(anna, b)
    anna.engine.retry()
    world.settle()
    world.assert_converged()
    assert shown(world.office, [a, b]) == ["together", "together"]
    assert cover_of(anna, a).unmerged == {(taken.author, taken.sequence)}
    assert anna.engine.outbox() == []


def test_a_part_that_comes_back_to_its_author_waits_no_longer_than_the_rest(
    world: World, anna: Peer, ids: list[RecordId]
) -> None:
    a, b, *_ = ids
    take_first_of(anna, [a, b])
    read_anew(anna)
    world.settle()
    world.assert_converged()
    assert shown(world.office, [a, b]) == ["together", "together"]
    assert cover_of(anna, a) == cover_of(world.office, a)
    assert cover_of(anna, a).unmerged == frozenset()


def test_what_another_device_had_not_merged_is_covered_once_the_rest_is_sent(
    world: World, anna: Peer, ids: list[RecordId]
) -> None:
    a, b, *_ = ids
    taken = take_first_of(anna, [a, b])
    world.office.sync()
    together(world.office, UpdateOp("job", a, {"count": 1}))
    world.office.sync()
    world.office.compact(a)
    anna.pull()  # the snapshot names the part
    world.settle()
    world.assert_converged()
    for peer in (anna, world.office):
        assert cover_of(peer, a).covers(taken.author, taken.sequence)
