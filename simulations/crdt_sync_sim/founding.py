"""Before the story: the space is founded, everyone is invited and joins.

This happens in no time and without a network, by the same engines and frames: each step is put before the
relay's engine as a connection of its own. Stories about joining itself use the network like all others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from crdt_sync.protocol.frames import (
    Append,
    Appended,
    Create,
    Frame,
    FromDevice,
    Hello,
    Mode,
    RowKind,
    auth_message,
)
from crdt_sync.protocol.limits import PROTOCOL_VERSION
from crdt_sync.roles import Role
from crdt_sync.schemas.model import RecordSchema
from crdt_sync_server.effects import Admit, Arrival, Created, Peer, Send
from crdt_sync_sim.device_node import DeviceNode
from crdt_sync_sim.relay_node import RelayNode

_AGENT: Final = "crdt-sync-sim"
_INVITE_MS: Final = 7 * 86_400_000
RELAY_URL: Final = "ws://relay:1"


class FoundingError(Exception):
    """The product refused to found or join; nothing can be simulated."""


class _Line:
    """A direct line to the relay's engine for one party."""

    def __init__(self, relay: RelayNode) -> None:
        self._relay = relay
        self.peer = Peer(bytes(32))

    def ask(self, frame: FromDevice | None) -> Frame | None:
        """The answer to a frame."""
        arrivals = [Arrival(self.peer, frame)]
        answer: Frame | None = None
        for effect in self._relay.engine.process(arrivals, self._relay.clock.now_ms()):
            match effect:
                case Send() | Created():
                    answer = effect.frame
                case Admit():
                    answer = effect.welcome
                case _:
                    pass
        return answer

    def hang_up(self) -> None:
        self.ask(None)


def found(
    relay: RelayNode,
    devices: Sequence[tuple[DeviceNode, Role]],
    founder: DeviceNode,
    schemas: Sequence[RecordSchema],
) -> None:
    """Make the space with `founder` as its admin, and let everyone else join."""
    space, genesis = founder.engine.begin_space("Simulated", RELAY_URL, schemas)
    line = _Line(relay)
    _expect(line.ask(Create(PROTOCOL_VERSION, genesis, "any", _AGENT)), Appended)
    line.hang_up()
    founder.engine.confirm_space(space)
    founder.space = space
    for device, role in devices:
        if device is not founder:
            _join(relay, founder, device, role)


def _join(relay: RelayNode, founder: DeviceNode, device: DeviceNode, role: Role) -> None:
    space = founder.space
    entry, link = founder.engine.make_invite(space, role, founder.clock.now_ms() + _INVITE_MS)
    start = founder.engine.session_start(space)
    line = _Line(relay)
    hello = Hello(
        PROTOCOL_VERSION, Mode.DEVICE, space, start.device, start.incarnation, 0, relay.engine.relay_id,
        _AGENT, start.sign(auth_message(
            nonce=line.peer.nonce, relay_id=relay.engine.relay_id, space=space, party=start.device,
            incarnation=start.incarnation, mode=Mode.DEVICE,
        )),
    )  # fmt: skip
    line.ask(hello)
    _expect(line.ask(Append(entry)), Appended)
    line.hang_up()
    founder.engine.apply_membership(space, entry)

    bearer = device.engine.begin_join(link)
    line = _Line(relay)
    hello = Hello(
        PROTOCOL_VERSION, Mode.INVITE, space, bearer.invite, type(start.incarnation)(0), 0,
        relay.engine.relay_id, _AGENT, bearer.sign(auth_message(
            nonce=line.peer.nonce, relay_id=relay.engine.relay_id, space=space, party=bearer.invite,
            incarnation=0, mode=Mode.INVITE,
        )),
    )  # fmt: skip
    line.ask(hello)
    page = relay.engine.read(line.peer, 0, max_rows=100_000, max_bytes=2**31)
    entries = [row.payload for row in page.rows if row.kind is RowKind.MEMBERSHIP]
    join = device.engine.join_from_log(link, entries, relay.clock.now_ms())
    _expect(line.ask(Append(join)), Appended)
    line.hang_up()
    device.engine.confirm_join(space)
    device.space = space
    founder.engine.apply_membership(space, join)


def _expect(answer: Frame | None, kind: type[Frame]) -> None:
    if not isinstance(answer, kind):
        raise FoundingError(f"the relay answered {answer!r}")
