"""Reads a scenario from TOML and says, line by line, everything that is wrong with it.

Checked here: names (of keys, devices, roles, actions, records, fields), types, ranges, and that values fit
the schemas. So a scenario that loads can be acted out; whether the product does well is another question.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path as FilePath
from typing import Any, Final, get_args

from crdt_sync.errors import CrdtSyncError, SchemaError
from crdt_sync.roles import Role
from crdt_sync.schemas.model import RecordSchema
from crdt_sync_client.shipped import find_schema
from crdt_sync_sim.scenario import (
    DEFAULT_MIX,
    FAULTS,
    NOT_SURVIVED,
    RELAY,
    Fault,
    RecordSpec,
    Scenario,
    Workload,
)
from crdt_sync_sim.scenario_events import EventReader
from crdt_sync_sim.scenario_expectations import read_expectations
from crdt_sync_sim.scenario_names import Names
from crdt_sync_sim.scenario_tables import Problem, ScenarioError, Tables
from crdt_sync_sim.toml_lines import TomlSyntaxError, parse

__all__ = ["Problem", "ScenarioError", "load_scenario", "read_scenario"]

_TOP: Final = {
    "title", "seed", "storage", "duration_s", "settle_s", "schemas", "versions", "devices", "network",
    "records", "workload", "faults", "swarm", "at", "expect",
}  # fmt: skip
_NETWORK: Final = {"delay_ms", "jitter_ms", "loss", "kbit_per_s"}
_WORKLOAD: Final = {"operations", "fields", "devices", "mix"}
_RECORD: Final = {"type", "by", "values"}
_MAX_DEVICES: Final = 500
"""More than anyone has on one site; each costs a store."""


def load_scenario(path: FilePath) -> Scenario:
    """The scenario in a file. Raises ScenarioError, also when the file cannot be read."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise ScenarioError([Problem(str(path), 1, f"cannot be read: {exc}")]) from None
    return read_scenario(text, source=str(path), folder=path.parent)


def read_scenario(text: str, *, source: str, folder: FilePath | None = None) -> Scenario:
    """The scenario in a text. `folder` is where relative schema paths start."""
    try:
        document, lines = parse(text)
    except TomlSyntaxError as exc:
        raise ScenarioError([Problem(source, exc.line, exc.message)]) from None
    return _Reader(document, Tables(lines, source), text, folder or FilePath()).read()


