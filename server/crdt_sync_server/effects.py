"""What the engine is told about connections, and what it asks to be done. Values only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from crdt_sync.ids import Author, Incarnation, InviteId, SpaceId
from crdt_sync.protocol.frames import Bye, Frame, FromDevice, Mode, Row, Welcome
from crdt_sync_server.limits import Refusal


class Peer:
    """One connection as the engine knows it; identity is identity.

    The engine fills in who it is when it admits it, and what it remembers of the connection. Whoever delivers
    keeps the rest: `caught_up`, the peer has had the whole log, or is only as far behind as live delivery
    always is; `synced`, it was so once; `confirmed`, up to where the device has
    said that it has everything; `cursor`, the same when the connection ended.
    """

    __slots__ = (
        "agent", "author", "awaited", "caught_up", "confirmed", "cursor", "echo_until", "held",
        "invite", "nonce", "pushed", "refused", "since_ms", "space", "synced",
    )  # fmt: skip

    def __init__(self, nonce: bytes) -> None:
        self.nonce = nonce
        self.space: SpaceId | None = None
        self.author: Author | None = None
        """In mode DEVICE."""
        self.invite: InviteId | None = None
        """In mode INVITE."""
        self.echo_until = 0
        """Up to there it gets its own rows too: it compares what the relay has with what it has."""
        self.caught_up = False
        self.synced = False
        self.confirmed = 0
        self.awaited = False
        """Somebody waits for what it confirms: the engine is to hear of that."""
        self.cursor: int | None = None
        self.agent = ""
        self.since_ms = 0
        """When it was admitted, Unix milliseconds."""
        self.pushed = 0
        """Updates of it that were taken, or were there already."""
        self.held: tuple[Incarnation, int, Refusal] | None = None
        """The last update that is to come again later: its place in the chain, and why."""
        self.refused: set[str] = set()
        """Codes of refusals that are in the books."""


class Arrival(NamedTuple):
    """A frame that came from a peer; None when its connection has ended."""

    peer: Peer
    frame: FromDevice | None


class LiveRow(NamedTuple):
    """A new row of a log and, for an update, whose it is: it is not echoed to that author."""

    row: Row
    author: Author | None


@dataclass(frozen=True, slots=True)
class Send:
    """Send this frame."""

    peer: Peer
    frame: Frame


@dataclass(frozen=True, slots=True)
class Admit:
    """The peer is who it says. Send the welcome and deliver from `welcome.cursor` on."""

    peer: Peer
    space: SpaceId
    mode: Mode
    welcome: Welcome


@dataclass(frozen=True, slots=True)
class Created:
    """The peer's new space is durable. Send the frame."""

    peer: Peer
    frame: Frame


@dataclass(frozen=True, slots=True)
class Close:
    """Send the frame and close with its code."""

    peer: Peer
    bye: Bye


@dataclass(frozen=True, slots=True)
class Grown:
    """These rows are durable at the end of the space's log."""

    space: SpaceId
    rows: tuple[LiveRow, ...]


@dataclass(frozen=True, slots=True)
class Replaced:
    """A snapshot has taken the place of a row. Comes after the `Grown` of the same commit."""

    space: SpaceId
    row: Row


Effect: TypeAlias = Send | Admit | Created | Close | Grown | Replaced
