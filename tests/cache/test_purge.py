from __future__ import annotations

import os
import tempfile
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.cache.groups import SETTLED, Groups, source_group
from imagefarm.cache.purge import MARKS_INTERVAL
from imagefarm.cache.purges import KEPT, PREFIX, Mark, decode, encode
from imagefarm.cache.store import digest_of
from imagefarm.cache.zone import Zone
from imagefarm.http.headers import Headers
from imagefarm.http.message import Response

from .support import Upstream, ZoneCase, image, read, request

MARKS = st.lists(
    st.builds(
        Mark,
        st.floats(min_value=0, max_value=2.0**40),
        st.sampled_from([b"k", b"s", b"p", b"q"]),
        st.binary(max_size=50),
    )
)


def rendition(body: bytes, source: bytes) -> Any:
    """An upstream's answer whose original only the farm may see."""

    def answer(request: Any) -> Response:
        request.outcome.upstream_headers = Headers([(b"X-Imagefarm-Source", source)])
        return image(body)

    return answer


class Renderer(Upstream):
    """An upstream that calls its answers."""

    def __call__(self, request: Any) -> Response:
        answer = super().__call__(request)
        return answer(request) if callable(answer) else answer


class CodecTests(SynchronousTestCase):
    @given(MARKS, st.data())
    def test_round_trip_and_every_cut(self, marks: list[Mark], data: st.DataObject) -> None:
        text = encode(marks)
        self.assertEqual(list(decode(text)), marks)
        cut = data.draw(st.integers(0, len(text)))
        found = list(decode(text[:cut]))
        self.assertEqual(found, marks[: len(found)])


class PurgeCase(ZoneCase):
    def fill(self, target: bytes, body: bytes, source: bytes = b"") -> None:
        """Store what ``target`` gives, made from ``source``."""
        answer = rendition(body, source) if source else image(body)
        self.now(self.make_handler(Renderer(answer))(request(target)))
        self.clock.advance(1)

    def cached(self, target: bytes, zone: Zone | None = None) -> bytes | None:
        """The body of a hit."""
        _, found = (zone or self.zone).find(target, Headers())
        if found is None:
            return None
        found.file.close()
        return found.entry.key if found.entry.expires > self.clock.seconds() else b"stale"


class KeyTests(PurgeCase):
    def test_by_key(self) -> None:
        self.fill(b"/a", b"1")
        self.fill(b"/b", b"2")
        self.assertEqual(self.zone.purger.key(b"/a"), 1)
        self.assertEqual(self.zone.purger.key(b"/a"), 0)
        self.assertEqual((self.cached(b"/a"), self.cached(b"/b")), (None, b"/b"))
        self.assertEqual((self.zone.entries, self.zone.counters.purged), (1, 1))

    def test_all_variants_of_a_key(self) -> None:
        answers = [image(b"%d" % n, (b"Vary", b"Accept")) for n in range(3)]
        handler = self.make_handler(Upstream(*answers))
        for number in range(3):
            self.now(handler(request(b"/a", (b"Accept", b"%d" % number))))
        self.assertEqual(len(self.files()), 3)
        self.clock.advance(1)
        self.assertEqual(self.zone.purger.key(b"/a"), 3)
        self.assertEqual(self.files(), [])

    def test_what_was_asked_for_before_is_not_stored(self) -> None:
        def answer(asked: Any) -> Any:
            self.clock.advance(1)
            self.zone.purger.key(b"/a")
            self.clock.advance(1)
            return image(b"old")

        handler = self.make_handler(Renderer(answer, image(b"new")))
        self.assertEqual(self.now(handler(request(b"/a"))).body, b"old")
        self.assertEqual(self.files(), [])
        self.assertEqual(self.now(handler(request(b"/a"))).body, b"new")
        self.assertEqual(self.cached(b"/a"), b"/a")

    def test_the_request_that_purges(self) -> None:
        self.fill(b"/a", b"1")
        purging = self.make_handler(
            Upstream(), purge=(lambda asked: b"1" if asked.head.method == b"PURGE" else b"0",)
        )
        self.assertEqual(read(purging(request(b"/a"))), b"1")
        for status in (204, 404):
            self.assertEqual(purging(request(b"/a", method=b"PURGE")).status, status)
        self.fill(b"/a", b"1")
        self.assertEqual(purging(request(b"/*", method=b"PURGE")).status, 204)
        self.assertIsNone(self.cached(b"/a"))


