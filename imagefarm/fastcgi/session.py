"""The application's half of a FastCGI connection. No I/O.

A `Session` takes the web server's bytes and returns what there is to do: start a request, stop
one, write an answer that needs nobody's thought (management records, refusals), close. Request
ids are multiplexed. Whatever is collected has a limit; a request that passes one is read to its
end without being kept, so that the refusal reaches a peer that is still sending.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from attrs import Factory, define, frozen

from . import records as fcgi
from .records import ProtocolStatus, Record, RecordReader, RecordType, Role
from .state import Event, RequestState, Side, event_of


@frozen
class ResponderLimits:
    """What a responder takes. Sizes in bytes, times in seconds.

    ``requests`` and ``connections`` count for the process: a request beyond gets
    FCGI_OVERLOADED, a connection beyond is closed. ``params`` and ``stdin`` are one request's;
    ``discarded`` is what may follow after it was refused. ``timeout`` is how long a request's
    next bytes, or the web server's reading of the answer, may take; ``keepalive`` is how long a
    connection may be idle.
    """

    requests: int = 64
    connections: int = 512
    params: int = 65536
    stdin: int = 1 << 20
    discarded: int = 16 << 20
    timeout: float = 60.0
    keepalive: float = 300.0


@frozen
class FastCGIRequest:
    """A whole request. Of parameters with the same name the last one counts, as in PHP."""

    params: Mapping[bytes, bytes]
    stdin: bytes
    request_id: int

    @property
    def method(self) -> bytes:
        """REQUEST_METHOD, or GET."""
        return self.params.get(b"REQUEST_METHOD", b"GET")


@frozen
class Start:
    """A request is complete: answer it."""

    request: FastCGIRequest


@frozen
class Stop:
    """FCGI_ABORT_REQUEST: stop working on a request that was started, and `Session.end` it."""

    request_id: int


@frozen
class Reply:
    """Bytes for the web server."""

    data: bytes


@frozen
class Close:
    """Close the connection once everything is written."""


SessionEvent = Start | Stop | Reply | Close


class LimitPassed(fcgi.FastCGIError):
    """A peer goes on sending what was refused."""


@define
class _Incoming:
    """A request id in use. ``refusal`` is the answer to give when the request has been read."""

    keep: bool
    admitted: bool
    state: RequestState = Factory(RequestState)
    params: bytearray = Factory(bytearray)
    stdin: bytearray = Factory(bytearray)
    discarded: int = 0
    refusal: bytes | None = None


#: CGI answers to requests that are larger than we take.
_PARAMS_TOO_LARGE: Final = b"Status: 431 Request Header Fields Too Large\r\n\r\n"
_STDIN_TOO_LARGE: Final = b"Status: 413 Content Too Large\r\n\r\n"
_MALFORMED: Final = b"Status: 400 Bad Request\r\n\r\n"


class Session:
    """One connection's requests.

    ``admit`` asks for one of the process's places and ``leave`` gives it back. `receive` raises
    `FastCGIError` where the peer breaks the protocol; the connection can only be dropped then.
    """

    def __init__(
        self, limits: ResponderLimits, admit: Callable[[], bool], leave: Callable[[], None]
    ) -> None:
        self._limits = limits
        self._admit = admit
        self._leave = leave
        self._reader = RecordReader()
        self._requests: dict[int, _Incoming] = {}
        #: Some request asked for the connection to be closed after it.
        self._closing = False

    def receive(self, data: bytes) -> list[SessionEvent]:
        """What to do about the web server's bytes."""
        events: list[SessionEvent] = []
        for record in self._reader.feed(data):
            if record.request_id == fcgi.NULL_REQUEST_ID:
                events.append(Reply(self._management(record)))
            elif record.type == RecordType.BEGIN_REQUEST:
                self._begin(record)
            elif record.request_id in self._requests:
                self._continue(record, events)
            # Section 3.3: records of requests that are not (or no more) active are ignored.
        return events

    @property
    def arriving(self) -> bool:
        """A request, or a record, has begun and is not complete."""
        return self._reader.pending > 0 or any(
            not incoming.state.reading_done for incoming in self._requests.values()
        )

    @property
    def busy(self) -> bool:
        """Some request is being read or answered."""
        return bool(self._requests)

    def drain(self) -> list[SessionEvent]:
        """Take no more requests: close now, or when the last one is answered."""
        self._closing = True
        return [] if self._requests else [Close()]

    def stdout(self, request_id: int, data: bytes) -> bytes:
        """A piece of the answer as records."""
        self._requests[request_id].state.advance(Side.APPLICATION, Event.STDOUT)
        return fcgi.encode_stream(RecordType.STDOUT, request_id, data)

    def end(self, request_id: int, last: bytes = b"", app_status: int = 0) -> list[SessionEvent]:
        """The answer is complete: the ``last`` piece of it, and FCGI_END_REQUEST."""
        state = self._requests[request_id].state
        state.advance(Side.APPLICATION, Event.STDOUT_END)
        state.advance(Side.APPLICATION, Event.END)
        return self._end(request_id, _answer(request_id, last, app_status))

    def close(self) -> None:
        """The connection is gone: give the places back."""
        for incoming in self._requests.values():
            if incoming.admitted:
                self._leave()
        self._requests.clear()

    # Reading.

    def _management(self, record: Record) -> bytes:
        if record.type != RecordType.GET_VALUES:
            return fcgi.encode_unknown(record.type)
        if len(record.content) > fcgi.MAX_MANAGEMENT:
            raise LimitPassed("too large FCGI_GET_VALUES")
        values = {
            b"FCGI_MAX_CONNS": b"%d" % self._limits.connections,
            b"FCGI_MAX_REQS": b"%d" % self._limits.requests,
            b"FCGI_MPXS_CONNS": b"1",
        }
        asked = dict.fromkeys(name for name, _ in fcgi.decode_pairs(record.content))
        known = [(name, values[name]) for name in asked if name in values]
        return fcgi.encode_record(RecordType.GET_VALUES_RESULT, 0, fcgi.encode_pairs(known))

    def _begin(self, record: Record) -> None:
        begin = fcgi.decode_begin(record.content)
        active = self._requests.get(record.request_id)
        if active is not None:
            active.state.advance(Side.WEB_SERVER, Event.BEGIN)
        # A refused request that is still being read has no place among the admitted ones, but
        # it has a number, and numbers are limited as well.
        if len(self._requests) > self._limits.requests:
            raise LimitPassed("too many FastCGI requests on one connection")
        incoming = _Incoming(begin.keep, admitted=False)
        incoming.state.advance(Side.WEB_SERVER, Event.BEGIN)
        end = ProtocolStatus.REQUEST_COMPLETE
        if begin.role != Role.RESPONDER:
            end = ProtocolStatus.UNKNOWN_ROLE
        elif self._closing or not self._admit():
            end = ProtocolStatus.OVERLOADED
        else:
            incoming.admitted = True
        if end is not ProtocolStatus.REQUEST_COMPLETE:
            incoming.refusal = fcgi.encode_end(record.request_id, 0, end)
        self._requests[record.request_id] = incoming

    def _continue(self, record: Record, events: list[SessionEvent]) -> None:
        incoming = self._requests[record.request_id]
        event = event_of(record.type, record.content)
        started = incoming.state.reading_done
        incoming.state.advance(Side.WEB_SERVER, event)
        if event is Event.PARAMS:
            self._keep(incoming, record, incoming.params, self._limits.params, _PARAMS_TOO_LARGE)
        elif event is Event.STDIN:
            self._keep(incoming, record, incoming.stdin, self._limits.stdin, _STDIN_TOO_LARGE)
        elif event is Event.STDIN_END:
            events.extend(self._complete(record.request_id, incoming))
        elif event is Event.ABORT:
            if started:
                events.append(Stop(record.request_id))
            else:
                events.extend(self.end(record.request_id))

    def _keep(
        self, incoming: _Incoming, record: Record, buffer: bytearray, limit: int, answer: bytes
    ) -> None:
        """Add to ``buffer``, or note that the request is refused with ``answer``."""
        if incoming.refusal is None and len(buffer) + len(record.content) <= limit:
            buffer += record.content
            return
        if incoming.refusal is None:
            incoming.refusal = _answer(record.request_id, answer)
            incoming.params.clear()
            incoming.stdin.clear()
        incoming.discarded += len(record.content)
        if incoming.discarded > self._limits.discarded:
            raise LimitPassed("the web server goes on sending a request that is too large")

    def _complete(self, request_id: int, incoming: _Incoming) -> list[SessionEvent]:
        """The request has been read."""
        if incoming.refusal is None:
            try:
                params = dict(fcgi.decode_pairs(bytes(incoming.params)))
            except fcgi.Truncated:
                incoming.refusal = _answer(request_id, _MALFORMED)
            else:
                stdin = bytes(incoming.stdin)
                incoming.params.clear()
                incoming.stdin.clear()
                return [Start(FastCGIRequest(params, stdin, request_id))]
        return self._end(request_id, incoming.refusal)

    def _end(self, request_id: int, answer: bytes) -> list[SessionEvent]:
        incoming = self._requests.pop(request_id)
        if incoming.admitted:
            self._leave()
        # Section 5.1: without FCGI_KEEP_CONN the application closes after the request; we let
        # others on the same connection finish.
        self._closing = self._closing or not incoming.keep
        events: list[SessionEvent] = [Reply(answer)]
        if self._closing and not self._requests:
            events.append(Close())
        return events

    def __repr__(self) -> str:
        ids = " ".join(
            f"{number}:{incoming.state.web_server.name}"
            for number, incoming in self._requests.items()
        )
        return f"<Session {ids or 'idle'}>"


def _answer(request_id: int, data: bytes, app_status: int = 0) -> bytes:
    """The rest of an answer, from its last piece to its end."""
    return b"".join(
        (
            fcgi.encode_stream(RecordType.STDOUT, request_id, data),
            fcgi.encode_record(RecordType.STDOUT, request_id),
            fcgi.encode_end(request_id, app_status),
        )
    )
