"""A relay process that a test may stop, kill and start again on the same data and port."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path


class RestartableRelay:
    """`crdt-sync relay serve` on loopback. Its address and data outlive each of its processes."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.port = 0
        self.url = ""
        self.setup_token = ""
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start, and return when it listens."""
        assert self._process is None
        command = [sys.executable, "-m", "crdt_sync_client.cli", "relay", "serve"]
        command += ["--data", str(self.data), "--port", str(self.port), "--json"]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"the relay ended with code {self._process.wait(timeout=15)}"
        listening = json.loads(line)
        self.url = listening["url"]
        self.port = int(self.url.rpartition(":")[2])
        self.setup_token = listening.get("setup_token") or self.setup_token

    def kill(self) -> None:
        """`kill -9`: no chance to write anything any more."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """End it as an operator would; returns its exit code, 0 if it is stopped already."""
        return self._end(signal.SIGTERM)

    def _end(self, how: signal.Signals) -> int:
        process, self._process = self._process, None
        if process is None:
            return 0
        process.send_signal(how)
        code = process.wait(timeout=15)
        assert process.stdout is not None
        process.stdout.close()
        return code
