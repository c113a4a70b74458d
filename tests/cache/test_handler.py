from __future__ import annotations

import os
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from imagefarm.cache.entry import MAX_KEY
from imagefarm.cache.policy import ValidTime
from imagefarm.http.headers import Headers
from imagefarm.http.message import FileBody, OpenFile, Response, discard
from imagefarm.http.upstream import Fault, NoLivePeers, UpstreamError
from imagefarm.http.upstream_answer import failure_response

from .support import Sink, Stream, Upstream, ZoneCase, image, read, request


def status_of(response: Response) -> bytes | None:
    return response.headers.get(b"cache-status")


class HitTests(ZoneCase):
    def test_miss_then_hit(self) -> None:
        answer = image(b"bytes", (b"ETag", b'"1"'), (b"Date", b"x"))
        answer.conditional = False
        inner = Upstream(answer)
        handler = self.make_handler(inner)
        first, second = request(), request()
        missed = self.now(handler(first))
        self.assertEqual((missed.body, missed.ranges), (b"bytes", True))
        self.assertTrue(missed.conditional)
        self.assertEqual(first.outcome.cache_status, b"MISS")
        self.assertEqual(status_of(missed), b"imagefarm; fwd=miss; stored")
        self.clock.advance(18)
        hit = handler(second)
        self.assertIsInstance(hit, Response)
        self.assertIsInstance(hit.body, FileBody)
        self.assertEqual((hit.status, hit.ranges, hit.conditional), (200, True, True))
        self.assertEqual(second.outcome.cache_status, b"HIT")
        self.assertEqual(status_of(hit), b"imagefarm; hit; ttl=42")
        self.assertEqual(hit.headers.get(b"etag"), b'"1"')
        said = second.outcome.upstream_headers
        assert said is not None
        self.assertEqual((said.get(b"date"), said.get(b"cache-status")), (b"x", None))
        self.assertEqual(read(hit), b"bytes")
        self.assertEqual(len(inner.requests), 1)
        self.assertEqual((self.zone.counters.hits, self.zone.counters.misses), (1, 1))

    def test_expires(self) -> None:
        handler = self.make_handler(Upstream(image(b"old"), image(b"new")))
        self.now(handler(request()))
        self.clock.advance(60)
        again = request()
        response = self.now(handler(again))
        self.assertEqual(response.body, b"new")
        self.assertEqual(again.outcome.cache_status, b"EXPIRED")
        self.assertEqual(status_of(response), b"imagefarm; fwd=stale; stored")
        self.assertEqual(read(handler(request())), b"new")
        self.assertEqual(len(self.files()), 1)

    def test_last_modified_and_final_come_back(self) -> None:
        answer = image(b"x", (b"Last-Modified", b"Sun, 06 Nov 1994 08:49:37 GMT"), status=302)
        answer.final = True
        handler = self.make_handler(Upstream(answer))
        missed = self.now(handler(request()))
        hit = handler(request())
        self.assertEqual((missed.mtime, hit.mtime), (784111777.0, 784111777.0))
        self.assertEqual((hit.status, hit.final, hit.ranges), (302, True, False))
        discard(hit.body)

    def test_empty_body(self) -> None:
        handler = self.make_handler(Upstream(image(b"")))
        self.assertEqual(self.now(handler(request())).body, b"")
        self.assertEqual(read(handler(request())), b"")

    def test_status_header_off(self) -> None:
        handler = self.make_handler(Upstream(image()), status_header=False)
        self.assertIsNone(status_of(self.now(handler(request()))))
        hit = handler(request())
        self.assertIsNone(status_of(hit))
        discard(hit.body)

    def test_the_upstream_is_asked_for_the_whole(self) -> None:
        inner = Upstream(image(b"whole"))
        handler = self.make_handler(inner)
        asked = request(
            b"/a", (b"Host", b"h"), (b"Range", b"bytes=0-1"), (b"If-Range", b'"x"'),
            (b"If-None-Match", b"*"), (b"If-Modified-Since", b"x"), (b"If-Match", b"*"),
            (b"If-Unmodified-Since", b"x"), (b"Accept", b"*/*"), method=b"HEAD",
        )  # fmt: skip
        response = self.now(handler(asked))
        seen = inner.requests[0]
        self.assertEqual(seen.head.method, b"GET")
        self.assertEqual(list(seen.head.headers), [(b"Host", b"h"), (b"Accept", b"*/*")])
        self.assertIs(seen.outcome, asked.outcome)
        self.assertEqual(asked.head.method, b"HEAD")
        self.assertEqual(response.body, b"whole")

    def test_what_does_not_pass_the_cache(self) -> None:
        inner = Upstream(image(), image())
        handler = self.make_handler(inner, key=lambda request: b"k" * (MAX_KEY + 1))
        for asked, why in (
            (request(method=b"POST"), b"imagefarm; fwd=method"),
            (request(), b"imagefarm; fwd=bypass"),
        ):
            response = self.now(handler(asked))
            self.assertIs(inner.requests[-1], asked)
            self.assertEqual(status_of(response), why)
            self.assertEqual(asked.outcome.cache_status, b"")
        self.assertEqual(self.files(), [])


