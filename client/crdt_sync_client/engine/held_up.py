"""What stands against a write, said with its result: another device's checkout, or one's own that ended.

Looked up in memory; a device that knows of no checkout pays nothing for it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from crdt_sync.errors import CrdtSyncError
from crdt_sync.ids import OpaqueId
from crdt_sync.protocol.leases import LeaseState
from crdt_sync_client.engine.holders import Checkout, Name, held_now
from crdt_sync_client.engine.model import Outcome, TransactionResult, WriteResult

if TYPE_CHECKING:
    from crdt_sync_client.engine.replica import Replica
    from crdt_sync_client.engine.space import Space


def held_up(replica: Replica, outcome: Outcome) -> Outcome:
    """What came of an operation or a transaction, and what stands against it. What is tied waits together."""
    if isinstance(outcome, TransactionResult):
        return TransactionResult(_told(replica, outcome.results))
    return outcome if isinstance(outcome, CrdtSyncError) else write_held_up(replica, outcome)


def write_held_up(replica: Replica, result: WriteResult) -> WriteResult:
    """One write, and what stands against it."""
    return _told(replica, (result,))[0]


def _told(replica: Replica, results: tuple[WriteResult, ...]) -> tuple[WriteResult, ...]:
    space = replica.spaces.get(results[0].space)
    if space is None or not space.leases.rows:
        return results
    waits_for = _first_held(replica, space, _written(results))
    return tuple(_with(replica, space, result, waits_for) for result in results)


def _written(results: Iterable[WriteResult]) -> Iterable[Name]:
    for result in results:
        if result.changed:
            yield (result.type, result.id)
            yield from result.below


def _first_held(replica: Replica, space: Space, names: Iterable[Name]) -> Checkout | None:
    for name in names:
        found = held_now(replica, space, OpaqueId(space.keys.opaque_id(*name)), name)
        if found is not None and not found.own:
            return found
    return None


def _with(replica: Replica, space: Space, result: WriteResult, waits_for: Checkout | None) -> WriteResult:
    if not result.changed:
        return result
    leases, record = space.leases, OpaqueId(space.keys.opaque_id(result.type, result.id))
    lease = leases.of(record)
    late = (
        lease is not None
        and record in leases.own
        and not leases.holds(replica.device_id, record, replica.now_ms())
        and (lease.device != replica.device_id or lease.state is not LeaseState.RETURNED)
    )
    return replace(result, waits_for=waits_for, late=late) if late or waits_for is not None else result
