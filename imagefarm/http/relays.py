"""The fast path for requests that are passed on to an upstream.

How such a request is sent on, and what is made of the head of its answer, is decided by the
ordinary path and remembered: a `Relay` for the requests of a directory and extension (as in
`http.families`), with the head that goes out for a client and header block, and a `Present` for
each kind of answer: an upstream's head without what differs from file to file. The next such
request goes out at once, on a kept connection or a new one (`Wire`), and its answer comes back
with the remembered head.

Whatever is unusual (an answer of another kind, one that is large or late, a client that leaves,
a connection that breaks) is not dealt with here: `Relaying.inflate` makes the ordinary request
and exchange, which take the wire over as if they had sent it, and go on.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, Protocol

from attrs import frozen

from .alike import Alike
from .exchange import Phase
from .families import MAX_BODY, replayed, target_of
from .forms import HeadForm, has_marks
from .headers import Headers
from .message import Attempt, Occasion, Outcome, Request, Response, Traffic
from .serializer import Serializer
from .timers import Call, Clock

if TYPE_CHECKING:
    from .exchange import Exchange
    from .plans import Block

#: Clients and header blocks whose outgoing head a relay remembers, and kinds of answers.
MAX_TAILS: Final = 1024
MAX_PRESENTS: Final = 1024
#: Seconds that the rest of a body may take, before what there is goes out without it.
PATIENCE: Final = 0.01

#: An answer in more pieces than this is given to the client as it comes, on the ordinary path.
MAX_PIECES: Final = 16

#: A length has fewer.
_DIGITS: Final = 19
_CONTROLS: Final = re.compile(rb"[\x00-\x1f\x7f]")
#: What differs from file to file, and what we write ourselves.
_VARYING: Final = re.compile(
    rb"\r\n(Date|Content-Length|Last-Modified|ETag|Expires): ([^\r\n]*)(?=\r\n|\Z)"
)
#: Answers with these are none to remember: they are for one client, or are orders.
_NEVER: Final = frozenset({
    b"set-cookie", b"location", b"refresh", b"age", b"transfer-encoding", b"trailer", b"upgrade",
    b"x-accel-redirect", b"x-accel-buffering", b"x-accel-limit-rate", b"x-accel-charset",
    b"x-accel-expires",
})  # fmt: skip
#: Those of them that are passed on as they come.
_GAPS: Final = frozenset({b"last-modified", b"etag", b"expires"})


class Reader(Protocol):
    """Who waits for the answer on a wire."""

    def received(self, data: bytes) -> None:
        """What the peer sends."""

    def unusual(self) -> None:
        """The wire is about to break, or has taken too long: let the ordinary path see it."""


class Wire(Protocol):
    """A peer that was chosen, and a connection to it.

    Either the answer ends with `finished`, or an ordinary exchange takes the wire over; or it is
    `released` because none did.
    """

    traffic: Traffic

    @property
    def peer_name(self) -> bytes:
        """The peer's, as in logs."""

    @property
    def connected(self) -> float:
        """The seconds that connecting took."""

    @property
    def taken(self) -> bool:
        """Whether an ordinary exchange has it now."""

    def send(self, data: bytes, reader: Reader) -> None:
        """Send a whole request, on a kept connection or on a new one."""

    def resume(self, data: bytes) -> None:
        """Deliver ``data`` once more, to the exchange that has taken over."""

    def finished(self, status: int, *, keep: bool) -> float:
        """The answer came whole, and the connection is idle or, without ``keep``, to be closed.

        Returns the seconds it took.
        """

    def release(self) -> None:
        """Give up."""


class Client(Protocol):
    """The client's connection."""

    @property
    def clock(self) -> Clock:
        """For delays."""

    @property
    def occupied(self) -> bool:
        """Whether there is more to do than to write an answer."""

    def relayed(self, relaying: Relaying, block: Block, body: bytes, size: int) -> None:
        """Answer with what came for a request of ``size`` bytes."""

    def take_up(self, data: bytes, started: float, wire: Wire, name: bytes) -> Exchange:
        """Go on on the ordinary path."""


class WireGroup(Protocol):
    """Where wires come from."""

    def wire(self, rules: Any) -> Wire | None:
        """Choose a peer for a request that can go to any; None if there is none."""


@frozen(eq=False)
class Route:
    """How a request was sent on, by the handler's word: ``head`` for the next like it, too.

    ``rules`` are the group's. ``head`` is what follows the request line, to the empty line; where
    the request id stands in it, it is cut.
    ``max_head`` is the most that an answer's head may have, in bytes.
    """

    group: WireGroup
    rules: Any
    head: tuple[bytes, ...]
    max_head: int


@frozen(eq=False)
class Source:
    """An upstream's answer as it came: its head without the empty line, and the body.

    ``keep``: the connection is kept after it.
    """

    head: bytes
    body: Any
    keep: bool


