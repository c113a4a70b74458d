"""The table of malformed requests against parser and decoder alone, however they are cut."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.support import strictness
from tests.support.pipeline import judge, read, single

from .vector import HIDDEN
from .vectors import ALL, VECTORS

#: Longer ones take too long byte by byte.
SHORT = 3000


class Vectors(SynchronousTestCase):
    def test_whole(self) -> None:
        for vector in VECTORS:
            self.assertEqual(read([vector.data]).outcome, vector.expected, vector)

    def test_byte_by_byte(self) -> None:
        for vector in VECTORS:
            if len(vector.data) < SHORT:
                self.assertEqual(read(single(vector.data)), read([vector.data]), vector)

    def test_in_pieces(self) -> None:
        for vector in VECTORS:
            for size in (7, 999, 8192):
                pieces = [vector.data[i : i + size] for i in range(0, len(vector.data), size)]
                self.assertEqual(read(pieces), read([vector.data]), vector)

    def test_after_a_good_request(self) -> None:
        for vector in VECTORS:
            if not vector.data.startswith((b"\r", b"\n")):
                outcome = read([HIDDEN + vector.data]).outcome
                self.assertEqual(outcome, f"200 {vector.expected}", vector)

    def test_what_is_accepted_is_not_ambiguous(self) -> None:
        for vector in VECTORS:
            judge(vector.data, read([vector.data]).messages)

    def test_rows_are_different(self) -> None:
        self.assertEqual(len({vector.data for vector in ALL}), len(ALL))
        self.assertEqual(len({(vector.family, vector.name) for vector in ALL}), len(ALL))
        self.assertGreater(len(ALL), 300)
        self.assertNotIn(True, [vector.nginx == vector.expected for vector in ALL])

    def test_document_is_up_to_date(self) -> None:
        self.assertEqual(
            strictness.DOCUMENT.read_text(),
            strictness.render(),
            "run python -m tests.support.strictness",
        )
