"""A record document: the CRDT itself, with nothing decided.

One `Array` per author (device and incarnation), each holding that author's writes. To write a field is
to delete every visible write of its path, wherever it stands, and to append the new one to one's own
array. What is concurrent survives side by side; what was sequential never does. In its own array an
author's items are contiguous, so deleted runs merge and ten thousand overwrites stay a few hundred bytes.

A trap of the bindings that this module is built around: `Doc.get_update()` leaves out what is *pending*,
items whose predecessor, and deletions whose item, has not arrived yet. Storing only that would lose them. So
updates that do not show in full yet are held here, applied again with whatever comes, and are part of
`state()`. And a slow path that it avoids: an edit is not made through the bindings but written as the update
it is (`update_writing`), and applied like any other.

Updates are trusted here: `update_check` comes first.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Final

import pycrdt

from crdt_sync.ids import Author
from crdt_sync.records.plain_doc import PlainDoc
from crdt_sync.records.update_check import CheckedUpdate
from crdt_sync.records.update_format import Blocks, ParsedUpdate, indexes_within, parse_update
from crdt_sync.records.update_writing import edit_update
from crdt_sync.records.writes import DocWrites, Path, Write, read_write

_NO_WRITES: Final[DocWrites] = MappingProxyType({})

EMPTY_UPDATE: Final = b"\0\0"
"""The update that changes nothing."""

MAX_UNREAD: Final = 64
"""Updates taken in before they are looked at; the only use of waiting is to look at several at once."""


class _Lane:
    """The visible writes of one author, and the clocks they stand at, in array order."""

    __slots__ = ("author", "clocks", "end", "writes")

    def __init__(self, author: Author) -> None:
        self.author = author
        self.clocks: list[int] = []
        self.writes: list[Write] = []
        self.end = 0

    def by_clock(self) -> dict[int, Write]:
        return dict(zip(self.clocks, self.writes, strict=True))


class RecordDocument:
    """One record. Belongs to the thread it was made in."""

    __slots__ = (
        "_ahead",
        "_author",
        "_by_path",
        "_content_hash",
        "_doc",
        "_fresh",
        "_held",
        "_lanes",
        "_touched",
        "_unread",
        "_writes",
    )

    def __init__(
        self,
        state: bytes | None = None,
        *,
        author: Author | None = None,
        checked: CheckedUpdate | None = None,
    ) -> None:
        """`state` is what `state()` gave; without `author` the document cannot be edited.

        `checked` is what a check of `state` gave, where there was one.
        """
        self._author = author
        self._doc: PlainDoc | None = None
        """The document in the bindings, once it was needed."""
        self._ahead: list[bytes] = []
        """Updates that the lanes show and `_doc` has not taken in yet: many a record is only ever read."""
        self._lanes: dict[int, _Lane] = {}
        """By client id."""
        self._by_path: dict[Path, tuple[Write, ...]] | None = None
        self._writes: DocWrites = _NO_WRITES
        """What `writes` gave last, a view of `_by_path`."""
        self._fresh = True
        """Whether `_lanes` shows what the document holds."""
        self._unread: list[tuple[bytes, CheckedUpdate | None]] = []
        """Updates taken in since `_lanes` was read, and what their check gave."""
        self._held: list[bytes] = []
        """Updates that do not show in full yet."""
        self._content_hash: bytes | None = None
        """What `content_hash` gave; None since the last change."""
        self._touched: set[str] | None = None
        """First path elements of writes that came or went since they were last taken; None: all."""
        if state is not None:
            self.apply(state, checked)

    def apply(self, update: bytes, checked: CheckedUpdate | None = None) -> bool:
        """Take in a checked update. Again, or before what it builds on, is harmless.

        With `checked`, what the check gave, the update is not read a second time. False when all of it was
        here before: then nothing has changed, and `state()` is what it was.
        """
        if self._fresh and not self._held:
            news = self._take_in(update, checked)
            if news is not None:
                return news
        self._queue(update)
        self._ahead += self._held
        self._unread.append((update, checked))
        self._fresh = False
        self._by_path = None
        if len(self._unread) >= MAX_UNREAD:
            self._read()
        return True

    def _queue(self, update: bytes) -> None:
        self._ahead.append(update)
        self._content_hash = None
        if len(self._ahead) > MAX_UNREAD:
            self._whole()

    def _whole(self) -> PlainDoc:
        """The document in the bindings, with all that was taken in."""
        if self._doc is None:
            self._doc = PlainDoc()
        for update in self._ahead:
            self._doc.apply_update(update)
        self._ahead.clear()
        return self._doc

    def writes(self) -> DocWrites:
        """The visible writes per path, each in canonical order. The same mapping until a change."""
        if self._by_path is None:
            by_path: dict[Path, tuple[Write, ...]] = {}
            for lane in self._in_order():
                for write in lane.writes:
                    others = by_path.get(write.path)
                    by_path[write.path] = (write,) if others is None else (*others, write)
            self._keep(by_path)
        return self._writes

    def _keep(self, by_path: dict[Path, tuple[Write, ...]]) -> None:
        self._by_path = by_path
        self._writes = MappingProxyType(by_path)

    def take_touched(self) -> frozenset[str] | None:
        """The top-level names under which visible writes changed since the last call; None is all.

        Whoever keeps a view of the record needs to look at nothing else again.
        """
        self._read()
        touched, self._touched = self._touched, set()
        return None if touched is None else frozenset(touched)

    def edit(self, *, remove: Iterable[Write], add: Sequence[Write]) -> bytes:
        """Remove visible writes and append own ones, in one transaction; returns the update to send.

        Raises ValueError for a write to remove that is not visible, for one to add that is not by this
        document's author, or not later than the author's last, and without an author.
        """
        author = self._author
        lanes = self._read()
        places = self._places(lanes, remove)
        raws = [write.encode() for write in add]
        own = None if author is None else lanes.get(author.client_id)
        if add:
            before = own.writes[-1].hlc if own is not None and own.writes else 0
            for write in add:
                if write.author != author or write.hlc <= before:
                    raise ValueError("a write to add must be by the document's author, later than its last")
                before = write.hlc
        if not places and not raws:
            return EMPTY_UPDATE
        if author is None:
            raise ValueError("a document opened without an author cannot be edited")
        deleted = {
            lane.author.client_id: [lane.clocks[index] for index in reversed(indexes)]
            for lane, indexes in places
        }
        update = edit_update(author, 0 if own is None else own.end, raws, deleted)
        self._queue(update)
        self._note_edit(places, add)
        return update

    def state(self) -> bytes:
        """The whole document as one update, with what is still pending in it."""
        self._read()
        state = self._whole().get_update()
        return merge_updates([state, *self._held]) if self._held else state

    def shown_state(self) -> bytes:
        """The whole document as one update, without what is pending in it."""
        self._read()
        return self._whole().get_update()

    def content_hash(self) -> bytes:
        """32 bytes, equal on all devices that show the same writes of the same authors."""
        if self._content_hash is None:
            parts = [b"crdt-sync/content/v1"]
            for lane in self._in_order():
                if lane.writes:
                    parts.append(lane.author.array_name.encode())
                for write in lane.writes:
                    raw = write.encode()
                    parts += (len(raw).to_bytes(4, "big"), raw)
            self._content_hash = hashlib.sha256(b"".join(parts)).digest()
        return self._content_hash

    def arrays(self) -> list[Author]:
        """The authors that have visible writes, in order."""
        return [lane.author for lane in self._in_order() if lane.writes]

    def placed(self, author: Author) -> list[tuple[int, Write]]:
        """That author's visible writes, each with its clock, which is its place in the author's array."""
        lane = self._read().get(author.client_id)
        return [] if lane is None else list(zip(lane.clocks, lane.writes, strict=True))

    def end(self, author: Author) -> int:
        """How much that author has written here, visible or not: the clock of its next write."""
        lane = self._read().get(author.client_id)
        return 0 if lane is None else lane.end

    @property
    def pending(self) -> bool:
        """Whether something taken in cannot show yet, because what it builds on is missing."""
        self._read()
        return bool(self._held)

    def waits(self, update: ParsedUpdate) -> bool:
        """Whether something of that update, which was taken in, cannot show yet."""
        lanes = self._read()
        return any(client not in lanes or lanes[client].end < clock for client, clock in update.needs())

    def _in_order(self) -> list[_Lane]:
        """The lanes in the order of their authors."""
        return sorted(self._read().values(), key=lambda lane: lane.author)

    def _read(self) -> dict[int, _Lane]:
        """The lanes, read anew when the document changed. Writes once decoded are not decoded again."""
        if not self._fresh:
            parsed = parse_update(self._whole().get_update())
            before, self._lanes = self._lanes, {}
            for blocks in parsed.blocks:
                known = before.get(blocks.client)
                lane = self._lanes[blocks.client] = _Lane(Author.from_array_name(blocks.name or ""))
                lane.clocks, lane.writes = _visible(
                    parsed, blocks, lane.author, {} if known is None else known.by_clock()
                )
                lane.end = blocks.end
            self._fresh = True
            self._note_changes(before)
            self._release(parsed)
        return self._lanes

    def _note_changes(self, before: Mapping[int, _Lane]) -> None:
        """Which fields differ between the lanes as they were and as they are."""
        if self._touched is None:
            return
        for client in before.keys() | self._lanes.keys():
            old, new = before.get(client), self._lanes.get(client)
            if old is not None and new is not None and old.clocks == new.clocks:
                continue
            was = {} if old is None else old.by_clock()
            now = {} if new is None else new.by_clock()
            for clock in was.keys() ^ now.keys():
                write = was.get(clock) or now[clock]
                self._touched.add(write.path[0])

    def _release(self, state: ParsedUpdate) -> None:
        """Let go of the updates that show in full by now."""
        ends = {blocks.client: blocks.end for blocks in state.blocks}
        waiting = []
        for update, checked in (*((held, None) for held in self._held), *self._unread):
            parsed = parse_update(update) if checked is None else checked.parsed
            if any(ends.get(client, 0) < clock for client, clock in parsed.needs()):
                waiting.append(update)
        self._held = [merge_updates(waiting)] if len(waiting) > 1 else waiting
        self._unread.clear()

    def _places(self, lanes: Mapping[int, _Lane], remove: Iterable[Write]) -> list[tuple[_Lane, list[int]]]:
        """Where the writes to remove stand: per lane the indexes, from the last to the first."""
        indexes: dict[int, list[int]] = {}
        for write in remove:
            client = write.author.client_id
            lane = lanes.get(client)
            try:
                index = -1 if lane is None else lane.writes.index(write)
            except ValueError:
                index = -1
            if index < 0:
                raise ValueError("a write to remove is not visible in the document")
            indexes.setdefault(client, []).append(index)
        return [(lanes[client], sorted(set(found), reverse=True)) for client, found in indexes.items()]

    def _note_edit(self, places: list[tuple[_Lane, list[int]]], add: Sequence[Write]) -> None:
        """Bring the lanes to where the edit has brought the document, without reading it again."""
        author = self._author
        added: list[tuple[_Lane, list[int], Sequence[Write]]] = []
        if add and author is not None:
            lane = self._lanes.setdefault(author.client_id, _Lane(author))
            added.append((lane, list(range(lane.end, lane.end + len(add))), add))
            lane.end += len(add)
        self._move_lanes(places, added)

    def _take_in(self, update: bytes, checked: CheckedUpdate | None) -> bool | None:
        """Apply `update` and bring the lanes to where it brings the document, when nothing is missing for it.

        That is so for a whole document, for an edit that arrives in order, and for both when they come again:
        what is added begins where its author's lane ends or before, and what is deleted is there. Otherwise
        None, and nothing has changed. False when there is nothing to do, because all of it is there.
        """
        parsed = parse_update(update) if checked is None else checked.parsed
        lanes = self._lanes
        ends: dict[int, int] = {}
        news: list[Blocks] = []
        for blocks in parsed.blocks:
            lane = lanes.get(blocks.client)
            end = 0 if lane is None else lane.end
            if blocks.skips or blocks.start > end:
                return None
            if blocks.end > end:
                ends[blocks.client] = blocks.end
                news.append(blocks)
        places: list[tuple[_Lane, list[int]]] = []
        for client, ranges in parsed.deletes.items():
            lane = lanes.get(client)
            end = ends.get(client, 0 if lane is None else lane.end)
            for _, stop in ranges:
                if stop > end:
                    return None
            if lane is not None and (gone := indexes_within(lane.clocks, ranges)):
                places.append((lane, gone))
        if not news and not places:
            return False
        self._queue(update)
        added: list[tuple[_Lane, list[int], Sequence[Write]]] = []
        for blocks in news:
            lane = lanes.get(blocks.client)
            if lane is None:
                lane = lanes[blocks.client] = _Lane(Author.from_array_name(blocks.name or ""))
            decoded = {} if checked is None else checked.writes[blocks.client]
            added.append((lane, *_visible(parsed, blocks, lane.author, decoded, start=lane.end)))
            lane.end = blocks.end
        self._move_lanes(places, added)
        return True

    def _move_lanes(
        self,
        removed: list[tuple[_Lane, list[int]]],
        added: list[tuple[_Lane, list[int], Sequence[Write]]],
    ) -> None:
        """Take writes out of lanes (indexes from last to first) and put others at their ends."""
        by_path = None if self._by_path is None else self._by_path.copy()
        moved: list[Write] = []
        for lane, indexes in removed:
            for index in indexes:
                write = lane.writes[index]
                moved.append(write)
                del lane.writes[index], lane.clocks[index]
                if by_path is not None:
                    left = tuple([each for each in by_path[write.path] if each is not write])
                    by_path[write.path] = left
                    if not left:
                        del by_path[write.path]
        for lane, clocks, writes in added:
            lane.clocks += clocks
            lane.writes += writes
            moved += writes
            if by_path is not None:
                for write in writes:
                    beside = by_path.get(write.path)
                    by_path[write.path] = (
                        (write,) if beside is None else tuple(sorted((*beside, write), key=_canonical))
                    )
        if by_path is not None:
            self._keep(by_path)
        if self._touched is not None:
            self._touched.update([write.path[0] for write in moved])


def _visible(
    update: ParsedUpdate, blocks: Blocks, author: Author, decoded: Mapping[int, Write], *, start: int = 0
) -> tuple[list[int], list[Write]]:
    """What an update shows of one author from clock `start` on, and at which clocks.

    What is in `decoded` is not decoded again.
    """
    items = update.visible(blocks)
    if blocks.start < start:
        items = [item for item in items if item[0] >= start]
    clocks: list[int] = []
    writes: list[Write] = []
    for clock, raw in items:
        clocks.append(clock)
        writes.append(decoded[clock] if clock in decoded else read_write(raw, author))
    return clocks, writes


def _canonical(write: Write) -> tuple[Author, int]:
    return (write.author, write.hlc)


def merge_updates(updates: Sequence[bytes]) -> bytes:
    """One update with the content of all; their order does not matter, gaps between them may stay."""
    if len(updates) == 1:
        return updates[0]
    if not updates:
        return EMPTY_UPDATE
    merged: bytes = pycrdt.merge_updates(*updates)
    return merged
