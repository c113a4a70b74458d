"""Dates in all forms."""

from __future__ import annotations

import os
import time

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.http.dates import (
    cached,
    format_http,
    format_iso8601,
    format_log,
    format_ssi_gmt,
    format_ssi_local,
    next_daily,
    parse_http,
)

from .samples import NOW

#: 1970 to 9999: what fits four digits of a year.
SECONDS = st.integers(min_value=0, max_value=253402300799)


class HttpDateTests(SynchronousTestCase):
    def test_the_three_forms(self) -> None:
        """RFC 9110 section 5.6.7's own examples."""
        for text in (
            b"Sun, 06 Nov 1994 08:49:37 GMT",
            b"Sunday, 06-Nov-94 08:49:37 GMT",
            b"Sun Nov  6 08:49:37 1994",
        ):
            self.assertEqual(parse_http(text), NOW, text)

    def test_format(self) -> None:
        self.assertEqual(format_http(NOW + 0.9), b"Sun, 06 Nov 1994 08:49:37 GMT")

    def test_as_lenient_as_nginx(self) -> None:
        for text in (
            b"Sun, 06 Nov 1994 08:49:37",
            b"Sun, 06 Nov 1994 08:49:37 GMT; length=123",
            b"Mon, 06 Nov 1994 08:49:37 GMT",
        ):
            self.assertEqual(parse_http(text), NOW, text)

    def test_two_digit_years_pivot_at_seventy(self) -> None:
        self.assertEqual(parse_http(b"Thu, 01-Jan-70 00:00:00 GMT"), 0)
        self.assertEqual(parse_http(b"Tue, 01-Jan-69 00:00:00 GMT"), 3124224000)

    def test_what_is_no_date(self) -> None:
        for text in (
            b"",
            b"yesterday",
            b"784111777",
            b"Sun, 31 Feb 1994 08:49:37 GMT",
            b"Sun, 29 Feb 1995 08:49:37 GMT",
            b"Sun, 06 Nov 1994 24:00:00 GMT",
            b"Sun, 06 Nov 1994 08:60:00 GMT",
            b"Sun, 06 Nov 1994 08:49:60 GMT",
            b"Sun, 00 Nov 1994 08:49:37 GMT",
            b"Sun, 06 nov 1994 08:49:37 GMT",
            b"Sun, 6 Nov 1994 08:49:37 GMT",
        ):
            self.assertIsNone(parse_http(text), text)

    @settings(deadline=None)
    @given(SECONDS)
    def test_round_trip(self, seconds: int) -> None:
        self.assertEqual(parse_http(format_http(seconds)), seconds)

    @settings(deadline=None)
    @given(st.binary(max_size=40))
    def test_never_raises(self, text: bytes) -> None:
        parse_http(text)


class CachedTests(SynchronousTestCase):
    def test_formats_once_a_second(self) -> None:
        asked: list[float] = []

        def form(seconds: float) -> bytes:
            asked.append(seconds)
            return b"%d" % seconds

        remembered = cached(form)
        self.assertEqual([remembered(s) for s in (5.1, 5.9, 6.0, 5.5)], [b"5", b"5", b"6", b"5"])
        self.assertEqual(asked, [5.1, 6.0, 5.5])


class LocalTests(SynchronousTestCase):
    """The forms in local time, in a zone that is neither UTC nor of whole hours."""

    def setUp(self) -> None:
        before = os.environ.get("TZ")
        os.environ["TZ"] = "IST-5:30"
        time.tzset()

        def restore() -> None:
            if before is None:
                del os.environ["TZ"]
            else:
                os.environ["TZ"] = before
            time.tzset()

        self.addCleanup(restore)

    def test_time_local(self) -> None:
        self.assertEqual(format_log(NOW), b"06/Nov/1994:14:19:37 +0530")

    def test_time_iso8601(self) -> None:
        self.assertEqual(format_iso8601(NOW), b"1994-11-06T14:19:37+05:30")

    def test_ssi(self) -> None:
        self.assertEqual(format_ssi_gmt(NOW), b"Sunday, 06-Nov-1994 08:49:37 GMT")
        self.assertRegex(format_ssi_local(NOW), rb"^Sunday, 06-Nov-1994 14:19:37 \S+$")

    def test_next_daily(self) -> None:
        """It is 14:19:37: 15:00 is today, 14:00 is tomorrow, and so is this very second."""
        self.assertEqual(next_daily(NOW, 15 * 3600) - NOW, 40 * 60 + 23)
        self.assertEqual(next_daily(NOW, 14 * 3600) - NOW, 86400 - 19 * 60 - 37)
        self.assertEqual(next_daily(NOW, 14 * 3600 + 19 * 60 + 37) - NOW, 86400)
