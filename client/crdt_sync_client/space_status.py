"""The status of one space: what its store counts, and how its connection stands."""

from __future__ import annotations

from crdt_sync.errors import CrdtSyncError, RelayRefused, ShutOut
from crdt_sync.protocol.codes import CloseCode

from .engine import model
from .status import SpaceStatus, SyncState
from .sync_loop import SpaceSync


def space_status(
    state: model.SpaceState,
    counts: model.StatusCounts,
    synced_at: int | None,
    sync: SpaceSync | None,
    now_ms: int,
) -> SpaceStatus:
    """`synced_at` is when the store was last in sync; a connection that is idle is in sync now."""
    now = sync.current_state() if sync is not None else "offline"
    if now == "error" and sync is not None:
        now = _refused_state(sync.problem)
    if state.stage == "active" and state.role is None:
        now = "revoked"
    done, total = sync.progress if sync is not None else (0, 0)
    traffic = sync.traffic() if sync is not None else (0, 0, 0, 0)
    problem = sync.problem if sync is not None and now not in ("offline", "syncing", "idle") else None
    return SpaceStatus(
        space_id=state.id.hex(),
        name=state.name,
        role=state.role.text if state.role is not None else "",
        relay=state.relay_url,
        state=now,
        pending=counts.pending,
        failed=counts.failed,
        conflicts=counts.conflicts,
        done=done,
        total=total,
        last_synced_at=now_ms if now == "idle" else synced_at,
        retry_in_s=sync.retry_in_s if sync is not None else None,
        problem=None if problem is None else problem.message,
        bytes_sent=traffic[2],
        bytes_received=traffic[3],
        quarantined=counts.quarantined,
        remaking=counts.remaking,
        absent=state.absent,
        wanted=state.wanted,
        checked_out=state.checked_out,
        checkouts_ended=state.checkouts_ended,
        unreadable=state.unreadable,
        unfinished=state.unfinished,
    )


def _refused_state(problem: CrdtSyncError | None) -> SyncState:
    """How to call it that the relay does not let us in."""
    if isinstance(problem, ShutOut):
        return "revoked"
    if isinstance(problem, RelayRefused) and problem.close_code == CloseCode.UNAUTHENTICATED:
        return "needs_auth"
    return "error"
