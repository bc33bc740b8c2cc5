"""The systemd unit and the container file, read as what they say will be run."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

SERVER = Path(__file__).parents[2] / "server"
UNIT = SERVER / "crdt-sync-relay.service"
CONTAINERFILE = SERVER / "Containerfile"
INSTALLED = "/opt/crdt-sync/bin"
"""Where both of them put the program."""
HERE = str(Path(sys.executable).parent)


def unit() -> dict[str, list[str]]:
    """The unit's settings: all values of each, over all sections."""
    found: dict[str, list[str]] = {}
    for line in UNIT.read_text().splitlines():
        if "=" in line and not line.startswith("#"):
            name, _, value = line.partition("=")
            found.setdefault(name, []).append(value)
    return found


@dataclass
class Container:
    """What a container file sets in its last stage."""

    env: dict[str, str] = field(default_factory=dict)
    entrypoint: list[str] = field(default_factory=list)
    cmd: list[str] = field(default_factory=list)
    healthcheck: list[str] = field(default_factory=list)
    words: dict[str, list[str]] = field(default_factory=dict)
    """Of every other instruction: its arguments, one text for each time that it stands there."""

    @classmethod
    def read(cls) -> Container:
        text = "\n".join(line for line in CONTAINERFILE.read_text().splitlines() if not line.startswith("#"))
        found = cls()
        for line in re.sub(r"\s*\\\n\s*", " ", text).splitlines():
            name, _, rest = line.partition(" ")
            match name:
                case "":
                    pass
                case "FROM":
                    found = cls(words={"FROM": [*found.words.get("FROM", []), rest]})
                case "ENV":
                    found.env |= dict(each.split("=", 1) for each in shlex.split(rest))
                case "ENTRYPOINT":
                    found.entrypoint = json.loads(rest)
                case "CMD":
                    found.cmd = json.loads(rest)
                case "HEALTHCHECK":
                    found.healthcheck = json.loads(rest[rest.index("CMD ") + 4 :])
                case _:
                    found.words.setdefault(name, []).append(rest)
        return found


def relay_toml(path: Path, data: Path, port: int) -> None:
    """The shipped settings file, for another directory and port."""
    text = (SERVER / "relay.toml").read_text()
    given = tomllib.loads(text)
    text = text.replace(f'"{given["data"]}"', json.dumps(str(data)))
    path.write_text(text.replace(f"port = {given['port']}", f"port = {port}"))
    path.chmod(0o600)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


class Served:
    """A relay started with a command line of one of those files, and nothing else in its environment."""

    def __init__(self, command: list[str], env: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={"PATH": os.environ["PATH"], **env},
            text=True,
        )
        assert self.process.stdout is not None
        self.lines: list[str] = []
        for line in self.process.stdout:
            self.lines.append(line.strip())
            if line.startswith("Setup token"):
                break
        assert self.lines, self.process.communicate()[1]
        self.url = self.lines[0].split()[-1]
        self.token = self.lines[1].split()[-1]

    def end(self, number: signal.Signals, timeout_s: float) -> tuple[int, list[dict[str, str]]]:
        """Send a signal; exit code and the log, which is in JSON."""
        self.process.send_signal(number)
        _, errors = self.process.communicate(timeout=timeout_s)
        return self.process.returncode, [json.loads(line) for line in errors.splitlines()]

    def __enter__(self) -> Served:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()
