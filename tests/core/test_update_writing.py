"""An edit's update is what the bindings would have made of the same edit."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from pycrdt import Array, Doc

from crdt_sync.hlc import Hlc
from crdt_sync.ids import Author, DeviceId, Incarnation
from crdt_sync.records.document import RecordDocument
from crdt_sync.records.update_format import parse_update
from crdt_sync.records.update_writing import number
from crdt_sync.records.writes import Write
from crdt_sync.roles import Role

AUTHORS = tuple(Author(DeviceId(bytes([n]) * 16), Incarnation(n)) for n in (1, 2, 3))
steps = st.lists(
    st.tuples(
        st.sampled_from(AUTHORS),
        st.lists(st.integers(0, 60), max_size=6),
        st.lists(st.integers(0, 300), max_size=6),
    ),
    max_size=12,
)


def through_the_bindings(
    state: bytes, author: Author, gone: list[tuple[Author, int]], raws: list[bytes]
) -> Doc[Any]:
    """The document after the edit. `gone` are places in arrays, the last of each array first."""
    doc: Doc[Any] = Doc(client_id=author.client_id)
    doc.apply_update(state)
    with doc.transaction():
        for other, index in gone:
            del doc.get(other.array_name, type=Array)[index]
        doc.get(author.array_name, type=Array).extend(raws)
    return doc


@given(steps)
def test_an_edit_gives_the_document_that_the_bindings_give(
    edits: list[tuple[Author, list[int], list[int]]],
) -> None:
    state, time = b"\0\0", 0
    for author, chosen, sizes in edits:
        doc = RecordDocument(state, author=author)
        places = [(other, index) for other in doc.arrays() for index in range(len(doc.placed(other)))]
        gone = sorted({places[number] for number in chosen if number < len(places)}, reverse=True)
        remove = [doc.placed(other)[index][1] for other, index in gone]
        add = []
        for size in sizes:
            time += 1
            add.append(Write(("name",), "x" * size, Hlc(time), Role.FIELD, author))
        update = doc.edit(remove=remove, add=add)
        expected = through_the_bindings(state, author, gone, [write.encode() for write in add])
        state = doc.state()
        assert state == expected.get_update()
        parse_update(update)
        receiver = RecordDocument(state)
        receiver.apply(update)
        assert receiver.state() == state
        assert not receiver.pending


def test_numbers_are_written_in_their_shortest_form() -> None:
    assert [number(value) for value in (0, 127, 128, 300)] == [b"\0", b"\x7f", b"\x80\x01", b"\xac\x02"]
    assert number(2**53 - 1) == b"\xff" * 7 + b"\x0f"
