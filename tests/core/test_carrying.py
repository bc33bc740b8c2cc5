"""One log of two branches: what a relay had lost takes effect at the end of the branch that stands."""

from __future__ import annotations

from copy import copy

import pytest

from crdt_sync.crypto.device_keys import DeviceKeys
from crdt_sync.errors import InviteExpired
from crdt_sync.membership.authoring import make_withdraw
from crdt_sync.membership.carrying import Carried, carry_over
from crdt_sync.membership.entries import MAX_ENTRY_BYTES, Carry, Join, make_entry, parse_entry
from crdt_sync.membership.log import MembershipLog
from crdt_sync.roles import Role
from tests.core.membership_site import EXPIRES_MS, NOW_MS, PHONE, TABLET, Site, make_site, refused, seeded

LAPTOP = DeviceKeys.generate(seeded(52))


def branch(site: Site, seed: int = 99) -> Site:
    """The same space from here on, as a relay has it that lost what comes."""
    other = copy(site)
    other.log, other.entropy = site.log.copy(), seeded(seed)
    return other


def carried(site: Site, lost: MembershipLog, device: DeviceKeys, at: int = 1) -> Carried:
    return carry_over(site.log, lost.entries[at:], device, at_ms=NOW_MS)


@pytest.fixture
def site() -> Site:
    return make_site()


def test_both_sides_newcomers_are_members_of_the_log_that_stands(site: Site) -> None:
    stands = branch(site)
    site.joined(TABLET, Role.OFFICE)
    stands.joined(PHONE)
    made = carried(stands, site.log, site.founder)
    assert (len(made.entries), made.left_out) == (1, [])
    log = stands.log
    assert {member.device_id for member in log.members.values()} == {
        site.founder.device_id, TABLET.device_id, PHONE.device_id,
    }  # fmt: skip
    assert log.role_of(TABLET.device_id) is Role.OFFICE
    assert log.member(TABLET.device_id).joined_index == log.index
    # What was written on the branch that was lost cites a head that is known on.
    assert log.position_of_head(site.log.short_head) == log.index
    assert log.position_of(site.log.head) is None
    for other in (MembershipLog(log.space_id), MembershipLog.restore(log.space_id, log.entries)):
        for raw in () if other.index >= 0 else log.entries:
            other.apply(raw)
        assert (other.head, other.members, other.invites) == (log.head, log.members, log.invites)


def test_a_device_that_only_the_lost_branch_knows_carries_itself(site: Site) -> None:
    stands = branch(site)
    site.joined(TABLET, Role.ADMIN)
    raw, secret = site.invite(by=TABLET)
    site.log.apply(raw)
    site.log.apply(site.join(PHONE, secret))
    stands.joined(LAPTOP)
    made = carried(stands, site.log, PHONE)
    assert parse_entry(made.entries[0]).signer == PHONE.device_id
    assert stands.log.role_of(PHONE.device_id) is Role.FIELD
    assert stands.log.role_of(TABLET.device_id) is Role.ADMIN


def test_an_open_invite_of_the_lost_branch_can_be_used_on(site: Site) -> None:
    stands = branch(site)
    secret = site.invited()
    stands.joined(PHONE)
    carried(stands, site.log, site.founder)
    stands.log.apply(stands.join(TABLET, secret))
    assert stands.log.role_of(TABLET.device_id) is Role.FIELD


@pytest.mark.parametrize("how", ["used", "withdrawn"])
def test_an_invite_lets_one_device_in_on_all_branches_together(site: Site, how: str) -> None:
    secret = site.invited()
    stands = branch(site)
    site.log.apply(site.join(TABLET, secret))
    if how == "used":
        stands.log.apply(stands.join(PHONE, secret))
    else:
        stands.log.apply(make_withdraw(stands.log, site.founder, secret.invite_id, at_ms=NOW_MS))
    head = stands.log.head
    made = carried(stands, site.log, site.founder, 2)
    assert made.entries == []
    assert [entry.signer for entry in made.left_out] == [TABLET.device_id]
    assert carried(stands, site.log, TABLET, 2).entries == []
    assert stands.log.head == head
    assert stands.log.role_of(TABLET.device_id) is None


def test_a_withdrawal_that_was_lost_counts_again(site: Site) -> None:
    secret = site.invited()
    stands = branch(site)
    site.log.apply(make_withdraw(site.log, site.founder, secret.invite_id, at_ms=NOW_MS))
    stands.joined(PHONE)
    carried(stands, site.log, PHONE, 2)
    assert stands.log.invites[secret.invite_id].withdrawn


def test_what_was_carried_before_is_carried_on_and_nothing_twice(site: Site) -> None:
    """The relay loses something a second time."""
    first, second = branch(site), branch(site, 98)
    site.joined(TABLET)
    first.joined(PHONE)
    second.joined(LAPTOP)
    carried(first, site.log, site.founder)
    carried(second, first.log, site.founder)
    assert len(second.log.members) == 4
    assert carried(second, first.log, TABLET).entries == []
    assert carried(second, site.log, TABLET).entries == []


def test_many_entries_go_into_several_carries_the_own_way_in_first(site: Site) -> None:
    stands = branch(site)
    for number in range(30):
        site.joined(DeviceKeys.generate(seeded(200 + number)))
    site.joined(TABLET)
    stands.joined(PHONE)
    made = carried(stands, site.log, TABLET)
    assert len(made.entries) > 1
    assert max(map(len, made.entries)) <= MAX_ENTRY_BYTES
    assert len(stands.log.members) == 33


def test_a_carry_is_refused_that_forges_or_brings_nothing(site: Site) -> None:
    stands = branch(site)
    site.joined(TABLET)
    stands.joined(PHONE)
    invite, join = (parse_entry(raw).without_hpke() for raw in site.log.entries[1:])

    def carry(*entries: bytes, by: DeviceKeys = site.founder) -> bytes:
        return stands.entry(Carry(entries), by)

    mine = parse_entry(stands.log.entries[1]).raw
    refused(stands.log, carry(mine), "in the log already")
    refused(stands.log, carry(invite, invite), "in the log already")
    refused(stands.log, carry(join), "no invite with that id")
    refused(stands.log, carry(invite[:-3]), "does not have the right shape")
    refused(stands.log, carry(invite, site.log.entries[2]), "bare")
    refused(stands.log, carry(carry(invite)), "bare")
    refused(stands.log, carry(site.log.entries[0]), "bare")
    refused(stands.log, carry(make_site(2).invite()[0]), "another space")
    refused(stands.log, carry(invite, by=LAPTOP), "no member with it either")
    refused(stands.log, carry(site.invite(by=PHONE)[0], by=PHONE), "only an admin")
    payload = parse_entry(join).payload
    assert isinstance(payload, Join)
    forged = make_entry(
        payload, space=stands.log.space_id, index=2, prev=bytes(31) + b"1", at_ms=1, keys=TABLET,
        invite_sign=PHONE.sign,
    )  # fmt: skip
    refused(stands.log, carry(invite, forged), "its invite's key did not sign")
    good = parse_entry(carry(invite, join))
    wrong = parse_entry(carry(invite, join, by=PHONE))
    mixed = good.raw.replace(good.signature, wrong.signature)
    refused(stands.log, mixed, "signature does not fit")
    refused(stands.log, good.raw, "expired", InviteExpired, now_ms=EXPIRES_MS)
    stands.log.apply(good.raw)
