"""From a scenario and a seed to the list of everything that will happen.

The plan is made before the run and is all there is: written events, the workload's operations and the faults
drawn for this seed. What an operation does depends on what the device sees then, but on nothing that another
event drew: each has a stream of its own. So events can be left out without changing the others, which is what
lets a failing run be minimised and replayed from its case.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from random import Random
from typing import Any, Final

from crdt_sync.protocol.limits import PROTOCOL_VERSION
from crdt_sync.rare import POINTS, Point
from crdt_sync.roles import Role
from crdt_sync_sim.poison import CODES
from crdt_sync_sim.scenario import RELAY, Fault, Scenario, Scheduled
from crdt_sync_sim.world import Streams

YEAR_S: Final = 365 * 86_400
FAULT_SHARE: Final = 0.4
"""With `swarm`, how likely each allowed fault is on in a run: two or three of many, in ever new mixes."""

RELAY_LOSES: Final[frozenset[Fault]] = frozenset({"relay_rollback", "relay_wipe", "forks"})
NOT_WITH_THAT: Final[frozenset[Fault]] = frozenset({"backups"})
"""Not drawn together with a relay that loses something. When a device and the relay are both put back from
copies, nobody may be there who knows that the device had gone on: it sends a second time, under the numbers
of the first, and who saw the first puts a group of it aside. People connect the others first (see the
operator's guide). A scenario without `swarm` may list both."""
RARE_POINT_SHARE: Final = 0.25
"""How likely each rare point is on in a run in which they are. FoundationDB takes the same."""
LARGEST_SHARES: Final[Mapping[Point, float]] = {"session_over": 0.1}
"""A device that connected again after every batch would get a batch for it, and do nothing else: thousands of
connections in ten minutes."""
GIVEN_UP_SHARE: Final = 0.3
"""Of what the relay refuses for good; the rest is tried again when it would take it."""
NEWCOMER_DRAWS: Final = 1_000_000
"""Where the numbers of a newcomer's random operations begin, beyond those of the workload."""
RARE_SHARES: Final = (0.02, 0.25, 1.0)
"""How often one that is on fires: once in a while, often, always. Each hides what another one shows."""


def drawn_faults(scenario: Scenario, seed: int) -> tuple[Fault, ...]:
    """The faults that are on in this run."""
    if not scenario.swarm:
        return scenario.faults
    chance = Streams(seed)["swarm"]
    drawn = [fault for fault in scenario.faults if chance.random() < FAULT_SHARE]
    if not RELAY_LOSES.isdisjoint(drawn):
        drawn = [fault for fault in drawn if fault not in NOT_WITH_THAT]
    return tuple(drawn)


def plan(scenario: Scenario, seed: int) -> tuple[Scheduled, ...]:
    """Everything that will happen, in order of time."""
    streams = Streams(seed)
    events = [*scenario.events, *_work(scenario, streams["workload"])]
    drawn = drawn_faults(scenario, seed)
    for fault in drawn:
        events += _FAULTS[fault](scenario, streams[f"faults/{fault}"])
    events.sort(key=lambda event: event.at_s)
    if "priorities" in drawn:
        events = _with_priorities(events, streams["faults/priorities"])
    return tuple(events)


def _with_priorities(events: Iterable[Scheduled], chance: Random) -> list[Scheduled]:
    """People say how urgent it is what they do."""
    return [
        replace(event, arguments={**event.arguments, "priority": chance.randint(1, 10)})
        if event.action == "work"
        else event
        for event in events
    ]


def _work(scenario: Scenario, chance: Random) -> list[Scheduled]:
    work = scenario.workload
    if work is None:
        return []
    writers = [name for name, role in scenario.devices.items() if role is not Role.READER]
    devices = list(work.devices or writers)
    return [
        _event(chance.uniform(0, scenario.duration_s), "work", device=chance.choice(devices), draw=number)
        for number in range(work.operations)
    ]


def _event(at_s: float, action: str, **arguments: Any) -> Scheduled:
    return Scheduled(round(at_s, 6), action, arguments)


def _times(scenario: Scenario, chance: Random, at_most: int) -> list[float]:
    return sorted(chance.uniform(0, scenario.duration_s * 0.9) for _ in range(chance.randint(1, at_most)))


def _length(scenario: Scenario, chance: Random, low_s: float = 1.0) -> float:
    """Mostly short, sometimes a third of the story."""
    return round(min(low_s + chance.expovariate(10 / scenario.duration_s), scenario.duration_s / 3), 3)


def _devices(scenario: Scenario, chance: Random) -> list[str]:
    names = list(scenario.devices)
    return chance.sample(names, chance.randint(1, len(names)))


def _loss(scenario: Scenario, chance: Random) -> list[Scheduled]:
    return [
        _event(0, "link", device=name, loss=round(chance.uniform(0.01, 0.3), 3))
        for name in _devices(scenario, chance)
    ]


def _slow(scenario: Scenario, chance: Random) -> list[Scheduled]:
    return [
        _event(
            0, "link", device=name, kbit_per_s=chance.choice([9.6, 64, 384]),
            delay_ms=chance.randint(100, 1500), jitter_ms=chance.randint(0, 800),
        )
        for name in _devices(scenario, chance)
    ]  # fmt: skip


def _partitions(scenario: Scenario, chance: Random) -> list[Scheduled]:
    events = []
    for at_s in _times(scenario, chance, 5):
        groups: list[list[str]] = [[RELAY], *([] for _ in range(chance.randint(1, 3)))]
        for name in scenario.devices:
            chance.choice(groups).append(name)
        events.append(
            _event(at_s, "partition", groups=[g for g in groups if g], for_s=_length(scenario, chance))
        )
    return events


def _one_way(scenario: Scenario, chance: Random) -> list[Scheduled]:
    events = []
    for at_s in _times(scenario, chance, 4):
        ends = [chance.choice(list(scenario.devices)), RELAY]
        chance.shuffle(ends)
        events.append(
            Scheduled(at_s, "cut", {"from": ends[0], "to": ends[1], "for_s": _length(scenario, chance)})
        )
    return events


def _on_devices(action: str, at_most: int) -> Callable[[Scenario, Random], list[Scheduled]]:
    def make(scenario: Scenario, chance: Random) -> list[Scheduled]:
        return [
            _event(
                at_s, action, node=chance.choice(list(scenario.devices)), for_s=_length(scenario, chance, 0.1)
            )
            for at_s in _times(scenario, chance, at_most)
        ]

    return make


def _on_relay(action: str, at_most: int) -> Callable[[Scenario, Random], list[Scheduled]]:
    def make(scenario: Scenario, chance: Random) -> list[Scheduled]:
        return [
            _event(at_s, action, node=RELAY, for_s=min(_length(scenario, chance, 0.1), 60))
            for at_s in _times(scenario, chance, at_most)
        ]

    return make


def _clocks(scenario: Scenario, chance: Random) -> list[Scheduled]:
    events = []
    for at_s in _times(scenario, chance, 4):
        size_s = chance.choice([1, 60, 3_600, 86_400, YEAR_S])
        events.append(
            _event(
                at_s, "clock", node=chance.choice(list(scenario.devices)),
                offset_s=round(chance.uniform(-5, 5) * size_s, 3), drift_ppm=chance.randint(-200, 200),
            )
        )  # fmt: skip
    return events


def _mischief(scenario: Scenario, chance: Random) -> list[Scheduled]:
    return [
        _event(
            at_s, "mischief", duplicate=round(chance.uniform(0, 0.3), 3),
            reorder=round(chance.uniform(0, 0.3), 3), replay=round(chance.uniform(0, 0.3), 3),
            for_s=_length(scenario, chance),
        )
        for at_s in _times(scenario, chance, 3)
    ]  # fmt: skip


def _corruption(scenario: Scenario, chance: Random) -> list[Scheduled]:
    return [
        _event(0, "link", device=name, corruption=round(chance.uniform(0.001, 0.1), 4))
        for name in _devices(scenario, chance)
    ]


def _disk_full(scenario: Scenario, chance: Random) -> list[Scheduled]:
    return [
        _event(
            at_s, "disk_full", node=chance.choice([*scenario.devices, RELAY]), for_s=_length(scenario, chance)
        )
        for at_s in _times(scenario, chance, 3)
    ]


def _backups(scenario: Scenario, chance: Random) -> list[Scheduled]:
    name = chance.choice(list(scenario.devices))
    first, second = sorted(chance.uniform(0, scenario.duration_s) for _ in range(2))
    return [_event(first, "backup", node=name), _event(second, "restore_backup", node=name)]


def _rare_points(scenario: Scenario, chance: Random) -> list[Scheduled]:
    return [
        _event(0, "rare", point=point, share=min(chance.choice(RARE_SHARES), LARGEST_SHARES.get(point, 1)))
        for point in POINTS
        if chance.random() < RARE_POINT_SHARE
    ]


def _wipes(scenario: Scenario, chance: Random) -> list[Scheduled]:
    """Devices lose their store, and join again a while later; not the one that founded the space."""
    names = [name for name in scenario.devices if name != scenario.founder]
    events = []
    for at_s in _times(scenario, chance, 2) if names else []:
        name = chance.choice(names)
        events.append(_event(at_s, "wipe", node=name))
        again_s = min(at_s + _length(scenario, chance), scenario.duration_s)
        events.append(_event(again_s, "join", device=name))
    return events


def _cleared_caches(scenario: Scenario, chance: Random) -> list[Scheduled]:
    """Devices let go of all they have, and fetch it anew."""
    return [
        _event(at_s, "clear_cache", device=chance.choice(list(scenario.devices)))
        for at_s in _times(scenario, chance, 6)
    ]


def _shut_out(scenario: Scenario, chance: Random) -> list[Scheduled]:
    """The operator shuts a device out for a while, or two."""
    return [
        _event(
            at_s, "shut_out", device=chance.choice(list(scenario.devices)), for_s=_length(scenario, chance)
        )
        for at_s in _times(scenario, chance, 2)
    ]


def _scopes(scenario: Scenario, chance: Random) -> list[Scheduled]:
    """People change what their devices keep; then others work on, and it must stay right."""
    return [
        _event(
            chance.uniform(0, scenario.duration_s * 0.6), "rescope", device=name, draw=chance.getrandbits(32)
        )
        for name in _devices(scenario, chance)
        for _ in range(chance.choice([1, 2, 4, 6]))
    ]


def _refusals(scenario: Scenario, chance: Random) -> list[Scheduled]:
    """The relay refuses something for good, now and then; in the end people try again, or give it up."""
    writers = [name for name, role in scenario.devices.items() if role is not Role.READER]
    return [
        _event(
            at_s, "spoil", device=chance.choice(writers), draw=chance.getrandbits(32),
            code=chance.choice(CODES), give_up=chance.random() < GIVEN_UP_SHARE,
        )
        for at_s in _times(scenario, chance, 3)
    ]  # fmt: skip


def _checkouts(scenario: Scenario, chance: Random) -> list[Scheduled]:
    """People check records out and in, and admins break checkouts."""
    return [
        _event(at_s, "lend", device=name, draw=chance.getrandbits(32))
        for name in _devices(scenario, chance)
        for at_s in _times(scenario, chance, 8)
    ]


def _joins(scenario: Scenario, chance: Random) -> list[Scheduled]:
    """People come who were not there before, some over a bad link, and work like the others."""
    events = []
    roles = [role for role in scenario.devices.values() if role is not Role.ADMIN] or [Role.FIELD]
    share = scenario.workload.operations // len(scenario.devices) if scenario.workload else 0
    for number, at_s in enumerate(_times(scenario, chance, 2), 1):
        name, role = f"newcomer_{number}", chance.choice(roles)
        events.append(_event(at_s, "join", device=name, role=role.text))
        if chance.random() < 0.5:
            loss = round(chance.uniform(0.05, 0.4), 3)
            events.append(_event(at_s, "link", device=name, loss=loss, delay_ms=chance.randint(50, 1500)))
        if role is not Role.READER:
            times = [chance.uniform(at_s, scenario.duration_s) for _ in range(share)]
            draws = range(number * NEWCOMER_DRAWS, number * NEWCOMER_DRAWS + share)
            events += [_event(t, "work", device=name, draw=d) for t, d in zip(times, draws, strict=True)]
    return events


def _version_skew(scenario: Scenario, chance: Random) -> list[Scheduled]:
    events = []
    for name in _devices(scenario, chance):
        first, second = sorted(chance.uniform(0, scenario.duration_s) for _ in range(2))
        speaks = PROTOCOL_VERSION + chance.choice([-1, 1])
        events.append(_event(first, "version", device=name, speaks=speaks))
        events.append(_event(second, "upgrade", device=name))
    return events


def everyone(scenario: Scenario, events: Iterable[Scheduled]) -> dict[str, Role]:
    """All devices of a story and the roles they come with: those of the beginning, then those who join."""
    found = dict(scenario.devices)
    for event in events:
        if event.action == "join":
            role = event.arguments.get("role", Role.FIELD.text)
            found.setdefault(str(event.arguments["device"]), Role.parse(role))
    return found


def _relay_rollback(scenario: Scenario, chance: Random) -> list[Scheduled]:
    first, second = sorted(chance.uniform(0, scenario.duration_s) for _ in range(2))
    return [_event(first, "backup", node=RELAY), _event(second, "restore_backup", node=RELAY)]


def _relay_wipe(scenario: Scenario, chance: Random) -> list[Scheduled]:
    return [_event(chance.uniform(0, scenario.duration_s), "wipe", node=RELAY)]


def _forks(scenario: Scenario, chance: Random) -> list[Scheduled]:
    """The relay loses who was let in, and lets another in before those come back who know of the first.

    One admin invites the first, the other one, who has been away, the second. Whoever else was there comes
    back with entries that have lost their place.
    """
    admins = [name for name, role in scenario.devices.items() if role is Role.ADMIN]
    roles = list(scenario.devices.values())
    first, second = chance.sample(admins, 2) if len(admins) > 1 else (admins[0], admins[0])
    lost_s = scenario.duration_s * chance.uniform(0.2, 0.5)
    away_s, back_s = lost_s - chance.uniform(20, 60), scenario.duration_s * chance.uniform(0.1, 0.3)
    others = [name for name in scenario.devices if name != second and chance.random() < 0.8]
    events = [
        _event(away_s, "backup", node=RELAY),
        _event(away_s + 1, "join", device="early", role=chance.choice(roles).text, by=first),
        _event(lost_s - 1, "partition", groups=[[RELAY], ["early", *others]], for_s=back_s),
        _event(lost_s, "restore_backup", node=RELAY),
        _event(lost_s + 1, "join", device="late", role=chance.choice(roles).text, by=second),
    ]
    if second != first:
        events.append(_event(away_s + 0.5, "offline", device=second, for_s=lost_s - away_s))
    for number, name in enumerate(("early", "late"), 11):
        draws = range(number * NEWCOMER_DRAWS, number * NEWCOMER_DRAWS + 6)
        events += [
            _event(chance.uniform(away_s + 5, scenario.duration_s), "work", device=name, draw=draw)
            for draw in draws
        ]
    return events


def _schema_versions(scenario: Scenario, chance: Random) -> list[Scheduled]:
    """Admins publish the versions there are, at times two of one type apart."""
    admins = [name for name, role in scenario.devices.items() if role is Role.ADMIN]
    return [
        _event(
            chance.uniform(0, scenario.duration_s), "schema", device=chance.choice(admins), type=schema.type,
            version=schema.version,
        )
        for schema in scenario.versions
        for _ in range(chance.choice([1, 1, 2]))
    ]  # fmt: skip


_FAULTS: Final[dict[Fault, Callable[[Scenario, Random], list[Scheduled]]]] = {
    "loss": _loss,
    "checkouts": _checkouts,
    "slow": _slow,
    "partitions": _partitions,
    "one_way": _one_way,
    "crashes": _on_devices("crash", 6),
    "power_cuts": _on_devices("power_cut", 6),
    "pauses": _on_devices("pause", 4),
    "clocks": _clocks,
    "relay_crashes": _on_relay("crash", 4),
    "relay_power_cuts": _on_relay("power_cut", 4),
    "mischief": _mischief,
    "corruption": _corruption,
    "disk_full": _disk_full,
    "backups": _backups,
    "rare_points": _rare_points,
    "wipes": _wipes,
    "joins": _joins,
    "version_skew": _version_skew,
    "relay_rollback": _relay_rollback,
    "relay_wipe": _relay_wipe,
    "schema_versions": _schema_versions,
    "cleared_caches": _cleared_caches,
    "scopes": _scopes,
    "shut_out": _shut_out,
    "priorities": lambda scenario, chance: [],
    "refusals": _refusals,
    "forks": _forks,
}
