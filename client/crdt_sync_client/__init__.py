"""The device: an encrypted local store, its engine, and the library API over both.

    from crdt_sync_client import Device

What is exported here is the public surface; a test guards it. Errors are in `crdt_sync.errors`. Names are
loaded when first used, so that the command line starts fast.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from crdt_sync.records.changes import AddElement, Increment, RemoveElement

    from .agent import name_app
    from .checkout_values import CheckinResult, Checkout, CheckoutResult, LateWork
    from .choices import OwnValue
    from .conflict_watching import ConflictChange, ConflictWatch
    from .device import Device
    from .engine.explaining import ExplainedField, ExplainedVersion, Explanation
    from .engine.filters import Filter, field
    from .engine.history import FieldChange, HistoryEntry
    from .engine.model import Alternative, ConflictEntry, OutboxItem, Preference, Quarantined, Suggestion
    from .engine.queries import Order, Query
    from .engine.write_life import WriteLife, WrittenValue
    from .importing import ImportReport, ImportRow, read_csv
    from .live import LiveQuery, Page
    from .logout import LogoutReport
    from .records import Member, Record, SpaceInfo, WriteResult
    from .shipped import find_schema, shipped_types
    from .space_methods import LeaveReport
    from .status import SpaceStatus, Status, SyncReport
    from .store.size import StorePart, StoreSize
    from .watching import Change, Watch

_HOMES = {
    "AddElement": "crdt_sync.records.changes",
    "Alternative": "crdt_sync_client.engine.model",
    "Change": "crdt_sync_client.watching",
    "CheckinResult": "crdt_sync_client.checkout_values",
    "Checkout": "crdt_sync_client.checkout_values",
    "CheckoutResult": "crdt_sync_client.checkout_values",
    "ConflictChange": "crdt_sync_client.conflict_watching",
    "ConflictEntry": "crdt_sync_client.engine.model",
    "ConflictWatch": "crdt_sync_client.conflict_watching",
    "Device": "crdt_sync_client.device",
    "ExplainedField": "crdt_sync_client.engine.explaining",
    "ExplainedVersion": "crdt_sync_client.engine.explaining",
    "Explanation": "crdt_sync_client.engine.explaining",
    "FieldChange": "crdt_sync_client.engine.history",
    "Filter": "crdt_sync_client.engine.filters",
    "HistoryEntry": "crdt_sync_client.engine.history",
    "ImportReport": "crdt_sync_client.importing",
    "ImportRow": "crdt_sync_client.importing",
    "Increment": "crdt_sync.records.changes",
    "LateWork": "crdt_sync_client.checkout_values",
    "LiveQuery": "crdt_sync_client.live",
    "LeaveReport": "crdt_sync_client.space_methods",
    "LogoutReport": "crdt_sync_client.logout",
    "Member": "crdt_sync_client.records",
    "Order": "crdt_sync_client.engine.queries",
    "OutboxItem": "crdt_sync_client.engine.model",
    "OwnValue": "crdt_sync_client.choices",
    "Page": "crdt_sync_client.live",
    "Preference": "crdt_sync_client.engine.model",
    "Quarantined": "crdt_sync_client.engine.model",
    "Query": "crdt_sync_client.engine.queries",
    "Record": "crdt_sync_client.records",
    "RemoveElement": "crdt_sync.records.changes",
    "SpaceInfo": "crdt_sync_client.records",
    "SpaceStatus": "crdt_sync_client.status",
    "Status": "crdt_sync_client.status",
    "StorePart": "crdt_sync_client.store.size",
    "StoreSize": "crdt_sync_client.store.size",
    "Suggestion": "crdt_sync_client.engine.model",
    "SyncReport": "crdt_sync_client.status",
    "Watch": "crdt_sync_client.watching",
    "WriteLife": "crdt_sync_client.engine.write_life",
    "WriteResult": "crdt_sync_client.records",
    "WrittenValue": "crdt_sync_client.engine.write_life",
    "field": "crdt_sync_client.engine.filters",
    "find_schema": "crdt_sync_client.shipped",
    "name_app": "crdt_sync_client.agent",
    "read_csv": "crdt_sync_client.importing",
    "shipped_types": "crdt_sync_client.shipped",
}

__all__ = [
    "AddElement",
    "Alternative",
    "Change",
    "CheckinResult",
    "Checkout",
    "CheckoutResult",
    "ConflictChange",
    "ConflictEntry",
    "ConflictWatch",
    "Device",
    "ExplainedField",
    "ExplainedVersion",
    "Explanation",
    "FieldChange",
    "Filter",
    "HistoryEntry",
    "ImportReport",
    "ImportRow",
    "Increment",
    "LateWork",
    "LeaveReport",
    "LiveQuery",
    "LogoutReport",
    "Member",
    "Order",
    "OutboxItem",
    "OwnValue",
    "Page",
    "Preference",
    "Quarantined",
    "Query",
    "Record",
    "RemoveElement",
    "SpaceInfo",
    "SpaceStatus",
    "Status",
    "StorePart",
    "StoreSize",
    "Suggestion",
    "SyncReport",
    "Watch",
    "WriteLife",
    "WriteResult",
    "WrittenValue",
    "field",
    "find_schema",
    "name_app",
    "read_csv",
    "shipped_types",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(home), name)


def __dir__() -> list[str]:
    return sorted(__all__)
