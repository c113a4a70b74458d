"""Fetching OCSP responses."""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import inlineCallbacks
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site

from imagefarm.app.stapling import MAX_RESPONSE, TIMEOUT, _reason, fetching
from imagefarm.http.ocsp import Unusable


class Responder(Resource):
    """Answers as the path says."""

    isLeaf = True

    def __init__(self) -> None:
        Resource.__init__(self)
        self.asked: list[tuple[bytes, Any]] = []

    def render_GET(self, request: Any) -> Any:
        self.asked.append((request.uri, request.getHeader("accept")))
        word, _, number = request.path[1:].partition(b"/")
        if word == b"status":
            request.setResponseCode(int(number))
        elif word == b"size":
            return b"x" * int(number)
        elif word == b"cut":
            request.setHeader(b"content-length", b"100")
            request.write(b"short")
            request.transport.loseConnection()
            return NOT_DONE_YET
        return b"said"


class FetchTests(TestCase):
    timeout = 60

    def setUp(self) -> None:
        self.responder = Responder()
        loop: Any = reactor
        port = loop.listenTCP(0, Site(self.responder), interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        self.url = f"http://127.0.0.1:{port.getHost().port}"
        self.fetch = fetching(reactor)
        self.lines: list[Failure] = []

    @inlineCallbacks
    def test_a_response(self) -> Any:
        found = yield self.fetch(f"{self.url}/path/MEIw%2BQ%3D%3D")
        self.assertEqual(found, b"said")
        self.assertEqual(
            self.responder.asked, [(b"/path/MEIw%2BQ%3D%3D", "application/ocsp-response")]
        )

    @inlineCallbacks
    def test_size(self) -> Any:
        found = yield self.fetch(f"{self.url}/size/{MAX_RESPONSE}")
        self.assertEqual(len(found), MAX_RESPONSE)
        for size in (MAX_RESPONSE + 1, 10 * MAX_RESPONSE):
            error = yield self.assertFailure(self.fetch(f"{self.url}/size/{size}"), Unusable)
            self.assertEqual(str(error), "the OCSP response is too large")

    @inlineCallbacks
    def test_status(self) -> Any:
        for status in (404, 500, 302):
            error = yield self.assertFailure(self.fetch(f"{self.url}/status/{status}"), Unusable)
            self.assertEqual(str(error), f"OCSP responder sent status {status}")

    @inlineCallbacks
    def test_cut_short(self) -> Any:
        yield self.fetch(f"{self.url}/cut").addErrback(self.lines.append)
        self.assertEqual([_reason(failure).count("\n") for failure in self.lines], [0])

    def test_time(self) -> None:
        clock = MemoryReactorClock()
        self.assertEqual(self.lines, [])
        fetching(clock)("http://127.0.0.1/").addErrback(self.lines.append)
        clock.advance(TIMEOUT + 1)
        (failure,) = self.lines
        self.assertTrue(_reason(failure).startswith("OCSP responder could not be asked ("))

    @inlineCallbacks
    def test_nobody(self) -> Any:
        yield self.fetch("http://127.0.0.1:1/").addErrback(self.lines.append)
        (failure,) = self.lines
        self.assertIn("refused", _reason(failure))