class PrefixTests(PurgeCase):
    def test_ends_what_was_there_in_all_processes(self) -> None:
        other = self.make_zone()
        self.rounds(2)
        for target in (b"/a/1", b"/a/2", b"/b/1"):
            self.fill(target, b"x")
        self.assertEqual(self.cached(b"/a/1", other), b"/a/1")
        self.zone.purger.prefix(b"/a/")
        self.clock.advance(1)
        self.assertIsNone(self.cached(b"/a/1", other))
        self.assertEqual((self.cached(b"/a/2"), self.cached(b"/b/1")), (None, b"/b/1"))
        self.fill(b"/a/1", b"y")
        self.assertEqual(self.cached(b"/a/1", other), b"/a/1")
        self.assertEqual(len(self.files()), 2)

    def test_survives_a_restart_until_nothing_can_be_left(self) -> None:
        self.fill(b"/a/1", b"x")
        self.zone.purger.prefix(b"/a/")
        self.zone.stop()
        self.zone = self.make_zone()
        self.assertIsNone(self.cached(b"/a/1"))
        self.rounds(3, MARKS_INTERVAL)
        self.assertEqual(len(self.zone.purges.prefixes), 1)
        self.rounds(12, MARKS_INTERVAL)
        self.assertEqual(self.zone.purges.prefixes, ())

    def test_soft(self) -> None:
        self.fill(b"/a/1", b"x")
        self.zone.purger.prefix(b"/a/", soft=True)
        self.clock.advance(1)
        self.assertEqual(self.cached(b"/a/1"), b"stale")

    def test_the_purger_removes(self) -> None:
        self.zone.stop()
        self.zone = self.make_zone(purger=True)
        for number in range(5):
            self.fill(b"/a/%d" % number, b"x")
        self.fill(b"/b", b"x")
        self.zone.purger.prefix(b"/a/")
        self.rounds(4)
        self.assertEqual((len(self.files()), self.zone.counters.purged), (1, 5))
        self.assertEqual(self.zone.entries, 1)


class SourceTests(PurgeCase):
    def test_all_renditions_and_nothing_else(self) -> None:
        for width in range(5):
            self.fill(b"/a?w=%d" % width, b"x", b"/a.jpg")
        self.fill(b"/b", b"x", b"/b.jpg")
        self.fill(b"/c", b"x")
        self.assertEqual(self.zone.purger.source(b"/a.jpg"), 5)
        self.assertEqual(len(self.files()), 2)
        self.assertEqual(self.zone.purger.source(b"/a.jpg"), 0)

    def test_a_key_that_has_another_original_now(self) -> None:
        self.fill(b"/a", b"x", b"/a.jpg")
        self.zone.purger.key(b"/a")
        self.clock.advance(1)
        self.fill(b"/a", b"x", b"/b.jpg")
        self.assertEqual(self.zone.purger.source(b"/a.jpg"), 0)
        self.assertEqual(self.cached(b"/a"), b"/a")

    def test_soft_is_seen_by_all_and_ends_with_the_refresh(self) -> None:
        other = self.make_zone()
        self.fill(b"/a", b"1", b"/a.jpg")
        self.assertEqual(self.zone.purger.source(b"/a.jpg", soft=True), 1)
        self.assertEqual(self.cached(b"/a", other), b"stale")
        _, found = other.find(b"/a", Headers())
        assert found is not None
        self.assertGreater(found.entry.stale_while_revalidate, 0)
        found.file.close()
        self.clock.advance(1)
        self.fill(b"/a", b"2", b"/a.jpg")
        self.assertEqual(self.cached(b"/a", other), b"/a")

    def test_lists_of_nothing_are_removed(self) -> None:
        self.fill(b"/a", b"1", b"/a.jpg")
        self.fill(b"/b", b"1", b"/b.jpg")
        name = os.path.join(os.fsencode(self.path), b"groups")
        lists = [os.path.join(where, n) for where, _, names in os.walk(name) for n in names]
        for path in lists:
            then = self.clock.seconds() - SETTLED - 1
            os.utime(path, (then, then))
        self.zone.purger.source(b"/a.jpg")
        for path in lists:
            os.utime(path, (then, then))
        groups = Groups(os.fsencode(self.path))
        for _ in groups.clean_up(self.zone.directory.used_at, self.clock.seconds):
            pass
        self.assertEqual(sum(map(os.path.exists, lists)), 1)
        self.assertEqual(groups.members(source_group(b"/b.jpg")), [digest_of(b"/b")])

    def test_a_group_survives_a_write_that_was_cut_short(self) -> None:
        groups = Groups(os.fsencode(self.path))
        os.close(groups.add(b"ab12", b"1" * 16))
        with open(os.path.join(self.path, "groups", "ab", "ab12"), "ab") as file:
            file.write(b"half")
        for _ in range(2):
            os.close(groups.add(b"ab12", b"2" * 16))
        self.assertEqual(groups.members(b"ab12"), [b"1" * 16, b"2" * 16])


