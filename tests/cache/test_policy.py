from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.cache.entry import Entry
from imagefarm.cache.policy import (
    MAX_VARY,
    Storable,
    ValidTime,
    cache_control,
    fresh,
    may_serve_stale,
    storable,
    truthy,
    valid_for,
    variant,
)
from imagefarm.http.headers import Headers

NOW = 784111777.0
AT = b"Sun, 06 Nov 1994 08:49:37 GMT"
LATER = b"Sun, 06 Nov 1994 08:51:17 GMT"
VALID = (ValidTime(frozenset({200, 302}), 60.0),)


def judge(
    *fields: tuple[bytes, bytes],
    status: int = 200,
    valid: tuple[ValidTime, ...] = VALID,
    ignored: frozenset[bytes] = frozenset(),
) -> float | None:
    """For how many seconds the answer is fresh, None if it must not be stored."""
    verdict = storable(status, Headers(fields), valid, ignored, NOW)
    return None if verdict is None else verdict.expires - NOW


class StorableTests(SynchronousTestCase):
    def test_cache_valid(self) -> None:
        self.assertEqual(judge(), 60.0)
        self.assertEqual(judge(status=302), 60.0)
        self.assertIsNone(judge(status=404))
        self.assertIsNone(judge(valid=()))

    def test_first_matching_line_counts(self) -> None:
        lines = (ValidTime(frozenset({404}), 5.0), ValidTime(None, 1.0), *VALID)
        self.assertEqual(judge(valid=lines), 1.0)
        self.assertEqual(judge(status=404, valid=lines), 5.0)
        self.assertIsNone(judge(valid=(ValidTime(frozenset({200}), 0.0), *VALID)))

    def test_server_errors_only_where_named(self) -> None:
        self.assertIsNone(judge(status=502, valid=(ValidTime(None, 60.0),)))
        self.assertIsNone(judge((b"Cache-Control", b"max-age=60"), status=500))
        self.assertEqual(judge(status=503, valid=(ValidTime(frozenset({503}), 2.0),)), 2.0)
        self.assertEqual(valid_for((ValidTime(None, 9.0),), 404), 9.0)

    def test_parts_and_304_never(self) -> None:
        for status in (101, 206, 304):
            self.assertIsNone(judge((b"X-Accel-Expires", b"60"), status=status))

    def test_cache_control(self) -> None:
        for value, expected in (
            (b"max-age=10", 10.0),
            (b"MAX-AGE = 10", 10.0),
            (b'max-age="10"', 10.0),
            (b"max-age=10, s-maxage=20", 20.0),
            (b"max-age=0", None),
            (b"s-maxage=0, max-age=10", None),
            (b"max-age=ten", None),
            (b"max-age=-1", None),
            (b"public", 60.0),
            (b"no-cache", None),
            (b"no-store", None),
            (b"Private", None),
            (b'private="x", max-age=10', None),
            (b"max-age=99999999999999999999999", float(1 << 31)),
        ):
            self.assertEqual(judge((b"Cache-Control", value)), expected, value)

    def test_cache_control_lines_are_one_list(self) -> None:
        lines = (b"Cache-Control", b"max-age=10"), (b"cache-control", b"no-store")
        self.assertIsNone(judge(*lines))

    def test_expires(self) -> None:
        self.assertEqual(judge((b"Expires", LATER)), 100.0)
        self.assertIsNone(judge((b"Expires", AT)))
        self.assertIsNone(judge((b"Expires", b"0")))

    def test_precedence(self) -> None:
        expires, control = (b"Expires", LATER), (b"Cache-Control", b"max-age=10")
        accel = (b"X-Accel-Expires", b"5")
        self.assertEqual(judge(expires, control), 10.0)
        self.assertEqual(judge((b"Expires", b"0"), control), 10.0)
        self.assertEqual(judge(expires, control, accel), 5.0)
        self.assertEqual(judge((b"Cache-Control", b"no-store"), accel), 5.0)
        self.assertEqual(judge((b"Expires", b"0"), accel), 5.0)

    def test_x_accel_expires(self) -> None:
        for value, expected in (
            (b"0", None),
            (b"@784111787", 10.0),
            (b"@0", None),
            (b"@1", None),
            (b"soon", 60.0),
            (b"-1", 60.0),
            (b"@", 60.0),
        ):
            self.assertEqual(judge((b"X-Accel-Expires", value)), expected, value)

    def test_set_cookie(self) -> None:
        cookie = (b"Set-Cookie", b"a=b")
        self.assertIsNone(judge(cookie))
        self.assertIsNone(judge(cookie, (b"X-Accel-Expires", b"60")))
        self.assertEqual(judge(cookie, ignored=frozenset({b"set-cookie"})), 60.0)

    def test_ignored_headers(self) -> None:
        for name, value in (
            (b"X-Accel-Expires", b"0"),
            (b"Cache-Control", b"no-store"),
            (b"Expires", AT),
            (b"Vary", b"*"),
        ):
            self.assertIsNone(judge((name, value)))
            self.assertEqual(judge((name, value), ignored=frozenset({name.lower()})), 60.0)

    def test_vary(self) -> None:
        headers = Headers([(b"Vary", b"Accept-Encoding, ACCEPT"), (b"Vary", b"accept")])
        self.assertEqual(
            storable(200, headers, VALID, frozenset(), NOW),
            Storable(NOW + 60, vary=(b"accept", b"accept-encoding")),
        )
        self.assertIsNone(judge((b"Vary", b"Accept, *")))
        self.assertIsNone(judge((b"Vary", b"x" * (MAX_VARY + 1))))
        self.assertEqual(judge((b"Vary", b"")), 60.0)

    def test_grace(self) -> None:
        value = b"max-age=1, stale-while-revalidate=20, stale-if-error=30"
        verdict = storable(200, Headers([(b"Cache-Control", value)]), (), frozenset(), NOW)
        self.assertEqual(verdict, Storable(NOW + 1, 20.0, 30.0))

    @given(st.lists(st.tuples(
        st.sampled_from([b"Cache-Control", b"Expires", b"X-Accel-Expires", b"Vary"]),
        st.binary(max_size=40) | st.sampled_from([b"max-age=5", b"no-store", AT, LATER, b"@9"]),
    ), max_size=5))  # fmt: skip
    def test_whatever_comes_what_is_stored_is_fresh(
        self, fields: list[tuple[bytes, bytes]]
    ) -> None:
        verdict = storable(200, Headers(fields), VALID, frozenset(), NOW)
        if verdict is not None:
            self.assertGreater(verdict.expires, NOW)
            self.assertNotIn(b"*", verdict.vary)

    @given(st.lists(st.binary(max_size=30), max_size=4))
    def test_cache_control_names(self, values: list[bytes]) -> None:
        for name, value in cache_control(values).items():
            self.assertTrue(name)
            self.assertEqual(name, name.strip().lower())
            self.assertNotIn(b",", name + value)


