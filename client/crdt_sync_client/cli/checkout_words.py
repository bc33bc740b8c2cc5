"""How commands say who has a record checked out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from .output import Output, local_time

if TYPE_CHECKING:
    from crdt_sync_client import WriteResult
    from crdt_sync_client.checkout_values import Checkout


def who_until(held: Checkout) -> str:
    """As in `Rig 7 until 21 Nov 2026 17:40:00`."""
    return f"{'this device' if held.own else held.device} until {local_time(held.until_at)}"


def in_words(checkout: Checkout) -> Iterator[str]:
    """Who has it, how this device lost it, and what came too late."""
    if checkout.state == "held":
        yield f"checked out by {who_until(checkout)}"
    elif checkout.state == "taken":
        yield f"was checked out by this device; since then checked out by {who_until(checkout)}"
    elif checkout.own and checkout.state != "returned":
        ended = "broken by an admin at" if checkout.state == "broken" else "over since"
        yield f"was checked out by this device: {ended} {local_time(checkout.until_at)}"
    for late in checkout.late:
        yield (
            f"late: {late.device} sent work at {local_time(late.at)}, after its checkout had ended"
            f" at {local_time(late.ended_at)}"
        )


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
