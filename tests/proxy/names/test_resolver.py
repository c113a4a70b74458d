"""The resolver: what is asked, who waits, and what they get."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.proxy.names.cache import NameCache
from imagefarm.proxy.names.reply import (
    CNAME,
    MAX_ALIASES,
    Kind,
    Question,
    Record,
    Reply,
    Service,
    Unresolved,
)
from imagefarm.proxy.names.resolver import MAX_ASKING, Resolved, Resolver

A, AAAA = Kind.A, Kind.AAAA


class Asked:
    """An `Ask` that is answered by the test."""

    def __init__(self) -> None:
        self.open: dict[Question, Deferred[Reply]] = {}
        self.log: list[Question] = []

    def __call__(self, question: Question) -> Deferred[Reply]:
        assert question not in self.open, "two flights for one question"
        self.log.append(question)
        self.open[question] = Deferred(lambda _: self.open.pop(question))
        return self.open[question]

    def answer(self, name: str, kind: Kind, *values: str | Service, ttl: int = 10) -> None:
        records = tuple(Record(name, kind.value, ttl, value) for value in values)
        self.reply(name, kind, Reply(0, records))

    def reply(self, name: str, kind: Kind, reply: Reply) -> None:
        self.open.pop(Question(name, kind)).callback(reply)

    def fail(self, name: str, kind: Kind, code: int = 110) -> None:
        self.open.pop(Question(name, kind)).errback(Unresolved(name, code))


class ResolverTestCase(SynchronousTestCase):
    kinds: tuple[Kind, ...] = (A,)

    def setUp(self) -> None:
        self.clock = Clock()
        self.asked = Asked()
        self.resolver = Resolver(self.clock, self.asked, self.kinds, NameCache())

    def now(self, name: str = "a", patience: float | None = 1.8) -> Resolved:
        """What is there at once."""
        found = self.resolver.addresses(name, patience)
        assert isinstance(found, Resolved)
        return found

    def later(self, name: str = "a", patience: float | None = 1.8) -> Deferred[Resolved]:
        found = self.resolver.addresses(name, patience)
        assert isinstance(found, Deferred)
        return found

    def known(self, *values: str) -> None:
        waiting = self.later()
        for kind in self.kinds:
            self.asked.answer("a", kind, *(v for v in values if (":" in v) == (kind is AAAA)))
        self.successResultOf(waiting)

    def assert_unresolved(self, waiting: Deferred[Resolved], words: str) -> None:
        error = self.failureResultOf(waiting, Unresolved)
        self.assertEqual(error.getErrorMessage(), words)


class OneFamilyTests(ResolverTestCase):
    def test_one_flight_for_all(self) -> None:
        waiting = [self.later(name) for name in ("a", "A", "a.")]
        self.assertEqual(self.asked.log, [Question("a", A)])
        self.asked.answer("a", A, "192.0.2.1")
        for one in waiting:
            self.assertEqual(self.successResultOf(one), Resolved(("192.0.2.1",), 10.0))
        self.assertEqual(self.now().items, ("192.0.2.1",))
        self.assertEqual(len(self.asked.log), 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_names_that_cannot_be(self) -> None:
        for name in ("", "a..b", "x" * 64):
            self.assert_unresolved(
                self.later(name), f"{name} could not be resolved (3: Host not found)"
            )
        self.assertEqual(self.asked.log, [])

    def test_no_such_name(self) -> None:
        waiting = self.later()
        self.asked.reply("a", A, Reply(3, negative_ttl=60))
        self.assert_unresolved(waiting, "a could not be resolved (3: Host not found)")
        self.assert_unresolved(self.later(), "a could not be resolved (3: Host not found)")
        self.assertEqual(len(self.asked.log), 1)

    def test_failure_is_remembered_for_a_second(self) -> None:
        waiting = self.later()
        self.asked.fail("a", A, 2)
        self.assert_unresolved(waiting, "a could not be resolved (2: Server failure)")
        self.assert_unresolved(self.later(), "a could not be resolved (2: Server failure)")
        self.clock.advance(1)
        waiting = self.later()
        self.asked.answer("a", A, "192.0.2.1")
        self.successResultOf(waiting)

    def test_expired_then_renewed(self) -> None:
        self.known("192.0.2.1")
        self.clock.advance(10)
        waiting = self.later()
        self.asked.answer("a", A, "192.0.2.2")
        self.assertEqual(self.successResultOf(waiting).items, ("192.0.2.2",))

    def test_old_addresses_when_patience_ends(self) -> None:
        self.known("192.0.2.1")
        self.clock.advance(10)
        first = self.later()
        self.clock.advance(1)
        second = self.later()
        self.clock.advance(0.8)
        self.assertEqual(self.successResultOf(first).items, ("192.0.2.1",))
        self.assertEqual(self.successResultOf(second).items, ("192.0.2.1",))
        self.assertEqual(self.now().items, ("192.0.2.1",))  # nobody else waits for this one
        patient = self.later(patience=None)
        self.asked.answer("a", A, "192.0.2.2")
        self.assertEqual(self.successResultOf(patient).items, ("192.0.2.2",))
        self.assertEqual(self.now().items, ("192.0.2.2",))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_old_addresses_after_a_failure(self) -> None:
        self.known("192.0.2.1")
        self.clock.advance(10)
        waiting = self.later()
        self.asked.fail("a", A)
        self.assertEqual(self.successResultOf(waiting), Resolved(("192.0.2.1",), 11.0, 110))
        self.assertEqual(self.now().items, ("192.0.2.1",))
        self.clock.advance(1)
        # Asked again, but what failed may fail for long: requests go on at once.
        self.assertEqual(self.now().items, ("192.0.2.1",))
        self.assertEqual(len(self.asked.log), 3)
        patient = self.later(patience=None)
        self.asked.answer("a", A, "192.0.2.2")
        self.assertEqual(self.successResultOf(patient).items, ("192.0.2.2",))

    def test_no_patience_without_addresses(self) -> None:
        """There is nothing better than waiting."""
        waiting = self.later()
        self.clock.advance(20)
        self.assertNoResult(waiting)
        self.asked.answer("a", A, "192.0.2.1")
        self.successResultOf(waiting)

    def test_one_who_leaves(self) -> None:
        gone, waiting = self.later(), self.later()
        gone.cancel()
        self.failureResultOf(gone, CancelledError)
        self.asked.answer("a", A, "192.0.2.1")
        self.successResultOf(waiting)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stop(self) -> None:
        waiting = self.later()
        self.resolver.stop()
        self.assertEqual(self.asked.open, {})
        self.assertNoResult(waiting)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_aliases_that_have_to_be_asked_for(self) -> None:
        waiting = self.later()
        self.asked.reply("a", A, Reply(0, (Record("a", CNAME, 5, "b"),)))
        self.asked.reply("b", A, Reply(0, (Record("b", CNAME, 60, "c"),)))
        self.asked.answer("c", A, "192.0.2.1", ttl=60)
        self.assertEqual(self.successResultOf(waiting), Resolved(("192.0.2.1",), 5.0))
        self.assertEqual([q.name for q in self.asked.log], ["a", "b", "c"])

    def test_aliases_without_end(self) -> None:
        waiting = self.later()
        names = [f"n{n}" for n in range(MAX_ALIASES + 2)]
        for name, following in zip(["a", *names], names, strict=False):
            if Question(name, A) in self.asked.open:
                self.asked.reply(name, A, Reply(0, (Record(name, CNAME, 5, following),)))
        self.assert_unresolved(waiting, "a could not be resolved (2: Server failure)")

    def test_too_many_at_once(self) -> None:
        waiting = [self.later(f"n{n}") for n in range(MAX_ASKING)]
        self.assert_unresolved(self.later(), "a could not be resolved (2: Server failure)")
        self.asked.answer("n0", A, "192.0.2.1")
        self.successResultOf(waiting[0])
        self.clock.advance(1)
        self.assertNoResult(self.later())

    def test_a_defect(self) -> None:
        waiting = self.later()
        self.asked.open.pop(Question("a", A)).errback(KeyError("oops"))
        self.assert_unresolved(waiting, "a could not be resolved (2: Server failure)")
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)

    def test_services(self) -> None:
        waiting = self.resolver.services("_http._tcp.a")
        assert isinstance(waiting, Deferred)
        service = Service(1, 2, 80, "b")
        self.asked.answer("_http._tcp.a", Kind.SRV, service)
        self.assertEqual(self.successResultOf(waiting).items, (service,))

    def test_counters(self) -> None:
        self.known("192.0.2.1")
        self.later("b").addErrback(lambda _: None)
        self.asked.fail("b", A, 2)
        self.assertEqual(dict(self.resolver.asked), {A: 2})
        self.assertEqual(dict(self.resolver.codes), {0: 1, 2: 1})


class TwoFamiliesTests(ResolverTestCase):
    kinds = (A, AAAA)

    def test_both(self) -> None:
        waiting = self.later()
        self.asked.answer("a", AAAA, "2001:db8::1", ttl=5)
        self.assertNoResult(waiting)
        self.asked.answer("a", A, "192.0.2.1")
        self.assertEqual(
            self.successResultOf(waiting), Resolved(("192.0.2.1", "2001:db8::1"), 5.0)
        )

    def test_one_is_enough(self) -> None:
        for other in ("absent", "failed"):
            self.setUp()
            waiting = self.later()
            self.asked.answer("a", A, "192.0.2.1")
            if other == "absent":
                self.asked.answer("a", AAAA)
            else:
                self.asked.fail("a", AAAA)
            self.assertEqual(self.successResultOf(waiting), Resolved(("192.0.2.1",), 10.0))

    def test_none(self) -> None:
        for first, second in ((A, AAAA), (AAAA, A)):
            self.setUp()
            waiting = self.later()
            self.asked.answer("a", first)
            self.asked.fail("a", second, 2)
            self.assert_unresolved(waiting, "a could not be resolved (2: Server failure)")

    def test_a_nameserver_that_drops_all_questions_for_one_family(self) -> None:
        """Only the first time does anybody wait for them."""
        waiting = self.later()
        self.asked.answer("a", A, "192.0.2.1")
        self.clock.advance(1.8)
        self.assertEqual(self.successResultOf(waiting).items, ("192.0.2.1",))
        self.assertEqual(self.now().items, ("192.0.2.1",))
        self.asked.fail("a", AAAA)
        self.clock.advance(8.2)
        waiting, patient = self.later(), self.later(patience=None)
        self.asked.answer("a", A, "192.0.2.2")
        self.assertIn(Question("a", AAAA), self.asked.open)
        for one in (waiting, patient):
            self.assertEqual(self.successResultOf(one), Resolved(("192.0.2.2",), 20.0))

    @given(st.data())
    def test_everybody_is_answered_once(self, data: st.DataObject) -> None:
        """Whatever happens, who waits gets an answer, and nothing is left over."""
        self.setUp()
        waiting, results = 0, list[object]()
        for _ in range(data.draw(st.integers(1, 25))):
            what = data.draw(st.sampled_from(["ask", "ask", "pass", "answer", "fail", "none"]))
            if what == "ask":
                found = self.resolver.addresses(
                    data.draw(st.sampled_from("ab")), data.draw(st.sampled_from([None, 1.8]))
                )
                if isinstance(found, Deferred):
                    waiting += 1
                    found.addBoth(results.append)
            elif what == "pass":
                self.clock.advance(data.draw(st.floats(0.01, 30)))
            elif self.asked.open:
                question = data.draw(st.sampled_from(sorted(self.asked.open, key=repr)))
                if what == "fail":
                    self.asked.fail(question.name, question.kind)
                else:
                    values = ["192.0.2.1"] if what == "answer" else []
                    self.asked.answer(question.name, question.kind, *values)
        while self.asked.open:  # what had expired meanwhile is asked for again
            for question in list(self.asked.open):
                self.asked.fail(question.name, question.kind)
        self.assertEqual(len(results), waiting)
        self.assertEqual(self.clock.getDelayedCalls(), [])
