"""No forged entry of any kind passes the membership log."""

from __future__ import annotations

import msgspec
import pytest

from crdt_sync.crypto.device_keys import DeviceKeys
from crdt_sync.errors import BadMembership, InviteExpired, InviteUsed, InviteWithdrawn
from crdt_sync.ids import InviteId, SpaceId
from crdt_sync.membership.authoring import make_withdraw
from crdt_sync.membership.carrying import carry_over
from crdt_sync.membership.entries import NO_HASH, NO_SPACE, Genesis, Invite, Join, hpke_hash, parse_entry
from crdt_sync.membership.invites import InviteSecret
from crdt_sync.membership.log import MembershipLog
from crdt_sync.roles import Role
from tests.core.membership_site import EXPIRES_MS, NOW_MS, PHONE, TABLET, Site, make_site, refused, seeded


@pytest.fixture
def site() -> Site:
    return make_site()


def test_no_one_but_an_admin_invites(site: Site) -> None:
    for role in (Role.FIELD, Role.OFFICE, Role.SUPERVISOR, Role.READER):
        device = DeviceKeys.generate(seeded(200 + role))
        site.joined(device, role)
        raw, _ = site.invite(Role.ADMIN, by=device)
        refused(site.log, raw, f"only an admin may make an entry of kind invite, .* has the role {role.text}")


def test_a_stranger_does_not_invite(site: Site) -> None:
    raw, _ = site.invite(by=TABLET)
    refused(site.log, raw, "its signer .* is not a member")


def test_an_invite_in_the_founders_name_needs_his_signature(site: Site) -> None:
    raw, _ = site.invite()
    wire = msgspec.msgpack.decode(raw)
    forged = TABLET.sign(b"crdt-sync/membership-signature/v1" + wire[0])
    refused(site.log, msgspec.msgpack.encode([wire[0], forged, *wire[2:]]), "signature does not fit")


def test_no_byte_of_an_entry_can_be_changed(site: Site) -> None:
    secret = site.invited()
    genesis, invite = site.log.entries
    join = site.join(TABLET, secret)
    withdraw = make_withdraw(site.log, site.founder, secret.invite_id, at_ms=1)
    stands = MembershipLog.restore(site.log.space_id, [genesis])
    (carry,) = carry_over(stands, [invite, join], TABLET, at_ms=1).entries
    for before, raw in (
        ([], genesis),
        ([genesis], invite),
        ([genesis, invite], join),
        ([genesis, invite], withdraw),
        ([genesis], carry),
    ):
        log = MembershipLog.restore(site.log.space_id, before)
        step = 1 if len(raw) < 800 else 7
        for position in range(0, len(raw), step):
            changed = bytearray(raw)
            changed[position] ^= 0x01
            refused(log, bytes(changed), "^membership entry: ")
        for size in range(0, len(raw), step):
            refused(log, raw[:size], "^membership entry: ")
        refused(log, raw + b"\0", "^membership entry: its entry does not have the right shape")


def test_no_device_raises_its_own_role(site: Site) -> None:
    """A role stands in the admin's invite and nowhere in the join, so there is nothing to raise."""
    secret = site.invited(Role.READER)
    site.log.apply(site.join(TABLET, secret))
    state = site.log.invites[secret.invite_id]
    assert isinstance(state.entry.payload, Invite)
    promoted = msgspec.structs.replace(state.entry.payload, role=int(Role.ADMIN))
    refused(site.log, site.entry(promoted, TABLET), "only an admin")
    refused(site.log, site.entry(promoted, site.founder), "an invite with that id already")
    assert site.log.role_of(TABLET.device_id) is Role.READER


def test_an_invite_for_a_role_that_is_none_is_refused(site: Site) -> None:
    raw, _ = site.invite()
    payload = parse_entry(raw).payload
    assert isinstance(payload, Invite)
    for wrong in (
        msgspec.structs.replace(payload, role=0),
        msgspec.structs.replace(payload, role=6),
        msgspec.structs.replace(payload, expires_at_ms=0),
        msgspec.structs.replace(payload, invite_sign=b"k" * 32),
        msgspec.structs.replace(payload, invite_id=InviteId(b"k" * 16)),
    ):
        refused(site.log, site.entry(wrong, site.founder), "a field of its invite is out of range")


def test_a_replayed_entry_is_refused(site: Site) -> None:
    site.joined(TABLET)
    for index, raw in enumerate(site.log.entries):
        refused(site.log, raw, f"entry {index} is in the log already")


