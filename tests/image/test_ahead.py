"""Jobs in advance: who gets one, and that nobody else pays for it."""

from __future__ import annotations

from collections.abc import Callable

from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from imagefarm.image.ahead import SMALL
from imagefarm.image.errors import DeadlineExceeded, Expensive, Failed, Overloaded, Withdrawn
from imagefarm.image.job import WITHDRAWAL, Rendered, error_message
from imagefarm.image.lanes import FAIR
from imagefarm.image.pool import ABANDONED, GRACE, WorkerPool

from .test_pool import LIMITS, PICTURE, FakeProcess, PoolCase, job

QUICK = SMALL / 5
EXPENSIVE = error_message(Expensive("x"))
WITHDRAWN = error_message(Withdrawn("the job was taken back"))
IDLE = "<WorkerPool workers=1 idle=1 running=0 waiting=0>"


class AheadCase(PoolCase):
    def ask(self, name: str) -> Deferred[Rendered]:
        done = self.the_pool.submit(job(name))
        self.asked.append(done)
        return done

    def setUp(self) -> None:
        self.asked: list[Deferred[Rendered]] = []

    def tearDown(self) -> None:
        super().tearDown()
        for done in self.asked:
            done.addErrback(lambda _: None)

    def known(self, processes: int = 1, queue: int = 99, max_requests: int = 0) -> WorkerPool:
        """A pool that knows that jobs about /a to /f are quick."""
        pool = self.running(processes=processes, queue=queue, max_requests=max_requests)
        for name in "abcdef":
            self.do(name, QUICK)
        return pool

    def do(self, name: str, seconds: float) -> None:
        """One job from its beginning to its end."""
        done = self.ask(name)
        (process,) = (p for p in self.reactor.processes if p.jobs and p.jobs[-1] == job(name))
        self.reactor.advance(seconds)
        process.answer()
        self.successResultOf(done)

    def one(self, **options: int) -> FakeProcess:
        """The only process of a pool."""
        self.known(**options)
        return self.reactor.processes[0]

    def two(self) -> tuple[FakeProcess, FakeProcess, dict[str, Deferred[Rendered]]]:
        """Two processes: one is at /a and has /c in advance, the other is at /b and has /d."""
        self.known(processes=2)
        results = {name: self.ask(name) for name in "abcd"}
        first, second = sorted(self.reactor.processes, key=self.sent)
        self.assertEqual((self.sent(first)[-2:], self.sent(second)[-2:]), ("ac", "bd"))
        return first, second, results

    def sent(self, process: FakeProcess) -> str:
        return "".join(one.recipe.src[1:].decode() for one in process.jobs)

    def restarted(self) -> FakeProcess:
        """The one that is started next, ready."""
        count = len(self.reactor.processes)
        self.reactor.advance(0)
        (process,) = self.reactor.processes[count:]
        process.ready()
        return process


