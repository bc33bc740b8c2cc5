"""How commands say who has a record checked out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .output import Output, local_time

if TYPE_CHECKING:
    from crdt_sync_client import Checkout, WriteResult


def who_until(held: Checkout) -> str:
    """As in `Rig 7 until 21 Nov 2026 17:40:00`."""
    return f"{'this device' if held.own else held.device} until {local_time(held.until_at)}"


def note_saved(out: Output, written: WriteResult, otherwise: str) -> None:
    """Say below what was done what becomes of it now: what stands against sending it, or `otherwise`."""
    from crdt_sync_client.checkout_values import write_notice

    notice = write_notice(written.waits_for, late=written.late, when=local_time)
    if not notice:
        out.note(otherwise)
    elif written.waits_for is None:
        out.note(f"{otherwise}\nLate: {notice}.")
    else:
        out.note(f"{notice[0].upper()}{notice[1:]}.")


def stands_against(written: WriteResult) -> dict[str, Any]:
    """The same, for programs."""
    held = written.waits_for
    return {"waits_for": None if held is None else held.to_json(), "late": written.late}
