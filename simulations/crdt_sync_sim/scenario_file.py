"""Reads a scenario from TOML and says, line by line, everything that is wrong with it.

Checked here: names (of keys, devices, roles, actions, records, fields), types, ranges, and that values fit
the schemas. So a scenario that loads can be acted out; whether the product does well is another question.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any, Final, TypeVar, get_args

from crdt_sync.errors import CrdtSyncError, SchemaError
from crdt_sync.roles import Role
from crdt_sync.schemas.model import RecordSchema
from crdt_sync_client.shipped import find_schema
from crdt_sync_sim.actions import ACTIONS, EDIT_PARTS, Argument
from crdt_sync_sim.scenario import (
    FAULTS,
    NOT_SURVIVED,
    RELAY,
    Expectations,
    Fault,
    FieldExpectation,
    RecordSpec,
    Scenario,
    Scheduled,
    Workload,
)
from crdt_sync_sim.toml_lines import LineIndex, TomlSyntaxError, parse

T = TypeVar("T")

_TOP: Final = {
    "title", "seed", "storage", "duration_s", "settle_s", "schemas", "devices", "network", "records",
    "workload", "faults", "swarm", "at", "expect",
}  # fmt: skip
_NETWORK: Final = {"delay_ms", "jitter_ms", "loss", "kbit_per_s"}
_WORKLOAD: Final = {"writes", "devices", "mix"}
_MIX: Final = {"create", "update", "delete", "restore", "resolve"}
_RECORD: Final = {"type", "by", "values"}
_EXPECT: Final = {
    "converged_within_s", "open_conflicts", "bytes_up_to", "acknowledged_at_least", "refused", "deleted",
    "present", "records", "field",
}  # fmt: skip
_EXPECT_FIELD: Final = {"record", "field", "value", "conflict", "alternatives"}
_MAX_DEVICES: Final = 500
"""More than anyone has on one site; each costs a store."""


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One thing wrong. Lines count from 1."""

    source: str
    line: int
    message: str

    def __str__(self) -> str:
        return f"{self.source}:{self.line}: {self.message}"


