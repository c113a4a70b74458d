"""The pool: whom it gives jobs to, what it does when workers die, and how it ends."""

from __future__ import annotations

import os
import socket
from typing import Any

from attrs import evolve
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ProcessDone, ProcessExitedAlready
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.task import Clock
from twisted.logger import LogEvent, formatEvent, globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.image.channel import Channel
from imagefarm.image.errors import Broken, DeadlineExceeded, Expensive, Failed, Overloaded
from imagefarm.image.formats import Format, Offer
from imagefarm.image.job import (
    WITHDRAWAL,
    Decoder,
    Job,
    Message,
    Rendered,
    error_message,
    read_job,
)
from imagefarm.image.limits import Limits
from imagefarm.image.pool import ABANDONED, BACKOFF, FAREWELL, GRACE, PoolSettings, WorkerPool
from imagefarm.image.recipe import Recipe
from imagefarm.image.source import Identity

LIMITS = Limits(deadline=5.0)
PICTURE = Rendered(b"data", Format.PNG, 1, 2, 1, Identity(3, 4), (("decode", 0.25),))


class FakeProcess:
    """A worker process as scripted by the test, at its end of the socket."""

    def __init__(
        self, protocol: ProcessProtocol, pid: int, options: dict[str, Any], reader: Any
    ) -> None:
        self.protocol = protocol
        self.pid = pid
        self.options = options
        self._messages: list[Message] = []
        self._told: list[str] = []
        self._decoder = Decoder(0)
        self._end = socket.socket(fileno=os.dup(options["childFDs"][0]))
        self._end.setblocking(False)
        self._reader = reader

    def _listen(self) -> None:
        if "ended" in self._told:
            return
        try:
            while data := self._end.recv(1 << 16):
                self._messages += self._decoder.feed(data)
        except BlockingIOError:
            return
        if "finish" not in self._told:
            self._told.append("finish")

    @property
    def messages(self) -> list[Message]:
        self._listen()
        return self._messages

    @property
    def jobs(self) -> list[Job]:
        return [read_job(one, LIMITS) for one in self.messages if one != WITHDRAWAL]

    @property
    def withdrawals(self) -> int:
        return self.messages.count(WITHDRAWAL)

    @property
    def told(self) -> list[str]:
        self._listen()
        return self._told

    def signalProcess(self, name: str) -> None:
        if "ended" in self.told:
            raise ProcessExitedAlready()
        self.told.append(name)

    # What the process does

    def say(self, data: bytes) -> None:
        self._end.send(data)

    def ready(self) -> None:
        self.say(Message({"ready": self.pid}).encode())
        self._reader.doRead()

    def answer(self, message: Message | None = None) -> None:
        self.say((message or PICTURE.message()).encode())
        self._reader.doRead()

    def hang_up(self) -> None:
        self._end.shutdown(socket.SHUT_RDWR)

    def crash(self) -> None:
        """End without reading what else has been sent."""
        self._told.append("ended")
        self._end.close()
        self.protocol.processEnded(Failure(ProcessDone(0)))

    def end(self) -> None:
        self.told.append("ended")
        self._end.close()
        self.protocol.processEnded(Failure(ProcessDone(0)))


class FakeReactor(Clock):
    """A clock that also starts processes and knows who wants to read."""

    def __init__(self) -> None:
        super().__init__()
        self.processes: list[FakeProcess] = []
        self.readers: list[Any] = []

    def addReader(self, reader: Any) -> None:
        self.readers.append(reader)

    def removeReader(self, reader: Any) -> None:
        if reader in self.readers:
            self.readers.remove(reader)

    def spawnProcess(
        self, protocol: ProcessProtocol, executable: str, args: list[str], **options: Any
    ) -> None:
        number = 100 + len(self.processes)
        said = {"args": args, **options}
        process = FakeProcess(protocol, number, said, self.readers[-1])
        self.processes.append(process)
        protocol.makeConnection(process)


def job(name: str = "a") -> Job:
    return Job(b"/root", Recipe(b"/" + name.encode()), Offer())


