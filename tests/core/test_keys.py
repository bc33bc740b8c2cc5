"""Device and space keys: what they derive, how they are kept, and that nothing prints them."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import random
import zlib
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt_sync.crypto.device_keys import DeviceKeys, DevicePublic, device_id_of, verify_signature
from crdt_sync.crypto.padding import LENGTH_BYTES, pad, padded_size, unpad
from crdt_sync.crypto.payload import Payload
from crdt_sync.crypto.space_keys import SpaceKeys
from crdt_sync.errors import BadUpdate, UnknownEpoch
from crdt_sync.ids import Entropy, RecordId, SpaceId
from crdt_sync.membership.authoring import make_genesis, make_invite
from crdt_sync.membership.invites import InviteLink, InviteSecret, open_invite
from crdt_sync.membership.log import MembershipLog
from crdt_sync.roles import Role


def seeded(seed: int) -> Entropy:
    return random.Random(seed).randbytes


def shown_forms(secret: bytes) -> Iterator[str]:
    """The ways in which 8 bytes out of a secret could show up in a text."""
    for start in range(len(secret) - 7):
        piece = secret[start : start + 8]
        yield piece.hex()
        yield repr(piece)[2:-1]
        yield base64.b64encode(piece)[:10].decode()
        yield base64.urlsafe_b64encode(piece)[:10].decode()


def assert_hidden(secret: bytes, *texts: str) -> None:
    for text in texts:
        for form in shown_forms(secret):
            assert form not in text


def test_the_same_entropy_makes_the_same_device() -> None:
    first, second = DeviceKeys.generate(seeded(1)), DeviceKeys.generate(seeded(1))
    assert first.device_id == second.device_id
    assert first.public.hpke == second.public.hpke
    assert first.sign(b"x") == second.sign(b"x")
    assert DeviceKeys.generate(seeded(2)).device_id != first.device_id


def test_a_device_id_is_the_start_of_its_signing_keys_hash() -> None:
    keys = DeviceKeys.generate(seeded(1))
    assert keys.device_id == hashlib.sha256(b"crdt-sync/device/v1" + keys.public.sign).digest()[:16]
    assert keys.public.device_id == keys.device_id == device_id_of(keys.sign_public)


def test_device_keys_survive_being_stored() -> None:
    keys = DeviceKeys.generate(seeded(3))
    again = DeviceKeys.from_bytes(keys.to_bytes())
    assert again.device_id == keys.device_id
    assert again.public.hpke == keys.public.hpke
    assert verify_signature(keys.sign_public, b"m", again.sign(b"m"))


@given(st.binary(max_size=300))
def test_other_bytes_are_not_stored_keys(raw: bytes) -> None:
    with pytest.raises(ValueError, match="stored form"):
        DeviceKeys.from_bytes(b"\x00" + raw)
    with pytest.raises(ValueError, match=r"form of a space's keys|space has|epoch is"):
        SpaceKeys.from_bytes(raw)


def test_what_is_sealed_to_a_device_opens_with_its_hpke_key() -> None:
    from cryptography.hazmat.primitives import hpke

    keys = DeviceKeys.generate(seeded(4))
    suite = hpke.Suite(hpke.KEM.MLKEM768_X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)
    sealed = suite.encrypt(b"epoch key", keys.hpke_private.public_key(), info=b"t")
    assert (
        suite.decrypt(sealed, DeviceKeys.from_bytes(keys.to_bytes()).hpke_private, info=b"t") == b"epoch key"
    )


@pytest.mark.parametrize(
    ("key", "signature"), [(b"", b""), (b"k" * 32, b"s" * 64), (b"\xff" * 32, b"s" * 64), (b"k" * 31, b"")]
)
def test_a_signature_that_is_none_is_false_not_an_error(key: bytes, signature: bytes) -> None:
    assert not verify_signature(key, b"message", signature)


def test_public_keys_have_their_length() -> None:
    with pytest.raises(ValueError, match="32 and 1216"):
        DevicePublic(b"s" * 32, b"h" * 1215)
    with pytest.raises(ValueError, match="128 bytes"):
        DeviceKeys(b"short")


def test_opaque_ids_differ_by_type_record_and_space() -> None:
    one, other = SpaceKeys.generate(seeded(1)), SpaceKeys.generate(seeded(2))
    ids = {
        one.opaque_id("work_order", "a"),
        one.opaque_id("work_order", "b"),
        one.opaque_id("site", "a"),
        one.opaque_id("work_ordera", ""),
        other.opaque_id("work_order", "a"),
    }
    assert len(ids) == 5
    assert all(len(opaque) == 16 for opaque in ids)


def test_space_keys_survive_being_stored_with_all_their_epochs() -> None:
    keys = SpaceKeys(b"i" * 32, {1: b"a" * 32, 7: b"b" * 32})
    again = SpaceKeys.from_bytes(keys.to_bytes())
    assert dict(again.epochs) == {1: b"a" * 32, 7: b"b" * 32}
    assert again.current_epoch == 7
    assert again.opaque_id("t", "r") == keys.opaque_id("t", "r")
    assert again.commitment(7) == keys.commitment(7) != keys.commitment(1)


def test_a_commitment_fixes_the_id_key_too() -> None:
    assert SpaceKeys(b"i" * 32, {1: b"a" * 32}).commitment(1) != SpaceKeys(
        b"j" * 32, {1: b"a" * 32}
    ).commitment(1)


def test_a_missing_epoch_is_told_by_its_number() -> None:
    keys = SpaceKeys.generate(seeded(1))
    for ask in (keys.envelope_key, keys.names_key, keys.commitment):
        with pytest.raises(UnknownEpoch, match="no key for epoch 2"):
            ask(2)


def test_epochs_and_purposes_have_keys_of_their_own() -> None:
    keys = SpaceKeys(b"i" * 32, {1: b"a" * 32, 2: b"a" * 32})
    nonce = bytes(12)
    sealed = keys.envelope_key(1).encrypt(nonce, b"text", b"")
    assert keys.envelope_key(1).decrypt(nonce, sealed, b"") == b"text"
    assert keys.envelope_key(2).decrypt(nonce, sealed, b"") is None
    assert keys.names_key(1).decrypt(nonce, sealed, b"") is None


def test_no_repr_shows_a_secret() -> None:
    device, keys = DeviceKeys.generate(seeded(5)), SpaceKeys.generate(seeded(6))
    genesis, space = make_genesis(
        device, keys, space_name="Rig", device_name="Office", at_ms=1, entropy=seeded(7)
    )
    log = MembershipLog(space)
    log.apply(genesis)
    entry, secret = make_invite(
        log, device, keys, space_name="Rig", role=Role.FIELD, expires_at_ms=9, at_ms=1, entropy=seeded(8)
    )
    log.apply(entry)
    link = InviteLink.for_relay("ws://h:1", space, secret)
    contents = open_invite(log, secret, now_ms=1)
    seed = device.to_bytes()[1:]
    holders: list[object] = [device, device.public, device.hpke_private]
    holders += [keys, keys.epochs, keys.envelope_key(1), keys.names_key(1), contents, contents.keys]
    holders += [secret, link, log, *log.invites.values()]
    texts = [form(holder) for holder in holders for form in (repr, str)]
    texts.append(f"{link.__class__.__name__} {link} {contents!s}")
    for hidden in (
        seed[:32],
        seed[32:96],
        seed[96:],
        keys.to_bytes()[1:33],
        keys.epochs[1],
        secret.to_bytes(),
    ):
        assert_hidden(hidden, *texts)


def test_the_search_for_secrets_finds_one() -> None:
    with pytest.raises(AssertionError):
        assert_hidden(b"0123456789abcdef", f"key={b'0123456789abcdef'!r}")
    with pytest.raises(AssertionError):
        assert_hidden(b"\x01" * 16, f"key={(bytes([1]) * 16).hex()}")


@given(st.integers(0, 2**22))
def test_padded_sizes_hold_their_content_and_stay_close(size: int) -> None:
    padded = padded_size(size)
    assert padded >= size
    assert padded_size(padded) == padded
    assert padded <= max(64, size + 63, size * 1.12)


def test_sizes_up_to_a_kibibyte_are_multiples_of_64_and_grow_without_a_jump() -> None:
    sizes = [padded_size(size) for size in range(5000)]
    assert sorted(sizes) == sizes
    assert {size for size in sizes if size <= 1024} == set(range(64, 1025, 64))
    assert padded_size(1025) == 1088


@given(st.binary(max_size=3000))
def test_padding_comes_off_again(payload: bytes) -> None:
    assert unpad(pad(payload)) == payload
    assert len(pad(payload)) == padded_size(len(payload) + LENGTH_BYTES)


@given(st.binary(max_size=200))
def test_bytes_that_are_not_padded_are_refused(raw: bytes) -> None:
    try:
        payload = unpad(raw)
    except ValueError:
        return
    assert pad(payload) == raw


def test_padding_hides_nothing_of_its_own() -> None:
    padded = pad(b"abc")
    with pytest.raises(ValueError, match="not zeros"):
        unpad(padded[:-1] + b"\x01")
    with pytest.raises(ValueError, match="length"):
        unpad(padded + bytes(64))


payloads = st.builds(
    Payload,
    st.text(min_size=1, max_size=64).filter(lambda text: text.isprintable()),
    st.uuids().map(lambda uuid: RecordId(str(uuid))),
    st.integers(0, 2**32 - 1),
    st.binary(max_size=100),
    st.none() | st.binary(max_size=16),
)


@given(payloads)
def test_payloads_come_back_as_they_were(payload: Payload) -> None:
    assert Payload.decode(payload.encode()) == payload


@given(
    st.binary(max_size=120)
    | payloads.map(lambda p: p.encode()[:-1])
    | payloads.map(lambda p: p.encode() + b"\0")
)
def test_bytes_that_are_no_payload_give_the_typed_error(raw: bytes) -> None:
    with contextlib.suppress(BadUpdate):
        assert Payload.decode(raw).encode() == raw


RECORD = RecordId("0" * 8 + "-0000-4000-8000-" + "0" * 12)


def test_long_payloads_of_prose_are_deflated_and_short_ones_are_not() -> None:
    prose = Payload("work_order", RECORD, 1, b"replace the hydraulic hose " * 100)
    assert len(prose.encode()) < len(prose.update) // 5
    assert Payload.decode(prose.encode()) == prose
    noise = Payload("work_order", RECORD, 1, random.Random(1).randbytes(2_000))
    assert len(noise.encode()) < 2_100
    assert Payload.decode(noise.encode()) == noise
    assert Payload("work_order", RECORD, 1, b"x" * 100).encode()[0] == 0


def test_a_payload_that_inflates_without_end_is_refused() -> None:
    bomb = b"\1" + zlib.compress(bytes(64 * 2**20))
    with pytest.raises(BadUpdate, match="does not inflate to at most 2,097,152 bytes"):
        Payload.decode(bomb)


@pytest.mark.parametrize("tail", [b"", b"x"])
def test_a_deflated_payload_ends_where_it_says(tail: bytes) -> None:
    whole = Payload("work_order", RECORD, 1, b"a" * 1_000).encode()
    with pytest.raises(BadUpdate, match="nothing else"):
        Payload.decode(whole + b"x" if tail else whole[:-3])


def test_a_payloads_repr_shows_no_contents() -> None:
    payload = Payload("work_order", RECORD, 1, b"leaking pump")
    assert "leaking" not in repr(payload)


def test_an_invites_two_keys_are_independent_of_each_other() -> None:
    secret = InviteSecret(b"s" * 32)
    assert secret.open(secret.seal(b"x", b"place", bytes(12)), b"place") == b"x"
    assert secret.open(secret.seal(b"x", b"place", bytes(12)), b"other") is None
    assert InviteSecret(b"t" * 32).open(secret.seal(b"x", b"place", bytes(12)), b"place") is None
    assert InviteSecret(b"s" * 32).invite_id == secret.invite_id
    assert SpaceId(secret.invite_id) != secret.to_bytes()[:16]
