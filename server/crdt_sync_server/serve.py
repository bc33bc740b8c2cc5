"""Running a relay: socket, signals, server, and all of it taken down again in order.

On SIGTERM or SIGINT the relay takes no more frames, commits what came, says goodbye to every device, closes
its database and ends with exit code 0. After `kill -9` there is nothing to repair: whatever was acknowledged
is in the database.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import logging
import os
import signal
import socket
import sqlite3
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import uvicorn
from starlette.applications import Starlette

from crdt_sync.errors import PortTaken
from crdt_sync_server import logs
from crdt_sync_server.data_dir import DataDir
from crdt_sync_server.database_thread import DatabaseThread
from crdt_sync_server.engine import RelayEngine
from crdt_sync_server.heartbeat import PING_S, SILENCE_S, HeartbeatProtocol
from crdt_sync_server.http.api import Api, ApiSettings
from crdt_sync_server.http.operator import OperatorApi
from crdt_sync_server.http.service import Service
from crdt_sync_server.http.tunnel import Tunnels
from crdt_sync_server.hub import GOODBYE_S, Hub
from crdt_sync_server.limits import DEFAULT_RELAY_LIMITS, RelayLimits
from crdt_sync_server.naming import named
from crdt_sync_server.operating.channel import close_channel, open_channel
from crdt_sync_server.settings import DEFAULT_PORT
from crdt_sync_server.signatures import TwoThreads
from crdt_sync_server.storage.sqlite import SqliteStorage, connect_storage

log: Final = logging.getLogger("crdt_sync_server")

_BACKLOG: Final = 1024
"""A whole fleet may come back at once when a network does."""
_SWITCH_S: Final = 0.0005
"""Verifying threads come back for the interpreter lock every 50 µs; with Python's 5 ms they would wait."""
_GRACE_S: Final = 3
"""For connections that do not answer to a close."""


@dataclass(frozen=True, slots=True)
class Listening:
    """The relay listens. `setup_token` is shown this once, and None on every later start."""

    url: str
    setup_token: str | None

    def __repr__(self) -> str:
        return f"Listening(url={self.url!r})"


@dataclass(frozen=True, slots=True)
class ServeSettings:
    """How to serve; see `settings` for what each means. `metrics_token` is a secret."""

    data: Path
    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    limits: RelayLimits = DEFAULT_RELAY_LIMITS
    drain_s: int = 5
    token_ttl_s: int = 600
    audit_days: int = 90
    log_level: str = "warning"
    log_format: str = "text"
    api: ApiSettings = field(default_factory=ApiSettings)

    @classmethod
    def of(cls, values: Mapping[str, Any], limits: RelayLimits) -> ServeSettings:
        """From the values of all settings, by name."""
        return cls(
            data=values["data"],
            host=values["host"],
            port=values["port"],
            limits=limits,
            drain_s=values["drain"],
            token_ttl_s=values["token_ttl"],
            audit_days=values["audit_days"],
            log_level=values["log_level"],
            log_format=values["log_format"],
            api=ApiSettings(values["http_api"], values["metrics"], values["metrics_token"]),
        )

    def __repr__(self) -> str:
        return f"ServeSettings(data={self.data!r}, host={self.host!r}, port={self.port})"


class _Server(uvicorn.Server):
    """uvicorn, with our way of stopping: a goodbye first, and no signal raised again at the end."""

    def __init__(
        self, config: uvicorn.Config, hub: Hub, tunnels: Tunnels, started: Callable[[], None]
    ) -> None:
        super().__init__(config)
        self._hub = hub
        self._tunnels = tunnels
        self._on_started = started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_started()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        log.info(
            "stopping: telling devices to come back",
            extra={"fields": {"event": "draining", "connections": self._hub.connections}},
        )
        await self._hub.say_goodbye()
        await self._tunnels.drain(GOODBYE_S)
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        if sys.platform != "win32":  # whose event loops have no handlers of signals
            for number in (signal.SIGTERM, signal.SIGINT):
                asyncio.get_running_loop().add_signal_handler(number, self._stop)
        yield

    def _stop(self) -> None:
        self.should_exit = True


