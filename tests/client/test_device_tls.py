"""`wss://`: the relay's certificate is checked against the machine's, and nothing is said to a stranger."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from websockets.asyncio.server import ServerConnection, serve
from websockets.typing import Subprotocol

from crdt_sync.errors import MalformedFrame, ProtocolViolation, RelayRefused, RelayUnreachable
from crdt_sync.ids import RelayId
from crdt_sync.protocol.frames import Challenge, encode
from crdt_sync.protocol.limits import DEFAULT_LIMITS, SUBPROTOCOL
from crdt_sync_client.relay_connection import RelayConnection, check_relay_url

CHALLENGE = encode(Challenge((1,), RelayId(bytes(16)), bytes(32), 0, DEFAULT_LIMITS))


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A self-signed certificate for 127.0.0.1 with its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "relay")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False
        )
        .sign(key, hashes.SHA256())
    )
    path = tmp_path / "relay.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        + made.public_bytes(serialization.Encoding.PEM)
    )
    return path


@pytest.fixture
async def tls_port(certificate: Path) -> AsyncIterator[int]:
    async def greet(socket: ServerConnection) -> None:
        await socket.send(CHALLENGE)
        await socket.wait_closed()

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    async with serve(greet, "127.0.0.1", 0, ssl=context, subprotocols=[Subprotocol(SUBPROTOCOL)]) as server:
        port: int = next(iter(server.sockets)).getsockname()[1]
        yield port


async def test_a_certificate_nobody_vouches_for_is_refused(tls_port: int) -> None:
    with pytest.raises(RelayUnreachable, match=r"wss://127\.0\.0\.1"):
        await RelayConnection.open(f"wss://127.0.0.1:{tls_port}")


async def test_a_certificate_the_machine_trusts_is_taken(
    tls_port: int, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    connection = await RelayConnection.open(f"wss://127.0.0.1:{tls_port}")
    assert connection.bytes_received == len(CHALLENGE)
    await connection.close()


async def test_no_tls_is_spoken_where_none_was_asked_for(tls_port: int) -> None:
    with pytest.raises((RelayUnreachable, RelayRefused)):
        await RelayConnection.open(f"ws://127.0.0.1:{tls_port}")


async def test_something_else_that_listens_is_told_from_a_relay() -> None:
    async def shout(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(shout, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(RelayRefused, match="answered HTTP 200"):
            await RelayConnection.open(f"ws://127.0.0.1:{port}")


async def test_a_websocket_without_our_subprotocol_is_no_relay() -> None:
    async def greet(socket: ServerConnection) -> None:
        await socket.wait_closed()

    async with serve(greet, "127.0.0.1", 0) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        with pytest.raises((ProtocolViolation, RelayRefused, MalformedFrame)):
            await RelayConnection.open(f"ws://127.0.0.1:{port}")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "relay",
        "http://relay:1",
        "ws://",
        "ws://relay:port",
        "ws://relay:99999",
        "ws://relay/?a=b",
        "ws://[::1",
    ],
)
def test_what_is_no_address_of_a_relay_is_refused_with_an_example(url: str) -> None:
    with pytest.raises(RelayRefused) as refused:
        check_relay_url(url)
    assert "ws://HOST:PORT" in refused.value.hint
