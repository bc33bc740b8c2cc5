"""Reads the events of a scenario, in the order of their times, each checked against the table of actions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, get_args

from crdt_sync.rare import POINTS, Point
from crdt_sync.roles import Role
from crdt_sync_sim.actions import ACTIONS, EDIT_PARTS, Argument
from crdt_sync_sim.scenario import RELAY, Scheduled
from crdt_sync_sim.scenario_names import Names
from crdt_sync_sim.scenario_tables import Tables
from crdt_sync_sim.toml_lines import Path

_ROLES: Final = [role.text for role in Role]


class EventReader:
    """See the module. Records that events create are added to `names`."""

    def __init__(self, tables: Tables, names: Names) -> None:
        self._tables = tables
        self._names = names
        self._out: set[str] = set()
        """Devices that are in no space: wiped, and not joined again."""

    def read(self, blocks: list[Any]) -> tuple[Scheduled, ...]:
        events = []
        # In order of time, so that a record created by one event is known to later ones.
        order = sorted(range(len(blocks)), key=lambda index: _time_of(blocks[index]))
        for index in order:
            block, at = blocks[index], ("at", index)
            if not isinstance(block, dict):
                self._tables.bad(at, "an event is a table: [[at]]")
                continue
            action = self._tables.get(block, "do", str, "", at)
            at_s = self._tables.number(block, "s", 0.0, at=at)
            spec = ACTIONS.get(action)
            if spec is None:
                self._tables.bad((*at, "do"), self._tables.no_such("action", action, ACTIONS))
                continue
            if spec.not_yet:
                self._tables.bad((*at, "do"), f"{action} cannot be simulated yet: {spec.not_yet}")
                continue
            arguments = {name: value for name, value in block.items() if name not in ("do", "s")}
            self._tables.known(arguments, set(spec.arguments), at, action)
            for name, argument in spec.arguments.items():
                if name in arguments:
                    self._check_argument(action, arguments, name, argument, (*at, name))
                elif argument.required:
                    self._tables.bad(at, f"{action} needs {name}")
            if action == "edit":
                self._check_edit(arguments, at)
            if action == "schema":
                self._names.check_version(arguments.get("type"), arguments.get("version"), at)
            if action in ("wipe", "join"):
                self._check_membership(action, arguments, at)
            if action == "create" and isinstance(arguments.get("record"), str):
                self._names.types[arguments["record"]] = str(arguments.get("type", ""))
            events.append(Scheduled(at_s, action, arguments, self._tables.line(at)))
        return tuple(events)

    def _check_argument(
        self, action: str, arguments: Mapping[str, Any], name: str, argument: Argument, at: Path
    ) -> None:
        value = arguments[name]
        nodes = [*self._names.devices, RELAY]
        match argument.kind:
            case "device":
                self._names.check_device(value, at)
            case "node" if not isinstance(value, str) or value not in nodes:
                self._tables.bad(at, self._tables.no_such("node", str(value), nodes))
            case "groups":
                self._check_groups(value, nodes, at)
            case "record":
                self._names.check_record(value, at)
            case "records" if not isinstance(value, list) or len(value) < 2:
                self._tables.bad(at, f'{name} are two or more records, as in ["order", "asset"]')
            case "records":
                for record in value:
                    self._names.check_record(record, at)
            case "seconds" | "number" if isinstance(value, bool) or not isinstance(value, int | float):
                self._tables.bad(at, f"{name} is a number")
            case "seconds" if value < 0:
                self._tables.bad(at, f"{name} cannot be negative")
            case "share" if (
                isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1
            ):
                self._tables.bad(at, f"{name} is a share, from 0 to 1")
            case "point" if value not in get_args(Point):
                self._tables.bad(at, self._tables.no_such("rare point", str(value), POINTS))
            case "newcomer" if not isinstance(value, str) or not value or value == RELAY:
                self._tables.bad(at, f"{name} is the name of a device")
            case "role" if value not in _ROLES:
                self._tables.bad(at, self._tables.no_such("role", str(value), _ROLES))
            case "truth" if not isinstance(value, bool):
                self._tables.bad(at, f"{name} is true or false")
            case "text" if not isinstance(value, str):
                self._tables.bad(at, f"{name} is text")
            case "values" if isinstance(arguments.get("records"), list):
                for type_name in sorted({self._names.types.get(str(r), "") for r in arguments["records"]}):
                    self._names.check_values(type_name, value, at, whole=False)
            case "values":
                type_name = arguments.get("type") or self._names.types.get(str(arguments.get("record")), "")
                self._names.check_values(str(type_name), value, at, whole=action == "create")
            case "elements" | "counts" | "fields":
                type_name = self._names.types.get(str(arguments.get("record")), "")
                self._names.check_parts(type_name, value, argument.kind, at)
            case _:
                pass

    def _check_edit(self, arguments: Mapping[str, Any], at: Path) -> None:
        """An edit changes something, and each field in one way."""
        parts = [arguments[part] for part in EDIT_PARTS if part in arguments]
        names = [str(name) for part in parts if isinstance(part, dict | list) for name in part]
        if not names:
            self._tables.bad(at, f"an edit needs one of {', '.join(EDIT_PARTS)}")
        for name in sorted({name for name in names if names.count(name) > 1}):
            self._tables.bad(at, f"{name} stands in two parts of one edit; make it two edits")

    def _check_membership(self, action: str, arguments: Mapping[str, Any], at: Path) -> None:
        """Who joins is not in the space, and who invites it still is."""
        devices, name = self._names.devices, arguments.get("node", arguments.get("device"))
        if not isinstance(name, str) or name == RELAY:
            return
        if action == "wipe" and name in devices:
            admins = {one for one, role in devices.items() if role is Role.ADMIN and one not in self._out}
            self._out.add(name)
            if admins == {name}:
                self._tables.bad(at, f"{name} is the only admin: nobody could invite it again")
        elif action == "join":
            if name in devices and name not in self._out:
                self._tables.bad(at, f"{name} is in the space already; only who was wiped joins again")
            elif name not in devices and "role" not in arguments:
                self._tables.bad(at, f"join needs role: {name} has not had one before")
            by = arguments.get("by")
            if by in devices and devices[by] is not Role.ADMIN:
                self._tables.bad((*at, "by"), f"{by} is no admin, and only admins invite")
            self._out.discard(name)
            if arguments.get("role") in _ROLES:
                devices[name] = Role.parse(arguments["role"])

    def _check_groups(self, groups: Any, nodes: list[str], at: Path) -> None:
        if not isinstance(groups, list) or not all(isinstance(group, list) for group in groups):
            self._tables.bad(at, 'groups are lists of nodes, as in [["tablet"], ["office", "relay"]]')
            return
        seen: set[str] = set()
        for name in (name for group in groups for name in group):
            if name not in nodes:
                self._tables.bad(at, self._tables.no_such("node", str(name), nodes))
            elif name in seen:
                self._tables.bad(at, f"{name} stands in two groups")
            seen.add(name)


def _time_of(block: Any) -> float:
    value = block.get("s", 0) if isinstance(block, dict) else 0
    return float(value) if isinstance(value, int | float) else 0.0
