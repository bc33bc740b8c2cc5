"""Bugs to plant in the product that strike the same way whenever the same seed is run again."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from crdt_sync.records.document import RecordDocument
from crdt_sync_client.engine import Engine
from crdt_sync_sim.work import CANARY

Patch = pytest.MonkeyPatch


def forget_some_merges(patch: Patch, *, one_in: int = 9) -> None:
    """Some updates of people's records leave no trace where they are merged: which, their bytes decide."""
    apply = RecordDocument.apply

    def forgetful(document: RecordDocument, update: bytes, *more: Any) -> None:
        chance = hashlib.sha256(update + document.state()).digest()[0]
        if chance % one_in or CANARY.encode() not in update:
            apply(document, update, *more)

    patch.setattr(RecordDocument, "apply", forgetful)


def drop_the_outbox(patch: Patch, device: str, *, at_most: int = 1) -> None:
    """That device forgets what it has to send, as soon as that many changes wait."""
    next_push = Engine.next_push

    def forgetful(engine: Engine, space: Any, **limits: int) -> list[bytes]:
        db = engine._replica.db
        if engine.name == device and db.value("SELECT count(*) FROM outbox") >= at_most:
            with engine._replica.transaction(durable=True):
                db.execute("DELETE FROM outbox")
        return next_push(engine, space, **limits)

    patch.setattr(Engine, "next_push", forgetful)


def never_send(patch: Patch, device: str) -> None:
    next_push = Engine.next_push

    def silent(engine: Engine, space: Any, **limits: int) -> list[bytes]:
        return [] if engine.name == device else next_push(engine, space, **limits)

    patch.setattr(Engine, "next_push", silent)
