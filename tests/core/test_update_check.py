"""What a peer may put into a record, down to the bytes."""

from __future__ import annotations

import random
import re
from typing import Any

import msgspec
import pycrdt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycrdt import Array, Doc, Map, Text

from crdt_sync.errors import BadUpdate
from crdt_sync.hlc import Hlc
from crdt_sync.ids import Author
from crdt_sync.records.document import RecordDocument, merge_updates
from crdt_sync.records.update_check import CheckedUpdate, check_snapshot, check_update
from crdt_sync.records.update_format import parse_update
from crdt_sync.records.writes import Write
from crdt_sync.roles import Role
from tests.core.record_replicas import Replica, author_of, meet

ME = author_of(0)
OTHER = author_of(1)
LIMIT = 1 << 20
EXTENSION = msgspec.msgpack.Ext(5, b"x")


def raw_write(hlc: int = 1, role: Role = Role.FIELD, path: Any = ("status",), value: Any = "done") -> bytes:
    return msgspec.msgpack.encode((path, value, hlc, int(role)))


def update_by(client: int, name: str, values: list[Any], kind: Any = Array) -> bytes:
    """What a device that does not play by the rules could make with pycrdt."""
    doc: Doc[Any] = Doc(client_id=client)
    root = doc.get(name, type=kind)
    if kind is Array:
        root.extend(values)
    elif kind is Map:
        root["status"] = values[0]
    else:
        root += "text"
    return doc.get_update()


def refused(update: bytes, author: Author = ME, role: Role = Role.FIELD) -> str:
    with pytest.raises(BadUpdate) as caught:
        check_update(update, author, role, max_bytes=LIMIT)
    return str(caught.value)


def summary(checked: CheckedUpdate) -> tuple[int, int, Hlc]:
    return checked.inserted, checked.deleted, checked.latest


