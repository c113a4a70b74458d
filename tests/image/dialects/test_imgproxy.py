"""imgproxy's URLs as recipes; what is refused; signatures as its documentation has them."""

from __future__ import annotations

import base64

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.image.dialects import imgproxy
from imagefarm.image.errors import BadRecipe, Expired, Forbidden, ImageError
from imagefarm.image.limits import Limits
from imagefarm.image.places import Dialect, Keys, Place, Signature
from imagefarm.image.query import parse_query
from imagefarm.image.recipe import Recipe

LIMITS = Limits()
POINTS = "nowe, no, noea, we, ce, ea, sowe, so, soea"
NOW = 1_800_000_000.0
PRESETS = {"thumb": {"w": b"320", "fit": b"cover", "h": b"240"}, "soft": {"blur": b"3"}}
OPEN = Place(b"/", Dialect.IMGPROXY, presets=PRESETS)
ONLY = Place(b"/", Dialect.IMGPROXY, presets=PRESETS, presets_only=True)
#: The pair of imgproxy's documentation.
KEY = bytes.fromhex("736563726574")
SALT = bytes.fromhex("68656C6C6F")
KEYS = Keys(imgproxy=((b"the old one", b""), (KEY, SALT)))
SIGNED = Place(b"/", Dialect.IMGPROXY, Signature.REQUIRED, KEYS)
OPTIONAL = Place(b"/", Dialect.IMGPROXY, Signature.OPTIONAL, KEYS)


def recipe(text: str, place: Place = OPEN) -> Recipe:
    return imgproxy.parse(f"_/{text}".encode(), place, LIMITS, NOW)[0]


class Recipes(SynchronousTestCase):
    def test_options(self) -> None:
        for text, query in [
            ("", ""),
            ("rs:fill:300:200/", "w=300&h=200&fit=cover"),
            ("resize:fit:300:200:1/", "w=300&h=200&enlarge=1"),
            ("rs:force:300:200/", "w=300&h=200&fit=fill"),
            ("rs:fill-down:300:200/", "w=300&h=200&fit=cover"),
            ("rs::300/", "w=300"),
            ("rs:fit:300:200:0:1/", "w=300&h=200&fit=pad"),
            ("s:300:200/rt:fill/", "w=300&h=200&fit=cover"),
            ("size:0:200:t/", "h=200&enlarge=1"),
            ("w:300/h:0/", "w=300"),
            ("w:300/w:100/", "w=100"),
            ("w:150/dpr:2/", "w=300"),
            ("rs:fill:300:200/g:noea/", "w=300&h=200&fit=cover&g=northeast"),
            ("rs:fill:300:200/g:sm/", "w=300&h=200&fit=cover&g=smart"),
            ("rs:fill:300:200/g:fp:0.25:0.75/", "w=300&h=200&fit=cover&g=0.25,0.75"),
            ("rs:fit:300:200/ex:1:so/", "w=300&h=200&fit=pad&g=south"),
            ("c:0.5:0.25/", "crop=pct:25,37.5,50,25"),
            ("c:0.5:0:ea/", "crop=pct:50,0,50,100"),
            ("c:100:200:nowe:10:20/", "crop=10,20,100,200"),
            ("c:0:0/", ""),
            ("t:10/", "trim=10"),
            ("rot:90/w:300/", "h=300&rotate=90"),
            ("rs:fill:300:200/g:no/rot:90/", "w=200&h=300&fit=cover&rotate=90&g=east"),
            ("fl:1/", "flip=h"),
            ("fl:1/rot:90/", "flip=v&rotate=90"),
            ("fl:1:1/rot:270/", "flip=hv&rotate=270"),
            ("bg:255:128:0/", "bg=ff8000"),
            ("bg:f80/", "bg=ff8800"),
            ("bg:f80/bg:/", ""),
            ("bl:2.5/sh:0.7/", "blur=2.5&sharpen=0.7"),
            ("bl:2.5/bl:0/", ""),
            ("q:70/f:webp/", "q=70&fmt=webp"),
            ("q:0/mb:40000/", "max_bytes=40000"),
            ("ar:1/sm:1/scp:true/kcr:1/", "keep=copyright"),
            ("cb:anything:at:all/exp:1900000000/", ""),
            ("pr:thumb/", "w=320&h=240&fit=cover"),
            ("pr:thumb:soft/w:100/", "w=100&h=240&fit=cover&blur=3"),
        ]:
            with self.subTest(text=text):
                self.assertEqual(
                    recipe(f"{text}plain/a.jpg"), parse_query(f"src=a.jpg&{query}".encode())
                )

    def test_sources(self) -> None:
        encoded = base64.urlsafe_b64encode(b"local:///photos/a?b.jpg").decode().rstrip("=")
        for text, query in [
            ("plain/photos/a.jpg", "src=/photos/a.jpg"),
            ("plain/local:///photos/a.jpg@png", "src=/photos/a.jpg&fmt=png"),
            ("plain/a%20b%40c.jpg@webp", "src=/a%20b%40c.jpg&fmt=webp"),
            ("plain/plain/a.jpg", "src=/plain/a.jpg"),
            (encoded, "src=/photos/a%3Fb.jpg"),
            (f"{encoded}.png", "src=/photos/a%3Fb.jpg&fmt=png"),
            (f"w:9/{encoded[:8]}/{encoded[8:]}.avif", "src=/photos/a%3Fb.jpg&w=9&fmt=avif"),
            (f"{encoded}==", "src=/photos/a%3Fb.jpg"),
        ]:
            with self.subTest(text=text):
                self.assertEqual(recipe(text), parse_query(query.encode()))

    def test_only_presets(self) -> None:
        self.assertEqual(
            recipe("thumb:soft/plain/a.jpg", ONLY), recipe("pr:thumb:soft/plain/a.jpg")
        )
        self.assertRaises(BadRecipe, recipe, "w:100/plain/a.jpg", ONLY)
        self.assertRaises(BadRecipe, recipe, "thumb/w:100/plain/a.jpg", ONLY)

    def test_refused(self) -> None:
        for text, reason in [
            ("rs:auto:1:1/", "resizing_type must be one of: fit, fill, fill-down, force"),
            ("rs:fill:1:1:0:1/", "extend is supported with the resizing type fit alone"),
            ("w:9000/", "w must be a whole number from 0 to 8192"),
            ("w:-1/", "w must be a whole number from 0 to 8192"),
            ("w:/", "w must be a whole number from 0 to 8192"),
            ("el:2/", "el must be 1, t, true, 0, f or false"),
            ("g:no:10/", "g may have no offsets, only fp:x:y"),
            ("g:fp:2:0/", "g must be a number from 0 to 1"),
            ("g:x/", f"g must be sm, fp:x:y or one of: {POINTS}"),
            ("ex:1:sm/", f"ex must be fp:x:y or one of: {POINTS}"),
            ("c:1:2/", "crop must be shares below 1, or pixels with nowe and offsets in pixels"),
            ("t:10:ff0000/", "t takes a threshold alone"),
            ("rot:45/", "rot must be 0, 90, 180 or 270"),
            ("bg:red/", "bg must be R:G:B from 0 to 255, or rgb or rrggbb in hex"),
            ("sm:0/", "sm must be 1"),
            ("pd:10/", "options has pd, which is not supported"),
            ("f:tiff/", "fmt must be one of: jpeg, png, webp, avif, gif, auto"),
            ("exp:x/", "exp must be seconds since 1970, a whole number"),
            ("pr:none/", "preset must be one of: soft, thumb"),
            ("cb:1/" * 65, "options must be at most 64"),
        ]:
            with self.subTest(text=text):
                error = self.assertRaises(BadRecipe, recipe, f"{text}plain/a.jpg")
                self.assertEqual(error.reason, reason)
        for text in ("enc/abc", "plain/", "w:9", "!!", "plain/https://h/a.jpg", "plain/../a", "a"):
            with self.subTest(text=text):
                self.assertRaises(BadRecipe, recipe, text)

    def test_expired(self) -> None:
        error = self.assertRaises(Expired, recipe, "exp:1799999999/plain/a.jpg")
        self.assertEqual(error.status, 410)

    @given(
        st.lists(
            st.sampled_from(
                [*imgproxy.OPTIONS, ":", "::", "/", "/", "1", "0", "300", "fill", "sm", "fp",
                 "nowe", ".5", "plain", "/plain/a.jpg", "@png", "YS5qcGc", ".png", "%", "%2F",
                 "thumb", "ff0"]
            ),
            max_size=14,
        ),
        st.binary(max_size=4),
    )  # fmt: skip
    def test_anything_makes_a_recipe_or_a_400(self, parts: list[str], tail: bytes) -> None:
        path = b"_/" + "".join(parts).encode() + tail
        for place in (OPEN, ONLY):
            try:
                made, _ = imgproxy.parse(path, place, LIMITS, NOW)
            except ImageError as error:
                self.assertIn(error.status, (400, 410))
                self.assertTrue(error.reason.isascii() and error.reason.isprintable())
            else:
                self.assertEqual(parse_query(made.canonical().encode()), made)

    @given(st.binary(max_size=40))
    def test_any_bytes(self, path: bytes) -> None:
        for place in (OPEN, ONLY, SIGNED, OPTIONAL):
            try:
                imgproxy.parse(path, place, LIMITS, NOW)
            except ImageError as error:
                self.assertIn(error.status, (400, 403, 410))


