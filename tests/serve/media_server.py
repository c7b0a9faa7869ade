"""An HTTPS server on loopback that says what a test wants it to say, under certificates of an authority made here."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import ssl
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from functools import cache
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

HOST = "media.example.org"
CLIP = bytes(range(256)) * 4000
HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
Answer = bytes | Callable[[asyncio.StreamWriter], Awaitable[None]]
"""What is sent for a path: these bytes, or whatever the function writes."""

_NOW = datetime.datetime.now(datetime.UTC)
_DAY = datetime.timedelta(days=1)


class Authority:
    """Signs certificates. Clients that have `trusting()` believe it."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tests")])
        self._certificate = (
            _builder(name, name, self._key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .sign(self._key, hashes.SHA256())
        )

    def trusting(self) -> ssl.SSLContext:
        pem = self._certificate.public_bytes(serialization.Encoding.PEM).decode()
        return ssl.create_default_context(cadata=pem)

    def context(self, names: Sequence[str], days: int = 1) -> ssl.SSLContext:
        """Of a server that is called so; its certificate ends in `days` days, or has ended."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
        certificate = (
            _builder(subject, self._certificate.subject, key, days)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        pem = certificate.public_bytes(serialization.Encoding.PEM) + key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        with tempfile.TemporaryDirectory() as folder:  # ssl reads certificates from files alone
            path = Path(folder, "server.pem")
            path.write_bytes(pem)
            context.load_cert_chain(path)
        return context


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, days: int = 1
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_NOW - 3 * _DAY)
        .not_valid_after(_NOW + days * _DAY)
    )


@cache
def authority() -> Authority:
    return Authority()


class MediaServer:
    """`heads`: of the requests that came. `connections`: how many there were; `open`: how many there are."""

    def __init__(self, answers: Mapping[str, Answer]) -> None:
        self.answers = dict(answers)
        self.heads: list[str] = []
        self.names: list[str | None] = []
        self.connections = self.open = self.most = 0
        self.port = 0
        self._tasks: set[asyncio.Task[None]] = set()

    def url(self, path: str = "/clip.mp4", host: str = HOST) -> str:
        return f"https://{host}:{self.port}{path}"

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        self.open += 1
        self.most = max(self.most, self.open)
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                self.heads.append(head)
                answer = self.answers[head.split(" ")[1]]
                if isinstance(answer, bytes):
                    writer.write(answer)
                    await writer.drain()
                else:
                    await answer(writer)
        finally:
            self.open -= 1
            writer.transport.abort() if writer.is_closing() else writer.close()
            self._tasks.discard(task)

    def seen(self, _: ssl.SSLObject | ssl.SSLSocket, name: str | None, __: ssl.SSLContext) -> None:
        self.names.append(name)

    async def stop(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@contextlib.asynccontextmanager
async def serving(
    answers: Mapping[str, Answer],
    *,
    address: str = "127.0.0.1",
    port: int = 0,
    tls: ssl.SSLContext | None = None,
    plain: bool = False,
) -> AsyncIterator[MediaServer]:
    """A server at `address`; with `plain`, without TLS."""
    server = MediaServer(answers)
    context = None if plain else tls or authority().context([HOST, "other.example.org"])
    if context is not None:
        context.sni_callback = server.seen
    listening = await asyncio.start_server(server.handle, address, port, ssl=context)
    server.port = listening.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listening.close()
        await server.stop()
        await listening.wait_closed()


def ok(body: bytes, *headers: str) -> bytes:
    """A whole response with these bytes and their length."""
    lines = ["HTTP/1.1 200 OK", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


def redirect(location: str, status: int = 302) -> bytes:
    return f"HTTP/1.1 {status} Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode("latin-1")


async def silence(writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(60)


def endless(head: bytes, piece: bytes, sent: list[int], wait: float = 0) -> Callable[..., Awaitable[None]]:
    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        while True:
            writer.write(piece)
            await writer.drain()
            sent.append(len(piece))
            await asyncio.sleep(wait)

    return answer
