"""The fast path for answers out of a cache.

A cache vouches for a hit (`keeping.Kept`): the file that it lies in, how long it is fresh. So
it is remembered like any other answer, as a `Hit`, with gaps in the head for what tells its age.
As with files (`http.families`), others are answered alike but for their names: a `HitFamily`
stands for a directory and extension or, where that is what differs, for all queries of a path.
Which hit a name leads to is for the cache to say (`keeping.Shelf`): it makes the key of the
request and reads the file. Whatever differs from one hit to another in its fields is a gap, too.
What was in the file's header block is remembered in some bytes (`HitFamily.note`), so that the
next time the body is all that has to be read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from attrs import evolve

from .errorpages import tokens_of
from .families import belongs, replayed, target_of
from .forms import HeadForm, has_marks
from .headers import Headers
from .keeping import Kept
from .message import FileBody, Occasion, OpenFile, Outcome, Request, RequestHead, Response
from .plan import HeadersAt, Plan
from .relays import renews
from .serializer import Serializer, connection_field

#: How many kinds of answers a family remembers.
MAX_KINDS: Final = 256
#: The most fields of an answer that is remembered.
MAX_FIELDS: Final = 64
#: The longest record of a hit, in bytes.
MAX_RECORD: Final = 1024
#: Fields whose values filters look at, or replace: by these, too, kinds are told apart.
_DECIDING: Final = frozenset({
    b"accept-ranges", b"content-encoding", b"content-type", b"vary",
})  # fmt: skip
#: Those that are changed for each request.
_NEVER: Final = frozenset({b"location", b"content-length", b"connection", b"date", b"server"})
_TIMED: Final = frozenset({b"expires", b"cache-control"})
#: A gap, while the head is made: this byte and one that stands for the number of a value.
_MARK: Final = re.compile(rb"\x01(.)", re.DOTALL)
_FIRST: Final = 0x40
_VERSION: Final = (1, 1)

#: By a field's name in lower case, which value goes there and in which format.
Places = Mapping[bytes, tuple[int, bytes]]


def _mark(number: int) -> bytes:
    return b"\x01%c" % (number + _FIRST)


class HitForm(HeadForm):
    """A head with ``places``. Without ``framing`` the length is the first value."""

    __slots__ = ("_formats", "_framing", "_order", "_places")

    def __init__(
        self, request: Request, response: Response, places: Places, framing: bytes | None = None
    ) -> None:
        super().__init__(request, response, {})
        self._framing = b"Content-Length: " + _mark(0) + b"\r\n" if framing is None else framing
        self._places = places
        self._formats = {number + _FIRST: form for number, form in places.values()}
        self._formats.setdefault(_FIRST, b"%d")
        self._order: tuple[int, ...] = ()

    def fill(self, serializer: Serializer, now: float, keep: bool, values: Sequence[Any]) -> bytes:
        """The head in this second with these values."""
        form = self.at(serializer, now, keep)
        return form % tuple([values[number] for number in self._order])

    def filled(self, now: float, values: Sequence[Any]) -> Headers:
        """The fields with these values."""
        places = self._places
        return Headers(
            (name, place[1] % (values[place[0]],))
            if (place := places.get(name.lower())) is not None
            else (name, value)
            for name, value in self.headers(now)
        )

    def _make(self, serializer: Serializer, now: float, keep: bool) -> bytes:
        places = self._places
        headers = Headers(
            (name, _mark(place[0]) if (place := places.get(name.lower())) is not None else value)
            for name, value in self.headers(now)
        )
        head = serializer.head(
            self._response.status,
            headers,
            self._framing,
            connection_field(keep, self._request.transfer.keepalive_header),
            now,
            tokens=tokens_of(self._request),
        ).replace(b"%", b"%%")
        self._order = tuple(found[0] - _FIRST for found in _MARK.findall(head))
        return _MARK.sub(lambda found: self._formats[found[1][0]], head)


def memorable(response: Response) -> bool:
    """Whether a hit can be remembered: no field of it could be taken for another."""
    assert response.kept is not None
    names = [name.lower() for name, _ in response.headers]
    return not has_marks(response.headers) and all(
        names.count(name) <= 1 for name in (*response.kept.stamps, response.named)
    )


class Hit(Plan):
    """How to answer one request with one hit."""

    __slots__ = ("_form", "_kept", "name", "named")

    def __init__(
        self, request: Request, response: Response, framing: bytes, headers_at: HeadersAt
    ) -> None:
        super().__init__(request, response, framing, headers_at)
        assert response.kept is not None
        self._kept: Kept = response.kept
        places = {
            name: (number, form) for number, (name, form) in enumerate(self._kept.stamps.items())
        }
        if response.named:
            places[response.named] = (len(places), b"%b")
        self.named = bool(response.named)
        self.name = b""
        self._form = HitForm(request, response, places, framing)

    def holds(self, now: float) -> bool:
        """Whether the cache would answer with it, and has a say in the matter still."""
        return self._kept.holds(now) and (not self.witnesses or super().holds(now))

    def head(self, serializer: Serializer, now: float, keep: bool) -> bytes:
        """The head as it is now."""
        values = (*self._kept.numbers(now), self.name)
        return self._form.fill(serializer, now, keep, values)

    @property
    def changed(self) -> float:
        """When the file that changed last did, in seconds of the time of day."""
        own = self._kept.identity[0] / 1e9
        return max(own, super().changed) if any(w[1] for w in self.witnesses) else own

    def replay(self, occasion: Occasion) -> Request:
        """As a plan's."""
        started = occasion[4]
        request = super().replay(occasion)
        fields = self._form.filled(started, (*self._kept.numbers(started), self.name))
        _complete(request.outcome, self._kept)
        request.outcome.response = evolve(self.response, headers=fields)
        return request