def test_an_entry_must_follow_the_newest(site: Site) -> None:
    old, _ = site.invite()
    site.invited()
    refused(site.log, old, "made to follow another entry than the newest, entry 1")
    raw, _ = site.invite()
    payload = parse_entry(raw).payload
    assert isinstance(payload, Invite)
    wrongs: list[dict[str, object]] = [{"prev": b"x" * 32}, {"index": 1}, {"index": 3}]
    for wrong in wrongs:
        assert not site.log.follows(parse_entry(site.entry(payload, site.founder, **wrong)))
        refused(site.log, site.entry(payload, site.founder, **wrong), "follow another entry")
    assert site.log.follows(parse_entry(raw))


def test_an_entry_of_another_space_is_refused(site: Site) -> None:
    raw, _ = site.invite()
    payload = parse_entry(raw).payload
    assert isinstance(payload, Invite)
    refused(
        site.log, site.entry(payload, site.founder, space=SpaceId(b"o" * 16)), "it belongs to another space"
    )


def test_a_swapped_genesis_is_refused(site: Site) -> None:
    """The relay founds a space of its own and passes it off as ours."""
    swapped = make_site(2).log.entries[0]
    refused(MembershipLog(site.log.space_id), swapped, "this genesis belongs to another space")
    refused(site.log, swapped, "a second genesis")


def test_a_log_begins_with_a_genesis(site: Site) -> None:
    raw, _ = site.invite()
    refused(MembershipLog(site.log.space_id), raw, "the first entry must be a genesis")
    refused(MembershipLog(), raw, "the first entry must be a genesis")


def test_a_genesis_must_be_signed_by_its_founder(site: Site) -> None:
    payload = parse_entry(site.log.entries[0]).payload
    assert isinstance(payload, Genesis)
    place: dict[str, object] = {"space": NO_SPACE, "index": 0, "prev": NO_HASH}
    refused(MembershipLog(), site.entry(payload, TABLET, **place), "its signer is not the device")
    wire = msgspec.msgpack.decode(site.log.entries[0])
    unsigned = msgspec.msgpack.encode([wire[0], bytes(64), *wire[2:]])
    refused(MembershipLog(), unsigned, "the device did not sign it")


@pytest.mark.parametrize(
    ("place", "message"),
    [({"index": 1}, "index 0"), ({"prev": b"x" * 32}, "index 0"), ({"space": SpaceId(b"x" * 16)}, "index 0")],
)
def test_a_genesis_has_no_place_but_the_first(site: Site, place: dict[str, object], message: str) -> None:
    payload = parse_entry(site.log.entries[0]).payload
    assert isinstance(payload, Genesis)
    first: dict[str, object] = {"space": NO_SPACE, "index": 0, "prev": NO_HASH}
    refused(MembershipLog(), site.entry(payload, site.founder, **(first | place)), message)


def test_a_join_needs_the_invites_key(site: Site) -> None:
    secret = site.invited()
    payload = parse_entry(site.join(TABLET, secret)).payload
    assert isinstance(payload, Join)
    without = site.entry(payload, TABLET)
    refused(site.log, without, "it lacks a signature")
    other = InviteSecret.generate(seeded(9))
    refused(
        site.log,
        site.entry(payload, TABLET, invite_sign=other.sign),
        "a join that its invite's key did not sign",
    )


def test_a_join_must_be_signed_by_the_device(site: Site) -> None:
    """Who has a link cannot enter the keys of a device that did not ask for it."""
    secret = site.invited()
    payload = parse_entry(site.join(TABLET, secret)).payload
    assert isinstance(payload, Join)
    foreign = site.entry(payload, PHONE, invite_sign=secret.sign)
    refused(site.log, foreign, "its signer is not the device whose keys it brings")
    wire = msgspec.msgpack.decode(site.join(TABLET, secret))
    forged = PHONE.sign(b"crdt-sync/membership-signature/v1" + wire[0])
    refused(site.log, msgspec.msgpack.encode([wire[0], forged, *wire[2:]]), "the device did not sign it")


def test_a_join_with_an_invite_that_is_none(site: Site) -> None:
    refused(site.log, site.join(TABLET, InviteSecret.generate(seeded(9))), "there is no invite with that id")


def test_one_invite_lets_one_device_in_and_the_first_in_the_log_counts(site: Site) -> None:
    secret = site.invited()
    first, rival = site.join(TABLET, secret), site.join(PHONE, secret)
    site.log.apply(first)
    refused(site.log, rival, "made to follow another entry than the newest")
    refused(site.log, site.join(PHONE, secret), "used already", InviteUsed)
    assert site.log.invites[secret.invite_id].used_by == TABLET.device_id


