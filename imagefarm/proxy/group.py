"""A group of peers at work: choose, connect or reuse, send, and go on to the next on failure.

Serves every protocol; what is spoken on a connection is `ExchangeRules.connection`'s business.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import Any, Final

from twisted.internet.defer import Deferred, fail
from twisted.logger import Logger
from twisted.python.failure import Failure

from imagefarm.http.binding import Local
from imagefarm.http.message import Request, Response
from imagefarm.http.places import Places
from imagefarm.http.upstream import (
    ExchangeRules,
    Fault,
    Outgoing,
    UpstreamConnection,
    UpstreamError,
)

from .connector import Connecting
from .exchange import Exchange, Link, choose, local_of
from .peer import Peer
from .peers import Peers
from .policies import Policy
from .pool import IdlePool, KeepaliveSettings
from .wire import GroupWire

#: Seconds that more idle connections than ``keepalive`` says may stay: answers come in bunches,
#: and the requests that follow them in the next.
GRACE: Final = 0.1


class Group:
    """An `UpstreamGroup`.

    ``reactor`` provides IReactorTCP, IReactorUNIX and IReactorTime. ``name`` is the group's in
    the configuration, for logs; ``places`` are those of the process. Call `stop` at the end:
    idle connections are closed.
    """

    log = Logger()

    def __init__(
        self,
        reactor: Any,
        name: bytes,
        peers: Peers,
        policy: Policy,
        keepalive: KeepaliveSettings,
        places: Places | None = None,
    ) -> None:
        self.reactor = reactor
        self.name = name
        self.peers = peers
        self.policy = policy
        #: The file that keeps the peers (``state``).
        self.state: str | None = None
        #: Whether workers tell each other of failures (``zone``).
        self.zone = False
        #: Called with a peer that failures have put out.
        self.on_out: list[Callable[[Peer], None]] = []
        #: Called after the peers have been replaced.
        self.on_replace: list[Callable[[], None]] = []
        self._idle: IdlePool[Link] = IdlePool(keepalive)
        self._links: dict[UpstreamConnection, Link] = {}
        self._places = places or Places(0, reactor.seconds)
        self._sweep: Any = None
        self._trim: Any = None
        self._stopped = False
        #: Requests that came before the names of the servers were known; None: they are.
        self._early: list[Deferred[None]] | None = None

    @property
    def idle(self) -> int:
        """How many connections are kept for the next request."""
        return len(self._idle)

    def exchange(
        self, request: Request, outgoing: Outgoing, rules: ExchangeRules
    ) -> Deferred[Response]:
        """`UpstreamGroup`."""
        if self._early is not None:
            waiting: Deferred[None] = Deferred()
            self._early.append(waiting)
            if not rules.ignore_client_abort:
                request.on_gone.append(waiting.cancel)
            return waiting.addCallback(lambda _: self.exchange(request, outgoing, rules))
        exchange = Exchange(self, request, outgoing, rules)
        exchange.begin()
        return exchange.answer

    def hold(self) -> None:
        """Let requests wait until `release`: nobody knows yet where to send them."""
        self._early = []

    def release(self) -> None:
        """Send them."""
        waiting, self._early = self._early, None
        for early in waiting or ():
            if not early.called:
                early.callback(None)

    def wire(self, rules: ExchangeRules) -> GroupWire | None:
        """`relays.WireGroup`: a peer is chosen and taken."""
        now = self.reactor.seconds()
        peer = choose(self, b"", now, ())
        if peer is None:
            return None
        peer.take(now)
        link = self.idle_link(peer, rules, local_of(rules))
        connection: Any = link and link.connection
        if link is not None and not connection.usable:
            link = None
        return GroupWire(self, rules, peer, link, now)

    def idle_link(self, peer: Peer, rules: ExchangeRules, local: Local | None) -> Link | None:
        """A kept connection to ``peer`` (from ``local``), taken out of the pool."""
        return self._idle.take(self._kind(peer, rules, local))

    def _kind(self, peer: Peer, rules: ExchangeRules, local: Local | None) -> Hashable:
        """What a connection may be used again for; a location has rules of its own."""
        kind = peer, rules if self._idle.settings.local else rules.connection
        return kind if local is None else (*kind, local)

    def connect(self, peer: Peer, rules: ExchangeRules, local: Local | None) -> Deferred[Link]:
        """Open a connection to ``peer``, from ``local`` if that is given.

        Errs with `UpstreamError`; may be cancelled.
        """
        if not self._places.take():
            return fail(_no_place(self._places.limit))
        connecting = Connecting(self.reactor, peer.address, rules, local)
        kind = self._kind(peer, rules, local)
        return connecting.start().addCallbacks(
            self._connected, self._not_connected, callbackArgs=(peer, kind)
        )

    def _not_connected(self, failure: Failure) -> Failure:
        self._places.give_back()
        return failure

    def _connected(self, connection: UpstreamConnection, peer: Peer, kind: Hashable) -> Link:
        link = Link(connection, peer, kind, self.reactor.seconds())
        self._links[connection] = link
        connection.on_idle = self._on_idle
        connection.on_closed = self._on_closed
        connection.on_note = self._on_note
        connection.on_broken = self._on_broken
        return link

    def _on_note(self, connection: UpstreamConnection, text: str) -> None:
        exchange = self._links[connection].exchange
        if exchange is not None:
            exchange.note(text)

    def _on_broken(self, connection: UpstreamConnection, text: str) -> None:
        exchange = self._links[connection].exchange
        if exchange is not None:
            exchange.broke_off(text)

    def _on_idle(self, connection: UpstreamConnection) -> None:
        link = self._links[connection]
        exchange, link.exchange = link.exchange, None
        if exchange is not None:
            exchange.over()
        if self._stopped or link.peer.keeper is None:
            connection.abort()
            return
        if not self._idle.put(link, self.reactor.seconds()):
            connection.abort()
        elif self._idle.overfull and self._trim is None:
            self._trim = self.reactor.callLater(GRACE, self._close_surplus)
        if self._sweep is None:
            self._schedule_sweep()

    def _close_surplus(self) -> None:
        self._trim = None
        for link in self._idle.surplus():
            link.connection.abort()

    def _on_closed(self, connection: UpstreamConnection) -> None:
        link = self._links.pop(connection)
        self._places.give_back()
        self._idle.remove(link)
        exchange, link.exchange = link.exchange, None
        if exchange is not None:
            exchange.over()

    def replace(self, peers: Iterable[Peer]) -> None:
        """These are the peers now (`Peers.replace`). What goes finishes what it has."""
        gone = set(self.peers.replace(peers))
        for link in [link for link in self._idle if link.peer in gone]:
            link.connection.abort()
        for function in self.on_replace:
            function()

    def _schedule_sweep(self) -> None:
        expiry = self._idle.next_expiry()
        if self._sweep is None and expiry is not None:
            delay = max(0.0, expiry - self.reactor.seconds())
            self._sweep = self.reactor.callLater(delay, self._close_expired)

    def _close_expired(self) -> None:
        self._sweep = None
        for link in self._idle.expire(self.reactor.seconds()):
            link.connection.abort()
        self._schedule_sweep()

    def stop(self) -> None:
        """Close what is idle now, and what is busy when it has finished."""
        self._stopped = True
        for call in (self._sweep, self._trim):
            if call is not None:
                call.cancel()
        self._sweep = self._trim = None
        for link in self._idle.drain():
            link.connection.abort()

    def __repr__(self) -> str:
        name = self.name.decode("utf-8", "replace")
        return f"<Group {name} links={len(self._links)} idle={len(self._idle)}>"


def _no_place(limit: int) -> UpstreamError:
    words = f"{limit} worker_connections are not enough while connecting to upstream"
    return UpstreamError(Fault.LOCAL, words, unsent=True)
