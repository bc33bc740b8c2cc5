"""A device whose snapshots hold less than they say: nothing is pruned for them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from crdt_sync.ids import Author
from crdt_sync.records.document import RecordDocument
from crdt_sync_client.engine import compacting, confirming
from crdt_sync_sim.commands import scenario_folder
from crdt_sync_sim.run import NEWCOMER_EVERY, Outcome, simulate
from crdt_sync_sim.scenario import Workload
from crdt_sync_sim.scenario_file import load_scenario

seal = compacting.seal_snapshot
LIED: list[str] = []


class Emptied:
    """A record as a liar hands it on: with what it covers, and without what is in it."""

    def __init__(self, record: Any) -> None:
        self._record = record
        self.doc = RecordDocument(None, author=None)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._record, name)


def lying(replica: Any, space: Any, record: Any) -> bytes:
    others = {author.device for author in record.heads if isinstance(author, Author)} - {replica.device_id}
    if replica.name not in ("tablet_1", "office") or not others:
        return seal(replica, space, record)
    LIED.append(record.id)
    emptied: Any = Emptied(record)
    return seal(replica, space, emptied)


@pytest.fixture(autouse=True)
def liar(monkeypatch: pytest.MonkeyPatch) -> None:
    LIED.clear()
    monkeypatch.setattr(compacting, "seal_snapshot", lying)


def run() -> Outcome:
    swarm = load_scenario(scenario_folder() / "swarm.toml")
    calm = replace(swarm, duration_s=120.0, settle_s=300.0, workload=Workload(150), faults=(), swarm=False)
    return simulate(calm, NEWCOMER_EVERY)


def test_what_a_liar_compacts_is_looked_into_and_nothing_is_lost() -> None:
    outcome = run()
    assert LIED
    assert outcome.verdict == "pass", outcome.violations[:1]


def test_without_the_second_look_it_would_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confirming, "judge", lambda *_: confirming.SAME)
    outcome = run()
    assert LIED
    assert any("a device that came now would lack something" in str(each) for each in outcome.violations)
