"""The connection's part of the fast path: answering from `http.plans`, and learning for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .message import Peer, Request, Response, TransferSettings
from .parser import ParsedHead
from .plans import Block, Remembered
from .relays import Relaying, Wire
from .requestid import fresh_id
from .timers import Clock
from .tls_transport import with_handshake
from .transport import with_socket
from .waiting import Waiting

if TYPE_CHECKING:
    from .exchange import Exchange


class Replaying(Waiting):
    """A base class of the connection, because an object of its own would cost memory."""

    __slots__ = ("_alone", "_idle_timeout", "opened", "peer", "served")

    peer: Peer
    #: When it was made, in seconds of the time of day, for ``keepalive_time``.
    opened: int
    #: Requests so far.
    served: int
    _idle_timeout: float
    #: The bytes being parsed, if they seem to be one whole request.
    _alone: bytes

    def _replay(self, data: bytes) -> bool:
        """Answer a request that has been answered before; False if it is to be parsed."""
        end = data.find(b"\r\n")
        if end < 0:
            return False
        now, naming = self.factory.now(), self.factory.naming
        asked, name = (data, b"") if naming is None else naming.cut(data, end, self.peer)
        found = self.factory.plans.find(asked, end, now)
        if found is None:
            if not name and self._relay(data, end, now):
                return True
            self._alone = data if data.endswith(b"\r\n\r\n") else b""
            return False
        if self.factory.secure and not self.served:
            self.peer = with_handshake(self.peer, self.transport)
            if self.peer.tls is None:
                return False  # the request of a plain connection: 497
        self._answer(*found, len(data), now, now, name)
        return True

    def _relay(self, data: bytes, end: int, now: float) -> bool:
        """Pass on a request that is like others before; False if it is to be parsed."""
        found = self.factory.plans.relay(data, end)
        if found is None or (self.factory.secure and not self.served):
            return False
        block, relay, line = found
        tail = relay.tails.get((block, self.peer.address))
        wire = None if tail is None else relay.group.wire(relay.rules)
        if wire is None or tail is None:
            return False
        name = fresh_id() if len(tail) > 1 else b""
        relaying = Relaying(self, relay, block, data, line, now, wire, name)
        self._hold(relaying)
        wire.send(line + name.join(tail), relaying)
        return True

    def relayed(self, relaying: Relaying, block: Block, body: bytes, size: int) -> None:
        """The answer has come."""
        self._hold(None)
        now, started = self.factory.now(), relaying.started
        self._answer(block, relaying, body, size, now, started, relaying.name)

    def _answer(
        self,
        block: Block,
        plan: Remembered | Relaying,
        body: bytes,
        size: int,
        now: float,
        started: float,
        name: bytes,
    ) -> None:
        factory = self.factory
        if factory.asks_socket and not self.served:
            self.peer = with_socket(self.peer, self.transport)
        self.served = number = self.served + 1
        transfer = plan.transfer
        keep = (
            block.keep
            and plan.keep
            and not factory.draining
            and number < transfer.keepalive_requests
            and transfer.keepalive_timeout > 0
            and now - self.opened <= transfer.keepalive_time
        )
        if plan.named:
            plan.name = name = name or fresh_id()
        head = plan.head(factory.serializer, now, keep)
        self.transport.write(head + body)
        if plan.kept is not None:
            plan.kept.use(now)
        peer, sent = self.peer, len(head) + len(body)
        factory.app.repeated(
            plan,
            (block, peer.address),
            (block.headers, peer, number, size, now, sent, keep),
            (
                plan.line,
                plan.target,
                len(body),
                sent,
                size,
                peer.serial,
                name,
                plan.uri,
                plan.args,
                started,
            ),
        )
        self._idle_timeout = transfer.keepalive_timeout
        if keep:
            self._rest()
        else:
            self._close(linger=transfer.lingering_close == "always", transfer=transfer)

    def _know(self, parsed: ParsedHead) -> None:
        """The bytes being parsed were this head, and, it is hoped, nothing else."""
        if parsed.size != len(self._alone):
            self._alone = b""  # the next request came with it
            return
        if self.factory.named is not None and self.factory.secure:
            return  # with another SNI the same bytes may mean something else
        naming, end = self.factory.naming, self._alone.index(b"\r\n")
        if naming is None:
            self.factory.plans.know(self._alone, end, parsed)
        elif naming.clear(parsed.head.headers):
            self.factory.plans.know(naming.cut(self._alone, end, self.peer)[0], end, parsed)

    def learn(self, request: Request, response: Response, framing: bytes) -> None:
        """For the exchange: an answer that may be remembered."""
        if self._alone:
            naming, end = self.factory.naming, self._alone.index(b"\r\n")
            data = self._alone if naming is None else naming.cut(self._alone, end, self.peer)[0]
            self.factory.plans.learn(data, end, request, response, framing)

    @property
    def clock(self) -> Clock:
        """The factory's."""
        return self.factory.clock

    @property
    def occupied(self) -> bool:
        """Whether there is more to do than to write an answer."""
        raise NotImplementedError

    def _hold(self, relaying: Relaying | None) -> None:
        """A request is being answered in this way, or no longer."""
        raise NotImplementedError

    def take_up(self, data: bytes, started: float, wire: Wire, name: bytes) -> Exchange:
        """Go on with a request that has been sent on already, on the ordinary path."""
        raise NotImplementedError

    def _rest(self) -> None:
        """Wait for the next request."""
        raise NotImplementedError

    def _close(self, *, linger: bool = False, transfer: TransferSettings | None = None) -> None:
        """Close once everything is written."""
        raise NotImplementedError