class ScenarioError(Exception):
    """A scenario that cannot be acted out, with everything wrong in it."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(sorted(set(problems)))
        super().__init__("\n".join(str(problem) for problem in self.problems))


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
    return _Reader(document, lines, source, text, folder or FilePath()).read()


class _Reader:
    def __init__(
        self, document: dict[str, Any], lines: LineIndex, source: str, text: str, folder: FilePath
    ) -> None:
        self._doc = document
        self._lines = lines
        self._source = source
        self._text = text
        self._folder = folder
        self._problems: list[Problem] = []
        self._devices: dict[str, Role] = {}
        self._schemas: dict[str, RecordSchema] = {}
        self._types: dict[str, str] = {}

    def read(self) -> Scenario:
        doc = self._doc
        self._known(doc, _TOP, (), "a scenario")
        title = self._get(doc, "title", str, FilePath(self._source).stem)
        self._read_devices()
        self._read_schemas()
        network = self._table(doc, "network", _NETWORK)
        records = self._read_records()
        events = self._read_events()
        scenario = Scenario(
            title=title,
            source=self._source,
            text=self._text,
            devices=self._devices,
            schemas=self._schemas,
            seed=self._get(doc, "seed", int, 1),
            storage="disk"
            if self._choice(doc, "storage", ("memory", "disk"), "memory") == "disk"
            else "memory",
            duration_s=self._number(doc, "duration_s", 600.0, low=1),
            settle_s=self._number(doc, "settle_s", 900.0, low=1),
            delay_ms=self._number(network, "delay_ms", 20.0, at=("network",)),
            jitter_ms=self._number(network, "jitter_ms", 5.0, at=("network",)),
            loss=self._number(network, "loss", 0.0, high=0.9, at=("network",)),
            kbit_per_s=self._number(network, "kbit_per_s", 0.0, at=("network",)),
            records=records,
            workload=self._read_workload(),
            faults=self._read_faults(),
            swarm=self._get(doc, "swarm", bool, False),
            events=events,
            expect=self._read_expectations(),
        )
        for event in events:
            if event.at_s > scenario.duration_s:
                self._bad((), f"this is after the end of the story, {scenario.duration_s:g} s", event.line)
        if self._problems:
            raise ScenarioError(self._problems)
        return scenario.with_events(events)

    # Parts

    def _read_devices(self) -> None:
        table = self._table(self._doc, "devices", None)
        for name, role in table.items():
            if name == RELAY:
                self._bad(("devices", name), "the relay is there already; a device needs another name")
                continue
            try:
                self._devices[name] = Role.parse(role)
            except (ValueError, AttributeError) as exc:
                self._bad(("devices", name), str(exc) if isinstance(exc, ValueError) else "a role is a name")
        if not table:
            self._bad(("devices",), 'there must be devices, as in: [devices] then office = "admin"')
        elif Role.ADMIN not in self._devices.values():
            self._bad(("devices",), "one device must be an admin: it founds the space")
        if len(table) > _MAX_DEVICES:
            self._bad(("devices",), f"{len(table)} devices; at most {_MAX_DEVICES}")

    def _read_schemas(self) -> None:
        names = self._get(self._doc, "schemas", list, ["work_order"])
        for name in names:
            path = self._folder / str(name)
            try:
                schema = find_schema(str(path) if path.suffix and path.is_file() else str(name))
            except SchemaError as exc:
                for problem in exc.problems:
                    self._problems.append(Problem(problem.source, problem.line, problem.message))
            except CrdtSyncError as exc:
                self._bad(("schemas",), f"{exc.message}; {exc.hint}")
            else:
                self._schemas[schema.type] = schema

    def _read_records(self) -> tuple[RecordSpec, ...]:
        found = []
        for name, body in self._table(self._doc, "records", None).items():
            at = ("records", name)
            if not isinstance(body, dict):
                self._bad(at, 'a record is a table, as in: [records.wo1] then type = "work_order"')
                continue
            self._known(body, _RECORD, at, "a record")
            type_name = self._get(body, "type", str, next(iter(self._schemas), ""), at)
            by = self._get(body, "by", str, "", at)
            founder = next((d for d, role in self._devices.items() if role is Role.ADMIN), "")
            if by and by not in self._devices:
                self._bad((*at, "by"), self._no_such("device", by, self._devices))
            self._types[name] = type_name
            values = self._get(body, "values", dict, {}, at)
            self._check_values(type_name, values, (*at, "values"), whole=True)
            found.append(RecordSpec(name, type_name, by or founder, values))
        return tuple(found)

    def _read_workload(self) -> Workload | None:
        if "workload" not in self._doc:
            return None
        at = ("workload",)
        table = self._table(self._doc, "workload", _WORKLOAD)
        devices = tuple(self._get(table, "devices", list, [], at))
        for name in devices:
            if name not in self._devices:
                self._bad((*at, "devices"), self._no_such("device", str(name), self._devices))
        mix = self._get(table, "mix", dict, {}, at)
        self._known(mix, _MIX, (*at, "mix"), "the mix")
        for kind, weight in mix.items():
            if not isinstance(weight, int) or weight < 0:
                self._bad((*at, "mix", kind), "a weight is a whole number, 0 or more")
        work = Workload(int(self._number(table, "writes", 100, at=at)), devices)
        return Workload(work.writes, work.devices, mix) if mix and not self._problems else work

    def _read_faults(self) -> tuple[Fault, ...]:
        given = self._doc.get("faults", [])
        if given == "all":
            return tuple(fault for fault in FAULTS if fault not in NOT_SURVIVED)
        if not isinstance(given, list):
            self._bad(("faults",), 'faults are a list of names, or "all"')
            return ()
        for name in given:
            if name not in get_args(Fault):
                self._bad(("faults",), self._no_such("fault", str(name), FAULTS))
        return tuple(given)

    def _read_events(self) -> tuple[Scheduled, ...]:
        events = []
        blocks = self._get(self._doc, "at", list, [])
        # In order of time, so that a record created by one event is known to later ones.
        order = sorted(range(len(blocks)), key=lambda index: _time_of(blocks[index]))
        for index in order:
            block, at = blocks[index], ("at", index)
            if not isinstance(block, dict):
                self._bad(at, "an event is a table: [[at]]")
                continue
            action = self._get(block, "do", str, "", at)
            at_s = self._number(block, "s", 0.0, at=at)
            spec = ACTIONS.get(action)
            if spec is None:
                self._bad((*at, "do"), self._no_such("action", action, ACTIONS))
                continue
            if spec.not_yet:
                self._bad((*at, "do"), f"{action} cannot be simulated yet: {spec.not_yet}")
                continue
            arguments = {name: value for name, value in block.items() if name not in ("do", "s")}
            self._known(arguments, set(spec.arguments), at, action)
            for name, argument in spec.arguments.items():
                if name in arguments:
                    self._check_argument(arguments, name, argument, (*at, name))
                elif argument.required:
                    self._bad(at, f"{action} needs {name}")
            if action == "edit":
                self._check_edit(arguments, at)
            if action == "create" and isinstance(arguments.get("record"), str):
                self._types[arguments["record"]] = str(arguments.get("type", ""))
            events.append(Scheduled(at_s, action, arguments, self._lines.line(*at)))
        return tuple(events)

    def _read_expectations(self) -> Expectations:
        at = ("expect",)
        table = self._table(self._doc, "expect", _EXPECT)
        fields = []
        for index, block in enumerate(self._get(table, "field", list, [], at)):
            here = (*at, "field", index)
            self._known(block, _EXPECT_FIELD, here, "an expected field")
            record = self._get(block, "record", str, "", here)
            name = self._get(block, "field", str, "", here)
            self._check_field(record, name, here)
            alternatives = block.get("alternatives")
            conflict = self._choice(block, "conflict", ("open", "auto", "none"), "", here) or None
            fields.append(
                FieldExpectation(
                    record=record,
                    field=name,
                    line=self._lines.line(*here),
                    value=block.get("value"),
                    has_value="value" in block,
                    conflict=conflict,  # type: ignore[arg-type]
                    alternatives=None if alternatives is None else tuple(alternatives),
                )
            )
        for kind in ("deleted", "present"):
            for name in self._get(table, kind, list, [], at):
                if name not in self._types:
                    self._bad((*at, kind), self._no_such("record", str(name), self._types))
        return Expectations(
            converged_within_s=self._optional(table, "converged_within_s", at),
            open_conflicts=_whole(self._optional(table, "open_conflicts", at)),
            bytes_up_to=_whole(self._optional(table, "bytes_up_to", at)),
            acknowledged_at_least=_whole(self._optional(table, "acknowledged_at_least", at)),
            refused=_whole(self._optional(table, "refused", at)),
            records=_whole(self._optional(table, "records", at)),
            deleted=tuple(table.get("deleted", ())),
            present=tuple(table.get("present", ())),
            fields=tuple(fields),
        )

    # Checks

    def _check_argument(
        self, arguments: Mapping[str, Any], name: str, argument: Argument, at: tuple[str | int, ...]
    ) -> None:
        value = arguments[name]
        nodes = [*self._devices, RELAY]
        match argument.kind:
            case "device" if value not in self._devices:
                self._bad(at, self._no_such("device", str(value), self._devices))
            case "node" if value not in nodes:
                self._bad(at, self._no_such("node", str(value), nodes))
            case "groups":
                self._check_groups(value, nodes, at)
            case "record" if value not in self._types:
                self._bad(at, self._no_such("record", str(value), self._types))
            case "seconds" | "number" if isinstance(value, bool) or not isinstance(value, int | float):
                self._bad(at, f"{name} is a number")
            case "seconds" if value < 0:
                self._bad(at, f"{name} cannot be negative")
            case "text" if not isinstance(value, str):
                self._bad(at, f"{name} is text")
            case "values":
                type_name = arguments.get("type") or self._types.get(str(arguments.get("record")), "")
                self._check_values(str(type_name), value, at, whole="type" in arguments)
            case "elements" | "counts" | "fields":
                type_name = self._types.get(str(arguments.get("record")), "")
                self._check_parts(type_name, value, argument.kind, at)
            case _:
                pass

    def _check_edit(self, arguments: Mapping[str, Any], at: tuple[str | int, ...]) -> None:
        """An edit changes something, and each field in one way."""
        parts = [arguments[part] for part in EDIT_PARTS if part in arguments]
        names = [str(name) for part in parts if isinstance(part, dict | list) for name in part]
        if not names:
            self._bad(at, f"an edit needs one of {', '.join(EDIT_PARTS)}")
        for name in sorted({name for name in names if names.count(name) > 1}):
            self._bad(at, f"{name} stands in two parts of one edit; make it two edits")

    def _check_parts(self, type_name: str, given: Any, kind: str, at: tuple[str | int, ...]) -> None:
        """Elements of sets, steps of counters, names of fields to clear."""
        schema = self._schemas.get(type_name)
        if schema is None or not isinstance(given, list if kind == "fields" else dict):
            what = "a list of fields" if kind == "fields" else "a table of fields"
            self._bad(at, f"{at[-1]} is {what}")
            return
        for name in given:
            try:
                spec = schema.field_at(tuple(str(name).split(".")))
                shape = {"elements": "set", "counts": "counter"}.get(kind, spec.shape)
                if spec.shape != shape:
                    self._bad((*at, name), f"{name} is not a {shape}")
                elif kind == "elements":
                    spec.check([given[name]], name)
            except CrdtSyncError as exc:
                self._bad((*at, name), f"{exc.message}{'; ' + exc.hint if exc.hint else ''}")

    def _check_groups(self, groups: Any, nodes: list[str], at: tuple[str | int, ...]) -> None:
        if not isinstance(groups, list) or not all(isinstance(group, list) for group in groups):
            self._bad(at, 'groups are lists of nodes, as in [["tablet"], ["office", "relay"]]')
            return
        seen: set[str] = set()
        for name in (name for group in groups for name in group):
            if name not in nodes:
                self._bad(at, self._no_such("node", str(name), nodes))
            elif name in seen:
                self._bad(at, f"{name} stands in two groups")
            seen.add(name)

    def _check_values(self, type_name: str, values: Any, at: tuple[str | int, ...], *, whole: bool) -> None:
        schema = self._schemas.get(type_name)
        if schema is None:
            self._bad(at, self._no_such("record type", type_name, self._schemas))
            return
        if not isinstance(values, dict):
            self._bad(at, "values are a table of fields")
            return
        for name, value in values.items():
            try:
                spec = schema.field_at(tuple(name.split(".")))
                if value is not None and not isinstance(value, dict):
                    spec.check(value, name)
            except CrdtSyncError as exc:
                self._bad((*at, name), f"{exc.message}{'; ' + exc.hint if exc.hint else ''}")
        if whole:
            try:
                schema.check_required(schema.with_defaults(values))
            except CrdtSyncError as exc:
                self._bad(at, exc.message)

    def _check_field(self, record: str, name: str, at: tuple[str | int, ...]) -> None:
        if record not in self._types:
            self._bad((*at, "record"), self._no_such("record", record, self._types))
            return
        schema = self._schemas.get(self._types[record])
        if schema is None:
            return
        try:
            schema.field_at(tuple(name.split(".")))
        except CrdtSyncError as exc:
            self._bad((*at, "field"), exc.message)

    # Getting at values

    def _table(self, parent: Mapping[str, Any], name: str, known: set[str] | None) -> dict[str, Any]:
        table = self._get(parent, name, dict, {})
        if known is not None:
            self._known(table, known, (name,), name)
        return table

    def _get(
        self,
        table: Mapping[str, Any],
        name: str,
        kind: type[T],
        default: T,
        at: tuple[str | int, ...] = (),
    ) -> T:
        value = table.get(name, default)
        if isinstance(value, kind) and (kind is bool or not isinstance(value, bool)):
            return value
        self._bad((*at, name), f"{name} must be {_KIND_NAMES[kind]}")
        return default

    def _number(
        self,
        table: Mapping[str, Any],
        name: str,
        default: float,
        *,
        low: float = 0,
        high: float = 1e9,
        at: tuple[str | int, ...] = (),
    ) -> float:
        value = table.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            self._bad((*at, name), f"{name} is a number")
        elif not low <= value <= high:
            self._bad((*at, name), f"{name} is from {low:g} to {high:g}, not {value:g}")
        else:
            return float(value)
        return default

    def _optional(self, table: Mapping[str, Any], name: str, at: tuple[str | int, ...]) -> float | None:
        return self._number(table, name, 0.0, at=at) if name in table else None

    def _choice(
        self,
        table: Mapping[str, Any],
        name: str,
        choices: tuple[str, ...],
        default: str,
        at: tuple[str | int, ...] = (),
    ) -> str:
        value = self._get(table, name, str, default, at)
        if value in choices or value == default:
            return value
        self._bad((*at, name), f"{name} is one of {', '.join(choices)}, not {value!r}")
        return default

    def _known(
        self, table: Mapping[str, Any], known: Iterable[str], at: tuple[str | int, ...], what: str
    ) -> None:
        names = sorted(known)
        for name in table:
            if name not in names:
                self._bad((*at, name), f"{what} has no {name!r}{_nearest(name, names)}")

    def _no_such(self, what: str, name: str, known: Iterable[str]) -> str:
        return f"there is no {what} {name!r}{_nearest(name, list(known))}"

    def _bad(self, at: tuple[str | int, ...], message: str, line: int | None = None) -> None:
        self._problems.append(Problem(self._source, line or self._lines.line(*at), message))


_KIND_NAMES: Final[dict[Any, str]] = {
    str: "text",
    int: "a whole number",
    bool: "true or false",
    list: "a list",
    dict: "a table",
}


def _nearest(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; there are: {', '.join(known) or 'none'}"


def _time_of(block: Any) -> float:
    value = block.get("s", 0) if isinstance(block, dict) else 0
    return float(value) if isinstance(value, int | float) else 0.0


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)
