"""Questions to nameservers: on a scripted network for times, over loopback for the rest."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import CannotListenError, ConnectionDone, ConnectionRefusedError
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase

from imagefarm.proxy.names.query import Nameservers
from imagefarm.proxy.names.reply import Kind, Question, Reply, Unresolved
from imagefarm.proxy.peer import Address
from tests.support.dns import Nameserver, pack_reply

ASKED = Question("a.example", Kind.A)
ONE, TWO, SIX = Address("192.0.2.1", 53), Address("192.0.2.2", 5353), Address("2001:db8::1", 53)


class Datagram:
    """A UDP socket that has been opened."""

    def __init__(self, protocol: Any, interface: str) -> None:
        self.protocol = protocol
        self.interface = interface
        self.peer: tuple[str, int] | None = None
        self.sent: list[bytes] = []
        self.open = True
        self.error: OSError | None = None
        protocol.transport = self

    def connect(self, host: str, port: int) -> None:
        self.peer = host, port

    def write(self, packet: bytes) -> None:
        self.sent.append(packet)

    def stopListening(self) -> None:
        self.open = False

    def answer(self, **what: Any) -> None:
        self.receive(pack_reply(self.sent[0], [("a.example", 1, 60, "192.0.2.9")], **what))

    def refuse(self) -> None:
        self.protocol.connectionRefused()

    def receive(self, packet: bytes) -> None:
        self.protocol.datagramReceived(packet, self.peer)


class Net(MemoryReactorClock):
    def __init__(self) -> None:
        super().__init__()
        self.sockets: list[Datagram] = []
        self.unable = False

    def listenUDP(self, port: int, protocol: Any, interface: str, size: int) -> Datagram:
        assert port == 0
        if self.unable:
            raise CannotListenError(interface, port, OSError(24, "Too many open files"))
        self.sockets.append(Datagram(protocol, interface))
        return self.sockets[-1]

    @property
    def peers(self) -> list[tuple[str, int] | None]:
        return [sock.peer for sock in self.sockets]


class ScriptedTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.net = Net()

    def ask(self, *servers: Address, timeout: float = 30.0) -> Deferred[Reply]:
        self.servers = Nameservers(self.net, servers or (ONE,), timeout)
        return self.servers(ASKED)

    def assert_over(self) -> None:
        """Nothing is left open."""
        self.assertFalse(any(sock.open for sock in self.net.sockets))
        self.assertEqual(self.net.getDelayedCalls(), [])

    def assert_fails(self, asking: Deferred[Reply], code: int) -> None:
        error = self.failureResultOf(asking, Unresolved).value
        self.assertEqual((error.name, error.code), ("a.example", code))  # type: ignore[attr-defined]
        self.assert_over()

    def test_an_answer(self) -> None:
        asking = self.ask()
        self.assertEqual(self.net.peers, [("192.0.2.1", 53)])
        self.net.sockets[0].answer()
        self.assertEqual(self.successResultOf(asking).records[0].value, "192.0.2.9")
        self.assert_over()

    def test_an_ipv6_server(self) -> None:
        self.ask(SIX)
        self.assertEqual(self.net.sockets[0].interface, "::")
        self.assertEqual(self.net.peers, [("2001:db8::1", 53)])

    def test_servers_take_turns(self) -> None:
        self.ask(ONE, TWO)
        self.servers(ASKED)
        self.servers(ASKED)
        hosts = [peer[0] for peer in self.net.peers if peer]
        self.assertEqual(hosts, ["192.0.2.2", "192.0.2.1", "192.0.2.2"])

    def test_what_does_not_match_is_as_if_it_had_not_come(self) -> None:
        asking = self.ask()
        sock = self.net.sockets[0]
        sock.receive(b"")
        sock.receive(bytes(12))
        good = pack_reply(sock.sent[0], [("a.example", 1, 60, "6.6.6.6")])
        sock.receive(bytes([good[0] ^ 1]) + good[1:])
        sock.receive(good[:-3])
        self.assertNoResult(asking)
        sock.answer()
        self.assertEqual(self.successResultOf(asking).records[0].value, "192.0.2.9")
        sock.receive(good)  # too late

    def test_silence(self) -> None:
        """The next one after a second, then round and round, each time twice as long."""
        asking = self.ask(ONE, TWO, timeout=8.0)
        first = self.net.sockets[0]
        for wait, count in ((1, 2), (1, 3), (2, 4), (2, 5)):
            self.net.advance(wait - 0.01)
            self.assertEqual(len(self.net.sockets), count - 1)
            self.net.advance(0.01)
            self.assertEqual(len(self.net.sockets), count)
        two, one = ("192.0.2.2", 5353), ("192.0.2.1", 53)
        self.assertEqual(self.net.peers, [two, one, two, one, two])
        self.assertEqual([sock.open for sock in self.net.sockets], [False] * 4 + [True])
        self.assertGreater(len({sock.sent[0][:2] for sock in self.net.sockets}), 1)
        first.answer()  # nobody listens there any more
        self.assertNoResult(asking)
        self.net.advance(2)
        self.assert_fails(asking, 110)

    def test_failures_and_the_next_server(self) -> None:
        asking = self.ask(ONE, TWO)
        self.net.sockets[0].answer(code=2)
        self.net.sockets[1].answer()
        self.successResultOf(asking)
        self.assert_over()

    def test_all_fail(self) -> None:
        asking = self.ask(ONE, TWO)
        self.net.sockets[0].refuse()
        self.net.sockets[1].answer(code=5)
        self.assert_fails(asking, 5)

    def test_a_failed_server_is_not_asked_again_a_silent_one_is(self) -> None:
        asking = self.ask(ONE, TWO)
        self.net.advance(1)  # TWO is silent
        self.net.sockets[1].refuse()
        self.assertEqual(self.net.peers[2], ("192.0.2.2", 5353))
        self.net.sockets[2].answer()
        self.successResultOf(asking)

    def test_that_a_name_does_not_exist_is_an_answer(self) -> None:
        asking = self.ask(ONE, TWO)
        self.net.sockets[0].answer(code=3)
        self.assertEqual(self.successResultOf(asking).code, 3)

    def test_no_socket_to_be_had(self) -> None:
        self.net.unable = True
        self.assert_fails(self.ask(ONE, TWO), 111)

    def test_cancelled(self) -> None:
        asking = self.ask()
        asking.cancel()
        self.failureResultOf(asking, CancelledError)
        self.assert_over()

    # Truncated: the same over TCP

    def truncated(self, *servers: Address) -> Deferred[Reply]:
        asking = self.ask(*servers)
        self.net.sockets[0].answer(truncated=True)
        return asking

    def connected(self) -> tuple[Any, StringTransport]:
        host, port, factory, *_ = self.net.tcpClients[-1]
        self.assertEqual((host, port), self.net.sockets[-1].peer)
        protocol = factory.buildProtocol(None)
        transport = StringTransport()
        protocol.makeConnection(transport)
        return protocol, transport

    def test_truncated(self) -> None:
        asking = self.truncated()
        self.assertFalse(self.net.sockets[0].open)
        protocol, transport = self.connected()
        query = transport.value()
        self.assertEqual(query[2:], self.net.sockets[0].sent[0])
        self.assertEqual(int.from_bytes(query[:2], "big"), len(query) - 2)
        packet = pack_reply(query[2:], [("a.example", 1, 60, "192.0.2.9")] * 100)
        for byte in len(packet).to_bytes(2, "big") + packet:
            protocol.dataReceived(bytes([byte]))
        self.assertEqual(len(self.successResultOf(asking).records), 100)
        self.assert_over()

    def test_truncated_and_no_tcp(self) -> None:
        asking = self.truncated()
        factory = self.net.tcpClients[0][2]
        factory.clientConnectionFailed(None, Failure(ConnectionRefusedError()))
        self.assert_fails(asking, 111)

    def test_truncated_and_hung_up(self) -> None:
        asking = self.truncated(ONE, TWO)
        self.connected()[0].connectionLost(Failure(ConnectionDone()))
        self.net.sockets[1].answer()
        self.successResultOf(asking)
        self.assert_over()

    def test_truncated_over_tcp_too(self) -> None:
        asking = self.truncated()
        protocol, transport = self.connected()
        packet = pack_reply(transport.value()[2:], [], truncated=True)
        protocol.dataReceived(len(packet).to_bytes(2, "big") + packet)
        self.assert_fails(asking, 2)

    def test_time_passes_while_tcp_is_silent(self) -> None:
        asking = self.truncated(ONE, TWO)
        self.net.advance(1)
        self.assertEqual(len(self.net.sockets), 2)
        self.net.sockets[1].answer()
        self.successResultOf(asking)


class LoopbackTests(TestCase):
    """The same with sockets."""

    timeout = 20

    def setUp(self) -> None:
        self.server = Nameserver()
        self.server.start()
        self.addCleanup(self.server.stop)
        self.server.set("a.example", "192.0.2.1")

    def ask(self, *ports: int, question: Question = ASKED) -> Deferred[Reply]:
        servers = [Address("127.0.0.1", port) for port in ports or (self.server.port,)]
        return Nameservers(reactor, servers, 10.0)(question)

    async def test_udp(self) -> None:
        reply = await self.ask()
        self.assertEqual(reply.records[0].value, "192.0.2.1")

    async def test_tcp(self) -> None:
        self.server.truncate = True
        self.server.set("a.example", *(f"192.0.2.{n}" for n in range(200)))
        reply = await self.ask()
        self.assertEqual((len(reply.records), self.server.tcp_queries), (200, 1))

    async def test_ports_and_identifications_differ(self) -> None:
        for _ in range(12):
            await self.ask()
        ports, idents = zip(*self.server.sources, strict=True)
        self.assertGreater(len(set(ports)), 6)
        self.assertGreater(len(set(idents)), 6)
        steps = {b - a for a, b in pairwise(ports)}
        self.assertGreater(len(steps), 3)

    async def test_nobody_there(self) -> None:
        """The kernel tells at once."""
        other = Nameserver()
        other.start()
        other.stop()
        reply = await self.ask(self.server.port, other.port)
        self.assertEqual(reply.code, 0)
        reply = await self.ask(other.port, self.server.port)
        self.assertEqual(reply.code, 0)
        with self.assertRaises(Unresolved) as caught:
            await self.ask(other.port)
        self.assertEqual(caught.exception.code, 111)
