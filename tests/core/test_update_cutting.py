"""What is cut out of an update is gone, the rest is as it was, and the bytes are of the one form there is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt_sync.hlc import Hlc
from crdt_sync.ids import Author, DeviceId, Incarnation
from crdt_sync.records import update_cutting
from crdt_sync.records.document import RecordDocument, merge_updates
from crdt_sync.records.update_cutting import deletes_of, deletes_only, without_tail
from crdt_sync.records.update_format import parse_update
from crdt_sync.records.writes import Write
from crdt_sync.roles import Role

A, B = (Author(DeviceId(bytes([n]) * 16), Incarnation(n)) for n in (1, 2))
edits = st.lists(st.tuples(st.sampled_from([A, B]), st.integers(0, 3), st.integers(0, 300)), max_size=20)


def history(steps: list[tuple[Author, int, int]]) -> tuple[RecordDocument, list[bytes]]:
    """Each step overwrites or adds a field, in a document that both authors see."""
    updates: list[bytes] = []
    for time, (author, field, size) in enumerate(steps, 1):
        doc = RecordDocument(merge_updates(updates), author=author)
        path = (f"f{field}",)
        removed = doc.writes().get(path, ()) if size % 3 else ()
        updates.append(doc.edit(remove=removed, add=[Write(path, "x" * size, Hlc(time), Role.FIELD, author)]))
    return RecordDocument(merge_updates(updates)), updates


@given(edits, st.integers(0, 12))
def test_a_tail_is_cut_off_and_nothing_else(steps: list[tuple[Author, int, int]], clock: int) -> None:
    doc, _ = history(steps)
    state = without_tail(doc.state(), A.client_id, clock)
    parse_update(state)
    cut = RecordDocument(state)
    assert cut.placed(A) == [(at, write) for at, write in doc.placed(A) if at < clock]
    assert cut.placed(B) == doc.placed(B)
    assert cut.end(A) == min(doc.end(A), clock)
    assert not cut.pending
    assert without_tail(doc.state(), A.client_id, doc.end(A)) is not None
    assert (
        RecordDocument(without_tail(doc.state(), A.client_id, doc.end(A))).content_hash()
        == doc.content_hash()
    )


@given(edits)
def test_deletions_alone_take_away_what_the_update_took_away(steps: list[tuple[Author, int, int]]) -> None:
    doc, updates = history(steps)
    if not updates:
        return
    deletions = deletes_only(updates[-1])
    assert parse_update(deletions).blocks == []
    assert parse_update(deletions).deletes == parse_update(updates[-1]).deletes
    before = RecordDocument(merge_updates(updates[:-1]))
    before.apply(deletions)
    gone = {write for author in (A, B) for _, write in before.placed(author)}
    assert gone == {write for author in (A, B) for _, write in doc.placed(author)} - {
        write for write in (write for at, write in doc.placed(steps[-1][0])) if write.hlc == len(steps)
    }


@given(edits, st.integers(1, 19))
def test_an_update_with_gaps_keeps_them(steps: list[tuple[Author, int, int]], left_out: int) -> None:
    _, updates = history(steps)
    partial = merge_updates([update for at, update in enumerate(updates) if at != left_out])
    kept = without_tail(partial, A.client_id, 2**20)
    for one, other in zip(
        sorted(parse_update(partial).blocks, key=lambda blocks: blocks.client),
        sorted(parse_update(kept).blocks, key=lambda blocks: blocks.client),
        strict=True,
    ):
        assert (one.items, one.skips, one.start, one.end) == (
            other.items,
            other.skips,
            other.start,
            other.end,
        )


@given(edits, st.integers(0, 12))
def test_what_a_cut_was_made_from_is_as_it_was(steps: list[tuple[Author, int, int]], clock: int) -> None:
    """Whoever keeps what an update was taken apart into goes on with it."""
    doc, updates = history(steps)
    kept = {update: parse_update(update) for update in (doc.state(), *updates)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(update_cutting, "parse_update", kept.__getitem__)
        for update in kept:
            without_tail(update, A.client_id, clock)
            deletes_only(update)
            deletes_of(update, {B.client_id})
    for update, parsed in kept.items():
        anew = parse_update(update)
        assert parsed.deletes == anew.deletes
        assert [(each.items, each.skips, each.end) for each in parsed.blocks] == [
            (each.items, each.skips, each.end) for each in anew.blocks
        ]
