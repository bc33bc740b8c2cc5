"""Invites: links that survive a journey or are refused, and sealed parts only the secret opens."""

from __future__ import annotations

import random
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt_sync.crypto.device_keys import DeviceKeys, verify_signature
from crdt_sync.crypto.space_keys import SpaceKeys
from crdt_sync.errors import (
    BadMembership,
    InviteExpired,
    InviteGarbled,
    InviteUsed,
    InviteWithdrawn,
)
from crdt_sync.ids import SpaceId
from crdt_sync.membership.authoring import make_genesis, make_invite, make_join, make_withdraw
from crdt_sync.membership.entries import Invite, make_entry, parse_entry
from crdt_sync.membership.invites import (
    InviteLink,
    InviteSecret,
    open_invite,
    place_of,
    seal_contents,
)
from crdt_sync.membership.log import MembershipLog
from crdt_sync.roles import Role

SPACE = SpaceId(bytes(range(16)))
SECRET = InviteSecret(bytes(range(32)))
LINK = InviteLink("relay.example", 8787, False, SPACE, SECRET)

OFFICE = DeviceKeys.generate(random.Random(1).randbytes)
TABLET = DeviceKeys.generate(random.Random(2).randbytes)
KEYS = SpaceKeys.generate(random.Random(3).randbytes)
EXPIRES_MS = 1_000
ENTROPY = random.Random(4).randbytes


def founded() -> MembershipLog:
    genesis, space = make_genesis(
        OFFICE, KEYS, space_name="Rig 4", device_name="Office", at_ms=1, entropy=ENTROPY
    )
    log = MembershipLog(space)
    log.apply(genesis)
    return log


def invited(log: MembershipLog, role: Role = Role.FIELD) -> InviteSecret:
    raw, secret = make_invite(
        log, OFFICE, KEYS, space_name="Rig 4", role=role, expires_at_ms=EXPIRES_MS, at_ms=1, entropy=ENTROPY
    )
    log.apply(raw)
    return secret


# --- links


def test_a_link_has_the_documented_form() -> None:
    text = LINK.format()
    address, fragment = text.split("#")
    assert address == "crdt-sync://relay.example:8787/join/AAECAwQFBgcICQoLDA0ODw?tls=0"
    assert len(fragment) == 48
    assert fragment.startswith("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh")


hosts = st.text(string.ascii_lowercase + string.digits + "-.", min_size=1, max_size=40) | st.just("[::1]")


@given(
    hosts,
    st.integers(1, 65_535),
    st.booleans(),
    st.binary(min_size=16, max_size=16),
    st.binary(min_size=32, max_size=32),
)
def test_links_come_back_as_they_were(host: str, port: int, tls: bool, space: bytes, secret: bytes) -> None:
    link = InviteLink(host, port, tls, SpaceId(space), InviteSecret(secret))
    again = InviteLink.parse(f"  {link.format()}\n")
    assert (again.host, again.port, again.tls, again.space) == (host, port, tls, space)
    assert again.secret.to_bytes() == secret
    assert again.format() == link.format()


@pytest.mark.parametrize(
    ("relay", "expected"),
    [
        ("ws://127.0.0.1:8787", "ws://127.0.0.1:8787"),
        ("wss://relay.example", "wss://relay.example:443"),
        ("ws://relay.example/", "ws://relay.example:80"),
        ("ws://[::1]:9", "ws://[::1]:9"),
    ],
)
def test_a_link_leads_back_to_its_relay(relay: str, expected: str) -> None:
    link = InviteLink.for_relay(relay, SPACE, SECRET)
    assert InviteLink.parse(link.format()).relay_url == expected


@pytest.mark.parametrize(
    "relay", ["http://relay.example", "relay.example:8787", "ws://", "ws://h:1/path", ""]
)
def test_a_link_is_for_a_relay(relay: str) -> None:
    with pytest.raises(ValueError, match="ws://HOST:PORT"):
        InviteLink.for_relay(relay, SPACE, SECRET)


