"""The values that travel through the farm: requests, responses and their bodies.

Resources choose, handlers answer with a `Response`, filters transform it, the connection writes
it. A body is bytes, a slice of an open file, a sequence of those (multipart ranges), or a
stream with backpressure.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

from attrs import define, field, frozen
from twisted.internet.defer import Deferred

from imagefarm.config.variables import Template

from .alike import Alike
from .headers import Headers
from .proxy_protocol import ProxyHeader

if TYPE_CHECKING:
    from .keeping import Kept, Stored


class BodySink(Protocol):
    """Takes a stream's bytes. After `end` or `fail` nothing more comes."""

    def data(self, chunk: bytes) -> None:
        """Some bytes, never empty."""

    def end(self) -> None:
        """The body is complete."""

    def fail(self, error: Exception) -> None:
        """The body broke off: what has been sent must not look complete."""


class BodyStream(Protocol):
    """A body that arrives over time, with backpressure.

    Nothing flows before `start`. After `pause` returns, no `BodySink.data` is called until
    `resume` (one call that is already on the stack may still deliver). `cancel` says that the
    sink is gone: release everything, stop the work, call the sink no more. `cancel` is
    idempotent, and allowed before `start` and after the end.
    """

    @property
    def length(self) -> int | None:
        """The number of bytes, or None if it is not known beforehand."""

    def start(self, sink: BodySink) -> None:
        """Begin delivery to ``sink``; it may be called back before this returns."""

    def pause(self) -> None:
        """Stop delivering for now."""

    def resume(self) -> None:
        """Go on delivering."""

    def cancel(self) -> None:
        """Nobody wants the rest."""


#: How files are opened for service. O_NONBLOCK: a FIFO without it would hang the server.
OPEN_FLAGS: Final = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY

#: Time of the last change in nanoseconds (content, mode, links: it can't be set back), size in
#: bytes, inode: a file that is still what it was.
Identity = tuple[int, int, int]


def identity(info: os.stat_result) -> Identity:
    """What tells a file from what it was before."""
    return info.st_ctime_ns, info.st_size, info.st_ino


@define(eq=False)
class OpenFile:
    """An open file and what fstat said of it; the owner of the descriptor.

    Whoever consumes or drops a body that holds it calls `close`, exactly once is enough and
    more do no harm. ``size`` is what the response promises, even if the file is rewritten in
    place meanwhile.
    """

    fd: int
    size: int
    mtime: float
    path: bytes = b""
    identity: Identity = (0, 0, 0)

    def close(self) -> None:
        """Close the descriptor."""
        if self.fd >= 0:
            fd, self.fd = self.fd, -1
            os.close(fd)


#: Opens the file at a path if it is still the one meant; None, if none is meant. Raises OSError
#: where it is not, or where that can't be told.
Look = Callable[[bytes, Identity | None], OpenFile | None]

#: A file that had a say in an answer, what it was (None: it was not there), and how to look again
#: where that is not to be a stat (``open_file_cache``).
Witness = tuple[bytes, Identity | None, Look | None]


@frozen(eq=False)
class FileBody:
    """``length`` bytes of an open file from ``offset``; sent with sendfile where possible."""

    file: OpenFile
    offset: int
    length: int


@frozen(eq=False)
class PartsBody:
    """Bytes and file slices one after another; ``length`` is their sum."""

    parts: tuple[bytes | FileBody, ...]
    length: int


#: Names and values.
Fields = Sequence[tuple[bytes, bytes]]

Body = bytes | FileBody | PartsBody | BodyStream


def body_length(body: Body) -> int | None:
    """The body's length in bytes if it is known."""
    return len(body) if isinstance(body, bytes) else body.length


def discard(body: Body) -> None:
    """Release what a body holds (descriptor, upstream work) without sending it."""
    if isinstance(body, bytes):
        return
    if isinstance(body, FileBody):
        body.file.close()
    elif isinstance(body, PartsBody):
        for part in body.parts:
            discard(part)
    else:
        body.cancel()


