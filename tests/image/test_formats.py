"""Accept headers and the validators of results."""

from __future__ import annotations

from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.image.formats import Format, Offer, Wanted, parse_accept
from imagefarm.image.recipe import Recipe
from imagefarm.image.source import Identity
from imagefarm.image.validators import entity_tag, not_modified


class Accept(SynchronousTestCase):
    def test_explicit_names_only(self) -> None:
        for accept, offer in [
            (b"", "plain"), (b"*/*", "plain"), (b"image/*", "plain"), (b"image/webp", "webp"),
            (b"image/avif,image/webp,*/*;q=0.8", "avif+webp"), (b"IMAGE/AVIF", "avif"),
            (b"text/html, image/webp ; q=0.1", "webp"), (b"image/webp;q=0", "plain"),
            (b"image/webp; Q=0.000, image/avif;q=0.001", "avif"), (b"image/webpx", "plain"),
            (b"image/webp;q=", "webp"),
        ]:  # fmt: skip
            self.assertEqual(parse_accept(accept).text(), offer, accept)

    @given(st.binary(max_size=80))
    def test_any_bytes(self, accept: bytes) -> None:
        self.assertIsInstance(parse_accept(accept), Offer)


class Validators(SynchronousTestCase):
    recipe = Recipe(b"/a.jpg", w=3)
    source = Identity(10, 20)

    def test_a_tag_tells_everything_apart(self) -> None:
        auto = evolve(self.recipe, fmt=Wanted.AUTO)
        tags = [
            entity_tag(self.recipe, Offer(), self.source),
            entity_tag(evolve(self.recipe, w=4), Offer(), self.source),
            entity_tag(evolve(self.recipe, fmt=Format.PNG), Offer(), self.source),
            entity_tag(self.recipe, Offer(), Identity(11, 20)),
            entity_tag(self.recipe, Offer(), Identity(10, 21)),
            entity_tag(auto, Offer(), self.source),
            entity_tag(auto, Offer(webp=True), self.source),
            entity_tag(auto, Offer(avif=True), self.source),
        ]
        self.assertEqual(len(set(tags)), len(tags))
        for tag in tags:
            self.assertRegex(tag, rb'^"[0-9a-f]{24}"$')

    def test_accept_does_not_matter_without_auto(self) -> None:
        one, other = (entity_tag(self.recipe, Offer(webp=w), self.source) for w in (True, False))
        self.assertEqual(one, other)

    def test_conditions(self) -> None:
        date = b"Sun, 06 Nov 1994 08:49:37 GMT"
        later = b"Sun, 06 Nov 1994 08:49:38 GMT"
        for params, expected in [
            ({}, False),
            ({b"HTTP_IF_NONE_MATCH": b'"x"'}, True),
            ({b"HTTP_IF_NONE_MATCH": b'"y", W/"x"'}, True),
            ({b"HTTP_IF_NONE_MATCH": b"*"}, True),
            ({b"HTTP_IF_NONE_MATCH": b'"y"'}, False),
            ({b"HTTP_IF_NONE_MATCH": b"x"}, False),
            ({b"HTTP_IF_MODIFIED_SINCE": date}, True),
            ({b"HTTP_IF_MODIFIED_SINCE": later}, True),
            ({b"HTTP_IF_MODIFIED_SINCE": b"Sun, 06 Nov 1994 08:49:36 GMT"}, False),
            ({b"HTTP_IF_MODIFIED_SINCE": b"yesterday"}, False),
            ({b"HTTP_IF_NONE_MATCH": b'"y"', b"HTTP_IF_MODIFIED_SINCE": later}, False),
        ]:
            self.assertEqual(not_modified(params, b'"x"', 784111777), expected, params)
