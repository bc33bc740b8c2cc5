"""What a relay counts, for Prometheus. Sums only: no id of a space or a device, nobody is watched by it.

How often records conflict is not among them: a relay cannot know. Devices count that.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)

from crdt_sync.protocol.frames import CheckedOut, Refuse, RowKind
from crdt_sync_server.effects import Effect, Grown, Send

MEDIA_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_PREFIX: Final = "crdt_sync_relay"
_COMMIT_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)
_SYNC_S: Final = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


class Metrics:
    """One for each relay, with a registry of its own."""

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"{_PREFIX}_{name}", text, labels, registry=registry)

        def gauge(name: str, text: str) -> Gauge:
            return Gauge(f"{_PREFIX}_{name}", text, registry=registry)

        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        self.bytes_in = counter("received_bytes", "Bytes of frames received from devices")
        self.bytes_out = counter("sent_bytes", "Bytes of frames sent to devices")
        self.rows = counter("log_rows", "Rows added to logs", "kind")
        self._updates = self.rows.labels("update")
        self.refusals = counter("refusals", "Updates that were refused, to be sent again or not", "code")
        self.failures = counter("commit_failures", "Frames lost to a failing commit; devices send them again")
        self.sessions = counter(
            "sessions",
            "Connections that ended: synced, cut before the device had everything, refused",
            "result",
        )
        for result in ("synced", "cut", "refused"):
            self.sessions.labels(result)
        self.sync_seconds = Histogram(
            f"{_PREFIX}_sync_seconds",
            "From connecting to having everything",
            buckets=_SYNC_S,
            registry=registry,
        )
        self.commit_seconds = Histogram(
            f"{_PREFIX}_commit_seconds",
            "One durable commit, with its checks",
            buckets=_COMMIT_S,
            registry=registry,
        )
        self.http = counter("http_requests", "Requests of the HTTP API", "operation", "status")
        self.http_seconds = Histogram(
            f"{_PREFIX}_http_seconds", "Requests of the HTTP API, long polls left out", registry=registry
        )
        self.connections = gauge("connections", "Connections now")
        self.tunnels = gauge("tunnels", "Connections over plain HTTP now")
        self.waiting = gauge("frames_waiting", "Frames that wait for a commit")
        self.lag = gauge("lag_rows_max", "Rows the connected device that is behind most has not been given")
        self.spaces = gauge("spaces", "Spaces held")
        self.log_bytes = gauge("log_bytes", "Bytes stored for all spaces")
        self.disk_bytes = gauge("disk_bytes", "Bytes of the database file and its write-ahead log")

    def spread(self, effects: Iterable[Effect]) -> None:
        """These effects of a commit are done."""
        for effect in effects:
            if isinstance(effect, Grown):
                updates = sum(live.row.kind is RowKind.UPDATE for live in effect.rows)
                self._updates.inc(updates)
                if updates < len(effect.rows):
                    for live in effect.rows:
                        if live.row.kind is not RowKind.UPDATE:
                            self.rows.labels(live.row.kind.name.lower()).inc()
            elif isinstance(effect, Send) and isinstance(effect.frame, Refuse):
                self.refusals.labels(effect.frame.code).inc()
            elif isinstance(effect, Send) and isinstance(effect.frame, CheckedOut):
                self.refusals.labels("checked_out").inc()

    def synced(self, after_s: float) -> None:
        """A device was told for the first time in its connection that it has everything."""
        self.sync_seconds.observe(after_s)

    def session_ended(self, *, known: bool, synced: bool) -> None:
        """A connection has ended."""
        self.sessions.labels("synced" if synced else "cut" if known else "refused").inc()

    def total(self, name: str) -> float:
        """A counter over all its labels, or the sum of a histogram."""
        wanted = {f"{_PREFIX}_{name}_total", f"{_PREFIX}_{name}_sum"}
        return sum(
            sample.value
            for family in self.registry.collect()
            for sample in family.samples
            if sample.name in wanted
        )

    @property
    def commits(self) -> float:
        """How many there were."""
        return self.registry.get_sample_value(f"{_PREFIX}_commit_seconds_count") or 0.0

    def text(self) -> bytes:
        """In Prometheus' text format."""
        return generate_latest(self.registry)
