"""Looking at a store that something may be wrong with, and saving what can be saved of one that is damaged.

    from crdt_sync_client import doctor

    report = await doctor.examine("tablet.db", passphrase=...)
    if not report.healthy:
        repaired = await doctor.repair("tablet.db", passphrase=...)

Nobody else may have the store open meanwhile. The command is `crdt-sync doctor`.
"""

from __future__ import annotations

from .calls import examine, finish_repair, repair
from .findings import Examination, Finding, LostChange, Repair

__all__ = ["Examination", "Finding", "LostChange", "Repair", "examine", "finish_repair", "repair"]
