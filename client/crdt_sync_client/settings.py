"""What people may choose about syncing and keeping on this device; kept in the store.

sync_every_s       so often a device syncs by itself that is not connected all the time; 0: never
critical_priority  a write of that priority, or a more urgent one, is sent at once; 0: none is
metered_priority   on a metered network only what has that priority, or is more urgent, is sent
metered_initial    whether a space is fetched for the first time on a metered network
metered_fetch      whether records that left, or are picked, are fetched on a metered network
metered_snapshots  whether the device compacts records for the relay on a metered network
    keep_days.TYPE     closed records of a type stay so many days, whatever its schema says; 0: for good
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from crdt_sync.errors import ValidationError
from crdt_sync.schemas.closing import MAX_KEEP_DAYS
from crdt_sync.schemas.priorities import LAST
from crdt_sync.schemas.suggest import did_you_mean

if TYPE_CHECKING:
    from .store.connection import Database

_PREFIX: Final = "setting/"
KEEP_DAYS: Final = "keep_days."
_YEAR_S: Final = 366 * 86_400
_NO_DAYS: Final[Mapping[str, int]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Settings:
    """See the module. `keep_days` is by record type."""

    sync_every_s: int = 900
    critical_priority: int = 1
    metered_priority: int = LAST
    metered_initial: bool = True
    metered_fetch: bool = True
    metered_snapshots: bool = False
    keep_days: Mapping[str, int] = field(default_factory=lambda: _NO_DAYS)

    def to_json(self) -> dict[str, Any]:
        """By name; days by type as `keep_days.TYPE`."""
        plain = {name: getattr(self, name) for name in NAMES}
        return {**plain, **{KEEP_DAYS + name: days for name, days in sorted(self.keep_days.items())}}


NAMES: Final = tuple(each.name for each in fields(Settings) if each.name != "keep_days")
_MOST: Final = {"sync_every_s": _YEAR_S, "critical_priority": LAST, "metered_priority": LAST}


def read_settings(db: Database) -> Settings:
    """As they are kept; what another version of the program kept and this one does not know is left aside."""
    rows = db.rows("SELECT name, value FROM meta WHERE name LIKE 'setting/%'")
    settings = Settings()
    for name, value in rows:
        try:
            settings = changed(settings, name.removeprefix(_PREFIX), value)
        except ValidationError:
            continue
    return settings


def keep_setting(db: Database, settings: Settings, name: str, value: int | bool | None) -> Settings:
    """Keep one; None: as it is by default. Raises ValidationError. Inside a transaction."""
    after = changed(settings, name, value)
    if value is None:
        db.execute("DELETE FROM meta WHERE name = ?", (_PREFIX + name,))
    else:
        db.execute("INSERT OR REPLACE INTO meta (name, value) VALUES (?, ?)", (_PREFIX + name, int(value)))
    return after


def changed(settings: Settings, name: str, value: int | bool | None) -> Settings:
    """With another value for one of them. Raises ValidationError."""
    if name.startswith(KEEP_DAYS) and len(name) > len(KEEP_DAYS):
        days = {k: v for k, v in settings.keep_days.items() if k != name.removeprefix(KEEP_DAYS)}
        if value is not None:
            days[name.removeprefix(KEEP_DAYS)] = _number(name, value, MAX_KEEP_DAYS)
        return replace(settings, keep_days=MappingProxyType(days))
    if name not in NAMES:
        near = did_you_mean(name, NAMES)
        raise ValidationError(
            name, f"is no setting{near}", hint=f"there are {', '.join(NAMES)} and {KEEP_DAYS}TYPE"
        )
    if value is None:
        value = getattr(Settings(), name)
    if name in _MOST:
        number: Any = _number(name, value, _MOST[name])
        return replace(settings, **{name: number})
    if value not in (0, 1):
        raise ValidationError(name, "is true or false")
    chosen: Any = bool(value)
    return replace(settings, **{name: chosen})


def _number(name: str, value: int | bool, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
        raise ValidationError(name, f"is a whole number from 0 to {most:,}")
    return value