class StorableTests(ZoneCase):
    def not_stored(self, answer: Any, **changes: Any) -> None:
        inner = Upstream(answer, image(b"second"))
        handler = self.make_handler(inner, **changes)
        response = self.now(handler(request()))
        self.assertEqual(status_of(response), b"imagefarm; fwd=miss")
        discard(response.body)
        self.assertEqual(self.files(), [])
        discard(self.now(handler(request())).body)
        self.assertEqual(len(inner.requests), 2)
        self.assertEqual(len(self.zone.flights), 0)

    def test_no_time(self) -> None:
        self.not_stored(image(status=404))

    def test_server_error(self) -> None:
        self.not_stored(image(status=500), valid=(ValidTime(None, 60.0),))

    def test_an_error_of_our_own(self) -> None:
        self.not_stored(image(status=413), valid=(ValidTime(None, 60.0),))

    def test_upstream_headers_decide_even_if_hidden(self) -> None:
        def inner(request: Any) -> Response:
            request.outcome.upstream_headers = Headers([(b"X-Accel-Expires", b"0")])
            return image()

        handler = self.make_handler(inner)
        self.assertEqual(status_of(self.now(handler(request()))), b"imagefarm; fwd=miss")

    def test_kept_as_it_came_and_presented_anew(self) -> None:
        """What a location hides, rewrites and obeys is its own business, each time."""
        came = Headers([(b"X-Secret", b"1"), (b"X-Rate", b"2")])

        def inner(request: Any) -> Response:
            request.outcome.upstream_headers = came
            return image()

        def present(response: Response, request: Any) -> None:
            response.headers.remove(b"x-secret")
            request.variables["limit_rate"] = response.headers.first(b"x-rate") or b""

        plain, hiding = self.make_handler(inner), self.make_handler(inner, present=present)
        discard(self.now(hiding(request())).body)
        for handler, secret, rate in ((plain, b"1", None), (hiding, None, b"2")):
            asked = request()
            response = self.now(handler(asked))
            discard(response.body)
            self.assertEqual(asked.outcome.cache_status, b"HIT")
            self.assertEqual(response.headers.first(b"x-secret"), secret)
            self.assertEqual(asked.variables.get("limit_rate"), rate)
            self.assertEqual(asked.outcome.upstream_headers.first(b"x-secret"), b"1")

    def test_no_cache(self) -> None:
        self.not_stored(image(), no_cache=(lambda request: b"0", lambda request: b"1"))

    def test_local_file(self) -> None:
        fd = os.open(os.devnull, os.O_RDONLY)
        self.not_stored(image(FileBody(OpenFile(fd, 0, 0.0), 0, 0)))  # type: ignore[arg-type]

    def test_unencodable(self) -> None:
        self.not_stored(image(b"x", (b"X-Big", b"v" * 70000)))

    def test_larger_than_the_zone(self) -> None:
        self.zone = self.make_zone(max_size=4096)
        self.not_stored(image(b"x" * 5000))

    def test_min_uses(self) -> None:
        inner = Upstream(image(b"1"), image(b"2"), image(b"3"))
        handler = self.make_handler(inner, min_uses=3)
        statuses = []
        for _ in range(4):
            response = self.now(handler(request()))
            statuses.append(status_of(response))
            discard(response.body)
        self.assertEqual(
            statuses,
            [b"imagefarm; fwd=miss"] * 2
            + [b"imagefarm; fwd=miss; stored", b"imagefarm; hit; ttl=60"],
        )

    def test_min_uses_are_counted_by_all_processes(self) -> None:
        other = self.make_zone()
        inner = Upstream(*[image(b"%d" % number) for number in range(9)])
        ours = self.make_handler(inner, min_uses=3)
        theirs = self.make_handler(inner, other, min_uses=3)
        for handler, body in ((ours, b"0"), (theirs, b"1"), (ours, b"2"), (theirs, b"2")):
            self.assertEqual(read(self.now(handler(request()))), body)
        for _ in range(2):  # asked for so seldom that it does not count
            self.assertEqual(read(self.now(ours(request(b"/b")))), b"3")
            inner.answers.insert(0, image(b"3"))
            self.clock.advance(self.zone.settings.inactive)
        self.assertEqual(self.files(), [])

    def test_bypass_asks_and_stores(self) -> None:
        inner = Upstream(image(b"1"), image(b"2"))
        skip = [b"0"]
        handler = self.make_handler(inner, bypass=(lambda request: skip[0],))
        self.now(handler(request()))
        skip[0] = b"yes"
        asked = request()
        response = self.now(handler(asked))
        self.assertEqual((response.body, asked.outcome.cache_status), (b"2", b"BYPASS"))
        self.assertEqual(status_of(response), b"imagefarm; fwd=bypass; stored")
        skip[0] = b""
        self.assertEqual(read(handler(request())), b"2")
        self.assertEqual(self.zone.counters.bypass, 1)


