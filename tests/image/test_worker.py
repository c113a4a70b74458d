"""The child process: real ones, with the pool around them, and the files that hurt."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import termios
import time
from array import array
from pathlib import Path
from typing import Any

from PIL import Image
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, gatherResults, inlineCallbacks
from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase, TestCase

from imagefarm.image.child import WorkerProcess, command, environment
from imagefarm.image.errors import DeadlineExceeded, Failed, ImageError, TooLarge
from imagefarm.image.formats import Format, Offer
from imagefarm.image.job import WITHDRAWAL, Decoder, Job, Message, Rendered, read_answer, read_job
from imagefarm.image.limits import Limits
from imagefarm.image.places import Unsigned
from imagefarm.image.pool import PoolSettings, WorkerPool
from imagefarm.image.query import parse_query
from imagefarm.image.worker import answer, in_turn

from .pictures import corner_colours, corners, gradient, opened, saved


class Answers(SynchronousTestCase):
    def setUp(self) -> None:
        self.root = Path(self.mktemp())
        self.root.mkdir()

    def answer(
        self, query: bytes, limits: Limits | None = None, unsigned: Unsigned | None = None
    ) -> Rendered | ImageError:
        job = Job(
            os.fsencode(self.root), parse_query(query), Offer(), unsigned=unsigned or Unsigned()
        )
        job = read_job(job.message(), Limits())
        return read_answer(answer(job, limits or Limits(), time.monotonic))

    def test_a_picture(self) -> None:
        (self.root / "a.png").write_bytes(saved(corners(), "PNG"))
        found = os.stat(self.root / "a.png")
        made = self.answer(b"src=a.png&w=32")
        assert isinstance(made, Rendered)
        self.assertEqual((made.width, made.height, made.format), (32, 24, Format.PNG))
        self.assertEqual((made.source.size, made.source.mtime), (found.st_size, found.st_mtime_ns))
        self.assertEqual(corner_colours(opened(made.data)), list("RGBW"))

    def test_what_it_cannot_do(self) -> None:
        (self.root / "t.txt").write_bytes(b"no picture")
        for query, status in ((b"src=none", 404), (b"src=t.txt", 415)):
            made = self.answer(query)
            assert isinstance(made, ImageError)
            self.assertEqual(made.status, status)

    def test_a_result_that_is_too_large_without_a_signature(self) -> None:
        """It is refused by the header: the pixels, which are missing, would be told of."""
        (self.root / "a.png").write_bytes(saved(gradient(80, 60), "PNG")[:200])
        for query, bound, status in (
            (b"src=a.png", Unsigned(79), 403), (b"src=a.png&h=30", Unsigned(None, 29), 403),
            (b"src=a.png", Unsigned(80, 60), 422), (b"src=a.png", None, 422),
            (b"src=a.png&trim=0", Unsigned(79), 422),
        ):  # fmt: skip
            error = self.answer(query, unsigned=bound)
            assert isinstance(error, ImageError)
            self.assertEqual(error.status, status, (query, bound))

    def test_our_own_mistake(self) -> None:
        with open(os.devnull, "w") as quiet:
            self.patch(sys, "stderr", quiet)
            job = Job(b"/\0", parse_query(b"src=a"), Offer())
            self.assertIsInstance(read_answer(answer(job, Limits(), time.monotonic)), Failed)


class InTurn(SynchronousTestCase):
    """What is sent, cut off where each line says that the worker goes on to the next job."""

    def setUp(self) -> None:
        self.read, self.write = os.pipe()
        self.addCleanup(os.close, self.read)
        self.turns = in_turn(self.read)

    def send(self, *words: str) -> None:
        for word in words:
            message = WITHDRAWAL if word == "withdraw" else Message({"recipe": word})
            os.write(self.write, message.encode())

    def turn(self) -> object:
        message = next(self.turns)
        return message and message.head["recipe"]

    def end(self) -> None:
        os.close(self.write)
        self.assertEqual(list(self.turns), [])

    def test_in_order(self) -> None:
        self.send("a", "b")
        self.assertEqual((self.turn(), self.turn()), ("a", "b"))
        self.send("c")
        self.assertEqual(self.turn(), "c")
        self.end()

    def test_the_last_one_is_withdrawn_and_answered_in_its_turn(self) -> None:
        self.send("a", "b", "withdraw")
        self.assertEqual((self.turn(), self.turn()), ("a", None))
        self.end()

    def test_withdrawn_while_another_one_is_worked_on(self) -> None:
        self.send("a", "b")
        self.assertEqual(self.turn(), "a")
        self.send("withdraw")
        self.assertEqual(self.turn(), None)
        self.end()

    def test_one_that_was_begun_goes_on(self) -> None:
        """And the next one is not withdrawn instead."""
        self.send("a")
        self.assertEqual(self.turn(), "a")
        self.send("withdraw", "b")
        self.assertEqual(self.turn(), "b")
        self.end()

    def test_what_was_sent_before_the_end_is_done(self) -> None:
        self.send("a", "b")
        self.assertEqual(self.turn(), "a")
        os.close(self.write)
        self.assertEqual(self.turn(), "b")
        self.assertEqual(list(self.turns), [])

    def test_in_pieces(self) -> None:
        first, second = (Message({"recipe": word}).encode() for word in "ab")
        os.write(self.write, first + second[:9])
        self.assertEqual(self.turn(), "a")
        os.write(self.write, second[9:])
        self.assertEqual(self.turn(), "b")
        self.end()


class Process(SynchronousTestCase):
    """The program by itself, at the end of two pipes."""

    def start(self) -> subprocess.Popen[bytes]:
        limits = Limits(deadline=5)
        pipe = subprocess.PIPE
        process = subprocess.Popen(
            list(command(limits)), stdin=pipe, stdout=pipe, stderr=pipe, env=environment()
        )
        self.addCleanup(self.end, process)
        return process

    def end(self, process: subprocess.Popen[bytes]) -> None:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            assert pipe is not None
            pipe.close()

    def message(self, process: subprocess.Popen[bytes]) -> Message:
        decoder = Decoder(1 << 20)
        assert process.stdout is not None
        while True:
            byte = process.stdout.read(1)
            self.assertNotEqual(byte, b"")
            for message in decoder.feed(byte):
                return message

    def test_it_has_no_use_for_twisted(self) -> None:
        check = "import sys, imagefarm.image.worker; sys.exit('twisted' in sys.modules)"
        env = environment()
        self.assertEqual(subprocess.run([sys.executable, "-c", check], env=env).returncode, 0)

    def test_it_says_hello_works_and_leaves_with_its_input(self) -> None:
        root = Path(self.mktemp())
        root.mkdir()
        (root / "a.png").write_bytes(saved(corners(), "PNG"))
        process = self.start()
        assert process.stdin is not None
        self.assertEqual(self.message(process).head, {"ready": process.pid})
        process.send_signal(signal.SIGINT)  # Ctrl-C reaches the whole group: not its business
        process.send_signal(signal.SIGHUP)
        job = Job(os.fsencode(root.resolve()), parse_query(b"src=a.png&w=8"), Offer())
        process.stdin.write(job.message().encode())
        process.stdin.flush()
        made = read_answer(self.message(process))
        assert isinstance(made, Rendered)
        self.assertEqual((made.width, made.height), (8, 6))
        process.stdin.close()
        self.assertEqual(process.wait(10), 0)


def _unread(worker: WorkerProcess) -> int:
    """The bytes that it was sent and has not read (unix(7), SIOCOUTQ)."""
    count = array("i", [0])
    fcntl.ioctl(worker._channel._ours, termios.TIOCOUTQ, count)
    return count[0]


class RealPool(TestCase):
    """The pool with real workers."""

    timeout = 60

    def setUp(self) -> None:
        self.root = Path(self.mktemp())
        self.root.mkdir()
        (self.root / "good.jpg").write_bytes(saved(gradient(400, 300), "JPEG"))

    def start(
        self, limits: Limits | None = None, processes: int = 1, max_requests: int = 1000
    ) -> Any:
        settings = PoolSettings(processes, 20, max_requests, limits or Limits())
        self.pool = WorkerPool(reactor, settings)
        self.addCleanup(self.gone)
        return self.pool.start()

    @inlineCallbacks
    def gone(self) -> Any:
        """Stop, and see that no process is left."""
        pids = [worker.transport.pid for worker in self.pool._workers]
        yield self.pool.stop()
        for pid in pids:
            if pid is not None:
                self.assertRaises(ProcessLookupError, os.kill, pid, 0)

    def submit(self, query: bytes) -> Any:
        return self.pool.submit(Job(os.fsencode(self.root.resolve()), parse_query(query), Offer()))

    def quick(self) -> WorkerProcess:
        """The only worker of a pool that knows that its jobs are quick."""
        self.pool.tally.originals.add(b"/good.jpg", 0.001, time.monotonic())
        (worker,) = self.pool._workers
        return worker

    @inlineCallbacks
    def test_many_jobs(self) -> Any:
        yield self.start(processes=2)
        queries = [b"src=good.jpg&w=%d" % (50 + number) for number in range(20)]
        made = yield gatherResults([self.submit(query) for query in queries])
        self.assertEqual([one.width for one in made], [50 + number for number in range(20)])
        self.assertEqual(self.pool.counters.done, 20)

    @inlineCallbacks
    def test_a_job_that_kills_its_worker(self) -> Any:
        (self.root / "large.jpg").write_bytes(saved(gradient(3000, 2000), "JPEG"))
        yield self.start()
        (worker,) = self.pool._workers
        lost = self.submit(b"src=large.jpg&fmt=avif")
        while _unread(worker):  # a job that was not begun is not to blame, and done again
            yield deferLater(reactor, 0.001)
        os.kill(worker.transport.pid, signal.SIGSEGV)
        yield self.assertFailure(lost, Failed)
        made = yield self.submit(b"src=good.jpg&w=9")
        self.assertEqual(made.width, 9)
        self.assertEqual((self.pool.counters.crashes, self.pool.counters.started), (1, 2))

    @inlineCallbacks
    def test_a_worker_that_dies_with_a_job_in_advance(self) -> Any:
        yield self.start(Limits(deadline=30))
        worker = self.quick()
        os.kill(worker.transport.pid, signal.SIGSTOP)
        lost, next_one = self.submit(b"src=good.jpg&w=10"), self.submit(b"src=good.jpg&w=11")
        self.assertEqual(len(self.pool._ahead), 1)
        os.kill(worker.transport.pid, signal.SIGKILL)
        yield self.assertFailure(lost, Failed)
        made = yield next_one
        self.assertEqual(made.width, 11)
        self.assertEqual((self.pool.counters.crashes, self.pool.counters.started), (1, 2))

    @inlineCallbacks
    def test_jobs_in_advance_are_given_up(self) -> Any:
        yield self.start(Limits(deadline=30))
        worker = self.quick()
        os.kill(worker.transport.pid, signal.SIGSTOP)
        first, second = self.submit(b"src=good.jpg&w=10"), self.submit(b"src=good.jpg&w=11")
        self.assertEqual(len(self.pool._ahead), 1)
        second.cancel()
        yield self.assertFailure(second, CancelledError)
        third = self.submit(b"src=good.jpg&w=12")
        os.kill(worker.transport.pid, signal.SIGCONT)
        made = yield gatherResults([first, third])
        self.assertEqual([one.width for one in made], [10, 12])
        self.assertEqual((worker.jobs, self.pool.counters.started), (2, 1))

    @inlineCallbacks
    def test_workers_are_replaced_amid_jobs(self) -> Any:
        yield self.start(processes=2, max_requests=3)
        queries = [b"src=good.jpg&w=%d" % (50 + number) for number in range(20)]
        made = yield gatherResults([self.submit(query) for query in queries])
        self.assertEqual([one.width for one in made], [50 + number for number in range(20)])
        self.assertEqual(self.pool.counters.crashes, 0)
        self.assertGreaterEqual(self.pool.counters.started, 6)

    @inlineCallbacks
    def test_a_job_that_hangs(self) -> Any:
        yield self.start(Limits(deadline=0.2))
        (worker,) = self.pool._workers
        os.kill(worker.transport.pid, signal.SIGSTOP)
        started = time.monotonic()
        yield self.assertFailure(self.submit(b"src=good.jpg"), DeadlineExceeded)
        self.assertLess(time.monotonic() - started, 3)

    @inlineCallbacks
    def test_memory_is_bounded(self) -> Any:
        # The pixels fit, but not a second time, weighted by alpha.
        wide = Image.new("RGBA", (6000, 6000), "teal")
        (self.root / "wide.png").write_bytes(saved(wide, "PNG", compress_level=1))
        yield self.start(Limits(memory=200 << 20))
        error = yield self.assertFailure(self.submit(b"src=wide.png&w=10"), TooLarge)
        self.assertEqual(error.reason, "the image needs more memory than a worker may use")
        made = yield self.submit(b"src=good.jpg&w=9")
        self.assertEqual(made.width, 9)
        self.assertEqual(self.pool.counters.started, 1)

    @inlineCallbacks
    def test_encoders_have_the_memory_that_the_source_had(self) -> Any:
        (self.root / "wide.png").write_bytes(saved(gradient(5000, 4000), "PNG", compress_level=1))
        yield self.start(Limits(memory=256 << 20, deadline=40))
        made = yield self.submit(b"src=wide.png&w=2600&fmt=avif")
        self.assertEqual(made.width, 2600)

    @inlineCallbacks
    def test_expensive_jobs_are_found_by_their_headers(self) -> Any:
        yield self.start(Limits(expensive=0.001), processes=2)
        quick = self.submit(b"src=good.jpg&w=9")
        slow = self.submit(b"src=good.jpg&fmt=avif")
        yield gatherResults([quick, slow])
        self.assertEqual((self.pool.counters.expensive, self.pool.counters.done), (1, 2))
        self.assertGreater(max(worker.resident for worker in self.pool._workers), 1 << 20)
