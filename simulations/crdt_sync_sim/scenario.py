"""What a scenario is: devices, records, work, faults, events at times, and what must come out.

These are plain values; `scenario_file` reads them from TOML and `run` acts them out. Times in scenarios are
seconds since the start of the story, which begins when every device has joined and has all records.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal, get_args

from crdt_sync.roles import Role
from crdt_sync.schemas.model import RecordSchema

DEFAULT_MIX: Final[Mapping[str, int]] = {
    "create": 2, "update": 14, "delete": 1, "restore": 1, "resolve": 2, "group": 2,
}  # fmt: skip
"""What people do, and how often. A group is several records written in one transaction."""
RELAY: Final = "relay"
"""The relay's name as a node; devices may not have it."""

Conflict = Literal["open", "auto", "none"]
"""What a field is expected to be in at the end."""
Fault = Literal[
    "checkouts",
    "loss",
    "slow",
    "partitions",
    "one_way",
    "crashes",
    "power_cuts",
    "pauses",
    "clocks",
    "relay_crashes",
    "relay_power_cuts",
    "mischief",
    "corruption",
    "disk_full",
    "backups",
    "rare_points",
    "wipes",
    "joins",
    "version_skew",
    "relay_rollback",
    "relay_wipe",
    "schema_versions",
    "cleared_caches",
    "scopes",
    "shut_out",
    "forks",
    "priorities",
    "refusals",
]
FAULTS: Final[tuple[Fault, ...]] = get_args(Fault)
NOT_SURVIVED: Final[frozenset[Fault]] = frozenset()
"""Faults that `all` leaves out, because this version of the product does not recover from them by itself."""

Verdict = Literal["pass", "bad_scenario", "safety", "liveness", "crash", "unknown"]
EXIT_CODES: Final[dict[Verdict, int]] = {
    "pass": 0,
    "bad_scenario": 2,
    "safety": 10,
    "liveness": 11,
    "crash": 12,
    "unknown": 13,
}


@dataclass(frozen=True, slots=True)
class RecordSpec:
    """A record that is there, and on every device, when the story begins."""

    name: str
    type: str
    by: str
    values: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Workload:
    """Random but valid work, spread over the duration. `mix` weighs the kinds of `DEFAULT_MIX`."""

    operations: int
    """Saves, deletions and so on. Each assigns one field or several: that many writes."""
    devices: tuple[str, ...] = ()
    """Empty: all that may write."""
    mix: Mapping[str, int] = field(default_factory=lambda: dict(DEFAULT_MIX))
    fields: tuple[int, int] | None = None
    """How many fields one save touches, from and to. None: mostly one, at times two or four."""


@dataclass(frozen=True, slots=True)
class Scheduled:
    """Something that happens at a time. `arguments` were checked for the action."""

    at_s: float
    action: str
    arguments: Mapping[str, Any]
    line: int = 0

    def __str__(self) -> str:
        rest = " ".join(f"{name}={value!r}" for name, value in self.arguments.items())
        return f"{self.at_s:g}s {self.action} {rest}"


@dataclass(frozen=True, slots=True)
class FieldExpectation:
    """A field of a record on every device at the end."""

    record: str
    field: str
    line: int
    value: Any = None
    has_value: bool = False
    conflict: Conflict | None = None
    alternatives: tuple[Any, ...] | None = None


@dataclass(frozen=True, slots=True)
class Expectations:
    """What must hold at the end, beyond what must always hold. None: no expectation."""

    converged_within_s: float | None = None
    open_conflicts: int | None = None
    bytes_up_to: int | None = None
    acknowledged_at_least: int | None = None
    deleted: tuple[str, ...] = ()
    present: tuple[str, ...] = ()
    orphaned: tuple[str, ...] = ()
    refused: int | None = None
    records: int | None = None
    """How many records, not counting deleted ones, every device shows."""
    fields: tuple[FieldExpectation, ...] = ()


@dataclass(frozen=True, slots=True)
class Scenario:
    """One story. The first device with role admin founds the space and invites the others."""

    title: str
    source: str
    text: str
    devices: Mapping[str, Role]
    schemas: Mapping[str, RecordSchema]
    versions: tuple[RecordSchema, ...] = ()
    """Later versions of the schemas, and types that come later, which an admin may publish in the story."""
    seed: int = 1
    storage: Literal["memory", "disk"] = "memory"
    duration_s: float = 600.0
    settle_s: float = 900.0
    """How long after everything healed the devices may take to converge; backoff alone takes up to 375 s."""
    delay_ms: float = 20.0
    jitter_ms: float = 5.0
    loss: float = 0.0
    kbit_per_s: float = 0.0
    records: tuple[RecordSpec, ...] = ()
    workload: Workload | None = None
    faults: tuple[Fault, ...] = ()
    swarm: bool = False
    """Each seed draws which of `faults` are on."""
    events: tuple[Scheduled, ...] = ()
    expect: Expectations = Expectations()

    @property
    def all_schemas(self) -> tuple[RecordSchema, ...]:
        """Those that are there from the beginning, and those that may come."""
        return (*self.schemas.values(), *self.versions)

    @property
    def founder(self) -> str:
        return next(name for name, role in self.devices.items() if role is Role.ADMIN)

    def with_events(self, events: tuple[Scheduled, ...]) -> Scenario:
        """The same scenario with other events, in order of time."""
        return replace(self, events=tuple(sorted(events, key=lambda event: event.at_s)))


def relay_loses(events: Iterable[Scheduled]) -> bool:
    """Whether the relay loses something that it had acknowledged."""
    acts = {event.action for event in events if event.arguments.get("node") == RELAY}
    return not acts.isdisjoint(("wipe", "restore_backup"))
