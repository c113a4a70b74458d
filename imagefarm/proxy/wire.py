"""A group's part in passing a request on without an exchange (`http.relays`)."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from imagefarm.http.message import Traffic
from imagefarm.http.relays import Reader
from imagefarm.http.upstream import ExchangeRules

from .exchange import Connections, Link, local_of
from .peer import Peer


class GroupWire:
    """A `relays.Wire`: a peer that a request has been given to, and a kept connection to it."""

    __slots__ = (
        "_connecting", "_data", "_failure", "_link", "_reader", "_rules", "connected", "group",
        "peer", "started", "taken", "traffic",
    )  # fmt: skip

    def __init__(
        self, group: Connections, rules: ExchangeRules, peer: Peer, link: Link | None, now: float
    ) -> None:
        self.group = group
        self.peer = peer
        self.started = now
        self.traffic = Traffic()
        self.taken = False
        self.connected = 0.0
        self._rules = rules
        self._link = link
        #: While there is no connection yet: what is to be sent, and for whom.
        self._connecting: Deferred[Link] | None = None
        self._data = b""
        self._reader: Reader | None = None
        self._failure: Failure | None = None

    @property
    def peer_name(self) -> bytes:
        """`Wire`."""
        return self.peer.name

    def send(self, data: bytes, reader: Reader) -> None:
        """`Wire`."""
        if self._link is None:
            self._data, self._reader = data, reader
            connecting = self._connecting = self.group.connect(
                self.peer, self._rules, local_of(self._rules)
            )
            connecting.addCallbacks(self._made, self._not_made)
        else:
            self._send(self._link, data, reader)

    def _send(self, link: Link, data: bytes, reader: Reader) -> None:
        link.served += 1
        self.traffic.sent = len(data)
        connection: Any = link.connection
        connection.relay(data, reader, self._rules.timeouts)

    def _made(self, link: Link) -> None:
        self._connecting = None
        self._link = link
        self.connected = self.group.reactor.seconds() - self.started
        assert self._reader is not None
        self._send(link, self._data, self._reader)

    def _not_made(self, failure: Failure) -> None:
        self._connecting = None
        if not failure.check(CancelledError):
            self._failure = failure
            assert self._reader is not None
            self._reader.unusual()

    def take(self) -> tuple[Link | None, Failure | None]:
        """An exchange takes over: a connection with the request on it, or why there is none.

        Neither, if connecting has just been given up: nobody is waiting, most likely.
        """
        self.taken = True
        connecting, self._connecting = self._connecting, None
        if connecting is not None:
            connecting.cancel()
        return self._link, self._failure

    def resume(self, data: bytes) -> None:
        """`Wire`."""
        connection: Any = self._link and self._link.connection
        if connection is not None:
            connection.dataReceived(data)

    def finished(self, status: int, *, keep: bool) -> float:
        """`Wire`."""
        link, peer = self._link, self.peer
        assert link is not None
        now: float = self.group.reactor.seconds()
        took = now - self.started
        counters = peer.counters
        counters.answered(status, took)
        counters.finished(took)
        counters.sent += self.traffic.sent
        counters.received += self.traffic.received
        peer.succeeded(now)
        peer.release()
        connection: Any = link.connection
        connection.settle(keep=keep)
        return took

    def release(self) -> None:
        """`Wire`."""
        self.take()
        self.peer.release()
        if self._link is not None:
            self._link.connection.abort()
