"""The relay's data directory: its database, and the fingerprint of the setup token.

    relay.sqlite3         the logs, mode 0600
    setup-token.sha256    hex SHA-256 of the setup token, mode 0600
    take-back-until       until when (Unix milliseconds) members may bring back spaces that are not here

Whoever has the setup token may create spaces, as often as they like, until the operator makes a new one. The
token itself is shown once and stored nowhere. Its fingerprint is a file of its own, so that it can be
replaced while the relay runs: the relay reads it whenever it is asked.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from pathlib import Path
from typing import Final

from crdt_sync.ids import Entropy, b64url
from crdt_sync_server.ownership import hand_over
from crdt_sync_server.storage.port import DataDirError

_TOKEN_BYTES: Final = 24
"""192 bits: cannot be guessed, and fits on a line."""
_DATABASE: Final = "relay.sqlite3"
_TAKE_BACK: Final = "take-back-until"
_FINGERPRINT: Final = "setup-token.sha256"
_CHOOSE: Final = "choose another directory with --data"


class DataDir:
    """See the module. `open` checks that the directory is ours, or makes it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.database = path / _DATABASE
        self._fingerprint = path / _FINGERPRINT
        self._take_back = path / _TAKE_BACK

    @classmethod
    def open(cls, path: Path, *, create: bool = True) -> DataDir:
        """The directory, new or ours. Raises DataDirError."""
        data_dir = cls(path)
        try:
            if not create and not data_dir.database.exists():
                raise DataDirError(f"{path} is not a relay's data directory", hint=_CHOOSE)
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            names = {entry.name for entry in os.scandir(path)}
        except PermissionError:
            raise DataDirError(
                f"{path} cannot be used: permission denied", hint="do it as the relay's user, or as root"
            ) from None
        except OSError as exc:
            raise DataDirError(
                f"{path} cannot be used as a directory: {exc.strerror}", hint=_CHOOSE
            ) from None
        if names and _DATABASE not in names:
            raise DataDirError(f"{path} has other files in it and no relay's database", hint=_CHOOSE)
        lost = _FINGERPRINT in names and f"{_DATABASE}-wal" not in names
        if lost and data_dir.database.stat().st_size == 0:
            raise DataDirError(
                f"{data_dir.database} is empty, though a relay has served it: its content is lost",
                hint="put a backup back (crdt-sync relay restore), or start on an empty directory",
            )
        if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
            raise DataDirError(f"{path} cannot be written", hint="do it as the relay's user, or as root")
        return data_dir

    def first_token(self, entropy: Entropy) -> str | None:
        """The setup token, if there has been none so far."""
        return None if self._fingerprint.exists() else self.new_token(entropy)

    def new_token(self, entropy: Entropy) -> str:
        """Make a new setup token; the one before is not valid any more. Raises DataDirError."""
        token = b64url(entropy(_TOKEN_BYTES))
        try:
            self._write(self._fingerprint, _fingerprint_of(token))
        except OSError as exc:
            raise self._unwritable(exc) from None
        return token

    def token_is_right(self, token: str) -> bool:
        """Whether this is the setup token now."""
        try:
            expected = self._fingerprint.read_text().strip()
        except OSError:
            return False
        return secrets.compare_digest(_fingerprint_of(token), expected)

    def take_back(self, until_ms: int) -> None:
        """Let members bring back spaces until then; 0 ends it at once. Raises DataDirError."""
        try:
            self._write(self._take_back, str(until_ms))
        except OSError as exc:
            raise self._unwritable(exc) from None

    def takes_back(self, now_ms: int) -> bool:
        """Whether that is so now."""
        try:
            return now_ms < int(self._take_back.read_text())
        except (OSError, ValueError):
            return False

    def _write(self, path: Path, line: str) -> None:
        """Put a small file in the place of what it was, or leave that as it is. Raises OSError."""
        temporary = path.with_name(f"{path.name}.new")
        try:
            descriptor = os.open(temporary, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(line + "\n")
                file.flush()
                os.fsync(file.fileno())
            hand_over(temporary, self.path)
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise

    def _unwritable(self, exc: OSError) -> DataDirError:
        return DataDirError(
            f"{self.path} cannot be written: {exc.strerror}",
            hint="check the owner and mode of the directory, and the space on the disk",
        )

    def __repr__(self) -> str:
        return f"DataDir({str(self.path)!r})"


def _fingerprint_of(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
