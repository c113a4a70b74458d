"""What the proxy's tests share: requests, sinks, sources and scripted upstreams."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from typing import Any

from attrs import define, field
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL.crypto import X509, PKey
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import CertificateOptions
from twisted.internet.testing import StringTransport

from imagefarm.config.loader import convert
from imagefarm.config.parse import parse_text
from imagefarm.config.table import BlockRow, DirectiveTable, Scope
from imagefarm.http.headers import Headers
from imagefarm.http.message import BodySink, BodyStream, Peer, Request, RequestHead, Response
from imagefarm.http.transfer import DIRECTIVES as TRANSFER
from imagefarm.http.variables import variable_table
from imagefarm.proxy.directives import DIRECTIVES
from imagefarm.proxy.variables import VARIABLES


@define(eq=False)
class Source:
    """A `BodyStream` of given chunks; ``held`` waits for `finish` before it ends."""

    chunks: list[bytes] = field(factory=list)
    known: bool = True
    held: bool = False
    sink: BodySink | None = None
    paused: bool = False
    cancelled: bool = False
    starts: int = 0
    length: int | None = None

    def __attrs_post_init__(self) -> None:
        if self.known and self.length is None:
            self.length = sum(map(len, self.chunks))

    def start(self, sink: BodySink) -> None:
        self.starts += 1
        self.sink = sink
        self._flow()

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        if self.paused:
            self.paused = False
            self._flow()

    def cancel(self) -> None:
        self.cancelled = True
        self.sink = None

    def finish(self) -> None:
        self.held = False
        self._flow()

    def more(self, chunk: bytes) -> None:
        self.chunks.append(chunk)
        self._flow()

    def _flow(self) -> None:
        while self.sink is not None and not self.paused and self.chunks:
            self.sink.data(self.chunks.pop(0))
        if self.sink is not None and not self.paused and not self.chunks and not self.held:
            sink, self.sink = self.sink, None
            sink.end()


class Sink:
    """Collects a body; ``limit`` pauses the source after so many bytes."""

    def __init__(self) -> None:
        self.received = b""
        self.ended = 0
        self.error: Exception | None = None
        self.done: Deferred[bytes] = Deferred()
        self.on_data: Callable[[], None] = lambda: None

    def data(self, chunk: bytes) -> None:
        assert chunk
        assert not self.ended
        assert self.error is None
        self.received += chunk
        self.on_data()

    def end(self) -> None:
        assert self.error is None
        self.ended += 1
        self.done.callback(self.received)

    def fail(self, error: Exception) -> None:
        assert not self.ended
        self.error = error
        self.done.callback(self.received)


def make_request(
    method: bytes = b"GET",
    target: bytes = b"/",
    headers: Sequence[tuple[bytes, bytes]] = (),
    body: BodyStream | None = None,
    client: str = "192.0.2.1",
    **state: Any,
) -> Request:
    path, _, args = target.partition(b"?")
    fields: dict[str, Any] = {"host": b"client.example", "uri": path, "args": args, **state}
    return Request(
        RequestHead(method, target, (1, 1), Headers(headers)),
        Peer(client, 40000, ("127.0.0.1", 8080), 1),
        body if body is not None else Source(),
        0.0,
        **fields,
    )


def read(response: Response) -> Deferred[Sink]:
    """The whole body, however it comes."""
    sink = Sink()
    body = response.body
    done: Deferred[Sink] = Deferred()
    if isinstance(body, bytes):
        if body:
            sink.data(body)
        sink.end()
        done.callback(sink)
        return done
    assert not hasattr(body, "file")
    sink.done.addCallback(lambda _: done.callback(sink))
    stream: Any = body
    stream.start(sink)
    return done


class Transport(StringTransport):
    """A `StringTransport` that remembers how it was closed and lets tests close it."""

    aborted = False
    protocol: Any = None

    def abortConnection(self) -> None:
        self.aborted = True
        super().abortConnection()

    def setTcpNoDelay(self, enabled: bool) -> None:
        pass

    @property
    def reading(self) -> bool:
        return self.producerState == "producing"


Script = Callable[["ScriptedPeer", bytes], None]


class ScriptedPeer(Protocol):
    """A server's side of a connection that does as its script says with each request head."""

    script: Script
    transport: Any

    def __init__(self, server: Server) -> None:
        self.server = server
        self.buffer = b""

    def connectionMade(self) -> None:
        self.server.connections.append(self)

    def dataReceived(self, data: bytes) -> None:
        self.buffer += data
        while b"\r\n\r\n" in self.buffer:
            head, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
            self.server.requests.append(head)
            self.server.script(self, head)

    def connectionLost(self, reason: Any = None) -> None:
        self.server.connections.remove(self)
        for waiting in self.server.waiting[:]:
            if not self.server.connections:
                self.server.waiting.remove(waiting)
                waiting.callback(None)

    def reply(self, data: bytes) -> None:
        self.transport.write(data)


