"""When a session has nothing more to fetch."""

from __future__ import annotations

from typing import Any, cast

from crdt_sync.ids import OpaqueId, SpaceId
from crdt_sync.protocol.frames import Fetched
from crdt_sync_client.fetching import Fetching
from crdt_sync_client.session_steps import FetchedStep, WantedStep

ENGINE = cast(Any, None)  # no step is run here
SPACE = SpaceId(bytes(16))
RECORD = OpaqueId(bytes(16))


def test_it_is_not_over_while_the_last_answer_is_being_stored() -> None:
    """A sync that looked in this moment ended after the first 64 of 91 records."""
    fetching = Fetching()
    fetching.look()
    asking = fetching.next_step(ENGINE, SPACE)
    assert isinstance(asking, WantedStep)
    asking.wanted = [RECORD]
    assert fetching.done(asking) == ([RECORD], 0)
    fetching.arrived(Fetched(rows=[], whole=1, head=7))
    storing = fetching.next_step(ENGINE, SPACE)
    assert isinstance(storing, FetchedStep)
    assert not fetching.idle
    assert fetching.done(storing) is None
    assert not fetching.idle
    last = fetching.next_step(ENGINE, SPACE)
    assert isinstance(last, WantedStep)
    assert fetching.done(last) is None
    assert fetching.idle