class _Reader:
    def __init__(self, document: dict[str, Any], tables: Tables, text: str, folder: FilePath) -> None:
        self._doc = document
        self._tables = tables
        self._names = Names(tables)
        self._text = text
        self._folder = folder

    def read(self) -> Scenario:
        doc, tables = self._doc, self._tables
        tables.known(doc, _TOP, (), "a scenario")
        title = tables.get(doc, "title", str, FilePath(tables.source).stem)
        self._read_devices()
        self._read_schemas()
        network = tables.table(doc, "network", _NETWORK)
        records = self._read_records()
        first = dict(self._names.devices)  # events may let others join
        events = EventReader(tables, self._names).read(tables.get(doc, "at", list, []))
        scenario = Scenario(
            title=title,
            source=tables.source,
            text=self._text,
            devices=first,
            schemas=self._names.schemas,
            versions=tuple(self._names.versions),
            seed=tables.get(doc, "seed", int, 1),
            storage=tables.choice(doc, "storage", ("memory", "disk"), "memory"),
            duration_s=tables.number(doc, "duration_s", 600.0, low=1),
            settle_s=tables.number(doc, "settle_s", 900.0, low=1),
            delay_ms=tables.number(network, "delay_ms", 20.0, at=("network",)),
            jitter_ms=tables.number(network, "jitter_ms", 5.0, at=("network",)),
            loss=tables.number(network, "loss", 0.0, high=0.9, at=("network",)),
            kbit_per_s=tables.number(network, "kbit_per_s", 0.0, at=("network",)),
            records=records,
            workload=self._read_workload(),
            faults=self._read_faults(),
            swarm=tables.get(doc, "swarm", bool, False),
            events=events,
            expect=read_expectations(tables, self._names, doc),
        )
        for event in events:
            if event.at_s > scenario.duration_s:
                tables.bad((), f"this is after the end of the story, {scenario.duration_s:g} s", event.line)
        if tables.problems:
            raise ScenarioError(tables.problems)
        return scenario.with_events(events)

    # Parts

    def _read_devices(self) -> None:
        table = self._tables.table(self._doc, "devices", None)
        for name, role in table.items():
            if name == RELAY:
                self._tables.bad(("devices", name), "the relay is there already; a device needs another name")
                continue
            try:
                self._names.devices[name] = Role.parse(role)
            except (ValueError, AttributeError) as exc:
                self._tables.bad(
                    ("devices", name), str(exc) if isinstance(exc, ValueError) else "a role is a name"
                )
        if not table:
            self._tables.bad(("devices",), 'there must be devices, as in: [devices] then office = "admin"')
        elif Role.ADMIN not in self._names.devices.values():
            self._tables.bad(("devices",), "one device must be an admin: it founds the space")
        if len(table) > _MAX_DEVICES:
            self._tables.bad(("devices",), f"{len(table)} devices; at most {_MAX_DEVICES}")

    def _read_schemas(self) -> None:
        names = self._tables.get(self._doc, "schemas", list, ["work_order"])
        for name in names:
            schema = self._find_schema(name, "schemas")
            if schema is not None:
                self._names.schemas[schema.type] = schema
        for name in self._tables.get(self._doc, "versions", list, []):
            schema = self._find_schema(name, "versions")
            if schema is not None:
                self._names.versions.append(schema)

    def _find_schema(self, name: object, key: str) -> RecordSchema | None:
        path = self._folder / str(name)
        try:
            return find_schema(str(path) if path.suffix and path.is_file() else str(name))
        except SchemaError as exc:
            for problem in exc.problems:
                self._tables.problems.append(Problem(problem.source, problem.line, problem.message))
        except CrdtSyncError as exc:
            self._tables.bad((key,), f"{exc.message}; {exc.hint}")
        return None

    def _read_records(self) -> tuple[RecordSpec, ...]:
        found = []
        for name, body in self._tables.table(self._doc, "records", None).items():
            at = ("records", name)
            if not isinstance(body, dict):
                self._tables.bad(at, 'a record is a table, as in: [records.wo1] then type = "work_order"')
                continue
            self._tables.known(body, _RECORD, at, "a record")
            type_name = self._tables.get(body, "type", str, next(iter(self._names.schemas), ""), at)
            by = self._tables.get(body, "by", str, "", at)
            founder = next((d for d, role in self._names.devices.items() if role is Role.ADMIN), "")
            if by:
                self._names.check_device(by, (*at, "by"))
            self._names.types[name] = type_name
            values = self._tables.get(body, "values", dict, {}, at)
            self._names.check_values(type_name, values, (*at, "values"), whole=True)
            found.append(RecordSpec(name, type_name, by or founder, values))
        return tuple(found)

    def _read_workload(self) -> Workload | None:
        if "workload" not in self._doc:
            return None
        at = ("workload",)
        table = self._tables.table(self._doc, "workload", _WORKLOAD)
        devices = tuple(self._tables.get(table, "devices", list, [], at))
        for name in devices:
            self._names.check_device(name, (*at, "devices"))
        mix = self._tables.get(table, "mix", dict, {}, at)
        self._tables.known(mix, set(DEFAULT_MIX), (*at, "mix"), "the mix")
        for kind, weight in mix.items():
            if not isinstance(weight, int) or weight < 0:
                self._tables.bad((*at, "mix", kind), "a weight is a whole number, 0 or more")
        operations = int(self._tables.number(table, "operations", 100, at=at))
        work = Workload(operations, devices, fields=self._read_span(table))
        return replace(work, mix=mix) if mix and not self._tables.problems else work

    def _read_span(self, table: Mapping[str, Any]) -> tuple[int, int] | None:
        """How many fields one save touches, from and to."""
        given = table.get("fields")
        if given is None:
            return None
        whole = isinstance(given, list) and [type(end) for end in given] == [int, int]
        if not whole or not 1 <= given[0] <= given[1]:
            self._tables.bad(
                ("workload", "fields"), "how many fields a save touches: [from, to], as in [6, 10]"
            )
            return None
        return given[0], given[1]

    def _read_faults(self) -> tuple[Fault, ...]:
        given = self._doc.get("faults", [])
        if given == "all":
            return tuple(fault for fault in FAULTS if fault not in NOT_SURVIVED)
        if not isinstance(given, list):
            self._tables.bad(("faults",), 'faults are a list of names, or "all"')
            return ()
        for name in given:
            if name not in get_args(Fault):
                self._tables.bad(("faults",), self._tables.no_such("fault", str(name), FAULTS))
        return tuple(given)
