"""thumbor's URLs as recipes; what is refused; signatures as thumbor's clients make them."""

from __future__ import annotations

import base64
import hashlib
import hmac

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.image.dialects import thumbor
from imagefarm.image.errors import BadRecipe, Forbidden, ImageError
from imagefarm.image.limits import Limits
from imagefarm.image.places import Dialect, Keys, Place, Signature
from imagefarm.image.query import parse_query
from imagefarm.image.recipe import Recipe

LIMITS = Limits()
OPEN = Place(b"/t/", Dialect.THUMBOR)
KEYS = Keys(thumbor=(b"MY_SECURE_KEY", b"the next one"))
SIGNED = Place(b"/t/", Dialect.THUMBOR, Signature.REQUIRED, KEYS)
OPTIONAL = Place(b"/t/", Dialect.THUMBOR, Signature.OPTIONAL, KEYS)


def recipe(text: str) -> Recipe:
    return thumbor.parse(f"unsafe/{text}".encode(), OPEN, LIMITS)[0]


def signed(key: bytes, rest: bytes) -> bytes:
    digest = hmac.new(key, rest, hashlib.sha1).digest()
    return base64.urlsafe_b64encode(digest) + b"/" + rest


class Recipes(SynchronousTestCase):
    def test_options_and_filters(self) -> None:
        for text, query in [
            ("a.jpg", ""),
            ("photos/a%20b.jpg", None),
            ("300x200/a.jpg", "w=300&h=200&fit=cover&enlarge=1"),
            ("300x0/a.jpg", "w=300&enlarge=1"),
            ("300x/a.jpg", "w=300&enlarge=1"),
            ("x200/a.jpg", "h=200&enlarge=1"),
            ("0x0/a.jpg", ""),
            ("origxorig/a.jpg", ""),
            ("-300x-200/a.jpg", "w=300&h=200&fit=cover&enlarge=1&flip=hv"),
            ("-0x0/a.jpg", "flip=h"),
            ("fit-in/300x200/a.jpg", "w=300&h=200"),
            ("full-fit-in/300x200/a.jpg", "w=300&h=200&fit=outside"),
            ("300x200/left/top/a.jpg", "w=300&h=200&fit=cover&enlarge=1&g=northwest"),
            ("300x200/right/a.jpg", "w=300&h=200&fit=cover&enlarge=1&g=east"),
            ("-300x200/right/bottom/a.jpg", "w=300&h=200&fit=cover&enlarge=1&flip=h&g=southwest"),
            ("300x200/smart/a.jpg", "w=300&h=200&fit=cover&enlarge=1&g=smart"),
            ("10x20:110x220/a.jpg", "crop=10,20,100,200"),
            ("0x0:0x0/a.jpg", ""),
            ("0.1x0.2:0.6x0.9/a.jpg", "crop=pct:10,20,50,70"),
            ("trim/a.jpg", "trim=0"),
            ("trim:top-left:50/a.jpg", "trim=29"),
            ("trim/1x1:9x9/fit-in/5x5/filters:quality(9)/a.jpg",
             "trim=0&crop=1,1,8,8&w=5&h=5&q=9"),
            ("filters:quality(70):format(webp)/a.jpg", "q=70&fmt=webp"),
            ("filters:grayscale()/a.jpg", "tone=gray"),
            ("filters:brightness(-10):contrast(20):saturation(1.5)/a.jpg",
             "brightness=-10&contrast=20&saturation=50"),
            ("filters:blur(7)/a.jpg", "blur=7"),
            ("filters:blur(7,2.5)/a.jpg", "blur=2.5"),
            ("300x200/filters:no_upscale()/a.jpg", "w=300&h=200&fit=cover"),
            ("fit-in/300x200/filters:upscale()/a.jpg", "w=300&h=200&enlarge=1"),
            ("300x200/filters:stretch()/a.jpg", "w=300&h=200&fit=fill&enlarge=1"),
            ("fit-in/300x200/filters:fill(f80)/a.jpg", "w=300&h=200&fit=pad&bg=ff8800"),
            ("fit-in/300x200/filters:fill(blur)/a.jpg", "w=300&h=200&fit=pad&bg=blur"),
            ("fit-in/300x200/filters:fill(transparent)/a.jpg", "w=300&h=200&fit=pad"),
            ("filters:background_color(White)/a.jpg", "bg=ffffff"),
            ("300x200/left/filters:rotate(90)/a.jpg",
             "w=200&h=300&fit=cover&enlarge=1&rotate=270&g=south"),
            ("filters:rotate(180)/a.jpg", "rotate=180"),
            ("filters:round_corner(20,255,128,0)/a.jpg", "radius=20&bg=ff8000"),
            ("filters:max_bytes(40000)/a.jpg", "max_bytes=40000"),
            ("filters:watermark(/m.png,0,-0,30,20)/a.jpg",
             "wm=/m.png&wm_pos=southwest&wm_opacity=70&wm_scale=20"),
            ("filters:strip_exif():strip_icc()/a.jpg", ""),
            ("filters%3Aquality(70)/a.jpg", "q=70"),
            ("left.jpg", None),
        ]:  # fmt: skip
            src = {"photos/a%20b.jpg": "/photos/a%20b.jpg", "left.jpg": "/left.jpg"}.get(
                text, "/a.jpg"
            )
            with self.subTest(text=text):
                self.assertEqual(recipe(text), parse_query(f"src={src}&{query or ''}".encode()))

    def test_refused(self) -> None:
        for text, reason in [
            ("meta/a.jpg", "meta is not supported here"),
            ("adaptive-fit-in/3x3/a.jpg", "adaptive-fit-in is not supported here"),
            ("300xorig/a.jpg", "size must be WIDTHxHEIGHT or origxorig"),
            ("9000x1/a.jpg", "size must be a whole number from 0 to 8192"),
            ("9x9:1x1/a.jpg", "crop must be LEFTxTOP:RIGHTxBOTTOM, and not be empty"),
            ("1x1:9.5x9/a.jpg", "crop must be whole pixels, or shares from 0 to 1"),
            ("trim:bottom-right/a.jpg",
             "trim goes by the colour at the top left, not at bottom-right"),
            ("filters:equalize()/a.jpg", "filters has equalize, which is not supported"),
            ("filters:quality(101)/a.jpg", "q must be a whole number from 1 to 100"),
            ("filters:grayscale(1)/a.jpg", "grayscale takes no arguments"),
            ("filters:rotate(45)/a.jpg", "rotate must be 0, 90, 180 or 270"),
            ("filters:quality/a.jpg",
             "filters must be NAME(ARGUMENTS) with colons between, then /IMAGE"),
            ("filters:" + ":".join(["blur(1)"] * 33) + "/a.jpg",
             "filters must be NAME(ARGUMENTS) with colons between"),
            ("../a.jpg", "src must not climb out of the image root"),
            ("http://h/a.jpg", "src must be a path under the image root, not a URL"),
            ("", "src must not be empty"),
        ]:  # fmt: skip
            with self.subTest(text=text):
                error = self.assertRaises(BadRecipe, recipe, text)
                self.assertEqual(error.reason, reason)

    @given(
        st.lists(
            st.sampled_from(
                ["unsafe", "trim", "1x2:3x4", "fit-in", "300x200", "-x", "left", "smart", "a.jpg",
                 "filters:", "quality(80)", ":", ")", "(", "fill(red)", "rotate(90)", "%", "%00",
                 "..", "watermark(a,0,0,0)", ",", "e9", "."]
            ),
            max_size=8,
        ),
        st.sampled_from(["/", ""]),
        st.binary(max_size=6),
    )  # fmt: skip
    def test_anything_makes_a_recipe_or_a_400(
        self, parts: list[str], joint: str, tail: bytes
    ) -> None:
        path = b"unsafe/" + joint.join(parts).encode() + tail
        try:
            made, _ = thumbor.parse(path, OPEN, LIMITS)
        except ImageError as error:
            self.assertEqual(error.status, 400)
            self.assertTrue(error.reason.isascii() and error.reason.isprintable())
        else:
            self.assertEqual(parse_query(made.canonical().encode()), made)

    @given(st.binary(max_size=40))
    def test_any_bytes(self, path: bytes) -> None:
        for place in (OPEN, SIGNED, OPTIONAL):
            try:
                thumbor.parse(path, place, LIMITS)
            except ImageError as error:
                self.assertIn(error.status, (400, 403))


