"""What the doctor says: findings about a store, and what became of it in a repair."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong. `code` is stable; `where` a table, `count` how many pages, rows or records."""

    code: str
    message: str
    where: str = ""
    count: int = 1

    def to_json(self) -> dict[str, Any]:
        return {"code": self.code, "message": self.message, "where": self.where, "count": self.count}


@dataclass(frozen=True, slots=True)
class Examination:
    """What was looked at, and what is wrong with it."""

    findings: tuple[Finding, ...]
    pages: int
    records: int
    unsent: int

    @property
    def healthy(self) -> bool:
        return not self.findings

    def to_json(self) -> dict[str, Any]:
        return {
            "healthy": self.healthy,
            "pages": self.pages,
            "records": self.records,
            "unsent": self.unsent,
            "findings": [finding.to_json() for finding in self.findings],
        }


@dataclass(frozen=True, slots=True)
class LostChange:
    """A change that no relay had, of a record whose name cannot be read: what it wrote, by dotted path."""

    values: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        return {"values": self.values}


@dataclass(frozen=True, slots=True)
class Repair:
    """What a repair saved.

    `records` are in the new store; `to_fetch` more come from the relay with the next sync, as does all else
    that was lost where `from_start` holds. `unsent` changes that no relay has were kept. `unsaved` says in
    sentences what is gone, `lost_changes` what was written in it. `old_file` is the store as it was, None
    when nothing had to be repaired.
    """

    findings: tuple[Finding, ...]
    old_file: Path | None
    records: int = 0
    to_fetch: int = 0
    from_start: bool = False
    unsent: int = 0
    unsaved: tuple[str, ...] = ()
    lost_changes: tuple[LostChange, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {
            "findings": [finding.to_json() for finding in self.findings],
            "old_file": None if self.old_file is None else str(self.old_file),
            "records": self.records,
            "to_fetch": self.to_fetch,
            "from_start": self.from_start,
            "unsent": self.unsent,
            "unsaved": list(self.unsaved),
            "lost_changes": [change.to_json() for change in self.lost_changes],
        }
