"""Recipes: queries in, one canonical form out, and what bad parameters get."""

from __future__ import annotations

from urllib.parse import quote_from_bytes

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.image.errors import BadRecipe, ImageError
from imagefarm.image.formats import Format, Wanted
from imagefarm.image.limits import Limits
from imagefarm.image.recipe import MAX_PATH, MAX_QUERY, Fit, Recipe, fold, parse_query

SEGMENT = st.binary(min_size=1, max_size=8).filter(
    lambda name: name not in (b".", b"..") and b"/" not in name and b"\0" not in name
)
SIDE = st.none() | st.integers(1, 8192)
RECIPES = st.builds(
    Recipe,
    src=st.lists(SEGMENT, min_size=1, max_size=4)
    .map(lambda names: b"/" + b"/".join(names))
    .filter(lambda path: b"://" not in path),
    w=SIDE,
    h=SIDE,
    fit=st.sampled_from(Fit),
    q=st.none() | st.integers(1, 100),
    fmt=st.sampled_from([*Format, *Wanted]),
).map(fold)


class GoodQueries(SynchronousTestCase):
    def test_everything(self) -> None:
        query = b"src=/a.jpg&w=320&h=240&fit=cover&q=75&fmt=webp"
        recipe = Recipe(b"/a.jpg", 320, 240, Fit.COVER, 75, Format.WEBP)
        self.assertEqual(parse_query(query), recipe)
        self.assertEqual(recipe.canonical().encode(), query)

    def test_source_alone(self) -> None:
        self.assertEqual(parse_query(b"src=/a.jpg"), Recipe(b"/a.jpg"))

    def test_equivalent_queries_have_one_canonical_form(self) -> None:
        for one, other in [
            (b"src=/a.jpg&w=1&h=2", b"h=2&w=1&src=a.jpg"),
            (b"src=/a%20b.jpg", b"src=%2Fa+b.jpg"),
            (b"src=/x/../y/./a.jpg", b"src=//y///a.jpg&"),
            (b"src=a&w=10", b"src=a&w=0010&fit=cover"),
            (b"src=a&w=10&h=9", b"src=a&w=10&h=9&fit=inside"),
            (b"src=a&w=10&h=9&fit=contain", b"&&src=a&h=9&w=10"),
            (b"src=a&fmt=jpeg", b"src=a&fmt=jpg&q=80"),
            (b"src=a&fmt=png", b"src=a&fmt=png&q=3"),
            (b"src=a&%77=3", b"src=a&w=3"),
        ]:
            with self.subTest(one=one, other=other):
                self.assertEqual(parse_query(one).canonical(), parse_query(other).canonical())

    def test_different_recipes_differ(self) -> None:
        queries = [
            b"src=a", b"src=A", b"src=a/", b"src=a&w=1", b"src=a&h=1", b"src=a&w=1&h=1",
            b"src=a&w=1&h=1&fit=cover", b"src=a&w=1&h=1&fit=fill", b"src=a&q=80",
            b"src=a&fmt=auto", b"src=a&fmt=jpeg", b"src=a&fmt=webp&q=81", b"src=a%26w=1",
        ]  # fmt: skip
        self.assertEqual(len({parse_query(query).canonical() for query in queries}), len(queries))

    @given(RECIPES)
    def test_the_canonical_form_parses_back(self, recipe: Recipe) -> None:
        self.assertEqual(parse_query(recipe.canonical().encode("ascii")), recipe)

    @given(st.lists(SEGMENT, min_size=1, max_size=5))
    def test_any_path_that_stays_inside_is_kept(self, names: list[bytes]) -> None:
        path = b"/" + b"/".join(names)
        query = b"src=" + quote_from_bytes(path, safe="").encode()
        self.assertEqual(parse_query(query).src, path)

    def test_limits_are_the_callers(self) -> None:
        self.assertEqual(parse_query(b"src=a&w=9000", Limits(max_width=9000)).w, 9000)


