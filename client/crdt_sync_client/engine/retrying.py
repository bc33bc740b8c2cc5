"""Trying again what the relay refused: when its time has come, or because a person says so."""

from __future__ import annotations

from typing import TYPE_CHECKING

from crdt_sync.errors import RecordNotFound
from crdt_sync.ids import SpaceId
from crdt_sync_client.engine import refusing
from crdt_sync_client.engine.space import Space

if TYPE_CHECKING:
    from crdt_sync_client.engine.replica import Replica


def retry(replica: Replica, space_id: SpaceId | None, record_type: str | None, id: str | None) -> int:
    """See `Engine.retry`."""
    find = "SELECT no FROM records WHERE space = ? AND opaque = ?"
    spaces = list(replica.spaces.values()) if space_id is None else [replica.space(space_id)]
    count = 0
    with replica.transaction(durable=True):
        for space in spaces:
            wanted = refusing.aside_in(replica, space)
            if record_type is not None and id is not None:
                opaque = space.keys.opaque_id(record_type, id)
                no = replica.db.value(find, (space.no, opaque))
                wanted = [no] if no in wanted else []
            if wanted:
                refusing.release(replica, space, wanted, anew=True)
                count += len(wanted)
    if id is not None and not count:
        raise RecordNotFound(
            f"nothing of {record_type} {id} was refused", hint="`crdt-sync outbox ls` shows what waits"
        )
    return count


def retry_due(replica: Replica, space: Space) -> None:
    """Line up what of that space was set aside and is to be tried again by now. What apps see stays."""
    if not replica.refused:
        return
    due = refusing.due(replica, space, replica.now_ms())
    if due:
        with replica.transaction(durable=True):
            refusing.release(replica, space, due, anew=False)


def retry_in_s(replica: Replica, space: Space) -> float | None:
    """Seconds until `retry_due` has something to do."""
    if not replica.refused:
        return None
    now_ms = replica.now_ms()
    next_ms = refusing.next_retry_ms(replica, space, now_ms)
    return None if next_ms is None else max(0, next_ms - now_ms) / 1000
