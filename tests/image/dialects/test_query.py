"""The query form with its presets and signatures, and the limits without one."""

from __future__ import annotations

import base64
import hashlib
import hmac

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.image import signing
from imagefarm.image.asked import Asked, Wish, read_wish
from imagefarm.image.errors import BadRecipe, Expired, Forbidden, ImageError
from imagefarm.image.limits import Limits
from imagefarm.image.places import Keys, Place, Signature, Unsigned
from imagefarm.image.query import parse_query

LIMITS = Limits()
NOW = 1_800_000_000.0
KEY, OLD = b"a key of 24 bytes or so.", b"the key before that one."
PRESETS = {"thumb": {"w": b"320", "h": b"240", "fit": b"cover"}, "soft": {"blur": b"3"}}
PLAIN = Place(b"/resize/", presets=PRESETS)
ONLY = Place(b"/", presets=PRESETS, presets_only=True)
SIGNED = Place(b"/", signature=Signature.REQUIRED, keys=Keys(own=(KEY, OLD)), presets=PRESETS)
OPTIONAL = Place(
    b"/", signature=Signature.OPTIONAL, keys=Keys(own=(KEY,)), unsigned=Unsigned(400, 300)
)


def ask(query: str, place: Place = PLAIN, rest: str = "") -> Wish:
    return read_wish(Asked(place, rest.encode(), query.encode()), LIMITS, NOW)


def signed(query: str, key: bytes = KEY, expires: int | None = None) -> str:
    return signing.signed_query(key, query, parse_query(query.encode()), expires)


class Paths(SynchronousTestCase):
    def test_the_source_in_the_path(self) -> None:
        expected = parse_query(b"src=/photos/a+b.jpg&w=9")
        self.assertEqual(ask("w=9", rest="photos/a%20b.jpg").recipe, expected)
        self.assertEqual(ask("w=9&src=/photos/a+b.jpg", rest="").recipe, expected)

    def test_src_counts_more_than_the_path(self) -> None:
        self.assertEqual(ask("src=/b.jpg", rest="a.jpg").recipe, parse_query(b"src=/b.jpg"))

    def test_only_below_a_folder(self) -> None:
        self.assertRaises(BadRecipe, ask, "w=9", Place(b"/resize"), ".php")


class Presets(SynchronousTestCase):
    def test_a_preset_is_what_it_stands_for(self) -> None:
        for query, meant in [
            ("preset=thumb", "w=320&h=240&fit=cover"),
            ("preset=thumb,soft", "w=320&h=240&fit=cover&blur=3"),
            ("preset=thumb&w=100", "w=100&h=240&fit=cover"),
            ("w=100&%70reset=thumb", "w=100&h=240&fit=cover"),
        ]:
            found = ask(f"src=a.jpg&{query}").recipe
            self.assertEqual(found, parse_query(f"src=a.jpg&{meant}".encode()))

    def test_the_first_of_two_presets_counts(self) -> None:
        place = Place(presets={"a": {"w": b"1"}, "b": {"w": b"2", "h": b"3"}})
        found = ask("src=a&preset=a,b", place).recipe
        self.assertEqual(found, parse_query(b"src=a&w=1&h=3"))

    def test_nothing_but_presets(self) -> None:
        self.assertEqual(ask("src=a&preset=soft", ONLY).recipe, parse_query(b"src=a&blur=3"))
        for query, reason in [
            (
                "src=a&preset=soft&w=3",
                "w must not be given here, only preset, one of: soft, thumb",
            ),
            ("src=a", "preset is missing: it must be one of: soft, thumb"),
            ("src=a&preset=", "preset must be one of: soft, thumb"),
            ("src=a&preset=x", "preset must be one of: soft, thumb"),
        ]:
            self.assertEqual(self.assertRaises(BadRecipe, ask, query, ONLY).reason, reason)

    def test_refused(self) -> None:
        for query in ("src=a&preset=soft&preset=soft", "src=a&preset=x", "src=a&expires=x&w=3"):
            self.assertRaises(BadRecipe, ask, query)


