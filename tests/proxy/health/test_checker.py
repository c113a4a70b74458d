"""The checker on a fake reactor: when it asks, what it makes of answers, what it logs."""

from __future__ import annotations

import errno
from typing import Any

from attrs import define
from twisted.internet.error import (
    ConnectError,
    ConnectionDone,
    ConnectionLost,
    ConnectionRefusedError,
)
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.http.headers import Headers
from imagefarm.http.message import Request
from imagefarm.http.upstream import ExchangeRules, Outgoing, Timeouts
from imagefarm.proxy.connection import HttpConnector
from imagefarm.proxy.health.checker import Checker
from imagefarm.proxy.health.match import DEFAULT, MAX_BODY, Match
from imagefarm.proxy.health.records import Check, CheckSettings, Record
from imagefarm.proxy.peer import Address, Health, Peer
from tests.proxy.support import Transport, make_request

from .test_match import match

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
BAD = b"HTTP/1.1 500 Oops\r\nContent-Length: 1\r\n\r\nx"


@define
class FakeGroup:
    name: bytes
    peers: list[Peer]


class Asking:
    """A `Probeable` for HTTP."""

    def __init__(self, reactor: Any) -> None:
        self.rules = ExchangeRules(HttpConnector(reactor), Timeouts(2.0, 2.0, 3.0))

    def probe(self, request: Request) -> tuple[Outgoing, ExchangeRules]:
        return Outgoing(b"GET", request.uri, Headers([(b"Host", b"x")])), self.rules


class CheckerTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()
        self.lines: list[str] = []
        self.outcomes: list[tuple[bytes, bool]] = []
        self.records: dict[Peer, Record] = {}
        self.chance = 0.5
        globalLogPublisher.addObserver(self.observe)
        self.addCleanup(globalLogPublisher.removeObserver, self.observe)

    def observe(self, event: dict[str, Any]) -> None:
        if event.get("log_namespace", "").startswith("imagefarm.proxy.health"):
            self.lines.append(event["log_format"].format(**event))

    def checker(self, count: int = 1, tests: Match = DEFAULT, **settings: Any) -> Checker:
        peers = [Peer(Address("10.0.0.1", 81 + i)) for i in range(count)]
        self.check = Check(CheckSettings(**settings), tests)
        self.group = FakeGroup(b"backend", peers)
        checker = Checker(
            self.reactor, self.group, self.check, lambda: make_request(target=b"/up"),
            Asking(self.reactor), self.note, lambda: self.chance,
        )  # fmt: skip
        checker.start()
        self.addCleanup(checker.stop)
        return checker

    def note(self, check: Check, peer: Peer, passed: bool) -> Health | None:
        self.outcomes.append((peer.name, passed))
        record = self.records.setdefault(peer, Record(check.settings.initial))
        return record.note(passed, check.settings)

    @property
    def asked(self) -> list[tuple[str, int]]:
        return [(host, port) for host, port, *_ in self.reactor.tcpClients]

    def connect(self) -> Transport:
        """Accept the last connection."""
        factory = self.reactor.tcpClients[-1][2]
        transport = Transport()
        protocol = factory.buildProtocol(None)
        transport.protocol = protocol
        protocol.makeConnection(transport)
        return transport

    def answer(self, *pieces: bytes) -> Transport:
        transport = self.connect()
        for piece in pieces:
            transport.protocol.dataReceived(piece)
        return transport

    def refuse(self, error: Exception) -> None:
        self.reactor.tcpClients[-1][2].clientConnectionFailed(None, Failure(error))

    # -- when

    def test_the_interval_is_from_end_to_beginning(self) -> None:
        self.checker(interval=5.0)
        self.assertEqual(self.asked, [])
        self.reactor.advance(0.5)  # half of SPREAD
        self.assertEqual(len(self.asked), 1)
        self.reactor.advance(1.0)
        transport = self.answer(OK)
        self.assertEqual(transport.value(), b"GET /up HTTP/1.1\r\nHost: x\r\n\r\n")
        self.assertTrue(transport.disconnecting or transport.aborted)
        self.reactor.advance(4.9)
        self.assertEqual(len(self.asked), 1)
        self.reactor.advance(0.2)
        self.assertEqual(len(self.asked), 2)
        self.assertEqual(self.outcomes, [(b"10.0.0.1:81", True)])

    def test_jitter(self) -> None:
        self.checker(interval=5.0, jitter=2.0)
        self.reactor.advance(0.5)
        self.answer(OK)
        self.reactor.advance(5.9)
        self.assertEqual(len(self.asked), 1)
        self.reactor.advance(0.2)
        self.assertEqual(len(self.asked), 2)

    def test_a_short_interval_starts_at_once(self) -> None:
        self.checker(interval=0.1)
        self.reactor.advance(0.05)
        self.assertEqual(len(self.asked), 1)

    def test_every_peer_on_its_own(self) -> None:
        """One that hangs keeps nobody else waiting, and is asked once at a time."""
        self.checker(2, interval=1.0)
        self.reactor.advance(0.5)
        self.assertEqual(self.asked, [("10.0.0.1", 81), ("10.0.0.1", 82)])
        self.answer(OK)
        self.reactor.advance(1.0)
        self.assertEqual(self.asked[2:], [("10.0.0.1", 82)])

    def test_another_port(self) -> None:
        self.checker(port=9000)
        self.reactor.advance(0.5)
        self.assertEqual(self.asked, [("10.0.0.1", 9000)])

    def test_peers_come_and_go(self) -> None:
        checker = self.checker(2, interval=5.0)
        self.reactor.advance(0.5)
        gone, stays = self.group.peers
        self.group.peers = [stays, Peer(Address("10.0.0.9", 99))]
        self.reactor.advance(4.5)
        self.reactor.advance(0.5)
        self.assertEqual(self.asked[2:], [("10.0.0.9", 99)])
        self.assertNotIn(gone.name, [name for name, _ in self.outcomes])
        self.assertEqual(repr(checker), "<Checker / of backend, 2 peers>")

    def test_a_peer_that_is_down_is_left_alone(self) -> None:
        self.checker(interval=1.0)
        self.group.peers[0].down = True
        self.reactor.advance(0.5)
        self.assertEqual(self.asked, [])
        self.group.peers[0].down = False
        self.reactor.advance(1.0)
        self.assertEqual(len(self.asked), 1)

    def test_stop(self) -> None:
        checker = self.checker(2, interval=1.0, keepalive_time=60.0)
        self.reactor.advance(0.5)
        kept = self.answer(OK)
        checker.stop()
        self.assertTrue(kept.disconnecting or kept.aborted)
        kept.protocol.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.assertEqual(self.outcomes, [(b"10.0.0.1:82", True)])

    # -- what

    def lines_after(self, *pieces: bytes, lose: Exception | None = None, **more: Any) -> list[str]:
        self.checker(**more)
        self.reactor.advance(0.5)
        transport = self.answer(*pieces)
        if lose is not None:
            transport.protocol.connectionLost(Failure(lose))
        return self.lines

    def test_bad_status(self) -> None:
        self.assertEqual(
            self.lines_after(BAD),
            ['peer is unhealthy while checking status code, health check "/" of peer '
             '10.0.0.1:81 in upstream "backend"'],
        )  # fmt: skip

    def test_back_again(self) -> None:
        tests = match('status 200; body ~ "ok";')
        self.checker(tests=tests, interval=1.0, match="m", fails=2, passes=2)
        for piece in (BAD, BAD, BAD, OK, BAD, OK, OK, OK):
            self.reactor.advance(1.0)
            self.answer(piece)
        self.assertEqual(
            [line.partition(",")[0] for line in self.lines],
            ["peer is unhealthy while checking status code",
             "peer is healthy while checking body"],
        )  # fmt: skip
        self.assertIn('health check "m" of peer', self.lines[0])

    def test_wrong_header(self) -> None:
        lines = self.lines_after(OK, tests=match("header Content-Type ~ image;"))
        self.assertIn("unhealthy while checking header,", lines[0])

    def test_the_body_in_pieces(self) -> None:
        tests = match('body ~ "ab.*yz";')
        head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        chunks = (b"1\r\na\r\n", b"2\r\nb-\r\n", b"2\r\nyz\r\n", b"0\r\n\r\n")
        self.assertEqual(self.lines_after(head, *chunks, tests=tests), [])
        self.assertEqual(self.outcomes, [(b"10.0.0.1:81", True)])

    def test_no_more_of_a_body_than_needed(self) -> None:
        head = b"HTTP/1.1 200 OK\r\nContent-Length: 999999999\r\n\r\n"
        tests = match('body ~ "needle";')
        self.checker(tests=tests)
        self.reactor.advance(0.5)
        transport = self.answer(head, b"x" * (MAX_BODY - 6) + b"needl", b"e" + b"needle")
        self.assertEqual(self.outcomes, [(b"10.0.0.1:81", True)])
        self.assertTrue(transport.aborted)

    def test_a_needle_behind_the_limit(self) -> None:
        head = b"HTTP/1.1 200 OK\r\nContent-Length: 999999999\r\n\r\n"
        lines = self.lines_after(
            head, b"x" * MAX_BODY + b"needle", tests=match('body ~ "needle";')
        )
        self.assertIn("unhealthy while checking body,", lines[0])

    def test_a_body_that_breaks_off(self) -> None:
        lines = self.lines_after(
            b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", lose=ConnectionDone()
        )
        self.assertEqual(
            lines,
            ['peer is unhealthy while reading upstream, health check "/" of peer 10.0.0.1:81 '
             'in upstream "backend": upstream prematurely closed connection'],
        )  # fmt: skip

    def test_garbage(self) -> None:
        (line,) = self.lines_after(b"SSH-2.0-OpenSSH\r\n")
        self.assertIn("unhealthy while reading response header from upstream", line)

    def test_refused(self) -> None:
        self.checker()
        self.reactor.advance(0.5)
        self.refuse(ConnectionRefusedError(111))
        self.assertEqual(
            self.lines,
            ['peer is unhealthy while connecting to upstream, health check "/" of peer '
             '10.0.0.1:81 in upstream "backend": connect() failed (111: Connection refused)'],
        )  # fmt: skip

    def test_our_own_trouble_is_not_the_peers(self) -> None:
        """Without a descriptor to spare nobody can be asked, and nobody is blamed."""
        self.checker(interval=1.0)
        self.reactor.advance(0.5)
        self.refuse(ConnectError(errno.EMFILE, "Too many open files"))
        self.assertEqual(self.outcomes, [])
        self.assertIn('health check "/" of peer 10.0.0.1:81 could not be made', self.lines[0])
        self.reactor.advance(1.0)
        self.answer(OK)
        self.assertEqual(self.outcomes, [(b"10.0.0.1:81", True)])

    def test_silence(self) -> None:
        """``proxy_read_timeout`` counts here too."""
        self.checker()
        self.reactor.advance(0.5)
        self.connect()
        self.reactor.advance(2.9)
        self.assertEqual(self.outcomes, [])
        self.reactor.advance(0.2)
        self.assertEqual(self.outcomes, [(b"10.0.0.1:81", False)])
        self.assertIn("upstream timed out (110: Connection timed out)", self.lines[0])

    def test_dripping(self) -> None:
        """Each byte comes in time, the whole does not."""
        self.checker()
        self.reactor.advance(0.5)
        transport = self.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n")
        for _ in range(10):
            self.reactor.advance(0.6)
            if not transport.aborted:
                transport.protocol.dataReceived(b"x")
        self.assertEqual(self.outcomes, [(b"10.0.0.1:81", False)])
        self.assertTrue(transport.aborted)
        self.assertIn("unhealthy while reading upstream,", self.lines[0])

    def test_an_error_of_ours_stops_nothing(self) -> None:
        checker = self.checker(interval=1.0)

        def broken(request: Request) -> tuple[Outgoing, ExchangeRules]:
            raise ValueError("no")

        self.patch(checker._probeable, "probe", broken)
        self.reactor.advance(0.5)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        self.patch(checker._probeable, "probe", Asking(self.reactor).probe)
        self.reactor.advance(1.0)
        self.assertEqual(len(self.asked), 1)

    # -- keepalive_time

    def test_a_connection_is_kept_for_its_time(self) -> None:
        self.checker(interval=1.0, keepalive_time=2.5)
        self.reactor.advance(0.5)
        transport = self.answer(OK)
        for _ in range(2):
            self.reactor.advance(1.0)
            self.assertEqual(len(self.asked), 1)
            transport.protocol.dataReceived(OK)
        self.reactor.advance(1.0)
        self.assertTrue(transport.disconnecting or transport.aborted)
        self.assertEqual(len(self.asked), 2)
        self.assertEqual(self.outcomes, [(b"10.0.0.1:81", True)] * 3)

    def test_a_kept_connection_that_was_closed(self) -> None:
        """Nothing is concluded from that: the check is made on a new one."""
        self.checker(interval=1.0, keepalive_time=60.0)
        self.reactor.advance(0.5)
        transport = self.answer(OK)
        self.reactor.advance(1.0)
        transport.protocol.connectionLost(Failure(ConnectionLost()))
        self.assertEqual(len(self.asked), 2)
        self.answer(OK)
        self.assertEqual(self.outcomes, [(b"10.0.0.1:81", True)] * 2)
