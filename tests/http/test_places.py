"""Places for connections, and who has to go where there are too few."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.logger import formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.http.places import FEW, RESCAN, Places
from imagefarm.http.timers import NEVER


class FakeClient:
    def __init__(self, factory: FakeFactory, waiting_since: float = NEVER) -> None:
        self.factory, self.waiting_since = factory, waiting_since

    def drain(self, parting: float) -> None:
        assert self.waiting_since != NEVER and parting == 0.0
        self.factory.connections.remove(self)


class FakeParked:
    def __init__(self, number: int) -> None:
        self.number = number

    def __len__(self) -> int:
        return self.number

    def close_oldest(self, number: int) -> int:
        number = min(number, self.number)
        self.number -= number
        return number


class FakeFactory:
    def __init__(self, busy: int = 0, idle: int = 0, parked: int = 0) -> None:
        self.connections: list[Any] = [FakeClient(self) for _ in range(busy)]
        self.connections += [FakeClient(self, float(n)) for n in range(idle)]
        self.parked = FakeParked(parked)

    @property
    def count(self) -> int:
        return len(self.connections) + len(self.parked)


class PlacesTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(100)
        self.lines: list[tuple[str, str]] = []

        def observe(event: Any) -> None:
            if event.get("log_namespace") == "imagefarm.places":
                self.lines.append((event["severity"], formatEvent(event)))

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)

    def places(self, limit: int, *factories: FakeFactory) -> Places:
        places = Places(limit, self.clock.seconds)
        for factory in factories:
            places.count_too(factory)
        return places

    def test_no_limit(self) -> None:
        places = self.places(0, FakeFactory(busy=9))
        self.assertTrue(places.free() and places.take())
        self.assertEqual((places.used, repr(places)), (10, "<Places 10/->"))

    def test_clients_and_upstreams(self) -> None:
        """All listening sockets and all upstreams share them."""
        one, two = FakeFactory(busy=2), FakeFactory(busy=1)
        places = self.places(5, one, two)
        self.assertEqual([places.take() for _ in range(3)], [True, True, False])
        self.assertFalse(places.free())
        one.connections.pop()
        self.assertTrue(places.free())
        two.connections.append(FakeClient(two))
        places.give_back()
        self.assertTrue(places.take())
        self.assertEqual(self.lines, [("alert", "5 worker_connections are not enough")])

    def test_said_once_a_second(self) -> None:
        places = self.places(1, FakeFactory(busy=1))
        for _ in range(30):
            self.assertFalse(places.free())
            self.clock.advance(0.1)
        self.assertIn(len(self.lines), (3, 4))

    def test_idle_clients_go(self) -> None:
        """When a sixteenth is left; an eighth of them, those that have waited longest."""
        one, two = FakeFactory(busy=7, idle=4, parked=3), FakeFactory(idle=15)
        places = self.places(32, one, two)
        self.assertTrue(places.free())
        self.assertEqual(places.used, 29)
        places.take()
        self.assertTrue(places.free())
        self.assertEqual((places.used, len(one.parked)), (29, 2))
        self.assertTrue(places.take() and places.take() and places.take())
        self.assertEqual((places.used, len(one.parked)), (30, 0))
        self.assertTrue(places.free())
        self.assertEqual(places.used, 28)
        left = [client.waiting_since for client in (*one.connections, *two.connections)]
        self.assertEqual(min(left), 1.0)
        self.assertEqual(
            self.lines, [("warn", "32 worker_connections are not enough, reusing connections")]
        )

    def test_a_look_at_many_is_rare(self) -> None:
        factory = FakeFactory(busy=FEW + 8)
        places = self.places(FEW + 8, factory)
        self.assertFalse(places.free())
        factory.connections[5].waiting_since = 1.0
        self.assertFalse(places.free())
        self.clock.advance(2 * RESCAN)
        self.assertTrue(places.free())

    def test_who_is_busy_again_stays(self) -> None:
        factory = FakeFactory(busy=2, idle=2)
        places = self.places(4, factory)
        self.assertTrue(places.free())
        self.assertEqual(factory.count, 3)
        factory.connections[-1].waiting_since = NEVER
        places.take()
        self.assertFalse(places.free())
        self.assertEqual(factory.count, 3)