def serve(settings: ServeSettings, announce: Callable[[Listening], None]) -> None:
    """Run a relay until it is told to stop. Raises DataDirError or PortTaken before anything is served."""
    sys.setswitchinterval(_SWITCH_S)
    logs.set_up(settings.log_level, settings.log_format)
    data_dir = DataDir.open(settings.data)
    with (
        contextlib.closing(connect_storage(data_dir.database, os.urandom)) as database,
        contextlib.closing(_listen(settings.host, settings.port)) as listener,
        asyncio.Runner(loop_factory=_loop_factory()) as runner,
    ):
        gc.freeze()  # modules and code live as long as the process: collections need not look at them
        runner.run(_serve(settings, data_dir, database, listener, announce))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:  # Windows
        return None
    return uvloop.new_event_loop


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(_BACKLOG)
        except OSError:
            listener.close()
            raise
    except OSError as exc:
        if exc.errno == errno.EADDRINUSE:
            message = f"port {port} on {host} is taken by another program"
            hint = "choose another one with --port, or 0 for any free port"
        else:
            message = f"cannot listen on {host} port {port}: {exc.strerror or exc}"
            hint = "--host is an address of this machine; a port below 1024 needs a privilege"
        raise PortTaken(message, hint=hint) from None
    listener.setblocking(False)
    return listener


async def _serve(
    settings: ServeSettings,
    data_dir: DataDir,
    database: sqlite3.Connection,
    listener: socket.socket,
    announce: Callable[[Listening], None],
) -> None:
    storage = SqliteStorage(database)
    thread = DatabaseThread(lambda: database, iter_chunk_size=64)
    await thread
    verify = TwoThreads()
    try:
        host, limits = settings.host, settings.limits
        engine = RelayEngine(
            storage,
            token_is_right=data_dir.token_is_right,
            verify=verify,
            limits=limits,
            takes_back=data_dir.takes_back,
        )
        hub = Hub(
            engine,
            storage,
            thread,
            entropy=os.urandom,
            limits=limits,
            drain_s=settings.drain_s,
            audit_days=settings.audit_days,
        )
        tunnels = Tunnels(hub, os.urandom)
        service = Service(
            hub, engine, storage, entropy=os.urandom, limits=limits, token_ttl_s=settings.token_ttl_s
        )
        api = Api(service, tunnels, storage, data_dir.database, settings.api)
        port: int = listener.getsockname()[1]
        channel = open_channel(data_dir.path, host, port, os.urandom)
        api.operator = OperatorApi(hub, storage, data_dir, channel.token, engine.revocations)
        app = api.app()
        token = data_dir.first_token(os.urandom)
        url = f"ws://{f'[{host}]' if ':' in host else host}:{port}"
        server = _Server(_config(app, limits), hub, tunnels, lambda: announce(Listening(url, token)))
        hub.start()
        log.info("listening on %s", url, extra={"fields": {"event": "listening", "url": url}})
        try:
            await server.serve([listener])
        finally:
            await hub.stop()
        log.info("stopped", extra={"fields": {"event": "stopped"}})
        await _tidied(thread, storage)
    finally:
        close_channel(data_dir.path)
        verify.close()
        await thread.close()


async def _tidied(thread: DatabaseThread, storage: SqliteStorage) -> None:
    """The last housekeeping. Nothing depends on it: on a full disk the next start does it."""
    try:
        await thread.run(storage.tidy)
    except Exception as exc:
        log.warning("the database is left as it is (%s)", named(exc))


def _config(app: Starlette, limits: RelayLimits) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http="h11",
        ws=HeartbeatProtocol,
        ws_ping_interval=PING_S,
        ws_ping_timeout=SILENCE_S,
        ws_max_size=limits.wire.max_frame_bytes,
        ws_per_message_deflate=False,
        lifespan="off",
        access_log=False,
        log_config=None,
        log_level="error",
        server_header=False,
        date_header=False,
        timeout_graceful_shutdown=_GRACE_S,
    )
