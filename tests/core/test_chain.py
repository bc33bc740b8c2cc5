"""Chains: an author's updates follow each other, and nothing missing, doubled or replaced passes."""

from __future__ import annotations

import hashlib
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt_sync.crypto.chain import DUPLICATE, ChainHead, Duplicate, frontier_hash
from crdt_sync.crypto.device_keys import DeviceKeys
from crdt_sync.crypto.envelope import Envelope, Header, parse, seal
from crdt_sync.crypto.space_keys import SpaceKeys
from crdt_sync.errors import ChainBroken, Equivocation
from crdt_sync.ids import Author, DeviceId, Incarnation, OpaqueId, SpaceId

DEVICE = DeviceKeys.generate(random.Random(1).randbytes)
KEYS = SpaceKeys.generate(random.Random(2).randbytes)
AUTHOR = Author(DEVICE.device_id, Incarnation(7))
SPACE = SpaceId(b"s" * 16)
START = ChainHead.start(SPACE, AUTHOR)


def link(head: ChainHead, payload: bytes = b"") -> Envelope:
    """The author's next update after `head`."""
    header = Header.for_update(
        space=SPACE,
        record=OpaqueId(b"r" * 16),
        author=AUTHOR,
        epoch=1,
        sequence=head.sequence + 1,
        prev=head.hash,
        members_head=b"m" * 16,
        frontier=b"f" * 16,
    )
    raw = seal(header, payload, key=KEYS.envelope_key(1), keys=DEVICE, nonce=bytes(12))
    return parse(raw, max_bytes=1 << 20)


def chain(length: int) -> list[Envelope]:
    links: list[Envelope] = []
    head = START
    for number in range(length):
        links.append(link(head, b"%d" % number))
        head = ChainHead(number + 1, links[-1].hash)
    return links


CHAIN = chain(6)


def test_the_start_is_fixed_by_space_device_and_incarnation() -> None:
    material = b"crdt-sync/chain/v1" + SPACE + DEVICE.device_id + b"\0\0\0\7"
    assert ChainHead(0, hashlib.sha256(material).digest()) == START
    assert ChainHead.start(SPACE, Author(DEVICE.device_id, Incarnation(8))) != START
    assert ChainHead.start(SpaceId(b"t" * 16), AUTHOR) != START


def test_updates_in_order_make_a_chain() -> None:
    head: ChainHead | Duplicate = START
    for number, envelope in enumerate(CHAIN, 1):
        assert isinstance(head, ChainHead)
        head = head.accept(envelope)
        assert head == ChainHead(number, hashlib.sha256(envelope.raw).digest())


def test_the_same_update_again_is_a_duplicate() -> None:
    head = ChainHead(3, CHAIN[2].hash)
    assert head.accept(CHAIN[2]) is DUPLICATE
    assert head.accept(CHAIN[0]) is DUPLICATE
    assert head.accept(CHAIN[0], stored_hash=CHAIN[0].hash) is DUPLICATE


def test_a_missing_update_is_noticed() -> None:
    with pytest.raises(ChainBroken, match=r"update 5 of device [0-9a-f]{8} came after 2; 2 are missing"):
        ChainHead(2, CHAIN[1].hash).accept(CHAIN[4])


def test_an_update_that_follows_another_one_is_noticed() -> None:
    with pytest.raises(ChainBroken, match=r"^header field prev: update 3"):
        ChainHead(2, b"x" * 32).accept(CHAIN[2])


def test_an_update_of_another_incarnation_does_not_start_this_chain() -> None:
    other = ChainHead.start(SPACE, Author(DEVICE.device_id, Incarnation(8)))
    with pytest.raises(ChainBroken):
        other.accept(CHAIN[0])


def test_two_updates_with_one_number_are_equivocation() -> None:
    rival = link(ChainHead(2, CHAIN[1].hash), b"something else")
    with pytest.raises(Equivocation, match="signed two different updates 3"):
        ChainHead(3, CHAIN[2].hash).accept(rival)
    with pytest.raises(Equivocation):
        ChainHead(6, CHAIN[5].hash).accept(rival, stored_hash=CHAIN[2].hash)


@given(st.lists(st.integers(0, 5), max_size=30))
def test_whatever_the_order_a_head_only_ever_walks_the_chain(order: list[int]) -> None:
    head = START
    for position in order:
        before = head
        try:
            result = head.accept(CHAIN[position])
        except ChainBroken:
            assert position > before.sequence
            continue
        if isinstance(result, Duplicate):
            assert position < before.sequence
        else:
            assert result == ChainHead(position + 1, CHAIN[position].hash)
            head = result


authors = st.builds(
    lambda device, incarnation: Author(DeviceId(device), Incarnation(incarnation)),
    st.binary(min_size=16, max_size=16),
    st.integers(1, 2**32 - 1),
)
heads = st.builds(ChainHead, st.integers(1, 2**64 - 1), st.binary(min_size=32, max_size=32))


@given(st.dictionaries(authors, heads, min_size=1, max_size=5), st.randoms(use_true_random=False))
def test_a_frontier_depends_on_every_chain_and_not_on_their_order(
    seen: dict[Author, ChainHead], shuffle: random.Random
) -> None:
    fingerprint = frontier_hash(seen)
    assert len(fingerprint) == 16
    items = list(seen.items())
    shuffle.shuffle(items)
    assert frontier_hash(dict(items)) == fingerprint
    author, head = items[0]
    assert frontier_hash({**seen, author: ChainHead(head.sequence ^ 1, head.hash)}) != fingerprint
    assert frontier_hash(dict(items[1:])) != fingerprint
