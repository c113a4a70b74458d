"""What a worker has of its own besides sockets."""

from __future__ import annotations

import os

from twisted.trial.unittest import SynchronousTestCase

from imagefarm.process.environment import Affinity, furnish, pin, reduced

FOUR = frozenset(range(4))


class AffinityTests(SynchronousTestCase):
    def test_masks(self) -> None:
        """The last one is for the workers that are left (ngx_get_cpu_affinity)."""
        affinity = Affinity((frozenset([0]), frozenset([1, 2])))
        self.assertEqual(
            [affinity.of_worker(n, FOUR) for n in (1, 2, 3)],
            [frozenset([0]), frozenset([1, 2]), frozenset([1, 2])],
        )

    def test_auto(self) -> None:
        plain, some = Affinity(auto=True), Affinity((frozenset([1, 3, 7]),), auto=True)
        for affinity, expected in ((plain, [0, 1, 2, 3, 0]), (some, [1, 3, 1, 3, 1])):
            found = [affinity.of_worker(n, FOUR) for n in range(1, 6)]
            self.assertEqual(found, [frozenset([cpu]) for cpu in expected])

    def test_pin(self) -> None:
        before = os.sched_getaffinity(0)
        self.addCleanup(os.sched_setaffinity, 0, before)
        self.assertEqual(pin(None, 1), [])
        self.assertEqual(pin(Affinity(auto=True), 1), [])
        self.assertEqual(os.sched_getaffinity(0), {min(before)})
        self.assertEqual(
            pin(Affinity((frozenset([1000]),)), 1),
            ["sched_setaffinity() failed (22: Invalid argument)"],
        )


class EnvironmentTests(SynchronousTestCase):
    def test_reduced(self) -> None:
        """nginx keeps TZ; we also what Python needs."""
        given = {"TZ": "UTC", "PYTHONPATH": "p", "LC_ALL": "C", "SECRET": "s", "KEPT": "k"}
        listed = [("KEPT", None), ("MADE", "m=1"), ("ABSENT", None), ("TZ", "Asia/Seoul")]
        self.assertEqual(
            reduced(given, listed),
            {"TZ": "Asia/Seoul", "PYTHONPATH": "p", "LC_ALL": "C", "KEPT": "k", "MADE": "m=1"},
        )

    def test_furnish(self) -> None:
        here = os.getcwd()
        self.addCleanup(os.chdir, here)
        directory = os.path.realpath(self.mktemp())
        environment = {"SECRET": "s"}
        missing = f'chdir("{directory}") failed (2: No such file or directory)'
        self.assertEqual(furnish(environment, [], directory, None), [missing])
        self.assertEqual(environment, {})
        os.mkdir(directory)
        self.assertEqual(furnish(environment, [("A", "1")], directory, None), [])
        self.assertEqual((os.getcwd(), environment), (directory, {"A": "1"}))