class PoolCase(SynchronousTestCase):
    def pool(self, processes: int = 1, queue: int = 2, max_requests: int = 0) -> WorkerPool:
        self.reactor = FakeReactor()
        settings = PoolSettings(processes, queue, max_requests, LIMITS)
        self.the_pool = WorkerPool(self.reactor, settings)
        self.started = self.the_pool.start()
        return self.the_pool

    def running(self, **options: int) -> WorkerPool:
        pool = self.pool(**options)
        for process in self.reactor.processes:
            process.ready()
        self.successResultOf(self.started)
        return pool

    def tearDown(self) -> None:
        if hasattr(self, "the_pool"):
            self.the_pool.stop()
            for process in self.reactor.processes:
                if "ended" not in process.told:
                    process.end()
            self.assertEqual(self.reactor.getDelayedCalls(), [])
            self.assertEqual(self.reactor.readers, [])

    def fails(self, deferred: Deferred[Rendered], kind: type[Exception]) -> Any:
        return self.failureResultOf(deferred, kind).value


class Work(PoolCase):
    def test_ready_when_the_first_worker_is(self) -> None:
        pool = self.pool(processes=2)
        self.assertNoResult(self.started)
        self.reactor.processes[1].ready()
        self.successResultOf(self.started)
        self.assertEqual(repr(pool), "<WorkerPool workers=2 idle=1 running=0 waiting=0>")

    def test_expensive_jobs_leave_a_process_to_the_others(self) -> None:
        pool = self.running(processes=2, queue=9)
        one, two = self.reactor.processes
        results = [pool.submit(job(name)) for name in ("huge", "vast")]
        for process in (one, two):
            process.answer(error_message(Expensive("x")))
        self.assertEqual(repr(pool), "<WorkerPool workers=2 idle=1 running=1 waiting=1>")
        busy = one if len(one.jobs) > 1 else two
        free = two if busy is one else one
        self.assertTrue(busy.jobs[-1].expensive)
        quick = pool.submit(job("quick"))
        self.assertEqual(free.jobs[-1], job("quick"))
        free.answer()
        self.successResultOf(quick)
        self.assertEqual(repr(pool), "<WorkerPool workers=2 idle=1 running=1 waiting=1>")
        first = busy.jobs[-1].recipe.src
        busy.answer()
        (last,) = (p for p in (one, two) if p.jobs[-1].recipe.src not in (first, b"/quick"))
        self.assertTrue(last.jobs[-1].expensive)
        last.answer()
        for result in results:
            self.successResultOf(result)
        self.assertEqual((pool.counters.expensive, pool.counters.done), (2, 3))

    def test_a_single_process_does_the_cheap_ones_first(self) -> None:
        pool = self.running(processes=1, queue=9)
        (process,) = self.reactor.processes
        huge = pool.submit(job("huge"))
        quick = pool.submit(job("quick"))
        process.answer(error_message(Expensive("x")))
        self.assertEqual(process.jobs[-1], job("quick"))
        process.answer()
        self.successResultOf(quick)
        self.assertEqual(process.jobs[-1], evolve(job("huge"), expensive=True))
        self.reactor.advance(LIMITS.deadline + GRACE)
        late = self.fails(huge, DeadlineExceeded)
        assert isinstance(late, DeadlineExceeded)
        self.assertTrue(late.expected)

    def test_a_worker_that_sends_a_job_back_twice(self) -> None:
        pool = self.running(processes=1)
        (process,) = self.reactor.processes
        huge = pool.submit(job("huge"))
        process.answer(error_message(Expensive("x")))
        process.answer(error_message(Expensive("x")))
        self.fails(huge, Failed)
        self.assertEqual(repr(pool), "<WorkerPool workers=1 idle=1 running=0 waiting=0>")

    def test_an_expensive_job_that_finds_the_queue_full(self) -> None:
        pool = self.running(processes=1, queue=1)
        (process,) = self.reactor.processes
        huge, quick = pool.submit(job("huge")), pool.submit(job("quick"))
        process.answer(error_message(Expensive("x")))
        self.fails(huge, Overloaded)
        process.answer()
        self.successResultOf(quick)

    def test_the_same_source_goes_to_the_same_worker(self) -> None:
        pool = self.running(processes=3)
        for name in "abc":
            pool.submit(job(name))
        knows = {process.jobs[-1].recipe.src: process for process in self.reactor.processes}
        for process in self.reactor.processes:
            process.answer()
        for name in (b"/b", b"/a", b"/c"):
            pool.submit(Job(b"/root", Recipe(name, w=9), Offer()))
            self.assertEqual(knows[name].jobs[-1].recipe.src, name)
            knows[name].answer()

    def test_a_worker_that_has_grown_is_replaced(self) -> None:
        pool = self.running(processes=1)
        (process,) = self.reactor.processes
        for resident, told in ((512 << 20, []), ("much", []), ((512 << 20) + 1, ["finish"])):
            made = pool.submit(job())
            message = PICTURE.message()
            message.head["resident"] = resident
            process.answer(message)
            self.successResultOf(made)
            self.assertEqual(process.told, told)

    def test_the_command(self) -> None:
        self.pool()
        options = self.reactor.processes[0].options
        self.assertIn("imagefarm.image.worker", options["args"])
        self.assertEqual(options["env"]["MALLOC_ARENA_MAX"], "2")
        end = options["childFDs"]
        self.assertEqual((end[0], end[2]), (end[1], "r"))

    def test_a_job(self) -> None:
        pool = self.running()
        done = pool.submit(job())
        (process,) = self.reactor.processes
        self.assertEqual(process.jobs, [job()])
        self.assertNoResult(done)
        process.answer()
        expected = evolve(PICTURE, timings=(("queue", 0.0), ("decode", 0.25)))
        self.assertEqual(self.successResultOf(done), expected)
        self.assertEqual(repr(pool), "<WorkerPool workers=1 idle=1 running=0 waiting=0>")
        self.assertEqual(pool.counters.done, 1)

    def test_an_answer_in_pieces(self) -> None:
        pool = self.running()
        done = pool.submit(job())
        for byte in PICTURE.message().encode():
            self.assertNoResult(done)
            self.reactor.processes[0].protocol.said(bytes([byte]))
        self.assertEqual(self.successResultOf(done).data, b"data")

    def test_an_error_of_the_request(self) -> None:
        pool = self.running()
        done = pool.submit(job())
        self.reactor.processes[0].answer(error_message(Broken("why")))
        self.assertEqual(str(self.fails(done, Broken)), "why")
        self.assertEqual((pool.counters.refused, pool.counters.done), (1, 0))

    def test_jobs_wait_in_order_and_no_longer_queue_than_allowed(self) -> None:
        pool = self.running(queue=2)
        one, two, three = (pool.submit(job(name)) for name in "abc")
        self.assertEqual(repr(pool), "<WorkerPool workers=1 idle=0 running=1 waiting=2>")
        self.fails(pool.submit(job("d")), Overloaded)
        self.assertEqual(pool.counters.rejected, 1)
        (process,) = self.reactor.processes
        self.reactor.advance(0.5)
        for done in (one, two, three):
            process.answer()
            self.successResultOf(done)
        self.assertEqual([j.recipe.src for j in process.jobs], [b"/a", b"/b", b"/c"])

    def test_time_in_the_queue_is_told(self) -> None:
        pool = self.running()
        pool.submit(job())
        done = pool.submit(job())
        self.reactor.advance(1.5)
        self.reactor.processes[0].answer()
        self.reactor.processes[0].answer()
        self.assertEqual(self.successResultOf(done).timings[0], ("queue", 1.5))

    def test_no_queue_still_works(self) -> None:
        pool = self.running(queue=0)
        done = pool.submit(job())
        self.fails(pool.submit(job()), Overloaded)
        self.reactor.processes[0].answer()
        self.successResultOf(done)

    def test_jobs_before_any_worker_is_ready_wait(self) -> None:
        pool = self.pool()
        done = pool.submit(job())
        self.assertEqual(self.reactor.processes[0].jobs, [])
        self.reactor.processes[0].ready()
        self.reactor.processes[0].answer()
        self.successResultOf(done)

    def test_waiting_has_an_end(self) -> None:
        pool = self.pool()
        done = pool.submit(job())
        self.reactor.advance(LIMITS.deadline - 0.1)
        self.assertNoResult(done)
        self.reactor.advance(0.1)
        self.fails(done, Overloaded)
        self.assertEqual(repr(pool), "<WorkerPool workers=1 idle=0 running=0 waiting=0>")

    def test_waiting_costs_an_original_nothing(self) -> None:
        pool = self.running()
        working, waiting = pool.submit(job("a")), pool.submit(job("b"))
        self.reactor.advance(LIMITS.deadline)
        self.fails(waiting, Overloaded)
        self.assertIsNone(pool.tally.originals.expected(b"/b"))
        self.reactor.processes[0].answer()
        self.successResultOf(working)
        self.assertEqual(pool.tally.originals.most(9), {b"/a": [1, LIMITS.deadline]})

    def test_workers_are_replaced_after_their_share(self) -> None:
        pool = self.running(max_requests=2)
        (process,) = self.reactor.processes
        for _ in range(2):
            self.assertEqual(process.told, [])
            done = pool.submit(job())
            process.answer()
            self.successResultOf(done)
        self.assertEqual(process.told, ["finish"])
        waiting = pool.submit(job())
        self.assertEqual(len(process.jobs), 2)
        process.end()
        self.reactor.advance(0)
        self.reactor.processes[1].ready()
        self.reactor.processes[1].answer()
        self.successResultOf(waiting)
        self.assertEqual((pool.counters.crashes, pool.counters.started), (0, 2))


