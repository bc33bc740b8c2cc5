"""An engine on a real SQLite file, driven without sockets."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from crdt_sync.protocol.frames import (
    Ack,
    Append,
    Appended,
    Create,
    Frame,
    FromDevice,
    Push,
    PushSnapshot,
    Row,
    SnapshotResult,
)
from crdt_sync_server.effects import Admit, Arrival, Close, Created, Effect, Grown, Peer, Replaced, Send
from crdt_sync_server.engine import RelayEngine
from crdt_sync_server.limits import DEFAULT_RELAY_LIMITS, RelayLimits
from crdt_sync_server.storage.sqlite import SqliteStorage, connect_storage
from tests.server.relay_kit import TestDevice, TestSpace

TOKEN = "the token"
NONCE = bytes(32)
BESIDE = ("audit", "devices", "lives", "life_heads")
"""Tables that tell what happened, not what is held."""
F = TypeVar("F", bound=Frame)


class Relay:
    """The engine, its storage, and shorthands."""

    def __init__(self, path: Path, limits: RelayLimits = DEFAULT_RELAY_LIMITS) -> None:
        self.path = path
        self.limits = limits
        self.now_ms = 1_000
        self.takes_back = False
        self.grace_ms = 0
        """Snapshots are taken as they come, unless a test is about the second device's word."""
        self.open()

    def open(self) -> None:
        self.db = connect_storage(self.path, os.urandom)
        self.storage = SqliteStorage(self.db)
        self.engine = RelayEngine(
            self.storage,
            token_is_right=lambda token: token == TOKEN,
            limits=self.limits,
            takes_back=lambda _: self.takes_back,
            grace_ms=self.grace_ms,
        )

    def restart(self) -> None:
        """A new engine on the same file."""
        self.close()
        self.open()

    def close(self) -> None:
        self.storage.close()

    def do(self, *arrivals: tuple[Peer, FromDevice | None]) -> list[Effect]:
        return self.engine.process([Arrival(*arrival) for arrival in arrivals], self.now_ms)

    def answers(self, peer: Peer, frame: FromDevice) -> list[Frame]:
        """What the peer is told when it sends the frame."""
        return _told(self.do((peer, frame)), peer)

    def answer(self, peer: Peer, frame: FromDevice, kind: type[F]) -> F:
        """The one thing it is told."""
        (answer,) = self.answers(peer, frame)
        assert isinstance(answer, kind), answer
        return answer

    def create(self, space: TestSpace) -> None:
        self.answer(Peer(NONCE), Create(1, space.entries[0], TOKEN, "test"), Appended)
        founder = self.connect(space.founder)
        for entry in space.entries[1:]:
            self.answer(founder, Append(entry), Appended)

    def connect(self, device: TestDevice, cursor: int = 0) -> Peer:
        peer = Peer(NONCE)
        effects = self.do((peer, device.hello(NONCE, self.engine.relay_id, cursor)))
        assert any(isinstance(effect, Admit) for effect in effects), effects
        return peer

    def push(self, peer: Peer, *envelopes: bytes) -> list[Frame]:
        return self.answers(peer, Push(list(envelopes)))

    def snapshot(self, peer: Peer, envelope: bytes) -> str:
        """The relay's verdict; `replaced` is then the row it took the place of, if it did."""
        effects = self.do((peer, PushSnapshot(envelope)))
        self.replaced = [effect.row for effect in effects if isinstance(effect, Replaced)]
        (result,) = _told(effects, peer)
        assert isinstance(result, SnapshotResult), result
        assert (result.code == "stored") == bool(self.replaced)
        return result.code

    def rows(self, peer: Peer, after: int = 0, max_rows: int = 10_000) -> list[Row]:
        return self.engine.read(peer, after, max_rows=max_rows, max_bytes=2**30).rows

    def payloads(self, peer: Peer, after: int = 0) -> list[bytes]:
        return [row.payload for row in self.rows(peer, after)]

    def dump(self) -> list[object]:
        """Everything in the database but the books and its lives: for proving that nothing changed."""
        found = self.db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")
        tables = [name for (name,) in found if name not in BESIDE]
        return [(name, self.db.execute(f"SELECT * FROM {name}").fetchall()) for name in sorted(tables)]


def _told(effects: Sequence[Effect], peer: Peer) -> list[Frame]:
    frames: list[Frame] = []
    for effect in effects:
        if isinstance(effect, Grown | Replaced) or effect.peer is not peer:
            continue
        match effect:
            case Send() | Created():
                frames.append(effect.frame)
            case Close():
                frames.append(effect.bye)
            case Admit():
                frames.append(effect.welcome)
    return frames


def acknowledged(effects: Sequence[Effect]) -> list[Peer]:
    """Whose pushes were acknowledged."""
    return [effect.peer for effect in effects if isinstance(effect, Send) and isinstance(effect.frame, Ack)]


def kinds(frames: Sequence[Frame]) -> list[str]:
    return [type(frame).__name__ for frame in frames]