def _complete(outcome: Outcome, kept: Kept) -> None:
    outcome.cache_status = kept.status
    outcome.upstream_headers = Headers(zip(kept.names, kept.values, strict=True))


class HitMember:
    """How to answer with one hit of a family; ``body`` is all of it."""

    __slots__ = (
        "_form", "args", "body", "family", "keep", "kept", "kind", "line", "memory", "name",
        "named", "own", "target", "transfer", "uri",
    )  # fmt: skip

    many: Final = True
    took: Final = 0.0

    def __init__(
        self, family: HitFamily, line: bytes, form: HitForm, kept: Kept, body: bytes, kind: int
    ) -> None:
        #: The number of its kind, -1 where that is on record.
        self.kind = kind
        self.family = family
        self.transfer = family.transfer
        self.keep = family.keep
        self.memory = family.memory
        self.own = kept.by_block
        self.kept = kept
        self.named = family.named
        self.name = b""
        self.line = line
        self.target = target_of(line)
        self.uri, _, self.args = self.target.partition(b"?")
        self.body: bytes | None = body
        self._form = form

    @property
    def changed(self) -> float:
        """When the file last changed, in seconds of the time of day."""
        return self.kept.identity[0] / 1e9

    def holds(self, now: float) -> bool:
        """Whether the cache would answer with it."""
        return self.kept.holds(now)

    def read(self) -> bytes | None:
        """The body."""
        return self.body

    def _filling(self, now: float) -> tuple[Any, ...]:
        kept = self.kept
        return (kept.length, *kept.numbers(now), self.name, *kept.values)

    def head(self, serializer: Serializer, now: float, keep: bool) -> bytes:
        """The head as it is now."""
        return self._form.fill(serializer, now, keep, self._filling(now))

    def replay(self, occasion: Occasion) -> Request:
        """The finished request for the log, as the ordinary path would have left it."""
        headers, peer, number, size, started, sent, keep = occasion
        family, length = self.family, self.kept.length
        response = Response(
            200,
            self._form.filled(started, self._filling(started)),
            FileBody(OpenFile(-1, length, 0.0), 0, length),
        )
        outcome = Outcome(200, sent, length, complete=True, keep=keep, response=response)
        _complete(outcome, self.kept)
        return replayed(
            family.request, family.captures, self.uri, headers, peer, started, outcome,
            number=number, size=size, args=self.args,
        )  # fmt: skip


