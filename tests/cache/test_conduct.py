"""How expired and partial things are asked for: updates, revalidation, HEAD, ranges, locks."""

from __future__ import annotations

import errno
import os
from typing import Any

from twisted.internet.defer import Deferred

from imagefarm.cache.flights import INTERVAL
from imagefarm.http.headers import Headers
from imagefarm.http.message import Response, discard
from imagefarm.http.upstream import Fault, UpstreamError

from .support import Stream, Upstream, ZoneCase, image, read, request

MODIFIED = (b"Last-Modified", b"Sun, 06 Nov 1994 08:49:37 GMT")
STRICT: dict[str, Any] = {"rfc9111": True}


def control(value: bytes) -> tuple[bytes, bytes]:
    return (b"Cache-Control", value)


class ConductCase(ZoneCase):
    def ask(self, handler: Any, *args: Any, **more: Any) -> tuple[bytes, bytes, Response]:
        """Status for the log, body, and the answer."""
        asked = request(*args, **more)
        response = self.now(handler(asked))
        body = read(response)
        return asked.outcome.cache_status, body, response

    def cache_status(self, response: Response) -> str:
        value = response.headers.get(b"cache-status") or b""
        return value.decode().removeprefix("imagefarm; ")


def handler_changes() -> dict[str, Any]:
    return {"use_stale": frozenset({"updating"}), "background_update": True}


def key_of(*facts: Any) -> Any:
    """A `CacheSettings.key` that keeps the cases of one test apart."""
    return lambda request: repr(facts).encode()


