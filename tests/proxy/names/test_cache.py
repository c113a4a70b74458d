"""The cache's decisions, and that they hold whatever happens in whatever order."""

from __future__ import annotations

from attrs import define
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.proxy.names import cache
from imagefarm.proxy.names.cache import MAX_NEGATIVE, MAX_RETRY, NEGATIVE, Found, NameCache
from imagefarm.proxy.names.reply import Answer, Item, Kind, Question

ASKED = Question("a.example", Kind.A)
ONE = Answer(("192.0.2.1",), 10.0)


class CacheTests(SynchronousTestCase):
    def test_unknown_then_asked_once_then_known(self) -> None:
        names = NameCache()
        self.assertTrue(names.look(ASKED, 100).ask)
        self.assertFalse(names.look(ASKED, 100).ask)
        names.learnt(ASKED, ONE, 101)
        self.assertEqual(names.look(ASKED, 110.9), Found(("192.0.2.1",), True, 111.0))
        old = names.look(ASKED, 111)
        self.assertEqual((old.items, old.fresh, old.ask), (("192.0.2.1",), False, True))

    def test_valid_replaces_the_ttl(self) -> None:
        names = NameCache(valid=3.0)
        for answer in (ONE, Answer((), 500.0), Answer((), None), Answer(("192.0.2.1",), 0.0)):
            names.learnt(ASKED, answer, 100)
            self.assertEqual(names.look(ASKED, 102.9).again, 103.0)

    def test_least_and_most(self) -> None:
        names = NameCache()
        for answer, life in (
            (Answer(("192.0.2.1",), 0.0), 1.0),
            (Answer((), None), NEGATIVE),
            (Answer((), 20.0), 20.0),
            (Answer((), 90000.0), MAX_NEGATIVE),
            (Answer((), 0.0), 1.0),
        ):
            names.learnt(ASKED, answer, 100)
            self.assertEqual(names.look(ASKED, 100), Found(answer.items, True, 100 + life))

    def test_old_addresses_while_nobody_answers(self) -> None:
        names = NameCache()
        names.learnt(ASKED, ONE, 0)
        now, waits = 10.0, []
        for _ in range(6):
            self.assertTrue(names.look(ASKED, now).ask)
            names.failed(ASKED, 2, now)
            found = names.look(ASKED, now)
            self.assertEqual((found.items, found.fresh, found.code), (ONE.items, False, 2))
            self.assertFalse(found.ask)
            waits.append(found.again - now)
            now = found.again
        self.assertEqual(waits, [1, 2, 4, 8, MAX_RETRY, MAX_RETRY])
        names.learnt(ASKED, ONE, now)
        self.assertEqual(names.look(ASKED, now), Found(ONE.items, True, now + 10))

    def test_not_for_ever(self) -> None:
        names = NameCache()
        names.learnt(ASKED, ONE, 0)
        names.look(ASKED, 10)
        names.failed(ASKED, 110, 40)
        self.assertEqual(names.look(ASKED, 10 + cache.MAX_STALE - 1).items, ONE.items)
        gone = names.look(ASKED, 10 + cache.MAX_STALE)
        self.assertEqual((gone.items, gone.code), (None, 110))

    def test_absence_is_an_answer_and_is_not_kept_beyond_its_time(self) -> None:
        names = NameCache()
        names.learnt(ASKED, ONE, 0)
        names.learnt(ASKED, Answer((), 5.0), 10)
        self.assertEqual(names.look(ASKED, 14), Found((), True, 15))
        self.assertIsNone(names.look(ASKED, 15).items)

    def test_a_failure_is_remembered_for_a_moment(self) -> None:
        names = NameCache()
        self.assertTrue(names.look(ASKED, 0).ask)
        names.failed(ASKED, 110, 30)
        self.assertEqual(names.look(ASKED, 30.9), Found(None, False, 31, 110))
        self.assertTrue(names.look(ASKED, 31).ask)

    def test_room(self) -> None:
        names = NameCache(size=2)
        first, second, third = (Question(name, Kind.A) for name in "abc")
        names.learnt(first, ONE, 0)
        names.learnt(second, ONE, 1)
        names.learnt(first, ONE, 2)  # renewed: now the second is the oldest
        names.learnt(third, ONE, 3)
        self.assertEqual(len(names), 2)
        self.assertIsNone(names.look(second, 3).items)


@define
class _Truth:
    """What the cache must know of one question: the last answer, when, and since then."""

    items: tuple[Item, ...] | None = None
    until: float = 0.0
    failed_at: float | None = None
    asking: bool = False


class _Life(RuleBasedStateMachine):
    """Time passes, somebody looks, whoever is told to ask gets some answer or other."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.names = NameCache(stale=50.0)
        self.truth = {Question(name, Kind.A): _Truth() for name in ("a", "b")}

    @rule(seconds=st.floats(0.01, 40.0))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(name=st.sampled_from(["a", "b"]))
    def look(self, name: str) -> None:
        question = Question(name, Kind.A)
        truth = self.truth[question]
        found = self.names.look(question, self.now)
        if found.ask:
            assert not truth.asking, "two flights for one name"
            truth.asking = True
        if found.fresh:
            assert truth.items == found.items and self.now < truth.until
            assert found.again == truth.until and not found.ask
        else:
            assert truth.items is None or self.now >= truth.until
        if found.items and not found.fresh:
            assert found.items == truth.items and self.now < truth.until + 50.0
        if not found.fresh and not found.ask and not truth.asking:
            # Nobody asks only for a while after a failure.
            assert truth.failed_at is not None
            assert self.now < truth.failed_at + cache.MAX_RETRY

    @rule(
        name=st.sampled_from(["a", "b"]),
        items=st.sets(st.sampled_from(["1.1.1.1", "2.2.2.2"])),
        ttl=st.floats(1.0, 30.0),
    )
    def answered(self, name: str, items: set[str], ttl: float) -> None:
        truth = self.truth[Question(name, Kind.A)]
        if truth.asking:
            self.names.learnt(Question(name, Kind.A), Answer(tuple(items), ttl), self.now)
            truth.items, truth.until = tuple(items), self.now + ttl
            truth.failed_at, truth.asking = None, False

    @rule(name=st.sampled_from(["a", "b"]), code=st.sampled_from([2, 110]))
    def failed(self, name: str, code: int) -> None:
        truth = self.truth[Question(name, Kind.A)]
        if truth.asking:
            self.names.failed(Question(name, Kind.A), code, self.now)
            truth.failed_at, truth.asking = self.now, False

    @invariant()
    def bounded(self) -> None:
        assert len(self.names) <= 2


LifeTests = _Life.TestCase
LifeTests.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
