"""The operator's questions, answered by the running relay or, when none runs, from its database."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Protocol

from crdt_sync.errors import CrdtSyncError, UnknownSpace
from crdt_sync_server.data_dir import DataDir
from crdt_sync_server.operating import backup, handing_over, views
from crdt_sync_server.operating.channel import Channel, find_channel
from crdt_sync_server.operating.log_check import LogCheck
from crdt_sync_server.revocations import NotRevoked, Revocations, UnknownDevice
from crdt_sync_server.roster import Roster
from crdt_sync_server.storage.port import DataDirError
from crdt_sync_server.storage.sqlite import SqliteStorage, connect_storage

_KINDS: Final[dict[str, type[CrdtSyncError]]] = {
    kind.code: kind for kind in (UnknownSpace, UnknownDevice, NotRevoked, handing_over.Elsewhere)
}
"""What a running relay answers, as the same error that reading the database raises."""
_PROBE_S: Final = 3.0
_LONG_S: Final = 3600.0
"""For a backup or a check of a large database."""


class Relay(Protocol):
    """What can be asked. Answers are JSON values."""

    def status(self) -> dict[str, Any]: ...

    def spaces(self) -> list[dict[str, Any]]: ...

    def devices(self, space: str) -> list[dict[str, Any]]: ...

    def checkouts(self, space: str) -> list[dict[str, Any]]: ...

    def revoke(self, device: str, space: str, reason: str, *, undo: bool) -> dict[str, Any]: ...

    def back_up(self, to: Path) -> dict[str, Any]: ...

    def check(self) -> dict[str, Any]: ...


@contextlib.contextmanager
def relay_at(data: Path) -> Iterator[Relay]:
    """The relay of a data directory, running or not. Raises DataDirError."""
    directory = DataDir.open(data, create=False)
    channel = find_channel(data)
    if channel is not None:
        import httpx

        with httpx.Client(
            base_url=channel.url,
            headers={"Authorization": f"Bearer {channel.token}"},
            timeout=httpx.Timeout(_LONG_S, connect=_PROBE_S),
            trust_env=False,
        ) as client:
            try:
                client.get("/operator/status", timeout=_PROBE_S)
            except httpx.TransportError:
                pass  # killed, and the file is what it left
            else:
                yield _Running(client, channel, data)
                return
    opened = connect_storage(directory.database, os.urandom, to_serve=False)
    with contextlib.closing(opened) as database:
        try:
            yield _Stopped(directory, SqliteStorage(database), database)
        except sqlite3.DatabaseError as exc:
            raise DataDirError(
                f"{directory.database} cannot be read: {exc}",
                hint="`crdt-sync relay check` says what is damaged",
            ) from None


class _Running:
    def __init__(self, client: Any, channel: Channel, data: Path) -> None:
        self._client = client
        self._channel = channel
        self._data = data

    def _ask(self, method: str, path: str, **more: Any) -> Any:
        import httpx

        try:
            answer = self._client.request(method, f"/operator/{path}", **more)
        except httpx.TransportError as exc:
            raise DataDirError(
                f"the relay at {self._channel.url} stopped answering ({type(exc).__name__})",
                hint="run the command again; when the relay is stopped it reads the database itself",
            ) from None
        if answer.status_code != httpx.codes.OK:
            problem = answer.json()
            kind = _KINDS.get(problem.get("code"), DataDirError)
            raise kind(problem.get("detail", "no answer"), hint=problem.get("hint", ""))
        return answer.json()

    def status(self) -> Any:
        return self._ask("GET", "status")

    def spaces(self) -> Any:
        return self._ask("GET", "spaces")

    def devices(self, space: str) -> Any:
        return self._ask("GET", "devices", params={"space": space})

    def checkouts(self, space: str) -> Any:
        return self._ask("GET", "checkouts", params={"space": space})

    def revoke(self, device: str, space: str, reason: str, *, undo: bool) -> Any:
        body = {"device": device, "space": space, "reason": reason, "undo": undo}
        return self._ask("POST", "revoke", json=body)

    def back_up(self, to: Path) -> Any:
        return handing_over.back_up(lambda asked: self._ask("POST", "backup", json=asked), self._data, to)

    def check(self) -> Any:
        return self._ask("POST", "check")


class _Stopped:
    def __init__(self, data: DataDir, storage: SqliteStorage, database: Any) -> None:
        self._data = data
        self._storage = storage
        self._database = database

    def status(self) -> dict[str, Any]:
        from crdt_sync_server.http.api import disk_bytes

        return {
            "running": False,
            **views.totals(self._storage),
            "disk_bytes": disk_bytes(self._data.database),
        }

    def spaces(self) -> list[dict[str, Any]]:
        return views.space_views(self._storage, [])

    def devices(self, space: str) -> list[dict[str, Any]]:
        return views.device_views(self._storage, [], _now_ms(), views.space_named(space))

    def checkouts(self, space: str) -> list[dict[str, Any]]:
        return views.checkout_views(self._storage, _now_ms(), views.space_named(space))

    def revoke(self, device: str, space: str, reason: str, *, undo: bool) -> dict[str, Any]:
        revocations = Revocations(self._storage, Roster())
        named, of = views.device_named(device), views.space_named(space)
        if undo:
            revocations.admit(named, of, _now_ms())
        else:
            revocations.revoke(named, of, reason, _now_ms())
        return {"running": False, "closed": 0}

    def back_up(self, to: Path) -> dict[str, Any]:
        return backup.back_up(self._storage, self._data, to)

    def check(self) -> dict[str, Any]:
        problems = backup.integrity_problems(self._database)
        check = LogCheck(self._storage)
        with contextlib.suppress(sqlite3.DatabaseError):  # it is among the problems then
            check.run()
        findings = [{"space": None, "row": None, "problem": problem} for problem in problems]
        findings += [finding.to_json() for finding in check.findings]
        return {"spaces": check.spaces, "rows": check.rows, "findings": findings}


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
