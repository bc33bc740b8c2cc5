"""Padding: how long a plaintext is made before it is encrypted, so that sizes say little.

A padded plaintext is ``length u32 | payload | zeros``. Its total is a multiple of 64 bytes up to 1 KiB
and a Padmé size above it (Nikitin et al., "Reducing Metadata Leakage from Encrypted Files and
Communication with PURBs", 2019): at most 12 % longer, and log log n bits of the length remain visible.
A single-field edit and a small record therefore look alike to a relay; a photograph and an edit do not.

The sizes are a rule, not a courtesy: whoever parses an envelope refuses one that does not have such a
size, and whoever opens one refuses padding that is not zeros.
"""

from __future__ import annotations

from typing import Final

LENGTH_BYTES: Final = 4
BLOCK_BYTES: Final = 64
"""One single-field edit (33 to 39 bytes of update with its names) takes two or three blocks."""
PADME_FROM_BYTES: Final = 1024
"""From here Padmé's own steps are at least one block, so the two rules join without a jump."""


def padded_size(size_bytes: int) -> int:
    """The least permitted size that holds `size_bytes`; permitted sizes map to themselves."""
    if size_bytes <= PADME_FROM_BYTES:
        return max(BLOCK_BYTES, -(-size_bytes // BLOCK_BYTES) * BLOCK_BYTES)
    exponent = size_bytes.bit_length() - 1
    mask = (1 << (exponent - exponent.bit_length())) - 1
    return (size_bytes + mask) & ~mask


def pad(payload: bytes) -> bytes:
    """`payload` with its length in front and zeros behind."""
    framed = len(payload).to_bytes(LENGTH_BYTES, "big") + payload
    return framed.ljust(padded_size(len(framed)), b"\0")


def unpad(padded: bytes) -> bytes:
    """The payload in `padded`; raises ValueError for anything `pad` would not have made."""
    end = LENGTH_BYTES + int.from_bytes(padded[:LENGTH_BYTES], "big")
    if len(padded) < BLOCK_BYTES or end > len(padded) or padded_size(end) != len(padded):
        raise ValueError("the length in front does not fit the padded size")
    if padded.count(0, end) != len(padded) - end:
        raise ValueError("the padding is not zeros")
    return padded[LENGTH_BYTES:end]
