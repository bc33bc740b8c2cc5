"""The bytes of a record's update: a strict, bounded reader of the part of Yjs update v1 that records use.

    update  := count { blocks } delete-set
    blocks  := count client clock { struct }          one group per client, structs in clock order
    struct  := 0x08 0x01 name any | 0x88 origin any   written values   (0x03, 0x83: one plain binary)
             | 0x01 0x01 name len | 0x81 origin len   a run of deleted values
             | 0x0a len                               skip: a gap that another update fills
    any     := count { 0x74 length bytes }
    delete-set := count { client count { clock length } }

All numbers are unsigned LEB128, in their shortest form. In Yjs v1 much more is possible; a record never
needs it, because authors only ever append to their own array:

- the first value of a client (clock 0) has no origin and names its array; every later one has the value
  just before it (same client, clock - 1) as its origin, and never a right origin;
- so the order in an array is the order of clocks, and a client's values cannot stand anywhere else.

Everything else is refused. That is what makes authorship structural, and it is also why a document's
visible writes can be read from its update alone (seven times faster than through the bindings). Never
use pycrdt's own `Decoder` on bytes from a peer: it accepts truncated input.

Sources: `src/utils/UpdateEncoder.js` and `src/structs/Item.js` of Yjs, `update.rs` and `block.rs` of yrs.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from crdt_sync.errors import BadUpdate

MAX_CLOCK: Final = 2**31 - 1
"""yrs keeps clocks in 32 bits; half of that is beyond any record and can never overflow."""
MAX_CLIENT: Final = 2**53 - 1
NAME_LENGTH: Final = 27
"""Characters in the name of an author's array, see `ids.Author`."""

_ORIGIN: Final = 0x80
_ANY: Final = 8
_BINARY: Final = 3
_DELETED: Final = 1
_SKIP: Final = 10
_ROOT_NAME: Final = 1
_BUFFER: Final = 0x74

_BEYOND: Final = "the update has a clock beyond what a record can reach"


class Blocks:
    """What an update has of one client. `items` are (clock, bytes) pairs in clock order.

    `skips` are (start, end) pairs of clocks that another update fills; other clocks without an item are
    of values that were deleted.
    """

    __slots__ = ("client", "client_bytes", "end", "items", "name", "skips", "start")

    def __init__(self, client: int, client_bytes: bytes, start: int) -> None:
        self.client = client
        self.client_bytes = client_bytes
        """The client as it stands in the update. Numbers are in shortest form: equal bytes, equal clients."""
        self.start = start
        self.end = start
        self.name: str | None = None
        self.items: list[tuple[int, bytes]] = []
        self.skips: list[tuple[int, int]] = []

    def before(self, clock: int) -> Blocks | None:
        """What there is of this before `clock`; None when there is nothing. The whole is left as it is."""
        if self.end <= clock:
            return self
        if self.start >= clock:
            return None
        head = Blocks(self.client, self.client_bytes, self.start)
        head.name, head.end = self.name, clock
        head.items = [item for item in self.items if item[0] < clock]
        head.skips = [(start, min(end, clock)) for start, end in self.skips if start < clock]
        return head


class ParsedUpdate:
    """An update taken apart. `deletes` are, per client, (start, end) pairs of clocks, end excluded."""

    __slots__ = ("blocks", "deletes")

    def __init__(self) -> None:
        self.blocks: list[Blocks] = []
        self.deletes: dict[int, list[tuple[int, int]]] = {}

    def visible(self, blocks: Blocks) -> list[tuple[int, bytes]]:
        """The items of one client that the update does not delete itself."""
        ranges = self.deletes.get(blocks.client)
        if not ranges:
            return blocks.items
        gone = set(indexes_within([clock for clock, _ in blocks.items], ranges))
        if not gone:
            return blocks.items
        return [item for index, item in enumerate(blocks.items) if index not in gone]

    def needs(self) -> Iterator[tuple[int, int]]:
        """(client, clock) pairs a document must reach before all of the update can show in it."""
        for blocks in self.blocks:
            yield blocks.client, blocks.end
        for client, ranges in self.deletes.items():
            for _, end in ranges:
                yield client, end


def indexes_within(clocks: Sequence[int], ranges: Iterable[tuple[int, int]]) -> list[int]:
    """Where the clocks within the (start, end) ranges stand, from the last to the first."""
    found: set[int] = set()
    for start, end in ranges:
        first = bisect_left(clocks, start)
        if first < len(clocks) and clocks[first] < end:
            found.update(range(first, bisect_left(clocks, end, first)))
    return sorted(found, reverse=True)


def parse_update(update: bytes) -> ParsedUpdate:
    """Take an update apart; raises BadUpdate for anything but the form above."""
    parsed = ParsedUpdate()
    try:
        at = _read_blocks(update, parsed)
        at = _read_deletes(update, at, parsed)
    except IndexError:
        raise BadUpdate("the update is cut short") from None
    if at != len(update):
        raise BadUpdate(f"the update has {len(update) - at} bytes after its end")
    return parsed