class Server(Factory):
    """A scripted server on an ephemeral loopback port."""

    noisy = False

    def __init__(self, script: Script, tls: Any = None, path: str = "", port: int = 0) -> None:
        self.script = script
        self.requests: list[bytes] = []
        self.connections: list[ScriptedPeer] = []
        self.accepted = 0
        self.waiting: list[Deferred[None]] = []
        twisted: Any = reactor
        self.listener: Any
        if path:
            self.listener = twisted.listenUNIX(path, self)
        elif tls is not None:
            self.listener = twisted.listenSSL(0, self, tls, interface="127.0.0.1")
        else:
            self.listener = twisted.listenTCP(port, self, interface="127.0.0.1")

    @property
    def port(self) -> int:
        number: int = self.listener.getHost().port
        return number

    def buildProtocol(self, addr: Any) -> Protocol:
        self.accepted += 1
        return ScriptedPeer(self)

    def drained(self) -> Deferred[None]:
        """Fires when no connection is left."""
        done: Deferred[None] = Deferred()
        if self.connections:
            self.waiting.append(done)
        else:
            done.callback(None)
        return done

    def close(self) -> Any:
        return self.listener.stopListening()


def server_certificate() -> Any:
    """Options of a TLS server with a certificate that nobody has signed."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "peer.example")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    return CertificateOptions(
        privateKey=PKey.from_cryptography_key(key), certificate=X509.from_cryptography(certificate)
    )


def unused_port() -> int:
    """A loopback port on which nobody listens."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        number: int = probe.getsockname()[1]
        return number


def _block(name: str, outside: str, arity: tuple[int, int]) -> BlockRow[Any]:
    return BlockRow(
        name=name,
        contexts=frozenset(outside.split()),
        arity=arity,
        opens={"main": "http", "http": "server", "server": "location", "location": "location"}[
            outside.split()[0]
        ],
        convert=lambda directive, env: directive.args,
        doc="",
    )


_IF = BlockRow[Any](
    name="if", contexts=frozenset({"location"}), arity=(1, 1), opens="if in location",
    convert=lambda directive, env: directive.args, doc="",
)  # fmt: skip
_LOCATION = _block("location", "server location", (1, 2))
_SERVER = _block("server", "http", (0, 0))
_HTTP = _block("http", "main", (0, 0))
_TABLE = DirectiveTable({"": (_HTTP, _SERVER, _LOCATION, _IF, *DIRECTIVES, *TRANSFER)})


def load(text: str) -> Scope:
    """The ``http`` scope of ``text``, which is what stands inside that block."""
    parsed = parse_text("http {\n" + text + "\n}", "nginx.conf")
    variables = variable_table(VARIABLES, clock=lambda: 0.0)
    root = convert(parsed, table=_TABLE, variables=variables, prefix="/", conf_dir="/").root
    (http,) = root.blocks(_HTTP)
    return http


def load_location(words: str, inside: str, http: str = "") -> Scope:
    """The scope of ``location WORDS { INSIDE }``."""
    (server,) = load(f"{http}\nserver {{ location {words} {{ {inside} }} }}").blocks(_SERVER)
    (location,) = server.blocks(_LOCATION)
    return location


def the_if(location: Scope) -> Scope:
    """The ``if`` block in ``location``."""
    (scope,) = location.blocks(_IF)
    return scope
