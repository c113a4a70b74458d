"""``max_conns`` of groups with ``zone`` is for all workers together."""

from __future__ import annotations

import os

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.app.crowds import Crowds
from imagefarm.app.shared import POLL, Shared
from imagefarm.process.board import Board
from imagefarm.process.tally import Tally
from imagefarm.proxy.exchange import choose
from imagefarm.proxy.group import Group
from imagefarm.proxy.peer import Address, Peer
from tests.proxy.test_directives import groups

FIRST = "server 10.0.0.1:80 max_conns=2 max_fails=4 fail_timeout=5s;"
SERVERS = f"{FIRST} server 10.0.0.2:80 max_conns=1; server 10.0.0.3:80 backup;"


class Row(Tally):
    """One of several in a process, whose locks are its own."""

    number = 0

    def _lock(self, row: int) -> bool:
        return row == self.number


class Worker:
    """One process's part."""

    def __init__(
        self, case: SynchronousTestCase, board: Board, number: int, zone: str = "zone back 64k;"
    ) -> None:
        self.clock = Clock()
        self.group: Group = groups(f"upstream back {{ {zone} {SERVERS} }}").find("back")
        self.group.reactor = self.clock
        own = Board(os.dup(board.fileno()))
        own.lead = lambda: False  # type: ignore[method-assign]
        tally = Row(own.fileno(), 1 << 26, 1 << 20)
        tally.number = number
        own.tally = lambda: tally  # type: ignore[method-assign]
        self.shared = Shared(self.clock)
        self.crowds = Crowds(self.clock, self.shared, {"back": self.group})
        self.crowds.start()
        self.shared.start(own)
        case.addCleanup(self.shared.stop)
        case.addCleanup(self.crowds.stop)

    def choose(self) -> str:
        """The last digit of the server that the next request goes to; "-" if there is none."""
        peer = choose(self.group, b"", self.clock.seconds(), ())
        if peer is None:
            return "-"
        peer.take(self.clock.seconds())
        return peer.name.decode()[-4]

    def release(self, digit: str) -> None:
        next(p for p in self.group.peers if p.name.decode()[-4] == digit).release()


class CrowdsTests(SynchronousTestCase):
    def workers(self, zone: str = "zone back 64k;") -> tuple[Worker, Worker]:
        board = Board.make()
        self.addCleanup(board.close)
        made = Worker(self, board, 0, zone), Worker(self, board, 1, zone)
        for _ in range(3):
            for worker in made:
                worker.clock.advance(POLL)
        return made

    def test_all_count(self) -> None:
        one, two = self.workers()
        self.assertEqual(sorted([one.choose(), two.choose(), one.choose()]), ["1", "1", "2"])
        self.assertEqual((one.choose(), two.choose()), ("3", "3"))
        for worker in (one, two):
            for peer in worker.group.peers.primary:
                if peer.conns:
                    peer.release()
                    break
        self.assertLess(int(two.choose()), 3)
        self.assertLess(int(one.choose()), 3)
        self.assertEqual((one.choose(), two.choose()), ("3", "3"))

    def test_without_a_zone(self) -> None:
        """Each by itself."""
        one, two = self.workers("")
        for worker in (one, two):
            found = [worker.choose() for _ in range(4)]
            self.assertEqual(sorted(found), ["1", "1", "2", "3"])

    def test_who_has_left_counts_no_more(self) -> None:
        one, two = self.workers()
        for _ in range(3):
            one.choose()
        self.assertEqual(two.choose(), "3")
        one.crowds.stop()
        one.shared.stop()
        self.assertEqual(sorted(two.choose() for _ in range(3)), ["1", "1", "2"])
        one.release("1")
        self.assertEqual(two.choose(), "3")

    def fails(self, worker: Worker) -> bool:
        """The first server fails; whether that puts it out."""
        peer = next(iter(worker.group.peers))
        return peer.failed(worker.clock.seconds())

    def test_failures_add_up(self) -> None:
        """Those of a window of ``fail_timeout``; what one worker forgets it counts anew."""
        one, two = self.workers()
        self.assertEqual([self.fails(w) for w in (one, two, one, two)], [False] * 3 + [True])
        for worker in (one, two):
            worker.clock.advance(6)
        self.assertEqual([self.fails(w) for w in (one,)], [True])  # as a probe

    def test_old_failures_do_not_count(self) -> None:
        one, two = self.workers()
        self.assertEqual([self.fails(two), self.fails(two), self.fails(two)], [False] * 3)
        for worker in (one, two):
            worker.clock.advance(7)
        self.assertEqual([self.fails(one) for _ in range(4)], [False] * 3 + [True])

    def test_forgotten_failures_do_not_count(self) -> None:
        one, two = self.workers()
        peer = next(iter(one.group.peers))
        self.assertEqual([self.fails(one), self.fails(one)], [False] * 2)
        peer.fails = 0  # as after a success
        self.assertEqual([self.fails(one), self.fails(two)], [False] * 2)
        self.assertEqual([self.fails(two), self.fails(two)], [False, True])

    def test_servers_that_come_later(self) -> None:
        """They are counted, and so is a limit that is set at run time."""
        one, two = self.workers()
        for worker in (one, two):
            peers = list(worker.group.peers)
            worker.group.replace([*peers[:2], Peer(Address("10.0.0.4", 80), max_conns=1)])
            peers[0].set_down()
            peers[1].set_down()
        for _ in range(3):
            for worker in (one, two):
                worker.clock.advance(POLL)
        self.assertEqual((one.choose(), two.choose()), ("4", "-"))
        one.release("4")
        self.assertEqual(two.choose(), "4")
