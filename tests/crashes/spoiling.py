"""Damage to pages of a store: by a disk that forgets, and by memory that fails before one is written."""

from __future__ import annotations

import hmac
import random
import struct
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from crdt_sync_client.store.connection import PAGE_BYTES, SALT_BYTES
from crdt_sync_client.store.pages import USABLE_BYTES, PageKey

_VECTOR_END: Final = USABLE_BYTES + 16
_FILE_HEADER_BYTES: Final = 100
_NEAR_THE_START: Final = 120
"""Where a page says how many cells it has and where they are: a flip there costs most."""


def flip(path: Path, pages: list[int], chance: random.Random) -> None:
    """One bit of each page changes on the disk: the page does not verify any more."""
    content = bytearray(path.read_bytes())
    for page in pages:
        at = (page - 1) * PAGE_BYTES + chance.randrange(SALT_BYTES, PAGE_BYTES)
        content[at] ^= 1 << chance.randrange(8)
    path.write_bytes(content)


def spoil(path: Path, key: bytes, number: int, chance: random.Random) -> None:
    """Some bits of a page change in memory, so that it verifies and holds what nobody wrote."""
    content = bytearray(path.read_bytes())
    page_key = PageKey(key, bytes(content[:SALT_BYTES]))
    start = (number - 1) * PAGE_BYTES
    page = bytes(content[start : start + PAGE_BYTES])
    plain = page_key.open(number, page)
    assert plain is not None
    spoilt = bytearray(plain)
    first = _FILE_HEADER_BYTES if number == 1 else 0
    for _ in range(chance.choice((1, 3, 20))):
        end = first + _NEAR_THE_START if chance.random() < 0.5 else USABLE_BYTES
        spoilt[chance.randrange(first, end)] ^= 1 << chance.randrange(8)
    content[start : start + PAGE_BYTES] = _sealed(page_key, key, number, bytes(spoilt), page)
    path.write_bytes(content)


def _sealed(page_key: PageKey, key: bytes, number: int, plain: bytes, page: bytes) -> bytes:
    """The page as SQLCipher writes it; `page` is as it was, for its vector and the file's salt."""
    salt_end = SALT_BYTES if number == 1 else 0
    vector = page[USABLE_BYTES:_VECTOR_END]
    encryptor = Cipher(algorithms.AES256(key), modes.CBC(vector)).encryptor()
    body = encryptor.update(plain[salt_end:]) + encryptor.finalize()
    signed = body + vector + struct.pack("<I", number)
    return page[:salt_end] + body + vector + hmac.digest(page_key._hmac_key, signed, "sha512")
