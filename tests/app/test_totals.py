"""Sums over workers."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.app.metrics import resizer_families
from imagefarm.app.totals import (
    MAX_ERRORS,
    Figures,
    figures,
    figures_of,
    fold,
    keyed,
    latest,
    plus,
    resizer_status,
    with_totals,
)
from imagefarm.http.meter import Meter
from imagefarm.image.pool import PoolSettings
from imagefarm.image.tally import Tally
from imagefarm.resources.metrics import exposition
from tests.resources.test_metrics import read

NAMES = st.sampled_from(["a", "b", "c"])
#: Figures of one shape, as workers of different configurations may have them: names come and go.
TREES = st.fixed_dictionaries(
    {},
    optional={
        "number": st.integers(0, 1000),
        "list": st.lists(st.integers(0, 1000), max_size=4),
        "named": st.dictionaries(
            NAMES, st.fixed_dictionaries({"x": st.integers(0, 9), "y": st.lists(st.integers())})
        ),
    },
)


class PlusTests(SynchronousTestCase):
    def test_example(self) -> None:
        self.assertEqual(
            plus({"a": 1, "b": {"c": [1, 2]}}, {"b": {"c": [10, 20, 30], "d": 5}}),
            {"a": 1, "b": {"c": [11, 22, 30], "d": 5}},
        )

    @given(TREES, TREES, TREES)
    def test_order_does_not_matter(self, one: Any, two: Any, three: Any) -> None:
        self.assertEqual(plus(one, two), plus(two, one))
        self.assertEqual(plus(plus(one, two), three), plus(one, plus(two, three)))
        self.assertEqual(plus(one, {}), one)

    @given(st.lists(TREES), st.integers(0, 5))
    def test_the_dead_count_as_if_they_lived(self, trees: list[Any], dead: int) -> None:
        documents = [{"counters": tree, "gauges": {}, "errors": []} for tree in trees]
        left: dict[str, Any] = {}
        for document in documents[:dead]:
            left = fold(left, document)
        self.assertEqual(figures(left, documents[dead:]).counters, figures({}, documents).counters)


class FoldTests(SynchronousTestCase):
    def test_gauges_go_with_the_worker(self) -> None:
        gone = {"counters": {"n": 3}, "gauges": {"g": 2}, "errors": [[2.0, "error", 7, "b"]]}
        left = fold({"counters": {"n": 1}, "errors": [[1.0, "crit", 6, "a"]]}, gone)
        self.assertEqual(
            left,
            {"counters": {"n": 4}, "errors": [[1.0, "crit", 6, "a"], [2.0, "error", 7, "b"]]},
        )
        sums = figures(left, [{"counters": {"n": 10}, "gauges": {"g": 1}}])
        self.assertEqual(sums, Figures({"n": 14}, {"g": 1}))

    def test_the_last_errors(self) -> None:
        many = [[float(n), "error", 1, ""] for n in range(MAX_ERRORS)]
        self.assertEqual(latest(many, [[0.5, "", 1, ""]]), [[0.5, "", 1, ""], *many[1:]])


def peer(server: str, **more: Any) -> dict[str, Any]:
    return {
        "server": server, "state": "up", "active": 1, "requests": 4, "sent": 10, "received": 20,
        "fails": 0, "unavail": 0, "responses": {"2xx": 4, "total": 4},
        "times": {"header": [0.5, 4], "response": [1.0, 4]}, **more,
    }  # fmt: skip


def report(**more: Any) -> dict[str, Any]:
    zone = dict.fromkeys(("hits", "stale", "updating", "misses", "expired", "bypass"), 0)
    return {
        "connections": {
            "accepted": 9, "handled": 8, "active": 3, "reading": 0, "writing": 1, "waiting": 2,
        },
        "upstreams": {
            "back": {"peers": [peer("a:1"), peer("a:1"), peer("b:1")], "keepalive": 2,
                     "zombies": 0},
        },
        "resolvers": {"dns": {"requests": {"a": 1}}},
        "caches": {
            "z": {"entries": 5, "size": 1, "max_size": None, "hit_ratio": None, "manager": True,
                  **zone, "hits": 3, "misses": 1},
        },
        **more,
    }  # fmt: skip


class ServerTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.meter = Meter()
        self.meter.count(200, 0.002, 100, 1000)
        self.meters = {"x": self.meter.report()}

    def test_one_worker_is_itself(self) -> None:
        mine = report()
        found = with_totals(mine, figures_of(mine, self.meters))
        self.assertEqual(found["connections"], mine["connections"])
        self.assertEqual(found["caches"], {"z": {**mine["caches"]["z"], "hit_ratio": 0.75}})
        self.assertEqual((found["requests"], found["sent"], found["received"]), (1, 1000, 100))
        times = {"header_time": 125, "response_time": 250}
        self.assertEqual(found["upstreams"]["back"]["peers"][2], {**peer("b:1"), **times})

    def test_two_workers(self) -> None:
        mine, theirs = report(), report()
        theirs["upstreams"]["back"]["peers"][0]["state"] = "unavail"
        theirs["upstreams"]["back"]["peers"][1]["requests"] = 100
        theirs["caches"]["z"].update(manager=False, misses=9)
        some = [figures_of(each, self.meters) for each in (mine, theirs)]
        sums = Figures(
            plus(some[0].counters, some[1].counters), plus(some[0].gauges, some[1].gauges)
        )
        found = with_totals(mine, sums)
        peers = found["upstreams"]["back"]["peers"]
        self.assertEqual([each["requests"] for each in peers], [8, 104, 8])
        self.assertEqual([each["active"] for each in peers], [2, 2, 2])
        self.assertEqual(peers[0]["state"], "up")
        self.assertEqual(peers[0]["times"], {"header": [1.0, 8], "response": [2.0, 8]})
        self.assertEqual(found["upstreams"]["back"]["keepalive"], 4)
        zone = found["caches"]["z"]
        self.assertEqual((zone["hits"], zone["hit_ratio"], zone["manager"]), (6, 0.375, True))
        self.assertEqual(zone["entries"], 5)
        self.assertEqual(found["connections"]["waiting"], 4)
        self.assertEqual(found["resolvers"], {"dns": {"requests": {"a": 2}}})

    def test_another_configuration(self) -> None:
        """What only the others have is counted, but is none of this report's."""
        mine = report()
        sums = figures_of(mine, self.meters)
        other = {
            "upstreams": {"gone": {"c:1": {"requests": 7}}},
            "servers": {"y": self.meters["x"]},
        }
        found = with_totals(mine, Figures(plus(sums.counters, other), sums.gauges))
        self.assertEqual(list(found["upstreams"]), ["back"])
        self.assertEqual((list(found["servers"]), found["requests"]), (["x", "y"], 2))

    def test_keys(self) -> None:
        keys = [key for key, _ in keyed(report()["upstreams"]["back"]["peers"])]
        self.assertEqual(keys, ["a:1", "a:1#2", "b:1"])


