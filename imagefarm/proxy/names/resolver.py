"""Names to addresses: what the cache knows, and one query in flight for what it does not."""

from __future__ import annotations

from collections import Counter
from typing import Any, Final

from attrs import define, field, frozen
from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.logger import Logger
from twisted.python.failure import Failure

from .cache import Found, NameCache
from .query import Ask
from .reply import (
    MAX_ALIASES,
    NOT_FOUND,
    SERVER_FAILURE,
    Alias,
    Answer,
    Item,
    Kind,
    Question,
    Reply,
    Unresolved,
    canonical,
    read,
)

#: How long a request waits for a new answer before it makes do with the old one (RFC 8767
#: section 5).
PATIENCE: Final = 1.8
#: Questions under way at one time, each with a socket of its own; any more fail at once.
MAX_ASKING: Final = 256


@frozen
class Resolved:
    """What a name has come to: at least one item. Times are of the resolver's clock.

    ``again`` is when it is time to ask again: at the end of the answer's life, or of the pause
    after a failure; ``code`` is that failure's, and the items are old ones then.
    """

    items: tuple[Item, ...]
    again: float
    code: int | None = None


@define(eq=False)
class _Flight:
    """A question under way. ``slow``: it has outlasted somebody's patience."""

    asking: Deferred[None] | None = None
    waiting: list[_Waiting] = field(factory=list)
    slow: bool = False


class Resolver:
    """What one ``resolver`` directive means. ``kinds``: A, AAAA or both (``ipv4``, ``ipv6``).

    ``clock`` provides IReactorTime. Call `stop` at the end.
    """

    log = Logger()

    def __init__(self, clock: Any, ask: Ask, kinds: tuple[Kind, ...], cache: NameCache) -> None:
        self.clock = clock
        self.kinds = kinds
        self.cache = cache
        #: How many queries there were of each kind, and what became of questions: 0 an answer.
        self.asked: Counter[Kind] = Counter()
        self.codes: Counter[int] = Counter()
        self._ask = ask
        self._flights: dict[Question, _Flight] = {}

    def addresses(
        self, name: str, patience: float | None = PATIENCE
    ) -> Resolved | Deferred[Resolved]:
        """The addresses of ``name``, at once if they are known and fresh.

        Old ones are given when renewing them fails, or takes longer than ``patience``; with None
        there is no hurry. The Deferred errs with `Unresolved`; it may be cancelled.
        """
        return self._resolve(name, self.kinds, patience)

    def services(
        self, name: str, patience: float | None = PATIENCE
    ) -> Resolved | Deferred[Resolved]:
        """The SRV records of ``name``, likewise."""
        return self._resolve(name, (Kind.SRV,), patience)

    def stop(self) -> None:
        """Drop the questions under way; who waits for them learns nothing any more."""
        flights, self._flights = self._flights, {}
        for flight in flights.values():
            for waiting in tuple(flight.waiting):
                waiting.leave()
            if flight.asking is not None:
                flight.asking.cancel()

    def _resolve(
        self, name: str, kinds: tuple[Kind, ...], patience: float | None
    ) -> Resolved | Deferred[Resolved]:
        known = canonical(name)
        if known is None:
            return fail(Unresolved(name, NOT_FOUND))
        waiting = _Waiting(self, name, tuple(Question(known, kind) for kind in kinds), patience)
        return waiting.settled() or waiting.begin()

    def look(self, question: Question) -> Found:
        """What is known now; begins to ask if that is due."""
        found = self.cache.look(question, self.clock.seconds())
        if not found.ask or question in self._flights:
            return found
        if len(self._flights) >= MAX_ASKING:
            self.cache.failed(question, SERVER_FAILURE, self.clock.seconds())
        else:
            self._flights[question] = _Flight()
            self._begin(question, question, ())
        return self.cache.look(question, self.clock.seconds())

    def flight(self, question: Question) -> _Flight | None:
        """The asking of ``question`` that is under way."""
        return self._flights.get(question)

    def _begin(self, question: Question, current: Question, ttls: tuple[float, ...]) -> None:
        """Ask for ``current``, where the aliases of ``question`` have led so far."""
        self.asked[current.kind] += 1
        flight = self._flights[question]
        asking = self._ask(current).addCallback(self._replied, question, current, ttls)
        flight.asking = asking.addErrback(self._failed, question)

    def _replied(
        self, reply: Reply, question: Question, current: Question, ttls: tuple[float, ...]
    ) -> None:
        said = read(reply, current)
        if isinstance(said, Alias):
            if len(ttls) >= MAX_ALIASES:
                raise Unresolved(question.name, SERVER_FAILURE)
            following = Question(said.target, question.kind)
            self._begin(question, following, (*ttls, said.ttl))
        elif isinstance(said, Answer):
            if ttls and said.ttl is not None:
                said = Answer(said.items, min(said.ttl, *ttls))
            self.codes[0 if said.items else NOT_FOUND] += 1
            self.cache.learnt(question, said, self.clock.seconds())
            self._over(question)
        else:
            raise Unresolved(question.name, said)

    def _failed(self, failure: Failure, question: Question) -> None:
        error = failure.value
        if isinstance(error, CancelledError):
            return
        code = error.code if isinstance(error, Unresolved) else SERVER_FAILURE
        if not isinstance(error, Unresolved):
            self.log.failure("resolving {name} broke", failure, name=question.name)
        self.codes[code] += 1
        self.cache.failed(question, code, self.clock.seconds())
        self._over(question)

    def _over(self, question: Question) -> None:
        for waiting in tuple(self._flights.pop(question).waiting):
            waiting.check()

    def __repr__(self) -> str:
        return f"<Resolver names={len(self.cache)} asking={len(self._flights)}>"


