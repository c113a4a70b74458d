"""Parked connections: nobody can tell that they were, on real sockets and by a clock of ours."""

from __future__ import annotations

import socket
import struct
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.http.message import ForwardedPeer, TransferSettings
from imagefarm.http.parking import EVENTS, LONG_REST, REST
from imagefarm.http.transport import DirectServer

from .fakes import ScriptedStream, text
from .parking import GET, KEEP, TICK, Bench


class Parking(SynchronousTestCase):
    def bench(self, awake: int = 0, host: str = "127.0.0.1", *, proxied: bool = False) -> Bench:
        made = Bench(awake, host, proxied=proxied)
        self.addCleanup(made.close)
        return made

    def test_parked(self) -> None:
        """What is idle is taken apart, and counted as before."""
        bench = self.bench()
        one, _ = bench.parked(b"/1", b"/2")
        self.assertEqual(bench.factory.connections, set())
        self.assertEqual((bench.factory.states(), bench.factory.count), ((0, 0, 2), 2))
        for reader in bench.reactor.getReaders():
            self.assertNotIsInstance(reader, DirectServer)
        answer = bench.ask(one, GET % b"/again")
        self.assertTrue(answer.startswith(b"HTTP/1.1 200 OK\r\n"))
        self.assertTrue(answer.endswith(b"\r\n\r\nGET /again"))
        self.assertEqual((len(bench.lot), bench.factory.count), (1, 2))

    def test_same_connection(self) -> None:
        """It wakes up as what it was: address, port, numbers."""
        for host in ("127.0.0.1", "::1"):
            bench = self.bench(host=host)
            two = bench.parked(b"/1", b"/1")[1]
            bench.ask(two, GET % b"/2")
            before, after = bench.app.done[1:]
            self.assertEqual((before.number, after.number), (1, 2))
            self.assertEqual((after.peer.serial, after.peer.server), (2, ("", 80)))
            self.assertEqual((after.peer.address, after.peer.port), two.getsockname()[:2])
            (connection,) = bench.factory.connections
            name = two.getsockname()
            self.assertEqual(connection.transport.client, name)
            self.assertEqual(connection.transport.getPeer().host, host)
            self.assertEqual(connection.transport.socket.getpeername(), name)
            self.assertEqual(connection.transport.socket.family, bench._listening.family)

    def test_socket(self) -> None:
        """What the socket itself tells comes from the one that is there now."""
        bench = self.bench()
        bench.factory.asks_socket = True
        (client,) = bench.parked(b"/1")
        bench.ask(client, GET % b"/2")
        before, after = (request.peer.socket for request in bench.app.done)
        assert before is not None and after is not None
        self.assertEqual((before.address, after.address), ("127.0.0.1", "127.0.0.1"))
        self.assertIsNone(before.tcp_info())
        self.assertIsNotNone(after.tcp_info())

    def test_remembered_answers(self) -> None:
        """An answer by a plan wakes up no less."""
        bench = self.bench()
        head = text(b"plan")
        head.headers_at = lambda _second: head.headers
        bench.app.answers[b"/plan"] = lambda _request: head
        (client,) = bench.parked(b"/plan")
        for _ in range(3):
            self.assertTrue(bench.ask(client, GET % b"/plan").endswith(b"plan"))
            bench.pass_time(1.5)
            self.assertEqual(len(bench.lot), 1)
        self.assertEqual([request.number for request in bench.app.done], [1, 2, 3, 4])

    def test_keepalive_requests(self) -> None:
        bench = self.bench()
        (client,) = bench.parked(b"/")
        for number in range(2, 7):
            answer = bench.ask(client, GET % b"/")
            self.assertIn(b"close" if number == 6 else b"keep-alive", answer)
            bench.pass_time(1.5)
        self.assertTrue(bench.closed(client))
        self.assertEqual(bench.factory.count, 0)

    def test_keepalive_time(self) -> None:
        """It is as old as it was."""
        bench = self.bench()
        (client,) = bench.parked(b"/")
        for _ in range(2):
            bench.pass_time(6)
            self.assertIn(b"keep-alive", bench.ask(client, GET % b"/"))
        bench.app.transfer = TransferSettings(keepalive_time=10.0)
        self.assertIn(b"Connection: close", bench.ask(client, GET % b"/"))

    def test_times_out(self) -> None:
        """At the tick at which it would have."""
        for awake in (0, 100):
            bench = self.bench(awake)
            bench.pass_time(0.3)
            client = bench.connect()
            bench.ask(client, GET % b"/")
            end = bench.clock.seconds() + KEEP
            bench.pass_time(KEEP - 0.2)
            self.assertEqual(len(bench.lot), int(not awake))
            self.assertEqual(bench.factory.count, 1)
            while bench.factory.count:
                bench.pass_time(0.1)
            self.assertTrue(end <= bench.clock.seconds() <= end + TICK + 0.1)
            self.assertTrue(bench.closed(client))
            self.assertEqual(bench.clock.getDelayedCalls(), [])

    def test_silent_client(self) -> None:
        """One that has never asked has ``client_header_timeout``."""
        bench = self.bench()
        client = bench.connect()
        bench.pass_time(1.5)
        self.assertEqual(len(bench.lot), 1)
        bench.pass_time(2.2)
        self.assertTrue(bench.closed(client))
        self.assertEqual((bench.factory.count, bench.app.done), (0, []))

    def test_empty_lines(self) -> None:
        """An empty line before a request (RFC 9112 section 2.2) wins no time."""
        bench = self.bench()
        (client,) = bench.parked(b"/")
        for _ in range(3):
            client.sendall(b"\r\n")
            bench.until(lambda: not bench.lot)
            bench.pass_time(1.5)
            self.assertEqual(len(bench.lot), 1)
        bench.pass_time(KEEP - 0.2 - bench.clock.seconds())
        self.assertEqual(len(bench.lot), 1)
        bench.pass_time(0.2 + TICK)
        self.assertTrue(bench.closed(client))

    def test_client_leaves(self) -> None:
        bench = self.bench()
        gone, reset, _ = bench.parked(b"/1", b"/2", b"/3")
        gone.close()
        reset.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        reset.close()
        bench.until(lambda: len(bench.lot) == 1)
        self.assertEqual((bench.factory.count, len(bench.app.done)), (1, 3))

    def test_half_close(self) -> None:
        """A request and the client's end of file together: it is answered, then closed."""
        bench = self.bench()
        (client,) = bench.parked(b"/")
        client.sendall(GET % b"/last")
        client.shutdown(socket.SHUT_WR)
        bench.until(lambda: not bench.factory.count)
        self.assertTrue(client.recv(1 << 20).endswith(b"GET /last"))
        self.assertTrue(bench.closed(client))

    def test_in_pieces(self) -> None:
        """A head in two pieces: meanwhile it is not idle."""
        bench = self.bench()
        (client,) = bench.parked(b"/")
        client.sendall(b"GET /2 HTTP/1.1\r\n")
        bench.until(lambda: not bench.lot)
        bench.pass_time(2)
        self.assertEqual((len(bench.lot), bench.factory.states()), (0, (1, 0, 0)))
        self.assertTrue(bench.ask(client, b"Host: a\r\n\r\n").endswith(b"GET /2"))

    def test_busy_ones_stay(self) -> None:
        """An answer awaited or being sent, and one that waits for the client to read."""
        bench = self.bench()
        bench.app.transfer = TransferSettings(send_timeout=100.0)
        waiting: Deferred[Any] = Deferred()
        stream = ScriptedStream(5, (b"123",))
        bench.app.answers.update(
            {
                b"/wait": waiting,
                b"/stream": text(stream),  # type: ignore[arg-type]
                b"/big": text(b"x" * 20_000_000),
            }
        )
        clients = [bench.connect() for _ in range(3)]
        for client, target in zip(clients, bench.app.answers, strict=True):
            client.sendall(GET % target)
        bench.until(lambda: len(bench.app.requests) == 3)
        bench.pass_time(20)
        self.assertEqual((len(bench.lot), bench.factory.states()), (0, (0, 3, 0)))
        waiting.callback(text(b"done"))
        assert stream.sink is not None
        stream.sink.data(b"45")
        stream.sink.end()
        bench.pass_time(2)
        self.assertEqual((len(bench.lot), bench.factory.states()), (2, (0, 1, 2)))

    def test_unsent_bytes(self) -> None:
        """A short answer that the socket did not take keeps the connection awake until it has."""
        bench = self.bench()
        body = b"x" * 60_000
        bench.app.answers[b"/"] = lambda _request: text(body)
        bench.app.transfer = TransferSettings(keepalive_requests=10_000)
        client = bench.connect()
        (connection,) = bench.factory.connections
        asked = 0
        while not connection.transport._queued:
            asked += 1
            bench.send(client, GET % b"/")
        bench.pass_time(5)
        self.assertEqual((len(bench.lot), bench.factory.count), (0, 1))
        client.setblocking(False)
        received = 0

        def read() -> bool:
            nonlocal received
            try:
                received += len(client.recv(1 << 20))
            except BlockingIOError:
                pass
            return received >= asked * len(body) and not connection.transport._queued

        bench.until(read)
        bench.pass_time(1)
        self.assertEqual(len(bench.lot), 1)

    def test_only_beyond(self) -> None:
        """So many stay awake; of more, those that have rested give way, as others come."""
        bench = self.bench(awake=3)
        for number in range(1, 8):
            bench.ask(bench.connect(), GET % b"/")
            bench.clock.advance(REST)
            self.assertLessEqual(len(bench.factory.connections), 4)
            self.assertEqual(bench.factory.states(), (0, 0, number))
        bench.pass_time(1)
        self.assertEqual((len(bench.factory.connections), len(bench.lot)), (3, 4))

    def test_no_rest(self) -> None:
        """Between two requests is no time to sleep; who has come back has a little more."""
        bench = self.bench()
        clients = [bench.connect() for _ in range(4)]
        for rest in (REST / 5, LONG_REST / 5, LONG_REST / 5):
            for client in clients:
                bench.ask(client, GET % b"/")
                bench.clock.advance(rest)
                bench.lot.make_room()
        self.assertEqual(len(bench.lot), 0)

    def test_unread_bytes(self) -> None:
        """It is the loop that is late, not the client: nothing is to be parked."""
        bench = self.bench()
        client, gone = bench.connect(), bench.connect()
        bench.ask(client, GET % b"/")
        client.sendall(GET % b"/2")
        gone.close()
        bench.pass_time(1.5)
        self.assertEqual((len(bench.lot), bench.factory.count), (0, 2))
        bench.until(lambda: len(bench.app.done) == 2 and bench.factory.count == 1)

    def test_many_at_once(self) -> None:
        bench = self.bench()
        clients = bench.parked(*[b"/"] * (EVENTS + 1))
        for client in clients:
            client.sendall(GET % b"/second")
        bench.until(lambda: len(bench.app.done) == 2 * len(clients))
        serials = {request.peer.serial for request in bench.app.done[len(clients) :]}
        self.assertEqual(serials, set(range(1, len(clients) + 1)))
        self.assertEqual((bench.factory.count, len(bench.lot)), (len(clients), 0))

    def test_worker_connections(self) -> None:
        """They count; one that waits makes room for one that comes."""
        bench = self.bench()
        clients = bench.parked(b"/", b"/")
        bench.factory.places.limit = 2
        third = bench.connect()
        bench.until(lambda: bench.factory.accepted == 3)
        self.assertEqual((bench.factory.refused, bench.factory.count), (0, 2))
        self.assertEqual(len(bench.lot), 1)
        self.assertEqual(sorted(map(bench.closed, clients)), [False, True])
        third.sendall(GET % b"/third")
        bench.until(lambda: len(bench.app.done) == 3)

    def test_drain(self) -> None:
        bench = self.bench()
        waiting: Deferred[Any] = Deferred()
        bench.app.answers[b"/wait"] = waiting
        clients = bench.parked(b"/", b"/")
        busy = bench.connect()
        busy.sendall(GET % b"/wait")
        bench.until(lambda: len(bench.app.requests) == 3)
        drained = bench.factory.drain()
        self.assertTrue(all(map(bench.closed, clients)))
        self.assertNoResult(drained)
        waiting.callback(text(b"last"))
        self.successResultOf(drained)
        self.assertTrue(busy.recv(1 << 20).endswith(b"last"))

    def test_drain_with_a_parting(self) -> None:
        """Parked or not: who asks in time is answered, the others are closed when it is over."""
        for awake in (0, 100):
            bench = self.bench(awake)
            one, two, three = (bench.connect() for _ in range(3))
            for client in (one, two, three):
                bench.ask(client, GET % b"/")
            bench.pass_time(1.5)
            self.assertEqual(len(bench.lot), 0 if awake else 3)
            drained = bench.factory.drain(1.0)
            bench.pass_time(0.8)
            self.assertIn(b"Connection: close\r\n", bench.ask(one, GET % b"/last"))
            two.sendall(GET % b"/late")  # it has come before the time is over: the loop is late
            bench.pass_time(1.0)
            self.assertTrue(bench.closed(three))
            self.assertNoResult(drained)
            bench.until(lambda drained=drained: drained.called)
            answer = two.recv(1 << 20)
            self.assertIn(b"Connection: close\r\n", answer)
            self.assertTrue(answer.endswith(b"GET /late"))
            self.assertEqual(two.recv(1), b"")

    def test_drain_leaves_earlier_ends_alone(self) -> None:
        bench = self.bench()
        (client,) = bench.parked(b"/")
        bench.pass_time(KEEP - bench.clock.seconds() - 1.0)
        bench.factory.drain(KEEP)
        bench.pass_time(2.0)
        self.assertTrue(bench.closed(client))
        self.assertEqual(bench.clock.getDelayedCalls(), [])

    def test_asked_when_the_time_was_over(self) -> None:
        """What has come by then is no less a request because the loop is late with it."""
        for awake in (0, 100):
            bench = self.bench(awake)
            client = bench.connect()
            bench.ask(client, GET % b"/")
            bench.pass_time(1.5)
            self.assertEqual(len(bench.lot), int(not awake))
            client.sendall(GET % b"/late")
            bench.pass_time(KEEP)
            bench.until(lambda bench=bench: len(bench.app.done) == 2)
            self.assertIn(b"keep-alive", client.recv(1 << 20))
            bench.pass_time(KEEP + 1.0)
            self.assertTrue(bench.closed(client))

    def test_who_has_asked_is_not_the_oldest(self) -> None:
        """Nor has to go when there are too many connections."""
        for awake in (0, 100):
            bench = self.bench(awake)
            clients = [bench.connect() for _ in range(3)]
            for client in clients:
                bench.ask(client, GET % b"/")
            bench.pass_time(1.5)
            clients[0].sendall(GET % b"/late")
            if awake:
                for connection in tuple(bench.factory.connections):
                    connection.drain(0.0)
            else:
                self.assertEqual(bench.lot.close_oldest(3), 2)
            self.assertTrue(bench.closed(clients[1]) and bench.closed(clients[2]))
            bench.until(lambda bench=bench: len(bench.app.done) == 4)
            self.assertTrue(clients[0].recv(1 << 20).endswith(b"GET /late"))

    def test_drain_idle(self) -> None:
        bench = self.bench()
        bench.parked(b"/", b"/")
        self.successResultOf(bench.factory.drain())
        self.assertEqual(bench.clock.getDelayedCalls(), [])

    def test_abort(self) -> None:
        bench = self.bench()
        clients = bench.parked(b"/", b"/")
        bench.factory.abort()
        self.assertTrue(all(map(bench.closed, clients)))
        self.assertEqual((bench.factory.count, bench.clock.getDelayedCalls()), (0, []))

    def test_reactor_stops(self) -> None:
        bench = self.bench()
        (client,) = bench.parked(b"/")
        for reader in bench.reactor.removeAll():
            reader.connectionLost(None)
        self.assertTrue(bench.closed(client))
        self.assertEqual(bench.factory.count, 0)

    def test_forwarded(self) -> None:
        """What a PROXY header has said is not forgotten."""
        bench = self.bench(proxied=True)
        client = bench.connect()
        bench.ask(client, b"PROXY TCP4 192.0.2.1 192.0.2.2 1234 80\r\n" + GET % b"/")
        bench.pass_time(1.5)
        self.assertEqual(len(bench.lot), 1)
        bench.ask(client, GET % b"/2")
        before, after = (request.peer for request in bench.app.done)
        self.assertIsInstance(after, ForwardedPeer)
        self.assertIs(before, after)

    def test_failure(self) -> None:
        """What goes wrong on one connection is the end of that one."""
        bench = self.bench()
        client, other = bench.parked(b"/", b"/")
        plans: Any = bench.factory.plans
        bench.factory.plans = None  # type: ignore[assignment]
        client.sendall(GET % b"/")
        bench.until(lambda: bench.factory.count == 1)
        self.assertEqual(len(self.flushLoggedErrors(AttributeError)), 1)
        bench.factory.plans = plans
        self.assertTrue(bench.ask(other, GET % b"/").endswith(b"GET /"))