class ResizerTests(SynchronousTestCase):
    def worker(self, seconds: float) -> Figures:
        meter, tally = Meter(), Tally()
        meter.count(200, seconds, 0, 1000)
        tally.done(seconds, [("decode", seconds)], expensive=seconds > 1)
        return Figures(
            {"requests": meter.report(), "jobs": {"done": 1, "crashes": 0}, **tally.report()},
            {
                "waiting": {"cheap": 2, "expensive": 1}, "running": {"cheap": 1, "expensive": 0},
                "workers": 1, "quarantined": 1,
                "originals": {"/a.jpg": [1, seconds], f"/{seconds}.jpg": [1, 0.5]},
            },
        )  # fmt: skip

    def test_two_workers(self) -> None:
        one, two = self.worker(0.004), self.worker(2.0)
        sums = Figures(plus(one.counters, two.counters), plus(one.gauges, two.gauges))
        found = resizer_status(sums, PoolSettings(processes=3, queue=64))
        resizer = found["resizer"]
        self.assertEqual((found["requests"], found["sent"]), (2, 2000))
        self.assertEqual((resizer["processes"], resizer["queue"]), (6, 128))
        self.assertEqual(resizer["waiting"], {"cheap": 4, "expensive": 2})
        self.assertEqual(resizer["lanes"]["expensive"]["jobs"], 1)
        self.assertEqual(resizer["steps"], {"decode": {"seconds": 2.004, "count": 2}})
        self.assertEqual(
            resizer["originals"][0], {"original": "/a.jpg", "jobs": 2, "seconds": 2.004}
        )
        status = {**found, "uptime": 1, "configuration": {}, "processes": []}
        samples = read(exposition(resizer_families(status)))
        for sample in (
            ("imagefarm_resizer_jobs_total", {"event": "done"}, 2),
            ("imagefarm_resizer_jobs_waiting", {"lane": "expensive"}, 2),
            ("imagefarm_resizer_step_seconds_sum", {"step": "decode"}, 2.004),
            ("imagefarm_resizer_job_duration_seconds_count", {"lane": "cheap"}, 1),
            ("imagefarm_resizer_requests_total", {"code": "2xx"}, 2),
        ):
            self.assertIn(sample, samples)
