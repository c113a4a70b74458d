"""The resizer as an application: parameters in, responses out."""

from __future__ import annotations

import json
import os
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, fail, succeed
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.http.message import Response
from imagefarm.image.errors import (
    Broken,
    DeadlineExceeded,
    Failed,
    Overloaded,
    TooLarge,
    Unsupported,
)
from imagefarm.image.formats import Format, Offer
from imagefarm.image.job import Job, Rendered
from imagefarm.image.limits import Limits
from imagefarm.image.places import Dialect, Place, Places, Unsigned
from imagefarm.image.service import ImageService
from imagefarm.image.source import Identity, stat_source

MTIME = 1_700_000_000


class FakePool:
    """Answers each job with what the test laid ready."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []
        self.next: Deferred[Rendered] | None = None

    def submit(self, job: Job) -> Deferred[Rendered]:
        self.jobs.append(job)
        if self.next is not None:
            return self.next
        source = stat_source(job.root, job.recipe.src)
        timings = (("queue", 0.0), ("decode", 0.0123))
        derived = 2 if job.derive else 0
        made = Rendered(b"picture", Format.PNG, 3, 4, 1, source, timings, derived=derived)
        return succeed(made)


class ServiceCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.root = Path(self.mktemp())
        self.root.mkdir()
        (self.root / "a b.jpg").write_bytes(b"source")
        os.utime(self.root / "a b.jpg", (MTIME, MTIME))
        self.pool = FakePool()
        self.limits = Limits()
        self.service = ImageService([os.fsencode(self.root)], self.pool, self.limits)

    def ask(self, query: bytes = b"src=/a+b.jpg&w=3", **params: bytes) -> Response:
        all_params = {b"QUERY_STRING": query, b"REQUEST_METHOD": b"GET"}
        all_params |= {name.encode(): value for name, value in params.items()}
        return self.successResultOf(self.service(all_params))

    def assert_error(self, response: Response, status: int, line: bytes) -> None:
        self.assertEqual((response.status, response.body), (status, line + b"\n"))
        self.assertEqual(response.headers.get(b"cache-control"), b"no-store")
        self.assertEqual(response.headers.get(b"content-type"), b"text/plain; charset=us-ascii")
        for name in (b"etag", b"last-modified"):
            self.assertNotIn(name, response.headers)
        self.assertIn(b"server-timing", response.headers)


class Pictures(ServiceCase):
    def test_a_picture(self) -> None:
        response = self.ask()
        self.assertEqual((response.status, response.body), (200, b"picture"))
        self.assertEqual(response.mtime, MTIME)
        headers = dict(response.headers)
        etag = headers.pop(b"ETag")
        self.assertRegex(etag, rb'^"[0-9a-f]+"$')
        self.assertEqual(
            headers,
            {
                b"Content-Type": b"image/png",
                b"Last-Modified": b"Tue, 14 Nov 2023 22:13:20 GMT",
                b"Server-Timing": b"queue;dur=0.0, decode;dur=12.3",
                b"X-Imagefarm-Source": b"/a%20b.jpg",
                b"X-Imagefarm-Recipe": b"w=3",
            },
        )
        (job,) = self.pool.jobs
        self.assertEqual((job.recipe.src, job.recipe.w), (b"/a b.jpg", 3))

    def test_head(self) -> None:
        response = self.ask(REQUEST_METHOD=b"HEAD")
        self.assertEqual((response.status, response.body, response.length), (200, b"", 7))
        refused = self.ask(b"", REQUEST_METHOD=b"HEAD")
        self.assertEqual((refused.status, refused.body), (400, b""))
        self.assertEqual(refused.length, len(self.ask(b"").body))  # type: ignore[arg-type]

    def test_accept_matters_for_auto_alone(self) -> None:
        response = self.ask(b"src=a%20b.jpg&fmt=auto", HTTP_ACCEPT=b"image/avif")
        self.assertEqual(response.headers.get(b"vary"), b"Accept")
        self.assertEqual(self.pool.jobs[-1].offer, Offer(avif=True))
        response = self.ask(HTTP_ACCEPT=b"image/avif")
        self.assertNotIn(b"vary", response.headers)

    def test_not_modified(self) -> None:
        etag = self.ask().headers.get(b"etag")
        assert etag is not None
        jobs = len(self.pool.jobs)
        for params in (
            {"HTTP_IF_NONE_MATCH": etag},
            {"HTTP_IF_MODIFIED_SINCE": b"Tue, 14 Nov 2023 22:13:20 GMT"},
        ):
            response = self.ask(**params)
            self.assertEqual((response.status, response.body), (304, b""))
            self.assertEqual(response.headers.get(b"etag"), etag)
            self.assertEqual(response.headers.get(b"server-timing"), b"queue;dur=0.0")
            self.assertNotIn(b"content-type", response.headers)
        self.assertEqual(len(self.pool.jobs), jobs, "no pixel is decoded for it")
        self.assertEqual(self.ask(b"src=/a+b.jpg&w=4", HTTP_IF_NONE_MATCH=etag).status, 200)
        os.utime(self.root / "a b.jpg", (MTIME + 1, MTIME + 1))
        self.assertEqual(self.ask(HTTP_IF_NONE_MATCH=etag).status, 200)

    def test_not_modified_varies_as_well(self) -> None:
        response = self.ask(b"src=/a+b.jpg&fmt=auto", HTTP_IF_NONE_MATCH=b"*")
        self.assertEqual((response.status, response.headers.get(b"vary")), (304, b"Accept"))

    def test_a_newer_watermark_is_another_picture(self) -> None:
        """Also to a client that knows nothing but the time."""
        mark = self.root / "m.png"
        mark.write_bytes(b"mark")
        query, day = b"src=/a+b.jpg&wm=m.png", b"Tue, 14 Nov 2023 22:13:%02d GMT"
        for later, since, status in ((-5, 20, 304), (3, 20, 200), (3, 22, 200), (3, 23, 304)):
            os.utime(mark, (MTIME + later, MTIME + later))
            answer = self.ask(query, HTTP_IF_MODIFIED_SINCE=day % since)
            self.assertEqual(answer.status, status, (later, since))
            if status == 304:
                newest = day % (20 + max(later, 0))
                self.assertEqual(answer.headers.get(b"last-modified"), newest)

    def test_other_pixels_are_another_tag(self) -> None:
        usual = self.ask().headers.get(b"etag")
        self.assertFalse(self.pool.jobs[-1].derive)
        derived = self.ask(HTTP_X_IMAGEFARM_WARM=b"1").headers.get(b"etag")
        self.assertTrue(self.pool.jobs[-1].derive)
        assert usual is not None and derived is not None
        self.assertNotEqual(derived, usual)
        self.ask(HTTP_X_IMAGEFARM_WARM=b"1", REMOTE_ADDR=b"192.0.2.1")
        self.assertFalse(self.pool.jobs[-1].derive, "a stranger does not choose the bytes")
        self.ask(HTTP_X_IMAGEFARM_WARM=b"1", REMOTE_ADDR=b"127.0.0.1")
        self.assertTrue(self.pool.jobs[-1].derive)
        self.assertEqual(self.ask(HTTP_IF_NONE_MATCH=derived).status, 200)

    def test_the_state_that_the_worker_saw_counts(self) -> None:
        before = self.ask().headers.get(b"etag")
        exchanged = Identity(9, (MTIME + 60) * 10**9)
        self.pool.next = succeed(Rendered(b"x", Format.PNG, 1, 1, 1, exchanged))
        response = self.ask()
        self.assertNotEqual(response.headers.get(b"etag"), before)
        date = b"Tue, 14 Nov 2023 22:14:20 GMT"
        self.assertEqual(response.headers.get(b"last-modified"), date)

    def test_several_roots(self) -> None:
        second = Path(self.mktemp())
        second.mkdir()
        for root in (self.root, second):
            (root / "both").write_bytes(b"x")
        (second / "b.jpg").write_bytes(b"x")
        roots = [os.fsencode(self.root), os.fsencode(second)]
        self.service = ImageService(roots, self.pool, self.limits)
        for query, root in ((b"src=b.jpg", 1), (b"src=both", 0), (b"src=a+b.jpg", 0)):
            self.assertEqual(self.ask(query).status, 200)
            self.assertEqual(self.pool.jobs[-1].root, roots[root])
        self.assertEqual(self.ask(b"src=none").status, 404)


class Refusals(ServiceCase):
    def test_methods(self) -> None:
        response = self.ask(REQUEST_METHOD=b"POST")
        self.assert_error(response, 405, b"only GET and HEAD are allowed")
        self.assertEqual(response.headers.get(b"allow"), b"GET, HEAD")

    def test_bad_parameters(self) -> None:
        self.assert_error(self.ask(b"src=/a&w=0"), 400, b"w must be a whole number from 1 to 8192")
        self.assert_error(
            self.successResultOf(self.service({})), 400,
            b"src is missing: it must be a path under the image root",
        )  # fmt: skip

    def test_sources(self) -> None:
        (self.root / "dir").mkdir()
        (self.root / "empty").touch()
        (self.root / "out").symlink_to("/etc/passwd")
        os.mkfifo(self.root / "fifo")
        for query, status, line in [
            (b"src=none.jpg", 404, b"there is no such source"),
            (b"src=dir", 404, b"there is no such source"),
            (b"src=/", 404, b"there is no such source"),
            (b"src=fifo", 404, b"there is no such source"),
            (b"src=out", 403, b"the source lies outside the image root"),
            (b"src=empty", 415, b"the source is empty"),
        ]:
            self.assert_error(self.ask(query), status, line)
        self.assertEqual(self.pool.jobs, [])

    def test_large_sources_never_reach_a_worker(self) -> None:
        limits = Limits(max_source_bytes=5)
        self.service = ImageService([os.fsencode(self.root)], self.pool, limits)
        self.assert_error(self.ask(), 413, b"the source is larger than 5 bytes")
        self.assertEqual(self.pool.jobs, [])

    @given(st.binary(max_size=40), st.sampled_from([b"", b"src=", b"src=a+b.jpg&", b"src=/%"]))
    def test_no_query_is_a_mistake_of_ours(self, rest: bytes, start: bytes) -> None:
        response = self.ask(start + rest)
        self.assertLess(response.status, 500)
        if response.status != 200:
            assert isinstance(response.body, bytes)
            self.assertRegex(response.body, rb"^[ -~]+\n$")

    def test_what_the_pool_says(self) -> None:
        for error, status in [
            (Broken("b"), 422), (Unsupported("u"), 415), (TooLarge("t"), 413),
            (Failed("f"), 500), (Overloaded("o"), 503), (DeadlineExceeded("d"), 504),
        ]:  # fmt: skip
            error.timings = (("queue", 0.5), ("work", 1.5))
            self.pool.next = fail(error)
            response = self.ask()
            self.assert_error(response, status, error.reason.encode())
            timing = response.headers.get(b"server-timing")
            self.assertEqual(timing, b"queue;dur=500.0, work;dur=1500.0")
            retry = response.headers.get(b"retry-after")
            self.assertEqual(retry, b"1" if status == 503 else None)

    def test_errors_name_what_they_are_about(self) -> None:
        """The slow log tells the recipe of what took longer than the deadline, too."""
        self.pool.next = fail(DeadlineExceeded("d"))
        late, missing = self.ask(b"w=09&src=a+b.jpg"), self.ask(b"src=none.jpg&q=9")
        self.assertEqual((late.status, missing.status), (504, 404))
        for response, names in (
            (late, (b"/a%20b.jpg", b"w=9")),
            (missing, (b"/none.jpg", b"q=9")),
        ):
            found = [
                response.headers.first(b"x-imagefarm-" + name) for name in (b"source", b"recipe")
            ]
            self.assertEqual(tuple(found), names)

    def test_what_took_too_long_is_not_tried_again(self) -> None:
        line = b"the image took too long before; its source is the same"
        for expected in (True, False):
            late = DeadlineExceeded("d")
            late.expected = expected
            self.pool.next = fail(late)
            self.assert_error(self.ask(b"src=a+b.jpg&w=9"), 504, b"d")
            self.pool.next = None
            jobs = len(self.pool.jobs)
            self.assert_error(self.ask(b"w=9&src=a+b.jpg"), 504, line)
            self.assertEqual(len(self.pool.jobs), jobs)
            self.assertEqual(self.ask(b"src=a+b.jpg&w=8").status, 200 if expected else 504)
            os.utime(self.root / "a b.jpg", (MTIME + 1 + expected, MTIME + 1 + expected))
            self.assertEqual(self.ask(b"src=a+b.jpg&w=9").status, 200)

    def test_the_fallback_image(self) -> None:
        (self.root / "sorry.png").write_bytes(b"x")
        root = os.fsencode(self.root)
        self.service = ImageService([root], self.pool, self.limits, b"/sorry.png")
        for query in (b"src=none.jpg&w=9&h=8&fit=cover", b"src=none.jpg&w=9&h=8&fit=cover&trim=3"):
            response = self.ask(query)
            self.assertEqual((response.status, response.body), (404, b"picture"))
            headers = response.headers
            self.assertEqual(headers.get(b"cache-control"), b"no-store")
            self.assertEqual(headers.get(b"content-type"), b"image/png")
            self.assertIsNone(headers.get(b"etag"))
            expected = b"src=/sorry.png&w=9&h=8&fit=cover"
            self.assertEqual(self.pool.jobs[-1].recipe.canonical().encode(), expected)
        self.assertEqual(self.ask(b"src=none.jpg&w=0").status, 400, "no image for nonsense")
        self.patch(self.pool, "submit", lambda job: fail(Broken("b")))
        self.assert_error(self.ask(b"src=a+b.jpg"), 422, b"b")
        (self.root / "sorry.png").unlink()
        self.assert_error(self.ask(b"src=none"), 404, b"there is no such source")

    def test_why_is_told_of_what_is_500_or_more(self) -> None:
        told: list[tuple[bytes, str, bool]] = []
        self.service = ImageService(
            [os.fsencode(self.root)], self.pool, self.limits,
            report=lambda params, text, failure: told.append(
                (params[b"QUERY_STRING"], text, failure is not None)
            ),
        )  # fmt: skip
        late = DeadlineExceeded("too long")
        late.detail = "worker 1 was killed"
        for error in (Broken("b"), Overloaded("full"), ValueError("oh"), late):
            self.patch(self.pool, "submit", lambda job, error=error: fail(error))
            self.ask(b"src=a+b.jpg&w=9")
        self.ask(b"src=none.jpg")
        query = b"src=a+b.jpg&w=9"
        self.assertEqual(told, [
            (query, "answered 503: full", False),
            (query, "the resizer failed", True),
            (query, "answered 504: too long (worker 1 was killed)", False),
        ])  # fmt: skip

    def test_our_own_mistakes_tell_nothing(self) -> None:
        self.pool.next = fail(RuntimeError("/etc/secret"))
        self.assert_error(self.ask(), 500, b"the image could not be made")
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_giving_up(self) -> None:
        given_up = []
        self.pool.next = Deferred(given_up.append)
        answer = self.service({b"QUERY_STRING": b"src=a+b.jpg"})
        self.assertNoResult(answer)
        answer.cancel()
        self.assertEqual(len(given_up), 1)
        self.assertEqual(self.successResultOf(answer).status, 503)


class IIIF(ServiceCase):
    def setUp(self) -> None:
        super().setUp()
        places = Places(places=(Place(b"/iiif/", Dialect.IIIF, unsigned=Unsigned(2)),))
        self.service = ImageService([os.fsencode(self.root)], self.pool, self.limits, b"", places)

    def iiif(self, path: bytes, **params: bytes) -> Response:
        target = b"/iiif/a%20b.jpg" + path
        return self.ask(b"", REQUEST_URI=target, HTTP_HOST=b"h:8080", **params)

    def test_a_source_is_measured_once(self) -> None:
        """The fake pool says 3 x 4 of every source."""
        for _ in range(2):
            document = json.loads(self.iiif(b"/info.json").body)  # type: ignore[arg-type]
            self.assertEqual((document["width"], document["height"]), (3, 4))
        self.assertEqual([job.measure for job in self.pool.jobs], [True])
        os.utime(self.root / "a b.jpg", (MTIME, MTIME + 1))
        self.iiif(b"/info.json")
        self.assertEqual(len(self.pool.jobs), 2)

    def test_uris(self) -> None:
        for params, base in [
            ({}, "http://h:8080/iiif/a%20b.jpg"),
            ({"REQUEST_SCHEME": b"https"}, "https://h:8080/iiif/a%20b.jpg"),
            ({"HTTPS": b"on"}, "https://h:8080/iiif/a%20b.jpg"),
        ]:
            document = json.loads(self.iiif(b"/info.json", **params).body)  # type: ignore[arg-type]
            self.assertEqual(document["id"], base)
            self.assertEqual(document["maxWidth"], 2)
            answer = self.iiif(b"", **params)
            location = answer.headers.get(b"location")
            self.assertEqual((answer.status, location), (303, f"{base}/info.json".encode()))

    def test_refusals(self) -> None:
        for path, status in [
            (b"/full/max/45/default.jpg", 400),
            (b"/full/4,/0/default.jpg", 400),
            (b"x/full/max/0/default.jpg", 404),
            (b"/nothing", 404),
        ]:
            answer = self.iiif(path)
            self.assertEqual(answer.status, status, path)
            self.assertEqual(answer.headers.get(b"access-control-allow-origin"), b"*")
        answer = self.ask(b"", REQUEST_URI=b"/iiif/a%20b.jpg", HTTP_HOST=b"<h>")
        self.assertEqual(answer.status, 400)

    def test_a_failure_of_the_pool(self) -> None:
        self.pool.next = fail(Unsupported("not an image"))
        self.assert_error(self.iiif(b"/info.json"), 415, b"not an image")

    def test_a_result_that_is_too_large_without_a_signature(self) -> None:
        """The fake pool's pictures are 3 wide."""
        answer = self.iiif(b"/full/2,/0/default.jpg")
        self.assert_error(answer, 403, b"w must be at most 2 without a signature")
