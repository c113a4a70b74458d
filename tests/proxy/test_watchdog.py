"""Timeouts of upstream connections, also in a process that was held up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.fastcgi.wire import Watch
from imagefarm.proxy.watchdog import Watchdog


class _Http:
    """A `Watchdog` as FastCGI's `Watch` is used."""

    def __init__(self, clock: Clock, bark: Callable[[], None]) -> None:
        self._dog = Watchdog(clock, bark)
        self.touch, self.stop = self._dog.touch, self._dog.cancel

    def start(self) -> None:
        self._dog.start(3.0)


class WatchdogTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.barks: list[float] = []

    def watches(self) -> list[Any]:
        def bark() -> None:
            self.barks.append(self.clock.seconds())

        return [_Http(self.clock, bark), Watch(self.clock, 3.0, bark)]

    def test_in_time(self) -> None:
        for watch in self.watches():
            watch.start()
        self.clock.advance(2.9)
        self.assertEqual(self.barks, [])
        self.clock.advance(0.2)
        self.assertEqual(len(self.barks), 2)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_what_comes_puts_it_off(self) -> None:
        for watch in self.watches():
            watch.start()
            self.clock.callLater(2.0, watch.touch)
        self.clock.pump([0.5] * 9)
        self.assertEqual(self.barks, [])
        self.clock.pump([0.5] * 2)
        self.assertEqual(len(self.barks), 2)

    def test_a_process_that_was_held_up(self) -> None:
        """It wakes up late: the timer is run first, then what has come is read."""
        for watch in self.watches():
            watch.start()
            self.clock.callLater(10.0, watch.touch)
        self.clock.advance(10.0)
        self.assertEqual(self.barks, [])
        self.clock.advance(3.1)
        self.assertEqual(len(self.barks), 2)

    def test_stopped_in_the_last_turn(self) -> None:
        for watch in self.watches():
            watch.start()
            self.clock.callLater(10.0, watch.stop)
        self.clock.advance(10.0)
        self.assertEqual(self.barks, [])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_used_again(self) -> None:
        for watch in self.watches():
            for _ in range(2):
                watch.start()
                self.clock.advance(3.1)
        self.assertEqual(len(self.barks), 4)
