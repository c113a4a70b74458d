"""What is wrong with a farm."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from imagefarm.app.findings import findings, sample
from imagefarm.http.meter import BUCKETS, Meter, describe


def up(name: str = "master", **status: Any) -> dict[str, Any]:
    return {"name": name, "up": True, "status": {"servers": {}, **status}}


def peer(state: str, **more: Any) -> dict[str, Any]:
    return {"server": "10.0.0.1:80", "state": state, **more}


def counts(n: int, e: int) -> dict[str, int]:
    return {"n": n, "e": e}


class FindingsTests(SynchronousTestCase):
    def check(self, instance: dict[str, Any], *expected: tuple[str, str]) -> None:
        found = [(each["level"], each["text"]) for each in findings([instance])]
        self.assertEqual(found, list(expected))

    def test_well(self) -> None:
        self.check(
            up(
                configuration={"last_reload": "ok"},
                upstreams={"a": {"peers": [peer("up"), peer("draining"), peer("down")]},
                           "none": {"peers": []}},
                processes=[{"role": "worker", "state": "serves", "pid": 1}],
            )
        )  # fmt: skip

    def test_down(self) -> None:
        self.check(
            {"name": "slave01", "up": False, "error": "Connection refused"},
            ("bad", "slave01 does not answer: Connection refused"),
        )

    def test_reload(self) -> None:
        self.check(
            up(configuration={"last_reload": "failed", "errors": ["unknown directive", "b"]}),
            ("bad", "master: the last reload failed, the former configuration is in force: "
             "unknown directive"),
        )  # fmt: skip

    def test_peers(self) -> None:
        peers = [peer("unavail", last_failure_reason="timed out"), peer("up", backup=True)]
        self.check(
            up(upstreams={"a": {"peers": peers}}),
            ("bad", "master: no server of upstream a is up"),
            ("bad", "master: server 10.0.0.1:80 of upstream a is unavail: timed out"),
        )

    def test_hanging_worker(self) -> None:
        self.check(
            up(processes=[{"role": "worker", "number": 2, "pid": 7, "state": "hangs"}]),
            ("bad", "master: worker 2 (process 7) hangs"),
        )

    def test_resizer(self) -> None:
        def resizer(cheap: int, quarantined: int = 0) -> dict[str, Any]:
            waiting = {"cheap": cheap, "expensive": 2}
            return up("resizer", resizer={
                "waiting": waiting, "queue": 10, "quarantined": quarantined,
            })  # fmt: skip

        self.check(resizer(3))
        self.check(resizer(4), ("warn", "resizer: 6 pictures wait, there is room for 10"))
        self.check(
            resizer(8, 2),
            ("bad", "resizer: its queue is full (10 pictures wait), more are refused"),
            ("warn", "resizer: 2 pictures that take too long, in quarantine until the original "
             "changes"),
        )  # fmt: skip

    def test_failures_of_the_last_minute(self) -> None:
        def of(*pairs: tuple[float, int, int]) -> list[tuple[str, str]]:
            samples = [{"time": t, "of": {"master": counts(n, e)}} for t, n, e in pairs]
            return [(each["level"], each["text"]) for each in findings([up()], samples)]

        self.assertEqual(of((0, 0, 0), (100, 1000, 500)), [])
        self.assertEqual(of((50, 0, 500), (100, 1000, 500)), [])
        self.assertEqual(
            of((0, 0, 0), (50, 900, 499), (100, 1000, 500)),
            [("warn", "master: 1 of 100 answers within the last minute were 5xx")],
        )
        self.assertEqual(of((50, 900, 480), (100, 1000, 500))[0][0], "bad")
        self.assertEqual(of((50, 900, 480), (60, 10, 0), (100, 20, 0)), [])


class SampleTests(SynchronousTestCase):
    def test_a_server(self) -> None:
        meter, quiet = Meter(), Meter()
        for status, seconds in ((200, 0.0), (502, 0.002), (404, 99.0)):
            meter.count(status, seconds, 1, 10)
        quiet.count(500, 1.0, 1, 1000)
        zone = {"hits": 5, "stale": 1, "updating": 1, "misses": 2, "expired": 1, "bypass": 3}
        master = up(
            servers={"a": describe(meter.report()), "page": describe(quiet.report())},
            caches={"z": zone, "y": zone},
            upstreams={"a": {"peers": [peer("up"), peer("unavail"), peer("draining")]}},
        )
        down = {"name": "slave", "up": False, "error": ""}
        found = sample(5.0, [master, down], "page")
        self.assertEqual(
            found,
            {"time": 5.0, "of": {"master": {
                "n": 3, "e": 1, "b": 30, "h": [1, 1, *[0] * (BUCKETS - 3), 1], "c": [14, 26],
                "u": ["a 10.0.0.1:80"],
            }}},
        )  # fmt: skip
