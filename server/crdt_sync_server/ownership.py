"""Files that an operator makes for a relay belong to the relay's user.

An operator is often root, and the relay is not: what root makes in the relay's directory with mode 0600 the
relay could not read when it needs it. Only root can give files away, and only root has to.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path


def hand_over(path: Path, directory: Path) -> None:
    """Give `path`, and all in it, to the owner of `directory`. Nothing happens unless this is root's.

    Raises OSError.
    """
    if sys.platform == "win32" or os.geteuid() != 0:
        return
    owner = directory.stat()
    for each in (path, *(path.rglob("*") if path.is_dir() and not path.is_symlink() else ())):
        os.chown(each, owner.st_uid, owner.st_gid, follow_symlinks=False)