class BackgroundTests(ConductCase):
    def expired(self, *answers: Any, **changes: Any) -> tuple[Any, Upstream]:
        inner = Upstream(image(b"old"), *answers)
        changes.setdefault("use_stale", frozenset({"updating"}))
        handler = self.make_handler(inner, background_update=True, **changes)
        self.ask(handler)
        self.clock.advance(70)
        return handler, inner

    def test_the_client_does_not_wait(self) -> None:
        update: Deferred[Response] = Deferred()
        handler, inner = self.expired(update)
        self.assertEqual(self.ask(handler)[:2], (b"STALE", b"old"))
        self.assertEqual(self.ask(handler)[:2], (b"UPDATING", b"old"))
        update.callback(image(b"new"))
        self.assertEqual(self.ask(handler)[:2], (b"HIT", b"new"))
        self.assertEqual(len(inner.requests), 2)

    def test_each_request_counts_once(self) -> None:
        trouble = Response(503)
        handler, _ = self.expired(
            trouble, trouble, UpstreamError(Fault.CONNECT, "refused"), image(b"new"),
            use_stale=frozenset({"updating"}),
        )  # fmt: skip
        loud = self.make_handler(handler.inner, use_stale=frozenset({"http_503"}))
        self.assertEqual(self.ask(handler)[0], b"STALE")  # 503 behind
        self.assertEqual(self.ask(loud)[0], b"STALE")
        self.assertIsInstance(self.failureResultOf(loud(request())).value, UpstreamError)
        self.assertEqual(self.ask(loud)[0], b"EXPIRED")
        self.assertEqual(self.ask(loud)[0], b"HIT")
        counted = self.zone.counters
        self.assertEqual(
            (counted.hits, counted.misses, counted.stale, counted.expired), (1, 1, 2, 2)
        )

    def test_a_stream_is_stored_though_nobody_reads_it(self) -> None:
        stream = Stream(6)
        handler, _ = self.expired(image(stream))  # type: ignore[arg-type]
        self.ask(handler)
        stream.send(b"new", b"est")
        stream.finish()
        self.assertEqual(self.ask(handler)[:2], (b"HIT", b"newest"))

    def test_it_goes_on_without_the_client(self) -> None:
        update: Deferred[Response] = Deferred()
        handler, inner = self.expired(update)
        asked = request()
        discard(self.now(handler(asked)).body)
        for callback in asked.on_gone:
            callback()
        update.callback(image(b"new"))
        self.assertEqual(self.ask(handler)[1], b"new")
        self.assertIsNot(inner.requests[1].outcome, asked.outcome)

    def test_one_updater_in_all_processes(self) -> None:
        handler, inner = self.expired(Deferred())
        other = self.make_handler(inner, self.make_zone(), **handler_changes())
        self.assertEqual(self.ask(handler)[0], b"STALE")
        self.assertEqual(self.ask(other)[0], b"UPDATING")
        self.assertEqual(len(inner.requests), 2)

    def test_a_failed_update_is_tried_again(self) -> None:
        broken = UpstreamError(Fault.CONNECT, "refused")
        handler, inner = self.expired(broken, image(status=503), image(b"new"))
        self.assertEqual([self.ask(handler)[1] for _ in range(4)], [b"old"] * 3 + [b"new"])
        self.assertEqual(len(inner.requests), 4)

    def test_a_body_is_the_client_s(self) -> None:
        handler, _ = self.expired(image(b"new"))
        answer = self.ask(handler, b"/a.jpg", (b"Content-Length", b"3"))
        self.assertEqual(answer[:2], (b"EXPIRED", b"new"))

    def test_variables_go_with_it(self) -> None:
        handler, inner = self.expired(Deferred())
        asked = request()
        asked.variables["peer"] = b"one"
        discard(self.now(handler(asked)).body)
        self.assertEqual(inner.requests[1].variables, {"peer": b"one"})
        self.assertIsNot(inner.requests[1].variables, asked.variables)

    def test_no_descriptor_for_it(self) -> None:
        def full(fd: int) -> int:
            raise OSError(errno.EMFILE, "too many open files")

        handler, inner = self.expired(image(b"new"))
        self.patch(os, "dup", full)
        self.assertEqual(self.ask(handler)[:2], (b"STALE", b"old"))
        self.assertEqual((len(inner.requests), len(self.zone.flights)), (1, 0))

    def test_only_where_it_may_be_served(self) -> None:
        handler, _ = self.expired(image(b"new"), use_stale=frozenset({"error"}))
        self.assertEqual(self.ask(handler)[:2], (b"EXPIRED", b"new"))

    def test_stale_while_revalidate(self) -> None:
        told = control(b"max-age=60, stale-while-revalidate=20")
        inner = Upstream(image(b"old", told), image(b"new", told), image(b"newer", told))
        handler = self.make_handler(inner, background_update=True)
        self.ask(handler)
        self.clock.advance(70)
        self.assertEqual(self.ask(handler)[:2], (b"STALE", b"old"))
        self.assertEqual(self.ask(handler)[:2], (b"HIT", b"new"))
        self.clock.advance(90)
        self.assertEqual(self.ask(handler)[:2], (b"EXPIRED", b"newer"))

    def test_stale_if_error(self) -> None:
        told = control(b"max-age=60, stale-if-error=20")
        inner = Upstream(image(b"old", told), *(image(status=500) for _ in range(2)))
        handler = self.make_handler(inner)
        self.ask(handler)
        self.clock.advance(70)
        self.assertEqual(self.ask(handler)[:2], (b"STALE", b"old"))
        self.clock.advance(20)
        self.assertEqual(self.now(handler(request())).status, 500)


