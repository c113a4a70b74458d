"""The responder on a scripted wire."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.fastcgi import records as fcgi
from imagefarm.fastcgi.records import EndRequest, ProtocolStatus, Record, RecordType
from imagefarm.fastcgi.responder import ResponderConnection, ResponderFactory
from imagefarm.fastcgi.session import FastCGIRequest, ResponderLimits
from imagefarm.http.headers import Headers
from imagefarm.http.message import Response

from .fakes import Wire, lost


class ResponderCase(SynchronousTestCase):
    limits = ResponderLimits(
        requests=3, connections=2, params=300, stdin=1000, discarded=3000, timeout=10, keepalive=50
    )

    def setUp(self) -> None:
        self.clock = Clock()
        self.seen: list[FastCGIRequest] = []
        self.pending: list[Deferred[Response]] = []
        self.cancelled = 0
        self.answer: Response | None = Response(200, Headers([(b"A", b"b")]), b"hello")
        self.factory = ResponderFactory(self.handle, self.clock, self.limits)
        self.wire = Wire()
        self.connection = self.connect(self.wire)

    def connect(self, wire: Wire) -> ResponderConnection:
        connection = self.factory.buildProtocol(None)
        assert connection is not None
        connection.makeConnection(wire)
        return connection

    def handle(self, request: FastCGIRequest) -> Response | Deferred[Response]:
        self.seen.append(request)
        if self.answer is not None:
            return self.answer
        self.pending.append(Deferred(self.cancel))
        return self.pending[-1]

    def cancel(self, _: object) -> None:
        self.cancelled += 1

    def feed(self, *pieces: bytes) -> list[Record]:
        for piece in pieces:
            self.connection.dataReceived(piece)
        return self.wire.records()

    def ends(self, records: list[Record]) -> dict[int, EndRequest]:
        return {
            r.request_id: fcgi.decode_end(r.content)
            for r in records
            if r.type == RecordType.END_REQUEST
        }

    def assertDropped(self) -> None:
        self.assertTrue(self.wire.aborted)
        lost(self.connection)
        self.assertEqual(self.factory.active, 0)
        self.assertEqual(self.clock.getDelayedCalls(), [])


DONE = EndRequest(0, ProtocolStatus.REQUEST_COMPLETE)
