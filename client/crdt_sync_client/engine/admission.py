"""Whose updates are merged: of each record type, those of the roles that may write it (`schemas.rights`).

Checked once a group is whole and the batch's schemas are in use. What may not be merged is put aside, a group
as a whole, and looked at again when the rights of its type grow (`upkeep`). An update of a type whose schema
has not come waits like that too: merging it and finding out later that its author had no right to write could
not be undone, and devices to which the schema came first would differ for ever.

A snapshot may be made by any member that may write at all, so what counts is who wrote what it holds.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from crdt_sync.errors import NotAllowed, RemoteError, TypeNotKnown
from crdt_sync.ids import Author
from crdt_sync.records.update_check import CheckedUpdate
from crdt_sync.schemas.builtin import SCHEMA_TYPE
from crdt_sync_client.engine.arrivals import Opened, Span
from crdt_sync_client.engine.record_types import RecordTypes

CODES: Final = (NotAllowed.code, TypeNotKnown.code)
"""Of what is put aside here."""

Refused = tuple[Opened, RemoteError]


def sift(types: RecordTypes, arrived: Sequence[Opened]) -> list[Refused]:
    """Which of these may not be merged, and why."""
    refused: list[Refused] = []
    spoiled: dict[tuple[Author, Span], RemoteError] = {}
    for opened in arrived:
        error = problem(types, opened)
        if error is not None:
            refused.append((opened, error))
            if opened.span[1]:
                spoiled[opened.arrival.author, opened.span] = error
    if not spoiled:
        return refused
    alone = {id(opened) for opened, _ in refused}
    for opened in arrived:
        error = spoiled.get((opened.arrival.author, opened.span)) if opened.span[1] else None
        if error is not None and id(opened) not in alone:
            refused.append((opened, error))
    return refused


def problem(types: RecordTypes, opened: Opened) -> RemoteError | None:
    """Why an update may not be merged, by itself; None when it may."""
    record_type = opened.payload.record_type
    rights = types.rights.get(record_type)
    if rights is None:
        # Who may write these is checked with the envelope.
        return (
            None if record_type == SCHEMA_TYPE else TypeNotKnown(f"no schema of {record_type} has come yet")
        )
    if rights.for_all or opened.checked is None:
        return None
    try:
        for writes in opened.checked.writes.values() or [{}]:
            rights.check(record_type, opened.arrival.role, writes.values())
    except NotAllowed as error:
        return error
    return None


def check_held(types: RecordTypes, record_type: str, checked: CheckedUpdate) -> None:
    """Check what a snapshot holds. Raises NotAllowed."""
    rights = types.rights.get(record_type)
    if rights is None or rights.for_all:
        return
    for writes in checked.writes.values():
        one = next(iter(writes.values()), None)
        if one is not None:  # `check_snapshot` saw that all writes of an author have one role
            rights.check(record_type, one.role, writes.values())


def without(arrived: Iterable[Opened], refused: Iterable[Refused]) -> list[Opened]:
    """Those that are not among the refused."""
    gone = {id(opened) for opened, _ in refused}
    return [opened for opened in arrived if id(opened) not in gone]
