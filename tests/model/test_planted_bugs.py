"""Bugs planted in merging, to see that the machine finds them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from crdt_sync.ids import Author
from crdt_sync.records import conflicts, planning
from crdt_sync.records.changes import Value
from crdt_sync.records.document import RecordDocument
from crdt_sync.records.writes import DocWrites, Path, Write
from crdt_sync.roles import Role
from crdt_sync.rules.collections import SetRule
from crdt_sync.rules.deletion import context_of
from crdt_sync.rules.register import ClientWins
from crdt_sync.rules.text import Text
from tests.model.test_merge_machine import MergeMachine

MANY = settings(
    max_examples=400,
    stateful_step_count=30,
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


def assert_found(monkeypatch: pytest.MonkeyPatch, *places: str) -> None:
    monkeypatch.setattr(MergeMachine, "only", places)
    with pytest.raises((AssertionError, ValueError)):
        run_state_machine_as_test(MergeMachine, settings=MANY)


def test_a_wrong_tie_break_in_client_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    def choose(self: ClientWins, writes: Sequence[Write]) -> Write:
        in_the_field = [write for write in writes if write.role is Role.FIELD] or writes
        latest = max(write.hlc for write in in_the_field)
        return min((write for write in in_the_field if write.hlc == latest), key=lambda write: write.author)

    monkeypatch.setattr(ClientWins, "choose", choose)
    assert_found(monkeypatch, "actual")


def test_a_removal_that_takes_an_unseen_element_along(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SetRule, "__init__", lambda self, **_: setattr(self, "remove_wins", True))
    assert_found(monkeypatch, "tags")


def test_a_removal_of_a_row_that_covers_what_it_had_not_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    def context(marks: Iterable[Write], writes: Iterable[Write]) -> Any:
        seen: Any = context_of(marks, writes)
        return {name: time + 1_000_000_000 for name, time in seen.items()}

    monkeypatch.setattr(planning, "context_of", context)
    assert_found(monkeypatch, "parts", "parts.qty")


def test_a_conflict_id_that_depends_on_whose_write_is_listed_first(monkeypatch: pytest.MonkeyPatch) -> None:
    listed = RecordDocument.writes

    def own_first(self: RecordDocument) -> DocWrites:
        writes: dict[Path, tuple[Write, ...]] = {}
        for path, some in listed(self).items():
            writes[path] = tuple(sorted(some, key=lambda write: write.author != self._author))
        return writes

    monkeypatch.setattr(RecordDocument, "writes", own_first)
    monkeypatch.setattr(conflicts, "canonical", tuple)
    assert_found(monkeypatch, "cause")


def test_a_text_edit_that_forgets_what_stood_beside(monkeypatch: pytest.MonkeyPatch) -> None:
    edited = Text.edited

    def forgetful(
        self: Text, writes: Sequence[Write], wanted: str | None, author: Author, since: int = 0
    ) -> Value:
        return edited(self, writes[:1], wanted, author, since)

    monkeypatch.setattr(Text, "edited", forgetful)
    assert_found(monkeypatch, "story")