class Accidents(PoolCase):
    def test_a_crash_costs_one_request(self) -> None:
        pool = self.running()
        lost, next_one = pool.submit(job("a")), pool.submit(job("b"))
        self.reactor.processes[0].end()
        error = self.fails(lost, Failed)
        self.assertEqual(str(error), "the image could not be made")
        self.assertRegex(getattr(error, "detail", ""), r"^worker \d+ died of src=/a")
        self.reactor.advance(0)
        self.reactor.processes[1].ready()
        self.reactor.processes[1].answer()
        self.successResultOf(next_one)
        self.assertEqual((pool.counters.crashes, pool.counters.started), (1, 2))
        self.assertEqual(len(self.flushLoggedErrors()), 0)

    def test_an_answer_before_the_end_counts(self) -> None:
        pool = self.running()
        one, two = pool.submit(job("one")), pool.submit(job("two"))
        (process,) = self.reactor.processes
        process.say(PICTURE.message().encode())
        process.end()
        self.successResultOf(one)
        self.assertNoResult(two)  # it waits for the next worker
        self.reactor.advance(0)
        self.reactor.processes[1].ready()
        self.reactor.processes[1].answer()
        self.successResultOf(two)
        self.assertEqual(pool.counters.crashes, 0)

    def test_a_worker_that_has_gone_takes_no_job(self) -> None:
        pool = self.running()
        (process,) = self.reactor.processes
        process.hang_up()
        done = pool.submit(job())
        self.assertIn("KILL", process.told)
        process.end()
        self.fails(done, Failed)

    def test_the_deadline(self) -> None:
        pool = self.running()
        late, next_one = pool.submit(job("a")), pool.submit(job("b"))
        self.reactor.advance(1)
        waiting_too = pool.submit(job("c"))
        self.reactor.advance(LIMITS.deadline - 1)
        full = self.fails(next_one, Overloaded)
        self.assertEqual(full.timings, (("queue", LIMITS.deadline), ("work", 0.0)))
        self.reactor.advance(GRACE)
        error = self.fails(late, DeadlineExceeded)
        self.assertEqual(str(error), "the image took longer than 5 s")
        self.assertEqual(error.timings, (("queue", 0.0), ("work", LIMITS.deadline + GRACE)))
        (killed, *_) = self.reactor.processes
        self.assertEqual(getattr(error, "detail", ""), f"worker {killed.pid} was killed")
        (process,) = self.reactor.processes
        self.assertEqual(process.told, ["KILL"])
        process.answer()  # it was about to
        process.end()
        self.reactor.advance(0)
        self.reactor.processes[1].ready()
        self.reactor.processes[1].answer()
        self.successResultOf(waiting_too)
        self.assertEqual((pool.counters.timeouts, pool.counters.crashes), (1, 0))

    def test_a_worker_that_says_so_itself_lives(self) -> None:
        pool = self.running()
        late = pool.submit(job())
        self.reactor.advance(LIMITS.deadline)
        self.reactor.processes[0].answer(error_message(DeadlineExceeded("late")))
        self.fails(late, DeadlineExceeded)
        self.reactor.advance(60)
        self.assertEqual(self.reactor.processes[0].told, [])
        self.assertEqual(pool.counters.timeouts, 1)

    def test_a_worker_that_babbles_is_killed(self) -> None:
        pool = self.running()
        done = pool.submit(job())
        self.reactor.processes[0].protocol.said(b"Segmentation fault")
        self.assertEqual(self.reactor.processes[0].told, ["KILL"])
        self.reactor.processes[0].end()
        self.fails(done, Failed)

    def test_a_worker_that_answers_unasked_is_killed(self) -> None:
        pool = self.running()
        (process,) = self.reactor.processes
        process.answer()
        self.assertEqual(process.told, ["KILL"])
        done = pool.submit(job())
        process.end()
        self.reactor.advance(0)
        self.reactor.processes[1].ready()
        self.reactor.processes[1].answer()
        self.successResultOf(done)

    def test_workers_that_do_not_start(self) -> None:
        pool = self.pool()
        delay, most = BACKOFF
        for _ in range(12):
            self.reactor.processes[-1].end()
            count = len(self.reactor.processes)
            self.reactor.advance(delay * 0.99)
            self.assertEqual(len(self.reactor.processes), count)
            self.reactor.advance(delay * 0.02)
            self.assertEqual(len(self.reactor.processes), count + 1)
            delay = min(2 * delay, most)
        self.reactor.processes[-1].ready()
        self.successResultOf(self.started)
        self.reactor.processes[-1].end()
        count = len(self.reactor.processes)
        self.reactor.advance(0)
        self.assertEqual(len(self.reactor.processes), count + 1, "once ready, again at once")
        self.assertEqual(pool.counters.started, count + 1)

    def test_an_idle_worker_that_dies_gets_no_job(self) -> None:
        pool = self.running()
        self.reactor.processes[0].end()
        done = pool.submit(job())
        self.assertEqual(self.reactor.processes[0].jobs, [])
        self.reactor.advance(0)
        self.reactor.processes[1].ready()
        self.reactor.processes[1].answer()
        self.successResultOf(done)

    def test_what_a_worker_complains_about_is_no_answer(self) -> None:
        pool = self.running()
        done = pool.submit(job())
        self.reactor.processes[0].protocol.errReceived(b"oh dear \xff" * 9999)
        self.assertNoResult(done)
        self.reactor.processes[0].answer()
        self.successResultOf(done)

    def test_complaints_do_not_fill_the_log(self) -> None:
        """A codec may say a line for each row of a picture that somebody has made for that."""
        pool = self.running()
        lines: list[str] = []

        def observe(event: LogEvent) -> None:
            lines.append(formatEvent(event))

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        process = self.reactor.processes[0]
        pool.submit(job())
        for _ in range(100):
            process.protocol.errReceived(b"bad row\n" * 100)
        logged = sum(map(len, lines))
        self.assertTrue(4096 - 100 < logged < 4096 + 500, logged)
        self.assertTrue(lines[-1].endswith("bad row ... (what follows is not logged)"), lines[-1])
        process.answer()
        pool.submit(job("b"))
        process.protocol.errReceived(b"another job's\n")
        self.assertEqual(lines[-1], f"worker {process.pid}: another job's")
        process.answer()
        said = len(lines)
        for piece in (b"row", b" 7: ", b"bad\nrow 8", b": wor", b"se\nthe en"):
            process.protocol.errReceived(piece)
        process.end()
        whole = [
            f"worker {process.pid}: {text}" for text in ("row 7: bad", "row 8: worse", "the en")
        ]
        self.assertEqual([line for line in lines[said:] if "worker 100: " in line], whole)

    def test_the_loop_survives_our_own_mistakes(self) -> None:
        def broken(data: memoryview) -> None:
            raise LookupError("a mistake")

        reactor = FakeReactor()
        channel = Channel(reactor, broken)
        channel.theirs.send(b"something")
        channel.read_ready()
        self.assertEqual(len(self.flushLoggedErrors(LookupError)), 1)
        channel.theirs.close()
        channel.read_ready()
        self.assertEqual(reactor.readers, [], "its end is known")
        channel.drain()


