"""How a rebuilt store goes on with the relay: what it fetches, and whether unsent work is looked through."""

from __future__ import annotations

from dataclasses import dataclass

from crdt_sync.ids import Author, Incarnation
from crdt_sync.records.document import EMPTY_UPDATE
from crdt_sync.records.update_cutting import deletes_of
from crdt_sync.records.update_format import parse_update
from crdt_sync_client.engine import absent, older_copy
from crdt_sync_client.engine.engine import Engine
from crdt_sync_client.engine.open_records import decode_heads, encode_heads
from crdt_sync_client.engine.record_types import TypeChange
from crdt_sync_client.engine.replica import Replica
from crdt_sync_client.engine.space import Space
from crdt_sync_client.store.salvage import Salvage

_INSERT_LAST = (
    "INSERT INTO outbox (no, space, record, incarnation, schema_version, change, at_ms, error)"
    " SELECT max(coalesce((SELECT max(no) FROM outbox), 0), 5 << 48) + 1, ?, ?, ?, 0, ?, ?, ?"
)


@dataclass(frozen=True, slots=True)
class Resuming:
    """`as_older_copy`: unsent work, or its place in the chain, may be lost. `all_work`: the former.

    `from_start`: the log of each space is received again.
    """

    as_older_copy: bool
    all_work: bool
    from_start: bool

    @classmethod
    def after(cls, salvage: Salvage) -> Resuming:
        """What the damage asks for."""
        all_work = salvage.lost("outbox", "sealed")
        as_older_copy = all_work or salvage.lost("chains", "held", "spaces", "meta")
        from_start = as_older_copy or salvage.lost("records", "membership", "quarantine", "waiting", "types")
        return cls(as_older_copy, all_work, from_start)

    def run(self, engine: Engine) -> None:
        """Bring an engine that has just opened the rebuilt store to where it can sync."""
        replica = engine._replica
        for space in list(replica.spaces.values()):
            self._fetch_lost_documents(replica, space)
            if self.as_older_copy:
                self._look_through_work(replica, space)
            if self.from_start:
                with replica.transaction(durable=True):
                    replica.db.execute("UPDATE spaces SET cursor = 0 WHERE no = ?", (space.no,))
                    space.cursor = 0
        replica.reload()
        _show_anew(engine, replica)

    def _fetch_lost_documents(self, replica: Replica, space: Space) -> None:
        rows = replica.db.rows(
            "SELECT no, opaque FROM records WHERE space = ? AND absent IS NULL"
            " AND no NOT IN (SELECT record FROM documents)",
            (space.no,),
        )
        if rows:
            with replica.transaction(durable=True):
                absent.leave(replica, space, rows, "damaged", wanted=True)

    def _look_through_work(self, replica: Replica, space: Space) -> None:
        incarnations = replica.db.rows(
            "SELECT incarnation FROM outbox WHERE space = ?1 UNION SELECT incarnation FROM sealed"
            " WHERE space = ?1",
            (space.no,),
        )
        for (incarnation,) in incarnations:
            older_copy.fork(replica, space, Author(replica.device_id, Incarnation(incarnation)))
        if self.all_work:
            with replica.transaction(durable=True):
                _hold_everything(replica, space)


def _hold_everything(replica: Replica, space: Space) -> None:
    """Any work of ours may be unsent: what stands in documents is compared with what the relay has.

    What a lost update deleted cannot be told from what was deleted long ago, so all of it is said again.
    """
    db = replica.db
    for no, raw_heads, state in db.rows(
        "SELECT record, heads, state FROM documents JOIN records ON no = record WHERE space = ?", (space.no,)
    ):
        parsed = parse_update(state)
        authors = [Author.from_array_name(blocks.name or "") for blocks in parsed.blocks]
        own = [author for author in authors if author.device == replica.device_id]
        if not own:
            continue
        heads = decode_heads(raw_heads)
        others = parsed.deletes.keys() - {author.client_id for author in own}
        for author in own:
            heads.pop(author, None)
            db.execute("INSERT OR IGNORE INTO held VALUES (?, ?, ?, 0)", (space.no, no, author.incarnation))
            deleted = deletes_of(state, {author.client_id, *others})
            others = set()
            if deleted != EMPTY_UPDATE:
                values = (space.no, no, author.incarnation, deleted, replica.now_ms(), older_copy.OLDER_COPY)
                db.execute(_INSERT_LAST, values)
        db.execute("UPDATE documents SET heads = ? WHERE record = ?", (encode_heads(heads), no))


def _show_anew(engine: Engine, replica: Replica) -> None:
    """Make what apps read, and the conflicts that stand, from the documents."""
    with replica.transaction(durable=False):
        for space in replica.spaces.values():
            for name in space.types:
                space.record_types.note(replica.db, TypeChange(name, schema=True, rights=True))
        replica.db.execute("UPDATE records SET standing = NULL WHERE no IN (SELECT record FROM documents)")
        replica.records.clear()
    while engine.keep_up() is not None:
        pass
    standing = {
        conflict.id
        for space in replica.spaces.values()
        for (opaque,) in replica.db.rows(
            "SELECT opaque FROM records WHERE space = ? AND standing IS NOT NULL", (space.no,)
        )
        if (record := replica.records.find(space, opaque, replica.author)) is not None
        for conflict in record.standing.conflicts
    }
    with replica.transaction(durable=True):
        rows = replica.db.rows("SELECT id FROM conflicts WHERE state != 'closed'")
        replica.db.many(
            "UPDATE conflicts SET state = 'closed', closed_at_ms = ? WHERE id = ?",
            [(replica.now_ms(), id) for (id,) in rows if id not in standing],
        )
