"""Whole device engines on stores, with a relay's log between them, and what the model says each has seen."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path as FilePath
from typing import Any

from crdt_sync.errors import CrdtSyncError
from crdt_sync.ids import RecordId
from crdt_sync.roles import Role
from crdt_sync_client.engine.model import (
    ConflictEntry,
    CreateOp,
    DeleteOp,
    Operation,
    ResolveOp,
    RestoreOp,
    RestoreVersionOp,
    UpdateOp,
)
from tests.client.engine_world import Peer, World
from tests.model.merge_model import Op, Path, Seen, Who
from tests.model.model_acts import Act, Doing, Model
from tests.model.model_devices import FIELDS, Typist, exactly, schema_text, shown_values

ROLES = {"anna": Role.FIELD, "ben": Role.FIELD, "carla": Role.SUPERVISOR}


class Site:
    """A space with an office and some devices, and one record in it that all work at."""

    def __init__(self, names: list[str], delete_rule: str) -> None:
        self.directory = FilePath(tempfile.mkdtemp())
        self.world = World(self.directory, schemas=(schema_text(FIELDS, delete_rule),))
        self.model = Model(FIELDS, delete_rule)
        self.typist = Typist()
        self.roles = {"office": Role.ADMIN}
        self.seen: dict[str, Seen] = {"office": frozenset()}
        self.at_relay: Seen = frozenset()
        self.moments: dict[int, Op] = {}
        """Which operation was done at which millisecond."""
        self.ids: dict[tuple[Path, Any], str] = {}
        """By path and operations: whoever sees the same conflict must name it the same."""
        self.ever: dict[str, set[str]] = {}
        """Conflicts that each device has had."""
        self.record: RecordId | None = None
        for name in names:
            self.join(name)
        self.do(
            self.peer(0),
            CreateOp("sample", {"status": "draft"}),
            lambda doing: doing.create({"status": "draft"}),
        )
        for peer in self.world.peers:
            self.sync(peer)

    def close(self) -> None:
        self.world.close()
        shutil.rmtree(self.directory)

    def peer(self, number: int) -> Peer:
        return self.world.peers[number % len(self.world.peers)]

    def join(self, name: str) -> None:
        role = ROLES.get(name, Role.OFFICE)
        self.sync(self.world.office)
        self.world.join(name, role)
        self.roles[name] = role
        self.seen[name] = self.at_relay

    # Doing ------------------------------------------------------------------------------------------

    def do(self, peer: Peer, operation: Operation, act: Act) -> None:
        """The product does it, the model does it, and they show the same."""
        author = peer.engine.author
        who: Who = (bytes(author.device), int(author.incarnation))
        op = self.model.do(who, self.roles[peer.name].text, self.seen[peer.name], act)
        before_ms = self.world.now_ms
        (result,) = peer.engine.write([operation])
        if isinstance(result, CrdtSyncError):
            assert op.refused, f"{operation} was refused: {result}"
            return
        assert not op.refused, f"{operation} should be refused"
        assert result.changed == bool(op), operation
        if self.record is None:
            self.record = result.id
        if op:
            self.model.settle(op, {atom.path: op.number * 1_000 + i for i, atom in enumerate(op.atoms)})
            self.moments |= dict.fromkeys(range(before_ms + 1, self.world.now_ms + 1), op)
            self.seen[peer.name] |= {op}
        self.check(peer)

    def edit(self, peer: Peer, changes: list[tuple[Path, Any]]) -> None:
        asked, meant = self.typist.real(self.values(peer), self.seen[peer.name], changes)
        if asked:
            wishes: dict[str | Path, Any] = dict(asked)
            self.do(
                peer,
                UpdateOp("sample", self.id, wishes),
                lambda doing: doing.edit(meant),
            )

    def create(self, peer: Peer, values: dict[str, Any]) -> None:
        if self.model.sight(self.seen[peer.name]).deleted:
            self.do(peer, CreateOp("sample", values, self.id), lambda doing: doing.create(values))

    def delete(self, peer: Peer) -> None:
        if not self.model.sight(self.seen[peer.name]).deleted:
            self.do(peer, DeleteOp("sample", self.id), Doing.delete)

    def restore(self, peer: Peer) -> None:
        self.do(peer, RestoreOp("sample", self.id), Doing.restore)

    def resolve(self, peer: Peer, which: int, keep: int, own: Any) -> None:
        """Decide one of the conflicts that stand, by an alternative or another value."""
        standing = [each for each in peer.engine.conflicts(open_only=False) if each.state != "closed"]
        if not standing:
            return
        entry = standing[which % len(standing)]
        choices = len(entry.alternatives) + (not entry.about_deletion and entry.rule not in ("max", "min"))
        index = keep % choices
        if index < len(entry.alternatives):
            chosen = entry.alternatives[index]
            value, gone = chosen.value, chosen.deletes
            operation: Operation = (
                RestoreVersionOp(entry.id, index) if which % 2 else ResolveOp(entry.id, alternative=index)
            )
        else:
            value, gone = own, False
            operation = ResolveOp(entry.id, value=own)
        self.do(peer, operation, lambda doing: doing.resolve(entry.path, value, gone=gone))
        assert peer.engine.conflict(entry.id).state == "closed"

    def restore_a_loser(self, peer: Peer, which: int, keep: int) -> None:
        """Bring back a version of a conflict that is over."""
        over = [
            each
            for each in peer.engine.conflicts(open_only=False)
            if each.state == "closed" and not each.about_deletion
        ]
        if over and not self.model.sight(self.seen[peer.name]).deleted:
            entry = over[which % len(over)]
            index = keep % len(entry.alternatives)
            value = entry.alternatives[index].value
            self.do(peer, RestoreVersionOp(entry.id, index), lambda doing: doing.edit([(entry.path, value)]))

    # Exchange ---------------------------------------------------------------------------------------

    def sync(self, peer: Peer) -> None:
        peer.sync()
        self.seen[peer.name] |= self.at_relay
        self.at_relay |= self.seen[peer.name]
        self.check(peer)

    def only_pull(self, peer: Peer) -> None:
        peer.connect()
        peer.pull()
        self.seen[peer.name] |= self.at_relay
        self.check(peer)

    def push_and_die(self, peer: Peer) -> None:
        """The relay has it, and the device does not know."""
        incarnation = int(peer.engine.author.incarnation)
        if any(op.who[1] != incarnation for op in self.seen[peer.name] - self.at_relay):
            self.sync(peer)  # work of an earlier life goes in a session of its own
        self.only_pull(peer)
        peer.connect()
        peer.push(acknowledge=False)
        self.at_relay |= self.seen[peer.name]
        peer.crash()
        self.check(peer)

    def hear_again(self, peer: Peer) -> None:
        """The whole log once more changes nothing."""
        self.sync(peer)
        before = self.shown(peer)
        peer.engine.receive(peer.space, self.world.relay.after(0, peer.engine.author), self.world.relay.head)
        assert self.shown(peer) == before

    def compact(self, peer: Peer) -> None:
        self.sync(peer)
        peer.compact(self.id, type="sample")

    # Comparing --------------------------------------------------------------------------------------

    @property
    def id(self) -> RecordId:
        assert self.record is not None
        return self.record

    def values(self, peer: Peer) -> dict[str, Any]:
        record = peer.engine.get("sample", self.id, deleted=True)
        return {} if record is None else record.values

    def shown(self, peer: Peer) -> Any:
        record = peer.engine.get("sample", self.id, deleted=True)
        hash = peer.engine.content_hash("sample", self.id)
        return record, hash, peer.engine.conflicts(open_only=False)

    def check(self, peer: Peer) -> None:
        """What the device shows and what stands in its trail is what the model says."""
        if self.record is None:
            return
        sight = self.model.sight(self.seen[peer.name])
        record = peer.engine.get("sample", self.id, deleted=True)
        if record is None:
            assert not sight.exists
            return
        assert record.deleted == sight.deleted
        assert exactly(shown_values(FIELDS, record.values)) == exactly(sight.values())
        trail = peer.engine.conflicts(open_only=False)
        for kind in ("open", "auto"):
            expected = {
                (
                    clash.path,
                    frozenset(time // 1_000 for _, time in clash.alternatives),
                    clash.winner[1] // 1_000,
                )
                for clash in sight.clashes()
                if clash.kind == kind
            }
            assert {self.named(each) for each in trail if each.state == kind} == expected
        assert set(record.conflicts) == {each.id for each in trail if each.state == "open"}
        self.check_trail(peer, trail)

    def named(self, entry: ConflictEntry) -> tuple[Path, frozenset[int], int]:
        """A conflict by its path, the operations in it, and the one that is shown."""
        ops = [self.moments[each.at_ms].number for each in entry.alternatives]
        key = (entry.path, frozenset((each.author, each.at_ms, each.path) for each in entry.alternatives))
        assert self.ids.setdefault(key, entry.id) == entry.id
        return entry.path, frozenset(ops), ops[entry.winner]

    def check_trail(self, peer: Peer, trail: list[ConflictEntry]) -> None:
        """No entry is ever lost, and one that is over says since when."""
        ever = self.ever.setdefault(peer.name, set())
        ids = {each.id for each in trail}
        assert ever <= ids
        ever |= ids
        assert len(set(self.ids.values())) == len(self.ids)
        for entry in trail:
            assert (entry.closed_at_ms is not None) == (entry.state == "closed")
            if entry.state == "closed" and entry.resolver is not None:
                assert entry.resolver_name in self.roles

    def check_all(self) -> None:
        """Everybody has everything."""
        for _ in range(2):
            for peer in self.world.peers:
                self.sync(peer)
        assert self.at_relay == frozenset(self.model.ops)
        self.world.settle()
        self.world.assert_converged()
        for peer in self.world.peers:
            assert self.seen[peer.name] == self.at_relay
            self.hear_again(peer)
            assert peer.engine.outbox() == []