class Giving(AheadCase):
    def test_a_quick_job_is_followed_by_the_next_one(self) -> None:
        process = self.one()
        results = [self.ask(name) for name in "abc"]
        self.assertEqual(self.sent(process)[-2:], "ab", "one in advance, not two")
        for done in results:
            process.answer()
            self.successResultOf(done)
            self.assertEqual(self.sent(process)[-3:], "abc")
        self.assertEqual((process.withdrawals, repr(self.the_pool)), (0, IDLE))

    def test_nothing_follows_what_is_known_to_take_long(self) -> None:
        process = self.one()
        self.do("a", 3 * SMALL)
        for name in "ab":
            self.ask(name)
        self.assertEqual(self.sent(process)[-1], "a")

    def test_nothing_follows_what_takes_longer_than_expected(self) -> None:
        process = self.one()
        self.ask("a")
        self.reactor.advance(1.1 * SMALL)
        self.ask("b")
        self.assertEqual(self.sent(process)[-1], "a")

    def test_a_new_original_takes_as_long_as_any(self) -> None:
        process = self.one()
        for name in "xa":
            self.ask(name)
        self.assertEqual(self.sent(process)[-2:], "xa")

    def test_nothing_follows_an_expensive_job(self) -> None:
        process = self.one()
        self.ask("a")
        process.answer(EXPENSIVE)
        self.ask("b")
        self.assertEqual(process.jobs[-1], evolve(job("a"), expensive=True))

    def test_what_is_expensive_goes_its_way(self) -> None:
        process = self.one()
        a, b = self.ask("a"), self.ask("b")
        for message in (None, EXPENSIVE, None):
            process.answer(message)
        for done in (a, b):
            self.successResultOf(done)
        self.assertEqual((self.the_pool.counters.expensive, repr(self.the_pool)), (1, IDLE))

    def test_expensive_jobs_get_their_turn(self) -> None:
        process = self.one()
        huge = self.ask("huge")
        for name in "abcdef" * 3:
            self.ask(name)
        process.answer(EXPENSIVE)
        for _ in range(FAIR + 2):
            process.answer()
        self.successResultOf(huge)

    def test_the_worker_that_knows_the_original(self) -> None:
        _, second, _ = self.two()
        second.answer()  # /d is its turn now
        self.ask("x")
        self.assertEqual(self.sent(second)[-1], "x")

    def test_the_status_counts_it_as_waiting(self) -> None:
        self.two()
        self.ask("e")
        self.assertEqual(
            self.the_pool.report(),
            {
                "waiting": {"cheap": 3, "expensive": 0},
                "running": {"cheap": 2, "expensive": 0},
            },
        )
        self.assertEqual(repr(self.the_pool), "<WorkerPool workers=2 idle=0 running=2 waiting=3>")
        self.assertEqual({told["state"] for told in self.the_pool.processes()}, {"busy"})

    def test_the_queue_counts_it_as_waiting(self) -> None:
        process = self.one(queue=1)
        for name in "ab":
            self.ask(name)
        self.assertEqual(self.sent(process)[-2:], "ab")
        self.fails(self.ask("c"), Overloaded)

    def test_a_worker_gets_no_more_than_it_may_do(self) -> None:
        process = self.one(max_requests=8)
        results = [self.ask(name) for name in "abc"]
        process.answer()
        self.assertEqual((process.told, self.sent(process)[-2:]), ([], "ab"))
        process.answer()
        self.assertEqual((process.told, self.sent(process)[-2:]), (["finish"], "ab"))
        process.end()
        self.restarted().answer()
        for done in results:
            self.successResultOf(done)
        self.assertEqual(self.the_pool.counters.crashes, 0)

    def test_a_worker_that_has_grown_does_its_last_one(self) -> None:
        process = self.one()
        results = [self.ask(name) for name in "abc"]
        message = PICTURE.message()
        message.head["resident"] = (512 << 20) + 1
        process.answer(message)
        self.assertEqual((process.told, self.sent(process)[-2:]), (["finish"], "ab"))
        process.answer()
        process.end()
        self.restarted().answer()
        for done in results:
            self.successResultOf(done)
        self.assertEqual((self.the_pool.counters.crashes, self.the_pool.counters.started), (0, 2))


