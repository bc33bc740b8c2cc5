"""The state of one text: a strict, bounded reader of the part of Yjs update v1 that texts use.

    update  := count { group } delete-set
    group   := count client 0 { struct }              one per client, from its first clock on
    struct  := info [origin] [right origin] [parent] content
    content := 0x04 string | 0x01 length              typed, or typed and deleted since
             | 0x00 length                            a run that was forgotten altogether
    parent  := 0x01 "text"                            only where there is neither origin
    delete-set := count { client count { clock length } }

A state stands in a write, so a hostile member can put any bytes there; the bindings see only what came
through here. A state is whole: nothing it refers to is missing from it, and its structs can be put in
order. What is refused counts as no text.

Sources: `src/utils/UpdateEncoder.js` and `src/structs/Item.js` of Yjs, `update.rs` and `block.rs` of yrs.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import Final, NamedTuple, TypeAlias

MAX_STATE_BYTES: Final = 1024 * 1024
"""As long as any value may be, see `schemas.values`."""
ROOT: Final = "text"
"""Name of the one shared type in a text's document."""

_ORIGIN: Final = 0x80
_RIGHT_ORIGIN: Final = 0x40
_CONTENT: Final = 0x3F
_STRING: Final = 4
_DELETED: Final = 1
_FORGOTTEN: Final = 0
_PARENT: Final = bytes((1, len(ROOT))) + ROOT.encode()
_MAX_CLOCK: Final = 2**31 - 1

_Id: TypeAlias = tuple[int, int]
"""Client and clock (in a heap of who waits: clock and client)."""


class _Struct(NamedTuple):
    end: int
    needs: tuple[_Id, ...]


def check_state(state: bytes) -> None:
    """Raises ValueError for anything but a whole text in the form above."""
    if len(state) > MAX_STATE_BYTES:
        raise ValueError("the text is too large")
    try:
        groups, at = _groups(state)
        ends = {client: structs[-1].end for client, structs in groups.items()}
        at = _delete_set(state, at, ends)
    except IndexError:
        raise ValueError("the text is cut short") from None
    if at != len(state):
        raise ValueError("the text has bytes after its end")
    _check_order(groups)


def _groups(data: bytes) -> tuple[dict[int, list[_Struct]], int]:
    groups: dict[int, list[_Struct]] = {}
    count, at = _number(data, 0)
    for _ in range(count):
        size, at = _number(data, at)
        client, at = _number(data, at)
        clock, at = _number(data, at)
        if client in groups or clock or not size:
            raise ValueError("the text has a group that does not begin at the beginning")
        structs: list[_Struct] = []
        for _ in range(size):
            struct, at = _struct(data, at, clock)
            structs.append(struct)
            clock = struct.end
        groups[client] = structs
    return groups, at


def _struct(data: bytes, at: int, clock: int) -> tuple[_Struct, int]:
    info = data[at]
    at += 1
    needs: list[_Id] = []
    content = info & _CONTENT
    if info == _FORGOTTEN:
        length, at = _number(data, at)
    else:
        for flag in (_ORIGIN, _RIGHT_ORIGIN):
            if info & flag:
                client, at = _number(data, at)
                place, at = _number(data, at)
                needs.append((client, place))
        if not needs:
            if data[at : at + len(_PARENT)] != _PARENT:
                raise ValueError("the text has a part that is elsewhere")
            at += len(_PARENT)
        if content == _DELETED:
            length, at = _number(data, at)
        elif content == _STRING:
            length, at = _string(data, at)
        else:
            raise ValueError("the text has content that is no text")
    if not length or clock + length > _MAX_CLOCK:
        raise ValueError("the text has a part of an impossible length")
    return _Struct(clock + length, tuple(needs)), at


def _string(data: bytes, at: int) -> tuple[int, int]:
    """How many clocks a string takes, which is its UTF-16 units, and where it ends."""
    size, at = _number(data, at)
    raw = data[at : at + size]
    if len(raw) < size:
        raise ValueError("the text is cut short")
    try:
        units = size if raw.isascii() else len(raw.decode().encode("utf-16-le")) // 2
    except UnicodeDecodeError:
        raise ValueError("the text is not UTF-8") from None
    return units, at + size


def _delete_set(data: bytes, at: int, ends: dict[int, int]) -> int:
    clients, at = _number(data, at)
    seen: set[int] = set()
    for _ in range(clients):
        client, at = _number(data, at)
        count, at = _number(data, at)
        if client in seen:
            raise ValueError("the text has two delete sets of one client")
        seen.add(client)
        for _ in range(count):
            clock, at = _number(data, at)
            length, at = _number(data, at)
            if not length or clock + length > ends.get(client, 0):
                raise ValueError("the text deletes what it does not have")
    return at


def _check_order(groups: dict[int, list[_Struct]]) -> None:
    """Whether every struct can follow all it refers to: what it cannot, the bindings would wait for."""
    done = dict.fromkeys(groups, 0)
    """Per client, the clock reached."""
    place = dict.fromkeys(groups, 0)
    """Per client, how many structs that are."""
    waiting: dict[int, list[_Id]] = {}
    """Per client, which other waits for which of its clocks; a heap."""
    ready = list(groups)
    while ready:
        client = ready.pop()
        structs = groups[client]
        while place[client] < len(structs):
            struct = structs[place[client]]
            missing = [need for need in struct.needs if need[1] >= done.get(need[0], 0)]
            if missing:
                other, clock = missing[0]
                if other not in groups or other == client:
                    raise ValueError("the text refers to what it does not have")
                heappush(waiting.setdefault(other, []), (clock, client))
                break
            done[client] = struct.end
            place[client] += 1
            patient = waiting.get(client, [])
            while patient and patient[0][0] < struct.end:
                ready.append(heappop(patient)[1])
    if any(place[client] < len(structs) for client, structs in groups.items()):
        raise ValueError("the text goes round in a circle")


def _number(data: bytes, at: int) -> tuple[int, int]:
    """An unsigned LEB128 number of at most 53 bits, and where it ends."""
    number = shift = 0
    while True:
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
        shift += 7
        if shift > 49:
            raise ValueError("the text has a number that is too large")
    if number >= 2**53:
        raise ValueError("the text has a number that is too large")
    return number, at
