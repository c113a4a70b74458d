from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.http.body import BodyTimeout
from imagefarm.http.message import Request, Response, TransferSettings

from .fakes import Client, Collector, ScriptedStream, text

TRANSFER = TransferSettings(
    keepalive_timeout=10, client_body_timeout=20, send_timeout=30, lingering_timeout=5
)


class TimeoutTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.client = Client(transfer=TRANSFER)
        self.client.factory.client_header_timeout = 15

    def wait(self, seconds: float) -> None:
        self.client.clock.pump([0.25] * round(seconds * 4))

    def assertClosesAfter(self, seconds: float) -> None:
        self.wait(seconds - 0.25)
        self.assertFalse(self.client.closing)
        self.wait(1.25)
        self.assertTrue(self.client.closing)

    def test_no_request_at_all(self) -> None:
        self.client = Client(transfer=TRANSFER)
        self.assertClosesAfter(60)
        self.assertEqual(self.client.app.done, [])
        self.assertEqual(self.client.read(), b"")

    def test_keep_alive(self) -> None:
        self.client.get()
        self.assertClosesAfter(10)
        self.assertEqual(len(self.client.app.done), 1)

    def test_a_request_renews_it(self) -> None:
        for _ in range(5):
            self.client.get()
            self.wait(8)
        self.assertFalse(self.client.closing)

    def test_slow_head(self) -> None:
        """Bytes that trickle in don't renew the deadline; nginx closes without an answer."""
        for byte in b"GET / HTTP/1.1\r\nHost: a\r\nA":
            if self.client.closing:
                break
            self.client.send(bytes((byte,)))
            self.wait(1)
        self.assertTrue(self.client.closing)
        self.assertEqual(self.client.read(), b"")
        self.assertEqual(self.client.app.outcomes, [(b"", 408, 0)])

    def test_head_that_makes_it(self) -> None:
        self.client.send(b"GET / HTTP/1.1\r\n")
        self.wait(14)
        self.client.send(b"Host: a\r\n\r\n")
        self.wait(5)
        self.assertEqual(self.client.app.outcomes, [(b"/", 200, 5)])
        self.assertFalse(self.client.closing)

    def test_the_application_has_all_the_time(self) -> None:
        answer: Deferred[Response] = Deferred()
        self.client.app.answers[b"/"] = answer
        self.client.get(b"/")
        self.wait(300)
        self.assertFalse(self.client.closing)
        answer.callback(text(b"at last"))
        self.assertTrue(self.client.read().endswith(b"at last"))

    def start_upload(self) -> Collector:
        sink = Collector()

        def begin(request: Request) -> Deferred[Response]:
            request.body.start(sink)
            return Deferred()

        self.client.app.answers[b"/up"] = begin
        self.client.send(b"POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n")
        return sink

    def test_body_that_stops(self) -> None:
        sink = self.start_upload()
        self.wait(15)
        self.client.send(b"1")
        self.assertClosesAfter(20)
        self.assertIsInstance(sink.error, BodyTimeout)
        self.assertEqual(self.client.app.outcomes, [(b"/up", 408, 0)])
        self.assertEqual(self.client.read(), b"")

    def test_a_body_that_the_handler_has_paused_is_not_late(self) -> None:
        self.start_upload()
        body = self.client.app.requests[0].body
        body.pause()
        self.client.send(b"1")
        self.wait(100)
        self.assertFalse(self.client.closing)
        body.resume()
        self.assertClosesAfter(20)

    def test_handler_answers_the_timeout(self) -> None:
        answer: Deferred[Response] = Deferred()

        class Sink(Collector):
            def fail(self, error: Exception) -> None:
                answer.callback(text(b"slow", 408))

        def begin(request: Request) -> Deferred[Response]:
            request.body.start(Sink())
            return answer

        self.client.app.answers[b"/up"] = begin
        self.client.send(b"POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n")
        self.wait(21)
        self.assertTrue(self.client.read().startswith(b"HTTP/1.1 408 "))
        self.assertEqual(self.client.app.outcomes, [(b"/up", 408, 4)])

    def test_client_that_does_not_read(self) -> None:
        stream = ScriptedStream(first=(b"abc",))
        self.client.app.answers[b"/s"] = Response(200, body=stream)
        self.client.get(b"/s")
        self.wait(100)
        self.assertFalse(self.client.closing)
        self.client.connection.pauseProducing()
        self.assertClosesAfter(30)
        self.assertTrue(self.client.transport.aborted)
        self.assertTrue(stream.cancelled)
        self.assertEqual(self.client.app.outcomes, [(b"/s", 200, 3)])

    def test_client_that_reads_slowly(self) -> None:
        stream = ScriptedStream(first=(b"abc",))
        self.client.app.answers[b"/s"] = Response(200, body=stream)
        self.client.get(b"/s")
        self.client.connection.pauseProducing()
        for written in range(1, 6):
            self.wait(25)
            self.client.transport.taken = written  # type: ignore[attr-defined]
        self.assertFalse(self.client.closing)
        self.wait(62)
        self.assertTrue(self.client.transport.aborted)

    def test_client_that_does_not_read_before_its_next_request(self) -> None:
        self.client.get()
        self.client.connection.pauseProducing()
        self.assertClosesAfter(30)

    def test_drain(self) -> None:
        self.client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n12")
        self.wait(4)
        self.assertEqual(repr(self.client.connection), "<HttpConnection #1 DRAIN served=1>")
        self.wait(2)
        self.assertEqual(repr(self.client.connection), "<HttpConnection #1 LINGER served=1>")
        self.assertClosesAfter(4)

    def test_linger_is_renewed_and_ends(self) -> None:
        self.client.send(b"rubbish\r\n\r\n")
        start = self.client.clock.seconds()
        while not self.client.closing:
            self.client.send(b"more")
            self.wait(1)
        self.assertGreaterEqual(self.client.clock.seconds() - start, TRANSFER.lingering_time)
        self.assertLess(self.client.clock.seconds() - start, TRANSFER.lingering_time + 3)

    def test_close_that_does_not_happen(self) -> None:
        self.client.get(extra=b"Connection: close\r\n")
        self.assertTrue(self.client.closing)
        self.assertFalse(self.client.transport.aborted)
        self.wait(31)
        self.assertTrue(self.client.transport.aborted)

    def test_nothing_is_left_behind(self) -> None:
        self.client.get()
        self.client.leave()
        self.assertEqual(self.client.clock.getDelayedCalls(), [])
