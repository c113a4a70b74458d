"""What the tests of the client connection share."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.fastcgi.client import ConnectionFactory
from imagefarm.http.message import BodyStream, Response
from imagefarm.http.upstream import Outgoing, Timeouts, UpstreamError

from .fakes import Wire

OK = b"Status: 200 OK\r\nContent-Type: text/plain\r\n\r\n"
PARAMS = ((b"REQUEST_METHOD", b"GET"), (b"A", b"1"), (b"A", b"2"))


class ClientCase(SynchronousTestCase):
    keep = True
    head_limit = 8192

    def setUp(self) -> None:
        self.clock = Clock()
        self.wire = Wire()
        factory = ConnectionFactory(self.clock, keep=self.keep, head_limit=self.head_limit)
        self.connection = factory()
        self.happened: list[str] = []
        self.connection.on_idle = lambda _: self.happened.append("idle")
        self.connection.on_closed = lambda _: self.happened.append("closed")
        self.notes: list[str] = []
        self.connection.on_note = lambda _, text: self.notes.append(text)
        self.connection.on_broken = self.connection.on_note
        self.connection.makeConnection(self.wire)

    def send(
        self, method: bytes = b"GET", body: BodyStream | None = None, reused: bool = False
    ) -> Deferred[Response]:
        outgoing = Outgoing(method, b"/x.php", params=PARAMS, body=body)
        return self.connection.send(outgoing, Timeouts(1, 5, 7), reused=reused)

    def feed(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.connection.dataReceived(piece)

    def failure(self, waiting: Deferred[Response]) -> UpstreamError:
        error = self.failureResultOf(waiting, UpstreamError).value
        assert isinstance(error, UpstreamError)
        return error

    def idle(self) -> None:
        """No timer is left behind."""
        self.assertEqual(self.clock.getDelayedCalls(), [])
