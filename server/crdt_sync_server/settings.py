"""The relay's settings: one table, which its flags, environment, file and documentation are made of.

A setting has one name in three spellings: `max_frame` in the file, `CRDT_SYNC_RELAY_MAX_FRAME` in the
environment, `--max-frame` as a flag. `setting_sources` says which counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click

from crdt_sync.errors import LocalError
from crdt_sync.protocol.limits import (
    MAX_ENVELOPE_BYTES,
    MAX_FRAME_BYTES,
    MAX_PUSH_ENVELOPES,
    WINDOW_BYTES,
    Limits,
)
from crdt_sync_server import limits
from crdt_sync_server.limits import RelayLimits
from crdt_sync_server.setting_types import Duration, Rate, Secret, Size, Whole

ENV_PREFIX: Final = "CRDT_SYNC_RELAY_"
DEFAULT_PORT: Final = 8787
_FRAME_ROOM: Final = 16 * 1024
"""What a frame needs beside its one envelope."""


class SettingError(LocalError):
    """A setting that cannot be."""

    code = "config"


@dataclass(frozen=True, slots=True)
class Setting:
    """One of them. `why` says why the default is what it is, for the operator's guide."""

    name: str
    type: click.ParamType[Any]
    default: Any
    help: str
    why: str = ""

    @property
    def env(self) -> str:
        return ENV_PREFIX + self.name.upper()

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")

    @property
    def secret(self) -> bool:
        return isinstance(self.type, Secret)

    def show(self, value: Any) -> str:
        """The value as it may be shown and, but for secrets, as it may be written."""
        if value is None:
            return "–"
        if isinstance(value, bool):
            return "true" if value else "false"
        written = getattr(self.type, "written", str)
        return str(written(value))


SETTINGS: Final = (
    Setting(
        "data",
        click.Path(path_type=Path, readable=False),  # DataDir says more of what is wrong with one
        None,
        "The relay's data directory; made if it is new.",
    ),
    Setting("host", click.STRING, "127.0.0.1", "Address to listen on.", "nobody else until you say so"),
    Setting("port", Whole(0, 65535), DEFAULT_PORT, "Port to listen on; 0 takes any free one."),
    Setting(
        "log_level",
        click.Choice(["debug", "info", "warning", "error"]),
        "warning",
        "What is logged at least.",
    ),
    Setting("log_format", click.Choice(["text", "json"]), "text", "Log text, or a JSON object a line."),
    Setting(
        "drain",
        Duration(0, 600),
        5,
        "On SIGTERM, how long devices may take to hear it.",
        "an acknowledgement over a slow radio link",
    ),
    Setting(
        "http_api",
        click.BOOL,
        True,
        "Serve the HTTP API beside the socket.",
        "some networks let no WebSocket pass",
    ),
    Setting("metrics", click.BOOL, True, "Serve /metrics for Prometheus.", "sums only, no ids of anybody"),
    Setting("metrics_token", Secret(), None, "Bearer token that /metrics asks for; best in the environment."),
    Setting(
        "token_ttl",
        Duration(60, 3600),
        600,
        "How long an access token of the HTTP API is good.",
        "a stolen one is of little use; a device renews it by itself",
    ),
    Setting("audit_days", Whole(1, 3650), 90, "Days to keep the audit log.", "a quarter of a year"),
    Setting(
        "max_frame",
        Size(64 * 1024, MAX_FRAME_BYTES),
        MAX_FRAME_BYTES,
        "Largest message.",
        "the largest envelope, and a useful batch of small ones",
    ),
    Setting(
        "max_envelope",
        Size(16 * 1024, MAX_ENVELOPE_BYTES),
        MAX_ENVELOPE_BYTES,
        "Largest envelope.",
        "a form with a photo or two, not a file store",
    ),
    Setting(
        "max_push",
        Whole(1, MAX_PUSH_ENVELOPES),
        MAX_PUSH_ENVELOPES,
        "Most envelopes in one push.",
        "some 30 ms of signatures in a commit for which others wait",
    ),
    Setting(
        "window",
        Size(64 * 1024, 16 * WINDOW_BYTES),
        WINDOW_BYTES,
        "Bytes delivered and not yet confirmed.",
        "100 ms of round trip at 300 Mbit/s; a slow device costs no more memory than that",
    ),
    Setting(
        "max_record",
        Size(64 * 1024, 2**40, off=True),
        limits.RECORD_BYTES,
        "Most bytes stored for one record.",
        "eight snapshots of the largest size",
    ),
    Setting(
        "space_quota",
        Size(MAX_FRAME_BYTES, 2**50, off=True),
        limits.SPACE_BYTES,
        "Most bytes stored for one space.",
        "five million records; a hundred times a large site",
    ),
    Setting(
        "update_rate",
        Rate(1, 10**6),
        limits.UPDATES_PER_S,
        "Updates a second from one device.",
        "a person makes a few a minute; this is for imports",
    ),
    Setting(
        "update_burst",
        Whole(1, 10**9),
        limits.UPDATES_BURST,
        "Updates at once before that rate holds.",
        "an import of 100,000 records, or weeks of work, goes in one",
    ),
    Setting(
        "byte_rate",
        Size(64 * 1024, 2**40, off=True),
        limits.BYTES_PER_S,
        "Bytes of updates a second from one device.",
        "more than a site's uplink",
    ),
    Setting(
        "byte_burst",
        Size(MAX_FRAME_BYTES, 2**40),
        limits.BYTES_BURST,
        "Bytes at once before that rate holds.",
        "the burst of updates at 2.5 KB each",
    ),
    Setting(
        "max_connections",
        Whole(1, 10**6),
        limits.CONNECTIONS,
        "Most connections.",
        "some 40 KB each; twice the fleet one relay is sized for",
    ),
    Setting(
        "max_device_connections",
        Whole(1, 10**4),
        limits.DEVICE_CONNECTIONS,
        "Most connections of one device.",
        "one for each space it is in",
    ),
)
BY_NAME: Final[Mapping[str, Setting]] = {setting.name: setting for setting in SETTINGS}
CHECK: Final = "`crdt-sync relay config` shows what is in force and where it comes from"


def limits_of(values: Mapping[str, Any]) -> RelayLimits:
    """The limits among the values. Raises SettingError for two that do not fit together."""
    if values["max_envelope"] + _FRAME_ROOM > values["max_frame"]:
        raise SettingError(
            f"max_envelope is {BY_NAME['max_envelope'].show(values['max_envelope'])}, which does not fit"
            f" max_frame ({BY_NAME['max_frame'].show(values['max_frame'])}): a frame is 16 KiB larger",
            hint=f"raise max_frame or lower max_envelope; {CHECK}",
        )
    return RelayLimits(
        wire=Limits(values["max_frame"], values["max_envelope"], values["max_push"], values["window"]),
        record_bytes=values["max_record"],
        space_bytes=values["space_quota"],
        updates_per_s=values["update_rate"],
        updates_burst=values["update_burst"],
        bytes_per_s=values["byte_rate"],
        bytes_burst=values["byte_burst"],
        connections=values["max_connections"],
        device_connections=values["max_device_connections"],
    )
