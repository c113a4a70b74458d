"""Servers changed at run time, in two workers that share a board, and what the status tells."""

from __future__ import annotations

import os
from typing import Any

from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.app.health import PUBLISH, HealthChecks
from imagefarm.app.report import UpstreamReport
from imagefarm.app.servers import Servers, keyed
from imagefarm.app.shared import POLL, Shared
from imagefarm.http.upstream import ExchangeRules, Outgoing
from imagefarm.process.board import Board
from imagefarm.proxy.connection import HttpConnector
from imagefarm.proxy.group import Group
from imagefarm.proxy.health.records import Check, CheckSettings
from imagefarm.proxy.peer import Address, Health, Peer
from imagefarm.resources.api import ApiError
from tests.proxy.support import make_request
from tests.proxy.test_directives import groups

CONF = (
    "upstream back { server 10.0.0.1:80 weight=2; server 10.0.0.2:80; server 10.0.0.3:80 down; }"
)


class Worker:
    """One process's part. The lock on the board knows processes only: ``leads`` is given."""

    def __init__(self, case: SynchronousTestCase, board: Board, leads: bool, **check: Any) -> None:
        self.reactor = MemoryReactorClock()
        self.group: Group = groups(CONF).find("back")
        self.group.reactor = self.reactor
        own = Board(os.dup(board.fileno()))
        own.lead = lambda: leads  # type: ignore[method-assign]
        self.shared = Shared(self.reactor)
        self.checks = HealthChecks(self.reactor, self.shared)
        self.check = Check(CheckSettings(interval=1.0, **check))
        self.checks.add(self.group, self.check, make_request, self)
        named = {"back": self.group}
        self.report = UpstreamReport(named, self.checks, lambda: 1000.0 + self.reactor.seconds())
        self.servers = Servers(self.reactor, self.shared, named, self.report.group)
        self.servers.start()
        self.checks.start()
        self.shared.start(own)
        case.addCleanup(self.checks.stop)
        case.addCleanup(self.shared.stop)

    def probe(self, request: Any) -> tuple[Outgoing, ExchangeRules]:
        return Outgoing(b"GET"), ExchangeRules(HttpConnector(self.reactor))

    def peer(self, key: str) -> Peer:
        return dict(keyed(self.group.peers))[key]

    def states(self) -> list[str]:
        return [peer.state(self.reactor.seconds()) for peer in self.group.peers]

    def chosen(self, count: int) -> str:
        """The last digit of the address of each of the next peers in turn."""
        found = ""
        for _ in range(count):
            peer = self.group.policy.choose(self.group.peers, b"", self.reactor.seconds(), ())
            found += "-" if peer is None else peer.address.host[-1]
        return found


