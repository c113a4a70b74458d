"""Properties of what `*_cache_rfc9111`, revalidation and ranges ask of the policy."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.cache.entry import Entry
from imagefarm.cache.policy import age, beyond, freshened, storable
from imagefarm.http.dates import format_http
from imagefarm.http.headers import Headers

NOW = 1_800_000_000.0
NAMES = st.sampled_from(
    [b"Cache-Control", b"cache-control", b"ETag", b"Age", b"Content-Type", b"X-One", b"x-one"]
)
FIELDS = st.lists(st.tuples(NAMES, st.binary(max_size=3)), max_size=6)
DIRECTIVES = st.sampled_from(
    [b"public", b"max-age=50", b"s-maxage=60", b"must-revalidate", b"stale-if-error=9"]
)


class StrictTests(SynchronousTestCase):
    @given(
        st.lists(DIRECTIVES, max_size=4),
        st.integers(-100, 100),
        st.integers(0, 100),
        st.booleans(),
    )
    def test_strict_never_keeps_what_nginx_would_not(
        self, directives: list[bytes], shift: int, old: int, authorized: bool
    ) -> None:
        headers = Headers(
            [
                (b"Cache-Control", b", ".join(directives)),
                (b"Date", format_http(NOW + shift)),
                (b"Age", b"%d" % old),
            ]
        )
        lax, strict = (
            storable(
                200, headers, (), frozenset(), NOW, strict=strict, authorized=authorized
            )
            for strict in (False, True)
        )  # fmt: skip
        if strict is not None:
            assert lax is not None
            self.assertLessEqual(strict.expires, lax.expires - old)

    @given(st.integers(-50, 200), st.integers(0, 99), st.floats(0, 1000))
    def test_age_grows_with_the_clock(self, behind: int, told: int, later: float) -> None:
        headers = ((b"Age", b"%d" % told),)
        entry = Entry(b"k", 200, headers, NOW, NOW + 9, date=NOW - behind)
        self.assertEqual(age(entry, NOW), max(behind, told))
        self.assertLessEqual(abs(age(entry, NOW + later) - age(entry, NOW) - later), 1)

    @given(FIELDS, FIELDS)
    def test_a_304_replaces_what_it_names(
        self, stored: list[tuple[bytes, bytes]], new: list[tuple[bytes, bytes]]
    ) -> None:
        fields = freshened(stored, Headers(new))
        self.assertEqual(freshened(fields, Headers(new)), fields)
        for name, value in new:
            if name != b"Content-Type":
                self.assertIn((name, value), fields)
        kinds = [field for field in stored if field[0] == b"Content-Type"]
        self.assertEqual([field for field in fields if field[0] == b"Content-Type"], kinds)

    @given(st.binary(max_size=12), st.integers(0, 50))
    def test_any_range_is_understood_or_not(self, text: bytes, offset: int) -> None:
        self.assertIsInstance(beyond(b"bytes=" + text, offset), bool)
        self.assertFalse(beyond(text, None))

    @given(st.integers(0, 1 << 70), st.integers(1, 1 << 40))
    def test_ranges_begin_before_or_beyond(self, first: int, offset: int) -> None:
        value = b"bytes=%d-" % first
        self.assertIs(beyond(value, offset), first >= offset)