class VaryTests(ZoneCase):
    def test_each_variant_has_its_file(self) -> None:
        vary = (b"Vary", b"Accept")
        inner = Upstream(image(b"avif", vary), image(b"webp", vary), image(b"jpeg", vary))
        handler = self.make_handler(inner)
        kinds = (b"avif", b"webp", b"jpeg")
        for _ in range(2):
            for kind in kinds:
                response = self.now(handler(request(b"/a", (b"Accept", kind))))
                self.assertEqual(read(response), kind)
        self.assertEqual(len(inner.requests), 3)
        self.assertEqual(len(self.files()), 3)

    def test_another_vary_replaces_the_first(self) -> None:
        inner = Upstream(
            image(b"one", (b"Vary", b"Accept")), image(b"two", (b"Vary", b"User-Agent"))
        )
        handler = self.make_handler(inner)
        self.now(handler(request(b"/a", (b"Accept", b"1"))))
        self.now(handler(request(b"/a", (b"Accept", b"2"), (b"User-Agent", b"u"))))
        hit = self.now(handler(request(b"/a", (b"Accept", b"3"), (b"User-Agent", b"u"))))
        self.assertEqual(read(hit), b"two")
        self.assertEqual(len(self.files()), 1)


class ClientGoneTests(ZoneCase):
    def test_filling_goes_on_without_the_client(self) -> None:
        cold: Deferred[Response] = Deferred()
        inner = Upstream(cold)
        handler = self.make_handler(inner)
        asked = request()
        answer = handler(asked)
        stopped: list[bool] = []
        inner.requests[0].on_gone.append(lambda: stopped.append(True))
        for callback in asked.on_gone:
            callback()
        stream = Stream(6)
        cold.callback(image(stream))  # type: ignore[arg-type]
        discard(self.now(answer).body)
        stream.send(b"abc", b"def")
        stream.finish()
        self.assertEqual(stopped, [])
        self.assertEqual(read(handler(request())), b"abcdef")

    def test_work_that_is_not_stored_ends(self) -> None:
        cold: Deferred[Response] = Deferred()
        inner = Upstream(cold, Deferred())
        handler = self.make_handler(inner)
        stopped: list[int] = []
        asked = request()
        answer = handler(asked)
        inner.requests[0].on_gone.append(lambda: stopped.append(1))
        for callback in asked.on_gone:
            callback()
        cold.callback(image(status=404))
        self.now(answer)
        self.assertEqual(stopped, [1])
        scarce = self.make_handler(inner, min_uses=9)
        asked = request(b"/b")
        scarce(asked)
        inner.requests[1].on_gone.append(lambda: stopped.append(2))
        for callback in asked.on_gone:
            callback()
        self.assertEqual(stopped, [1, 2])


