"""What a peer may put into a record: checked before pycrdt sees a byte of it.

An update sealed by a device may insert into that device's array and nowhere else, and every value it
inserts must be a write in that device's role. It may delete any write: whoever overwrites a field
removes what stood there. A snapshot may hold many authors; each must be a known device, and each
author's items must carry the client id that belongs to it.

What this cannot know: whether a deletion was meant to go with a write, whether a write breaks a schema
(merging never refuses for that), and, in a snapshot, whether what is said to be another author's write
really is (its envelopes say so, and the snapshot is checked against them elsewhere).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from crdt_sync.errors import BadUpdate
from crdt_sync.hlc import Hlc
from crdt_sync.ids import Author
from crdt_sync.records.update_format import Blocks, ParsedUpdate, parse_update
from crdt_sync.records.writes import Write, check_write
from crdt_sync.roles import Role

MAX_UPDATE_BYTES: Final = 8 * 1024 * 1024
"""Several of the largest values (1 MiB) in one coalesced update."""


class CheckedUpdate(NamedTuple):
    """An update that passed, taken apart: whoever applies it need not read its bytes again.

    `writes` are, per client, its values by clock. `latest` is the latest time among them, 0 for none.
    """

    parsed: ParsedUpdate
    writes: Mapping[int, Mapping[int, Write]]
    latest: Hlc

    @property
    def inserted(self) -> int:
        """How many values it has."""
        return sum(len(writes) for writes in self.writes.values())

    @property
    def deleted(self) -> int:
        """How many values it deletes, counting those that it has itself."""
        return sum(end - start for ranges in self.parsed.deletes.values() for start, end in ranges)


def check_update(
    update: bytes, author: Author, role: Role, *, max_bytes: int = MAX_UPDATE_BYTES
) -> CheckedUpdate:
    """Check an update that `author` sealed in `role`. Raises BadUpdate, with what is wrong."""
    if len(update) > max_bytes:
        raise BadUpdate(f"the update has {len(update):,} bytes; {max_bytes:,} are the most")
    if not role.may_write:
        raise BadUpdate(f"the update is by a device with role {role.text}, which may not write")
    parsed = parse_update(update)
    writes: dict[int, Mapping[int, Write]] = {}
    latest = 0
    for blocks in parsed.blocks:
        if blocks.client != author.client_id:
            raise BadUpdate("the update inserts under a client id that is not its author's")
        if blocks.name is not None and blocks.name != author.array_name:
            raise BadUpdate("the update inserts into an array that is not its author's")
        writes[blocks.client], latest = _check_items(blocks, author, role)
    return CheckedUpdate(parsed, writes, Hlc(latest))


def check_snapshot(
    state: bytes, role_of: Callable[[Author], Role | None], *, max_bytes: int = MAX_UPDATE_BYTES
) -> CheckedUpdate:
    """Check a whole document. `role_of` gives the role of a known author, else None. Raises BadUpdate."""
    if len(state) > max_bytes:
        raise BadUpdate(f"the snapshot has {len(state):,} bytes; {max_bytes:,} are the most")
    parsed = parse_update(state)
    writes: dict[int, Mapping[int, Write]] = {}
    latest = 0
    for blocks in parsed.blocks:
        author = _author_of(blocks)
        role = role_of(author)
        if role is None:
            raise BadUpdate("the snapshot has writes of a device that is not a member")
        writes[blocks.client], last = _check_items(blocks, author, role)
        latest = max(latest, last)
    return CheckedUpdate(parsed, writes, Hlc(latest))


def _author_of(blocks: Blocks) -> Author:
    """The author whose array a snapshot's group fills; a whole document has it from its first clock on."""
    if blocks.name is None or blocks.skips:
        raise BadUpdate("the snapshot is not whole: an author's first writes are missing")
    try:
        author = Author.from_array_name(blocks.name)
    except ValueError:
        raise BadUpdate("the snapshot names an array that is no author's") from None
    if author.client_id != blocks.client:
        raise BadUpdate("the snapshot has an array under a client id that is not its author's")
    return author


def _check_items(blocks: Blocks, author: Author, role: Role) -> tuple[dict[int, Write], int]:
    """Check every value of one author; returns them and the latest time. Times must grow with the clock."""
    writes: dict[int, Write] = {}
    before = 0
    for clock, raw in blocks.items:
        try:
            write = writes[clock] = check_write(raw, author)
        except ValueError as exc:
            raise BadUpdate(f"value {clock} of the update is not a write: {exc}") from None
        if write.role is not role:
            raise BadUpdate(f"a write claims the role {write.role.text}; its author is {role.text}")
        if write.hlc <= before:
            raise BadUpdate("the times of an author's writes do not grow")
        before = write.hlc
    return writes, before
