"""A peer sent something that cannot be."""

from __future__ import annotations

from crdt_sync.errors.base import CrdtSyncError


class RemoteError(CrdtSyncError):
    """A peer sent something that cannot be; it was refused and changed nothing."""

    code = "remote"


class MalformedFrame(RemoteError):
    code = "malformed_frame"


class DamagedFrame(MalformedFrame):
    """Its checksum does not fit: not what the peer sent. Connecting again helps."""

    code = "damaged_frame"


class ProtocolViolation(RemoteError):
    """A well-formed frame at a moment when it may not be sent."""

    code = "protocol_violation"


class VersionMismatch(ProtocolViolation):
    """The two sides speak no version of the protocol in common; one has to be updated."""

    code = "version"


class FrameTooLarge(RemoteError):
    code = "too_large"


class MalformedEnvelope(RemoteError):
    code = "malformed_envelope"


class BadSignature(RemoteError):
    code = "bad_signature"


class DecryptionFailed(RemoteError):
    code = "decryption_failed"


class UnknownMember(RemoteError):
    code = "unknown_member"


class UnknownEpoch(RemoteError):
    code = "unknown_epoch"


class ChainBroken(RemoteError):
    """An envelope that does not follow its author's previous one."""

    code = "chain_broken"


class Equivocation(RemoteError):
    """Two different envelopes of one author with the same sequence number."""

    code = "equivocation"


class BadUpdate(RemoteError):
    code = "bad_update"


class NotAllowed(RemoteError):
    """An update by a device whose role may not write, or not delete, records of its type."""

    code = "not_allowed"


class TypeNotKnown(RemoteError):
    """An update of a record type whose schema has not come yet: nobody can say who may write it."""

    code = "type_unknown"


class BadMembership(RemoteError):
    code = "bad_membership"


class ForkedLog(BadMembership):
    """A relay lost the entry that let this device in, and the device cannot bring it back."""

    code = "forked_log"
