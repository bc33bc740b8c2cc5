"""Envelopes: what was sealed comes back, and whatever was changed is refused with what was wrong."""

from __future__ import annotations

import contextlib
import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crdt_sync.crypto.chain import ChainHead
from crdt_sync.crypto.cover import CoverVector
from crdt_sync.crypto.device_keys import DeviceKeys
from crdt_sync.crypto.envelope import HEADER_BYTES, MIN_ENVELOPE_BYTES, Envelope, Header, Kind, parse, seal
from crdt_sync.crypto.space_keys import SpaceKeys
from crdt_sync.errors import BadSignature, DecryptionFailed, MalformedEnvelope
from crdt_sync.ids import Author, DeviceId, Incarnation, OpaqueId, SpaceId

MAX_BYTES = 1 << 20
DEVICE = DeviceKeys.generate(random.Random(1).randbytes)
OTHER = DeviceKeys.generate(random.Random(2).randbytes)
KEYS = SpaceKeys.generate(random.Random(3).randbytes)
AUTHOR = Author(DEVICE.device_id, Incarnation(7))
SPACE = SpaceId(b"s" * 16)
RECORD = OpaqueId(b"r" * 16)
NONCE = bytes(range(12))
COVER = CoverVector({AUTHOR: ChainHead(3, b"h" * 32)}, [(AUTHOR, 2)])
PAYLOAD = b"the pump on deck two leaks"

FIELDS = {
    "version": (0, 1), "kind": (1, 2), "suite": (2, 3), "flags": (3, 4), "public_len": (4, 8),
    "epoch": (8, 12), "incarnation": (12, 16), "sequence": (16, 24), "space": (24, 40),
    "record": (40, 56), "device": (56, 72), "prev": (72, 104), "members_head": (104, 120),
    "frontier": (120, 136),
}  # fmt: skip


def update_header(sequence: int = 1) -> Header:
    return Header.for_update(
        space=SPACE,
        record=RECORD,
        author=AUTHOR,
        epoch=1,
        sequence=sequence,
        prev=b"p" * 32,
        members_head=b"m" * 32,
        frontier=b"f" * 16,
    )


def an_update(payload: bytes = PAYLOAD, keys: DeviceKeys = DEVICE) -> bytes:
    return seal(update_header(), payload, key=KEYS.envelope_key(1), keys=keys, nonce=NONCE)


def a_snapshot(payload: bytes = PAYLOAD) -> bytes:
    public = COVER.encode()
    header = Header.for_snapshot(
        space=SPACE,
        record=RECORD,
        author=AUTHOR,
        epoch=1,
        public=public,
        members_head=b"m" * 16,
        frontier=b"f" * 16,
    )
    return seal(header, payload, public=public, key=KEYS.envelope_key(1), keys=DEVICE, nonce=NONCE)


def opened(raw: bytes) -> bytes:
    """What a device does with an envelope: parse, verify, open."""
    return parse(raw, max_bytes=MAX_BYTES).verify_and_open(DEVICE.sign_public, KEYS.envelope_key(1))


def test_the_header_is_136_bytes_with_the_fields_in_their_places() -> None:
    raw = an_update()
    assert HEADER_BYTES == 136 == FIELDS["frontier"][1]
    for field, expected in [
        ("version", b"\1"), ("kind", b"\1"), ("suite", b"\1"), ("flags", b"\0"), ("public_len", bytes(4)),
        ("epoch", b"\0\0\0\1"), ("incarnation", b"\0\0\0\7"), ("sequence", bytes(7) + b"\1"),
        ("space", SPACE), ("record", RECORD), ("device", DEVICE.device_id), ("prev", b"p" * 32),
        ("members_head", b"m" * 16), ("frontier", b"f" * 16),
    ]:  # fmt: skip
        start, end = FIELDS[field]
        assert raw[start:end] == expected, field
    assert raw[136:148] == NONCE


