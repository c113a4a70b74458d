from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

import imagefarm
from imagefarm.cache.flights import INTERVAL, MAX_FLIGHTS, MAX_WAITERS, Flights
from imagefarm.cache.locks import Landing, Lock, Locks, Watch
from imagefarm.cache.store import Directory

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(imagefarm.__file__)))
NOW = 1_800_000_000.0

FILLER = """
import sys, time
from imagefarm.cache.locks import Lock, Locks
assert isinstance(Locks(sys.argv[1].encode()).acquire(b"k", float(sys.argv[2])), Lock)
print("ready", flush=True)
time.sleep(60)
"""


class LocksCase(SynchronousTestCase):
    def setUp(self) -> None:
        path = tempfile.mkdtemp(prefix="imagefarm-locks-")
        self.addCleanup(shutil.rmtree, path, True)
        self.path = os.fsencode(path)
        self.locks = Locks(self.path)
        self.clock = Clock()
        self.clock.advance(NOW)
        self.troubles: list[OSError] = []

    def flights(self) -> Flights:
        """The flights of one process; each call is another process."""
        flights = Flights(Locks(self.path), self.clock.seconds, self.troubles.append)
        flights.start(self.clock)
        self.addCleanup(flights.stop)
        return flights

    def left(self) -> list[str]:
        return os.listdir(self.locks.path.decode())


class FlightsTests(LocksCase):
    def setUp(self) -> None:
        super().setUp()
        self.one = self.flights()
        self.assertIs(self.one.join(b"k"), Landing.LEAD)

    def wait(self, flights: Flights | None = None, age: float = 5.0) -> Deferred[Landing]:
        waiter = (self.one if flights is None else flights).join(b"k", age)
        assert isinstance(waiter, Deferred)
        return waiter

    def test_all_are_told(self) -> None:
        waiters = [self.wait() for _ in range(3)]
        self.one.land(b"k", Landing.STORED)
        self.assertEqual([self.successResultOf(w) for w in waiters], [Landing.STORED] * 3)
        self.assertEqual((len(self.one), self.left()), (0, []))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_the_lead_passes_on_in_order(self) -> None:
        one, two = self.wait(), self.wait()
        self.one.land(b"k", Landing.LEAD)
        self.assertIs(self.successResultOf(one), Landing.LEAD)
        self.assertNoResult(two)
        self.one.land(b"k", Landing.LEAD)
        self.assertIs(self.successResultOf(two), Landing.LEAD)
        self.one.land(b"k", Landing.LEAD)
        self.assertEqual((len(self.one), self.left()), (0, []))

    def test_who_has_left_is_not_told(self) -> None:
        one, two = self.wait(), self.wait()
        one.addErrback(lambda _: None)
        one.cancel()
        self.one.land(b"k", Landing.LEAD)
        self.assertIs(self.successResultOf(two), Landing.LEAD)

    def test_the_queue_is_bounded(self) -> None:
        waiters = [self.wait() for _ in range(MAX_WAITERS)]
        self.assertIs(self.one.join(b"k"), Landing.PASS)
        self.one.land(b"k", Landing.PASS)
        self.assertIs(self.successResultOf(waiters[-1]), Landing.PASS)

    def test_the_flights_are_bounded(self) -> None:
        for number in range(MAX_FLIGHTS - 1):
            self.assertTrue(self.one.lead(b"%d" % number))
        self.assertIs(self.one.join(b"another"), Landing.PASS)
        self.assertFalse(self.one.lead(b"another"))
        for number in range(MAX_FLIGHTS - 1):
            self.one.land(b"%d" % number, Landing.PASS)

    def test_keys_do_not_meet(self) -> None:
        self.assertIs(self.one.join(b"other"), Landing.LEAD)
        waiter = self.wait()
        self.one.land(b"other", Landing.STORED)
        self.assertNoResult(waiter)
        self.one.land(b"k", Landing.STORED)
        self.assertIs(self.successResultOf(waiter), Landing.STORED)

    def test_other_processes_are_told(self) -> None:
        for landing in (Landing.STORED, Landing.STALE, Landing.PASS):
            others = [self.flights(), self.flights()]
            waiters = [self.wait(other) for other in others for _ in range(2)]
            self.clock.advance(INTERVAL)
            self.assertNoResult(waiters[0])
            self.one.land(b"k", landing)
            self.clock.advance(INTERVAL)
            self.assertEqual([self.successResultOf(w) for w in waiters], [landing] * 4)
            self.assertEqual(([len(other) for other in others], self.left()), ([0, 0], []))
            self.assertIs(self.one.join(b"k"), Landing.LEAD)

    def test_one_of_all_processes_is_next(self) -> None:
        two, three = self.flights(), self.flights()
        waiters = [self.wait(two), self.wait(two), self.wait(three)]
        self.one.land(b"k", Landing.LEAD)
        self.clock.advance(INTERVAL)
        self.assertIs(self.successResultOf(waiters[0]), Landing.LEAD)
        two.land(b"k", Landing.STORED)
        self.clock.pump([INTERVAL] * 2)
        self.assertEqual([self.successResultOf(w) for w in waiters[1:]], [Landing.STORED] * 2)

    def test_only_one_leads_at_a_time(self) -> None:
        two = self.flights()
        self.assertFalse(two.lead(b"k"))
        self.assertFalse(self.one.lead(b"k"))
        self.one.land(b"k", Landing.STORED)
        self.assertTrue(two.lead(b"k"))
        self.assertFalse(self.one.lead(b"k"))

    def test_nobody_looks_when_all_have_left(self) -> None:
        two = self.flights()
        waiter = self.wait(two)
        waiter.addErrback(lambda _: None)
        waiter.cancel()
        self.assertEqual((len(two), self.clock.getDelayedCalls()), (0, []))

    def test_one_more_when_the_first_takes_too_long(self) -> None:
        two, three = self.flights(), self.flights()
        waiters = [self.wait(two, 3.0), self.wait(two, 3.0), self.wait(three, 3.0)]
        self.clock.pump([1.0] * 3)
        self.assertNoResult(waiters[0])
        self.clock.advance(0.5)
        self.assertIs(self.successResultOf(waiters[0]), Landing.LEAD)
        self.clock.pump([1.0] * 2)
        self.assertNoResult(waiters[1])
        two.land(b"k", Landing.STORED)
        self.clock.advance(INTERVAL)
        self.assertEqual([self.successResultOf(w) for w in waiters[1:]], [Landing.STORED] * 2)
        self.assertEqual(self.left(), [])
        self.one.land(b"k", Landing.STORED)

    def test_one_more_in_the_same_process(self) -> None:
        one, two = self.wait(age=3.0), self.wait(age=3.0)
        self.clock.pump([1.0] * 4)
        self.assertIs(self.successResultOf(one), Landing.LEAD)
        self.one.land(b"k", Landing.LEAD)  # one of them fails, the other is still at it
        self.assertNoResult(two)
        self.one.land(b"k", Landing.STORED)
        self.assertIs(self.successResultOf(two), Landing.STORED)
        self.assertEqual(len(self.one), 0)

    def test_without_locks_each_process_has_its_own(self) -> None:
        shutil.rmtree(self.path)
        with open(self.path, "wb"):
            pass
        self.addCleanup(os.unlink, self.path)
        two = self.flights()
        self.assertIs(two.join(b"k"), Landing.LEAD)
        self.assertEqual(len(self.troubles), 1)
        waiter = self.wait(two)
        two.land(b"k", Landing.STORED)
        self.assertIs(self.successResultOf(waiter), Landing.STORED)