class HitFamily:
    """Hits that are answered alike; ``request`` is the one that it was learnt from."""

    __slots__ = (
        "_alike", "_asking", "_by_query", "_deciding", "_forms", "_kinds", "_shelf", "captures",
        "keep", "memory", "named", "records", "request", "transfer",
    )  # fmt: skip

    def __init__(self, request: Request, response: Response) -> None:
        assert response.alike is not None and response.kept is not None
        self._alike = response.alike
        self._shelf = response.kept.shelf
        self._by_query = bool(request.args)
        self.captures = response.alike.captures
        self.named = bool(response.named)
        self.request = request
        self.transfer = request.transfer
        self.keep = not response.close
        self.memory: dict[Any, Any] = {}
        #: Asks the cache for others.
        self._asking = evolve(
            request, variables={}, outcome=Outcome(), notes=[], on_gone=[], witnesses=[]
        )
        #: Which fields decide, by the names of all; by the values of those, the kind; by its
        #: number, how it is presented and the names.
        self._deciding: dict[tuple[bytes, ...], tuple[int, ...]] = {}
        self._kinds: dict[tuple[Any, ...], int] = {}
        self._forms: list[tuple[HitForm, tuple[bytes, ...]]] = []
        #: By request line, the number of the kind and what the cache wants to know again.
        self.records: dict[bytes, bytes] = {}

    def akin(self, response: Response) -> bool:
        """Whether what is learnt from a response belongs here."""
        return response.kept is not None and response.kept.shelf is self._shelf

    def learn(self, response: Response) -> None:
        """Remember how a hit is presented."""
        kept = response.kept
        assert kept is not None
        places = _places(response, kept)
        if places is None:
            return
        names = kept.names
        self._deciding[names] = tuple(
            number for number, name in enumerate(names) if name.lower() in _DECIDING
        )
        kind = self._kind(kept)
        assert kind is not None
        form = HitForm(self.request, response, places)
        number = self._kinds.setdefault(kind, len(self._forms))
        self._forms[number : number + 1] = [(form, names)]

    @property
    def full(self) -> bool:
        """Whether it can learn no more."""
        return len(self._forms) >= MAX_KINDS

    def _kind(self, kept: Kept) -> tuple[Any, ...] | None:
        """What tells hits apart; None if none like it was met."""
        deciding = self._deciding.get(kept.names)
        if deciding is None:
            return None
        values = kept.values
        return (kept.names, *[values[number] for number in deciding])

    def member(self, line: bytes, name: bytes, headers: Headers, now: float) -> HitMember | None:
        """The hit that ``line`` asks for; None if that is not known or there is none."""
        record = self.records.get(line)
        if record is not None:
            form, names = self._forms[record[0]]
            found = self._shelf.recall(record, 1, names, now)
            if found is not None:
                return HitMember(self, line, form, *found, -1)
        if not belongs(self._alike, line, name):
            return None
        asking = self._asking
        target = target_of(line)
        asking.head = RequestHead(b"GET", target, _VERSION, headers)
        if self._by_query:
            asking.args = name
        else:
            asking.uri = target
        found = self._shelf.take(asking, now)
        if found is None:
            return None
        kept, body = found
        kind = self._kind(kept)
        number = None if kind is None else self._kinds.get(kind)
        if number is None:
            return None
        return HitMember(self, line, self._forms[number][0], kept, body, number)

    def note(self, member: HitMember) -> bool:
        """Remember what was read of a member; whether that is one more."""
        record = member.kept.record()
        if record is None or len(record) > MAX_RECORD:
            return False
        new = member.line not in self.records
        self.records[member.line] = b"%c%b" % (member.kind, record)
        return new


def _places(response: Response, kept: Kept) -> Places | None:
    """Where in a head the values go: the length, the numbers of ``stamps``, the request id, those
    of the fields.

    None if that can't be told.
    """
    names = [name.lower() for name, _ in response.headers]
    kept_names = [name.lower() for name in kept.names]
    if len(set(names)) < len(names) or len(set(kept_names)) < len(kept_names):
        return None
    shown = kept.shown
    if not _NEVER.isdisjoint(shown) or len(kept_names) > MAX_FIELDS:
        return None
    places = {name: (number, form) for number, (name, form) in enumerate(kept.stamps.items(), 1)}
    ours = {*places, *_DECIDING, *(_TIMED if renews(response) else ()), response.named}
    first = len(places) + 1
    if response.named in kept_names:
        return None
    if response.named:
        places[response.named] = (first, b"%b")
    for number, name in enumerate(kept_names, first + 1):
        if name in names and name in shown and name not in ours:
            places[name] = (number, b"%b")
    return places