class _Waiting:
    """Somebody wants to know what a name's questions come to."""

    def __init__(
        self,
        resolver: Resolver,
        name: str,
        questions: tuple[Question, ...],
        patience: float | None,
    ) -> None:
        self._resolver = resolver
        self._name = name
        self._questions = questions
        self._patience = patience
        self._flights: list[_Flight] = []
        self._later: Any = None
        self._done: Deferred[Resolved] = Deferred(lambda _: self.leave())

    def settled(self) -> Resolved | Deferred[Resolved] | None:
        """The outcome, if there is no need to wait for it, or None."""
        found = [self._resolver.look(question) for question in self._questions]
        if self._must_wait(found):
            return None
        return _outcome(self._name, found)

    def _must_wait(self, found: list[Found]) -> bool:
        """Whether something is under way that may be better than what is known.

        What failed the last time, or is slow, may be so for long: then what is there will do
        (a nameserver that drops all questions for AAAA must not delay what A has said).
        """
        usable = expected = False
        pending = False
        for question, one in zip(self._questions, found, strict=True):
            flight = self._resolver.flight(question)
            if one.items and (one.fresh or self._patience is not None):
                usable = True
            if flight is not None:
                pending = True
                expected |= one.code is None and not flight.slow
        return pending and (expected or not usable)

    def begin(self) -> Deferred[Resolved]:
        """Wait."""
        self._join()
        if self._patience is not None:
            clock = self._resolver.clock
            self._later = clock.callLater(self._patience, self._impatient)
        return self._done

    def check(self) -> None:
        """Something may have changed."""
        outcome = self.settled()
        if outcome is None:
            self._join()  # what was known meanwhile may have expired, and be asked again
            return
        self.leave()
        if isinstance(outcome, Deferred):
            outcome.chainDeferred(self._done)
        else:
            self._done.callback(outcome)

    def _impatient(self) -> None:
        self._later = None
        for flight in tuple(self._flights):
            flight.slow = True
            for waiting in tuple(flight.waiting):
                waiting.check()

    def _join(self) -> None:
        for question in self._questions:
            flight = self._resolver.flight(question)
            if flight is not None and self not in flight.waiting:
                flight.waiting.append(self)
                self._flights.append(flight)

    def leave(self) -> None:
        """Wait no longer."""
        for flight in self._flights:
            if self in flight.waiting:
                flight.waiting.remove(self)
        if self._later is not None:
            self._later.cancel()
            self._later = None


def _outcome(name: str, found: list[Found]) -> Resolved | Deferred[Resolved]:
    """What the answers to all questions for ``name`` come to.

    One family of addresses is enough. Where neither has any, a failure counts more than that
    the other family does not exist: nobody can say then that there are none.
    """
    with_items = [one for one in found if one.items]
    if with_items:
        items = tuple(item for one in with_items for item in one.items or ())
        code = next((one.code for one in with_items if not one.fresh), None)
        return Resolved(items, min(one.again for one in with_items), code)
    code = next((one.code for one in found if one.code is not None), NOT_FOUND)
    return fail(Unresolved(name, code, min(one.again for one in found)))
