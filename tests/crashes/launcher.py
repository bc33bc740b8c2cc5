"""The test's side of `life`: starts lives, kills them, and keeps account of what they said."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


class Account:
    """What lives said about their writes, by record or row."""

    def __init__(self) -> None:
        self.tried: Counter[str] = Counter()
        self.acknowledged: Counter[str] = Counter()
        self.kills = 0
        self.synced = 0

    def note(self, said: dict[str, Any]) -> None:
        self.tried.update(said.get("tried", ()))
        self.acknowledged.update(said.get("acknowledged", ()))
        self.synced += "synced" in said


class Launcher:
    """Runs lives one after the other. Use it in a `with` block."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.crashes.life"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
            cwd=ROOT,
        )

    def __enter__(self) -> Launcher:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(timeout=15)
        self._process.stdout.close()

    def run(self, plan: dict[str, Any], account: Account, *, kill_after_s: float | None = None) -> int:
        """Live that life to its end and return its exit status, negative for a signal.

        `kill_after_s`: kill it from outside then, if it is still there.
        """
        stdin = self._process.stdin
        assert stdin is not None
        stdin.write(json.dumps(plan) + "\n")
        stdin.flush()
        pid = self._line()["began"]
        timer = threading.Timer(kill_after_s or 0.0, os.kill, (pid, signal.SIGKILL))
        if kill_after_s is not None:
            timer.start()
        while "ended" not in (said := self._line()):
            account.note(said)
        timer.cancel()
        status = int(said["ended"])
        assert status in (0, -signal.SIGKILL), f"the device failed: {plan}"
        account.kills += status == -signal.SIGKILL
        return status

    def _line(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the launcher of lives has ended"
        said: dict[str, Any] = json.loads(line)
        return said
