"""Workers tell each other of the servers that failures have put out: ``zone``."""

from __future__ import annotations

import os
from typing import Any

from twisted.internet.error import ConnectionRefusedError
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.app.failures import Failures
from imagefarm.app.servers import keyed
from imagefarm.app.shared import POLL, Shared
from imagefarm.http.upstream import ExchangeRules, NoLivePeers, Outgoing
from imagefarm.process.board import Board
from imagefarm.proxy.connection import HttpConnector
from imagefarm.proxy.group import Group
from tests.proxy.support import make_request
from tests.proxy.test_directives import groups

ZONE = "zone back 64k;"
SERVERS = "server 10.0.0.1:80 fail_timeout=5s; server 10.0.0.2:80; server 10.0.0.3:80 max_fails=2;"
START = 1000.0


class Worker:
    """One process's part."""

    def __init__(self, case: SynchronousTestCase, board: Board, zone: str) -> None:
        self.reactor = MemoryReactorClock()
        self.reactor.advance(START)
        self.group: Group = groups(f"upstream back {{ {zone} {SERVERS} }}").find("back")
        self.group.reactor = self.reactor
        own = Board(os.dup(board.fileno()))
        own.lead = lambda: False  # type: ignore[method-assign]
        self.shared = Shared(self.reactor)
        self.failures = Failures(self.reactor, self.shared, {"back": self.group})
        self.failures.start()
        self.shared.start(own)
        case.addCleanup(self.shared.stop)
        case.addCleanup(self.failures.stop)

    def states(self) -> list[str]:
        return [peer.state(self.reactor.seconds()) for peer in self.group.peers]

    def ask(self) -> Any:
        """A request that nobody answers: each server refuses."""
        outgoing = Outgoing(b"GET")
        answer = self.group.exchange(
            make_request(), outgoing, ExchangeRules(HttpConnector(self.reactor))
        )
        clients: list[Any] = self.reactor.tcpClients
        done = 0
        while done < len(clients):
            clients[done][2].clientConnectionFailed(None, Failure(ConnectionRefusedError()))
            done += 1
        clients.clear()
        return answer


class FailuresTests(SynchronousTestCase):
    zone = ZONE

    def setUp(self) -> None:
        self.board = Board.make()
        self.addCleanup(self.board.close)
        self.one, self.two = (Worker(self, self.board, self.zone) for _ in range(2))

    def pass_time(self, seconds: float) -> None:
        for worker in (self.one, self.two):
            worker.reactor.advance(seconds)

    def breaks(self, worker: Worker) -> None:
        self.failureResultOf(worker.ask())

    def test_told(self) -> None:
        self.breaks(self.one)
        self.assertEqual(self.two.states(), ["up"] * 3)
        self.pass_time(POLL)
        for worker in (self.one, self.two):
            self.assertEqual(worker.states(), ["unavail", "unavail", "up"])
        self.assertEqual(self.two.group.peers.primary[2].fails, 0)
        self.assertEqual(self.two.group.peers.primary[0].counters.fails, 0)

    def test_as_long(self) -> None:
        """The time counts from the failure, not from when it was told."""
        self.breaks(self.one)
        self.pass_time(POLL)
        self.pass_time(5 - POLL)
        self.assertEqual(self.two.states(), ["unavail", "unavail", "up"])
        self.pass_time(0.01)
        self.assertEqual(self.two.states(), ["up", "unavail", "up"])

    def test_who_starts_later(self) -> None:
        self.breaks(self.one)
        self.pass_time(POLL)
        late = Worker(self, self.board, self.zone)
        self.assertEqual(late.states(), ["unavail", "unavail", "up"])

    def test_all(self) -> None:
        """What is out everywhere is not even asked."""
        for _ in range(2):
            self.breaks(self.one)
        self.pass_time(POLL)
        self.failureResultOf(self.two.ask(), NoLivePeers)
        self.assertEqual(self.two.group.peers.primary[0].counters.requests, 0)

    def test_forgotten(self) -> None:
        """Whom an operator has set up is not put out again by what was before."""
        self.breaks(self.one)
        self.pass_time(POLL)
        for worker in (self.one, self.two):
            worker.group.peers.primary[0].set_up(worker.reactor.seconds())
        with self.two.shared.edit() as document:
            document["other"] = 1
        self.pass_time(POLL)
        for worker in (self.one, self.two):
            self.assertEqual(worker.states(), ["up", "unavail", "up"])

    def test_board_is_cleared(self) -> None:
        self.breaks(self.one)
        self.pass_time(POLL)
        section = self.one.shared.read()["failed"]["back"]
        self.assertEqual(set(section), {"10.0.0.1:80", "10.0.0.2:80"})
        self.pass_time(7)
        self.breaks(self.two)
        self.pass_time(POLL)
        section = self.one.shared.read()["failed"]["back"]
        now = START + POLL + 7
        self.assertEqual(section["10.0.0.1:80"], now)
        self.assertEqual(section["10.0.0.2:80"], START)

    def test_gone(self) -> None:
        """Nobody needs to know of a server that was taken out."""
        first = self.one.group.peers.primary[0]
        self.one.group.replace([peer for _, peer in keyed(self.one.group.peers)][1:])
        for function in self.one.group.on_out:
            function(first)
        self.pass_time(POLL)
        self.assertNotIn("failed", self.one.shared.read())


class WithoutZoneTests(SynchronousTestCase):
    def test_nothing_is_told(self) -> None:
        board = Board.make()
        self.addCleanup(board.close)
        one, two = (Worker(self, board, "") for _ in range(2))
        self.failureResultOf(one.ask())
        for worker in (one, two):
            worker.reactor.advance(POLL)
        self.assertEqual(two.states(), ["up"] * 3)
        self.assertEqual(board.read()[1], {})