class MarkTests(PurgeCase):
    def test_old_marks_are_dropped(self) -> None:
        self.zone.purger.key(b"/a")
        self.zone.purger.prefix(b"/p")
        path = os.path.join(self.path, "purges")
        size = os.stat(path).st_size
        self.rounds(2, MARKS_INTERVAL)
        self.assertEqual(os.stat(path).st_size, size)
        self.rounds(1, KEPT)
        self.rounds(2, MARKS_INTERVAL)
        self.assertEqual(os.stat(path).st_size, 0)

    def test_a_mark_from_the_future_ends_nothing(self) -> None:
        self.fill(b"/a", b"x")
        self.zone.purges.mark(Mark(self.clock.seconds() + 1000, PREFIX, b"/a"))
        self.assertEqual(self.cached(b"/a"), b"/a")


class FollowTests(PurgeCase):
    def setUp(self) -> None:
        super().setUp()
        self.root = tempfile.mkdtemp(dir=os.path.dirname(self.path))
        self.original = os.path.join(self.root, "a b.jpg")
        with open(self.original, "wb") as file:
            file.write(b"original")
        os.utime(self.original, (1000, 1000))
        # The file's ctime is the real clock's; answers are asked for long after.
        self.clock.advance(100)
        self.roots = (os.fsencode(self.root) + b"/none", os.fsencode(self.root))

    def asked(self, count: int) -> tuple[Any, Renderer]:
        answers = [rendition(b"%d" % number, b"/a%20b.jpg") for number in range(count)]
        upstream = Renderer(*answers)
        return self.make_handler(upstream, follow=self.roots), upstream

    def bodies(self, handler: Any, count: int) -> list[bytes]:
        found = []
        for _ in range(count):
            response = self.now(handler(request(b"/a")))
            found.append(response.body if isinstance(response.body, bytes) else read(response))
            self.clock.advance(1)
        return found

    def test_unchanged_is_a_hit(self) -> None:
        handler, _ = self.asked(1)
        self.assertEqual(self.bodies(handler, 3), [b"0", b"0", b"0"])

    def test_changed_is_asked_for_again(self) -> None:
        for change in (
            lambda: os.utime(self.original, (2000, 2000)),
            lambda: os.truncate(self.original, 3),
            lambda: os.unlink(self.original),
        ):
            self.zone.purger.key(b"/a")
            self.clock.advance(1)
            handler, _ = self.asked(2)
            self.assertEqual(self.bodies(handler, 2), [b"0", b"0"])
            change()
            self.clock.advance(100)
            self.assertEqual(self.bodies(handler, 2), [b"1", b"1"])
        self.assertEqual(self.zone.counters.changed, 3)

    def test_changed_while_it_was_read(self) -> None:
        self.clock.rightNow -= 100
        handler, _ = self.asked(3)
        self.assertEqual(self.bodies(handler, 1), [b"0"])
        self.clock.advance(100)
        self.assertEqual(self.bodies(handler, 3), [b"1", b"1", b"1"])

    def test_a_source_that_leads_elsewhere(self) -> None:
        upstream = Renderer(rendition(b"x", b"/../a"), rendition(b"y", b"/a%00"))
        handler = self.make_handler(upstream, follow=self.roots)
        self.assertEqual(self.bodies(handler, 2), [b"x", b"x"])
