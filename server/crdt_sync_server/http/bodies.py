"""What travels in the HTTP API's bodies and queries. What is not as it stands here is refused.

Ids are hex, bytes are base64, times are Unix milliseconds.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from crdt_sync.protocol.limits import MAX_CHECKOUT_RECORDS, MAX_ENVELOPE_BYTES, MAX_LEASE_MS

MAX_PAGE: Final = 500
DEFAULT_PAGE: Final = 200
MAX_WAIT_S: Final = 30
"""Of a long poll: below the minute after which proxies give up."""
MAX_LABEL_CHARS: Final = 100
BEARER: Final = "Bearer"

NONCE_BYTES: Final = 40
SIGNATURE_BYTES: Final = 64


def _base64(size_bytes: int) -> str:
    """The pattern of so many bytes, no multiple of three, in base64. Unused bits are zero."""
    full, rest = divmod(size_bytes, 3)
    last = "[A-Za-z0-9+/][AQgw]==" if rest == 1 else "[A-Za-z0-9+/]{2}[AEIMQUYcgkosw048]="
    return f"^[A-Za-z0-9+/]{{{4 * full}}}{last}$"


Id = Annotated[str, Meta(pattern="^[0-9a-f]{32}$", description="16 bytes as hex")]
_ANY_BASE64: Final = (
    "^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{4}|[A-Za-z0-9+/][AQgw]==|[A-Za-z0-9+/]{2}[AEIMQUYcgkosw048]=)$"
)
Envelope = Annotated[
    bytes,
    Meta(min_length=1, max_length=MAX_ENVELOPE_BYTES, extra_json_schema={"pattern": _ANY_BASE64}),
]
Cursor = Annotated[int, Meta(ge=0, le=2**53 - 1)]
Page = Annotated[int, Meta(ge=1, le=MAX_PAGE)]
Records = Annotated[list[Id], Meta(min_length=1, max_length=MAX_CHECKOUT_RECORDS)]
Wait = Annotated[int, Meta(ge=0, le=MAX_WAIT_S, description="seconds to wait for something to come")]


class Body(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Base of what is sent to the relay."""


class Answer(msgspec.Struct, kw_only=True):
    """Base of what the relay answers."""


# Operating


class Health(Answer):
    """The process is alive."""

    status: Literal["ok"]
    version: str
    connections: int


class Readiness(Answer):
    """Whether devices are served, and if not why."""

    status: Literal["ready", "draining", "storage"]


# Tokens


class Challenge(Answer):
    """Sign `crdt-sync/token/v1` || nonce || relay_id || space || device || incarnation (u32, big-endian)."""

    nonce: bytes
    relay_id: Id
    now_ms: int
    expires_in_s: int


class TokenRequest(Body):
    """The proof that a device has its key."""

    space: Id
    device: Id
    incarnation: Annotated[int, Meta(ge=1, le=2**32 - 1)]
    nonce: Annotated[str, Meta(pattern=_base64(NONCE_BYTES))]
    signature: Annotated[str, Meta(pattern=_base64(SIGNATURE_BYTES))]
    agent: Annotated[str, Meta(max_length=100)] = ""


class Token(Answer):
    """A bearer token for one space."""

    access_token: str
    token_type: Literal["Bearer"]
    expires_in_s: int


# Spaces


class SpaceView(Answer):
    """What a relay knows of a space. It knows no name and no content."""

    space: Id
    head: int
    size_bytes: int
    quota_bytes: int | None
    members: int
    connections: int


class DeviceView(Answer):
    """A device in a space. `lag` is how many rows of the log it has not been given yet."""

    device: Id
    role: str
    label: str
    agent: str
    app: str
    os: str
    connected: bool
    first_seen_ms: int | None
    last_seen_ms: int | None
    last_sync_ms: int | None
    cursor: int
    lag: int
    revoked_ms: int | None
    """Since when the relay's operator has shut it out."""


class Devices(Answer):
    """All members of a space, seen or not."""

    head: int
    devices: list[DeviceView]


class Label(Body):
    """A name for people who look at the relay. It is not encrypted."""

    label: Annotated[str, Meta(max_length=MAX_LABEL_CHARS)]


