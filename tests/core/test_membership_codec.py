"""Membership entries as bytes: nothing but the typed error comes out of hostile ones."""

from __future__ import annotations

import random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crdt_sync.crypto.device_keys import DeviceKeys
from crdt_sync.crypto.space_keys import SpaceKeys
from crdt_sync.errors import BadMembership
from crdt_sync.ids import InviteId, SpaceId
from crdt_sync.membership.authoring import make_genesis
from crdt_sync.membership.entries import (
    Carry,
    Invite,
    Join,
    Withdraw,
    hpke_hash,
    invite_id_of,
    make_entry,
    parse_entry,
)
from crdt_sync.membership.log import MembershipLog

DEVICE = DeviceKeys.generate(random.Random(1).randbytes)
GENESIS, SPACE = make_genesis(
    DEVICE,
    SpaceKeys.generate(random.Random(2).randbytes),
    space_name="Rig",
    device_name="Office",
    at_ms=1,
    entropy=random.Random(3).randbytes,
)

keys32 = st.binary(min_size=32, max_size=32)
ids16 = st.binary(min_size=16, max_size=16)
times = st.integers(1, 2**53 - 1)
payloads = st.one_of(
    st.builds(Withdraw, ids16.map(InviteId)),
    st.builds(Carry, st.lists(st.binary(max_size=100), min_size=1, max_size=5).map(tuple)),
    st.builds(
        lambda sign, role, expires, sealed: Invite(invite_id_of(sign), sign, role, expires, sealed),
        keys32, st.integers(1, 5), times, st.binary(max_size=300),
    ),
    st.builds(
        Join, ids16.map(InviteId), keys32, st.just(hpke_hash(DEVICE.public.hpke)), st.binary(max_size=200)
    ),
)  # fmt: skip


@given(
    payloads,
    ids16.filter(any).map(SpaceId),
    st.integers(1, 2**32 - 1),
    keys32.filter(any),
    times,
)
def test_entries_come_back_as_they_were(
    payload: Invite | Withdraw | Join | Carry, space: SpaceId, index: int, prev: bytes, at_ms: int
) -> None:
    joins = isinstance(payload, Join)
    raw = make_entry(
        payload,
        space=space,
        index=index,
        prev=prev,
        at_ms=at_ms,
        keys=DEVICE,
        invite_sign=DEVICE.sign if joins else None,
        hpke=DEVICE.public.hpke if joins else b"",
    )
    entry = parse_entry(raw)
    assert (entry.payload, entry.space, entry.index, entry.prev, entry.at_ms, entry.signer, entry.raw) == (
        payload, space, index, prev, at_ms, DEVICE.device_id, raw,
    )  # fmt: skip
    assert entry.signed_by(DEVICE.sign_public)
    assert entry.hpke == (DEVICE.public.hpke if joins else None)


# Anything msgpack, and things that look like entries of every kind with anything inside.
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.binary(max_size=40)
    | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=5),
    max_leaves=10,
)
bodies = st.tuples(
    st.just(1) | values, st.integers(0, 9) | values, ids16 | values, st.integers(0, 3) | values,
    keys32 | values, times | values, ids16 | values,
    st.lists(ids16 | keys32 | st.integers(-1, 9) | values, max_size=6).map(msgspec.msgpack.encode) | values,
)  # fmt: skip
hostile = st.one_of(
    st.binary(max_size=300),
    values.map(msgspec.msgpack.encode),
    st.tuples(
        bodies.map(msgspec.msgpack.encode) | values,
        st.just(bytes(64)) | values,
        st.just(b"") | st.just(bytes(64)) | values,
        st.just(b"") | values,
    ).map(msgspec.msgpack.encode),
    st.tuples(st.integers(0, len(GENESIS)), st.binary(max_size=20)).map(
        lambda cut: GENESIS[: cut[0]] + cut[1] + GENESIS[cut[0] + len(cut[1]) :]
    ),
)


@settings(max_examples=400)
@given(hostile)
def test_hostile_bytes_give_only_the_typed_error_and_change_nothing(raw: bytes) -> None:
    for log in (MembershipLog(), MembershipLog.restore(SPACE, [GENESIS])):
        before = (log.head, log.index, dict(log.members))
        if raw == GENESIS and not log.entries:
            continue
        with pytest.raises(BadMembership):
            log.apply(raw)
        assert (log.head, log.index, dict(log.members)) == before


@given(st.integers(900, 3000))
def test_deep_nesting_is_refused_without_harm(depth: int) -> None:
    with pytest.raises(BadMembership):
        parse_entry(b"\x91" * depth + b"\xc0")


def test_a_giant_is_refused_before_it_is_decoded() -> None:
    with pytest.raises(BadMembership, match="1048576 bytes, more than the 16384"):
        parse_entry(bytes(1 << 20))
