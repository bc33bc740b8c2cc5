"""The doctor's calls, for apps and the command line: open the file, look or repair, off the event loop."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from crdt_sync.errors import CrdtSyncError, NotAStore, StoreDamaged, StoreMissing, WrongPassphrase
from crdt_sync_client.store.claim import FileClaim
from crdt_sync_client.store.connection import (
    PAGE_BYTES,
    SALT_BYTES,
    Database,
    derive_key,
    recognise,
)
from crdt_sync_client.store.pages import key_fits
from crdt_sync_client.store.salvage import Salvage, read_salvage
from crdt_sync_client.store.tables import check_tables
from crdt_sync_client.store.wiping import SUFFIXES
from crdt_sync_client.store_opening import Secret, StorePath, secret_of

from .examining import EXAMINED, content_findings, page_findings, senseless_findings, unusable
from .findings import Examination, Finding, Repair
from .rebuilding import Rebuilt, rebuild
from .sifting import sift

logger = logging.getLogger("crdt_sync.client")

_NEW: Final = ".repaired"
"""What a finished new store is called until it is in the place of the old one."""
_UNFINISHED: Final = ".repairing"


async def examine(path: StorePath, *, passphrase: str | None = None, key: bytes | None = None) -> Examination:
    """Look at everything in a store and say what is wrong; nothing in it changes.

    Nobody else may have it open. Takes about 2 s per 10,000 records, and two to three times the file's size
    in memory.
    Raises StoreMissing, NotAStore, WrongPassphrase, StoreInUse, StoreTooNew.
    """
    secret = secret_of(passphrase, key)
    return await asyncio.to_thread(lambda: _examine(path, secret))


async def repair(path: StorePath, *, passphrase: str | None = None, key: bytes | None = None) -> Repair:
    """Save all that can be read of a damaged store in a new one at its place; a sound one stays as it is.

    The old file is kept beside it, under a name with the date. The next sync brings what the relay has and
    the new store lacks. Unsent work that could be read is sent. Nobody else may have the store open, and the
    disk needs room for it once more. Raises as `examine`, and StoreDamaged when too little can be read for
    a store; nothing has changed then.
    """
    secret = secret_of(passphrase, key)
    return await asyncio.to_thread(lambda: _repair(path, secret))


def finish_repair(path: StorePath) -> None:
    """Put a repaired store in its place, if a repair was broken off at that last step."""
    if not os.path.exists(path) and os.path.exists(f"{os.fspath(path)}{_NEW}"):
        os.replace(f"{os.fspath(path)}{_NEW}", path)


def _examine(path: StorePath, secret: Secret) -> Examination:
    found, salvage = _look(path, secret)
    rows = salvage.rows
    return Examination(
        findings=tuple(found),
        pages=salvage.page_count,
        records=len(rows.get("records", ())),
        unsent=len(rows.get("outbox", ())) + len(rows.get("sealed", ())),
    )


def _look(path: StorePath, secret: Secret) -> tuple[list[Finding], Salvage]:
    """What is wrong, and what can be read."""
    with _Claimed(path, secret) as claimed:
        salvage = claimed.salvage()
    found = page_findings(salvage)
    if not salvage.sound or claimed.cut_short:  # opening it would drop what comes after a bad frame
        if claimed.cut_short:
            found.append(Finding("cut_short", "the file ends in the middle of a page"))
        return found, salvage
    found += senseless_findings(sift(salvage, without=EXAMINED))
    try:
        db = Database.open(path, claimed.key)
    except StoreDamaged:  # every page is what was written, and SQLite can do nothing with it
        return [*found, unusable()], salvage
    try:
        check_tables(db)
        return found + content_findings(db), salvage
    finally:
        db.close()


def _repair(path: StorePath, secret: Secret) -> Repair:
    path = Path(path)
    finish_repair(path)
    found, salvage = _look(path, secret)
    if not found:
        return Repair((), None)
    with _Claimed(path, secret) as claimed:
        unfinished = Path(f"{path}{_UNFINISHED}")
        _remove(unfinished)
        try:
            db = Database.create(unfinished, claimed.key, salt=claimed.salt)
            try:
                rebuilt = rebuild(salvage, db, clock=lambda: time.time_ns() // 1_000_000, entropy=os.urandom)
            finally:
                db.close()
        except BaseException as exc:
            _remove(unfinished)
            if isinstance(exc, CrdtSyncError) or not isinstance(exc, Exception):
                raise
            logger.exception("what could be read of a store does not make another")
            raise StoreDamaged(
                f"what can be read of {path} does not make a store any more; it was left as it is",
                hint="restore the store from a backup, or join again with a new store and a new invite",
            ) from exc
        old = _take_its_place(path, unfinished)
    return _report(found, old, rebuilt)


def _report(found: list[Finding], old: Path, rebuilt: Rebuilt) -> Repair:
    return Repair(
        findings=tuple(found),
        old_file=old,
        records=rebuilt.records,
        to_fetch=rebuilt.to_fetch,
        from_start=rebuilt.from_start,
        unsent=rebuilt.unsent,
        unsaved=tuple(rebuilt.unsaved),
        lost_changes=tuple(rebuilt.lost_changes),
    )


def _take_its_place(path: Path, unfinished: Path) -> Path:
    """Exchange the files. Broken off anywhere, the next repair goes on; no write-ahead log gets mixed up."""
    stamp = time.strftime("%Y%m%d-%H%M%S")
    old = path.with_name(f"{path.name}.damaged-{stamp}")
    number = 1
    while old.exists():
        number += 1
        old = path.with_name(f"{path.name}.damaged-{stamp}-{number}")
    new = Path(f"{path}{_NEW}")
    os.replace(unfinished, new)
    os.replace(path, old)
    for suffix in SUFFIXES[1:]:
        with suppress(FileNotFoundError):
            os.replace(f"{path}{suffix}", f"{old}{suffix}")
    os.replace(new, path)
    return old


def _remove(path: Path) -> None:
    for suffix in SUFFIXES:
        Path(f"{path}{suffix}").unlink(missing_ok=True)


def _salt_at(path: StorePath) -> bytes:
    """What would be the salt of a file of which the first page may be gone. Raises NotAStore for others."""
    size = 0 if os.path.isdir(path) else os.path.getsize(path)
    if size <= PAGE_BYTES:
        raise NotAStore(f"{path} is not a store", hint="name the file that `crdt-sync init` made")
    with Path(path).open("rb") as file:
        return file.read(SALT_BYTES)


class _Claimed:
    """A store's file that nobody else has open, and its key."""

    def __init__(self, path: StorePath, secret: Secret) -> None:
        self.path = path
        try:
            self._claim = FileClaim(path)
        except FileNotFoundError:
            raise StoreMissing(f"there is no store at {path}", hint="name the store's file") from None
        try:
            self.cut_short = self._claim.read_start(0)[1] % PAGE_BYTES != 0
            not_a_store: NotAStore | None = None
            try:
                self.salt = recognise(path, self._claim)
            except NotAStore as exc:  # or its first page is gone, and only the salt before it still stands
                self.salt, not_a_store = _salt_at(path), exc
            self.key = derive_key(secret, self.salt) if isinstance(secret, str) else secret
            if not key_fits(path, self.key, self.salt):
                if not_a_store is not None:
                    raise not_a_store
                raise WrongPassphrase(
                    f"no page of {path} can be read with this passphrase or key",
                    hint="check the passphrase; a file that is no store, or one with damaged first bytes,"
                    " looks the same",
                )
        except BaseException:
            self._claim.release()
            raise

    def salvage(self) -> Salvage:
        return read_salvage(self.path, self.key, self.salt)

    def __enter__(self) -> _Claimed:
        return self

    def __exit__(self, *_: object) -> None:
        self._claim.release()