class ServersTests(SynchronousTestCase):
    def setUp(self) -> None:
        board = Board.make()
        self.addCleanup(board.close)
        self.board = board
        self.one, self.two = Worker(self, board, True), Worker(self, board, False)

    def both(self) -> list[Worker]:
        """The workers, after the second has looked at the board."""
        self.two.reactor.advance(POLL)
        return [self.one, self.two]

    def test_numbers_and_settings(self) -> None:
        servers = self.one.servers.servers("back")
        self.assertEqual([server["id"] for server in servers], [0, 1, 2])
        self.assertEqual(
            servers[0],
            {"id": 0, "server": "10.0.0.1:80", "weight": 2, "max_conns": 0, "max_fails": 1,
             "fail_timeout": "10s", "slow_start": "0s", "route": "", "backup": False,
             "down": False, "drain": False},
        )  # fmt: skip
        self.assertEqual(self.two.servers.servers("back"), servers)

    def test_drain_and_up_again(self) -> None:
        self.assertTrue(self.one.servers.change("back", 0, {"drain": True})["drain"])
        for worker in self.both():
            self.assertEqual(worker.states(), ["draining", "up", "down"])
            self.assertEqual(worker.chosen(3), "222")
        self.two.servers.change("back", 0, {"drain": False})
        self.one.reactor.advance(POLL)
        self.assertEqual(self.one.states(), ["up", "up", "down"])

    def test_down_and_drain_exclude_each_other(self) -> None:
        for change, state in (
            ({"down": True}, "down"), ({"drain": True}, "draining"), ({"down": True}, "down"),
            ({"drain": False}, "down"), ({"down": False}, "up"),
        ):  # fmt: skip
            self.one.servers.change("back", 1, change)
            for worker in self.both():
                self.assertEqual(worker.states()[1], state, change)

    def test_one_that_is_configured_down(self) -> None:
        self.one.servers.change("back", 2, {"weight": 3})
        self.assertEqual(self.one.states()[2], "down")
        self.one.servers.change("back", 2, {"down": False})
        self.assertEqual(self.one.states()[2], "up")

    def test_weight_shifts_the_distribution(self) -> None:
        self.assertEqual(sorted(self.one.chosen(30)), list("1" * 20 + "2" * 10))
        self.one.servers.change("back", 1, {"weight": 8})
        for worker in self.both():
            self.assertEqual(sorted(worker.chosen(30)), list("1" * 6 + "2" * 24))

    def test_limits(self) -> None:
        settings = {"max_conns": 1, "max_fails": 0, "fail_timeout": 0.25, "slow_start": 60.0}
        server = self.one.servers.change("back", 0, settings)
        self.assertEqual((server["fail_timeout"], server["slow_start"]), ("250ms", "60s"))
        for worker in self.both():
            peer = worker.peer("10.0.0.1:80")
            peer.take(0.0)
            self.assertEqual(worker.chosen(2), "22")
            peer.release()

    def test_add_and_remove(self) -> None:
        server = self.one.servers.add("back", {"server": "10.0.0.9:81", "weight": 3})
        self.assertEqual((server["id"], server["server"]), (3, "10.0.0.9:81"))
        for worker in self.both():
            self.assertEqual(sorted(worker.chosen(6)), list("112999"))
        left = self.two.servers.remove("back", 0)
        self.assertEqual([server["id"] for server in left], [1, 2, 3])
        self.one.reactor.advance(POLL)
        self.assertEqual(sorted(self.one.chosen(4)), list("2999"))
        self.one.servers.remove("back", 3)
        again = self.one.servers.add("back", {"server": "10.0.0.1:80", "down": True})
        self.assertEqual(again["id"], 4)
        for worker in self.both():
            self.assertEqual(worker.chosen(2), "22")

    def test_a_worker_that_starts_later(self) -> None:
        self.one.servers.add("back", {"server": "10.0.0.9:81"})
        self.one.servers.change("back", 0, {"down": True})
        late = Worker(self, self.board, False)
        self.assertEqual(late.states(), ["down", "up", "down", "up"])
        self.assertEqual(late.servers.servers("back"), self.one.servers.servers("back"))

    def test_what_was_changed_holds_when_names_bring_other_servers(self) -> None:
        self.one.servers.add("back", {"server": "10.0.0.9:81"})
        self.one.servers.change("back", 1, {"drain": True})
        self.one.servers.remove("back", 0)
        addresses = [Address(f"10.0.0.{n}", 80) for n in (1, 2, 3, 5)]
        self.one.group.replace(map(Peer, addresses))
        found = {key: peer.state(0.0) for key, peer in keyed(self.one.group.peers)}
        self.assertEqual(
            found,
            {"10.0.0.2:80": "draining", "10.0.0.3:80": "down", "10.0.0.5:80": "up",
             "10.0.0.9:81": "up"},
        )  # fmt: skip

    def test_refusals(self) -> None:
        for function, arguments, code in (
            ("servers", ("nope",), "UpstreamNotFound"),
            ("report", ("nope",), "UpstreamNotFound"),
            ("change", ("back", 9, {"down": True}), "UpstreamServerNotFound"),
            ("remove", ("back", 9), "UpstreamServerNotFound"),
            ("add", ("back", {"server": "10.0.0.1"}), "UpstreamBadAddress"),
            ("add", ("back", {"server": "10.0.0.9:x"}), "UpstreamBadAddress"),
            ("add", ("back", {"server": "images.example"}), "UpstreamConfNoResolver"),
        ):
            call = getattr(self.one.servers, function)
            self.assertEqual(self.assertRaises(ApiError, call, *arguments).code, code)
        self.one.servers.remove("back", 0)
        self.one.servers.remove("back", 1)
        error = self.assertRaises(ApiError, self.one.servers.remove, "back", 2)
        self.assertEqual(error.code, "UpstreamServerImmutable")

    def test_no_change_after_the_end(self) -> None:
        self.one.shared.stop()
        error = self.assertRaises(ApiError, self.one.servers.change, "back", 0, {"down": True})
        self.assertEqual(error.status, 503)