def number(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def group(client: int, clock: int, *structs: bytes) -> bytes:
    return number(len(structs)) + number(client) + number(clock) + b"".join(structs)


def first(name: str, *values: bytes) -> bytes:
    body = b"".join(b"\x74" + number(len(value)) + value for value in values)
    return b"\x08\x01" + number(len(name)) + name.encode() + number(len(values)) + body


def later(client: int, clock: int, *values: bytes) -> bytes:
    body = b"".join(b"\x74" + number(len(value)) + value for value in values)
    return b"\x88" + number(client) + number(clock) + number(len(values)) + body


GOOD = b"\x01" + group(ME.client_id, 0, first(ME.array_name, raw_write())) + b"\x00"


def test_an_honest_update_passes_and_is_summed_up() -> None:
    assert summary(check_update(GOOD, ME, Role.FIELD, max_bytes=LIMIT)) == (1, 0, Hlc(1))
    assert update_by(ME.client_id, ME.array_name, [raw_write()]) == GOOD
    deletes_another = b"\x00\x01" + number(OTHER.client_id) + b"\x01\x00\x03"
    assert summary(check_update(deletes_another, ME, Role.FIELD, max_bytes=LIMIT)) == (0, 3, Hlc(0))


def test_a_plain_yjs_binary_is_a_value_too() -> None:
    """`Y.Array.push([uint8array])` in JavaScript makes this kind of content."""
    raw = raw_write()
    struct = b"\x03\x01" + number(27) + ME.array_name.encode() + number(len(raw)) + raw
    update = b"\x01" + group(ME.client_id, 0, struct) + b"\x00"
    assert check_update(update, ME, Role.FIELD, max_bytes=LIMIT).inserted == 1
    doc = RecordDocument(update)
    assert [write.value for write in doc.writes()[("status",)]] == ["done"]


@pytest.mark.parametrize(
    ("update", "message"),
    [
        (update_by(OTHER.client_id, ME.array_name, [raw_write()]), "client id that is not its author's"),
        (update_by(ME.client_id, OTHER.array_name, [raw_write()]), "array that is not its author's"),
        (update_by(ME.client_id, "status", [raw_write()]), "elsewhere than at the end"),
        (update_by(ME.client_id, ME.array_name, [raw_write()], Map), "kind records do not use|elsewhere"),
        (update_by(ME.client_id, ME.array_name, ["x"], Text), "kind records do not use"),
        (update_by(ME.client_id, ME.array_name, ["text"]), "not binary"),
        (update_by(ME.client_id, ME.array_name, [Map({"a": 1})]), "kind records do not use"),
        (update_by(ME.client_id, ME.array_name, [b"junk"]), "not a write"),
        (update_by(ME.client_id, ME.array_name, [raw_write(role=Role.ADMIN)]), "claims the role admin"),
        (update_by(ME.client_id, ME.array_name, [raw_write(hlc=0)]), "outside the clock's range"),
        (update_by(ME.client_id, ME.array_name, [raw_write(hlc=2**53)]), "outside the clock's range"),
        (update_by(ME.client_id, ME.array_name, [raw_write(5), raw_write(5)]), "do not grow"),
        (update_by(ME.client_id, ME.array_name, [raw_write(path=())]), "1 to 8 elements"),
        (update_by(ME.client_id, ME.array_name, [raw_write(path=("",))]), "1 to 1024 characters"),
        (update_by(ME.client_id, ME.array_name, [raw_write(path=("$x",))]), "unknown name starting with"),
        (update_by(ME.client_id, ME.array_name, [raw_write(path=("$a", "b"))]), "middle of a path"),
        (update_by(ME.client_id, ME.array_name, [raw_write(path=("$deleted",), value=1)]), "its context"),
        (update_by(ME.client_id, ME.array_name, [raw_write(path=("$record",), value=1)]), "not true"),
        (update_by(ME.client_id, ME.array_name, [raw_write(value={1: 2})]), "not text"),
        (update_by(ME.client_id, ME.array_name, [raw_write(value={"b": 1, "a": 2})]), "canonical"),
        (update_by(ME.client_id, ME.array_name, [raw_write(value=EXTENSION)]), "of type Ext"),
        (update_by(ME.client_id, ME.array_name, [raw_write() + b"\0"]), "not a write"),
        (update_by(ME.client_id, ME.array_name, [b"\x91" * 3000]), "not a write"),
        (GOOD + b"\0", "1 bytes after its end"),
        (b"", "cut short"),
        (b"\x01" + group(ME.client_id, 5, first(ME.array_name, raw_write())) + b"\0", "elsewhere"),
        (b"\x01" + group(ME.client_id, 5, later(ME.client_id, 3, raw_write())) + b"\0", "elsewhere"),
        (b"\x01" + group(ME.client_id, 5, later(OTHER.client_id, 4, raw_write())) + b"\0", "elsewhere"),
        (b"\x01" + group(ME.client_id, 0, b"\x00\x05") + b"\0", "kind records do not use|elsewhere|cut"),
        (b"\x01" + group(ME.client_id, 2**31, b"\x0a\x01") + b"\0", "clock beyond"),
        (b"\x01" + group(ME.client_id, 1, b"\x0a" + number(2**31 - 1)) + b"\0", "clock beyond"),
        (b"\x01" + group(ME.client_id, 0, b"\x0a\x00") + b"\0", "without content"),
        (b"\x01" + group(ME.client_id, 0) + b"\0", "without content"),
        (b"\x01" + group(2**53, 0, b"\x0a\x01") + b"\0", "too large"),
        (b"\x01" + b"\x01" + b"\xff" * 9 + b"\x7f" + b"\x00\x0a\x01\x00", "too large"),
        (b"\x81\x00" + GOOD[1:], "shortest form"),
        (b"\x02" + 2 * group(ME.client_id, 0, first(ME.array_name, raw_write())) + b"\0", "two groups"),
        (b"\x00\x02" + 2 * (b"\x05\x01\x00\x01"), "two delete sets"),
        (b"\x00\x01\x05\x00", "empty delete set"),
        (b"\x00\x01\x05\x01\x00\x00", "deletes nothing"),
        (b"\x00\x01\x05\x01\x01" + number(2**31 - 1), "clock beyond"),
        (b"\xff\xff\xff\xff\x0f", "cut short"),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)  # fmt: skip
def test_anything_else_is_refused(update: bytes, message: str) -> None:
    assert re.search(message, refused(update)), refused(update)


def test_a_length_far_beyond_the_end_is_refused_at_once() -> None:
    name = number(27) + ME.array_name.encode()
    assert "cut short" in refused(
        b"\x01" + group(ME.client_id, 0, b"\x08\x01" + name + b"\x01\x74" + number(2**50))
    )
    assert "cut short" in refused(b"\x01" + group(ME.client_id, 0, b"\x08\x01" + name + number(2**50)))
    assert "cut short" in refused(number(2**50))


def test_readers_and_oversized_updates_are_refused() -> None:
    assert "may not write" in refused(GOOD, role=Role.READER)
    with pytest.raises(BadUpdate, match="are the most"):
        check_update(GOOD, ME, Role.FIELD, max_bytes=len(GOOD) - 1)


def busy_replicas(count: int, rounds: int, seed: int) -> list[Replica]:
    shuffle = random.Random(seed)
    replicas = [Replica(number, role=Role.FIELD) for number in range(count)]
    replicas[0].create({"status": "a"})
    for replica in replicas:
        replica.take(replicas[0].updates)
    for _ in range(rounds):
        replica = shuffle.choice(replicas)
        if shuffle.random() < 0.3:
            other = shuffle.choice(replicas)
            replica.take(other.updates)
        replica.attempt("set", {"status": str(shuffle.random()), ("parts", "A", "qty"): shuffle.random()})
        if shuffle.random() < 0.1:
            replica.attempt("set", {"parts": {"A": None}})
    return replicas


def test_what_honest_devices_send_passes_in_every_form() -> None:
    shuffle = random.Random(7)
    for seed in range(15):
        replicas = busy_replicas(4, 60, seed)
        for replica in replicas:
            pieces = replica.updates
            for update in pieces:
                check_update(update, replica.author, replica.role)
            for _ in range(10):  # merged, out of order, with gaps: what coalescing and resending can make
                some = shuffle.sample(pieces, shuffle.randint(0, len(pieces)))
                merged = merge_updates(some)
                check_update(merged, replica.author, replica.role)
                check_update(merge_updates([merged, *shuffle.sample(pieces, min(2, len(pieces)))]),
                             replica.author, replica.role)  # fmt: skip
        meet(*replicas)
        known = {replica.author: replica.role for replica in replicas}
        for replica in replicas:
            check_snapshot(replica.doc.state(), known.get)


def test_a_gap_between_merged_updates_passes_as_a_skip() -> None:
    me = Replica(0)
    me.create({"status": "a"})
    for value in "bcd":
        me.set({"status": value})
    merged = merge_updates([me.updates[3], me.updates[0]])
    assert parse_update(merged).blocks[0].skips
    assert check_update(merged, me.author, me.role).inserted == 2


def test_a_snapshot_of_fifty_devices_passes_and_names_only_members() -> None:
    replicas = busy_replicas(50, 400, 3)
    meet(*replicas[:1], *replicas[1:])
    state = replicas[0].doc.state()
    known = {replica.author: replica.role for replica in replicas}
    check_snapshot(state, known.get)
    del known[replicas[7].author]
    with pytest.raises(BadUpdate, match="not a member"):
        check_snapshot(state, known.get)


def test_a_snapshot_must_be_whole_and_honest_about_authors() -> None:
    roles = {ME: Role.FIELD, OTHER: Role.OFFICE}
    with pytest.raises(BadUpdate, match="client id that is not its author's"):
        check_snapshot(update_by(5, ME.array_name, [raw_write()]), roles.get)
    with pytest.raises(BadUpdate, match="no author's"):
        check_snapshot(update_by(5, "!" * 27, [raw_write()]), roles.get)
    with pytest.raises(BadUpdate, match="not whole"):
        check_snapshot(
            b"\x01" + group(ME.client_id, 5, later(ME.client_id, 4, raw_write())) + b"\0", roles.get
        )
    with pytest.raises(BadUpdate, match="claims the role"):
        check_snapshot(update_by(OTHER.client_id, OTHER.array_name, [raw_write()]), roles.get)


def samples() -> list[bytes]:
    me, other = Replica(0), Replica(1)
    me.create({"status": "a", "tags": ["x", "y"], "parts": {"A": {"qty": 2}}})
    other.take(me.updates)
    other.set({"status": "b"})
    me.take(other.updates)
    me.set({"status": "c", "cause": "pump"})
    me.set({"parts": {"A": None}})
    return [*me.updates, merge_updates(me.updates), merge_updates([me.updates[0], me.updates[-1]])]


SAMPLES = samples()


@settings(max_examples=500, deadline=None)
@given(
    base=st.sampled_from(SAMPLES),
    edits=st.lists(
        st.tuples(st.integers(0, 400), st.integers(0, 255), st.sampled_from("xidc")), min_size=1, max_size=4
    ),
    victim_first=st.booleans(),
)
def test_mutated_updates_never_crash_and_never_speak_for_others(
    base: bytes, edits: list[tuple[int, int, str]], victim_first: bool
) -> None:
    data = bytearray(base)
    for at, byte, what in edits:
        place = at % (len(data) + 1)
        if what == "x" and place < len(data):
            data[place] ^= byte
        elif what == "i":
            data[place:place] = bytes([byte])
        elif what == "d":
            del data[place : place + 1 + byte % 4]
        elif what == "c":
            del data[place:]
    hostile = bytes(data)
    try:
        check_update(hostile, ME, Role.FIELD, max_bytes=LIMIT)
    except BadUpdate:
        return
    victim = Replica(1)
    if victim_first:
        victim.create({"status": "victim"})
    before = {write for writes in victim.doc.writes().values() for write in writes}
    doc = victim.doc
    doc.apply(hostile)
    after = {write for writes in doc.writes().values() for write in writes}
    assert all(write.author == ME for write in after - before)
    assert set(doc.arrays()) <= {ME, victim.author}
    RecordDocument(doc.state()).writes()
    if doc.arrays():
        victim.attempt("set", {"status": "goes on"})


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_noise_is_refused_or_harmless(noise: bytes) -> None:
    try:
        parse_update(noise)
    except BadUpdate:
        return
    doc: Doc[Any] = Doc(client_id=3)
    doc.apply_update(noise)


def test_every_truncation_is_refused() -> None:
    for update in SAMPLES:
        for length in range(len(update)):
            with pytest.raises(BadUpdate):
                check_update(update[:length], ME, Role.FIELD, max_bytes=LIMIT)


def test_reading_from_bytes_agrees_with_the_bindings() -> None:
    """The document reads its writes from its own update; pycrdt must see the same arrays."""
    for replica in busy_replicas(4, 80, 11):
        theirs: Doc[Any] = Doc(client_id=9)
        theirs.apply_update(replica.doc.state())
        seen = {
            name: [bytes(value) for value in theirs.get(name, type=pycrdt.Array).to_py() or []]
            for name in list(theirs.keys())
        }
        mine: dict[str, list[bytes]] = {name: [] for name in seen}
        by_author: dict[Author, list[Write]] = {}
        for writes in replica.doc.writes().values():
            for write in writes:
                by_author.setdefault(write.author, []).append(write)
        for author, written in by_author.items():
            mine[author.array_name] = [write.encode() for write in sorted(written, key=lambda w: w.hlc)]
        assert mine == seen