class Cancelling(PoolCase):
    def test_a_waiting_job_is_dropped(self) -> None:
        pool = self.running()
        first, second = pool.submit(job("a")), pool.submit(job("b"))
        second.cancel()
        self.fails(second, CancelledError)
        self.reactor.processes[0].answer()
        self.successResultOf(first)
        self.assertEqual(len(self.reactor.processes[0].jobs), 1)
        self.assertEqual(pool.counters.cancelled, 1)

    def test_a_short_running_job_ends_by_itself(self) -> None:
        pool = self.running()
        done = pool.submit(job())
        done.cancel()
        self.fails(done, CancelledError)
        self.reactor.advance(ABANDONED / 2)
        self.reactor.processes[0].answer()
        self.reactor.advance(60)
        self.assertEqual(self.reactor.processes[0].told, [])
        self.assertEqual(repr(pool), "<WorkerPool workers=1 idle=1 running=0 waiting=0>")

    def test_a_long_running_job_is_ended(self) -> None:
        pool = self.running()
        done = pool.submit(job())
        done.cancel()
        self.fails(done, CancelledError)
        self.reactor.advance(ABANDONED)
        self.assertEqual(self.reactor.processes[0].told, ["KILL"])
        self.assertEqual(pool.counters.timeouts, 0)

    def test_cancelling_shortly_before_the_deadline_gives_no_more_time(self) -> None:
        pool = self.running()
        done = pool.submit(job())
        self.reactor.advance(LIMITS.deadline + GRACE - 0.1)
        done.cancel()
        self.fails(done, CancelledError)
        self.reactor.advance(0.11)
        self.assertEqual(self.reactor.processes[0].told, ["KILL"])