class Signatures(SynchronousTestCase):
    def test_the_documented_one(self) -> None:
        """The example of thumbor's own client library."""
        rest = b"300x200/my.server.com/some/path/to/image.jpg"
        self.assertEqual(thumbor.sign(b"my-security-key", rest), b"8ammJH8D-7tXy6kU3lTvoXlhu4o=")

    def test_good(self) -> None:
        for place in (SIGNED, OPTIONAL):
            for key in KEYS.thumbor:
                path = signed(key, b"300x200/a.jpg")
                made, proven = thumbor.parse(path, place, LIMITS)
                self.assertTrue(proven)
                self.assertEqual(made, recipe("300x200/a.jpg"))

    def test_encoded_after_it_was_signed(self) -> None:
        path = signed(KEYS.thumbor[0], b"filters:blur(7)/a b.jpg").replace(b" ", b"%20")
        self.assertTrue(thumbor.parse(path, SIGNED, LIMITS)[1])
        self.assertTrue(thumbor.parse(path.replace(b"=", b"%3D"), SIGNED, LIMITS)[1])

    def test_wrong(self) -> None:
        good = signed(KEYS.thumbor[0], b"300x200/a.jpg")
        for path in (
            good.replace(b"300x", b"301x"),
            signed(b"another key", b"300x200/a.jpg"),
            b"x" + good,
            b"/a.jpg",
        ):
            for place in (SIGNED, OPTIONAL):
                self.assertRaises(Forbidden, thumbor.parse, path, place, LIMITS)

    def test_unsafe(self) -> None:
        self.assertRaises(Forbidden, thumbor.parse, b"unsafe/a.jpg", SIGNED, LIMITS)
        self.assertFalse(thumbor.parse(b"unsafe/a.jpg", OPTIONAL, LIMITS)[1])
        path = signed(KEYS.thumbor[0], b"a.jpg")
        self.assertRaises(BadRecipe, thumbor.parse, path, OPEN, LIMITS)
