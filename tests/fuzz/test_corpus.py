"""Replays what fuzzing has found: each input once, as the fuzzer would."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from imagefarm.http.parser import Limits
from tests.http.vectors import VECTORS
from tests.support.pipeline import TIGHT

from .target import check, check_input

CORPUS = Path(__file__).parent / "corpus"


class Corpus(SynchronousTestCase):
    def test_inputs(self) -> None:
        files = sorted(CORPUS.iterdir())
        self.assertGreater(len(files), 50)
        for file in files:
            check_input(file.read_bytes())

    def test_vectors(self) -> None:
        for vector in VECTORS:
            outcome = check(vector.data, Limits(), (1, 10, 40, 100)).outcome
            self.assertEqual(outcome, vector.expected, vector)
            check(vector.data, TIGHT, (20, 64, 65))
