"""Taking a part out of an update: what an author added from some clock on, or everything that was added.

Needed when two lives of a store have added different values at the same clocks of one author. Such values
never merge, so one of the two has to be taken out and written anew by another author.

The result is an update of the same form (see `update_format`), not the same bytes: a run of values is
written as one struct. What `parse_update` gave is left as it is: others may have the same.
"""

from __future__ import annotations

from collections.abc import Container
from typing import Final

from crdt_sync.records.update_format import Blocks, ParsedUpdate, parse_update
from crdt_sync.records.update_writing import ANY, BUFFER, ORIGIN, number, root_name

Deletes = dict[int, list[tuple[int, int]]]
"""Per client, (start, end) pairs of clocks, end excluded."""

_DELETED: Final = 1
_SKIP: Final = 10


def without_tail(update: bytes, client: int, clock: int) -> bytes:
    """`update` without what `client` added from `clock` on, and without the deletions of that."""
    parsed, kept = parse_update(update), ParsedUpdate()
    for blocks in parsed.blocks:
        before = blocks if blocks.client != client else blocks.before(clock)
        if before is not None:
            kept.blocks.append(before)
    kept.deletes = _without(parsed.deletes, client, clock)
    return _encode(kept)


def deletes_only(update: bytes) -> bytes:
    """What `update` deletes, without what it adds."""
    parsed, kept = parse_update(update), ParsedUpdate()
    kept.deletes = parsed.deletes
    for blocks in parsed.blocks:
        kept.deletes = _without(kept.deletes, blocks.client, blocks.start)
    return _encode(kept)


def deletes_of(update: bytes, clients: Container[int]) -> bytes:
    """What `update` deletes of these clients' values, its own among them, without what it adds."""
    parsed, kept = parse_update(update), ParsedUpdate()
    kept.deletes = {client: ranges for client, ranges in parsed.deletes.items() if client in clients}
    return _encode(kept)


def _without(deletes: Deletes, client: int, clock: int) -> Deletes:
    """Without deletions of what `client` added from `clock` on."""
    kept = {each: ranges for each, ranges in deletes.items() if each != client}
    ranges = [(start, min(end, clock)) for start, end in deletes.get(client, ()) if start < clock]
    if ranges:
        kept[client] = ranges
    return kept


def _encode(parsed: ParsedUpdate) -> bytes:
    out = bytearray(number(len(parsed.blocks)))
    for blocks in sorted(parsed.blocks, key=lambda blocks: blocks.client, reverse=True):
        structs = _structs(blocks)
        out += number(len(structs)) + number(blocks.client) + number(blocks.start) + b"".join(structs)
    out += number(len(parsed.deletes))
    for client in sorted(parsed.deletes, reverse=True):
        ranges = parsed.deletes[client]
        out += number(client) + number(len(ranges))
        for start, end in ranges:
            out += number(start) + number(end - start)
    return bytes(out)


def _structs(blocks: Blocks) -> list[bytes]:
    """The runs of values, of deleted values, and of gaps, in the order of clocks."""
    structs: list[bytes] = []
    skips = dict(blocks.skips)
    values = dict(blocks.items)
    clock = blocks.start
    while clock < blocks.end:
        first = clock
        if clock in skips:
            clock = skips[clock]
            structs.append(bytes([_SKIP]) + number(clock - first))
            continue
        has_value = clock in values
        while clock < blocks.end and clock not in skips and (clock in values) is has_value:
            clock += 1
        info, where = _place(blocks, first)
        if has_value:
            contents = b"".join(BUFFER + number(len(values[at])) + values[at] for at in range(first, clock))
            structs.append(bytes([info | ANY]) + where + number(clock - first) + contents)
        else:
            structs.append(bytes([info | _DELETED]) + where + number(clock - first))
    return structs


def _place(blocks: Blocks, clock: int) -> tuple[int, bytes]:
    """The flag and the bytes that say where a struct stands."""
    if clock:
        return ORIGIN, number(blocks.client) + number(clock - 1)
    return 0, root_name(blocks.name or "")
