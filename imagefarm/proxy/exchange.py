"""One request's way through a group: attempt after attempt until an answer or the end.

The rules are nginx's (``proxy_next_upstream``): errors, timeouts and invalid heads go to the
next peer unless configured otherwise; a request that may have been acted on is repeated only if
its method is idempotent (RFC 9110 section 9.2.2); nothing is repeated once an answer's head was
passed on, or when a part of the request's body is gone.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable
from typing import TYPE_CHECKING, Any, Final, Protocol

import attrs
from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from imagefarm.http.binding import Local
from imagefarm.http.message import Attempt, Request, Response, Traffic, discard
from imagefarm.http.requestlog import printable, report, report_failure
from imagefarm.http.spool import OnceBody, SpooledBody
from imagefarm.http.upstream import (
    ExchangeRules,
    Fault,
    NoLivePeers,
    Outgoing,
    UpstreamConnection,
    UpstreamError,
)

from .peer import Peer
from .peers import Peers
from .policies import Policy

if TYPE_CHECKING:
    from .wire import GroupWire

#: nginx's NGX_HTTP_UPSTREAM_FT_NON_IDEMPOTENT.
_NON_IDEMPOTENT: Final = frozenset({b"POST", b"LOCK", b"PATCH"})
#: Statuses that ``next_upstream`` may name; the last two do not speak against the peer.
_STATUS_WORDS: Final = {
    500: "http_500", 502: "http_502", 503: "http_503", 504: "http_504", 429: "http_429",
    403: "http_403", 404: "http_404",
}  # fmt: skip
_BLAMELESS: Final = frozenset({403, 404})


@attrs.define(eq=False)
class Link:
    """A connection of a group: whose it is, and the exchange it serves, if any."""

    connection: UpstreamConnection
    peer: Peer
    key: Hashable
    created: float
    served: int = 0
    exchange: Exchange | None = None


def local_of(rules: ExchangeRules) -> Local | None:
    """Where connections come from, if that is the same for all requests."""
    return None if rules.bind is None else rules.bind.local


class Connections(Protocol):
    """What an exchange needs of its group."""

    reactor: Any
    name: bytes
    peers: Peers
    policy: Policy
    on_out: list[Callable[[Peer], None]]

    def idle_link(self, peer: Peer, rules: ExchangeRules, local: Local | None) -> Link | None:
        """A kept connection to ``peer`` (from ``local``), which is not idle any more."""

    def connect(self, peer: Peer, rules: ExchangeRules, local: Local | None) -> Deferred[Link]:
        """Open a connection to ``peer``. Errs with `UpstreamError`; may be cancelled."""


def choose(group: Connections, key: bytes, now: float, tried: Collection[Peer]) -> Peer | None:
    """The next peer for a request with this key, to be taken at once."""
    peer = group.policy.choose(group.peers, key, now, tried)
    while peer is not None and not peer.admits():
        tried = {*tried, peer}
        peer = group.policy.choose(group.peers, key, now, tried)
    return peer


class Exchange:
    """The exchange of one request; ``answer`` is what the group hands out."""

    __slots__ = (
        "_attempt", "_body", "_broke", "_connected", "_current", "_group", "_key", "_left",
        "_link", "_local", "_outgoing", "_peer", "_recorded", "_request", "_rules", "_started",
        "_traffic", "_tried", "_try_started", "answer",
    )  # fmt: skip

    def __init__(
        self, group: Connections, request: Request, outgoing: Outgoing, rules: ExchangeRules
    ) -> None:
        self.answer: Deferred[Response] = Deferred(self._cancelled)
        self._group = group
        self._request = request
        body = outgoing.body
        if body is not None and not isinstance(body, SpooledBody):
            body = OnceBody(body)
            outgoing = attrs.evolve(outgoing, body=body)
        self._outgoing = outgoing
        self._rules = rules
        self._body = body
        self._key = group.policy.key(request)
        #: Where connections come from, if not from where the system likes.
        self._local = None if rules.bind is None else rules.bind.of(request)
        self._tried: set[Peer] = set()
        self._left = group.peers.tries
        if rules.tries:
            self._left = min(self._left, rules.tries)
        self._started = self._try_started = group.reactor.seconds()
        #: The peer that this attempt holds; None when it has been given back.
        self._peer: Peer | None = None
        self._link: Link | None = None
        #: What to cancel: the connecting or the sending of this attempt.
        self._current: Deferred[Any] | None = None
        self._connected: float | None = None
        self._traffic = Traffic()
        #: Whether an attempt of ours was recorded in ``outcome.attempts``.
        self._recorded = False
        #: Where there this attempt was, or -1.
        self._attempt = -1
        #: The answer that was handed out has broken off.
        self._broke = False

    def begin(self) -> None:
        """Make the first attempt."""
        if not self._rules.ignore_client_abort:
            self._request.on_gone.append(self.answer.cancel)
        wire = self._request.wire
        if wire is not None and wire.group is self._group and not wire.taken:
            self._take_over(wire)
        else:
            self._try_next()

    def _take_over(self, wire: GroupWire) -> None:
        """Go on with an attempt that has been begun elsewhere."""
        self._tried.add(wire.peer)
        self._peer = wire.peer
        self._started = self._try_started = wire.started
        link, failure = wire.take()
        if failure is not None:
            self._failed(failure, wire.peer)
            return
        if link is None:
            self._connect(wire.peer)
            return
        self._connected = wire.connected
        link.exchange = self
        self._link = link
        self._traffic = wire.traffic
        connection: Any = link.connection
        self._await(
            connection.adopt(self._outgoing, wire.traffic, reused=link.served > 1), wire.peer
        )

    # -- an attempt ----------------------------------------------------------------------------

    def _try_next(self) -> None:
        group = self._group
        peer = choose(group, self._key, group.reactor.seconds(), self._tried)
        if peer is None:
            self._report("no live upstreams while connecting to upstream", self._group.name)
            self._add(Attempt(self._group.name, 502, 0.0, first=not self._recorded))
            self._fail(NoLivePeers("no live upstreams"))
        else:
            self._try(peer)

    def _try(self, peer: Peer) -> None:
        now = self._group.reactor.seconds()
        peer.take(now)
        self._tried.add(peer)
        self._peer = peer
        self._try_started = now
        self._connected = None
        self._traffic = Traffic()
        self._attempt = -1
        self._request.outcome.upstream_headers = None
        link = self._group.idle_link(peer, self._rules, self._local)
        if link is None:
            self._connect(peer)
        else:
            self._connected = 0.0
            self._send(link, peer)

    def _connect(self, peer: Peer) -> None:
        connecting = self._current = self._group.connect(peer, self._rules, self._local)
        connecting.addCallbacks(
            self._send, self._failed, callbackArgs=(peer,), errbackArgs=(peer,)
        )
        connecting.addErrback(self._broken)

    def _send(self, link: Link, peer: Peer) -> None:
        if self._connected is None:
            self._connected = self._elapsed()
        reused = link.served > 0
        link.served += 1
        link.exchange = self
        self._link = link
        sending = link.connection.send(self._outgoing, self._rules.timeouts, reused=reused)
        self._traffic = link.connection.traffic
        self._await(sending, peer)

    def _await(self, sending: Deferred[Response], peer: Peer) -> None:
        self._current = sending
        sending.addCallbacks(
            self._answered, self._failed, callbackArgs=(peer,), errbackArgs=(peer,)
        )
        sending.addErrback(self._broken)

    def over(self) -> None:
        """The attempt's connection is idle or closed: it costs the peer nothing any more."""
        peer = self._peer
        self._let_go()
        if self._attempt >= 0:
            attempts = self._request.outcome.attempts
            elapsed = self._elapsed()
            attempts[self._attempt] = attrs.evolve(attempts[self._attempt], response_time=elapsed)
            if peer is not None:
                peer.counters.finished(elapsed)
                if not self._broke:
                    peer.succeeded(self._group.reactor.seconds())
            self._drop_body()

    def _let_go(self) -> None:
        """Give the peer back and part from the connection."""
        link, self._link = self._link, None
        if link is not None:
            link.exchange = None
        peer, self._peer = self._peer, None
        if peer is not None:
            peer.counters.sent += self._traffic.sent
            peer.counters.received += self._traffic.received
            peer.release()

    # -- its result ----------------------------------------------------------------------------

    def _answered(self, response: Response, peer: Peer) -> None:
        self._request.outcome.upstream_headers = response.headers
        self._request.outcome.upstream_length = response.length
        elapsed = self._elapsed()
        peer.counters.answered(response.status, elapsed)
        word = _STATUS_WORDS.get(response.status)
        if word is not None and self._left > 1 and self._may_go_on(word, unsent=False):
            self._record(peer, response.status, elapsed)
            self._let_go()
            discard(response.body)
            if response.status not in _BLAMELESS:
                self._blame(peer, f"status {response.status}")
            self._left -= 1
            self._try_next()
            return
        self._attempt = self._record(peer, response.status, elapsed)
        self._current = None
        if self._peer is None:
            # The body came with the head, and the connection is idle already.
            peer.counters.finished(elapsed)
            self._drop_body()
        if self._peer is None or response.tunnel is not None:
            # Else it is for `over` to say: the body may still break off.
            peer.succeeded(self._group.reactor.seconds())
        self.answer.callback(response)

    def _failed(self, failure: Failure, peer: Peer) -> None:
        if failure.check(CancelledError):
            return
        error = failure.value
        if not isinstance(error, UpstreamError):
            self._broken(failure)
            return
        link, self._link = self._link, None
        if link is not None:
            link.exchange = None
        body = self._body
        if body is not None and body.error is not None:
            # Not the peer's fault: the client's request broke off.
            self._record(peer, 0, None)
            self._let_go()
            self._fail(body.error)
        elif error.fault is Fault.LOCAL:
            # As in nginx: no server has failed, and none is known to have been asked.
            self._report(error.reason, peer.name, "crit")
            self._add(Attempt(b"", 0, self._elapsed(), first=not self._recorded))
            self._let_go()
            self._fail(error)
        elif error.stale and self._may_repeat(error.unsent):
            # The peer closed an idle connection just as we used it: nobody has failed.
            self._connected = None
            self._connect(peer)
        else:
            self._report(error.reason, peer.name)
            self._record(peer, 504 if error.fault is Fault.TIMEOUT else 502, None)
            self._let_go()
            self._blame(peer, error.reason)
            self._left -= 1
            if self._left > 0 and self._may_go_on(error.fault.word, error.unsent):
                self._try_next()
            else:
                self._fail(error)

    def _may_go_on(self, word: str, unsent: bool) -> bool:
        rules = self._rules
        if word not in rules.next_upstream:
            return False
        if rules.next_timeout:
            spent = self._group.reactor.seconds() - self._started
            if spent >= rules.next_timeout:
                return False
        return self._may_repeat(unsent)

    def _may_repeat(self, unsent: bool) -> bool:
        """Whether the request may be, and can be, sent a second time."""
        if self._body is not None and not self._body.replayable:
            return False
        return (
            unsent
            or self._outgoing.method not in _NON_IDEMPOTENT
            or "non_idempotent" in self._rules.next_upstream
        )

    def _blame(self, peer: Peer, reason: str) -> None:
        if peer.failed(self._group.reactor.seconds(), reason):
            self._report("upstream server temporarily disabled", peer.name, "warn")
            for function in self._group.on_out:
                function(peer)

    # -- the end -------------------------------------------------------------------------------

    def _fail(self, error: Exception) -> None:
        self._current = None
        self._drop_body()
        self.answer.errback(error)

    def _broken(self, failure: Failure) -> None:
        """A defect of ours: nobody must wait for an answer that does not come."""
        report_failure(self._request, "exchange with upstream broke", failure)
        self._let_go()
        if not self.answer.called:
            self._fail(RuntimeError(failure.getErrorMessage()))

    def _cancelled(self, answer: Deferred[Response]) -> None:
        current, self._current = self._current, None
        peer = self._peer
        if peer is not None:
            self._record(peer, 0, None)
        self._let_go()
        if current is not None:
            current.cancel()
        self._drop_body()

    def _drop_body(self) -> None:
        body, self._body = self._body, None
        if isinstance(body, OnceBody):
            body.close()  # a spooled one is the request's, which may go on elsewhere

    def _elapsed(self) -> float:
        elapsed: float = self._group.reactor.seconds() - self._try_started
        return elapsed

    def _record(self, peer: Peer, status: int, header: float | None) -> int:
        return self._add(
            Attempt(
                peer.name, status, self._elapsed(), self._connected, header, self._traffic,
                first=not self._recorded,
            )
        )  # fmt: skip

    def _add(self, attempt: Attempt) -> int:
        attempts = self._request.outcome.attempts
        attempts.append(attempt)
        self._recorded = True
        return len(attempts) - 1

    def note(self, what: str) -> None:
        """Say in the log ``what`` the connection has to tell of this attempt."""
        link = self._link
        if link is not None:
            self._report(what, link.peer.name)

    def broke_off(self, what: str) -> None:
        """The answer that was handed out breaks off: it can't be repeated, but is a failure."""
        self.note(what)
        body, peer = self._body, self._peer
        if peer is not None and (body is None or body.error is None):
            self._broke = True
            self._blame(peer, what)

    def _report(self, what: str, upstream: bytes, level: str = "error") -> None:
        """One line in nginx's form, with whose request it was and which peer failed."""
        scheme = self._rules.scheme
        path = "" if scheme == "fastcgi" else printable(self._outgoing.target)
        report(self._request, level, what, f"{scheme}://{printable(upstream)}{path}")