class StaleTests(ZoneCase):
    def expired(self, *answers: Any, **changes: Any) -> tuple[Any, Upstream]:
        inner = Upstream(image(b"old"), *answers)
        handler = self.make_handler(inner, **changes)
        self.now(handler(request()))
        self.clock.advance(72)
        return handler, inner

    def test_on_errors(self) -> None:
        for word, trouble in (
            ("error", UpstreamError(Fault.CONNECT, "refused")),
            ("error", NoLivePeers()),
            ("timeout", UpstreamError(Fault.TIMEOUT, "slow")),
            ("invalid_header", UpstreamError(Fault.INVALID_HEADER, "bad")),
            ("http_503", image(status=503)),
            ("http_404", image(status=404)),
        ):
            handler, _ = self.expired(trouble, use_stale=frozenset({word}))
            asked = request()
            response = self.now(handler(asked))
            self.assertEqual((read(response), response.status), (b"old", 200), word)
            self.assertEqual(asked.outcome.cache_status, b"STALE")

    def test_an_error_page_for_a_failed_exchange(self) -> None:
        """What `failure_response` makes of it is told from what an upstream has said."""

        def inner(request: Any) -> Response:
            return failure_response(Failure(UpstreamError(Fault.TIMEOUT, "slow")), request)

        for word, status in (("timeout", 200), ("error", 504), ("http_504", 504)):
            handler, _ = self.expired(use_stale=frozenset({word}))
            handler.inner = inner
            response = self.now(handler(request()))
            self.assertEqual(response.status, status, word)
            discard(response.body)

    def test_cache_status_names_what_the_upstream_said(self) -> None:
        def inner(request: Any) -> Response:
            request.outcome.upstream_headers = Headers()
            return image(status=503)

        broken = UpstreamError(Fault.CLOSED, "killed")
        handler, _ = self.expired(broken, use_stale=frozenset({"error", "http_503"}))
        ours = self.now(handler(request()))
        handler.inner = inner
        theirs = self.now(handler(request()))
        self.assertEqual(status_of(ours), b"imagefarm; fwd=stale; ttl=-12")
        self.assertEqual(status_of(theirs), b"imagefarm; fwd=stale; fwd-status=503; ttl=-12")
        discard(ours.body)
        discard(theirs.body)

    def test_not_without_leave(self) -> None:
        handler, _ = self.expired(image(status=503), use_stale=frozenset({"error"}))
        self.assertEqual(self.now(handler(request())).status, 503)

    def test_an_upstream_502_is_no_error_of_exchange(self) -> None:
        def inner(request: Any) -> Response:
            request.outcome.upstream_headers = Headers()
            return image(status=502)

        handler, _ = self.expired(use_stale=frozenset({"error"}))
        handler.inner = inner
        self.assertEqual(self.now(handler(request())).status, 502)

    def test_all_who_wait_get_the_stale_one(self) -> None:
        trouble: Deferred[Response] = Deferred()
        handler, inner = self.expired(trouble, use_stale=frozenset({"http_500"}))
        answers = [handler(request()) for _ in range(5)]
        trouble.callback(image(status=500))
        self.assertEqual({read(self.now(answer)) for answer in answers}, {b"old"})
        self.assertEqual(len(inner.requests), 2)

    def test_updating(self) -> None:
        update: Deferred[Response] = Deferred()
        handler, _ = self.expired(update, use_stale=frozenset({"updating"}))
        first = handler(request())
        second = request()
        response = self.now(handler(second))
        self.assertEqual(second.outcome.cache_status, b"UPDATING")
        self.assertEqual(status_of(response), b"imagefarm; hit; ttl=-12")
        self.assertEqual(read(response), b"old")
        self.clock.advance(0.25)
        late = self.now(handler(request()))
        discard(late.body)
        self.assertEqual(status_of(late), b"imagefarm; hit; ttl=-13")
        update.callback(image(b"new"))
        self.assertEqual(self.now(first).body, b"new")


class BrokenHandlerTests(ZoneCase):
    def test_a_raising_inner_handler_lets_the_next_try(self) -> None:
        inner = Upstream(RuntimeError("bug"), image(b"ok"))
        handler = self.make_handler(inner)
        self.failureResultOf(handler(request()), RuntimeError)
        self.assertEqual(self.now(handler(request())).body, b"ok")

    def test_reprs(self) -> None:
        self.now(self.make_handler(Upstream(image()))(request()))
        self.assertEqual(
            repr(self.zone),
            "<Zone one manager 1 entries 4096 bytes, "
            "0 hits 1 misses 0 expired 0 bypass 1 stored 0 evicted>",
        )
        self.assertEqual(repr(self.zone.index), "<Index 1 files 4096 bytes 1/1000 keys>")


class SlowClientTests(ZoneCase):
    def test_waiters_need_not_wait_for_a_slow_first_client(self) -> None:
        stream = Stream()
        inner = Upstream(image(stream))  # type: ignore[arg-type]
        handler = self.make_handler(inner)
        body = self.now(handler(request())).body
        waiting = handler(request())
        sink = Sink(body, slow=True)
        body.start(sink)
        stream.send(b"a" * 1000, b"b" * 1000)
        stream.finish()
        self.assertEqual(read(self.now(waiting)), b"a" * 1000 + b"b" * 1000)
        self.assertEqual(sink.body, b"a" * 1000)
        body.resume()
        self.assertEqual(sink.body, b"a" * 1000 + b"b" * 1000)