class Stopping(PoolCase):
    def test_before_the_start_nothing_is_taken(self) -> None:
        pool = WorkerPool(FakeReactor(), PoolSettings())
        self.fails(pool.submit(job()), Overloaded)
        self.successResultOf(pool.stop())

    def test_fast(self) -> None:
        pool = self.running(processes=2)
        running = pool.submit(job("a"))
        stopped = pool.stop()
        self.fails(pool.submit(job()), Overloaded)
        self.assertEqual(
            sorted(process.told for process in self.reactor.processes), [["KILL"], ["finish"]]
        )
        for process in self.reactor.processes:
            self.assertNoResult(stopped)
            process.end()
        self.successResultOf(stopped)
        self.fails(running, Overloaded)
        self.assertEqual(pool.counters.crashes, 0)
        self.reactor.advance(60)
        self.assertEqual(len(self.reactor.processes), 2, "nothing is started again")

    def test_graceful(self) -> None:
        pool = self.running()
        running, waiting = pool.submit(job("a")), pool.submit(job("b"))
        stopped = pool.stop(grace=10)
        self.fails(waiting, Overloaded)
        (process,) = self.reactor.processes
        self.assertEqual(process.told, ["finish"])
        process.answer()
        self.successResultOf(running)
        process.end()
        self.successResultOf(stopped)

    def test_graceful_has_an_end(self) -> None:
        pool = self.running()
        running = pool.submit(job())
        pool.stop(grace=LIMITS.deadline - 1)
        self.reactor.advance(LIMITS.deadline - 1)
        (process,) = self.reactor.processes
        self.assertEqual(process.told, ["finish", "KILL"])
        process.end()
        self.fails(running, Overloaded)

    def test_a_worker_that_does_not_go_is_killed(self) -> None:
        pool = self.running()
        stopped = pool.stop()
        self.reactor.advance(FAREWELL)
        (process,) = self.reactor.processes
        self.assertEqual(process.told, ["finish", "KILL"])
        process.end()
        self.successResultOf(stopped)

    def test_while_restarting(self) -> None:
        pool = self.pool()
        self.reactor.processes[0].end()
        self.successResultOf(pool.stop())
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_twice(self) -> None:
        pool = self.running()
        one, two = pool.stop(grace=5), pool.stop()
        self.reactor.processes[0].end()
        self.successResultOf(one)
        self.successResultOf(two)