def test_no_character_of_space_or_secret_can_be_changed_or_lost() -> None:
    text = LINK.format()
    start = text.index("/join/") + 6
    for position in [*range(start, start + 22), *range(text.index("#") + 1, len(text))]:
        for other in "Ab-":
            if text[position] != other:
                with pytest.raises(InviteGarbled):
                    InviteLink.parse(text[:position] + other + text[position + 1 :])
        with pytest.raises(InviteGarbled):
            InviteLink.parse(text[:position] + text[position + 1 :])
    for size in range(len(text)):
        with pytest.raises(InviteGarbled, match="this is not a whole invite link"):
            InviteLink.parse(text[:size])


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("crdt-sync://", "https://", "does not begin with crdt-sync://"),
        (":8787", "", "names no relay"),
        (":8787", ":99999", "names no relay"),
        ("relay.example", "relay example", "names no relay"),
        ("/join/", "/jion/", "names no space"),
        ("?tls=0", "?tls=2", "between"),
        ("?tls=0", "", "between"),
        ("#", "", "between"),
    ],
)
def test_a_garbled_link_says_what_is_wrong_and_what_to_do(old: str, new: str, why: str) -> None:
    with pytest.raises(InviteGarbled, match=why) as caught:
        InviteLink.parse(LINK.format().replace(old, new))
    assert "ask for a new one" in caught.value.hint


@given(st.text(max_size=120) | st.text(max_size=120).map(lambda text: LINK.format() + text[1:]))
def test_any_other_text_is_garbled_and_not_repeated_in_the_error(text: str) -> None:
    try:
        assert InviteLink.parse(text).format() == text.strip()
    except InviteGarbled as exc:
        said = exc.message + exc.hint
    else:
        return
    assert LINK.format().split("#")[1][:10] not in said


def test_the_host_may_be_edited_by_hand() -> None:
    edited = LINK.format().replace("relay.example:8787", "10.0.0.7:80")
    assert InviteLink.parse(edited).relay_url == "ws://10.0.0.7:80"


# --- what an invite brings


def test_the_secret_opens_what_the_invite_brings() -> None:
    log = founded()
    secret = invited(log, Role.OFFICE)
    invited(log)
    contents = open_invite(log, secret, now_ms=EXPIRES_MS - 1)
    assert contents.keys.to_bytes() == KEYS.to_bytes()
    assert (contents.space_name, contents.role) == ("Rig 4", Role.OFFICE)
    assert (contents.genesis_hash, contents.log_head) == (log.genesis_hash, log.genesis_hash)


def test_an_invite_opens_into_a_join_while_no_admin_is_online() -> None:
    """All that the guest needs is the link's secret and the log that the relay holds."""
    log = founded()
    link = InviteLink.for_relay("ws://relay:1", log.space_id, invited(log, Role.SUPERVISOR)).format()
    guest = InviteLink.parse(link)
    held = MembershipLog(guest.space)
    for raw in log.entries:
        held.apply(raw)
    contents = open_invite(held, guest.secret, now_ms=1)
    join = make_join(held, TABLET, guest.secret, contents, device_name="T", at_ms=1, entropy=ENTROPY)
    held.apply(join, now_ms=1)
    assert held.role_of(TABLET.device_id) is Role.SUPERVISOR
    assert contents.keys.opaque_id("t", "r") == KEYS.opaque_id("t", "r")


def test_the_relay_which_holds_the_log_cannot_open_it() -> None:
    log = founded()
    secret = invited(log)
    payload = parse_entry(log.entries[1]).payload
    assert isinstance(payload, Invite)
    stranger = InviteSecret.generate(random.Random(8).randbytes)
    place = place_of(log.space_id, 1, log.genesis_hash, Role.FIELD, EXPIRES_MS)
    assert stranger.open(payload.sealed, place) is None
    assert secret.open(payload.sealed, place) is not None
    for hidden in (b"Rig 4", KEYS.epochs[1], secret.to_bytes()):
        assert hidden not in log.entries[1]
    with pytest.raises(InviteGarbled, match="no such invite"):
        open_invite(log, stranger, now_ms=1)