class LocksTests(LocksCase):
    def watch(self) -> Watch:
        held = self.locks.acquire(b"k", NOW)
        assert isinstance(held, Watch)
        self.addCleanup(held.close)
        return held

    def test_a_killed_filler(self) -> None:
        child = subprocess.Popen(
            [sys.executable, "-c", FILLER, self.path.decode(), str(NOW)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": ROOT},
        )
        self.addCleanup(child.wait)
        self.addCleanup(child.kill)
        assert child.stdout is not None
        self.addCleanup(child.stdout.close)
        self.assertEqual(child.stdout.readline(), "ready\n")
        flights = self.flights()
        waiter = flights.join(b"k")
        assert isinstance(waiter, Deferred)
        self.clock.advance(INTERVAL)
        self.assertNoResult(waiter)
        child.kill()
        child.wait()
        self.clock.advance(INTERVAL)
        self.assertIs(self.successResultOf(waiter), Landing.LEAD)
        flights.land(b"k", Landing.PASS)
        self.assertEqual(self.left(), [])

    def test_what_a_dead_filler_leaves_is_used_or_removed(self) -> None:
        held = self.locks.acquire(b"k", NOW)
        assert isinstance(held, Lock)
        directory = Directory(self.path.decode())
        self.assertEqual(directory.remove_strays(), 0)
        os.fchmod(held.fd, 0o601)
        os.close(held.fd)  # as the kernel does
        again = self.locks.acquire(b"k", NOW)
        assert isinstance(again, Lock)
        self.assertIsNone(self.watch().ended())
        os.close(again.fd)
        self.assertEqual(directory.remove_strays(), 1)
        self.assertEqual(self.left(), [])

    def test_the_lock_of_a_removed_directory(self) -> None:
        first = self.locks.acquire(b"k", NOW)
        assert isinstance(first, Lock)
        watch = self.watch()
        shutil.rmtree(self.path)
        second = self.locks.acquire(b"k", NOW)
        assert isinstance(second, Lock)
        first.release(Landing.STORED)
        self.assertIs(watch.ended(), Landing.STORED)
        self.assertEqual(len(self.left()), 1)  # the second one's stays
        second.release(Landing.LEAD)
        self.assertEqual(self.left(), [])
