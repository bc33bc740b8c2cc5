"""The membership log: what it takes, who is in, and what only members can read."""

from __future__ import annotations

from dataclasses import replace

import pytest

from crdt_sync.crypto.device_keys import DeviceKeys
from crdt_sync.errors import BadMembership, UnknownEpoch, UnknownMember, ValidationError
from crdt_sync.ids import DeviceId
from crdt_sync.membership.authoring import Names, open_names
from crdt_sync.membership.entries import NO_HASH
from crdt_sync.membership.log import MembershipLog
from crdt_sync.roles import Role
from tests.core.membership_site import PHONE, TABLET, Site, make_site, seeded


@pytest.fixture
def site() -> Site:
    return make_site()


def test_the_founder_is_admin_of_a_space_whose_id_is_its_genesis_hash(site: Site) -> None:
    assert site.log.role_of(site.founder.device_id) is Role.ADMIN
    assert site.log.space_id == site.log.genesis_hash[:16] == site.log.head[:16]
    assert site.log.epochs == {1: site.keys.commitment(1)}
    assert site.log.member(site.founder.device_id).hpke == site.founder.public.hpke


def test_an_invited_device_joins_with_the_invites_role(site: Site) -> None:
    for seed, role in enumerate(Role):
        device = DeviceKeys.generate(seeded(100 + seed))
        site.joined(device, role)
        member = site.log.member(device.device_id)
        assert (member.role, member.sign, member.hpke) == (role, device.sign_public, device.public.hpke)
        assert member.joined_index == site.log.index
        assert member.revoked_at is None


def test_an_invited_admin_may_invite(site: Site) -> None:
    site.joined(TABLET, Role.ADMIN)
    raw, secret = site.invite(by=TABLET)
    site.log.apply(raw)
    site.log.apply(site.join(PHONE, secret))
    assert site.log.role_of(PHONE.device_id) is Role.FIELD


def test_who_is_no_member_has_no_role(site: Site) -> None:
    assert site.log.role_of(TABLET.device_id) is None
    with pytest.raises(UnknownMember, match="is not a member of this space"):
        site.log.member(TABLET.device_id)


def test_everyone_who_follows_the_log_comes_to_the_same_result(site: Site) -> None:
    site.joined(TABLET)
    site.joined(PHONE, Role.READER)
    follower = MembershipLog(site.log.space_id)
    for raw in site.log.entries:
        follower.apply(raw)
    restored = MembershipLog.restore(site.log.space_id, site.log.entries)
    for other in (follower, restored):
        assert other.head == site.log.head
        assert other.members == site.log.members
        assert other.invites == site.log.invites
        assert other.entries == site.log.entries


def test_restoring_still_checks_order_and_space(site: Site) -> None:
    site.joined(TABLET)
    genesis, invite, join = site.log.entries
    for wrong in ([genesis, join], [invite], [genesis, invite, join, join], [genesis, genesis]):
        with pytest.raises(BadMembership):
            MembershipLog.restore(site.log.space_id, wrong)
    with pytest.raises(BadMembership, match="another space"):
        MembershipLog.restore(make_site(2).log.space_id, [genesis])


def test_the_log_remembers_where_it_has_ended(site: Site) -> None:
    old, old_short = site.log.head, site.log.short_head
    site.joined(TABLET)
    assert site.log.knows_head(old_short)
    assert site.log.knows_head(site.log.short_head)
    assert not site.log.knows_head(b"x" * 16)
    assert (site.log.position_of(old), site.log.position_of(site.log.head)) == (0, 2)
    assert site.log.position_of(b"x" * 32) is None


def test_an_empty_log_belongs_to_no_space() -> None:
    log = MembershipLog()
    assert (log.index, log.head, log.current_epoch) == (-1, NO_HASH, 0)
    for name in ("space_id", "genesis_hash"):
        with pytest.raises(BadMembership, match="empty"):
            getattr(log, name)


def test_members_read_names_and_the_relay_does_not(site: Site) -> None:
    secret = site.invited()
    site.log.apply(site.join(TABLET, secret, name="Tablet of Dörte"))
    assert open_names(site.log.member(site.founder.device_id), site.keys) == Names("Office", "Rig 4")
    member = site.log.member(TABLET.device_id)
    assert open_names(member, site.keys) == Names("Tablet of Dörte", "")
    everything = b"".join(site.log.entries)
    for name in ("Office", "Rig 4", "Tablet", "Dörte"):
        assert name.encode() not in everything
    for hidden in (secret.to_bytes(), site.keys.epochs[1], site.keys.to_bytes()[1:33]):
        assert hidden not in everything


def test_a_name_cannot_be_read_without_the_key_nor_moved_to_another_device(site: Site) -> None:
    site.joined(TABLET)
    member = site.log.member(TABLET.device_id)
    with pytest.raises(BadMembership, match="cannot be read"):
        open_names(member, make_site(2).keys)
    with pytest.raises(BadMembership, match="cannot be read"):
        open_names(replace(member, device_id=DeviceId(b"d" * 16)), site.keys)
    with pytest.raises(UnknownEpoch):
        open_names(replace(member, sealed_name=b"\0\0\0\x09" + member.sealed_name[4:]), site.keys)
    for length in range(len(member.sealed_name)):
        with pytest.raises((BadMembership, UnknownEpoch)):
            open_names(replace(member, sealed_name=member.sealed_name[:length]), site.keys)


def test_names_of_like_length_look_alike(site: Site) -> None:
    secret = site.invited()
    assert len({len(site.join(TABLET, secret, name="n" * size)) for size in range(1, 50)}) == 1


@pytest.mark.parametrize("name", ["", "  ", "x" * 201, "ö" * 101])
def test_a_name_has_1_to_200_bytes(site: Site, name: str) -> None:
    problem = "has 20[12] bytes, and may have 1 to 200" if name.strip() else "is empty"
    with pytest.raises(ValidationError, match=f"device name: {problem}$"):
        site.join(TABLET, site.invited(), name=name)