@pytest.mark.parametrize("raw", [an_update(), a_snapshot()])
def test_what_was_sealed_comes_back(raw: bytes) -> None:
    assert opened(raw) == PAYLOAD
    envelope = parse(raw, max_bytes=MAX_BYTES)
    assert envelope.raw == raw
    assert envelope.header.pack() == raw[:HEADER_BYTES]
    assert envelope.header.author == AUTHOR
    assert type(envelope.header.kind) is Kind


def test_a_relay_reads_a_snapshots_cover_without_any_key() -> None:
    assert parse(a_snapshot(), max_bytes=MAX_BYTES).cover() == COVER
    assert parse(an_update(), max_bytes=MAX_BYTES).cover() == CoverVector.EMPTY


@given(st.binary(max_size=5000), st.binary(min_size=12, max_size=12))
def test_any_payload_comes_back(payload: bytes, nonce: bytes) -> None:
    raw = seal(update_header(), payload, key=KEYS.envelope_key(1), keys=DEVICE, nonce=nonce)
    assert opened(raw) == payload


@pytest.mark.parametrize("raw", [an_update(), a_snapshot()], ids=["update", "snapshot"])
def test_no_byte_can_be_changed(raw: bytes) -> None:
    """Every byte, one flipped bit and all bits: refused, and the error names what is wrong."""
    public_end = HEADER_BYTES + int.from_bytes(raw[4:8], "big")
    for position in range(len(raw)):
        for mask in (0x01, 0x80, 0xFF):
            changed = bytearray(raw)
            changed[position] ^= mask
            with pytest.raises((MalformedEnvelope, BadSignature)) as caught:
                opened(bytes(changed))
            message = caught.value.message
            if position >= len(raw) - 64:
                assert re.match(r"signature: .* \(the signature: header and ciphertext are intact\)", message)
            elif isinstance(caught.value, BadSignature) and not message.startswith("header field device"):
                assert message.endswith("(header, nonce or ciphertext: they do not open)")
            else:
                assert position < public_end
                assert re.match(r"header field |ciphertext: ", message)


@pytest.mark.parametrize("raw", [an_update(), a_snapshot()], ids=["update", "snapshot"])
def test_the_encryption_alone_binds_header_and_public_section(raw: bytes) -> None:
    """Even a signature that fits cannot put a payload under another header."""
    for position in range(len(raw) - 64):
        changed = bytearray(raw)
        changed[position] ^= 0x01
        with pytest.raises((MalformedEnvelope, DecryptionFailed)):
            parse(bytes(changed), max_bytes=MAX_BYTES).open(KEYS.envelope_key(1))


@pytest.mark.parametrize("raw", [an_update(), a_snapshot()], ids=["update", "snapshot"])
def test_the_signature_alone_covers_everything_before_it(raw: bytes) -> None:
    """The relay has no key to decrypt with; the signature must do without."""
    for position in range(len(raw)):
        changed = bytearray(raw)
        changed[position] ^= 0x10
        with pytest.raises((MalformedEnvelope, BadSignature)):
            parse(bytes(changed), max_bytes=MAX_BYTES).verify(DEVICE.sign_public)


