"""Engines around a relay without sockets, for most tests: see `engine_world`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from crdt_sync.ids import RecordId
from tests.client.engine_world import Peer, World


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """An office in a space of its own, with jobs and sites."""
    world = World(tmp_path)
    yield world
    world.close()


@pytest.fixture
def anna(world: World) -> Peer:
    """A second device."""
    return world.join("anna")


@pytest.fixture
def ids(world: World, anna: Peer) -> list[RecordId]:
    """Four jobs that both have; Anna is about to send."""
    made = [world.office.create({"title": f"Job {n}"}) for n in range(4)]
    world.settle()
    anna.connect()
    return made