class RevalidateTests(ConductCase):
    def setUp(self) -> None:
        super().setUp()
        self.answers: list[Response] = []
        self.requests: list[Any] = []

    def inner(self, asked: Any) -> Response:
        self.requests.append(asked)
        answer = self.answers.pop(0)
        asked.outcome.upstream_headers = answer.headers
        return answer

    def handler(self, **changes: Any) -> Any:
        changes.setdefault("revalidate", True)
        return self.make_handler(self.inner, **changes)  # type: ignore[arg-type]

    def test_304_refreshes(self) -> None:
        first = image(b"image", MODIFIED, (b"ETag", b'"1"'), control(b"max-age=60"))
        confirmed = Response(304, Headers([control(b"max-age=30"), (b"X-New", b"1")]))
        self.answers += [first, confirmed]
        handler = self.handler()
        self.ask(handler)
        self.clock.advance(70)
        status, body, response = self.ask(handler, b"/a.jpg", (b"If-None-Match", b'"mine"'))
        self.assertEqual((status, body, response.status), (b"REVALIDATED", b"image", 200))
        self.assertEqual(self.cache_status(response), "fwd=stale; fwd-status=304; stored; ttl=30")
        sent = self.requests[1].head.headers
        self.assertEqual(sent.getall(b"if-none-match"), [b'"1"'])
        self.assertEqual(sent.getall(b"if-modified-since"), [MODIFIED[1]])
        self.clock.advance(29)
        status, body, response = self.ask(handler)
        self.assertEqual((status, body), (b"HIT", b"image"))
        self.assertIsNone(response.headers.get(b"x-new"))  # as nginx: times only
        self.assertEqual(len(self.files()), 1)

    def test_304_that_forbids_to_store(self) -> None:
        self.answers += [
            image(b"image", MODIFIED),
            Response(304, Headers([control(b"no-store")])),
            Response(304),
        ]
        handler = self.handler()
        self.ask(handler)
        self.clock.advance(70)
        self.assertEqual(self.ask(handler)[:2], (b"REVALIDATED", b"image"))
        self.assertEqual(self.ask(handler)[:2], (b"REVALIDATED", b"image"))
        self.assertEqual(self.ask(handler)[:2], (b"HIT", b"image"))

    def test_what_has_changed_replaces(self) -> None:
        self.answers += [image(b"old", MODIFIED), image(b"new", MODIFIED)]
        handler = self.handler()
        self.ask(handler)
        self.clock.advance(70)
        self.assertEqual(self.ask(handler)[:2], (b"EXPIRED", b"new"))

    def test_off_or_without_validators(self) -> None:
        for changes, fields in (({"revalidate": False}, (MODIFIED,)), ({}, ())):
            self.answers += [image(b"old", *fields), image(b"new")]
            self.requests.clear()
            handler = self.handler(key=key_of(changes), **changes)
            self.ask(handler)
            self.clock.advance(70)
            self.assertEqual(self.ask(handler)[1], b"new")
            self.assertNotIn(b"if-modified-since", self.requests[1].head.headers)

    def test_behind_the_client_s_back(self) -> None:
        self.answers += [image(b"image", MODIFIED), Response(304)]
        handler = self.handler(background_update=True, use_stale=frozenset({"updating"}))
        self.ask(handler)
        self.clock.advance(70)
        self.assertEqual(self.ask(handler)[0], b"STALE")
        self.assertEqual(self.ask(handler)[:2], (b"HIT", b"image"))
        self.assertEqual(self.zone.counters.revalidated, 1)

    def test_strict_takes_over_what_a_304_says(self) -> None:
        first = image(b"image", MODIFIED, (b"X", b"old"), control(b"max-age=60"), (b"Age", b"9"))
        new = [control(b"max-age=30"), (b"X", b"new"), (b"Content-Type", b"text/html")]
        self.answers += [first, Response(304, Headers(new))]
        handler = self.handler(rfc9111=True)
        self.ask(handler)
        self.clock.advance(70)
        _, _, response = self.ask(handler)
        _, _, again = self.ask(handler)
        for answer in (response, again):
            self.assertEqual(answer.headers.getall(b"x"), [b"new"])
            self.assertEqual(answer.headers.getall(b"content-type"), [b"image/jpeg"])
            self.assertEqual(answer.headers.getall(b"cache-control"), [b"max-age=30"])
            self.assertEqual(answer.headers.getall(b"age"), [b"0"])


class PartialTests(ConductCase):
    def test_head_as_head(self) -> None:
        inner = Upstream(image(b""), image(b"image"))
        handler = self.make_handler(inner, convert_head=False)
        self.assertEqual(self.ask(handler, method=b"HEAD")[0], b"MISS")
        self.assertEqual(inner.requests[0].head.method, b"HEAD")
        self.assertEqual(self.files(), [])
        self.assertEqual(self.ask(handler)[:2], (b"MISS", b"image"))
        self.assertEqual(self.ask(handler, method=b"HEAD")[:2], (b"HIT", b"image"))

    def test_ranges_beyond_the_offset(self) -> None:
        inner = Upstream(*(image(status=206) for _ in range(3)), image(b"whole"))
        handler = self.make_handler(inner, max_range_offset=100)
        for value in (b"bytes=100-", b"bytes= 7000-8000", b"bytes=-5"):
            field = (b"Range", value)
            _, _, response = self.ask(handler, b"/a.jpg", field)
            self.assertEqual(response.status, 206)
            self.assertEqual(inner.requests[-1].head.headers.get(b"range"), value)
        self.assertEqual(self.files(), [])
        self.assertEqual(self.ask(handler, b"/a.jpg", (b"Range", b"bytes=99-"))[1], b"whole")
        self.assertIsNone(inner.requests[-1].head.headers.get(b"range"))
        self.assertEqual(self.ask(handler, b"/a.jpg", (b"Range", b"bytes=100-"))[0], b"HIT")

    def test_what_is_for_one_client_is_asked_as_it_asks(self) -> None:
        inner = Upstream(image())
        handler = self.make_handler(inner, min_uses=2)
        fields = [(b"If-None-Match", b'"1"'), (b"Range", b"bytes=0-1")]
        self.ask(handler, b"/a.jpg", *fields)
        self.assertEqual(list(inner.requests[0].head.headers), fields)


