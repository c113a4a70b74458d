"""The seam between upstreams (peers, pools, retries) and the protocols spoken to them.

``proxy`` owns peers, balancing, pooling and retrying for every protocol; ``proxy`` and
``fastcgi`` each bring an `UpstreamConnection`. Neither imports the other.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any, Protocol

from attrs import frozen
from twisted.internet.defer import Deferred

from .binding import Binding
from .headers import Headers
from .message import BodyStream, Request, Response, Traffic


class Fault(Enum):
    """How an exchange with a peer failed.

    CONNECT, SEND and CLOSED are ``proxy_next_upstream``'s ``error``, TIMEOUT its ``timeout``,
    INVALID_HEADER its ``invalid_header``. LOCAL is no fault of the peer: the local address of
    ``*_bind`` can't be used, or there are too few ``worker_connections``.
    """

    CONNECT = "connect"
    SEND = "send"
    CLOSED = "closed"
    TIMEOUT = "timeout"
    INVALID_HEADER = "invalid_header"
    LOCAL = "local"

    @property
    def word(self) -> str:
        """What ``*_next_upstream`` and ``*_cache_use_stale`` call it."""
        return self.value if self in (Fault.TIMEOUT, Fault.INVALID_HEADER) else "error"


class UpstreamError(Exception):
    """An exchange failed. ``stale``: a kept connection was closed before any answer byte.

    ``unsent``: no byte of the request had been written, so even a POST may be tried again.
    """

    def __init__(
        self, fault: Fault, reason: str, *, stale: bool = False, unsent: bool = False
    ) -> None:
        super().__init__(reason)
        self.fault = fault
        self.reason = reason
        self.stale = stale
        self.unsent = unsent


class NoLivePeers(Exception):
    """Every peer is down: nginx's "no live upstreams", 502."""


class UnknownHost(Exception):
    """A name that a variable made has no address, or nobody may be asked: nginx's 502."""


@frozen(eq=False)
class Outgoing:
    """A request to an upstream, in terms both protocols share.

    HTTP uses ``method``, ``target`` and ``headers`` (complete, Host included, without
    Connection, Content-Length and Transfer-Encoding); FastCGI uses ``params``. ``body`` is None
    where there is none.
    """

    method: bytes
    target: bytes = b"/"
    headers: Headers | None = None
    params: tuple[tuple[bytes, bytes], ...] = ()
    body: BodyStream | None = None
    #: The peer may change the protocol (101): the fields ask for it.
    upgrade: bool = False
    #: The client takes the answer's trailer fields.
    trailers: bool = False
    #: Takes early hints (103): the size of their head, and the fields.
    hinted: Callable[[int, Headers], None] | None = None
    #: Speak 1.1 to the upstream (``proxy_http_version``) and keep the connection.
    version: tuple[int, int] = (1, 1)


@frozen
class Timeouts:
    """``*_connect_timeout``, ``*_send_timeout``, ``*_read_timeout``, in seconds."""

    connect: float = 60.0
    send: float = 60.0
    read: float = 60.0


class UpstreamConnection(Protocol):
    """A Twisted `Protocol` subclass that speaks to one peer, one exchange at a time.

    ``send`` is called once the connection is made; it fires with the `Response` as soon as the
    head is complete, the body streams. It errs with `UpstreamError`. When the answer has been
    read whole and the peer will take another request, ``on_idle(self)`` is called; when the
    connection is gone, ``on_closed(self)``. What the log should say of an exchange, other than an
    error that the Deferred fails with, goes to ``on_note(self, text)``; where the peer's answer
    breaks off after its head, to ``on_broken(self, text)``.
    Cancelling the Deferred or the body aborts the connection. Reads nothing while idle but
    notices the close.
    """

    on_idle: Callable[[UpstreamConnection], None] | None
    on_closed: Callable[[UpstreamConnection], None] | None
    on_note: Callable[[UpstreamConnection, str], None] | None
    on_broken: Callable[[UpstreamConnection, str], None] | None
    #: What the exchange that was begun last has cost; each has a new one.
    traffic: Traffic

    def send(self, outgoing: Outgoing, timeouts: Timeouts, *, reused: bool) -> Deferred[Response]:
        """Begin an exchange. ``reused``: not the first one on this connection."""

    def abort(self) -> None:
        """Drop the connection at once."""


@frozen(eq=False)
class ExchangeRules:
    """How a location wants its exchanges done.

    ``connection`` makes the protocol (its identity also keys the pool, so pass one and the same
    callable each time). ``next_upstream`` has the words of ``proxy_next_upstream``: ``error``,
    ``timeout``, ``invalid_header``, ``http_500``..., ``non_idempotent``; empty for ``off``.
    ``tries`` 0 is no limit.
    """

    connection: Callable[[], UpstreamConnection]
    timeouts: Timeouts = Timeouts()
    next_upstream: frozenset[str] = frozenset({"error", "timeout"})
    tries: int = 0
    next_timeout: float = 0.0
    #: Names the protocol in log lines: ``upstream: "http://127.0.0.1:8081/uri"``.
    scheme: str = "http"
    #: SO_KEEPALIVE on the connections.
    socket_keepalive: bool = False
    #: Go on when the client has gone.
    ignore_client_abort: bool = False
    #: Where connections come from (``*_bind``).
    bind: Binding | None = None
    #: What secures the connections, if anything does; `proxy` knows what it is.
    tls: Any = None


class UpstreamGroup(Protocol):
    """An ``upstream`` block, or the implicit one of a ``proxy_pass http://host:port``."""

    def exchange(
        self, request: Request, outgoing: Outgoing, rules: ExchangeRules
    ) -> Deferred[Response]:
        """Send to a peer, trying others as the rules allow.

        Records each try in ``request.outcome.attempts``. Errs with `NoLivePeers` or the last
        `UpstreamError`. Cancelling it cancels the work.
        """


class Probeable(Protocol):
    """A handler that passes requests to an upstream, and can say how it would ask for a URI."""

    def probe(self, request: Request) -> tuple[Outgoing, ExchangeRules]:
        """What to send to a peer for ``request``, which is none of a client's but a check's."""
