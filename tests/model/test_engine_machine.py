"""Whole engines against the model: stores that die, a relay's log, snapshots, and the trail of conflicts."""

from __future__ import annotations

import sys
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from tests.client.engine_world import Peer
from tests.model.engine_site import Site
from tests.model.test_merge_machine import ACT, PLACES, VALUES, WHO, at_one_place

MEETING = st.sampled_from(
    ["sync", "sync", "sync", "pull", "push and die", "crash", "reopen", "again", "compact", "join"]
)


class EngineMachine(RuleBasedStateMachine):
    """An office, two or three devices in the field, and one record in which every rule has a field."""

    site: Site
    busy: list[str]

    @initialize(
        names=st.sampled_from([["anna", "ben"], ["anna", "ben", "carla"]]),
        delete_rule=st.sampled_from(["edit_wins", "delete_wins", "manual"]),
        busy=st.lists(st.sampled_from(sorted(PLACES)), min_size=2, max_size=6, unique=True),
    )
    def begin(self, names: list[str], delete_rule: str, busy: list[str]) -> None:
        self.site = Site(names, delete_rule)
        self.busy = busy

    def act(self, peer: Peer, action: Any) -> None:
        site = self.site
        deleted = site.model.sight(site.seen[peer.name]).deleted
        if action == "delete":
            site.delete(peer)
        elif action == "restore" or (deleted and action == "restore it"):
            site.restore(peer)
        elif action == "make it anew":
            site.create(peer, {"status": "new"})
        elif isinstance(action, dict):
            site.create(peer, action)
        elif isinstance(action, list):
            site.edit(peer, action)

    @rule(acts=st.lists(st.tuples(WHO, ACT), min_size=2, max_size=5))
    def work(self, acts: list[Any]) -> None:
        for who, action in acts:
            self.act(self.site.peer(who), action)

    @rule(path_and_changes=at_one_place(), who=WHO, deletes=st.booleans())
    def clash(self, path_and_changes: Any, who: int, deletes: bool) -> None:
        path, changes = path_and_changes
        for step, change in enumerate(changes):
            self.site.edit(self.site.peer(who + step), [(path, change)])
        if deletes:
            self.site.delete(self.site.peer(who - 1))

    @rule(who=WHO, which=st.integers(0, 5), keep=st.integers(0, 5), own=VALUES)
    def decide(self, who: int, which: int, keep: int, own: str) -> None:
        self.site.resolve(self.site.peer(who), which, keep, own)
        self.site.restore_a_loser(self.site.peer(who + 1), which, keep)

    @rule(meetings=st.lists(st.tuples(WHO, MEETING), min_size=1, max_size=6))
    def meet(self, meetings: list[Any]) -> None:
        for who, how in meetings:
            peer = self.site.peer(who)
            if how == "sync":
                self.site.sync(peer)
            elif how == "pull":
                self.site.only_pull(peer)
            elif how == "push and die":
                self.site.push_and_die(peer)
            elif how == "again":
                self.site.hear_again(peer)
            elif how == "compact":
                self.site.compact(peer)
            elif how == "join":
                if len(self.site.world.peers) < 5:
                    self.site.join(f"guest {len(self.site.world.peers)}")
            else:
                peer.crash() if how == "crash" else peer.reopen()
                self.site.check(peer)

    def teardown(self) -> None:
        if hasattr(self, "site"):
            try:
                if sys.exc_info()[0] is None:
                    self.site.check_all()
            finally:
                self.site.close()


TestEngines = EngineMachine.TestCase
TestEngines.settings = settings(
    max_examples=50,
    stateful_step_count=20,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)