class FreshnessTests(SynchronousTestCase):
    entry = Entry(b"k", 200, (), NOW, NOW + 60, stale_while_revalidate=5, stale_if_error=9)

    def test_fresh_until_expiry(self) -> None:
        self.assertTrue(fresh(self.entry, NOW + 59.9))
        self.assertFalse(fresh(self.entry, NOW + 60))

    def test_clock_set_back(self) -> None:
        self.assertTrue(fresh(self.entry, NOW - 30))
        self.assertFalse(fresh(self.entry, NOW - 3600))

    def test_stale_windows(self) -> None:
        def may(condition: str, late: float, *use: str) -> bool:
            return may_serve_stale(self.entry, condition, frozenset(use), NOW + 60 + late)

        self.assertTrue(may("updating", 4))
        self.assertFalse(may("updating", 6))
        self.assertTrue(may("updating", 600, "updating"))
        for condition in ("error", "timeout", "http_500", "http_504"):
            self.assertTrue(may(condition, 8))
            self.assertFalse(may(condition, 10))
            self.assertTrue(may(condition, 600, condition))
        self.assertFalse(may("http_404", 1))
        self.assertTrue(may("http_404", 600, "http_404"))


class VariantTests(SynchronousTestCase):
    names = (b"accept", b"user-agent")

    def test_selects_by_the_named_headers_only(self) -> None:
        one = variant(self.names, Headers([(b"Accept", b"image/avif"), (b"X", b"1")]))
        same = variant(self.names, Headers([(b"X", b"2"), (b"accept", b"image/avif")]))
        other = variant(self.names, Headers([(b"Accept", b"image/webp")]))
        self.assertEqual(one, same)
        self.assertNotEqual(one, other)
        self.assertEqual(len(one), 32)
        self.assertEqual(variant((), Headers([(b"Accept", b"a")])), b"")

    def test_white_space_and_lines_do_not_count(self) -> None:
        spaced = Headers([(b"Accept", b" a ,,  b,"), (b"Accept", b"c")])
        dense = Headers([(b"Accept", b"a,b,c")])
        self.assertEqual(variant(self.names, spaced), variant(self.names, dense))

    def test_a_value_does_not_pass_for_another_header(self) -> None:
        first = Headers([(b"Accept", b"a"), (b"User-Agent", b"b")])
        second = Headers([(b"Accept", b"b"), (b"User-Agent", b"a")])
        self.assertNotEqual(variant(self.names, first), variant(self.names, second))

    def test_truthy(self) -> None:
        self.assertEqual([truthy(v) for v in (b"", b"0", b"00", b"1", b"x")],
                         [False, False, True, True, True])  # fmt: skip