def split_head(head: bytes) -> tuple[bytes, list[bytes], list[bytes]]:
    """An upstream's head without what differs from file to file; which fields those are, in
    their order; and their values.
    """
    parts = _VARYING.split(head)
    names, values = parts[1::3], parts[2::3]
    # A head with one of them is another kind than one without.
    return b"\r\n".join(parts[::3] + names), names, values


class Present:
    """What becomes of one kind of answer: of the same upstream head, for the same header block.

    ``names`` are the varying fields of the upstream's head, ``values`` theirs this time.
    """

    __slots__ = ("_gaps", "form", "keep", "length_at", "memory", "names", "persistent", "status")

    def __init__(
        self, request: Request, response: Response, names: list[bytes], values: list[bytes]
    ) -> None:
        self.status = response.status
        self.persistent: bool = response.source.keep
        self.keep = not response.close
        self.memory: dict[Any, Any] = {}
        self.names = [name.lower() for name in names]
        self.length_at = names.index(b"Content-Length")
        said = dict(zip(self.names, values, strict=True))
        found = {name.lower(): value for name, value in response.headers}
        # What is the same has been passed on, but for an Expires that we have written.
        passed = [
            name
            for name in found
            if name in _GAPS and said.get(name) == found[name]
            if name != b"expires" or not renews(response)
        ]
        # In the order of the head: the serializer puts tag and expiry where they come.
        passed.sort(key=lambda name: name != b"last-modified")
        order = [b"content-length", *passed]
        self.form = HeadForm(request, response, dict.fromkeys(order, b"%b"))
        self._gaps = tuple(self.names.index(name) for name in order)

    def head(self, serializer: Serializer, now: float, keep: bool, values: list[bytes]) -> bytes:
        """The head of an answer of this kind."""
        form = self.form.at(serializer, now, keep)
        return form % tuple([values[gap] for gap in self._gaps])


class Relay:
    """Requests that are passed on alike; ``request`` is the one that it was learnt from."""

    __slots__ = (
        "alike", "group", "max_head", "presents", "request", "rules", "tails", "transfer",
    )  # fmt: skip

    def __init__(self, request: Request, route: Route, alike: Alike) -> None:
        self.request = request
        self.transfer = request.transfer
        self.alike = alike
        self.group = route.group
        self.rules = route.rules
        self.max_head = route.max_head
        self.tails: dict[tuple[Block, str], tuple[bytes, ...]] = {}
        self.presents: dict[tuple[Block, bytes], Present] = {}

    def learn(self, block: Block, request: Request, response: Response, route: Route) -> None:
        """Remember what went out for ``request``, and what became of the answer."""
        source: Source = response.source
        key, names, values = split_head(source.head)
        if b"Content-Length" not in names or len(set(names)) < len(names):
            return
        if source.head.lower().count(b"\r\ncontent-length:") > 1:
            return  # one that is written otherwise, and would be taken to be always the same
        if has_marks(response.headers):
            return
        if len(self.tails) >= MAX_TAILS:
            self.tails.clear()
        if len(self.presents) >= MAX_PRESENTS:
            self.presents.clear()
        self.tails[block, request.peer.address] = route.head
        self.presents[block, key] = Present(request, response, names, values)


def renews(response: Response) -> bool:
    """Whether our own ``expires`` has a say in it."""
    assert response.headers_at is not None
    return response.headers_at(0) is not response.headers


def usual(headers: Headers) -> bool:
    """Whether an upstream's fields are those of an answer that may be remembered."""
    return not any(name.lower() in _NEVER for name, _ in headers)