class LockTests(ConductCase):
    def test_off(self) -> None:
        cold: list[Deferred[Response]] = [Deferred(), Deferred()]
        inner = Upstream(*cold)
        handler = self.make_handler(inner, lock=False)
        answers = [handler(request()) for _ in range(2)]
        self.assertEqual(len(inner.requests), 2)
        for number, deferred in enumerate(cold):
            deferred.callback(image(b"%d" % number))
        self.assertEqual([self.now(answer).body for answer in answers], [b"0", b"1"])
        self.assertEqual(self.ask(handler)[:2], (b"HIT", b"1"))

    def test_after_the_timeout_nothing_is_stored(self) -> None:
        inner = Upstream(Deferred(), image(b"own"))
        handler = self.make_handler(inner, lock_timeout=3.0)
        handler(request()).addErrback(lambda _: None)
        second = handler(request())
        self.clock.advance(3.1)
        response = self.now(second)
        self.assertEqual((response.body, self.cache_status(response)), (b"own", "fwd=miss"))
        self.assertEqual([n for n in self.files() if n.count("/") == 2], [])

    def test_one_more_after_the_age(self) -> None:
        hanging: Deferred[Response] = Deferred()
        inner = Upstream(hanging, image(b"quick"))
        handler = self.make_handler(inner, lock_age=1.0, lock_timeout=60.0)
        handler(request())
        answers = [handler(request()) for _ in range(3)]
        self.clock.pump([0.1] * 12)
        self.assertEqual({read(self.now(answer)) for answer in answers}, {b"quick"})
        self.assertEqual(len(inner.requests), 2)
        hanging.callback(image(b"late"))
        self.assertEqual(len(self.zone.flights), 0)

    def test_across_processes(self) -> None:
        cold: Deferred[Response] = Deferred()
        inner = Upstream(cold)
        handlers = [self.make_handler(inner, self.make_zone()) for _ in range(4)]
        answers = [handler(request()) for handler in handlers for _ in range(50)]
        self.clock.pump([INTERVAL] * 3)
        cold.callback(image(b"once"))
        self.clock.pump([INTERVAL] * 2)
        found = [self.now(answer) for answer in answers]
        self.assertEqual({read(response) for response in found}, {b"once"})
        self.assertEqual(len(inner.requests), 1)
        said = {self.cache_status(response) for response in found}
        collapsed = {f"fwd=miss; collapsed; ttl={left}" for left in (59, 60)}
        self.assertEqual(said, {"fwd=miss; stored", *collapsed})

    def test_another_process_takes_over_from_a_failure(self) -> None:
        cold: Deferred[Response] = Deferred()
        inner = Upstream(cold, image(b"second try"))
        one, two = (self.make_handler(inner, self.make_zone()) for _ in range(2))
        first, second = one(request()), two(request())
        cold.errback(UpstreamError(Fault.CLOSED, "gone"))
        self.failureResultOf(first, UpstreamError)
        self.clock.advance(INTERVAL)
        self.assertEqual(self.now(second).body, b"second try")

    def test_stored_between_looking_and_leading(self) -> None:
        handler = self.make_handler(Upstream(image(b"theirs")))
        other = self.make_handler(Upstream(), self.make_zone())
        look = other.zone.find

        def find(key: bytes, headers: Headers, follow: Any) -> Any:
            found = look(key, headers, follow)
            self.ask(handler)
            return found

        other.zone.find = find
        self.assertEqual(self.ask(other)[:2], (b"HIT", b"theirs"))
        self.assertEqual(len(other.zone.flights), 0)
