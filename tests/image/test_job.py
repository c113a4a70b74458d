"""Jobs and answers on their way through the pipes."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.image import errors
from imagefarm.image.errors import Broken, Failed, ImageError, Overloaded, TooLarge
from imagefarm.image.formats import Format, Offer
from imagefarm.image.job import (
    MAX_HEAD,
    Decoder,
    Job,
    Message,
    Rendered,
    WireError,
    error_message,
    read_answer,
    read_job,
)
from imagefarm.image.limits import Limits
from imagefarm.image.recipe import Recipe
from imagefarm.image.source import Identity

from .test_recipe import RECIPES

MESSAGES = st.builds(
    Message,
    st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5), max_size=3),
    st.binary(max_size=50),
)


class Messages(SynchronousTestCase):
    @given(st.lists(MESSAGES, max_size=4), st.integers(1, 40))
    def test_whole_and_in_pieces(self, messages: list[Message], piece: int) -> None:
        data = b"".join(message.encode() for message in messages)
        self.assertEqual(Decoder(50).feed(data), messages)
        decoder = Decoder(50)
        found = []
        for start in range(0, len(data), piece):
            found += decoder.feed(data[start : start + piece])
        self.assertEqual(found, messages)
        byte_by_byte = Decoder(50)
        found = [m for byte in data for m in byte_by_byte.feed(bytes([byte]))]
        self.assertEqual(found, messages)

    def test_too_long(self) -> None:
        for lengths in ((MAX_HEAD + 1, 0), (2, 51), (2**32 - 1, 2**32 - 1)):
            data = struct.pack("!II", *lengths)
            self.assertRaises(WireError, Decoder(50).feed, data)

    def test_no_object(self) -> None:
        for head in (b"x", b"[]", b"1", b"", b"\xff", b"[" * 60_000):
            data = struct.pack("!II", len(head), 0) + head
            self.assertRaises(WireError, Decoder(0).feed, data)


class Jobs(SynchronousTestCase):
    @given(RECIPES, st.binary(max_size=9), st.booleans(), st.booleans())
    def test_there_and_back(self, recipe: Recipe, root: bytes, avif: bool, webp: bool) -> None:
        job = Job(root, recipe, Offer(avif=avif, webp=webp))
        (message,) = Decoder(0).feed(job.message().encode())
        self.assertEqual(read_job(message, Limits()), job)

    def test_larger_limits_than_usual(self) -> None:
        job = Job(b"/r", Recipe(b"/a", w=9999), Offer())
        self.assertEqual(read_job(job.message(), Limits(max_width=10_000)), job)


class Answers(SynchronousTestCase):
    def test_a_picture(self) -> None:
        timings = (("probe", 0.5), ("encode", 1.25))
        made = Rendered(b"\0data", Format.AVIF, 3, 4, 5, Identity(6, 7 * 10**18), timings)
        (message,) = Decoder(99).feed(made.message().encode())
        self.assertEqual(read_answer(message), made)

    def test_errors(self) -> None:
        kinds = [
            kind
            for kind in vars(errors).values()
            if isinstance(kind, type) and issubclass(kind, ImageError)
        ]
        for kind in kinds:
            if kind in (ImageError, errors.BadRecipe, errors.Expired):  # never made by a worker
                continue
            (message,) = Decoder(0).feed(error_message(kind("why")).encode())
            answer = read_answer(message)
            self.assertIs(type(answer), kind)
            self.assertEqual(str(answer), "why")

    def test_a_worker_is_not_believed_everything(self) -> None:
        for head in [
            {}, {"error": "SystemExit", "reason": "x"}, {"error": ["Broken"], "reason": "x"},
            {"error": "Broken"}, {"error": "Broken", "reason": 5},
            {"format": "exe", "size": [1, 1, 1], "source": [1, 1], "timings": []},
            {"format": "png", "size": [1, 1], "source": [1, 1], "timings": []},
            {"format": "png", "size": "abc", "source": [1, 1], "timings": []},
            {"format": "png", "size": [1, 1, 1], "source": [1, 1], "timings": 5},
            {"format": "png", "size": [1, 1, 1], "source": [1, 1], "timings": [["a"]]},
            {"format": "png", "size": [float("inf")] * 3, "source": [1, 1], "timings": []},
        ]:  # fmt: skip
            with self.subTest(head=head):
                self.assertIsInstance(read_answer(Message(head, b"")), Failed)

    def test_reasons_are_cleaned(self) -> None:
        answer = read_answer(Message({"error": "Broken", "reason": "a\r\nSet-Cookie: \xff" * 99}))
        assert isinstance(answer, Broken)
        self.assertTrue(answer.reason.startswith("a??Set-Cookie: ?"))
        self.assertEqual(len(answer.reason), errors.MAX_REASON)

    def test_timing_names_are_cleaned(self) -> None:
        head = {"format": "png", "size": [1, 1, 1], "source": [1, 1]}
        timings = [["a\r\nb", 1], ["ok", 2], [5, 1], ["é", 1]]
        answer = read_answer(Message({**head, "timings": timings}))
        assert isinstance(answer, Rendered)
        self.assertEqual(answer.timings, (("ok", 2.0),))

    def test_statuses(self) -> None:
        self.assertEqual((Overloaded("").status, TooLarge("").status), (503, 413))
