"""The document itself: what waits, what it refuses, and in which order its writes stand."""

from __future__ import annotations

import pytest

from crdt_sync.records.document import RecordDocument, merge_updates
from crdt_sync.records.update_cutting import deletes_only
from crdt_sync.records.writes import Write
from crdt_sync.roles import Role
from crdt_sync.rules.register import Register
from tests.core.record_replicas import Replica, meet


def test_what_came_too_early_is_kept_and_shows_when_it_can() -> None:
    one = Replica(0)
    one.create({"status": "a"})
    one.set({"status": "b"})
    one.set({"status": "c"})
    late = Replica(2)
    late.take([one.updates[2]])
    assert not late.view().exists
    assert late.doc.pending
    state = late.doc.state()
    reopened = RecordDocument(state)
    waited = reopened.pending
    for update in one.updates[:2]:
        reopened.apply(update)
    assert (waited, reopened.pending) == (True, False)
    assert reopened.content_hash() == one.doc.content_hash()


def test_a_deletion_that_came_before_its_write_is_kept() -> None:
    one, other = Replica(0), Replica(1)
    one.create({"status": "a"})
    other.take(one.updates)
    other.set({"status": "b"})
    late = RecordDocument(merge_updates(other.updates))
    reopened = RecordDocument(late.state())
    for update in one.updates:
        reopened.apply(update)
    assert [write.value for write in reopened.writes()[("status",)]] == ["b"]


def test_an_edit_names_what_it_cannot_do() -> None:
    one, other = Replica(0), Replica(1)
    one.create({"status": "a"})
    other.take(one.updates)
    foreign = Write(("status",), "x", one.tick(), Role.FIELD, other.author)
    with pytest.raises(ValueError, match="document's author"):
        one.doc.edit(remove=[], add=[foreign])
    with pytest.raises(ValueError, match="not visible"):
        one.doc.edit(remove=[foreign], add=[])
    assert one.doc.edit(remove=[], add=[]) == b"\0\0"


def test_writes_stand_in_the_order_of_authors_and_ties_go_to_the_greater_one() -> None:
    replicas = [Replica(number, role=Role.FIELD) for number in range(5)]
    replicas[0].create({"status": "x"})
    time, first = replicas[0].clock.last, list(replicas[0].updates)
    for replica in replicas:
        replica.take(first)
        replica.clock.last = time
        replica.set({"status": f"by {replica.number}"})  # all at one time
    meet(*replicas)
    for replica in replicas:
        assert [write.value for write in replica.doc.writes()[("status",)]] == [f"by {n}" for n in range(5)]
        assert replica.values["status"] == "by 4"
        assert replica.doc.arrays() == [each.author for each in replicas]
    one, other = replicas[0].view().conflicts[0], replicas[3].view().conflicts[0]
    assert one.alternatives == other.alternatives == replicas[2].doc.writes()[("status",)]
    assert one.winner == Register().choose(list(reversed(one.alternatives)))


def test_a_whole_document_brings_what_is_new_in_it_and_nothing_when_it_comes_again() -> None:
    one, other = Replica(0), Replica(1)
    one.create({"status": "a", "owner": "first"})
    other.take(one.updates)
    one.set({"status": "b"})
    other.set({"owner": "second"})
    one.set({"phase": "draft"})
    for reader in (RecordDocument(other.doc.state()), RecordDocument(one.updates[0])):
        reader.writes()  # kept up to date from here on
        for whole in (one.doc.state(), other.doc.state()):
            reader.apply(whole)
            fresh = RecordDocument(reader.state())
            assert (reader.writes(), reader.content_hash()) == (fresh.writes(), fresh.content_hash())
        state, shown = reader.state(), reader.writes()
        for known in (one.doc.state(), other.doc.state(), *one.updates, *other.updates):
            assert not reader.apply(known)
        assert reader.state() == state
        assert reader.writes() is shown


def test_a_deletion_alone_is_something_new() -> None:
    one, other = Replica(0), Replica(1)
    one.create({"status": "a", "owner": "first"})
    other.take(one.updates)
    other.set({"owner": "second"})
    emptied = deletes_only(other.updates[-1])
    assert one.doc.apply(emptied)
    assert not one.doc.apply(emptied)
    assert ("owner",) not in one.doc.writes()
