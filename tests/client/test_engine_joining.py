"""Entering a space when the answer to the join entry was lost: the device is in, and finds that out."""

from __future__ import annotations

import pytest

from crdt_sync.crypto.envelope import Kind
from crdt_sync.errors import InviteUsed
from crdt_sync.roles import Role
from crdt_sync_client.engine.model import CreateOp
from tests.client.engine_world import Peer, World


def invite(world: World, role: Role = Role.FIELD) -> str:
    world.office.sync()
    entry, link = world.office.engine.make_invite(world.space, role, world.now_ms + 86_400_000)
    world.office.engine.apply_membership(world.space, entry)
    world.relay.append(entry)
    return link


def log(world: World) -> list[bytes]:
    return [raw for _, kind, raw, *_ in world.relay.rows if kind == Kind.MEMBERSHIP]


def half_joined(world: World) -> Peer:
    """The relay has its join entry; the device has not heard of that."""
    peer = Peer(world, "tablet")
    world.relay.append(peer.engine.join_from_log(invite(world), log(world), world.now_ms))
    return peer


def has_joined(world: World, peer: Peer) -> None:
    assert peer.engine.space(world.space).stage == "active"
    world.peers.append(peer)
    created = world.office.engine.write([CreateOp("job", {"title": "Pump"})])[0]
    assert not isinstance(created, Exception)
    world.settle()
    assert peer.engine.get("job", created.id) is not None


def test_another_invite_finds_that_the_device_is_in_already(world: World) -> None:
    peer = half_joined(world)
    before = log(world)
    again = peer.engine.join_from_log(invite(world), log(world), world.now_ms)
    assert again == before[-1]  # nothing new to append
    peer.engine.confirm_join(world.space)
    has_joined(world, peer)


def test_also_when_the_store_has_forgotten(world: World) -> None:
    peer = half_joined(world)
    joined = log(world)[-1]
    peer.engine.abandon_space(world.space)
    # The role is the one it joined with; the new invite only brings the keys.
    again = peer.engine.join_from_log(invite(world, Role.ADMIN), log(world), world.now_ms)
    assert again == joined
    peer.engine.confirm_join(world.space)
    assert peer.engine.space(world.space).role is Role.FIELD
    has_joined(world, peer)


def test_a_used_invite_lets_nobody_else_in(world: World) -> None:
    link = invite(world)
    first, second = Peer(world, "first"), Peer(world, "second")
    world.relay.append(first.engine.join_from_log(link, log(world), world.now_ms))
    with pytest.raises(InviteUsed):
        second.engine.join_from_log(link, log(world), world.now_ms)
    for peer in (first, second):
        peer.engine.close()
