"""The bytes of the update that an edit makes, in the form that `update_format` reads.

Records use so little of what updates can say that an edit's update follows from the edit: what it adds stands
at the end of its author's array, what it removes are places of values. Writing it and applying it costs half
of editing through the bindings and asking them what the edit came to, and gives the same document.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Final

from crdt_sync.ids import Author

ANY: Final = 8
ORIGIN: Final = 0x80
ROOT_NAME: Final = b"\x01"
BUFFER: Final = b"\x74"

_NOTHING_ADDED: Final = b"\x00"
_ONE_STRUCT: Final = b"\x01\x01"
"""One group of blocks, with one struct in it: a run of values."""


def edit_update(
    author: Author, clock: int, added: Sequence[bytes], deleted: Mapping[int, Sequence[int]]
) -> bytes:
    """The update that appends `added` to the author's array, where its next clock is `clock`.

    `deleted` names values that it removes: per client their clocks, in order.
    """
    out = bytearray()
    if added:
        client = _client(author.client_id)
        out += _ONE_STRUCT + client + number(clock)
        if clock:
            out += bytes((ORIGIN | ANY,)) + client + number(clock - 1)
        else:
            out += bytes((ANY,)) + root_name(author.array_name)
        out += number(len(added))
        for raw in added:
            out += BUFFER + number(len(raw)) + raw
    else:
        out += _NOTHING_ADDED
    out += number(len(deleted))
    for client_id in sorted(deleted, reverse=True):
        ranges = _ranges(deleted[client_id])
        out += _client(client_id) + number(len(ranges))
        for first, length in ranges:
            out += number(first) + number(length)
    return bytes(out)


def root_name(name: str) -> bytes:
    """Where the first value of an array stands: under the array's name."""
    return ROOT_NAME + number(len(name)) + name.encode("ascii")


def number(value: int) -> bytes:
    """Unsigned LEB128."""
    if value < 0x80:
        return bytes((value,))
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


@lru_cache(maxsize=4_096)
def _client(client_id: int) -> bytes:
    """Eight bytes, and written several times in every update."""
    return number(client_id)


def _ranges(clocks: Sequence[int]) -> list[tuple[int, int]]:
    """(first, length) of the runs in clocks that are in order."""
    ranges: list[tuple[int, int]] = []
    for clock in clocks:
        if ranges and sum(ranges[-1]) == clock:
            ranges[-1] = (ranges[-1][0], ranges[-1][1] + 1)
        else:
            ranges.append((clock, 1))
    return ranges
