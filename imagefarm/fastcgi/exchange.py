"""The web server's half of one FastCGI exchange. No I/O.

Three layers, each a value in and values out: `RecordReader` cuts records, `RequestState` says
whether each may come now, `Exchange` makes of them what an HTTP server wants to know: the head,
the body's bytes, what the application complains of, the end. The request goes out through the
same object, so that it knows when both sides are done and the connection is free again.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from attrs import frozen

from imagefarm.http.headers import MAX_HEAD

from . import records as fcgi
from .cgi import CGIHead, HeadParser, InvalidHead
from .records import ProtocolStatus, Record, RecordReader, RecordType
from .state import Event, RequestState, Side, event_of

#: nginx's choice, and php-fpm takes no other.
REQUEST_ID: Final = 1

#: The most request body in one record: small enough that php-fpm reads it in one go.
STDIN_CHUNK: Final = 32768

#: Statuses whose answers have no body (RFC 9110 sections 15.3.5, 15.4.5).
_BODILESS: Final = frozenset({204, 304})


@frozen(eq=False)
class Head:
    """The CGI head is complete. ``length`` is the body's length where it is known."""

    cgi: CGIHead
    length: int | None


@frozen
class Data:
    """Bytes of the body, at least one."""

    data: bytes


@frozen
class Complaint:
    """Bytes the application wrote to its standard error output."""

    data: bytes


@frozen
class End:
    """The answer is complete. ``reusable``: another request may follow on the connection.

    ``excess``: the application sent more than its Content-Length said, which was dropped.
    """

    app_status: int
    reusable: bool
    excess: bool = False


@frozen
class Overloaded:
    """The application refused the request for lack of room (FCGI_OVERLOADED)."""

    reusable: bool


ExchangeEvent = Head | Data | Complaint | End | Overloaded


class PrematureEnd(Exception):
    """The answer broke off, or its body has another length than its head said."""


class Exchange:
    """One request and its answer, with request id 1.

    ``bodiless``: the request is a HEAD, so whatever body comes is dropped. `receive`
    raises `FastCGIError`, `InvalidHead` or `PrematureEnd`, and then the connection is lost.
    Their messages are nginx's.
    """

    def __init__(self, *, keep: bool, bodiless: bool = False, head_limit: int = MAX_HEAD) -> None:
        self._keep = keep
        self._bodiless = bodiless
        self._reader = RecordReader()
        self._parser = HeadParser(head_limit)
        self._state = RequestState()
        self._left: int | None = None
        self._done = False
        #: Whether the head, and whether anything at all, has come.
        self.has_head = False
        self.answering = False

    def begin(self, params: Iterable[tuple[bytes, bytes]]) -> bytes:
        """FCGI_BEGIN_REQUEST and all FCGI_PARAMS."""
        for event in (Event.BEGIN, Event.PARAMS_END):
            self._state.advance(Side.WEB_SERVER, event)
        return b"".join(
            (
                fcgi.encode_begin(REQUEST_ID, fcgi.Role.RESPONDER, keep=self._keep),
                fcgi.encode_stream(RecordType.PARAMS, REQUEST_ID, fcgi.encode_pairs(params)),
                fcgi.encode_record(RecordType.PARAMS, REQUEST_ID),
            )
        )

    def stdin(self, data: bytes) -> bytes:
        """A piece of the request's body."""
        self._state.advance(Side.WEB_SERVER, Event.STDIN)
        return fcgi.encode_stream(RecordType.STDIN, REQUEST_ID, data, STDIN_CHUNK)

    def stdin_end(self) -> bytes:
        """The request's body is complete: an empty FCGI_STDIN, which must come always."""
        self._state.advance(Side.WEB_SERVER, Event.STDIN_END)
        return fcgi.encode_record(RecordType.STDIN, REQUEST_ID)

    def receive(self, data: bytes) -> list[ExchangeEvent]:
        """What the application's bytes say. After `End` or `Overloaded` comes nothing more."""
        self.answering = True
        events: list[ExchangeEvent] = []
        found = self._reader.feed(data)
        for index, record in enumerate(found):
            trailing = index + 1 < len(found) or self._reader.pending > 0
            self._take(record, events, trailing)
            if self._done:
                break
        return events

    def closed(self) -> PrematureEnd:
        """The application closed the connection before FCGI_END_REQUEST."""
        if not self.has_head:
            return PrematureEnd("upstream prematurely closed connection")
        return PrematureEnd("upstream prematurely closed FastCGI stdout")

    def _take(self, record: Record, events: list[ExchangeEvent], trailing: bool) -> None:
        if record.request_id != REQUEST_ID:
            raise fcgi.MalformedRecord(
                f"upstream sent unexpected FastCGI request id: {record.request_id}"
            )
        event = event_of(record.type, record.content)
        self._state.advance(Side.APPLICATION, event)
        if event is Event.STDOUT:
            self._stdout(record.content, events)
        elif event is Event.STDERR:
            events.append(Complaint(record.content))
        elif event is Event.END:
            self._end(record.content, events, trailing)

    def _stdout(self, data: bytes, events: list[ExchangeEvent]) -> None:
        if not self.has_head:
            found = self._parser.feed(data)
            if found is None:
                return
            head, data = found
            self.has_head = True
            bodiless = self._bodiless or head.status in _BODILESS
            self._left = 0 if bodiless else head.content_length
            length = head.content_length if self._bodiless else self._left
            events.append(Head(head, length))
        if not data:
            return
        # The answer is whole without the excess; whether its end ever comes is of no interest.
        excess = self._left is not None and len(data) > self._left
        if self._left is not None:
            data = data[: self._left]
            self._left -= len(data)
        if data:
            events.append(Data(data))
        if excess:
            self._done = True
            events.append(End(0, reusable=False, excess=not self._bodiless))

    def _end(self, content: bytes, events: list[ExchangeEvent], trailing: bool) -> None:
        end = fcgi.decode_end(content)
        self._done = True
        # Whatever follows the end was not asked for: a sign that we are out of step.
        reusable = self._keep and self._state.reusable and not trailing
        if end.protocol_status == ProtocolStatus.OVERLOADED and not self.has_head:
            events.append(Overloaded(reusable))
            return
        if end.protocol_status != ProtocolStatus.REQUEST_COMPLETE:
            raise PrematureEnd(
                f"upstream refused the FastCGI request, protocol status: {end.protocol_status}"
            )
        if not self.has_head:
            raise InvalidHead("upstream prematurely closed FastCGI stdout")
        if self._left:
            raise PrematureEnd("upstream prematurely closed FastCGI stdout")
        events.append(End(end.app_status, reusable))

    def __repr__(self) -> str:
        return (
            f"<Exchange {self._state.web_server.name}/{self._state.application.name}"
            f"{' head' if self.has_head else ''}>"
        )
