"""The life of one FastCGI request as a transition table, for both roles.

Each side of a connection keeps the same pair of states for every request id: how far the web
server has come with sending the request, and how far the application has come with answering.
An event that the table does not list is an error of whoever sent it, and raises
`IllegalEvent`; nothing else in this package asks "may this record come now?".
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Final

from attrs import define

from .records import FastCGIError, RecordType


class _Member(Enum):
    """Members are hashed as any object: `Enum` does so by their names, in Python."""

    __hash__ = object.__hash__


class Side(_Member):
    """Who sends: the web server (client) or the application (responder)."""

    WEB_SERVER = "web server"
    APPLICATION = "application"


class Event(_Member):
    """A record as the request's state sees it: an empty stream record is the stream's end."""

    BEGIN = auto()
    PARAMS = auto()
    PARAMS_END = auto()
    STDIN = auto()
    STDIN_END = auto()
    ABORT = auto()
    STDOUT = auto()
    STDOUT_END = auto()
    STDERR = auto()
    STDERR_END = auto()
    END = auto()


class State(_Member):
    """The states of both sides; the last one of each is where it stays."""

    IDLE = auto()
    SEND_PARAMS = auto()
    SEND_STDIN = auto()
    SENT = auto()
    ABORTED = auto()
    ANSWERING = auto()
    STDOUT_CLOSED = auto()
    ENDED = auto()


#: side -> state -> event -> next state. BEGIN moves both sides: it makes the request.
TRANSITIONS: Final[dict[Side, dict[State, dict[Event, State]]]] = {
    Side.WEB_SERVER: {
        State.IDLE: {Event.BEGIN: State.SEND_PARAMS},
        State.SEND_PARAMS: {
            Event.PARAMS: State.SEND_PARAMS,
            Event.PARAMS_END: State.SEND_STDIN,
            Event.ABORT: State.ABORTED,
        },
        State.SEND_STDIN: {
            Event.STDIN: State.SEND_STDIN,
            Event.STDIN_END: State.SENT,
            Event.ABORT: State.ABORTED,
        },
        State.SENT: {Event.ABORT: State.ABORTED},
        State.ABORTED: {},
    },
    Side.APPLICATION: {
        State.IDLE: {Event.BEGIN: State.ANSWERING},
        # Section 5.3: an application that writes nothing to stderr need not close it, so the
        # end of stderr is no state of its own.
        State.ANSWERING: {
            Event.STDOUT: State.ANSWERING,
            Event.STDOUT_END: State.STDOUT_CLOSED,
            Event.STDERR: State.ANSWERING,
            Event.STDERR_END: State.ANSWERING,
            Event.END: State.ENDED,
        },
        State.STDOUT_CLOSED: {
            Event.STDERR: State.STDOUT_CLOSED,
            Event.STDERR_END: State.STDOUT_CLOSED,
            Event.END: State.ENDED,
        },
        State.ENDED: {},
    },
}

_STREAMS: Final[dict[int, tuple[Event, Event]]] = {
    RecordType.PARAMS: (Event.PARAMS_END, Event.PARAMS),
    RecordType.STDIN: (Event.STDIN_END, Event.STDIN),
    RecordType.STDOUT: (Event.STDOUT_END, Event.STDOUT),
    RecordType.STDERR: (Event.STDERR_END, Event.STDERR),
}
_SINGLES: Final[dict[int, Event]] = {
    RecordType.BEGIN_REQUEST: Event.BEGIN,
    RecordType.ABORT_REQUEST: Event.ABORT,
    RecordType.END_REQUEST: Event.END,
}


class IllegalEvent(FastCGIError):
    """A record came where the table has no place for it."""

    def __init__(self, side: Side, state: State, event: Event) -> None:
        super().__init__(f"illegal {event.name} from the {side.value} in state {state.name}")
        self.side = side
        self.state = state
        self.event = event


class UnexpectedType(FastCGIError):
    """A record of a type that no request of ours can have."""


def event_of(kind: int, content: bytes) -> Event:
    """The event that a record is. Raises `UnexpectedType`."""
    stream = _STREAMS.get(kind)
    if stream is not None:
        return stream[bool(content)]
    single = _SINGLES.get(kind)
    if single is None:
        raise UnexpectedType(f"unexpected type of FastCGI record: {kind}")
    return single


@define
class RequestState:
    """Where one request stands; its ``repr`` says it all."""

    web_server: State = State.IDLE
    application: State = State.IDLE

    def advance(self, side: Side, event: Event) -> None:
        """``side`` sends ``event``. Raises `IllegalEvent`, and then nothing has changed."""
        state = self.web_server if side is Side.WEB_SERVER else self.application
        after = TRANSITIONS[side][state].get(event)
        if after is None or (event is Event.BEGIN and side is Side.APPLICATION):
            raise IllegalEvent(side, state, event)
        if event is Event.BEGIN:
            self.application = TRANSITIONS[Side.APPLICATION][self.application][event]
        elif side is Side.APPLICATION:
            self.application = after
            return
        self.web_server = after

    @property
    def reading_done(self) -> bool:
        """The web server has nothing more to say but an abort."""
        return self.web_server in (State.SENT, State.ABORTED)

    @property
    def ended(self) -> bool:
        """FCGI_END_REQUEST has been sent."""
        return self.application is State.ENDED

    @property
    def reusable(self) -> bool:
        """Both sides said everything, so that the id and the connection are free again."""
        return self.ended and self.web_server is State.SENT