class Relaying:
    """One request on a `Relay`: what the connection has in place of an exchange, and in place of
    a plan once it is answered.
    """

    __slots__ = (
        "_block",
        "_buffer",
        "_connection",
        "_data",
        "_patience",
        "_pieces",
        "_present",
        "_relay",
        "_values",
        "_wire",
        "line",
        "name",
        "started",
        "took",
        "uri",
    )  # fmt: skip

    many: Final = True
    kept: Final = None
    named: Final = False
    args: Final = b""
    # As an exchange: one that waits for the application.
    body: Final = None
    phase: Final = Phase.PENDING
    pushing: Final = False
    resting: Final = False
    unframed: Final = False

    def __init__(
        self,
        connection: Client,
        relay: Relay,
        block: Block,
        data: bytes,
        line: bytes,
        started: float,
        wire: Wire,
        name: bytes,
    ) -> None:
        self._connection = connection
        self._relay = relay
        self._block = block
        self._data = data
        self.line = line
        #: The request id that goes out with it, if one does.
        self.name = name
        self.uri = target_of(line)
        self.started = started
        self._wire = wire
        self._buffer = b""
        self._pieces = 0
        self._patience: Call | None = None
        self._present: Present | None = None
        self._values: list[bytes] = []
        #: The seconds that the answer took.
        self.took = 0.0

    # What the connection sees of an exchange.

    @property
    def request(self) -> Request:
        """One with the settings that are in force."""
        return self._relay.request

    def body_demanded(self) -> None:
        """There is none."""

    def pause(self) -> None:
        """Nothing is being written yet."""

    def resume(self) -> None:
        """Nothing waits to be written."""

    def gone(self, error: Any = None) -> None:
        """The client has gone: for the ordinary path to deal with, which may go on."""
        data, self._buffer = self._buffer, b""
        self.inflate().gone(error)
        if data:
            self._wire.resume(data)

    def inflate(self) -> Exchange:
        """Go on on the ordinary path."""
        self._lose_patience()
        exchange = self._connection.take_up(self._data, self.started, self._wire, self.name)
        if not self._wire.taken:
            self._wire.release()
        return exchange

    # What the wire tells.

    def unusual(self) -> None:
        """`Reader`. The client has got nothing yet: so what came of an answer is given up."""
        self._wire.traffic.received = len(self._buffer)
        self._go_on(b"")

    def received(self, data: bytes) -> None:
        """`Reader`."""
        buffer = self._buffer
        data = buffer + data if buffer else data
        end = data.find(b"\r\n\r\n")
        if end < 0 or end + 4 > self._relay.max_head:
            self._go_on(data)
            return
        key, _, values = split_head(data[:end])
        present = self._relay.presents.get((self._block, key))
        if present is None or _CONTROLS.search(b"".join(values)):
            self._go_on(data)
            return
        digits = values[present.length_at]
        length = int(digits) if len(digits) < _DIGITS and digits.isdigit() else -1
        missing = length - (len(data) - end - 4)
        if missing < 0 or length > MAX_BODY or self._connection.occupied:
            self._go_on(data)
            return
        if missing:
            self._pieces += 1
            if self._pieces > MAX_PIECES:
                self._go_on(data)
                return
            self._buffer = data
            if self._patience is None:
                self._patience = self._connection.clock.callLater(PATIENCE, self._late)
            return
        self._lose_patience()
        self._present, self._values = present, values
        self._buffer = data[:end]
        wire = self._wire
        wire.traffic.received, wire.traffic.body = len(data), length
        self.took = wire.finished(present.status, keep=present.persistent)
        self._connection.relayed(self, self._block, data[end + 4 :], len(self._data))

    def _late(self) -> None:
        self._patience = None
        self._go_on(self._buffer)

    def _lose_patience(self) -> None:
        patience, self._patience = self._patience, None
        if patience is not None:
            patience.cancel()

    def _go_on(self, data: bytes) -> None:
        self._buffer = b""
        self.inflate()
        if data:
            self._wire.resume(data)

    # What the connection sees of a plan.

    @property
    def target(self) -> bytes:
        """What is asked for: a path, without a query."""
        return self.uri

    @property
    def transfer(self) -> Any:
        """The settings for sending."""
        return self._relay.transfer

    @property
    def keep(self) -> bool:
        """Whether the connection may be kept."""
        assert self._present is not None
        return self._present.keep

    @property
    def memory(self) -> dict[Any, Any]:
        """For the application's log."""
        assert self._present is not None
        return self._present.memory

    def head(self, serializer: Serializer, now: float, keep: bool) -> bytes:
        """The head for this second."""
        assert self._present is not None
        return self._present.head(serializer, now, keep, self._values)

    def replay(self, occasion: Occasion) -> Request:
        """The finished request for the log, as the ordinary path would have left it."""
        headers, peer, number, size, started, sent, keep = occasion
        present, wire = self._present, self._wire
        assert present is not None
        values = dict(zip(present.names, self._values, strict=True))
        body = int(values[b"content-length"])
        fields = [
            (name, values[lower] if (lower := name.lower()) in present.form.gaps else value)
            for name, value in present.form.headers(started)
        ]
        received = [
            (name, value.strip(b" \t"))
            for name, _, value in (row.partition(b":") for row in self._buffer.split(b"\r\n")[1:])
        ]
        took = self.took
        attempt = Attempt(
            wire.peer_name, present.status, took, wire.connected, took, wire.traffic, first=True
        )
        outcome = Outcome(
            present.status,
            sent,
            body,
            attempts=[attempt],
            complete=True,
            keep=keep,
            response=Response(present.status, Headers(fields), length=body),
            upstream_headers=Headers(received),
            upstream_length=body,
        )
        return replayed(
            self._relay.request, self._relay.alike.captures, self.uri, headers, peer,
            self.started, outcome, number=number, size=size,
        )  # fmt: skip
