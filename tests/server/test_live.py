"""The live ring: every reader gets everything of others, in order, once; and it stays small."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from crdt_sync.ids import Author, DeviceId, Incarnation
from crdt_sync.protocol.frames import Deliver, Row, RowKind, decode_from_relay
from crdt_sync_server.effects import LiveRow
from crdt_sync_server.live import FRAME_BYTES, RING_BYTES, RING_ROWS, LiveLog

A, B, C = (Author(DeviceId(bytes([n]) * 16), Incarnation(1)) for n in (1, 2, 3))


def rows(first: int, authors: list[Author | None], size_bytes: int = 10) -> list[LiveRow]:
    return [
        LiveRow(Row(sequence, RowKind.UPDATE, sequence.to_bytes(size_bytes, "big")), author)
        for sequence, author in enumerate(authors, first)
    ]


def read_on(live: LiveLog[object], cursor: int, author: Author) -> tuple[list[int], int]:
    seen: list[int] = []
    while cursor < live.head:
        frame = live.next_frame(cursor, author)
        if frame.data:
            deliver = decode_from_relay(frame.data)
            assert isinstance(deliver, Deliver)
            assert deliver.cursor == frame.cursor
            assert deliver.caught_up == (frame.cursor == live.head)
            seen += [row.sequence for row in deliver.rows]
        cursor = frame.cursor
    return seen, cursor


@given(st.lists(st.lists(st.sampled_from([A, B, None]), min_size=1, max_size=5), max_size=20), st.data())
def test_every_reader_gets_what_others_wrote(batches: list[list[Author | None]], data: st.DataObject) -> None:
    live: LiveLog[object] = LiveLog(7)
    cursors = {A: 7, B: 7, C: 7}
    seen: dict[Author, list[int]] = {A: [], B: [], C: []}
    written: list[Author | None] = []
    for batch in batches:
        live.grow(rows(live.head + 1, batch))
        written += batch
        for reader in data.draw(st.sets(st.sampled_from([A, B, C]))):
            new, cursors[reader] = read_on(live, cursors[reader], reader)
            seen[reader] += new
    for reader in (A, B, C):
        seen[reader] += read_on(live, cursors[reader], reader)[0]
        assert seen[reader] == [n for n, author in enumerate(written, 8) if author != reader]


def test_readers_at_one_place_share_the_bytes() -> None:
    live: LiveLog[object] = LiveLog(0)
    live.grow(rows(1, [A]))
    assert live.next_frame(0, B).data is live.next_frame(0, C).data
    assert live.next_frame(0, A).data == b""


def test_rows_that_are_known_already_are_not_added_again() -> None:
    live: LiveLog[object] = LiveLog(2)
    live.grow(rows(1, [A, A, A]))
    assert (live.start, live.head) == (2, 3)


def test_the_ring_is_bounded_in_rows_and_bytes() -> None:
    live: LiveLog[object] = LiveLog(0)
    live.grow(rows(1, [A] * (RING_ROWS + 10)))
    assert (live.start, live.head) == (10, RING_ROWS + 10)
    live.grow(rows(live.head + 1, [A] * 5, RING_BYTES // 4))
    assert live.head - live.start == 4


def test_frames_are_bounded_but_never_empty() -> None:
    live: LiveLog[object] = LiveLog(0)
    live.grow(rows(1, [A, A, A], FRAME_BYTES - 1))
    assert [live.next_frame(cursor, B).cursor for cursor in range(3)] == [1, 2, 3]


def test_a_snapshot_takes_its_place_and_reaches_every_author() -> None:
    live: LiveLog[object] = LiveLog(0)
    live.grow(rows(1, [A, A, A]))
    live.next_frame(0, B)
    snapshot = Row(2, RowKind.SNAPSHOT, b"snapshot")
    live.replace(snapshot)
    frame = decode_from_relay(live.next_frame(0, A).data)
    assert isinstance(frame, Deliver)
    assert frame.rows == [snapshot]
    live.replace(Row(0, RowKind.SNAPSHOT, b"of rows that are not here any more"))
    assert live.head - live.start == 3


def test_a_frame_follows_the_cursor_its_reader_was_told() -> None:
    live: LiveLog[object] = LiveLog(0)
    live.grow(rows(1, [A, B]))
    assert live.next_frame(0, A).cursor == 2
    silent = live.next_frame(1, A, 0)  # A's own row passed in silence
    shared = live.next_frame(1, C)
    for frame, after in ((silent, 0), (shared, 1)):
        deliver = decode_from_relay(frame.data)
        assert isinstance(deliver, Deliver)
        assert (deliver.after, deliver.cursor, [row.sequence for row in deliver.rows]) == (after, 2, [2])