def _read_blocks(data: bytes, parsed: ParsedUpdate) -> int:
    groups, at = _number(data, 0)
    seen: set[int] = set()
    for _ in range(groups):
        structs, client_at = _number(data, at)
        client, client_end = _number(data, client_at)
        clock, at = _number(data, client_end)
        if client in seen:
            raise BadUpdate("the update has two groups of one client")
        if not structs:
            raise BadUpdate("the update has a group without content")
        seen.add(client)
        if clock > MAX_CLOCK:
            raise BadUpdate(_BEYOND)
        blocks = Blocks(client, data[client_at:client_end], clock)
        parsed.blocks.append(blocks)
        for _ in range(structs):
            at = _read_struct(data, at, blocks)
    return at


def _read_struct(data: bytes, at: int, blocks: Blocks) -> int:
    """Read one struct, which begins at clock `blocks.end`, and move that on."""
    clock = blocks.end
    info = data[at]
    at += 1
    if info == _SKIP:
        length, at = _number(data, at)
        blocks.skips.append((clock, clock + length))
    else:
        if info & _ORIGIN:
            if not data.startswith(blocks.client_bytes, at):
                raise BadUpdate("the update inserts elsewhere than at the end of its author's array")
            before, at = _number(data, at + len(blocks.client_bytes))
            if before != clock - 1:
                raise BadUpdate("the update inserts elsewhere than at the end of its author's array")
        else:
            name_length = data[at + 1]
            if data[at] != _ROOT_NAME or name_length != NAME_LENGTH or clock != 0:
                raise BadUpdate("the update inserts elsewhere than at the end of its author's array")
            blocks.name = _name(data, at + 2)
            at += 2 + NAME_LENGTH
        content = info & ~_ORIGIN
        if content == _ANY:
            length, at = _read_values(data, at, blocks)
        elif content == _DELETED:
            length, at = _number(data, at)
        elif content == _BINARY:
            raw, at = _bytes(data, at)
            blocks.items.append((clock, raw))
            length = 1
        else:
            raise BadUpdate(f"the update has content of a kind records do not use (0x{info:02x})")
    if not length:
        raise BadUpdate("the update has a struct without content")
    if clock + length > MAX_CLOCK:
        raise BadUpdate(_BEYOND)
    blocks.end = clock + length
    return at


def _read_values(data: bytes, at: int, blocks: Blocks) -> tuple[int, int]:
    count, at = _number(data, at)
    clock = blocks.end
    append = blocks.items.append
    size = len(data)
    for index in range(count):
        if data[at] != _BUFFER:
            raise BadUpdate("the update has a value that is not binary")
        length = data[at + 1]
        at += 2
        if length >= 0x80:
            length, at = _number(data, at - 1)
        end = at + length
        if end > size:
            raise BadUpdate("the update is cut short")
        append((clock + index, data[at:end]))
        at = end
    return count, at


def _read_deletes(data: bytes, at: int, parsed: ParsedUpdate) -> int:
    clients, at = _number(data, at)
    for _ in range(clients):
        client, at = _number(data, at)
        count, at = _number(data, at)
        if client in parsed.deletes:
            raise BadUpdate("the update has two delete sets of one client")
        ranges: list[tuple[int, int]] = []
        for _ in range(count):
            clock, length = data[at], data[at + 1]
            at += 2
            if clock >= 0x80 or length >= 0x80:  # else each is a number of one byte
                clock, at = _number(data, at - 2)
                length, at = _number(data, at)
            if not length:
                raise BadUpdate("the update deletes nothing at a place")
            if clock + length > MAX_CLOCK:
                raise BadUpdate(_BEYOND)
            ranges.append((clock, clock + length))
        if not ranges:
            raise BadUpdate("the update has an empty delete set")
        parsed.deletes[client] = ranges
    return at


def _number(data: bytes, at: int) -> tuple[int, int]:
    """An unsigned LEB128 number of at most 53 bits in its shortest form, and where it ends."""
    byte = data[at]
    at += 1
    if byte < 0x80:
        return byte, at
    number = byte & 0x7F
    shift = 7
    while True:
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
        shift += 7
        if shift > 49:
            raise BadUpdate("the update has a number that is too large")
    if not byte:
        raise BadUpdate("the update has a number that is not in its shortest form")
    if number > MAX_CLIENT:
        raise BadUpdate("the update has a number that is too large")
    return number, at


def _bytes(data: bytes, at: int) -> tuple[bytes, int]:
    length, at = _number(data, at)
    if at + length > len(data):
        raise BadUpdate("the update is cut short")
    return data[at : at + length], at + length


def _name(data: bytes, at: int) -> str:
    raw = data[at : at + NAME_LENGTH]
    if len(raw) < NAME_LENGTH:
        raise BadUpdate("the update is cut short")
    try:
        return raw.decode("ascii")
    except UnicodeDecodeError:
        raise BadUpdate("the update names an array that is no author's") from None