class HealthTests(SynchronousTestCase):
    def workers(self, **check: Any) -> None:
        self.board = Board.make()
        self.addCleanup(self.board.close)
        self.one = Worker(self, self.board, True, **check)
        self.two = Worker(self, self.board, False, **check)

    def judge(self, key: str, *outcomes: bool) -> None:
        for passed in outcomes:
            self.one.checks._note(self.one.check, self.one.peer(key), passed)

    def both(self) -> list[Worker]:
        self.one.reactor.advance(0)
        self.two.reactor.advance(POLL)
        return [self.one, self.two]

    def test_what_one_finds_holds_for_all(self) -> None:
        self.workers(fails=2)
        self.judge("10.0.0.1:80", False)
        self.assertEqual(self.both()[1].states(), ["up", "up", "down"])
        self.judge("10.0.0.1:80", False)
        for worker in self.both():
            self.assertEqual(worker.states(), ["unhealthy", "up", "down"])
            self.assertEqual(worker.chosen(2), "22")
        self.judge("10.0.0.1:80", True)
        for worker in self.both():
            self.assertEqual(worker.states(), ["up", "up", "down"])

    def test_only_the_leader_asks(self) -> None:
        self.workers()
        for worker in (self.one, self.two):
            worker.reactor.advance(1.0)
        self.assertEqual(len(self.one.reactor.tcpClients), 2)  # one is down
        self.assertEqual(self.two.reactor.tcpClients, [])

    def test_mandatory(self) -> None:
        self.workers(mandatory=True)
        for worker in self.both():
            self.assertEqual(worker.states(), ["checking", "checking", "down"])
            self.assertEqual(worker.chosen(1), "-")
        self.judge("10.0.0.2:80", True)
        for worker in self.both():
            self.assertEqual(worker.states(), ["checking", "up", "down"])

    def test_mandatory_for_those_that_come_later(self) -> None:
        self.workers(mandatory=True)
        self.one.servers.add("back", {"server": "10.0.0.9:81"})
        for worker in self.both():
            self.assertEqual(worker.states()[3], "checking")

    def test_a_new_leader_goes_on_from_the_board(self) -> None:
        self.workers(passes=2)
        self.judge("10.0.0.1:80", False, True)
        self.one.reactor.advance(0)
        heir = Worker(self, self.board, True, passes=2)
        self.assertEqual(heir.states()[0], "unhealthy")
        self.assertEqual(heir.checks.tally(heir.group, "10.0.0.1:80").checks, 1 + 1)
        heir.checks._note(heir.check, heir.peer("10.0.0.1:80"), True)
        self.assertEqual(heir.states()[0], "up")

    def test_the_report(self) -> None:
        self.workers()
        peer = self.one.peer("10.0.0.1:80")
        peer.take(0.0)
        peer.counters.answered(200, 0.25)
        peer.counters.finished(0.5)
        self.one.reactor.advance(5.0)
        self.judge("10.0.0.1:80", True, False)
        self.one.reactor.advance(1.0)
        report = self.one.servers.report("back")
        found = report["peers"][0]
        for name, value in {
            "id": 0, "server": "10.0.0.1:80", "state": "unhealthy", "active": 1, "weight": 2,
            "requests": 1, "header_time": 250, "response_time": 500,
            "health_checks": {"checks": 2, "fails": 1, "unhealthy": 1, "last_passed": False},
            "selected": "1970-01-01T00:16:40.000Z", "downstart": "1970-01-01T00:16:45.000Z",
        }.items():  # fmt: skip
            self.assertEqual(found[name], value, name)
        self.assertEqual(found["responses"]["2xx"], 1)
        self.assertEqual(report["keepalive"], 0)

    def test_counters_reach_the_others_now_and_then(self) -> None:
        self.workers()
        self.judge("10.0.0.1:80", True)
        self.both()
        self.assertEqual(self.two.checks.tally(self.two.group, "10.0.0.1:80").checks, 0)
        self.one.reactor.advance(PUBLISH)
        self.two.reactor.advance(POLL)
        self.assertEqual(self.two.checks.tally(self.two.group, "10.0.0.1:80").checks, 1)

    def test_an_address_that_comes_and_goes(self) -> None:
        self.workers()
        self.one.servers.add("back", {"server": "10.0.0.9:81"})
        self.judge("10.0.0.9:81", False)
        self.assertEqual(self.both()[1].states()[3], "unhealthy")
        self.one.servers.remove("back", 3)
        self.judge("10.0.0.1:80", False)
        self.assertEqual(self.both()[1].states(), ["unhealthy", "up", "down"])
        self.assertEqual(self.one.peer("10.0.0.1:80").health, Health.UNHEALTHY)
