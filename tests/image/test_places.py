"""Which location a path is in, and the directives that make locations."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.config.errors import ConfigurationError, Invalid
from imagefarm.image.errors import BadRecipe
from imagefarm.image.places import (
    Confined,
    Dialect,
    Keys,
    Place,
    Places,
    Signature,
    Unsigned,
    normal_path,
)
from tests.image.test_directives import load

IIIF, INNER, OPEN = Place(b"/iiif/"), Place(b"/iiif/open/"), Place()
PLACES = Places(OPEN, (IIIF, INNER))


class Finding(SynchronousTestCase):
    def test_the_longest_prefix(self) -> None:
        for path, place, rest in [
            (b"/iiif/a%2Fb", IIIF, b"a%2Fb"),
            (b"/iiif/open/a", INNER, b"a"),
            (b"/iiif", OPEN, b"/iiif"),
            (b"/", OPEN, b"/"),
            (b"/resize.php", OPEN, b"/resize.php"),
        ]:
            self.assertEqual(PLACES.find(path), (place, rest))

    def test_no_way_around_a_location(self) -> None:
        """The server in front has looked at the path decoded and normalised."""
        for path in (
            b"/%69iif/a", b"//iiif/a", b"/./iiif/a", b"/x/../iiif/a", b"/iiif/../resize",
            b"/iiif/%2e%2e/resize", b"/iiif/open/../a", b"/iiif%2Fa", b"/iiif/./open/a", b"iiif",
            b"", b"*", b"http://h/iiif/a",
        ):  # fmt: skip
            with self.subTest(path=path):
                self.assertRaises(BadRecipe, PLACES.find, path)

    def test_normal_paths(self) -> None:
        for path, normal in [
            (b"/a/b", b"/a/b"), (b"/a//b/", b"/a/b/"), (b"/a/./b/.", b"/a/b/"), (b"/..", b"/"),
            (b"/a/b/..", b"/a/"), (b"/a/b/../c", b"/a/c"), (b"/%2e%2E/a", b"/a"),
            (b"/%zz", b"/%zz"),
        ]:  # fmt: skip
            self.assertEqual(normal_path(path), normal)

    @given(st.binary(max_size=30))
    def test_any_path(self, path: bytes) -> None:
        try:
            place, rest = PLACES.find(path)
        except BadRecipe:
            return
        self.assertTrue(path.endswith(rest))
        self.assertTrue(normal_path(path).startswith(place.prefix))


class Directives(SynchronousTestCase):
    def test_everything(self) -> None:
        settings = load(
            """
            resizer {
                preset thumb "w=320&h=240&fit=cover";
                preset soft blur=3;
                unsigned_max_width 1000;
                location /iiif/ { dialect iiif; iiif_confined fit; unsigned_max_height 500; }
                location /signed/ {
                    signature required;
                    signing_key "0123456789abcdef";
                    signing_key "fedcba9876543210";
                }
                location /thumbor/ {
                    dialect thumbor; signature optional; thumbor_key secret;
                    unsigned_sizes 320x0 0x240;
                }
                location /imgproxy/ {
                    dialect imgproxy; signature required; imgproxy_key 736563726574 68656C6C6F;
                    presets_only on;
                }
            }
            """
        )
        presets = {
            "thumb": {"w": b"320", "h": b"240", "fit": b"cover"},
            "soft": {"blur": b"3"},
        }
        wide = Unsigned(1000)
        own = Keys(own=(b"0123456789abcdef", b"fedcba9876543210"))
        pair = Keys(imgproxy=((b"secret", b"hello"),))
        self.assertEqual(
            settings.places,
            Places(
                Place(presets=presets, unsigned=wide),
                (
                    Place(b"/signed/", signature=Signature.REQUIRED, keys=own, presets=presets,
                          unsigned=wide),
                    Place(b"/thumbor/", Dialect.THUMBOR, Signature.OPTIONAL,
                          Keys(thumbor=(b"secret",)),
                          Unsigned(1000, None, ((320, 0), (0, 240))), presets),
                    Place(b"/imgproxy/", Dialect.IMGPROXY, Signature.REQUIRED, pair, wide, presets,
                          presets_only=True),
                    Place(b"/iiif/", Dialect.IIIF, unsigned=Unsigned(1000, 500), presets=presets,
                          confined=Confined.FIT),
                ),
            ),
        )  # fmt: skip

    def test_secrets_are_not_shown(self) -> None:
        self.assertNotIn("secret", repr(Keys((b"secret",), (b"secret",), ((b"secret", b"x"),))))

    def test_refused(self) -> None:
        for inside, message in [
            ('location iiif { }', 'invalid location "iiif"'),
            ('location /a%2F/ { }', 'invalid location "/a%2F/"'),
            ('location /../ { }', 'invalid location "/../"'),
            ('location /a/ { dialect php; }', 'invalid value "php"'),
            ('preset "a b" w=3;', 'invalid preset name "a b"'),
            ('preset a w=x;', 'preset "a": w must be a whole number from 1 to 999999999'),
            ('preset a src=x;', 'preset "a" must not have a src'),
            ('preset a sig=x;', 'preset "a": "sig" is not a parameter'),
            ('signing_key short;', '"signing_key" must have at least 16 bytes'),
            ('thumbor_key "";', '"thumbor_key" must not be empty'),
            ('imgproxy_key xyz 00;', '"imgproxy_key" takes key and salt in hex'),
            ('imgproxy_key "" 00;', '"imgproxy_key" must not be empty'),
            ('unsigned_sizes 320;', 'invalid size "320"'),
            ('unsigned_max_width 0;', '"unsigned_max_width" must be at least 1'),
        ]:  # fmt: skip
            with self.subTest(inside=inside):
                error = self.assertRaises(ConfigurationError, load, f"resizer {{ {inside} }}")
                self.assertIn(message, str(error))

    def test_what_does_not_go_together(self) -> None:
        for inside, message in [
            ("signature required;", '"signature" needs a "signing_key" in location "/"'),
            ("location /t/ { dialect thumbor; signature optional; }",
             '"signature" needs a "thumbor_key" in location "/t/"'),
            ("location /i/ { dialect iiif; signature required; }",
             '"signature" is not for the dialect iiif, in location "/i/"'),
            ("preset a w=3; location /t/ { dialect thumbor; presets_only on; }",
             '"presets_only" is not for the dialect thumbor, in location "/t/"'),
            ("presets_only on;", '"presets_only" needs a "preset", in location "/"'),
            ("location /a/ { } location /a/ { }", 'duplicate location "/a/"'),
        ]:  # fmt: skip
            with self.subTest(inside=inside):
                error = self.assertRaises(Invalid, load, f"resizer {{ {inside} }}")
                self.assertEqual(str(error), message)
