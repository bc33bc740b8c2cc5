"""Acts out the events of a plan on the nodes of a world. One method per action, named after it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from crdt_sync.errors import CrdtSyncError
from crdt_sync.ids import RecordId
from crdt_sync.protocol.limits import PROTOCOL_VERSION
from crdt_sync.records.changes import AddElement, Increment, RemoveElement
from crdt_sync.roles import Role
from crdt_sync_client.engine.model import (
    CreateOp,
    DeleteOp,
    Operation,
    ResolveOp,
    RestoreOp,
    Transaction,
    TransactionResult,
    UpdateOp,
    WriteResult,
)
from crdt_sync_sim import keeping
from crdt_sync_sim.checks import Violation
from crdt_sync_sim.device_node import DeviceNode
from crdt_sync_sim.expecting import check_now
from crdt_sync_sim.network import Mischief, between
from crdt_sync_sim.node import Node
from crdt_sync_sim.poison import CODES, give_up, try_again
from crdt_sync_sim.relay_node import RelayNode
from crdt_sync_sim.scenario import DEFAULT_MIX, RELAY, Scheduled
from crdt_sync_sim.work import draw_operation
from crdt_sync_sim.world import Streams, seconds

if TYPE_CHECKING:
    from crdt_sync_sim.run import Simulation

PAGE_ROOM_BYTES = 8_192
"""What a disk still has when it counts as full: the file system's last blocks."""
_PEOPLE: Final = {
    "work",
    "edit",
    "create",
    "delete",
    "restore",
    "resolve",
    "together",
    "check",
    "sync",
    "clear_cache",
    "scope",
    "pick",
    "unpick",
    "open",
    "clean_up",
    "rescope",
    "schema",
    "join",
    "upgrade",
    "checkout",
    "checkin",
    "break_checkout",
    "lend",
    "retry",
    "discard",
}
"""What people do is not a fault."""


