"""Receivers of webhooks on loopback: HTTPS with a certificate of our own, and a canary."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

HOST = "hooks.example.org"


@dataclass(frozen=True, slots=True)
class Certificates:
    """What a receiver shows, and what trusts it."""

    shown: Path
    authority: Path

    def server(self) -> ssl.SSLContext:
        """Serve with the certificate."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.shown)
        return context

    def trust(self) -> ssl.SSLContext:
        """Trust our authority, and check names as always."""
        return ssl.create_default_context(cafile=str(self.authority))


def certificates(folder: Path, *names: str) -> Certificates:
    """Make an authority and a certificate of it for these names."""
    begins = datetime.now(UTC) - timedelta(days=1)
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Test authority")])

    def made(subject: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(begins)
            .not_valid_after(begins + timedelta(days=30))
        )

    authority = (
        made(issuer, keys[0])
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(keys[0], hashes.SHA256())
    )
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
    leaf = (
        made(subject, keys[1])
        .add_extension(
            x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False
        )
        .sign(keys[0], hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = keys[1].private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    folder.mkdir(parents=True, exist_ok=True)
    found = Certificates(folder / "shown.pem", folder / "authority.pem")
    found.shown.write_bytes(private + leaf.public_bytes(pem))
    found.authority.write_bytes(authority.public_bytes(pem))
    return found


@dataclass(frozen=True, slots=True)
class Heard:
    """One request."""

    line: str
    headers: dict[str, str]
    """By lower-case names."""
    body: bytes


Answer = Callable[[Heard], Awaitable[bytes]]


def answering(status: int, body: bytes = b"", *headers: str) -> bytes:
    """Write an answer that ends the connection."""
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}", "Connection: close", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


async def thanks(_heard: Heard) -> bytes:
    """Answer that all is well."""
    return answering(204)


@dataclass(slots=True)
class Receiver:
    """An HTTPS server that answers as it is told and keeps what it heard."""

    port: int = 0
    answer: Answer = thanks
    endless: bytes = b""
    """What follows the answer, again and again, until the other side has had enough."""
    heard: list[Heard] = field(default_factory=list)
    names: list[str | None] = field(default_factory=list)
    """What each connection asked for before it was made (SNI)."""

    @property
    def host(self) -> str:
        """The receiver as the setting lists it."""
        return f"{HOST}:{self.port}"

    @property
    def url(self) -> str:
        """Where a webhook leads."""
        return f"https://{self.host}/alerts?key=k"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Read one request and answer it."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        pairs = (line.split(": ", 1) for line in head[1:] if line)
        headers = {name.lower(): value for name, value in pairs}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        heard = Heard(head[0], headers, body)
        self.heard.append(heard)
        writer.write(await self.answer(heard))
        await writer.drain()
        while self.endless:
            writer.write(self.endless)
            await writer.drain()


@asynccontextmanager
async def receiving(
    shown: Certificates, *, address: str = "127.0.0.1", port: int = 0, answer: Answer = thanks
) -> AsyncIterator[Receiver]:
    """Receive webhooks until the block ends."""
    receiver, context = Receiver(answer=answer), shown.server()
    context.sni_callback = lambda _object, name, _context: receiver.names.append(name)
    async with _listening(receiver.serve, address, port, context) as bound:
        receiver.port = bound
        yield receiver


@dataclass(slots=True)
class Canary:
    """A listener that nobody should reach."""

    port: int = 0
    connections: int = 0


@asynccontextmanager
async def a_canary(address: str, port: int = 0) -> AsyncIterator[Canary]:
    """Listen until the block ends, and count who comes."""
    canary = Canary()

    async def come(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        canary.connections += 1

    async with _listening(come, address, port, None) as bound:
        canary.port = bound
        yield canary


_Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def _listening(
    serve: _Serve, address: str, port: int, tls: ssl.SSLContext | None
) -> AsyncIterator[int]:
    under_way: set[asyncio.Task[None]] = set()

    async def whole(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        under_way.add(task)
        try:
            await serve(reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # The other side has gone, or the test is over.
        finally:
            under_way.discard(task)
            writer.transport.abort()

    server = await asyncio.start_server(whole, address, port, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in list(under_way):
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)
        await server.wait_closed()