class TakingBack(AheadCase):
    def test_an_idle_worker_gets_it(self) -> None:
        first, second, asked = self.two()
        for name in "bd":
            second.answer()
            self.successResultOf(asked[name])
        self.assertEqual((first.withdrawals, self.sent(second)[-3:]), (1, "bdc"))
        second.answer()
        self.successResultOf(asked["c"])
        first.answer()
        self.successResultOf(asked["a"])
        self.assertEqual(repr(self.the_pool), "<WorkerPool workers=2 idle=1 running=1 waiting=0>")
        first.answer(WITHDRAWN)
        self.assertEqual(repr(self.the_pool), "<WorkerPool workers=2 idle=2 running=0 waiting=0>")
        self.assertEqual(sorted(told["jobs"] for told in self.the_pool.processes()), [3, 7])
        self.assertEqual(self.the_pool.counters.done, 10)

    def test_a_worker_that_had_begun_it(self) -> None:
        """Both do it, and the answer of the one that it was given to counts."""
        first, second, asked = self.two()
        for _ in "bd":
            second.answer()
        first.answer()
        first.answer(evolve(PICTURE, data=b"ignored").message())
        self.assertNoResult(asked["c"])
        second.answer()
        self.assertEqual(self.successResultOf(asked["c"]).data, PICTURE.data)
        self.assertEqual(repr(self.the_pool), "<WorkerPool workers=2 idle=2 running=0 waiting=0>")
        self.assertEqual((self.the_pool.counters.done, self.the_pool.counters.cancelled), (10, 0))

    def test_a_worker_that_had_begun_it_and_does_not_end(self) -> None:
        first, second, _ = self.two()
        for _ in "bd":
            second.answer()
        first.answer()
        second.answer()
        self.reactor.advance(ABANDONED)
        self.assertEqual(first.told, ["KILL"])
        first.end()
        self.assertEqual((self.the_pool.counters.timeouts, self.the_pool.counters.crashes), (0, 0))

    def test_from_a_worker_that_is_behind(self) -> None:
        """Before what has come later."""
        first, second, asked = self.two()
        self.ask("e")
        self.reactor.advance(1.1 * SMALL)
        second.answer()
        self.assertEqual((first.withdrawals, self.sent(second)[-3:]), (1, "bdc"))
        for name in "dc":
            second.answer()
            self.successResultOf(asked[name])
        self.assertEqual(self.sent(second)[-1], "e")

    def test_nobody_is_told_so_unasked(self) -> None:
        process = self.one()
        done = self.ask("a")
        process.answer(WITHDRAWN)
        self.assertEqual(str(self.fails(done, Failed)), "the image could not be made")
        self.assertEqual(repr(self.the_pool), IDLE)


class Times(AheadCase):
    def test_the_deadline_counts_from_its_turn(self) -> None:
        process = self.one()
        a, b = self.ask("a"), self.ask("b")
        self.reactor.advance(LIMITS.deadline - 1)
        process.answer()
        self.successResultOf(a)
        self.reactor.advance(LIMITS.deadline + GRACE - 0.01)
        self.assertNoResult(b)
        self.reactor.advance(0.01)
        self.fails(b, DeadlineExceeded)
        self.assertEqual(process.told, ["KILL"])

    def test_what_it_waited_is_told(self) -> None:
        process = self.one()
        _, b = self.ask("a"), self.ask("b")
        self.reactor.advance(1.5)
        process.answer()
        self.reactor.advance(2.0)
        process.answer()
        self.assertEqual(self.successResultOf(b).timings[0], ("queue", 1.5))

    def test_it_waits_no_longer_than_it_may(self) -> None:
        process = self.one()
        a, b = self.ask("a"), self.ask("b")
        self.reactor.advance(LIMITS.deadline)
        self.fails(b, Overloaded)
        self.assertEqual((process.told, process.withdrawals), ([], 1))
        process.answer()
        self.successResultOf(a)
        process.answer(WITHDRAWN)
        self.assertEqual((self.the_pool.counters.rejected, repr(self.the_pool)), (1, IDLE))

    def test_another_worker_does_it_where_the_job_before_hangs(self) -> None:
        process = self.one()
        a = self.ask("a")
        self.reactor.advance(0.9 * SMALL)
        b = self.ask("b")
        self.reactor.advance(LIMITS.deadline - SMALL)
        process.answer()
        self.successResultOf(a)
        c = self.ask("c")
        self.reactor.advance(1)
        self.assertEqual(self.sent(process)[-2:], "bc")
        self.reactor.advance(LIMITS.deadline - 1 + GRACE - 0.2)
        d = self.ask("d")
        self.fails(c, Overloaded)
        self.reactor.advance(0.3)
        self.fails(b, DeadlineExceeded)
        process.end()
        self.restarted().answer()
        self.successResultOf(d)