@pytest.mark.parametrize("raw", [an_update(b"x" * 900), a_snapshot()], ids=["update", "snapshot"])
def test_no_byte_can_be_cut_off_or_added(raw: bytes) -> None:
    for size in range(len(raw)):
        with pytest.raises((MalformedEnvelope, BadSignature)):
            opened(raw[:size])
    for more in (b"\0", b"\0" * 64, raw):
        with pytest.raises((MalformedEnvelope, BadSignature)):
            opened(raw + more)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("version", b"\2", r"header field version: 2, and this program knows 1"),
        ("kind", b"\3", r"header field kind: 3 is neither"),
        ("kind", b"\4", r"header field kind: 4 is neither"),
        ("suite", b"\0", r"header field suite: 0"),
        ("flags", b"\x80", r"header field flags: 128"),
        ("public_len", b"\0\0\0\1", r"header field public_len: an update has no public section"),
        ("epoch", bytes(4), r"header field epoch: 0"),
        ("incarnation", bytes(4), r"header field incarnation: 0"),
        ("sequence", bytes(8), r"header field sequence: 0, and updates count from 1"),
    ],
)
def test_a_header_field_out_of_bounds_is_named(field: str, value: bytes, message: str) -> None:
    raw = bytearray(an_update())
    raw[slice(*FIELDS[field])] = value
    with pytest.raises(MalformedEnvelope, match=message):
        parse(bytes(raw), max_bytes=MAX_BYTES)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("sequence", bytes(7) + b"\1", r"header field sequence: a snapshot has none"),
        ("prev", b"p" * 32, r"header field prev: a snapshot has none"),
        ("public_len", b"\0\0\x10\0", r"header field public_len: leaves no room"),
    ],
)
def test_a_snapshot_stands_outside_the_chain(field: str, value: bytes, message: str) -> None:
    raw = bytearray(a_snapshot())
    raw[slice(*FIELDS[field])] = value
    with pytest.raises(MalformedEnvelope, match=message):
        parse(bytes(raw), max_bytes=MAX_BYTES)


def test_a_wrong_key_opens_nothing() -> None:
    envelope = parse(an_update(), max_bytes=MAX_BYTES)
    envelope.verify(DEVICE.sign_public)
    stranger = SpaceKeys.generate(random.Random(9).randbytes)
    with pytest.raises(DecryptionFailed, match=r"^ciphertext: update 1 by device [0-9a-f]{8} does not open"):
        envelope.open(stranger.envelope_key(1))


def test_an_envelope_signed_by_another_device_is_refused() -> None:
    """OTHER puts DEVICE's id into the header: the signature is OTHER's and does not fit DEVICE's key."""
    raw = an_update()
    forged = raw[:-64] + OTHER.sign(b"crdt-sync/envelope/v1" + raw[:-64])
    with pytest.raises(BadSignature, match=r"^signature: does not fit update 1"):
        parse(forged, max_bytes=MAX_BYTES).verify(DEVICE.sign_public)
    with pytest.raises(BadSignature, match=r"^header field device"):
        parse(forged, max_bytes=MAX_BYTES).verify(OTHER.sign_public)


def test_a_signature_for_another_purpose_does_not_count() -> None:
    raw = an_update()
    untagged = raw[:-64] + DEVICE.sign(raw[:-64])
    with pytest.raises(BadSignature):
        parse(untagged, max_bytes=MAX_BYTES).verify(DEVICE.sign_public)


def test_sealing_refuses_what_does_not_belong_together() -> None:
    key = KEYS.envelope_key(1)
    with pytest.raises(ValueError, match="another device"):
        seal(update_header(), b"", key=key, keys=OTHER, nonce=NONCE)
    with pytest.raises(ValueError, match="another device, epoch or public"):
        seal(update_header(), b"", public=b"x", key=key, keys=DEVICE, nonce=NONCE)
    later = SpaceKeys(b"i" * 32, {2: b"k" * 32}).envelope_key(2)
    with pytest.raises(ValueError, match="another device, epoch"):
        seal(update_header(), b"", key=later, keys=DEVICE, nonce=NONCE)
    with pytest.raises(ValueError, match="nonce"):
        seal(update_header(), b"", key=key, keys=DEVICE, nonce=b"short")


def test_too_large_is_refused_before_anything_is_looked_at() -> None:
    with pytest.raises(MalformedEnvelope, match="more than the 1000 that are allowed"):
        parse(bytes(1001), max_bytes=1000)


def test_sizes_say_little() -> None:
    assert {len(an_update(b"x" * size)) for size in range(60)} == {MIN_ENVELOPE_BYTES}


def test_a_payload_does_not_show_in_its_envelope() -> None:
    raw = an_update(PAYLOAD)
    assert not any(PAYLOAD[start : start + 4] in raw for start in range(len(PAYLOAD) - 3))


@given(st.binary(max_size=600))
def test_random_bytes_give_only_the_typed_error(raw: bytes) -> None:
    with pytest.raises(MalformedEnvelope):
        parse(raw, max_bytes=MAX_BYTES)


