"""Byte ranges as nginx reads them."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.http.dates import format_http
from imagefarm.http.ranges import (
    ByteRange,
    NotSatisfiable,
    content_range,
    if_range_holds,
    parse,
    part_heads,
    part_tail,
    unsatisfied_range,
)

from .samples import NOW


class ParseTests(SynchronousTestCase):
    def check(self, value: bytes, *expected: tuple[int, int], length: int = 100) -> None:
        found = [(part.start, part.end) for part in parse(value, length)]
        self.assertEqual(found, list(expected), value)

    def test_one(self) -> None:
        self.check(b"bytes=0-0", (0, 1))
        self.check(b"bytes=10-19", (10, 20))
        self.check(b"bytes=90-", (90, 100))
        self.check(b"bytes=90-1000", (90, 100))
        self.check(b"bytes=-5", (95, 100))
        self.check(b"bytes=-1000", (0, 100))
        self.check(b"BYTES= 1 - 2 ", (1, 3))

    def test_several(self) -> None:
        self.check(b"bytes=0-0,-1", (0, 1), (99, 100))
        self.check(b"bytes=0-9, 5-14 ,200-", (0, 10), (5, 15))

    def test_ignored(self) -> None:
        self.check(b"lines=0-1")
        self.check(b"bytes 0-1")
        self.check(b"bytes=")
        self.check(b"bytes=0-59,40-99")  # more than the whole
        self.check(b"bytes=0-", length=0)
        self.check(b"bytes=-5", length=0)

    def test_not_satisfiable(self) -> None:
        for value in (
            b"bytes=100-", b"bytes=200-300", b"bytes=5-4", b"bytes=-0", b"bytes=a-b",
            b"bytes=1", b"bytes=-", b"bytes=- 5", b"bytes=0-1,", b"bytes=,0-1", b"bytes=0-1;2-3",
            b"bytes=0x0-1", b"bytes=+0-1", b"bytes=0-1\n",
            b"bytes=9223372036854775808-", b"bytes=0-" + b"9" * 5000,
        ):  # fmt: skip
            with self.assertRaises(NotSatisfiable, msg=value):
                parse(value, 100)

    def test_leading_zeros_do_not_count(self) -> None:
        self.check(b"bytes=" + b"0" * 5000 + b"1-2", (1, 3))

    def test_limit(self) -> None:
        self.assertEqual(len(parse(b"bytes=0-0,2-2", 100, 2)), 2)
        self.assertEqual(parse(b"bytes=0-0,2-2,4-4", 100, 2), ())
        self.assertEqual(len(parse(b"bytes=0-0,200-,300-", 100, 1)), 1)

    @settings(deadline=None)
    @given(st.binary(max_size=40), st.integers(0, 200))
    def test_any_bytes(self, value: bytes, length: int) -> None:
        try:
            ranges = parse(b"bytes=" + value, length)
        except NotSatisfiable:
            return
        self.assertTrue(all(0 <= r.start < r.end <= length for r in ranges))
        self.assertLessEqual(sum(r.length for r in ranges), length)

    @settings(deadline=None)
    @given(st.lists(st.tuples(st.integers(0, 99), st.integers(0, 99)), min_size=1, max_size=4))
    def test_what_is_asked_is_given(self, pairs: list[tuple[int, int]]) -> None:
        asked = [(min(pair), max(pair) + 1) for pair in pairs]
        value = b"bytes=" + b",".join(b"%d-%d" % (start, end - 1) for start, end in asked)
        if sum(end - start for start, end in asked) > 100:
            asked = []
        self.check(value, *asked)


class IfRangeTests(SynchronousTestCase):
    def test_tags_must_be_equal(self) -> None:
        self.assertTrue(if_range_holds(b'"x"', etag=b'"x"', mtime=NOW))
        self.assertFalse(if_range_holds(b'"x"', etag=b'"y"', mtime=NOW))
        self.assertFalse(if_range_holds(b'"x"', etag=None, mtime=NOW))
        self.assertFalse(if_range_holds(b'W/"x"', etag=b'"x"', mtime=NOW))

    def test_dates_must_be_equal(self) -> None:
        self.assertTrue(if_range_holds(format_http(NOW), etag=None, mtime=NOW + 0.5))
        self.assertFalse(if_range_holds(format_http(NOW + 1), etag=b'"x"', mtime=NOW))
        self.assertFalse(if_range_holds(format_http(NOW - 1), etag=None, mtime=NOW))
        self.assertFalse(if_range_holds(format_http(NOW), etag=None, mtime=None))
        self.assertFalse(if_range_holds(b"x", etag=b"x", mtime=NOW))


class FormatTests(SynchronousTestCase):
    def test_fields(self) -> None:
        self.assertEqual(content_range(ByteRange(1, 3), 10), b"bytes 1-2/10")
        self.assertEqual(unsatisfied_range(10), b"bytes */10")

    def test_parts(self) -> None:
        """nginx's: the first part begins with a line end too."""
        ranges = (ByteRange(0, 2), ByteRange(5, 7))
        self.assertEqual(
            part_heads(ranges, 10, b"image/jpeg", b"0001"),
            [
                b"\r\n--0001\r\nContent-Type: image/jpeg\r\nContent-Range: bytes 0-1/10\r\n\r\n",
                b"\r\n--0001\r\nContent-Type: image/jpeg\r\nContent-Range: bytes 5-6/10\r\n\r\n",
            ],
        )
        self.assertEqual(
            part_heads(ranges[:1], 10, None, b"0001"),
            [b"\r\n--0001\r\nContent-Range: bytes 0-1/10\r\n\r\n"],
        )
        self.assertEqual(part_tail(b"0001"), b"\r\n--0001--\r\n")