class Deaths(AheadCase):
    def test_only_the_job_that_it_was_at_is_to_blame(self) -> None:
        process = self.one()
        a, b, c = (self.ask(name) for name in "abc")
        self.assertEqual(self.sent(process)[-2:], "ab")
        process.end()
        self.assertIn("died of src=/a", getattr(self.fails(a, Failed), "detail", ""))
        self.assertNoResult(b)
        successor = self.restarted()
        self.assertEqual(successor.jobs[0], job("b"), "in its turn")
        for done in (b, c):
            successor.answer()
            self.successResultOf(done)
        self.assertEqual((self.the_pool.counters.crashes, self.the_pool.counters.done), (1, 8))

    def test_its_last_answer_counts(self) -> None:
        """Then it was at the next one."""
        process = self.one()
        a, b = self.ask("a"), self.ask("b")
        process.say(PICTURE.message().encode())
        process.end()
        self.successResultOf(a)
        self.assertIn("died of src=/b", getattr(self.fails(b, Failed), "detail", ""))

    def test_what_it_has_not_even_read_is_not_to_blame(self) -> None:
        process = self.one()
        a = self.ask("a")
        self.assertEqual(self.sent(process)[-1], "a")
        b = self.ask("b")
        process.say(PICTURE.message().encode())
        process.crash()
        self.successResultOf(a)
        self.assertNoResult(b)
        self.reactor.advance(LIMITS.deadline / 2)
        self.reactor.processes[1].ready()
        self.reactor.processes[1].answer()
        self.successResultOf(b)
        self.assertEqual((self.the_pool.counters.crashes, self.the_pool.counters.started), (0, 2))

    def test_it_waits_for_a_worker_no_longer_than_it_may(self) -> None:
        process = self.one()
        self.ask("a")
        self.assertEqual(self.sent(process)[-1], "a")
        b = self.ask("b")
        process.say(PICTURE.message().encode())
        process.crash()
        self.reactor.advance(LIMITS.deadline)
        self.fails(b, Overloaded)

    def test_a_worker_that_is_about_to_end_gets_nothing(self) -> None:
        process = self.one()
        self.ask("a")
        process.protocol.said(b"Segmentation fault")
        b = self.ask("b")
        self.assertEqual((process.told, self.sent(process)[-1]), (["KILL"], "a"))
        process.end()
        self.restarted().answer()
        self.successResultOf(b)


class GivingUp(AheadCase):
    def test_nothing_happens_to_the_job_before(self) -> None:
        process = self.one()
        a, b = self.ask("a"), self.ask("b")
        b.cancel()
        self.fails(b, CancelledError)
        self.reactor.advance(2 * ABANDONED)
        self.assertEqual((process.told, process.withdrawals), ([], 1))
        process.answer()
        self.successResultOf(a)
        process.answer(WITHDRAWN)
        self.do("c", QUICK)
        self.assertEqual((self.the_pool.counters.cancelled, repr(self.the_pool)), (1, IDLE))
        self.assertEqual([told["jobs"] for told in self.the_pool.processes()], [8])

    def test_its_answer_is_dropped(self) -> None:
        process = self.one()
        a, b = self.ask("a"), self.ask("b")
        b.cancel()
        self.fails(b, CancelledError)
        for _ in "ab":
            process.answer()
        self.successResultOf(a)
        self.assertEqual((self.the_pool.counters.done, repr(self.the_pool)), (7, IDLE))

    def test_nothing_is_sent_after_it(self) -> None:
        process = self.one()
        for name in "ab":
            self.ask(name)
        last = self.ask("c")
        self.assertEqual(self.sent(process)[-2:], "ab")
        self.the_pool._ahead.tickets()[0].deferred.cancel()
        self.assertEqual(self.sent(process)[-2:], "ab")
        process.answer()
        process.answer(WITHDRAWN)
        process.answer()
        self.successResultOf(last)

    def test_the_job_before_it(self) -> None:
        process = self.one()
        a, b = self.ask("a"), self.ask("b")
        a.cancel()
        self.fails(a, CancelledError)
        self.reactor.advance(ABANDONED)
        self.assertEqual(process.told, ["KILL"])
        process.end()
        self.restarted().answer()
        self.successResultOf(b)


