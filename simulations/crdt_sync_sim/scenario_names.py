"""Who and what a scenario may speak of: devices, schemas and records, and whether values fit them."""

from __future__ import annotations

from typing import Any

from crdt_sync.errors import CrdtSyncError
from crdt_sync.roles import Role
from crdt_sync.schemas.model import RecordSchema
from crdt_sync_sim.scenario_tables import Tables
from crdt_sync_sim.toml_lines import Path


class Names:
    """What was read so far. `types` gives the record type of each record that has a name."""

    def __init__(self, tables: Tables) -> None:
        self.devices: dict[str, Role] = {}
        self.schemas: dict[str, RecordSchema] = {}
        self.versions: list[RecordSchema] = []
        """Later versions of these, and other types, that events may publish."""
        self.types: dict[str, str] = {}
        self._tables = tables

    def check_record(self, name: object, at: Path) -> None:
        """It is the name of a record."""
        if not isinstance(name, str) or name not in self.types:
            self._tables.bad(at, self._tables.no_such("record", str(name), self.types))

    def check_device(self, name: object, at: Path) -> None:
        """It is the name of a device."""
        if not isinstance(name, str) or name not in self.devices:
            self._tables.bad(at, self._tables.no_such("device", str(name), self.devices))

    def check_version(self, type_name: object, version: object, at: Path) -> None:
        """There is such a version to publish."""
        known = [f"{each.type} {each.version}" for each in self.versions]
        if f"{type_name} {version}" not in known:
            self._tables.bad(at, self._tables.no_such("version", f"{type_name} {version}", known))

    def versions_of(self, type_name: str) -> list[RecordSchema]:
        """The versions of a type in which a device may know it at some time."""
        first = self.schemas.get(type_name)
        later = [each for each in self.versions if each.type == type_name]
        return later if first is None else [first, *later]

    def check_values(self, type_name: str, values: Any, at: Path, *, whole: bool) -> None:
        """They fit the type; `whole`: they are all that a new record has."""
        schemas = self.versions_of(type_name)
        if not schemas:
            self._tables.bad(at, self._tables.no_such("record type", type_name, self.schemas))
            return
        if not isinstance(values, dict):
            self._tables.bad(at, "values are a table of fields")
            return
        found = [self._misfits(schema, values, at, whole=whole) for schema in schemas]
        if all(found):  # there is none that they fit
            for where, what in found[0]:
                self._tables.bad(where, what)

    def _misfits(
        self, schema: RecordSchema, values: dict[str, Any], at: Path, *, whole: bool
    ) -> list[tuple[Path, str]]:
        misfits: list[tuple[Path, str]] = []
        for name, value in values.items():
            try:
                spec = schema.field_at(tuple(name.split(".")))
                if value is not None and not isinstance(value, dict):
                    spec.check(value, name)
            except CrdtSyncError as exc:
                misfits.append(((*at, name), f"{exc.message}{'; ' + exc.hint if exc.hint else ''}"))
        if whole:
            try:
                schema.check_required(schema.with_defaults(values))
            except CrdtSyncError as exc:
                misfits.append((at, exc.message))
        return misfits

    def check_parts(self, type_name: str, given: Any, kind: str, at: Path) -> None:
        """Elements of sets, steps of counters, names of fields to clear."""
        schema = self.schemas.get(type_name)
        if schema is None or not isinstance(given, list if kind == "fields" else dict):
            what = "a list of fields" if kind == "fields" else "a table of fields"
            self._tables.bad(at, f"{at[-1]} is {what}")
            return
        for name in given:
            try:
                spec = schema.field_at(tuple(str(name).split(".")))
                shape = {"elements": "set", "counts": "counter"}.get(kind, spec.shape)
                if spec.shape != shape:
                    self._tables.bad((*at, name), f"{name} is not a {shape}")
                elif kind == "elements":
                    spec.check([given[name]], name)
            except CrdtSyncError as exc:
                self._tables.bad((*at, name), f"{exc.message}{'; ' + exc.hint if exc.hint else ''}")

    def check_field(self, record: str, name: str, at: Path) -> None:
        """The record has such a field."""
        self.check_record(record, (*at, "record"))
        schemas = self.versions_of(self.types.get(record, ""))
        problem = ""
        for schema in schemas:
            try:
                schema.field_at(tuple(name.split(".")))
                return
            except CrdtSyncError as exc:
                problem = problem or exc.message
        if schemas:
            self._tables.bad((*at, "field"), problem)
