"""Recipes: queries in, one canonical form out, and what bad parameters get."""

from __future__ import annotations

from urllib.parse import quote_from_bytes

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.image.errors import BadRecipe, ImageError
from imagefarm.image.formats import Format, Wanted
from imagefarm.image.limits import Limits
from imagefarm.image.query import MAX_PATH, MAX_QUERY, NAMES, parse_canonical, parse_query
from imagefarm.image.recipe import (
    CENTRE,
    POINTS,
    Backdrop,
    Colour,
    Crop,
    Fit,
    Gravity,
    Keep,
    Point,
    Recipe,
    Tone,
    Watermark,
    fold,
)

SEGMENT = st.binary(min_size=1, max_size=8).filter(
    lambda name: name not in (b".", b"..") and b"/" not in name and b"\0" not in name
)
SIDE = st.none() | st.integers(1, 8192)
PATH = (
    st.lists(SEGMENT, min_size=1, max_size=4)
    .map(lambda names: b"/" + b"/".join(names))
    .filter(lambda path: b"://" not in path)
)


def decimals(least: float, most: float) -> st.SearchStrategy[float]:
    return st.floats(least, most).map(lambda value: round(value, 4))


POINT = st.sampled_from(list(POINTS.values())) | st.builds(Point, decimals(0, 1), decimals(0, 1))
PIXEL = st.integers(0, 9999).map(float)
CROPS = st.builds(
    Crop, PIXEL, PIXEL, PIXEL.map(lambda value: value + 1), PIXEL.map(lambda value: value + 1)
) | st.builds(
    Crop, decimals(0, 100), decimals(0, 100), decimals(0.1, 100), decimals(0.1, 100), st.just(True)
)
OCTET = st.integers(0, 255)
PERCENT = st.integers(-100, 100)
RECIPES = (
    st.builds(
        Recipe,
        src=PATH,
        w=SIDE,
        h=SIDE,
        fit=st.sampled_from(Fit),
        q=st.none() | st.integers(1, 100),
        fmt=st.sampled_from([*Format, *Wanted]),
        enlarge=st.booleans(),
        gravity=POINT | st.sampled_from(Gravity),
        trim=st.none() | OCTET,
        crop=st.none() | CROPS,
        flip=st.booleans(),
        rotate=st.sampled_from([0, 90, 180, 270]),
        bg=st.none() | st.just(Backdrop.BLUR) | st.builds(Colour, OCTET, OCTET, OCTET, OCTET),
        blur=st.none() | decimals(0.1, 100),
        sharpen=st.none() | decimals(0.1, 10),
        tone=st.sampled_from(Tone),
        brightness=PERCENT,
        contrast=PERCENT,
        saturation=PERCENT,
        radius=st.none() | st.integers(1, 10_000),
        mark=st.none()
        | st.builds(Watermark, PATH, POINT, st.integers(0, 100), st.none() | st.integers(1, 100)),
        max_bytes=st.none() | st.integers(200, 1 << 20),
        lossless=st.booleans(),
        progressive=st.booleans(),
        keep=st.frozensets(st.sampled_from(Keep)),
    )
    .filter(lambda r: not (r.lossless and r.fmt in (Format.JPEG, Format.AVIF, Format.GIF)))
    .map(fold)
)


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
            (b"src=a&w=100&h=50&dpr=2", b"src=a&w=200&h=100&dpr=1"),
            (b"src=a&w=3&dpr=1.5&radius=3&blur=2", b"src=a&w=4&radius=4&blur=3"),
            (b"src=a&w=9&h=9&fit=cover&g=north", b"src=a&w=9&h=9&fit=cover&g=0.5,0"),
            (b"src=a&flip=hv", b"src=a&rotate=180"),
            (b"src=a&flip=v", b"src=a&rotate=180&flip=h"),
            (b"src=a&flip=v&rotate=270", b"src=a&rotate=90&flip=h"),
            (b"src=a&crop=pct:0,0,100,100.0", b"src=a"),
            (b"src=a&g=smart&bg=blur&enlarge=1", b"src=a&fit=pad"),
            (b"src=a&w=5&h=5&fit=pad&bg=FF000000", b"src=a&w=5&h=5&fit=pad&bg=transparent"),
            (b"src=a&bg=FFAA00FF", b"src=a&bg=ffaa00"),
            (b"src=a&wm=m.png&wm_opacity=0", b"src=a&wm_scale=30"),
            (b"src=a&wm=m.png&wm_pos=1,1", b"src=a&wm=/m.png&wm_opacity=100"),
            (b"src=a&tone=gray&saturation=30", b"src=a&tone=gray"),
            (b"src=a&fmt=png&lossless=1&progressive=1", b"src=a&fmt=png&brightness=-0"),
            (b"src=a&fmt=webp&lossless=1&q=30", b"src=a&fmt=webp&lossless=1"),
            (b"src=a&keep=xmp,exif,copyright", b"src=a&keep=exif,xmp,xmp"),
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

    def test_every_parameter(self) -> None:
        query = (
            b"src=/a.jpg&w=320&h=240&fit=pad&enlarge=1&g=0.3,0.25&trim=10&crop=pct:5,5,50.5,90"
            b"&flip=h&rotate=90&bg=ff800080&blur=0.5&sharpen=1.25&tone=bitonal&brightness=-10"
            b"&contrast=20&radius=12&wm=/m%20.png&wm_pos=north&wm_opacity=50&wm_scale=20&q=70"
            b"&max_bytes=9000&progressive=1&keep=icc,xmp&fmt=jpeg"
        )
        recipe = Recipe(
            b"/a.jpg", 320, 240, Fit.PAD, 70, Format.JPEG,
            enlarge=True, gravity=Point(0.3, 0.25), trim=10, crop=Crop(5, 5, 50.5, 90, True),
            flip=True, rotate=90, bg=Colour(255, 128, 0, 128), blur=0.5, sharpen=1.25,
            tone=Tone.BITONAL, brightness=-10, contrast=20, radius=12,
            mark=Watermark(b"/m .png", POINTS["north"], 50, 20), max_bytes=9000,
            progressive=True, keep=frozenset({Keep.ICC, Keep.XMP}),
        )  # fmt: skip
        self.assertEqual(parse_query(query), recipe)
        self.assertEqual(recipe.canonical().encode(), query)
        self.assertEqual(parse_query(b"src=a").gravity, CENTRE)

    def test_a_canonical_form_may_be_longer_than_a_query(self) -> None:
        recipe = parse_query(b"src=" + b"\xff" * (MAX_PATH - 1))
        self.assertGreater(len(recipe.canonical()), MAX_QUERY)
        self.assertEqual(parse_canonical(recipe.canonical().encode()), recipe)

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
        self.assertEqual(
            error.reason, "fit must be one of: contain, cover, fill, inside, outside, pad"
        )
        for value in (b"", b"bmp", b"JPEG", b"same"):
            error = self.refused(b"src=a&fmt=" + value)
            self.assertEqual(error.reason, "fmt must be one of: jpeg, png, webp, avif, gif, auto")

    def test_bounds(self) -> None:
        for name, values, reason in [
            ("dpr", "0 11 -1 nan x 1e1 1.", "must be a number from 0.1 to 10"),
            ("enlarge", "yes 2 true -1", "must be 0 or 1"),
            (
                "g",
                "up 1 2,0 0,-1 1,1,1 nan,0 North ,",
                "must be smart, x,y from 0,0 to 1,1 or one of: " + ", ".join(POINTS),
            ),
            ("trim", "256 -1 x", "must be a whole number from 0 to 255"),
            (
                "crop",
                "1,2,3 1,2,3,4,5 0,0,0,5 1.5,0,5,5 pct:0,0,101,5 pct:0,0,0,1 -1,0,5,5 pct:",
                "must be x,y,w,h in whole pixels or pct:x,y,w,h in percent",
            ),
            ("flip", "x vh 1", "must be one of: h, v, hv"),
            ("rotate", "45 360 -90 x", "must be one of: 0, 90, 180, 270"),
            (
                "bg",
                "red fff #ffffff gggggg ff00000",
                "must be rrggbb or rrggbbaa in hex, blur or transparent",
            ),
            ("blur", "0 101 x -1 inf", "must be a number from 0.1 to 100"),
            ("sharpen", "0 11 x", "must be a number from 0.1 to 10"),
            ("tone", "grey x", "must be one of: color, gray, bitonal"),
            ("brightness", "101 -101 1.5 +1 --1", "must be a whole number from -100 to 100"),
            ("contrast", "101 x", "must be a whole number from -100 to 100"),
            ("saturation", "101 x", "must be a whole number from -100 to 100"),
            ("radius", "0 10001 x", "must be a whole number from 1 to 10000"),
            ("wm", "../a a%00", None),
            ("wm_opacity", "101 -1", "must be a whole number from 0 to 100"),
            ("wm_scale", "0 101", "must be a whole number from 1 to 100"),
            ("max_bytes", "0 199 x 99999999999", "must be a whole number from 200 to 67108864"),
            ("lossless", "2 x", "must be 0 or 1"),
            ("progressive", "2 x", "must be 0 or 1"),
            (
                "keep",
                "gps exif, exif;xmp",
                "must be some of, with commas between: exif, icc, xmp, copyright",
            ),
        ]:
            for value in ["", *values.split(" ")]:
                with self.subTest(name=name, value=value):
                    error = self.refused(f"src=a&{name}={value}".encode())
                    self.assertEqual(error.parameter, name)
                    if reason is not None:
                        self.assertEqual(error.reason, f"{name} {reason}")

    def test_sizes_with_dpr(self) -> None:
        error = self.refused(b"src=a&w=5000&dpr=2")
        self.assertEqual(error.reason, "w times dpr must be at most 8192")

    def test_lossless_formats(self) -> None:
        for fmt in (b"jpeg", b"avif", b"gif"):
            error = self.refused(b"src=a&lossless=1&fmt=" + fmt)
            self.assertEqual(
                error.reason, "lossless needs fmt to be webp, png or auto, or to be left out"
            )

    def test_unknown_and_repeated(self) -> None:
        error = self.refused(b"src=a&width=3")
        self.assertEqual(error.reason, '"width" is not a parameter; known: ' + ", ".join(NAMES))
        self.assertEqual(self.refused(b"src=a&w=3&w=3").reason, "w must be given only once")
        self.assertEqual(self.refused(b"src=a&=3").parameter, '""')
        self.assertEqual(self.refused(b"%0d%0aX:=3&src=a").parameter, '"??X:"')
        self.assertLess(len(self.refused(b"src=a&" + b"x" * 5000).reason), 400)

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
                st.sampled_from([b"x", *(name.encode() for name in NAMES)]),
                st.sampled_from(
                    b"|1|auto|cover|/../|%|-1|nan|pad|blur|0.5,0.5|smart|1,2,3,4|ff0000|webp".split(
                        b"|"
                    )
                ),
            ),
            max_size=8,
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
