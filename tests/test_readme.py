"""Runs what the README shows and compares what it prints: commands, Python and schema.

Ids, ports, tokens, times and sizes differ from run to run; they are compared by their shape only.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

README: Final = Path(__file__).resolve().parents[1] / "README.md"
PORT: Final = "8787"
"""The port in the README; the test takes a free one instead."""
NAMES: Final = re.compile(r"(?<=Setup token: )\S+|\b[0-9a-f]{32}\b")
"""The setup token and the ids of conflicts: what is printed once and typed later."""
SHAPES: Final = (
    (re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"), "<record>"),
    (re.compile(r"\b[0-9a-f]{32}\b"), "<id>"),
    (re.compile(r"\d{2} \w{3} \d{4} \d{2}:\d{2}:\d{2}"), "<moment>"),
    (re.compile(r"[\d.]+ (B|KiB) up, [\d.]+ (B|KiB) down"), "<bytes>"),
    (re.compile(r"in [\d.]+ s\b"), "in <time>"),
    (re.compile(r"\b[0-9a-f]{8}\b"), "<start of id>"),
    (re.compile(r"Setup token: \S+"), "Setup token: <token>"),
    (re.compile(r"127\.0\.0\.1:\d+"), "<relay>"),
    (re.compile(r"[ ─]{2,}"), "  "),
)


@dataclass(frozen=True)
class Block:
    """One fenced block of the README."""

    language: str
    text: str
    line: int


def blocks() -> list[Block]:
    found: list[Block] = []
    text = README.read_text(encoding="utf-8")
    for match in re.finditer(r"^```(\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        found.append(Block(match[1], match[2], text.count("\n", 0, match.start()) + 2))
    return found


def console_steps(block: Block) -> Iterator[tuple[str, str]]:
    """(command, expected output) of a console block."""
    command, output = "", ""
    for line in block.text.splitlines(keepends=True):
        if line.startswith("$ "):
            if command:
                yield command, output
            command, output = line[2:].rstrip("\n"), ""
        else:
            output += line
    yield command, output


def shape(text: str) -> str:
    for pattern, name in SHAPES:
        text = pattern.sub(name, text)
    return "\n".join(line.rstrip() for line in text.strip().splitlines())


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


class Shell:
    """One bash in which the commands of the README run one after the other."""

    def __init__(self, folder: Path) -> None:
        scripts = str(Path(sys.executable).parent)
        self._bash = subprocess.Popen(
            ["bash", "--norc"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=folder,
            env={**os.environ, "PATH": f"{scripts}:{os.environ['PATH']}", "PYTHONWARNINGS": "error"},
        )

    def run(self, command: str) -> tuple[str, int]:
        """Output and exit code of one command."""
        assert self._bash.stdin is not None
        assert self._bash.stdout is not None
        self._bash.stdin.write(f'{command}\necho "<end $?>"\n')
        self._bash.stdin.flush()
        lines: list[str] = []
        for line in self._bash.stdout:
            if end := re.search(r"<end (\d+)>\n$", line):
                return "".join(lines) + line[: end.start()], int(end[1])
            lines.append(line)
        raise AssertionError(f"bash ended in: {command}")

    def close(self) -> None:
        self._bash.communicate(timeout=15)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "keyring.backends.null.Keyring")
    for name in ("CRDT_SYNC_STORE", "CRDT_SYNC_PASSPHRASE", "CRDT_SYNC_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def test_the_example_runs_as_printed(folder: Path) -> None:
    session = Session(folder)
    printed = ""
    try:
        for block in blocks():
            if block.language == "console":
                for command, expected in console_steps(block):
                    output = session.run(command, expected)
                    assert shape(output) == shape(expected), f"README.md:{block.line}: {command}"
            elif block.language == "python":
                printed = run_python(block.text, folder)
            elif block.language == "text":
                assert shape(printed) == shape(block.text), f"README.md:{block.line}"
    finally:
        session.close()


class Session:
    """The commands of the README in order. What differs in this run is put in for what the README has."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._shell = Shell(folder)
        self._relay: subprocess.Popen[str] | None = None
        self._instead = {PORT: free_port()}

    def run(self, command: str, expected: str) -> str:
        """What the command prints."""
        for written, real in self._instead.items():
            command = command.replace(written, real)
        if "pip install" in command:
            return expected
        output = self._serve(command, expected) if "relay serve" in command else self._run(command)
        for written, real in zip(NAMES.findall(expected), NAMES.findall(output), strict=False):
            self._instead[written] = real
            self._instead[written[:8]] = real[:8]
        return output

    def _run(self, command: str) -> str:
        output, code = self._shell.run(command)
        assert code == 0, f"{command}: {output}"
        return output

    def _serve(self, command: str, expected: str) -> str:
        """The relay, in a terminal of its own."""
        program, *args = command.split()
        script = Path(sys.executable).parent / program
        self._relay = subprocess.Popen(
            [script, *args, "--port", self._instead.get(PORT, PORT)],
            cwd=self._folder,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._relay.stdout is not None
        return "".join(self._relay.stdout.readline() for _ in expected.splitlines())

    def close(self) -> None:
        self._shell.close()
        if self._relay is not None:
            self._relay.send_signal(signal.SIGTERM)
            self._relay.communicate(timeout=15)


def run_python(text: str, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", text], cwd=folder, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_schema_is_a_good_one() -> None:
    from crdt_sync.schemas.loader import load_schema

    (block,) = [block for block in blocks() if block.language == "yaml"]
    schema = load_schema(block.text, source="README.md")
    assert schema.fields["finding"].rule.name == "manual"


def test_every_link_leads_somewhere() -> None:
    text = README.read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)#]+)\)", text)
    assert links
    missing = [link for link in links if "://" not in link and not (README.parent / link).exists()]
    assert missing == []
