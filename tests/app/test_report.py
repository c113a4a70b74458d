"""The status page's values."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.app.report import resolver_report, zone_report
from imagefarm.cache.settings import ZoneSettings
from imagefarm.cache.zone import Zone
from imagefarm.proxy.names.cache import NameCache
from imagefarm.proxy.names.query import Nameservers
from imagefarm.proxy.names.reply import Kind
from imagefarm.proxy.names.resolver import Resolver


class ReportTests(SynchronousTestCase):
    def test_resolvers_of_a_zone(self) -> None:
        clock = Clock()
        both = [
            Resolver(clock, Nameservers(clock, (), 1.0), (Kind.A,), NameCache()) for _ in range(2)
        ]
        both[0].asked.update({Kind.A: 3, Kind.SRV: 1})
        both[1].asked.update({Kind.A: 2})
        both[0].codes.update({0: 2, 3: 1})
        both[1].codes.update({110: 1, 111: 4, 9: 1})
        self.assertEqual(
            resolver_report(both),
            {
                "requests": {"a": 5, "aaaa": 0, "srv": 1},
                "responses": {
                    "noerror": 2, "formerr": 0, "servfail": 0, "nxdomain": 1, "notimp": 0,
                    "refused": 0, "timedout": 1, "unknown": 5,
                },
            },
        )  # fmt: skip


class ZoneReportTests(SynchronousTestCase):
    def test_a_zone(self) -> None:
        zone = Zone(ZoneSettings(name="z", path="/nonexistent", keys=100, max_size=1000))
        self.assertIsNone(zone_report(zone)["hit_ratio"])
        zone.counters.hits, zone.counters.stale, zone.counters.misses = 5, 1, 2
        found = zone_report(zone)
        self.assertEqual((found["hit_ratio"], found["max_size"], found["hits"]), (0.75, 1000, 5))
        self.assertEqual((found["entries"], found["size"], found["manager"]), (0, 0, False))
