"""Before the story: the space is founded, everyone is invited and joins, and the scenario's records are made.

Inviting and joining happen in no time and without a network, by the same engines and frames: each step is put
before the relay's engine as a connection of its own. Stories about joining itself use the network like all
others. Then all devices connect, and the records reach everyone.

That is the same for every seed of a scenario but for ids and keys, and takes as long as a short story. So it
is done in a world of its own, in one of a few variants, and what the stores hold afterwards is kept: a run
starts its nodes from copies. Which variant depends on the seed alone, and a variant on nothing but what it is
made from; so a run is the same whether its founding was kept or had to be made.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Final

from crdt_sync.errors import CrdtSyncError
from crdt_sync.ids import SpaceId
from crdt_sync.protocol.frames import (
    Append,
    Appended,
    Create,
    Frame,
    FromDevice,
    Hello,
    Mode,
    Push,
    RowKind,
    auth_message,
)
from crdt_sync.protocol.limits import PROTOCOL_VERSION
from crdt_sync.roles import Role
from crdt_sync.schemas.model import RecordSchema
from crdt_sync_client.engine.model import CreateOp
from crdt_sync_server.effects import Admit, Arrival, Created, Peer, Send
from crdt_sync_sim import memory_storage, remembering
from crdt_sync_sim.device_node import DeviceNode, DeviceTally, Received
from crdt_sync_sim.oracle import Oracle, RecordName
from crdt_sync_sim.relay_node import RelayNode
from crdt_sync_sim.remembering import Signed, noting_signatures
from crdt_sync_sim.scenario import RELAY, Scenario
from crdt_sync_sim.site import Site
from crdt_sync_sim.world import World

_AGENT: Final = "crdt-sync-sim"
_INVITE_MS: Final = 7 * 86_400_000
RELAY_URL: Final = "ws://relay:1"


class FoundingError(Exception):
    """The product refused to found, join or make a record, or did not sync without any fault."""


VARIANTS: Final = 4
"""Ids decide between equals. With several sets of them, seeds do not all decide alike."""
_BOUND_S: Final = 120
_MOST_KEPT: Final = 16
_kept: OrderedDict[tuple[object, ...], Founded] = OrderedDict()


@dataclass(frozen=True, slots=True)
class Founded:
    """A space, as its nodes left it when they were closed in order. Nobody changes what is in here."""

    at_us: int
    digest: str
    space: SpaceId
    images: Mapping[str, Mapping[str, bytes]]
    """Per node, what its storage holds."""
    leaks: frozenset[str]
    records: Mapping[str, RecordName]
    oracle: Oracle
    tallies: Mapping[str, DeviceTally]
    batches: Mapping[str, Sequence[Received]]
    taken: Mapping[str, Sequence[Push]]
    signed: frozenset[Signed]
    """What its keys signed."""


def founded(scenario: Scenario, seed: int) -> Founded:
    """What runs with that seed begin from, made or kept. Raises FoundingError."""
    variant = seed % VARIANTS
    key = (
        tuple(scenario.devices.items()), tuple(schema.text for schema in scenario.schemas.values()),
        scenario.storage, scenario.delay_ms, scenario.jitter_ms, repr(scenario.records), variant,
    )  # fmt: skip
    if key in _kept:
        _kept.move_to_end(key)
    else:
        _kept[key] = _found_apart(scenario, variant)
        if len(_kept) > _MOST_KEPT:
            _kept.popitem(last=False)
    return _kept[key]


def forget_all() -> None:
    """Nothing is kept any more: the product in this process is another now."""
    _kept.clear()
    memory_storage.forget_all()
    remembering.forget_all()


def begin_from(site: Site, begun: Founded) -> None:
    """Put the nodes of a new site where the founding left them, and start them."""
    site.world.now_us = begun.at_us
    site.world.note("founded", "", begun.digest)
    site.leaks.update(begun.leaks)
    site.records.update(begun.records)
    site.oracle.begin_from(begun.oracle)
    site.relay.taken = {name: list(pushes) for name, pushes in begun.taken.items()}
    site.relay.storage.begin_from(begun.images[RELAY])
    site.relay.start()
    for name in begun.tallies:
        device = site.devices[name]
        device.storage.begin_from(begun.images[name])
        device.batches = list(begun.batches[name])
        device.tally = begun.tallies[name].copy()
        device.belongs_to(begun.space)
        device.start()


def _found_apart(scenario: Scenario, variant: int) -> Founded:
    """In a world of its own, whose seed no run has."""
    with noting_signatures() as signed:
        return _found_in(Site(scenario, World(-1 - variant)), signed)


def _found_in(site: Site, signed: Set[Signed]) -> Founded:
    scenario = site.scenario
    try:
        for node in site.nodes:
            node.start()
        found(
            site.relay,
            [(site.devices[name], role) for name, role in scenario.devices.items()],
            site.devices[scenario.founder],
            list(scenario.schemas.values()),
        )
        for device in site.devices.values():
            device.sync.connect()
        if not site.run_until_converged(_BOUND_S):
            raise FoundingError("the space did not reach every device")
        _make_records(site)
        return _image(site, signed)
    finally:
        site.discard()


def _make_records(site: Site) -> None:
    for record in site.scenario.records:
        record_type, id = site.name_record(record.name, record.type)
        results = site.devices[record.by].write([CreateOp(record_type, record.values, id)])
        if results is None or isinstance(results[0], CrdtSyncError):
            raise FoundingError(f"record {record.name}: {results and results[0]}")
    if not site.run_until_converged(_BOUND_S):
        raise FoundingError("the records did not reach every device")


def _image(site: Site, signed: Set[Signed]) -> Founded:
    devices = site.devices
    for device in devices.values():
        device.engine.close()
    site.relay.log_storage.close()
    return Founded(
        at_us=site.world.now_us,
        digest=site.world.trace.digest,
        space=next(iter(devices.values())).space,
        images={node.name: node.storage.image() for node in site.nodes},
        leaks=frozenset(site.leaks),
        records=site.records,
        oracle=site.oracle,
        tallies={name: device.tally for name, device in devices.items()},
        batches={name: device.batches for name, device in devices.items()},
        taken=site.relay.taken,
        signed=frozenset(signed),
    )


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
