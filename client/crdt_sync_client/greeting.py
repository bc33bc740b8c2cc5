"""The first word of a device in a session."""

from __future__ import annotations

from crdt_sync.protocol.device_session import DeviceSession

from .engine.model import SessionStart


def greeting(protocol: DeviceSession, start: SessionStart, agent: str) -> bytes:
    """The answer to the relay's challenge: who this is, or the membership log that the relay lost."""
    if start.revive:
        return protocol.revive(
            space=start.space,
            device=start.device,
            entries=start.revive,
            sign=start.sign,
            agent=agent,
        )
    return protocol.hello(
        space=start.space,
        device=start.device,
        incarnation=start.incarnation,
        cursor=start.cursor,
        relay_seen=start.relay_seen,
        sign=start.sign,
        agent=agent,
        promised=start.promised,
        acked=start.acked,
    )