@settings(max_examples=300)
@given(st.sampled_from([an_update(), a_snapshot()]), st.integers(0, 700), st.binary(max_size=40))
def test_overwritten_bytes_give_only_typed_errors(raw: bytes, position: int, patch: bytes) -> None:
    changed = raw[:position] + patch + raw[position + len(patch) :]
    with contextlib.suppress(MalformedEnvelope, BadSignature):
        envelope = parse(changed, max_bytes=MAX_BYTES)
        envelope.cover()
        envelope.verify(DEVICE.sign_public)
        assert changed == raw


def test_errors_and_reprs_carry_no_contents() -> None:
    envelope = parse(an_update(), max_bytes=MAX_BYTES)
    assert isinstance(envelope, Envelope)
    assert repr(envelope).startswith("<Envelope update 1 by device ")
    assert PAYLOAD.decode()[:8] not in repr(envelope)


authors = st.builds(
    lambda device, incarnation: Author(DeviceId(device), Incarnation(incarnation)),
    st.binary(min_size=16, max_size=16),
    st.integers(1, 2**32 - 1),
)
sequences = st.integers(1, 2**64 - 1)
covers = st.builds(
    CoverVector,
    st.dictionaries(
        authors, st.builds(ChainHead, sequences, st.binary(min_size=32, max_size=32)), max_size=8
    ),
    st.lists(st.tuples(authors, sequences), max_size=5),
)


@given(covers)
def test_cover_vectors_come_back_as_they_were(cover: CoverVector) -> None:
    again = CoverVector.decode(cover.encode())
    assert again == cover
    assert hash(again) == hash(cover)
    assert again.encode() == cover.encode()


@given(
    st.binary(max_size=200) | covers.map(lambda c: c.encode() + b"\0") | covers.map(lambda c: c.encode()[:-1])
)
def test_bytes_that_are_no_cover_vector_give_the_typed_error(raw: bytes) -> None:
    with contextlib.suppress(MalformedEnvelope):
        assert CoverVector.decode(raw).encode() == raw


def test_a_cover_vector_has_one_encoding() -> None:
    import msgspec

    low, high = b"a" * 16, b"b" * 16
    link = b"h" * 32
    good = [[[low, 1, 5, link], [high, 1, 5, link]], []]
    CoverVector.decode(msgspec.msgpack.encode(good))
    for bad in (
        [good[0][::-1], []],
        [[good[0][0], good[0][0]], []],
        [[[low, 1, 0, link]], []],
        [[[low, 1, 5, link[:-1]]], []],
        [[[low, 0, 5, link]], []],
        [[[low[:-1], 1, 5, link]], []],
        [[], [[high, 1, 1], [low, 1, 1]]],
        [[], [[low, 1, 0]]],
    ):
        with pytest.raises(MalformedEnvelope):
            CoverVector.decode(msgspec.msgpack.encode(bad))


def test_a_cover_names_exactly_what_is_merged() -> None:
    assert COVER.covers(AUTHOR, 1)
    assert COVER.covers(AUTHOR, 3)
    assert not COVER.covers(AUTHOR, 2), "known, but not merged"
    assert not COVER.covers(AUTHOR, 4)
    assert not COVER.covers(Author(OTHER.device_id, Incarnation(1)), 1)


def test_a_cover_may_only_be_replaced_by_one_that_lacks_nothing() -> None:
    other = Author(OTHER.device_id, Incarnation(1))
    small = CoverVector({AUTHOR: ChainHead(3, b"h" * 32)})
    large = CoverVector({AUTHOR: ChainHead(4, b"i" * 32), other: ChainHead(1, b"j" * 32)})
    assert large.lacks(small) is None
    assert small.lacks(small) is None
    assert small.lacks(large) in (AUTHOR, other)
    holed = CoverVector({AUTHOR: ChainHead(4, b"i" * 32)}, [(AUTHOR, 2)])
    assert holed.lacks(small) == AUTHOR, "it has not merged what the other had"