class Actor:
    """See the module."""

    def __init__(self, simulation: Simulation) -> None:
        self._sim = simulation
        self._world = simulation.world
        self._network = simulation.network
        self.delivered: dict[str, int] = {}
        """Faults that really happened, by action."""
        self.refusals: list[tuple[Scheduled, CrdtSyncError]] = []
        """Written events that the product refused."""
        self.mismatches: list[Violation] = []
        """What `check` events saw and did not expect."""

    def act(self, event: Scheduled) -> None:
        """Do what the event says, now."""
        self._world.note("event", "", str(event))
        arguments = {name.rstrip("_"): value for name, value in event.arguments.items()}
        method: Callable[[Scheduled, Mapping[str, Any]], None] = getattr(self, f"_{event.action}")
        method(event, arguments)
        if event.action not in _PEOPLE:
            self.delivered[event.action] = self.delivered.get(event.action, 0) + 1

    def _node(self, name: str) -> Node:
        return self._sim.relay if name == RELAY else self._sim.devices[name]

    def _after(self, arguments: Mapping[str, Any], action: Callable[[], object]) -> None:
        if "for_s" in arguments:
            self._world.after(seconds(arguments["for_s"]), action)

    # Work

    def _work(self, event: Scheduled, arguments: Mapping[str, Any]) -> None:
        device = self._sim.devices[arguments["device"]]
        if not device.ready:
            return
        chance = Streams(self._sim.seed)[f"work/{arguments['draw']}"]
        workload = self._sim.scenario.workload
        mix, fields = dict(DEFAULT_MIX), None
        if workload is not None:
            mix, fields = dict(workload.mix), workload.fields
        operation = draw_operation(device, chance, mix, fields)
        if operation is not None:
            device.write([replace(operation, priority=arguments.get("priority"))])

    def _spoil(self, event: Scheduled, arguments: Mapping[str, Any]) -> None:
        """Somebody saves something that the relay is going to refuse for good."""
        device = self._sim.devices[arguments["device"]]
        if not device.ready:
            return
        chance = Streams(self._sim.seed)[f"spoil/{arguments['draw']}"]
        operation = draw_operation(device, chance, {"update": 3, "create": 1, "group": 1})
        done = None if operation is None else device.write([operation])
        for outcome in done or ():
            results = outcome.results[:1] if isinstance(outcome, TransactionResult) else (outcome,)
            for result in results:
                if isinstance(result, WriteResult):
                    give_up, record = arguments.get("give_up", False), (result.type, result.id)
                    self._sim.poison.add(device, record, arguments["code"], give_up=give_up)

    def _refuse(self, event: Scheduled, arguments: Mapping[str, Any]) -> None:
        device, record = self._device(arguments), self._name(arguments)
        self._sim.poison.add(device, record, arguments.get("code", CODES[0]))
        self._after(arguments, lambda: self._sim.poison.take(device, record))

    def _retry(self, event: Scheduled, arguments: Mapping[str, Any]) -> None:
        try_again(self._device(arguments))

    def _discard(self, event: Scheduled, arguments: Mapping[str, Any]) -> None:
        give_up(self._device(arguments), self._name(arguments))

    def _edit(self, event: Scheduled, arguments: Mapping[str, Any]) -> None:
        record_type, id = self._name(arguments)
        changes: dict[Any, Any] = dict(arguments.get("set", {}))
        for given, change in (("add", AddElement), ("remove", RemoveElement), ("count", Increment)):
            changes |= {name: change(value) for name, value in arguments.get(given, {}).items()}
        changes |= dict.fromkeys(arguments.get("clear", ()))
        self._write(event, arguments, UpdateOp(record_type, id, changes, priority=arguments.get("priority")))

    def _together(self, event: Scheduled, arguments: Mapping[str, Any]) -> None:
        names = [self._sim.records[record] for record in arguments["records"]]
        ops = tuple(UpdateOp(record_type, id, arguments["set"]) for record_type, id in names)
        self._write(event, arguments, Transaction(ops, arguments.get("priority")))

    def _create(self, event: Scheduled, arguments: Mapping[str, Any]) -> None:
        record_type, id = self._sim.name_record(arguments["record"], arguments["type"])
        values = dict(arguments["set"])
        if "under" in arguments:
            parent = self._device(arguments).engine.schemas()[record_type].parent
            if parent is not None:
                values[parent.field] = self._sim.records[arguments["under"]][1]
        self._write(event, arguments, CreateOp(record_type, values, id, priority=arguments.get("priority")))

    def _delete(self, event: Scheduled, arguments: Mapping[str, Any]) -> None:
        self._write(event, arguments, DeleteOp(*self._name(arguments)))

    def _restore(self, event: Scheduled, arguments: Mapping[str, Any]) -> None:
        self._write(event, arguments, RestoreOp(*self._name(arguments)))

    def _resolve(self, event: Scheduled, arguments: Mapping[str, Any]) -> None:
        device, (record_type, id) = self._device(arguments), self._name(arguments)
        path = tuple(arguments["field"].split("."))
        for conflict in device.engine.conflicts(open_only=True, type=record_type, record=id):
            if conflict.path == path:
                choice = (
                    {"value": arguments["value"]} if "value" in arguments else {"keep": arguments["keep"]}
                )
                self._write(event, arguments, ResolveOp(conflict.id, **choice))

    def _schema(self, event: Scheduled, arguments: Mapping[str, Any]) -> None:
        wanted = (arguments["type"], arguments["version"])
        for schema in self._sim.scenario.versions:
            if (schema.type, schema.version) == wanted:
                self._device(arguments).publish(schema)

    def _sync(self, event: Scheduled, arguments: Mapping[str, Any]) -> None:
        device = self._device(arguments)
        if device.ready:
            device.sync.reconnect_now()

    def _clear_cache(self, event: Scheduled, arguments: Mapping[str, Any]) -> None:
        device = self._device(arguments)
        self._sim.holdings.let_go(device, device.clear_cache)

    def _scope(self, event: Scheduled, arguments: Mapping[str, Any]) -> None:
        device, record_type, where = self._device(arguments), arguments["type"], arguments.get("where")
        self._sim.holdings.let_go(device, lambda: keeping.set_condition(device, record_type, where))

    def _pick(self, event: Scheduled, arguments: Mapping[str, Any]) -> None:
        keeping.pick(self._device(arguments), self._name(arguments))

    def _unpick(self, event: Scheduled, arguments: Mapping[str, Any]) -> None:
        device, record = self._device(arguments), self._name(arguments)
        self._sim.holdings.let_go(device, lambda: keeping.unpick(device, record))

    def _open(self, event: Scheduled, arguments: Mapping[str, Any]) -> None:
        keeping.open_one(self._device(arguments), self._name(arguments))

    def _clean_up(self, event: Scheduled, arguments: Mapping[str, Any]) -> None:
        device = self._device(arguments)
        self._sim.holdings.let_go(device, lambda: keeping.clean_up(device))

    def _rescope(self, event: Scheduled, arguments: Mapping[str, Any]) -> None:
        device = self._device(arguments)
        if device.ready:
            chance = Streams(self._sim.seed)[f"scope/{arguments['draw']}"]
            self._sim.holdings.let_go(device, lambda: keeping.draw_choice(device, chance))

    def _join(self, event: Scheduled, arguments: Mapping[str, Any]) -> None:
        role = Role.parse(arguments["role"]) if "role" in arguments else None
        by = self._sim.devices[arguments["by"]] if "by" in arguments else None
        self._sim.joins.want(self._device(arguments), role, by)

    def _upgrade(self, event: Scheduled, arguments: Mapping[str, Any]) -> None:
        self._device(arguments).upgrade(PROTOCOL_VERSION)

    def _checkout(self, event: Scheduled, arguments: Mapping[str, Any]) -> None:
        self._device(arguments).ask_checkout([self._name(arguments)], ttl_s=arguments.get("for_s", 0))

    def _checkin(self, event: Scheduled, arguments: Mapping[str, Any]) -> None:
        self._device(arguments).ask_checkout([self._name(arguments)], back=True)

    def _break_checkout(self, event: Scheduled, arguments: Mapping[str, Any]) -> None:
        self._device(arguments).ask_checkout([self._name(arguments)], back=True, breaks=True)

    def _lend(self, event: Scheduled, arguments: Mapping[str, Any]) -> None:
        device = self._device(arguments)
        if not device.ready:
            return
        chance = Streams(self._sim.seed)[f"lend/{arguments['draw']}"]
        names = [name for name in device.record_names() if not name[0].startswith("_")]
        if names:
            chosen = chance.sample(names, min(len(names), chance.randint(1, 5)))
            back = chance.random() < 0.3
            breaks = back and chance.random() < 0.3
            device.ask_checkout(chosen, ttl_s=chance.choice((2, 20, 60, 300)), back=back, breaks=breaks)

    def _check(self, event: Scheduled, arguments: Mapping[str, Any]) -> None:
        device = self._device(arguments)
        self.mismatches += check_now(self._sim, device, event)

    def _write(
        self, event: Scheduled, arguments: Mapping[str, Any], operation: Operation | Transaction
    ) -> None:
        results = self._device(arguments).write([operation])
        if results is not None and isinstance(results[0], CrdtSyncError):
            self.refusals.append((event, results[0]))

    def _device(self, arguments: Mapping[str, Any]) -> DeviceNode:
        return self._sim.devices[arguments["device"]]

    def _name(self, arguments: Mapping[str, Any]) -> tuple[str, RecordId]:
        return self._sim.records[arguments["record"]]

    # Network

    def _partition(self, event: Scheduled, arguments: Mapping[str, Any]) -> None:
        self._cut_for(between(arguments["groups"]), arguments)

    def _cut(self, event: Scheduled, arguments: Mapping[str, Any]) -> None:
        self._cut_for([(arguments["from"], arguments["to"])], arguments)

    def _offline(self, event: Scheduled, arguments: Mapping[str, Any]) -> None:
        self._cut_for(between([[arguments["device"]], [RELAY]]), arguments)

    def _cut_for(self, pairs: Sequence[tuple[str, str]], arguments: Mapping[str, Any]) -> None:
        self._network.cut(pairs)
        self._after(arguments, lambda: self._mend(pairs))

    def _mend(self, pairs: Iterable[tuple[str, str]]) -> None:
        self._world.note("mend", "", " ".join(f"{one}>{other}" for one, other in pairs))
        self._network.mend(pairs)

    def _heal(self, event: Scheduled, arguments: Mapping[str, Any]) -> None:
        self._network.mend_all()

    def _link(self, event: Scheduled, arguments: Mapping[str, Any]) -> None:
        name = arguments["device"]
        changes: dict[str, float] = {}
        for given, property_name, factor in (
            ("loss", "loss", 1.0),
            ("corruption", "corruption", 1.0),
            ("delay_ms", "delay_us", 1000),
            ("jitter_ms", "jitter_us", 1000),
            ("kbit_per_s", "bytes_per_s", 125),
        ):
            if given in arguments:
                value = arguments[given] * factor
                changes[property_name] = value if factor == 1.0 else int(value)
        self._network.adjust([(name, RELAY), (RELAY, name)], **changes)

    def _mischief(self, event: Scheduled, arguments: Mapping[str, Any]) -> None:
        kinds = {name: value for name, value in arguments.items() if name != "for_s"}
        self._network.mischief = Mischief(**kinds)
        self._after(arguments, lambda: setattr(self._network, "mischief", None))

    # The product's own code

    def _rare(self, event: Scheduled, arguments: Mapping[str, Any]) -> None:
        point = arguments["point"]
        self._sim.rare.switch(point, arguments.get("share", 1.0))
        self._after(arguments, lambda: self._sim.rare.switch(point, 0))

    # Nodes

    def _shut_out(self, event: Scheduled, arguments: Mapping[str, Any]) -> None:
        for_us = seconds(arguments["for_s"]) if "for_s" in arguments else None
        self._sim.shutting_out.shut_out(self._device(arguments), for_us)

    def _crash(self, event: Scheduled, arguments: Mapping[str, Any]) -> None:
        node = self._node(arguments["node"])
        node.crash()
        self._start_again(node, arguments)

    def _power_cut(self, event: Scheduled, arguments: Mapping[str, Any]) -> None:
        node = self._node(arguments["node"])
        node.cut_power()
        self._start_again(node, arguments)

    def _start_again(self, node: Node, arguments: Mapping[str, Any]) -> None:
        life = node.life

        def start() -> None:
            if not node.up and node.life == life:
                node.start()

        self._world.after(seconds(arguments.get("for_s", 1.0)), start)

    def _pause(self, event: Scheduled, arguments: Mapping[str, Any]) -> None:
        self._node(arguments["node"]).pause(seconds(arguments.get("for_s", 1.0)))

    def _clock(self, event: Scheduled, arguments: Mapping[str, Any]) -> None:
        node = self._node(arguments["node"])
        node.clock.set(round(arguments.get("offset_s", 0) * 1000), arguments.get("drift_ppm", 0.0))

    def _backup(self, event: Scheduled, arguments: Mapping[str, Any]) -> None:
        node = self._node(arguments["node"])
        if node.up and (isinstance(node, RelayNode) or node in self._sim.members):
            node.take_backup()
            self._sim.backup_taken(node)

    def _restore_backup(self, event: Scheduled, arguments: Mapping[str, Any]) -> None:
        node = self._node(arguments["node"])
        if node.backup is not None and node.up:
            self._sim.before_restore(node)
            node.restore_backup()

    def _wipe(self, event: Scheduled, arguments: Mapping[str, Any]) -> None:
        node = self._node(arguments["node"])
        assert isinstance(node, RelayNode | DeviceNode)
        self._sim.before_wipe(node)
        node.wipe()

    def _version(self, event: Scheduled, arguments: Mapping[str, Any]) -> None:
        self._device(arguments).upgrade(int(arguments["speaks"]))

    def _disk_full(self, event: Scheduled, arguments: Mapping[str, Any]) -> None:
        storage = self._node(arguments["node"]).storage
        storage.set_capacity(storage.size_bytes + PAGE_ROOM_BYTES)
        self._after(arguments, lambda: storage.set_capacity(None))
