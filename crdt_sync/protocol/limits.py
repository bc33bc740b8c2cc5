"""Limits that both sides keep. The relay names its own in the challenge; these are what it names by default.

A peer that goes beyond one of them is closed with `TOO_LARGE` or `MALFORMED`. They exist so that no peer can
make the other hold more than a bounded amount of memory, whatever it sends.
"""

from __future__ import annotations

from typing import Final

import msgspec

PROTOCOL_VERSION: Final = 1
SUBPROTOCOL: Final = "crdt-sync.v1"
PATH: Final = "/v1/sync"

MAX_ENVELOPE_BYTES: Final = 1024 * 1024
"""One envelope. A record is a form with a photo or two, not a file store."""
MAX_FRAME_BYTES: Final = 4 * 1024 * 1024
"""One WebSocket message. Holds the largest envelope, and a useful batch of small ones."""
MAX_PUSH_ENVELOPES: Final = 1024
"""Envelopes in one `Push`. Bounds the time one frame takes in a group commit to some 30 ms of signatures."""
MAX_MEMBERSHIP_BYTES: Final = 16 * 1024
"""One entry of the membership log; the same as `membership.entries.MAX_ENTRY_BYTES`."""
WINDOW_BYTES: Final = 4 * 1024 * 1024
"""Delivered but not yet confirmed by `Got`. Covers 100 ms of round trip at 300 Mbit/s."""
MAX_COMPACT_RECORDS: Final = 64
"""Records in one `CompactRequest`; a snapshot each is an amount of work a phone does in one breath."""
MAX_FETCH_RECORDS: Final = 64
"""Records in one `FetchRecords`; the answer is cut to a frame, so this only bounds the question."""
MAX_AWAITED_ROWS: Final = 16
"""In one question about how far others have come."""
MAX_CHECKOUT_RECORDS: Final = 256
"""Records in one `CheckOut` or `CheckIn`. A rig's day is some hundred; the answer is 30 KB at most."""
MAX_LEASE_NOTES: Final = 8
"""Former holders, and late updates, that are told of one record: more than that nobody reads."""
DEFAULT_LEASE_MS: Final = 24 * 3_600_000
"""How long a record is checked out for when nobody says: a shift and the way home."""
MIN_LEASE_MS: Final = 1_000
MAX_LEASE_MS: Final = 7 * 24 * 3_600_000
"""Longer is cut to this: work that nobody else may touch for weeks is assigned, not checked out."""
HANDSHAKE_TIMEOUT_S: Final = 10.0
"""From the challenge to a valid answer; ample for a slow radio link, short for who only holds sockets."""
MAX_REASON_CHARS: Final = 500
"""Text meant for people in `Refuse`, `Bye` and the like."""
MAX_CLOSE_REASON_BYTES: Final = 123
"""RFC 6455 section 5.5: a control frame carries at most 125 bytes, two of them the close code."""


class Limits(msgspec.Struct, array_like=True, forbid_unknown_fields=True, frozen=True, gc=False):
    """The relay's limits, as they stand in the challenge."""

    max_frame_bytes: int = MAX_FRAME_BYTES
    max_envelope_bytes: int = MAX_ENVELOPE_BYTES
    max_push_envelopes: int = MAX_PUSH_ENVELOPES
    window_bytes: int = WINDOW_BYTES

    @property
    def got_every_bytes(self) -> int:
        """A device confirms at the latest when this much is unconfirmed.

        A quarter of the window: the relay never stalls on a device that keeps up, and a live edit does
        not cost each of its receivers a frame in return.
        """
        return max(1, self.window_bytes // 4)


DEFAULT_LIMITS: Final = Limits()