def test_an_expired_invite_is_refused_where_a_clock_is_given(site: Site) -> None:
    secret = site.invited()
    join = site.join(TABLET, secret)
    refused(site.log, join, "has expired", InviteExpired, now_ms=EXPIRES_MS)
    follower = MembershipLog.restore(site.log.space_id, site.log.entries)
    site.log.apply(join, now_ms=EXPIRES_MS - 1)
    follower.apply(join)
    assert follower.head == site.log.head


def test_a_withdrawn_invite_lets_no_one_in(site: Site) -> None:
    secret = site.invited()
    site.log.apply(make_withdraw(site.log, site.founder, secret.invite_id, at_ms=1))
    refused(site.log, site.join(TABLET, secret), "was withdrawn", InviteWithdrawn)
    again = make_withdraw(site.log, site.founder, secret.invite_id, at_ms=2)
    refused(site.log, again, "was withdrawn", InviteWithdrawn)


def test_only_an_admin_withdraws_and_only_an_unused_invite(site: Site) -> None:
    site.joined(TABLET)
    secret = site.invited()
    refused(site.log, make_withdraw(site.log, TABLET, secret.invite_id, at_ms=1), "only an admin may")
    refused(site.log, make_withdraw(site.log, PHONE, secret.invite_id, at_ms=1), "is not a member")
    refused(site.log, make_withdraw(site.log, site.founder, InviteId(b"n" * 16), at_ms=1), "no invite with")
    site.log.apply(site.join(PHONE, secret))
    used = make_withdraw(site.log, site.founder, secret.invite_id, at_ms=1)
    refused(site.log, used, "used already", InviteUsed)


def test_a_device_joins_a_space_once(site: Site) -> None:
    site.joined(TABLET)
    refused(site.log, site.join(TABLET, site.invited(Role.ADMIN)), "is a member already")
    refused(site.log, site.join(site.founder, site.invited(Role.FIELD)), "is a member already")
    assert site.log.role_of(TABLET.device_id) is Role.FIELD
    assert site.log.role_of(site.founder.device_id) is Role.ADMIN


def test_the_hpke_key_must_be_the_one_the_body_names_but_may_be_left_out(site: Site) -> None:
    secret = site.invited()
    join = site.join(TABLET, secret)
    entry = parse_entry(join)
    wire = msgspec.msgpack.decode(join)
    refused(site.log, msgspec.msgpack.encode([*wire[:3], PHONE.public.hpke]), "HPKE key is not the one")
    refused(site.log, msgspec.msgpack.encode([*wire[:3], TABLET.public.hpke[:-1]]), "HPKE key is not the one")
    light = entry.without_hpke()
    assert len(light) < len(join) - 1200
    assert parse_entry(light).hash == entry.hash
    site.log.apply(light)
    assert site.log.member(TABLET.device_id).hpke is None
    assert site.log.head == entry.hash
    assert isinstance(entry.payload, Join)
    assert hpke_hash(TABLET.public.hpke) == entry.payload.hpke_hash


def test_an_entry_of_an_unknown_kind_or_version_stops_the_log_and_says_to_update(site: Site) -> None:
    """Kinds 5 to 8 will be: revoke, rotate, role, recovery. Skipping one would be unsafe."""
    body = [1, 5, site.log.space_id, 1, site.log.head, NOW_MS, site.founder.device_id, b"\x90"]
    for changed, message in (({1: 5}, "kind 5"), ({1: 0}, "kind 0"), ({0: 2}, "version 2")):
        fields = [changed.get(position, field) for position, field in enumerate(body)]
        encoded = msgspec.msgpack.encode(fields)
        signature = site.founder.sign(b"crdt-sync/membership-signature/v1" + encoded)
        raw = msgspec.msgpack.encode([encoded, signature, b"", b""])
        refused(site.log, raw, message)
        with pytest.raises(BadMembership) as caught:
            parse_entry(raw)
        assert "update crdt-sync" in caught.value.hint


def test_there_is_one_encoding_of_an_entry(site: Site) -> None:
    raw, _ = site.invite()
    wire = msgspec.msgpack.decode(raw)
    loose = b"\xdc\x00\x04" + msgspec.msgpack.encode(wire)[1:]
    assert msgspec.msgpack.decode(loose) == wire
    refused(site.log, loose, "its entry is not in canonical form")