@define(eq=False)
class Response:
    """An answer on its way out. Filters make a new one with ``attrs.evolve``.

    ``headers`` hold what the handler says: Content-Type, Last-Modified, ETag, Location...;
    never Content-Length, Transfer-Encoding, Connection, Date or Server, which the connection
    derives (Content-Length from the body; ``length`` gives it for a HEAD whose body is not
    there). ``mtime`` (seconds) lets filters compare dates without parsing.
    ``status`` 444 means: close the connection without an answer (nginx).
    """

    status: int
    headers: Headers = field(factory=Headers)
    body: Body = b""
    mtime: float | None = None
    length: int | None = None
    #: Ranges may be cut from this body (nginx's ``allow_ranges``).
    ranges: bool = False
    #: More than one range asked of it gets the whole (nginx: what may come from a cache).
    single_range: bool = False
    #: Preconditions are tested here; off for an upstream's answer that is not cached, where
    #: the upstream has tested them.
    conditional: bool = True
    #: It is an upstream's: what it says of itself is not for us to complete or take off.
    passed: bool = False
    #: Error pages made for it are final: ``error_page`` does not apply (again).
    final: bool = False
    #: Close the client's connection after this answer.
    close: bool = False
    #: Fields that follow the body, known when it has ended; sent where the body is chunked.
    trailers: Callable[[], Fields] | None = None
    #: 101: what the client sends from here on goes where this is called with; ``body`` comes
    #: from there.
    tunnel: Callable[[BodyStream], None] | None = None
    #: X-Accel-Redirect: the URI or named location in the tree whose answer is meant instead.
    redirect: bytes | None = None
    #: X-Accel-Buffering, where the upstream has said it.
    buffering: bool | None = None
    #: Gives ``headers`` as they are in a later second, if nothing but the request's own bytes
    #: and `Request.witnesses` had a say in this answer: then it may be remembered (`http.plans`).
    headers_at: Callable[[int], Headers] | None = None
    #: Of the request's fields only Host had a say in it.
    shared: bool = False
    #: The files that are answered in the same way, if ``body`` is one.
    alike: Alike | None = None
    #: What an upstream sent, if it came whole with its head (`relays.Source`).
    source: Any = None
    #: The cache's word for it, where it is a hit that may be remembered; and the field of it that
    #: is the request id, by its name in lower case.
    kept: Kept | None = None
    named: bytes = b""
    #: What a cache has of it, if it is one of the pieces of ``slice``.
    stored: Stored | None = None


@frozen
class RequestHead:
    """A parsed request head. ``target`` is the request-target exactly as received."""

    method: bytes
    target: bytes
    version: tuple[int, int]
    headers: Headers


class Socket(Protocol):
    """What only the connection's own socket can tell."""

    @property
    def address(self) -> str:
        """Our address, as the client has called it."""

    def tcp_info(self) -> tuple[int, ...] | None:
        """The 32-bit words of Linux's ``struct tcp_info``; None if there are none."""


@define(eq=False)
class Peer:
    """The client's connection, as far as requests may know it. Nobody changes it.

    (To have it enforced, by ``frozen``, triples what it costs to make one for each connection.)

    ``tls`` is the negotiated protocol and cipher (``("TLSv1.3", "TLS_AES_...")``) or None;
    ``serial`` numbers connections, for logs; ``server`` names the listening socket
    (``("127.0.0.1", 8080)``, or ``("unix:/path", 0)``) and selects the virtual hosts. ``socket``
    is there only where the configuration has a variable that needs it; ``uid`` is the user at
    the other end of a Unix socket, where the system tells; ``handle`` is OpenSSL's connection, of
    which variables and ``ssl_verify_client`` ask more; ``opened`` is when the connection was made,
    in seconds of the time of day, where the configuration has ``$connection_time``.
    """

    address: str
    port: int
    server: tuple[str, int]
    serial: int
    tls: tuple[str, str] | None = None
    sni: bytes | None = None
    socket: Socket | None = None
    uid: int | None = None
    handle: Any = None
    opened: float = 0.0


@define(eq=False)
class ForwardedPeer(Peer):
    """A client that others speak for.

    ``proxy`` is the PROXY header that the connection began with. Where ``real_ip_header`` has
    changed the address, ``original`` is the connection's own peer.
    """

    proxy: ProxyHeader | None = None
    original: Peer | None = None


