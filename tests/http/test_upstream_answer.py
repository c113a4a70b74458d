"""What an upstream's answer becomes, whatever protocol it came over."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.http.body import BodyTooLarge
from imagefarm.http.filters.charset import SAID
from imagefarm.http.headers import Headers
from imagefarm.http.message import Response
from imagefarm.http.upstream import Fault, NoLivePeers, UpstreamError
from imagefarm.http.upstream_answer import Presenter, complete, failure_response, leave
from imagefarm.http.upstream_rows import UpstreamSettings

from .samples import request as make_request

Fields = list[tuple[bytes, bytes]]


class PresenterTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.request = make_request()

    def present(self, fields: Fields, status: int = 200, **settings: Any) -> Response:
        presenter = Presenter(UpstreamSettings(**settings), Clock())
        return presenter.present(Response(status, Headers(fields), b"body"), self.request)

    def test_hidden_fields_and_flags(self) -> None:
        fields = [(b"X-A", b"1"), (b"X-Accel-Expires", b"9"), (b"x-hide", b"2"), (b"X-a", b"3")]
        response = self.present(fields, hidden=frozenset({b"x-accel-expires", b"x-hide"}))
        self.assertEqual(list(response.headers), [fields[0], fields[3]])
        self.assertEqual((response.final, response.conditional), (True, False))
        self.assertTrue(self.present([], 404).final)
        self.assertFalse(self.present([], 404, intercept_errors=True).final)
        self.assertTrue(self.present([], 204, intercept_errors=True).final)

    def test_rewrites(self) -> None:
        presenter = Presenter(
            UpstreamSettings(),
            Clock(),
            {b"location": lambda request, name, value: name + b"!" + value},
        )
        response = Response(302, Headers([(b"Location", b"/x"), (b"Other", b"/y")]))
        self.assertEqual(
            list(presenter.present(response, self.request).headers),
            [(b"Location", b"location!/x"), (b"Other", b"/y")],
        )

    def test_limit_rate(self) -> None:
        for value in (b"", b"-1", b"1k", b"fast"):
            self.present([(b"X-Accel-Limit-Rate", value)])
        self.present(
            [(b"X-Accel-Limit-Rate", b"9")], ignore_headers=frozenset({b"x-accel-limit-rate"})
        )
        self.assertNotIn("limit_rate", self.request.variables)
        self.present([(b"X-Accel-Limit-Rate", b"1024")])
        self.assertEqual(self.request.variables["limit_rate"], b"1024")

    def test_buffering(self) -> None:
        for value, expected in ((b"yes", True), (b"No", False), (b"maybe", None)):
            response = self.present([(b"X-Accel-Buffering", value)])
            self.assertIs(response.buffering, expected)
        ignored = frozenset({b"x-accel-buffering"})
        response = self.present([(b"X-Accel-Buffering", b"no")], ignore_headers=ignored)
        self.assertIsNone(response.buffering)

    def test_charset(self) -> None:
        def kind(charset: bytes, *kind: bytes, **more: Any) -> list[bytes]:
            fields = [(b"X-Accel-Charset", charset)]
            fields += [(b"Content-Type", value) for value in kind]
            more["charsets"] = frozenset({b"a", b"koi8-r"})
            return self.present(fields, **more).headers.getall(b"content-type")

        ignored = frozenset({b"x-accel-charset"})
        self.assertEqual(kind(b"a", b"text/a", ignore_headers=ignored), [b"text/a"])
        self.assertNotIn(SAID, self.request.variables)
        self.assertEqual(kind(b"KOI8-r", b"text/a"), [b"text/a; charset=KOI8-r"])
        self.assertEqual(kind(b"a", b"text/a; charset=koi8-r"), [b"text/a; charset=koi8-r"])
        self.assertEqual(kind(b"b", b"text/a"), [b"text/a"])
        self.assertEqual(kind(b"a"), [])
        self.assertEqual(self.request.variables[SAID], b"a")

    def test_redirect(self) -> None:
        fields = [(b"X-Accel-Redirect", b"/there")]
        self.assertEqual(self.present(fields).redirect, b"/there")
        self.assertIsNone(self.present([(b"X-Accel-Redirect", b"")]).redirect)
        ignored = frozenset({b"x-accel-redirect"})
        self.assertIsNone(self.present(fields, ignore_headers=ignored).redirect)

    def test_passed_and_obeyed(self) -> None:
        """A field that is passed on is obeyed nevertheless."""
        response = self.present([(b"X-Accel-Buffering", b"no")], hidden=frozenset())
        self.assertIs(response.buffering, False)
        self.assertIn(b"x-accel-buffering", response.headers)

    def test_force_ranges(self) -> None:
        fields = [
            (b"Accept-Ranges", b"none"),
            (b"Last-Modified", b"Thu, 01 Jan 1970 00:00:09 GMT"),
        ]
        response = self.present(fields, force_ranges=True)
        self.assertTrue(response.ranges and response.single_range)
        self.assertEqual((response.mtime, response.headers.get(b"accept-ranges")), (9, None))
        self.assertFalse(self.present(fields).ranges)

    def test_what_stays_of_an_answer_that_leads_elsewhere(self) -> None:
        kept = [(b"Content-Type", b"a/b"), (b"Set-Cookie", b"a=1"), (b"Cache-Control", b"x")]
        leave(Response(404, Headers([*kept, (b"ETag", b'"e"')]), b"body"), self.request)
        fields = [(b"Content-Type", b"file"), (b"Set-Cookie", b"b=2"), (b"Cache-Control", b"y")]
        response = Response(200, Headers(fields))
        complete(response, self.request)
        self.assertEqual(
            list(response.headers),
            [fields[1], fields[2], (b"Content-Type", b"a/b"), (b"Set-Cookie", b"a=1")],
        )

    def test_the_last_upstreams_type_goes_first(self) -> None:
        for kind in (b"first", b"second"):
            leave(Response(200, Headers([(b"Content-Type", kind)])), self.request)
        self.assertEqual(list(self.request.preset), [(b"Content-Type", b"second")])
        self.present([(b"Content-Type", b"third")])
        self.assertEqual(list(self.request.preset), [])


class FailureTests(SynchronousTestCase):
    def test_statuses(self) -> None:
        for error, status, close in (
            (UpstreamError(Fault.TIMEOUT, "late"), 504, False),
            (UpstreamError(Fault.CONNECT, "refused"), 502, False),
            (NoLivePeers(), 502, False),
            (CancelledError(), 499, True),
            (BodyTooLarge(), 413, True),
        ):
            response = failure_response(Failure(error), make_request())
            self.assertEqual((response.status, response.close), (status, close))

    def test_a_defect(self) -> None:
        response = failure_response(Failure(ZeroDivisionError()), make_request())
        self.assertEqual(response.status, 500)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