class Signatures(SynchronousTestCase):
    def test_how_it_is_made(self) -> None:
        """As another language would: HMAC-SHA256 over the canonical form."""
        text = b"src=/a.jpg&w=320&fit=cover&expires=1900000000".replace(b"&fit=cover", b"")
        digest = hmac.new(KEY, text, hashlib.sha256).digest()
        expected = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        recipe = parse_query(b"w=320&src=a.jpg")
        self.assertEqual(signing.sign(KEY, recipe, 1_900_000_000), expected)
        self.assertEqual(len(expected), 43)

    def test_good(self) -> None:
        for key in (KEY, OLD):
            for expires in (None, 1_900_000_000):
                query = signed("src=/a.jpg&w=320", key, expires)
                wish = ask(query, SIGNED)
                self.assertTrue(wish.signed)
                self.assertEqual(wish.recipe, parse_query(b"src=/a.jpg&w=320"))

    def test_the_way_it_is_written_does_not_matter(self) -> None:
        signature = signed("src=/a.jpg&w=320&h=240&fit=cover").partition("&sig=")[2]
        for query in ("h=240&w=0320&fit=cover&src=a.jpg", "src=//a.jpg&preset=thumb"):
            self.assertTrue(ask(f"sig={signature}&{query}", SIGNED).signed)

    def test_wrong(self) -> None:
        good = signed("src=/a.jpg&w=320", expires=1_900_000_000)
        for query in (
            good.replace("w=320", "w=321"),
            good.replace("1900000000", "1900000001"),
            good.replace("&expires=1900000000", ""),
            good.replace("a.jpg", "b.jpg"),
            good[:-1],
            good + "A",
            "src=/a.jpg&w=320&sig=",
            "src=/a.jpg&w=320&sig=%ff",
            signed("src=/a.jpg&w=320", b"somebody else's key"),
        ):
            with self.subTest(query=query):
                error = self.assertRaises(Forbidden, ask, query, SIGNED)
                self.assertEqual(
                    error.reason, "sig is wrong: it does not match the recipe and expires"
                )
                self.assertRaises(Forbidden, ask, query, OPTIONAL)

    def test_expired(self) -> None:
        query = signed("src=/a.jpg&w=320", expires=int(NOW))
        error = self.assertRaises(Expired, ask, query, SIGNED)
        self.assertEqual((error.status, error.reason), (410, "the URL has expired"))
        self.assertTrue(ask(signed("src=a", expires=int(NOW) + 1), SIGNED).signed)

    def test_missing(self) -> None:
        self.assertRaises(Forbidden, ask, "src=a", SIGNED)
        self.assertFalse(ask("src=a&w=400", OPTIONAL).signed)

    def test_not_looked_at(self) -> None:
        self.assertFalse(ask("src=a&sig=x&expires=1").signed)

    @given(st.binary(max_size=50), st.binary(max_size=20))
    def test_any_bytes(self, query: bytes, rest: bytes) -> None:
        for place in (PLAIN, ONLY, SIGNED, OPTIONAL):
            try:
                read_wish(Asked(place, rest, query), LIMITS, NOW)
            except ImageError as error:
                self.assertIn(error.status, (400, 403, 410))
                self.assertTrue(error.reason.isascii() and error.reason.isprintable())


class WithoutSignature(SynchronousTestCase):
    def test_the_largest(self) -> None:
        error = self.assertRaises(Forbidden, ask, "src=a&w=401", OPTIONAL)
        self.assertEqual(error.reason, "w must be at most 400 without a signature")
        error = self.assertRaises(Forbidden, ask, "src=a&h=301", OPTIONAL)
        self.assertEqual(error.reason, "h must be at most 300 without a signature")
        self.assertRaises(Forbidden, ask, "src=a&w=201&dpr=2", OPTIONAL)
        self.assertTrue(ask(signed("src=a&w=4000"), OPTIONAL).signed)

    def test_what_comes_of_it_counts_too(self) -> None:
        wish = ask("src=a&w=400", OPTIONAL)
        wish.check_made(400, 300)
        self.assertRaises(Forbidden, wish.check_made, 400, 301)
        ask(signed("src=a"), OPTIONAL).check_made(4000, 3000)

    def test_only_these_sizes(self) -> None:
        place = Place(unsigned=Unsigned(sizes=((320, 0), (640, 480))))
        for query in ("w=320", "w=640&h=480", "w=160&dpr=2"):
            ask(f"src=a&{query}", place)
        for query in ("", "w=321", "w=640", "h=320", "w=480&h=640"):
            error = self.assertRaises(Forbidden, ask, f"src=a&{query}", place)
        self.assertEqual(
            error.reason, "w and h must be one of these sizes without a signature: 320x0 640x480"
        )