class Signatures(SynchronousTestCase):
    #: The example of imgproxy's "Signing the URL".
    REST = b"/rs:fill:300:400:0/g:sm/aHR0cDovL2V4YW1w/bGUuY29tL2ltYWdl/cy9jdXJpb3NpdHku/anBn.png"

    def test_the_documented_one(self) -> None:
        self.assertEqual(
            imgproxy.sign(KEY, SALT, self.REST), b"oKfUtW34Dvo2BGQehJFR4Nr0_rIjOtdtzJ3QFsUcXH8"
        )

    def test_good(self) -> None:
        rest = b"/w:300/plain/a.jpg"
        for pair in KEYS.imgproxy:
            for place in (SIGNED, OPTIONAL):
                path = imgproxy.sign(*pair, rest) + rest
                made, proven = imgproxy.parse(path, place, LIMITS, NOW)
                self.assertTrue(proven)
                self.assertEqual(made, parse_query(b"src=a.jpg&w=300"))

    def test_wrong(self) -> None:
        rest = b"/w:300/plain/a.jpg"
        good = imgproxy.sign(KEY, SALT, rest)
        for path in (
            good + b"/w:301/plain/a.jpg",
            good[:-1] + rest,
            b"x" + rest,
            b"unsafe" + rest,
        ):
            self.assertRaises(Forbidden, imgproxy.parse, path, SIGNED, LIMITS, NOW)
        self.assertRaises(Forbidden, imgproxy.parse, b"x" + rest, OPTIONAL, LIMITS, NOW)

    def test_unsigned_where_it_may_be(self) -> None:
        self.assertFalse(imgproxy.parse(b"unsafe/plain/a.jpg", OPTIONAL, LIMITS, NOW)[1])
        self.assertFalse(imgproxy.parse(b"anything/plain/a.jpg", OPEN, LIMITS, NOW)[1])
