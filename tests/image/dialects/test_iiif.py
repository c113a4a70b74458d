"""IIIF requests: what they mean for a picture, their canonical form, and what bad ones get."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.image.dialects import iiif, iiif_info
from imagefarm.image.dialects.iiif import Bounds, ImageRequest, Resolved
from imagefarm.image.errors import BadRecipe, ImageError, NotFound
from imagefarm.image.limits import Limits
from imagefarm.image.query import parse_query
from imagefarm.image.recipe import Recipe

BOUNDS = Bounds(8192, 8192)
LIMITS = Limits()
MIRRORED = ", with ! before it mirrored"
BADLY = " is badly encoded: % must be followed by two hex digits"


def request(text: str) -> ImageRequest:
    found = iiif.parse(text.encode())
    assert isinstance(found, ImageRequest), found
    return found


def resolve(
    text: str, width: int = 600, height: int = 400, bounds: Bounds = BOUNDS, strict: bool = True
) -> Resolved:
    """Of ``REGION/SIZE``, or of more."""
    rest = "/0/default.jpg" if text.count("/") == 1 else ""
    return iiif.resolve(request(f"a/{text}{rest}"), width, height, bounds, strict=strict)


def recipe(text: str, width: int = 600, height: int = 400) -> Recipe:
    found = request(f"a.jpg/{text}")
    resolved = iiif.resolve(found, width, height, BOUNDS, strict=True)
    return iiif.to_recipe(found, resolved, LIMITS)


class Regions(SynchronousTestCase):
    def test_all_forms(self) -> None:
        for text, part in [
            ("full", (0, 0, 600, 400)),
            ("square", (100, 0, 400, 400)),
            ("10,20,30,40", (10, 20, 30, 40)),
            ("590,390,30,40", (590, 390, 10, 10)),
            ("0,0,9999,9999", (0, 0, 600, 400)),
            ("pct:0,0,100,100", (0, 0, 600, 400)),
            ("pct:41.6,7.5,40,70", (250, 30, 240, 280)),
            ("pct:99.9,0,0.01,50", (599, 0, 1, 200)),
        ]:
            with self.subTest(text=text):
                found = resolve(f"{text}/max")
                self.assertEqual((found.left, found.top, found.width, found.height), part)
                self.assertEqual(found.whole, part == (0, 0, 600, 400))

    def test_a_square_of_a_high_picture(self) -> None:
        self.assertEqual(
            resolve("square/max", 400, 600).canonical, "0,100,400,400/max/0/default.jpg"
        )

    def test_refused(self) -> None:
        for text, reason in [
            ("600,0,10,10", "region lies outside the image of 600 x 400 pixels"),
            ("0,400,10,10", "region lies outside the image of 600 x 400 pixels"),
            ("pct:100,0,1,1", "region lies outside the image of 600 x 400 pixels"),
            ("0,0,0,10", "region must not be empty"),
            ("pct:0,0,10,0", "region must not be empty"),
            ("0,0,10", "region must be full, square, x,y,w,h or pct:x,y,w,h"),
            ("0,0,10,10,1", "region must be full, square, x,y,w,h or pct:x,y,w,h"),
            ("Full", "region must be full, square, x,y,w,h or pct:x,y,w,h"),
            ("-1,0,10,10", "region must be a whole number from 0 to 999999999"),
            ("1.5,0,10,10", "region must be a whole number from 0 to 999999999"),
            ("pct:0,0,101,10", "region must be a number from 0 to 100"),
            ("pct:0,0,1e1,10", "region must be a number from 0 to 100"),
            ("pct:0,0,nan,10", "region must be a number from 0 to 100"),
        ]:
            with self.subTest(text=text):
                error = self.assertRaises(BadRecipe, resolve, f"{text}/max")
                self.assertEqual(error.reason, reason)


class Sizes(SynchronousTestCase):
    def test_all_forms(self) -> None:
        for text, out in [
            ("max", (600, 400)),
            ("^max", (600, 400)),
            ("150,", (150, 100)),
            (",100", (150, 100)),
            ("100,", (100, 67)),
            ("150,300", (150, 300)),
            ("!150,150", (150, 100)),
            ("pct:50", (300, 200)),
            ("pct:33.3", (200, 133)),
            ("pct:0.001", (1, 1)),
            ("^1200,", (1200, 800)),
            ("^,800", (1200, 800)),
            ("^700,10", (700, 10)),
            ("^!900,900", (900, 600)),
            ("^!2000,200", (300, 200)),
            ("^pct:150", (900, 600)),
        ]:
            with self.subTest(text=text):
                found = resolve(f"full/{text}")
                self.assertEqual((found.out_width, found.out_height), out)

    def test_no_enlarging_without_a_caret(self) -> None:
        for text in ("601,", ",401", "601,10", "10,401", "!601,401"):
            with self.subTest(text=text):
                error = self.assertRaises(BadRecipe, resolve, f"full/{text}")
                self.assertEqual(
                    error.reason, "size is larger than the region of 600 x 400 pixels: ^ enlarges"
                )
        self.assertRaises(BadRecipe, resolve, "0,0,100,100/101,")
        self.assertRaises(BadRecipe, resolve, "full/pct:100.1")

    def test_a_confined_size_as_the_specification_has_it(self) -> None:
        found = resolve("full/!2000,3000", strict=False)
        self.assertEqual(found.canonical, "full/max/0/default.jpg")

    def test_bounds(self) -> None:
        for text in ("^301,", "301,", "^pct:60"):
            self.assertRaises(BadRecipe, resolve, f"full/{text}", bounds=Bounds(300, 300, True))
        for text, canonical in [
            ("full/max", "full/300,200/0/default.jpg"),
            ("full/^max", "full/300,200/0/default.jpg"),
            ("0,0,30,30/max", "0,0,30,30/max/0/default.jpg"),
            ("0,0,30,30/^max", "0,0,30,30/^300,300/0/default.jpg"),
        ]:
            self.assertEqual(resolve(text, bounds=Bounds(300, 300, True)).canonical, canonical)

    def test_a_picture_beyond_the_bounds(self) -> None:
        self.assertEqual(
            resolve("full/max", 20_000, 10_000).canonical, "full/8192,4096/0/default.jpg"
        )

    def test_refused(self) -> None:
        for text in (
            "full", "", ",", "!", "!10,", "0,", ",0", "-1,", "1.5,", "pct:", "pct:0", "pct:x",
            "10,10,10", "^^10,", "!^10,10", "99999999999,", "NaN,", "\u0661,",
        ):  # fmt: skip
            with self.subTest(text=text):
                error = self.assertRaises(BadRecipe, request, f"a/full/{text}/0/default.jpg")
                self.assertEqual(error.parameter, "size")


class Requests(SynchronousTestCase):
    def test_canonical_forms(self) -> None:
        """Section 4.7; each canonical form is its own."""
        for text, canonical in [
            ("full/max/0/default.jpg", "full/max/0/default.jpg"),
            ("0,0,600,400/600,400/360/color.jpg", "full/max/0/default.jpg"),
            ("pct:0,0,50,50/pct:50/!90.0/gray.png", "0,0,300,200/150,100/!90/gray.png"),
            ("full/^1200,/270/bitonal.webp", "full/^1200,800/270/bitonal.webp"),
        ]:
            with self.subTest(text=text):
                self.assertEqual(resolve(text).canonical, canonical)
                self.assertEqual(resolve(canonical).canonical, canonical)

    def test_recipes(self) -> None:
        """As the query form would write them."""
        for text, query in [
            ("full/max/0/default.jpg", "fmt=jpeg"),
            ("full/300,/0/default.jpg", "w=300&fmt=jpeg"),
            ("full/300,200/0/default.jpg", "w=300&fmt=jpeg"),
            ("full/,200/0/color.png", "w=300&fmt=png"),
            ("full/300,300/0/default.jpg", "w=300&h=300&fit=fill&fmt=jpeg"),
            ("full/^900,/0/default.jpg", "w=900&enlarge=1&fmt=jpeg"),
            ("square/max/0/gray.webp", "crop=100,0,400,400&tone=gray&fmt=webp"),
            ("0,0,300,200/150,/90/default.jpg", "crop=0,0,300,200&w=100&rotate=90&fmt=jpeg"),
            ("full/max/!180/bitonal.gif", "flip=h&rotate=180&tone=bitonal&fmt=gif"),
            ("full/max/!0/default.avif", "flip=h&fmt=avif"),
        ]:
            with self.subTest(text=text):
                self.assertEqual(recipe(text), parse_query(f"src=a.jpg&{query}".encode()))

    def test_identifiers(self) -> None:
        for text, src in [
            ("a.jpg", b"/a.jpg"),
            ("photos%2Fa%20b.jpg", b"/photos/a b.jpg"),
            ("a+b", b"/a+b"),
            ("ark:%2F1", b"/ark:/1"),
            ("%C3%A4", b"/\xc3\xa4"),
        ]:
            self.assertEqual(request(f"{text}/full/max/0/default.jpg").src, src)
        self.assertEqual(iiif.identifier(b"/photos/a b!.jpg"), "photos%2Fa%20b!.jpg")

    def test_documents(self) -> None:
        self.assertEqual(iiif.parse(b"a/info.json"), iiif.InfoRequest(b"/a"))
        for text in (b"a", b"a/"):
            self.assertEqual(iiif.parse(text), iiif.BaseRequest(b"/a"))

    def test_nothing_here(self) -> None:
        for text in (
            b"", b"/", b"/info.json", b"a/b", b"a/b/full/max/0/default.jpg", b"a/full/max/0",
            b"a/full/max/0/default.jpg/x", b"a%2F/info.json", b"%2F/info.json", b"a/info.xml",
        ):  # fmt: skip
            with self.subTest(text=text):
                self.assertRaises(NotFound, iiif.parse, text)

    def test_refused(self) -> None:
        for text, reason in [
            ("a/full/max/45/default.jpg", "rotation must be 0, 90, 180 or 270" + MIRRORED),
            ("a/full/max/361/default.jpg", "rotation must be a number from 0 to 360"),
            ("a/full/max/-90/default.jpg", "rotation must be a number from 0 to 360"),
            ("a/full/max/0/native.jpg", "quality must be one of: default, color, gray, bitonal"),
            ("a/full/max/0/default", "quality must be one of: default, color, gray, bitonal"),
            ("a/full/max/0/default.tif", "format must be one of: jpg, png, webp, gif, avif"),
            ("..%2Fa/full/max/0/default.jpg", "src must not climb out of the image root"),
            ("a%00/full/max/0/default.jpg", "src must not contain a zero byte"),
            ("a%/full/max/0/default.jpg", "identifier" + BADLY),
            ("http:%2F%2Fx/info.json", "src must be a path under the image root, not a URL"),
        ]:  # fmt: skip
            with self.subTest(text=text):
                error = self.assertRaises(BadRecipe, iiif.parse, text.encode())
                self.assertEqual(error.reason, reason)


class Properties(SynchronousTestCase):
    @given(st.binary(max_size=60))
    def test_any_bytes(self, path: bytes) -> None:
        try:
            iiif.parse(path)
        except ImageError as error:
            self.assertIn(error.status, (400, 404))
            self.assertTrue(error.reason.isascii() and error.reason.isprintable())

    @given(
        st.lists(st.sampled_from([*b"0123456789,.:!^%/pctfulmaxsqre"]), max_size=12),
        st.integers(0, 3),
    )
    def test_any_part(self, octets: list[int], place: int) -> None:
        parts = [b"full", b"max", b"0", b"default.jpg"]
        parts[place] = bytes(octets)
        try:
            found = iiif.parse(b"/".join([b"a", *parts]))
            if isinstance(found, ImageRequest):
                resolved = iiif.resolve(found, 600, 400, BOUNDS, strict=False)
                iiif.to_recipe(found, resolved, LIMITS)
        except ImageError as error:
            self.assertIn(error.status, (400, 404))

    @given(
        st.integers(1, 20_000), st.integers(1, 20_000), st.integers(1, 9000), st.integers(1, 9000),
        st.sampled_from(["{w},", ",{h}", "{w},{h}", "!{w},{h}", "pct:{p}", "max"]),
        st.sampled_from(["", "^"]), st.sampled_from(["full", "square", "pct:10,20,30.5,40"]),
        st.sampled_from([0, 90]),
    )  # fmt: skip
    def test_results(
        self,
        width: int,
        height: int,
        w: int,
        h: int,
        size: str,
        caret: str,
        region: str,
        turn: int,
    ) -> None:
        """What is resolved keeps its promises, and its canonical form means the same."""
        text = size.format(w=w, h=h, p=(w % 1000) / 10 or 1)
        url = f"{region}/{caret}{text}/{turn}/default.png"
        try:
            found = resolve(url, width, height)
        except BadRecipe:
            return
        self.assertTrue(1 <= found.out_width <= 8192 and 1 <= found.out_height <= 8192)
        if not caret:
            self.assertTrue(found.out_width <= found.width and found.out_height <= found.height)
        again = resolve(found.canonical, width, height)
        self.assertEqual(
            iiif.to_recipe(request(f"a/{found.canonical}"), again, LIMITS),
            iiif.to_recipe(request(f"a/{url}"), found, LIMITS),
        )


class Documents(SynchronousTestCase):
    def test_info(self) -> None:
        document = json.loads(iiif_info.info("http://h/iiif/a", 2725, 2225, BOUNDS))
        names = ("id", "type", "protocol", "profile", "width", "height")
        self.assertEqual(
            {name: document[name] for name in names},
            {
                "id": "http://h/iiif/a", "type": "ImageService3", "profile": "level2",
                "protocol": "http://iiif.io/api/image", "width": 2725, "height": 2225,
            },
        )  # fmt: skip
        self.assertNotIn("maxWidth", document)
        self.assertEqual(document["tiles"][0]["scaleFactors"], [1, 2, 4, 8])
        self.assertEqual(document["sizes"][0], {"type": "Size", "width": 341, "height": 279})

    def test_every_size_listed_is_made(self) -> None:
        for width, height, bounds in [
            (2725, 2225, BOUNDS),
            (30_000, 20, BOUNDS),
            (9, 9, Bounds(4, 4, True)),
        ]:
            document = json.loads(iiif_info.info("http://h/a", width, height, bounds))
            for size in document["sizes"]:
                text = f"full/{size['width']},{size['height']}"
                found = resolve(text, width, height, bounds)
                self.assertEqual(found.out_width, size["width"])

    def test_limits_are_told(self) -> None:
        for width, bounds in [
            (100, Bounds(50, 60, True)),
            (100, Bounds(500, 60, True)),
            (9000, BOUNDS),
        ]:
            document = json.loads(iiif_info.info("http://h/a", width, 50, bounds))
            self.assertEqual(
                (document["maxWidth"], document["maxHeight"]), (bounds.width, bounds.height)
            )

    def test_media_types(self) -> None:
        for accept, media in [
            (b"", iiif_info.LD_JSON),
            (b"*/*", iiif_info.LD_JSON),
            (b"application/ld+json", iiif_info.LD_JSON),
            (b"application/json", b"application/json"),
            (b"text/html, application/json;q=0.9", b"application/json"),
            (b"application/json, application/ld+json", iiif_info.LD_JSON),
        ]:
            self.assertEqual(iiif_info.media_type(accept), media)