class BadQueries(SynchronousTestCase):
    def refused(self, query: bytes, limits: Limits | None = None) -> BadRecipe:
        error = self.assertRaises(BadRecipe, parse_query, query, limits)
        self.assertEqual(error.status, 400)
        self.assertTrue(error.reason.isascii() and error.reason.isprintable(), error.reason)
        self.assertTrue(error.reason.startswith(error.parameter))
        return error

    def test_sides(self) -> None:
        for value in [
            b"", b"0", b"-1", b"+1", b"%2B1", b"1.5", b"1e3", b"NaN", b"inf", b"0x10", b"abc",
            b"8193", b"99999999999999999999999", b"1%00", b" 1", b"1_0", b"%EF%BC%91", b"1,2",
        ]:  # fmt: skip
            for name in (b"w", b"h"):
                with self.subTest(name=name, value=value):
                    error = self.refused(b"src=a&" + name + b"=" + value)
                    expected = f"{name.decode()} must be a whole number from 1 to 8192"
                    self.assertEqual(error.reason, expected)

    def test_a_side_above_its_limit(self) -> None:
        error = self.refused(b"src=a&h=101", Limits(max_height=100))
        self.assertEqual(error.reason, "h must be a whole number from 1 to 100")

    def test_quality(self) -> None:
        for value in [b"", b"0", b"101", b"-5", b"80.0", b"high"]:
            with self.subTest(value=value):
                error = self.refused(b"src=a&q=" + value)
                self.assertEqual(error.reason, "q must be a whole number from 1 to 100")

    def test_words(self) -> None:
        error = self.refused(b"src=a&fit=crop")
        self.assertEqual(error.reason, "fit must be one of: contain, cover, fill, inside")
        for value in (b"", b"bmp", b"JPEG", b"same"):
            error = self.refused(b"src=a&fmt=" + value)
            self.assertEqual(error.reason, "fmt must be one of: jpeg, png, webp, avif, gif, auto")

    def test_unknown_and_repeated(self) -> None:
        error = self.refused(b"src=a&width=3")
        self.assertEqual(error.reason, '"width" is not a parameter; known: src, w, h, fit, q, fmt')
        self.assertEqual(self.refused(b"src=a&w=3&w=3").reason, "w must be given only once")
        self.assertEqual(self.refused(b"src=a&=3").parameter, '""')
        self.assertEqual(self.refused(b"%0d%0aX:=3&src=a").parameter, '"??X:"')
        self.assertLess(len(self.refused(b"src=a&" + b"x" * 5000).reason), 120)

    def test_sources(self) -> None:
        for query, reason in [
            (b"", "src is missing: it must be a path under the image root"),
            (b"w=3", "src is missing: it must be a path under the image root"),
            (b"src=", "src must not be empty"),
            (b"src", "src must not be empty"),
            (b"src=a%00b", "src must not contain a zero byte"),
            (b"src=../a", "src must not climb out of the image root"),
            (b"src=/a/../../b", "src must not climb out of the image root"),
            (b"src=%2e%2e/a", "src must not climb out of the image root"),
            (b"src=http://h/a.jpg", "src must be a path under the image root, not a URL"),
            (b"src=file:%2F%2F/a.jpg", "src must be a path under the image root, not a URL"),
            (b"src=a%", "src is badly encoded: % must be followed by two hex digits"),
            (b"src=a%4", "src is badly encoded: % must be followed by two hex digits"),
            (b"src=a%zz", "src is badly encoded: % must be followed by two hex digits"),
            (b"src=" + b"a" * (MAX_PATH + 1), "src must be at most 4096 bytes long"),
        ]:
            with self.subTest(query=query[:40]):
                self.assertEqual(self.refused(query).reason, reason)

    def test_a_long_query(self) -> None:
        error = self.refused(b"&" * (MAX_QUERY + 1))
        self.assertEqual(error.reason, "query string must be at most 8192 bytes long")

    @given(st.binary(max_size=60))
    def test_any_bytes_make_a_recipe_or_a_400(self, query: bytes) -> None:
        try:
            parse_query(query)
        except ImageError as error:
            self.assertEqual(error.status, 400)
            self.assertTrue(error.reason.isascii() and error.reason.isprintable())

    @given(
        st.lists(
            st.tuples(
                st.sampled_from([b"src", b"w", b"h", b"fit", b"q", b"fmt", b"x"]),
                st.sampled_from([b"", b"1", b"auto", b"cover", b"/../", b"%", b"-1", b"nan"]),
            ),
            max_size=6,
        )
    )
    def test_any_mixture_makes_a_recipe_or_a_400(self, pairs: list[tuple[bytes, bytes]]) -> None:
        query = b"&".join(name + b"=" + value for name, value in pairs)
        try:
            recipe = parse_query(query)
        except BadRecipe as error:
            self.assertEqual(error.status, 400)
        else:
            self.assertEqual(parse_query(recipe.canonical().encode()), recipe)
