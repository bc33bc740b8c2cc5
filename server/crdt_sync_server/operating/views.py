"""Spaces, devices and the whole relay as JSON values, for the operator's commands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from crdt_sync.ids import SpaceId
from crdt_sync_server.reports import (
    DeviceFigures,
    LivePeer,
    device_figures,
    members_of,
    space_figures,
)
from crdt_sync_server.storage.port import Storage

Json = dict[str, Any]


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
    }


def totals(storage: Storage) -> Json:
    """What is stored in all."""
    spaces = storage.spaces()
    return {
        "relay_id": storage.relay_id.hex(),
        "spaces": len(spaces),
        "log_bytes": sum(storage.size_bytes(entry.key) for entry in spaces),
    }
