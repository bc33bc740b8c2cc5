"""A store's pages, decrypted one by one, so that a damaged one takes no other with it.

SQLCipher refuses a whole query when a page of it does not verify, and the whole file when that is the first.
To say what is damaged, and to save the rest, pages are read here as SQLCipher 4 keeps them: 4,016 bytes under
AES-256-CBC, their 16-byte initialisation vector, and an HMAC-SHA512 over both and the page's number. (Its
source: `sqlcipher_page_cipher` and `sqlcipher_page_hmac`; the key of the HMAC is derived in
`sqlcipher_cipher_ctx_key_derive`.) Nothing decrypted leaves memory, and nothing is written.

The write-ahead log is read as SQLite does when it opens a database (https://www.sqlite.org/fileformat2.html,
section 4), with one difference. SQLite ends at the first frame whose checksum is wrong; committed frames
behind it are lost silently. Here those that verify by themselves still count, and it is said.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from crdt_sync_client.store.connection import PAGE_BYTES, SALT_BYTES

USABLE_BYTES: Final = 4016
"""Of a page, without its initialisation vector (16) and HMAC (64)."""
_VECTOR_END: Final = USABLE_BYTES + 16
_HEADER: Final = b"SQLite format 3\0"
_SALT_MASK: Final = 0x3A
_WAL_HEADER_BYTES: Final = 32
_FRAME_HEADER_BYTES: Final = 24
_WAL_MAGIC: Final = 0x377F0682
"""The last bit says in which byte order checksums are taken."""


@dataclass(slots=True)
class Pages:
    """The pages of a file by number, from 1; those in `bad` did not verify and are not in `good`."""

    good: dict[int, bytes] = field(default_factory=dict)
    bad: set[int] = field(default_factory=set)
    count: int = 0
    bad_frames: int = 0
    """Changed pages in the write-ahead log that did not verify, or come after one that did not."""


class PageKey:
    """Decrypts the pages of one file."""

    def __init__(self, key: bytes, salt: bytes) -> None:
        self._key = algorithms.AES256(key)
        masked = bytes(byte ^ _SALT_MASK for byte in salt)
        self._hmac_key = hashlib.pbkdf2_hmac("sha512", key, masked, 2, 32)

    def open(self, number: int, page: bytes) -> bytes | None:
        """The content of a page (4,016 bytes), None when it is not what was written."""
        start = SALT_BYTES if number == 1 else 0
        signed = page[start:_VECTOR_END] + struct.pack("<I", number)
        if not hmac.compare_digest(hmac.digest(self._hmac_key, signed, "sha512"), page[_VECTOR_END:]):
            return None
        decryptor = Cipher(self._key, modes.CBC(page[USABLE_BYTES:_VECTOR_END])).decryptor()
        content = decryptor.update(page[start:USABLE_BYTES]) + decryptor.finalize()
        return _HEADER + content if number == 1 else content


def read_pages(path: str | os.PathLike[str], key: bytes, salt: bytes) -> Pages:
    """Every page as of the last commit. `key` is the file's 32 bytes. Raises OSError.

    Takes the store's size in memory, and about 1 s per 100 MB.
    """
    found, opener = Pages(), PageKey(key, salt)
    with Path(path).open("rb") as file:
        number = 0
        while page := file.read(PAGE_BYTES):
            number += 1
            content = opener.open(number, page) if len(page) == PAGE_BYTES else None
            if content is None:
                found.bad.add(number)
            else:
                found.good[number] = content
        found.count = number
    wal = Path(f"{os.fspath(path)}-wal")
    if wal.exists():
        _take_wal(found, opener, wal.read_bytes())
    return found


def key_fits(path: str | os.PathLike[str], key: bytes, salt: bytes) -> bool:
    """Whether any page verifies under that key: then it is the key, whatever the first page says."""
    opener = PageKey(key, salt)
    with Path(path).open("rb") as file:
        number = 0
        while len(page := file.read(PAGE_BYTES)) == PAGE_BYTES:
            number += 1
            if opener.open(number, page) is not None:
                return True
    return False


def _take_wal(found: Pages, opener: PageKey, wal: bytes) -> None:
    """Put the pages of committed transactions in the place of what the file has."""
    if len(wal) < _WAL_HEADER_BYTES:
        return
    magic = struct.unpack(">I", wal[:4])[0]
    if magic & ~1 != _WAL_MAGIC:
        return
    order = ">" if magic & 1 else "<"
    salts = wal[16:24]
    sums = _checksum(order, wal[:24], (0, 0))
    sound = struct.pack(">II", *sums) == wal[24:32]
    waiting: dict[int, bytes | None] = {}
    size = _FRAME_HEADER_BYTES + PAGE_BYTES
    for start in range(_WAL_HEADER_BYTES, len(wal) - size + 1, size):
        header = wal[start : start + _FRAME_HEADER_BYTES]
        if header[8:16] != salts:
            break  # of an earlier round of the log
        page = wal[start + _FRAME_HEADER_BYTES : start + size]
        number, pages_after = struct.unpack(">II", header[:8])
        if sound:
            sums = _checksum(order, page, _checksum(order, header[:8], sums))
            sound = struct.pack(">II", *sums) == header[16:24]
        content = opener.open(number, page)
        if content is None or not sound:
            found.bad_frames += 1
        waiting[number] = content
        if pages_after:
            _commit(found, waiting, pages_after)
            waiting = {}


def _commit(found: Pages, changed: dict[int, bytes | None], pages_after: int) -> None:
    for number, content in changed.items():
        if content is not None:
            found.good[number] = content
            found.bad.discard(number)
        elif number not in found.good:
            found.bad.add(number)  # what the file has of it, if it has, is older but was sound
    found.count = max(pages_after, 1)
    for number in [number for number in found.good if number > found.count]:
        del found.good[number]
    found.bad = {number for number in found.bad if number <= found.count}


def _checksum(order: str, data: bytes, sums: tuple[int, int]) -> tuple[int, int]:
    first, second = sums
    numbers = struct.unpack(f"{order}{len(data) // 4}I", data)
    for at in range(0, len(numbers), 2):
        first = (first + numbers[at] + second) & 0xFFFFFFFF
        second = (second + numbers[at + 1] + first) & 0xFFFFFFFF
    return first, second