@define(eq=False)
class Traffic:
    """Bytes of an exchange with an upstream, counted while it lasts; ``body`` without framing."""

    sent: int = 0
    received: int = 0
    body: int = 0


@frozen
class Attempt:
    """One try at an upstream peer, for ``$upstream_*``. Times in seconds.

    ``first``: of those for one handler; an error page may lead to another one.
    """

    address: bytes
    status: int
    response_time: float
    connect_time: float | None = None
    header_time: float | None = None
    traffic: Traffic = field(factory=Traffic)
    first: bool = False


@frozen
class TransferSettings:
    """What the connection needs to know of the location; times in seconds, sizes in bytes.

    Names are nginx's directives.
    """

    keepalive_timeout: float = 75.0
    keepalive_header: int | None = None
    keepalive_requests: int = 1000
    keepalive_time: float = 3600.0
    keepalive_disable: frozenset[str] = frozenset({"msie6"})
    client_max_body_size: int = 1 << 20
    client_body_timeout: float = 60.0
    client_body_buffer_size: int = 16384
    send_timeout: float = 60.0
    lingering_close: str = "on"
    lingering_time: float = 30.0
    lingering_timeout: float = 5.0
    reset_timedout_connection: bool = False
    sendfile: bool = False
    sendfile_max_chunk: int = 2 << 20
    tcp_nopush: bool = False
    chunked_transfer_encoding: bool = True
    #: Bytes a second (0: no limit), and how many may go before that.
    limit_rate: int | Template = 0
    limit_rate_after: int | Template = 0
    #: The version is told, or not; or the whole field (empty: no field).
    server_tokens: bool | bytes | Template = True

    @property
    def varies(self) -> bool:
        """Whether how an answer is sent depends on more than the request's target."""
        return (
            self.limit_rate != 0
            or isinstance(self.server_tokens, Template)
            or "safari" in self.keepalive_disable
        )


@define(eq=False)
class Outcome:
    """What became of a request, for the access log and the status page."""

    status: int = 0
    #: Bytes sent to the client, all of them, and of the body alone.
    bytes_sent: int = 0
    body_bytes_sent: int = 0
    attempts: list[Attempt] = field(factory=list)
    cache_status: bytes = b""
    #: Bytes before and after compression, where the answer was compressed (``gzip``).
    compressed: tuple[int, int] = (0, 0)
    #: All of the answer has been passed to the transport.
    complete: bool = False
    #: The head said that the connection is kept, and that the body is chunked.
    keep: bool = False
    chunked: bool = False
    #: The answer is for a client, too, that has closed its half (``*_ignore_client_abort``).
    patient: bool = False
    #: The response whose head was sent, for ``$sent_http_*``.
    response: Response | None = None
    #: Before that, while ``expires``, ``add_header`` and ``return`` speak: what is to be sent,
    #: so far.
    drafted: Response | None = None
    #: The last response head from an upstream, for ``$upstream_http_*``.
    upstream_headers: Headers | None = None
    #: Its Content-Length, which is not among them.
    upstream_length: int | None = None
    #: How the exchange failed, if the answer is our own for that: `upstream.Fault.word`.
    failed: str = ""
    #: The values of ``map`` that have been looked up.
    mapped: dict[str, bytes] | None = None


