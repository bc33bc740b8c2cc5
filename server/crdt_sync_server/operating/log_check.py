"""Whether what a relay stores is whole: every row of every log read again and held against what it must be.

What it looks for in each space:

- entries of the membership log that do not follow each other, or are not signed as they must be;
- envelopes that cannot be parsed, are of another space, or are not signed by the member they name;
- two neighbours in an author's chain that do not link (what snapshots have pruned leaves gaps, as it should);
- a chain that is known to end before its last row, or in another envelope.

It goes page by page, so that a running relay can do it between its commits.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from crdt_sync.crypto.envelope import Envelope, Kind, parse
from crdt_sync.errors import CrdtSyncError
from crdt_sync.ids import Author
from crdt_sync.membership.log import MembershipLog
from crdt_sync.protocol.frames import Row, RowKind
from crdt_sync.protocol.limits import MAX_ENVELOPE_BYTES
from crdt_sync_server.storage.port import SpaceEntry, Storage

PAGE_ROWS: Final = 128
"""Some 10 ms of signatures, for which commits wait."""
PAGE_BYTES: Final = 2 * 1024 * 1024
MAX_FINDINGS: Final = 1000


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it must be. `row` is None when it is about the space as a whole."""

    space: str
    row: int | None
    problem: str

    def to_json(self) -> dict[str, Any]:
        return {"space": self.space, "row": self.row, "problem": self.problem}


class LogCheck:
    """See the module. Call `step`, on the storage's thread, until it gives False."""

    def __init__(self, storage: Storage) -> None:
        self.findings: list[Finding] = []
        self.spaces = 0
        self.rows = 0
        self._storage = storage
        self._steps = self._all()

    def step(self) -> bool:
        """Look at one page more; False when that was all."""
        return next(self._steps, False)

    def run(self) -> None:
        """All of it."""
        while self.step():
            pass

    def _all(self) -> Iterator[bool]:
        for entry in self._storage.spaces():
            self.spaces += 1
            try:
                yield from self._space(entry)
            except Exception as exc:  # whatever the storage meets in a damaged file
                self._found(entry, None, f"rows cannot be read: {type(exc).__name__}: {exc}")

    def _found(self, space: SpaceEntry, row: int | None, problem: str) -> None:
        if len(self.findings) < MAX_FINDINGS:
            self.findings.append(Finding(space.id.hex(), row, problem))

    def _space(self, space: SpaceEntry) -> Iterator[bool]:
        members = MembershipLog()
        chains: dict[Author, tuple[int, bytes]] = {}
        cursor = 0
        while True:
            page = self._storage.read(space.key, cursor, max_rows=PAGE_ROWS, max_bytes=PAGE_BYTES)
            for row in page.rows:
                self.rows += 1
                problem = self._problem(space, row, members, chains)
                if problem:
                    self._found(space, row.sequence, problem)
            cursor = page.cursor
            yield True
            if page.at_end:
                break
        for author, (sequence, digest) in chains.items():
            known = self._storage.author(space.key, author)
            chain = f"the chain of device {author.device.hex()[:8]}"
            if known is None or known[1].sequence < sequence:
                self._found(space, None, f"{chain} ends before its rows do")
            elif known[1].sequence == sequence and known[1].hash != digest:
                self._found(space, None, f"{chain} ends in another envelope")
        yield True

    def _problem(
        self, space: SpaceEntry, row: Row, members: MembershipLog, chains: dict[Author, tuple[int, bytes]]
    ) -> str:
        try:
            if row.kind is RowKind.MEMBERSHIP:
                members.apply(row.payload)
                return "" if members.space_id == space.id else "an entry of another space"
            if row.kind not in (RowKind.UPDATE, RowKind.SNAPSHOT):
                return ""
            envelope = parse(row.payload, max_bytes=MAX_ENVELOPE_BYTES)
            return _envelope_problem(space, row, envelope, members) or _link_problem(envelope, chains)
        except CrdtSyncError as exc:
            return f"{exc.code}: {exc.message}"


def _envelope_problem(space: SpaceEntry, row: Row, envelope: Envelope, members: MembershipLog) -> str:
    header = envelope.header
    if header.space != space.id:
        return "an envelope of another space"
    expected = Kind.UPDATE if row.kind is RowKind.UPDATE else Kind.SNAPSHOT
    if header.kind is not expected:
        return f"an envelope of kind {header.kind.name.lower()} in a row of kind {row.kind.name.lower()}"
    member = members.members.get(header.device)
    if member is not None:
        envelope.verify(member.sign)
    return ""


def _link_problem(envelope: Envelope, chains: dict[Author, tuple[int, bytes]]) -> str:
    header = envelope.header
    if header.kind is not Kind.UPDATE:
        return ""
    before = chains.get(header.author)
    chains[header.author] = header.sequence, hashlib.sha256(envelope.raw).digest()
    if before is None:
        return ""
    sequence, digest = before
    if header.sequence <= sequence:
        return f"update {header.sequence} stands behind update {sequence} of the same chain"
    if header.sequence == sequence + 1 and header.prev != digest:
        return f"update {header.sequence} does not follow the update before it"
    return ""
