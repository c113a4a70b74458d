from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.http.timers import NEVER, TimerWheel


class Entry:
    def __init__(self, clock: Clock) -> None:
        self.deadline = NEVER
        self.slot = -1
        self.clock = clock
        self.fired: list[float] = []

    def timed_out(self) -> None:
        self.fired.append(self.clock.seconds())


class TimerWheelTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.wheel = TimerWheel(self.clock, 0.5)
        self.entry = Entry(self.clock)

    def advance(self, seconds: float) -> None:
        self.clock.pump([0.1] * round(seconds * 10))

    def test_fires_once(self) -> None:
        self.wheel.schedule(self.entry, 2.0)
        self.advance(1.9)
        self.assertEqual(self.entry.fired, [])
        self.advance(10)
        self.assertEqual(len(self.entry.fired), 1)
        self.assertLessEqual(self.entry.fired[0], 2.7)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_later(self) -> None:
        self.wheel.schedule(self.entry, 1.0)
        self.wheel.schedule(self.entry, 5.0)
        self.advance(4.9)
        self.assertEqual(self.entry.fired, [])
        self.advance(1)
        self.assertEqual(len(self.entry.fired), 1)

    def test_sooner(self) -> None:
        self.wheel.schedule(self.entry, 60.0)
        self.wheel.schedule(self.entry, 1.0)
        self.advance(2)
        self.assertEqual(len(self.entry.fired), 1)

    def test_cancel(self) -> None:
        self.wheel.schedule(self.entry, 1.0)
        self.wheel.cancel(self.entry)
        self.advance(3)
        self.assertEqual(self.entry.fired, [])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_cancel_and_schedule_again(self) -> None:
        self.wheel.schedule(self.entry, 1.0)
        self.wheel.cancel(self.entry)
        self.wheel.schedule(self.entry, 3.0)
        self.advance(2.9)
        self.assertEqual(self.entry.fired, [])
        self.advance(1)
        self.assertEqual(len(self.entry.fired), 1)

    def test_remove_stops_the_clock(self) -> None:
        other = Entry(self.clock)
        self.wheel.schedule(self.entry, 1.0)
        self.wheel.schedule(other, 1.0)
        self.wheel.remove(self.entry)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.wheel.remove(other)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.wheel.remove(other)

    def test_removed_by_another_timeout(self) -> None:
        first, second = Entry(self.clock), Entry(self.clock)
        first.timed_out = lambda: self.wheel.remove(second)  # type: ignore[method-assign]
        second.timed_out = lambda: self.wheel.remove(first)  # type: ignore[method-assign]
        self.wheel.schedule(first, 1.0)
        self.wheel.schedule(second, 1.0)
        self.advance(2)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_scheduled_in_its_timeout(self) -> None:
        def again() -> None:
            Entry.timed_out(self.entry)
            self.wheel.schedule(self.entry, 1.0)

        self.entry.timed_out = again  # type: ignore[method-assign]
        self.wheel.schedule(self.entry, 1.0)
        self.advance(5)
        self.assertIn(len(self.entry.fired), (3, 4))

    def test_a_clock_that_jumps(self) -> None:
        self.wheel.schedule(self.entry, 5.0)
        self.clock.advance(1000)
        self.assertEqual(len(self.entry.fired), 1)

    def test_repr(self) -> None:
        self.wheel.schedule(self.entry, 5.0)
        self.assertEqual(repr(self.wheel), "<TimerWheel 1>")

    @given(st.lists(st.tuples(st.floats(0.05, 10), st.floats(0, 20)), max_size=10))
    def test_never_early_and_at_most_two_ticks_late(
        self, steps: list[tuple[float, float]]
    ) -> None:
        clock = Clock()
        wheel = TimerWheel(clock, 0.5)
        entry = Entry(clock)
        for wait, pause in steps:
            entry.fired.clear()
            wheel.schedule(entry, wait)
            deadline = clock.seconds() + wait
            end = clock.seconds() + pause
            while clock.seconds() < end:
                clock.advance(0.125)
            if entry.fired:
                self.assertGreaterEqual(entry.fired[0], deadline)
                self.assertLessEqual(entry.fired[0], deadline + 1.2)
            else:
                self.assertLess(end, deadline + 1.2)