class LogQuery(Body):
    """Which rows. `own=false` leaves out what this device and incarnation pushed."""

    after: Cursor = 0
    limit: Page = DEFAULT_PAGE
    wait_s: Wait = 0
    own: bool = True


class LogRow(Answer):
    """A row of the log."""

    sequence: int
    kind: Literal["update", "snapshot", "membership", "lease"]
    payload: bytes


class LogPage(Answer):
    """Rows in order. Who has them stands at `cursor`; `at_end` says that was all there is."""

    rows: list[LogRow]
    cursor: int
    at_end: bool
    head: int


class Envelopes(Body):
    """Updates in the order of their chain."""

    envelopes: Annotated[list[Envelope], Meta(min_length=1, max_length=MAX_PAGE)]


class FormerView(Answer):
    """A lease that ended before its holder gave the record back: work may still be with it."""

    device: Id
    token: int
    ended_ms: int


class LateView(Answer):
    """Updates `first` to `last` of a device that came after its lease had ended. They were merged."""

    device: Id
    token: int
    ended_ms: int
    incarnation: int
    first: int
    last: int
    at_ms: int


class LeaseView(Answer):
    """Who has, or last had, a record to itself. Times are the relay's.

    `in_force`: it holds others off now. `row` is its place in the log.
    """

    record: Id
    device: Id
    token: int
    since_ms: int
    expires_ms: int
    state: Literal["held", "returned", "broken"]
    in_force: bool
    row: int
    former: list[FormerView]
    late: list[LateView]


class PushResult(Answer):
    """What became of one envelope. After one that was refused the rest is not tried.

    What is no envelope of this space has incarnation and sequence 0. With the code `checked_out` another
    device has the record, as `lease` says; nothing of the push was stored then, but what was there before.
    """

    incarnation: int
    sequence: int
    status: Literal["stored", "refused", "not_tried"]
    code: str = ""
    reason: str = ""
    lease: LeaseView | None = None


class Pushed(Answer):
    """One result for each envelope, in their order.

    After `rate_limited` the rest does best to come `retry_after_s` later; null otherwise.
    """

    results: list[PushResult]
    head: int
    retry_after_s: int | None


# Checkouts


class CheckoutsQuery(Body):
    """Which leases: of rows behind `after`. `all=true`: those too that are not in force any more."""

    after: Cursor = 0
    limit: Page = DEFAULT_PAGE
    all: bool = False


class CheckoutsPage(Answer):
    """Leases in the order of their last change; ask on with `after` set to `cursor`."""

    checkouts: list[LeaseView]
    cursor: int
    at_end: bool
    now_ms: int


class CheckOutBody(Body):
    """Which records, for how long (0: a day); what this device has is renewed and never made shorter.

    `newest_token`: the greatest token that this device knows of.
    """

    records: Records
    ttl_s: Annotated[int, Meta(ge=0, le=MAX_LEASE_MS // 1000)] = 0
    newest_token: Cursor = 0


class CheckInBody(Body):
    """Which records."""

    records: Records


class CheckoutResultView(Answer):
    """What became of one record, and how its lease stands now; null if nobody ever had the record."""

    record: Id
    code: str
    """`granted`, `renewed`, `returned`, `broken`, or why not: `checked_out`, `not_held`, `permission`."""
    lease: LeaseView | None


class CheckoutResults(Answer):
    """One for each record, in their order."""

    results: list[CheckoutResultView]
    now_ms: int


# The audit log


class AuditQuery(Body):
    """Which events."""

    after: Cursor = 0
    limit: Page = DEFAULT_PAGE


class AuditView(Answer):
    """Something that happened."""

    number: int
    at_ms: int
    device: Id | None
    event: str
    detail: dict[str, int | str]


class AuditPage(Answer):
    """Events in order; ask on with `after` set to the number of the last."""

    events: list[AuditView]


# Frames over HTTP


class Opened(Answer):
    """A tunnel for the frames of the socket. Send its token as bearer token."""

    tunnel_token: str
    max_message_bytes: int
    idle_s: int


class TunnelQuery(Body):
    """How long to wait for messages."""

    wait_s: Wait = 25


class Taken(Answer):
    """Messages were taken. `sent` counts what the relay has sent so far in this tunnel."""

    sent: int