class Stopping(AheadCase):
    def test_graceful(self) -> None:
        process = self.one()
        a, b = self.ask("a"), self.ask("b")
        stopped = self.the_pool.stop(grace=10)
        self.fails(b, Overloaded)
        self.assertEqual((process.withdrawals, process.told), (1, ["finish"]))
        process.answer()
        self.successResultOf(a)
        process.answer(WITHDRAWN)
        process.end()
        self.successResultOf(stopped)

    def test_fast(self) -> None:
        process = self.one()
        results = [self.ask(name) for name in "abc"]
        self.the_pool.stop()
        self.assertEqual(process.told, ["KILL"])
        process.end()
        for done in results:
            self.fails(done, Overloaded)
        self.assertEqual(self.the_pool.counters.crashes, 0)


class Obedient:
    """Does what `worker.in_turn` does, as slowly as the test likes."""

    def __init__(self, process: FakeProcess) -> None:
        self.process = process
        self.read = len(process.messages)
        self.inbox: list[bool] = []
        self.busy = False

    def step(self) -> bool:
        """Begin a job, or answer it. False where there is nothing to do."""
        if self.busy:
            self.busy = False
            self.process.answer()
            return True
        for message in self.process.messages[self.read :]:
            self.read += 1
            if message != WITHDRAWAL:
                self.inbox.append(True)
            elif self.inbox:
                self.inbox[-1] = False
        if not self.inbox:
            return False
        self.busy = self.inbox.pop(0)
        if not self.busy:
            self.process.answer(WITHDRAWN)
        return True


class Anything(AheadCase):
    """Jobs come and are given up, workers go on and die, in any order."""

    def submit(self, number: int) -> None:
        self.ask("abcdefxyz"[number]).addBoth(self.answers.append)

    def cancel(self, number: int) -> None:
        if self.asked:
            self.asked[number % len(self.asked)].cancel()

    def step(self, number: int) -> None:
        living = self.living()
        living[number % len(living)].step()

    def die(self, number: int) -> None:
        living = self.living()
        living[number % len(living)].process.end()
        self.reactor.advance(0)

    def wait(self, number: int) -> None:
        self.reactor.advance(number * SMALL / 4)

    def living(self) -> list[Obedient]:
        """Those of now; new ones get ready."""
        for process in self.reactor.processes[len(self.workers) :]:
            self.workers.append(Obedient(process))
            process.ready()
        return [one for one in self.workers if "ended" not in one.process.told]

    @given(st.lists(st.tuples(st.integers(0, 7), st.integers(0, 8)), max_size=80))
    def test_every_job_is_answered_once(self, steps: list[tuple[int, int]]) -> None:
        self.setUp()
        self.answers: list[Rendered | Failure] = []
        pool = self.known(processes=2)
        self.asked.clear()
        self.workers = [Obedient(process) for process in self.reactor.processes]
        actions: list[Callable[[int], None]] = [
            self.submit, self.submit, self.submit, self.step, self.step, self.wait, self.cancel,
            self.die,
        ]  # fmt: skip
        for action, number in steps:
            actions[action](number)
        while [one for one in self.living() if one.step()]:
            pass
        self.assertEqual(len(self.answers), len(self.asked))
        self.assertEqual(repr(pool), "<WorkerPool workers=2 idle=2 running=0 waiting=0>")
        failed = [one for one in self.answers if isinstance(one, Failure)]
        kinds = [one.check(Failed, CancelledError) for one in failed]
        self.assertNotIn(None, kinds)
        self.assertLessEqual(kinds.count(Failed), pool.counters.crashes)
        self.tearDown()
