"""What fails under the client connection, and connections for one request."""

from __future__ import annotations

from imagefarm.fastcgi import records as fcgi
from imagefarm.fastcgi.client import ConnectionFactory
from imagefarm.fastcgi.records import ProtocolStatus, RecordType
from imagefarm.http.upstream import Fault, UpstreamError

from .client_case import OK, ClientCase
from .fakes import Sink, end, lost, stderr, stdout, stdout_end


class FailureTests(ClientCase):
    head_limit = 64

    def test_closed_before_anything(self) -> None:
        waiting = self.send()
        lost(self.connection)
        error = self.failure(waiting)
        self.assertEqual((error.fault, error.stale), (Fault.CLOSED, False))
        self.assertEqual(
            error.reason,
            "upstream prematurely closed connection while reading response header from upstream",
        )
        self.assertEqual(self.happened, ["closed"])
        self.idle()

    def test_a_stale_connection(self) -> None:
        waiting = self.send(reused=True)
        lost(self.connection)
        self.assertTrue(self.failure(waiting).stale)

    def test_not_stale_once_it_has_answered(self) -> None:
        waiting = self.send(reused=True)
        self.feed(b"\x01")
        lost(self.connection)
        self.assertFalse(self.failure(waiting).stale)

    def test_send_on_a_closed_connection(self) -> None:
        lost(self.connection)
        error = self.failure(self.send(reused=True))
        self.assertTrue(error.stale and error.unsent)

    def test_closed_in_the_body(self) -> None:
        waiting = self.send()
        self.feed(stdout(OK + b"ab"))
        sink = Sink()
        self.successResultOf(waiting).body.start(sink)  # type: ignore[union-attr]
        lost(self.connection)
        self.assertEqual(sink.bytes, b"ab")
        self.assertIsInstance(sink.outcome, UpstreamError)
        self.assertIn(
            "upstream prematurely closed FastCGI stdout while reading upstream", self.notes[0]
        )

    def test_closed_before_the_body_is_taken(self) -> None:
        waiting = self.send()
        self.feed(stdout(OK + b"ab"))
        body = self.successResultOf(waiting).body
        lost(self.connection)
        sink = Sink()
        body.start(sink)  # type: ignore[union-attr]
        self.assertEqual(sink.bytes, b"ab")
        self.assertIsInstance(sink.outcome, UpstreamError)

    def test_bad_heads(self) -> None:
        for head, reason in (
            (b"nonsense\n\n", 'upstream sent invalid header: "nonsense"'),
            (b"Status: nope\n\n", 'upstream sent invalid status "nope"'),
            (b"A: " + bytes(100), "upstream sent too big header"),
        ):
            self.setUp()
            waiting = self.send()
            self.feed(stdout(head))
            error = self.failure(waiting)
            self.assertIs(error.fault, Fault.INVALID_HEADER)
            self.assertEqual(error.reason, reason + " while reading response header from upstream")
            self.assertTrue(self.wire.aborted)
            self.idle()

    def test_an_end_without_a_head(self) -> None:
        waiting = self.send()
        self.feed(end())
        error = self.failure(waiting)
        self.assertIs(error.fault, Fault.INVALID_HEADER)
        self.assertEqual(
            error.reason,
            "upstream prematurely closed FastCGI stdout "
            "while reading response header from upstream",
        )

    def test_broken_records(self) -> None:
        for raw in (
            b"HTTP/1.1 400 Bad Request\r\n\r\n",
            stdout(OK, request_id=2),
            fcgi.encode_record(RecordType.STDIN, 1, b"x"),
            fcgi.encode_record(RecordType.GET_VALUES, 1),
            fcgi.encode_record(RecordType.END_REQUEST, 1, b"short"),
            stdout_end() + stdout(OK),
        ):
            self.setUp()
            waiting = self.send()
            self.feed(raw)
            self.assertIs(self.failure(waiting).fault, Fault.INVALID_HEADER)
            self.assertTrue(self.wire.aborted)

    def test_read_timeout_of_the_head(self) -> None:
        waiting = self.send()
        self.clock.advance(6)
        self.feed(stderr(b"still at it"))
        self.clock.advance(6)
        self.assertNoResult(waiting)
        self.clock.advance(1)
        error = self.failure(waiting)
        self.assertIs(error.fault, Fault.TIMEOUT)
        self.assertEqual(
            error.reason,
            "upstream timed out (110: Connection timed out) "
            "while reading response header from upstream",
        )
        self.assertTrue(self.wire.aborted)
        self.idle()

    def test_read_timeout_of_the_body(self) -> None:
        waiting = self.send()
        self.feed(stdout(OK))
        sink = Sink()
        self.successResultOf(waiting).body.start(sink)  # type: ignore[union-attr]
        self.clock.advance(7)
        assert isinstance(sink.outcome, UpstreamError)
        self.assertIs(sink.outcome.fault, Fault.TIMEOUT)
        self.idle()

    def test_overloaded(self) -> None:
        waiting = self.send()
        self.feed(end(0, ProtocolStatus.OVERLOADED))
        response = self.successResultOf(waiting)
        self.assertEqual(response.status, 503)
        self.assertEqual(list(response.headers), [(b"Retry-After", b"1")])
        self.assertEqual(self.happened, ["idle"])

    def test_refused(self) -> None:
        for status in (ProtocolStatus.CANT_MPX_CONN, ProtocolStatus.UNKNOWN_ROLE):
            self.setUp()
            waiting = self.send()
            self.feed(end(0, status))
            self.assertIn("refused the FastCGI request", self.failure(waiting).reason)

    def test_caught_complaints(self) -> None:
        self.connection.catch_stderr = (b"Fatal error", b"none")
        waiting = self.send()
        self.feed(stderr(b"PHP Fatal er"), stderr(b"ror: oh"))
        error = self.failure(waiting)
        self.assertIs(error.fault, Fault.INVALID_HEADER)
        self.assertEqual(len(self.notes), 2)
        self.assertTrue(self.wire.aborted)

    def test_complaints_after_the_head_are_not_caught(self) -> None:
        self.connection.catch_stderr = (b"Fatal error",)
        waiting = self.send()
        self.feed(stderr(b"fine") + stdout(OK + b"a") + stderr(b"Fatal error") + end())
        self.assertEqual(self.successResultOf(waiting).body, b"a")

    def test_complaints_are_logged(self) -> None:
        self.send()
        self.feed(stderr(b"PHP message: \xe4\x1b[1m bad.\r\n"))
        self.assertEqual(
            self.notes[0],
            r'FastCGI sent in stderr: "PHP message: \xe4\x1b[1m bad" while reading response '
            "header from upstream",
        )


class SingleTests(ClientCase):
    keep = False

    def test_the_connection_ends_with_the_answer(self) -> None:
        waiting = self.send()
        self.assertEqual(
            fcgi.decode_begin(self.wire.records()[0].content), fcgi.BeginRequest(1, False)
        )
        self.feed(stdout(OK + b"x") + end())
        self.assertEqual(self.successResultOf(waiting).body, b"x")
        self.assertEqual((self.happened, self.wire.aborted), ([], True))

    def test_equal_factories_share_a_pool(self) -> None:
        self.assertEqual(len({ConnectionFactory(self.clock), ConnectionFactory(self.clock)}), 1)
        self.assertNotEqual(
            ConnectionFactory(self.clock), ConnectionFactory(self.clock, keep=True)
        )
