"""The first look at a batch: all its envelopes parsed, all their signatures verified together.

Done before the transaction begins and for all connections at once, so that verifying, which is most of the
relay's work, can use a second core.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from crdt_sync.crypto.envelope import Envelope, Kind, parse
from crdt_sync.errors import BadSignature, CrdtSyncError, MalformedEnvelope, PermissionDenied
from crdt_sync.ids import DeviceId
from crdt_sync.protocol.frames import GiveBack, Push, PushSnapshot
from crdt_sync.protocol.limits import MAX_ENVELOPE_BYTES
from crdt_sync_server.effects import Arrival, Peer
from crdt_sync_server.signatures import Claim


class Checked:
    """The envelopes of one frame, and for each whether the peer's device signed it; or why they are none.

    From `admitted` on they are more than the device may send now, and their signatures were not looked at.
    """

    __slots__ = ("admitted", "envelopes", "error", "good")

    def __init__(
        self, envelopes: list[Envelope], error: CrdtSyncError | None = None, *, admitted: int | None = None
    ) -> None:
        self.envelopes = envelopes
        self.good = [False] * len(envelopes)
        self.error = error
        self.admitted = len(envelopes) if admitted is None else admitted


_NOTHING: Final = Checked([])


def check_envelopes(
    arrivals: Sequence[Arrival],
    sign_key_of: Callable[[Peer], bytes | None],
    verify: Callable[[Sequence[Claim]], list[bool]],
    admitted: Sequence[int | None],
) -> list[Checked]:
    """What each frame brings, of which `admitted` says how many may be looked at.

    Frames without envelopes bring nothing. Never raises for what a device sent.
    """
    results: list[Checked] = []
    claims: list[Claim] = []
    places: list[tuple[Checked, int]] = []
    for (peer, frame), may in zip(arrivals, admitted, strict=True):
        if isinstance(frame, Push):
            raws, kind = frame.envelopes, Kind.UPDATE
        elif isinstance(frame, PushSnapshot | GiveBack):
            raws, kind = [frame.envelope], Kind.SNAPSHOT
        else:
            results.append(_NOTHING)
            continue
        try:
            checked = Checked([_parsed(raw, kind, peer) for raw in raws], admitted=may)
            key = sign_key_of(peer) if raws else None
        except CrdtSyncError as exc:
            results.append(Checked([], exc))
            continue
        results.append(checked)
        if key is None or peer.author is None:
            continue
        device = peer.author.device
        for index, envelope in enumerate(checked.envelopes[: checked.admitted]):
            # Somebody else's envelope is refused without a look at its signature.
            if envelope.header.device == device:
                claims.append((envelope, key))
                places.append((checked, index))
    if claims:
        for (checked, index), good in zip(places, verify(claims), strict=True):
            checked.good[index] = good
    return results


def _parsed(raw: bytes, kind: Kind, peer: Peer) -> Envelope:
    envelope = parse(raw, max_bytes=MAX_ENVELOPE_BYTES)
    header = envelope.header
    if header.kind is not kind:
        raise MalformedEnvelope(f"header field kind: this frame takes envelopes of kind {kind.name.lower()}")
    if header.space != peer.space:
        raise MalformedEnvelope("header field space: not the space of this connection")
    return envelope


def check_signer(device: DeviceId, envelope: Envelope, good: bool) -> None:
    """Raises PermissionDenied or BadSignature; `good`: the signature fits the device that is named."""
    if envelope.header.device != device:
        raise PermissionDenied("a device pushes its own envelopes only")
    if not good:
        raise BadSignature("signature: does not fit; the envelope was changed, or another device made it")