def test_the_sealed_part_is_bound_to_role_expiry_and_place() -> None:
    log = founded()
    secret = invited(log)
    payload = parse_entry(log.entries[1]).payload
    assert isinstance(payload, Invite)
    right = (log.space_id, 1, log.genesis_hash, Role.FIELD, EXPIRES_MS)
    assert secret.open(payload.sealed, place_of(*right)) is not None
    for wrong in (
        (SPACE, *right[1:]),
        (right[0], 2, *right[2:]),
        (*right[:2], b"x" * 32, *right[3:]),
        (*right[:3], Role.ADMIN, right[4]),
        (*right[:4], EXPIRES_MS + 1),
    ):
        assert secret.open(payload.sealed, place_of(*wrong)) is None


def test_used_expired_and_withdrawn_invites_say_so_and_say_to_ask_again() -> None:
    log = founded()
    used, withdrawn, expired = invited(log), invited(log), invited(log)
    contents = open_invite(log, used, now_ms=1)
    log.apply(make_join(log, TABLET, used, contents, device_name="T", at_ms=1, entropy=ENTROPY))
    log.apply(make_withdraw(log, OFFICE, withdrawn.invite_id, at_ms=1))
    for secret, now_ms, error in (
        (used, 1, InviteUsed),
        (withdrawn, 1, InviteWithdrawn),
        (expired, EXPIRES_MS, InviteExpired),
    ):
        with pytest.raises(error) as caught:
            open_invite(log, secret, now_ms=now_ms)
        assert "ask an admin" in caught.value.hint


def entry_with(log: MembershipLog, secret: InviteSecret, sealed: bytes) -> bytes:
    payload = Invite(secret.invite_id, secret.sign_public, Role.FIELD, EXPIRES_MS, sealed)
    return make_entry(payload, space=log.space_id, index=log.index + 1, prev=log.head, at_ms=1, keys=OFFICE)


@pytest.mark.parametrize("case", ["other keys", "other id key", "other genesis", "nonsense", "unsealed"])
def test_an_admin_who_cheats_a_guest_is_found_out(case: str) -> None:
    """The commitment in the log is what everyone else has; the guest checks his keys against it."""
    log = founded()
    secret = InviteSecret.generate(ENTROPY)
    id_key, epoch_key = KEYS.to_bytes()[1:33], KEYS.epochs[1]
    keys = {
        "other keys": SpaceKeys(id_key, {1: b"x" * 32}),
        "other id key": SpaceKeys(b"x" * 32, {1: epoch_key}),
    }.get(case, KEYS)
    genesis_hash = b"g" * 32 if case == "other genesis" else log.genesis_hash
    place = place_of(log.space_id, 1, log.head, Role.FIELD, EXPIRES_MS)
    sealed = seal_contents(
        secret, keys=keys, space_name="Rig 4", genesis_hash=genesis_hash, place=place, nonce=bytes(12)
    )
    if case == "nonsense":
        sealed = secret.seal(b"\x93\x01\x02\x03", place, bytes(12))
    if case == "unsealed":
        sealed = b"short"
    log.apply(entry_with(log, secret, sealed))
    with pytest.raises(BadMembership, match=r"^invite: "):
        open_invite(log, secret, now_ms=1)


def test_the_invites_key_signs_for_the_hello_and_nothing_reveals_the_secret() -> None:
    signature = SECRET.sign(b"nonce")
    assert verify_signature(SECRET.sign_public, b"nonce", signature)
    assert SECRET.to_bytes() not in SECRET.sign_public + SECRET.invite_id + signature
