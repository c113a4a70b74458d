"""Requests that wait for the answer to another one."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from imagefarm.cache import portion
from imagefarm.cache.entry import Entry
from imagefarm.cache.store import Directory, Found, digest_of
from imagefarm.http.message import Response
from imagefarm.http.upstream import Fault, UpstreamError

from .support import Upstream, ZoneCase, image, read, request


class SingleFlightTests(ZoneCase):
    def test_one_fetch_for_all(self) -> None:
        cold: Deferred[Response] = Deferred()
        inner = Upstream(cold)
        handler = self.make_handler(inner)
        answers = [handler(request()) for _ in range(50)]
        self.assertEqual(len(inner.requests), 1)
        cold.callback(image(b"once"))
        self.assertEqual({read(self.now(answer)) for answer in answers}, {b"once"})
        self.assertEqual((self.zone.counters.stored, self.zone.counters.hits), (1, 49))
        self.assertEqual(len(self.zone.flights), 0)

    def test_the_file_is_read_once_for_all(self) -> None:
        looked: list[bytes] = []
        directory = self.zone.directory

        def opening(digest: bytes) -> Found | None:
            looked.append(digest)
            return Directory.open(directory, digest)

        for size, opened in ((portion.MOST, 1), (portion.MOST + 1, 9)):
            cold: Deferred[Response] = Deferred()
            handler = self.make_handler(Upstream(cold))
            target = b"/%d" % size
            answers = [handler(request(target)) for _ in range(10)]
            looked.clear()
            patch = self.patch(directory, "open", opening)
            cold.callback(image(b"x" * size))
            patch.restore()
            self.assertEqual(len(looked), opened)
            self.assertEqual({len(read(self.now(answer))) for answer in answers}, {size})
            self.assertIsNone(self.zone.flights.portion)

    def test_who_waited_tells_so(self) -> None:
        cold: Deferred[Response] = Deferred()
        handler = self.make_handler(Upstream(cold))
        answers = [handler(request()) for _ in range(3)]
        cold.callback(image(b"x", (b"ETag", b'"e"')))
        for answer in map(self.now, answers[1:]):
            self.assertEqual(answer.headers.first(b"etag"), b'"e"')
            said = answer.headers.first(b"cache-status")
            self.assertEqual(said, b"imagefarm; fwd=miss; collapsed; ttl=60")
            self.assertEqual((answer.ranges, answer.conditional), (True, True))

    def test_variants_are_not_shared(self) -> None:
        cold: Deferred[Response] = Deferred()
        vary = (b"Vary", b"Accept")
        handler = self.make_handler(Upstream(cold, image(b"webp", vary)))
        kinds = (b"avif", b"avif", b"webp", b"avif", b"webp")
        answers = [handler(request(b"/a", (b"Accept", kind))) for kind in kinds]
        cold.callback(image(b"avif", vary))
        self.assertEqual(tuple(read(self.now(answer)) for answer in answers), kinds)

    def test_unstorable_is_not_shared(self) -> None:
        cold: Deferred[Response] = Deferred()
        inner = Upstream(cold, image(b"2", status=404), image(b"3", status=404))
        handler = self.make_handler(inner)
        answers = [handler(request()) for _ in range(3)]
        cold.callback(image(b"1", status=404))
        self.assertEqual([self.now(answer).body for answer in answers], [b"1", b"2", b"3"])

    def test_a_waiter_takes_over_from_a_failure(self) -> None:
        cold: Deferred[Response] = Deferred()
        warm: Deferred[Response] = Deferred()
        inner = Upstream(cold, warm)
        handler = self.make_handler(inner)
        first, second, third = (handler(request()) for _ in range(3))
        cold.errback(UpstreamError(Fault.CLOSED, "killed"))
        self.failureResultOf(first, UpstreamError)
        self.assertEqual(len(inner.requests), 2)
        self.assertNoResult(third)
        warm.callback(image(b"ok"))
        self.assertEqual(self.now(second).body, b"ok")
        self.assertEqual(read(self.now(third)), b"ok")

    def test_thousands_of_failures_do_not_recurse(self) -> None:
        cold: Deferred[Response] = Deferred()
        inner = Upstream(cold, *[image(status=502) for _ in range(3000)])
        handler = self.make_handler(inner)
        answers = [handler(request()) for _ in range(3001)]
        cold.callback(image(status=502))
        self.assertEqual({self.now(answer).status for answer in answers}, {502})

    def test_waiting_has_an_end(self) -> None:
        cold: Deferred[Response] = Deferred()
        inner = Upstream(cold, image(b"own"))
        handler = self.make_handler(inner, lock_timeout=5.0)
        first, second = handler(request()), handler(request())
        self.clock.advance(4.9)
        self.assertNoResult(second)
        self.clock.advance(0.2)
        self.assertEqual(self.now(second).body, b"own")
        cold.callback(image(b"late"))
        self.assertEqual(self.now(first).body, b"late")

    def test_a_waiter_that_leaves(self) -> None:
        cold: Deferred[Response] = Deferred()
        inner = Upstream(cold)
        handler = self.make_handler(inner)
        first, leaver = request(), request()
        answer, left, stays = handler(first), handler(leaver), handler(request())
        for callback in leaver.on_gone:
            callback()
        self.assertEqual(self.now(left).status, 499)
        cold.callback(image(b"x"))
        self.assertEqual(self.now(answer).body, b"x")
        self.assertEqual(read(self.now(stays)), b"x")
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)  # the zone's own

    def test_a_waiter_that_took_over_and_leaves(self) -> None:
        cold: Deferred[Response] = Deferred()
        cancelled: list[bool] = []
        warm: Deferred[Response] = Deferred(lambda _: cancelled.append(True))
        handler = self.make_handler(Upstream(cold, warm))
        leaver = request()
        handler(request()).addErrback(lambda _: None)
        left, stays = handler(leaver), handler(request())
        cold.errback(UpstreamError(Fault.CLOSED, "killed"))
        for callback in leaver.on_gone:
            callback()
        warm.callback(image(b"ok"))
        self.assertEqual(cancelled, [])
        self.assertEqual(self.now(left).body, b"ok")
        self.assertEqual(read(self.now(stays)), b"ok")

    def test_another_process_has_stored_it(self) -> None:
        cold: Deferred[Response] = Deferred()
        handler = self.make_handler(Upstream(cold))
        handler(request()).addErrback(lambda _: None)
        waiting = [handler(request()) for _ in range(3)]
        now = self.clock.seconds()
        entry = Entry(b"/a.jpg", 200, (), now, now + 60)
        self.make_zone().store(entry, digest_of(b"/a.jpg"), b"theirs")
        cold.errback(UpstreamError(Fault.CLOSED, "killed"))
        self.assertEqual([read(self.now(answer)) for answer in waiting], [b"theirs"] * 3)

    def test_another_variant_fetches_its_own(self) -> None:
        vary = (b"Vary", b"Accept")
        cold: Deferred[Response] = Deferred()
        inner = Upstream(cold, image(b"webp", vary))
        handler = self.make_handler(inner)
        one = handler(request(b"/a", (b"Accept", b"avif")))
        two = handler(request(b"/a", (b"Accept", b"webp")))
        cold.callback(image(b"avif", vary))
        self.assertEqual((self.now(one).body, self.now(two).body), (b"avif", b"webp"))
