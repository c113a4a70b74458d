"""What outcomes make of a peer, and the parameters of ``health_check``."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.config.errors import ConfigurationError
from imagefarm.proxy.health.directives import HEALTH_CHECK
from imagefarm.proxy.health.records import CheckSettings, Record, Tally, combine
from imagefarm.proxy.peer import Health
from tests.proxy.support import load_location

H, U, C = Health.HEALTHY, Health.UNHEALTHY, Health.CHECKING


def states(settings: CheckSettings, outcomes: str) -> str:
    """The state after each outcome (+ or -), by its first letter."""
    record = Record(settings.initial)
    letters = ""
    for outcome in outcomes:
        before = record.health
        told = record.note(outcome == "+", settings)
        assert (told is not None) == (record.health is not before)
        assert told in (None, record.health)
        letters += record.health.value[0]
    return letters


class RecordTests(SynchronousTestCase):
    def test_one_failure_is_enough_unless_said_otherwise(self) -> None:
        self.assertEqual(states(CheckSettings(), "+-+-"), "huhu")

    def test_in_a_row(self) -> None:
        settings = CheckSettings(fails=3, passes=2)
        self.assertEqual(states(settings, "--+---+-++-"), "hhhhhuuuuhh")

    def test_the_first_check_decides_where_it_is_mandatory(self) -> None:
        settings = CheckSettings(fails=3, passes=3, mandatory=True)
        self.assertEqual(settings.initial, C)
        self.assertEqual(states(settings, "+-"), "hh")
        self.assertEqual(states(settings, "-++"), "uuu")

    @given(st.integers(1, 4), st.integers(1, 4), st.text("+-", max_size=40))
    def test_property(self, fails: int, passes: int, outcomes: str) -> None:
        """Out after exactly ``fails`` failures in a row, back after ``passes`` passes."""
        letters = states(CheckSettings(fails=fails, passes=passes), outcomes)
        before = "h"
        for i, letter in enumerate(letters, 1):
            if letter != before:
                row = ("-" * fails) if letter == "u" else ("+" * passes)
                assert outcomes[:i].endswith(row)
            elif letter == "h":
                assert not outcomes[:i].endswith("-" * fails)
            else:
                assert not outcomes[:i].endswith("+" * passes)
            before = letter

    def test_counters_and_json(self) -> None:
        record = Record(H)
        for passed in (True, False, False, True):
            record.note(passed, CheckSettings())
        self.assertEqual((record.checks, record.fails, record.unhealthy), (4, 2, 1))
        self.assertIs(record.last_passed, True)
        self.assertEqual(Record.load(json.loads(json.dumps(record.dump()))), record)

    def test_the_worst_of_several_checks_counts(self) -> None:
        self.assertEqual(combine([]), Tally())
        for healths, worst in (((H, H), H), ((H, C), C), ((C, U), U), ((U, H), U)):
            self.assertEqual(combine(map(Record, healths)).health, worst)
        one, two = Record(H, 0, 3, 1, 1, True), Record(U, 0, 2, 2, 1, False)
        self.assertEqual(combine([one, two]), Tally(U, 5, 3, 2, False))


class ParameterTests(SynchronousTestCase):
    def settings(self, words: str) -> tuple[CheckSettings, ...]:
        scope = load_location("/", f"proxy_pass http://127.0.0.1:1; health_check {words};")
        return scope.all(HEALTH_CHECK)

    def test_defaults(self) -> None:
        self.assertEqual(self.settings(""), (CheckSettings(),))

    def test_all(self) -> None:
        self.assertEqual(
            self.settings(
                "interval=500ms jitter=1s fails=3 passes=2 uri=/up?x=1 port=81 match=m "
                "mandatory persistent keepalive_time=1m"
            ),
            (CheckSettings(0.5, 1.0, 3, 2, "/up?x=1", 81, "m", True, True, 60.0),),
        )

    def test_several(self) -> None:
        self.assertEqual(len(self.settings("uri=/a; health_check uri=/b")), 2)

    def test_errors(self) -> None:
        for words, message in (
            ("interval=0", 'invalid parameter "interval=0"'),
            ("interval=x", 'invalid parameter "interval=x"'),
            ("fails=0", 'invalid parameter "fails=0"'),
            ("port=70000", 'invalid parameter "port=70000"'),
            ("uri=x", 'invalid parameter "uri=x"'),
            ("'uri=/a b'", 'invalid parameter "uri=/a b"'),
            ("match=", 'invalid parameter "match="'),
            ("type=grpc", 'invalid parameter "type=grpc"'),
            ("fails=1 fails=2", 'duplicate parameter "fails=2"'),
            ("persistent", '"persistent" requires "mandatory"'),
        ):
            with self.assertRaises(ConfigurationError) as caught:
                self.settings(words)
            self.assertEqual([p.message for p in caught.exception.problems], [message])
