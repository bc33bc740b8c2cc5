"""Spaces, devices and the whole relay as JSON values, for the operator's commands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from crdt_sync.errors import UnknownSpace
from crdt_sync.ids import DeviceId, SpaceId
from crdt_sync.protocol.leases import LeaseState, decode_lease
from crdt_sync_server.reports import (
    DeviceFigures,
    LivePeer,
    device_figures,
    members_of,
    space_figures,
    space_key,
)
from crdt_sync_server.revocations import UnknownDevice
from crdt_sync_server.storage.port import SpaceEntry, Storage

Json = dict[str, Any]
ID_BYTES: Final = 16


def space_views(storage: Storage, live: Sequence[LivePeer]) -> list[Json]:
    """All spaces, the oldest first."""
    views: list[Json] = []
    for entry in storage.spaces():
        figures = space_figures(storage, entry.id, members_of(storage, entry.id), live)
        views.append(
            {
                "space": figures.space.hex(),
                "head": figures.head,
                "size_bytes": figures.size_bytes,
                "members": figures.members,
                "connections": figures.connections,
            }
        )
    return views


def device_views(
    storage: Storage, live: Sequence[LivePeer], now_ms: int, space: SpaceId | None = None
) -> list[Json]:
    """Devices of one space, or of all. Raises UnknownSpace."""
    spaces = [entry.id for entry in storage.spaces()] if space is None else [space]
    return [
        {"space": one.hex(), **_device(figures)}
        for one in spaces
        for figures in device_figures(storage, one, members_of(storage, one), live, now_ms)
    ]


def _device(figures: DeviceFigures) -> Json:
    gone = figures.revoked
    return {
        "device": figures.device.hex(),
        "role": figures.role,
        "label": figures.label,
        "connected": figures.connected,
        "cursor": figures.cursor,
        "lag": figures.lag,
        "last_seen_ms": figures.last_seen_ms,
        "last_sync_ms": figures.last_sync_ms,
        "app": figures.app,
        "os": figures.os,
        "agent": figures.agent,
        "revoked": None
        if gone is None
        else {"at_ms": gone.at_ms, "reason": gone.reason, "all_spaces": gone.space is None},
    }


def totals(storage: Storage) -> Json:
    """What is stored in all."""
    spaces = storage.spaces()
    return {
        "relay_id": storage.relay_id.hex(),
        "spaces": len(spaces),
        "log_bytes": sum(storage.size_bytes(entry.key) for entry in spaces),
    }


def checkout_views(storage: Storage, now_ms: int, space: SpaceId | None = None) -> list[Json]:
    """Leases that were not given back, in force or run out: of one space, or of all. Raises UnknownSpace."""
    entries = storage.spaces() if space is None else [SpaceEntry(space, space_key(storage, space))]
    leases = (
        (entry.id, decode_lease(row.payload)) for entry in entries for row in storage.leases.all(entry.key)
    )
    return [
        {
            "space": of.hex(),
            "record": lease.record.hex(),
            "device": lease.device.hex(),
            "since_ms": lease.since_ms,
            "expires_ms": lease.expires_ms,
            "token": lease.token,
            "held": lease.held(now_ms),
        }
        for of, lease in leases
        if lease.state is LeaseState.HELD
    ]


def space_named(text: str) -> SpaceId | None:
    """A space as an operator writes it, None when there is nothing. Raises UnknownSpace."""
    if not text:
        return None
    try:
        return SpaceId(_id(text))
    except ValueError:
        raise UnknownSpace("a space is 32 hex digits", hint="`crdt-sync relay spaces` lists them") from None


def device_named(text: str) -> DeviceId:
    """A device as an operator writes it. Raises UnknownDevice."""
    try:
        return DeviceId(_id(text))
    except ValueError:
        raise UnknownDevice(
            "a device is 32 hex digits", hint="`crdt-sync relay devices` lists them"
        ) from None


def _id(text: str) -> bytes:
    raw = bytes.fromhex(text)
    if len(raw) != ID_BYTES:
        raise ValueError
    return raw
