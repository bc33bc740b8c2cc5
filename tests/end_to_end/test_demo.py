"""The demo: ends by itself, proves what it shows, fails when a proof fails, leaves nothing behind."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "demo" / "run.py"


def test_the_demo_proves_what_it_shows(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", SCRIPT],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("✓") == 4
    assert "✗" not in done.stdout
    for shown in ("Tablet Ana", "Tablet Ben", "Office", "completion_notes", "provisional", "same content"):
        assert shown in done.stdout
    assert "\x1b" not in done.stdout, "plain in a pipe"
    assert len(done.stdout.splitlines()) < 80, "readable in a minute"
    assert list(tmp_path.iterdir()) == [], "cleans up"


@pytest.fixture
def demo(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    spec = importlib.util.spec_from_file_location("crdt_sync_demo", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "crdt_sync_demo", module)
    spec.loader.exec_module(module)
    return module


def test_it_fails_when_devices_differ(demo: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    async def digest(device: Any) -> str:
        return str(device.name)

    monkeypatch.setattr(demo, "digest", digest)
    assert demo.main() == 1


def test_it_fails_when_the_relay_holds_a_plaintext(demo: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    start = demo.start_relay

    def leaking(data: Path) -> Any:
        relay = start(data)
        (data / "debug.log").write_text("merged 'Bucket tooth missing, left corner'", encoding="utf-8")
        return relay

    monkeypatch.setattr(demo, "start_relay", leaking)
    assert demo.main() == 1