@define(eq=False)
class Request:
    """A request on its way through the tree.

    The first group never changes. The second is routing state: rewrites and internal redirects
    change it (``uri`` is decoded and normalised, as nginx's ``$uri``; ``args`` is the query
    string without "?"). ``location`` is the compiled location in force, opaque to this package.
    """

    head: RequestHead
    peer: Peer
    body: BodyStream
    #: ``time.time()`` when the first byte of the request was read.
    started: float
    #: ``$host``: lower case, no port.
    host: bytes = b""

    uri: bytes = b"/"
    args: bytes = b""
    captures: re.Match[bytes] | None = None
    variables: dict[str, bytes] = field(factory=dict)
    server: Any = None
    location: Any = None
    #: Whether ``uri`` is the one that chose the location: not after ``rewrite ... break``.
    valid_location: bool = True
    #: Whether nothing has led here but the request's own bytes and the files in ``witnesses``,
    #: each with what it was, None for one that was not there.
    plannable: bool = True
    witnesses: list[Witness] = field(factory=list)
    #: Whether it is passed on to an upstream by nothing but its own bytes and the client's
    #: address; then the handler says how (`relays.Route`).
    relayable: bool = False
    route: Any = None
    #: As ``plannable``, up to a content handler that answers from a cache.
    keepable: bool = False
    #: The fields of ``head`` by which a cache asks whether what it has is still good: they are
    #: passed on though the client's may not be.
    validators: Fields = ()
    #: What has been sent for it already, and where its answer comes from (`relays.Wire`).
    wire: Any = None
    #: What was written to the error log meanwhile: level and message.
    notes: list[tuple[str, str]] = field(factory=list)
    #: Whether an error was among it.
    explained: bool = False
    #: Why it could not be read.
    refusal: str = ""
    internal: bool = False
    redirects: int = 0
    #: The status that the error page being made answers with; None where none is made.
    error_status: int | None = None
    #: Fields of the answer that an error page takes the place of; they go with the page.
    carried: tuple[tuple[bytes, bytes], ...] = ()
    #: Fields of an upstream's answer that has led elsewhere with X-Accel-Redirect.
    preset: Headers = field(factory=Headers)
    #: The head as received, once an error page has replaced the method (for ``$request``).
    received: RequestHead | None = None
    #: The connection is closed after the answer, whatever it will be (400, 413, 500...).
    close: bool = False
    #: Its number on the connection, from 1, and the bytes read for it, for the log.
    number: int = 1
    length: int = 0
    #: It came together with the end of the one before.
    pipelined: bool = False
    transfer: TransferSettings = field(factory=TransferSettings)
    outcome: Outcome = field(factory=Outcome)
    #: Sends the fields to the client with a 103 (RFC 8297), while there is no answer.
    hint: Callable[[Headers], None] | None = None
    #: Called when the client goes away before the answer is complete.
    on_gone: list[Callable[[], None]] = field(factory=list)

    def __repr__(self) -> str:
        return f"<Request {self.head.method!r} {self.head.target!r}>"


#: What varies among requests that are answered alike: request line and target; in bytes the
#: body, the whole answer and the request; the connection's number; the request id, where somebody
#: has been told of one, else nothing; path and query; when the request began.
Facts = tuple[bytes, bytes, int, int, int, int, bytes, bytes, bytes, float]

#: One repetition, for `Repeated.replay`: the client's header block and address, the number of the
#: request on its connection, the bytes read for it, when it came, the bytes written, and whether
#: the connection was kept.
Occasion = tuple[Headers, Peer, int, int, float, int, bool]


class Repeated(Protocol):
    """What was remembered of an answer, as far as the application has to know it.

    ``memory`` is for whatever the application wants to keep for the next time, by the key of
    `Application.repeated`. ``many`` says that it stands for many that are answered alike.
    ``took`` is the seconds that this answer took; 0 where it was at hand.
    """

    @property
    def memory(self) -> dict[Any, Any]:
        """See the class."""

    @property
    def many(self) -> bool:
        """See the class."""

    @property
    def took(self) -> float:
        """See the class."""

    def replay(self, occasion: Occasion) -> Request:
        """The finished request for the log, as the ordinary path would have left it."""


class Application(Protocol):
    """What the connection drives: implemented by the resource tree's dispatcher."""

    def respond(self, request: Request) -> Response | Deferred[Response]:
        """Answer ``request``. Never raises; a Deferred never fails."""

    def reject(self, request: Request, status: int) -> Response | Deferred[Response]:
        """Answer a request that could not be read (400, 405, 408, 413, 414, 431, 501, 505...).

        ``request.head`` holds what is known; the default server's error pages apply. 497 is for
        one that was read, but is not to be answered: it came without TLS.
        """

    def finished(self, request: Request) -> None:
        """The answer was sent, or the client has gone: write the access log."""

    def repeated(self, plan: Repeated, key: Hashable, occasion: Occasion, facts: Facts) -> None:
        """`finished` for an answer that was repeated (`http.plans`).

        ``plan.replay(occasion)`` makes the request as `finished` would have got it. ``key``
        stands for the client's address and header block.
        """


Handler = Callable[[Request], "Response | Deferred[Response]"]
