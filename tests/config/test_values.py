"""The value forms, as nginx 1.22 was seen to take them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.config import values
from imagefarm.config.ast import Directive, Word
from imagefarm.config.errors import Invalid
from imagefarm.config.table import Convert
from imagefarm.config.variables import Template


class Directory:
    """An environment for converters."""

    def template(self, text: str) -> Template:
        return Template(text, (), text.encode())

    def path(self, text: str) -> str:
        return f"/prefix/{text}"

    def conf_path(self, text: str) -> str:
        return f"/conf/{text}"

    def warn(self, message: str) -> None:
        raise AssertionError(message)


class Values(SynchronousTestCase):
    def refused(self, parse: Callable[[str], Any], *texts: str) -> None:
        for text in texts:
            error = self.assertRaises(Invalid, parse, text)
            self.assertEqual(str(error), f'invalid value "{text}"')

    def test_sizes(self) -> None:
        expected = {"0": 0, "1024": 1024, "1k": 1024, "8K": 8192, "1m": 1 << 20, "100M": 100 << 20}
        for text, value in expected.items():
            self.assertEqual(values.parse_size(text), value)
            self.assertEqual(values.parse_offset(text), value)
        for parse in (values.parse_size, values.parse_offset):
            self.refused(
                parse, "", "k", "1kk", " 1", "1 ", "-1", "+1", "1.5k", "1b", "\u0661",
                "9" * 19 + "k", "9" * 20, "9" * 5000,
            )  # fmt: skip

    def test_gigabytes_are_for_offsets(self) -> None:
        self.assertEqual(values.parse_offset("2g"), 2 << 30)
        self.assertEqual(values.parse_offset("1G"), 1 << 30)
        self.refused(values.parse_size, "1g", "1G")

    def test_times(self) -> None:
        expected = {
            "0": 0, "10": 10, "5s": 5, "1m": 60, "1h30m": 5400, "1h 30m": 5400, "1h30": 3630,
            "1d": 86400, "1w 2d": 777600, "250ms": 0.25, "1s500ms": 1.5, "1M": 2592000,
            "1y": 31536000, "1y1M1w1d1h1m1s": 34822861, " 1": 1,
            "1 ": 1, "1h 5": 3605, "30s10": 40,
        }  # fmt: skip
        for text, value in expected.items():
            self.assertEqual(values.parse_time(text), value, text)
        self.refused(
            values.parse_time, "", " ", "h", "30m1h", "1h1h", "1ms1s", "1M1y", "1H", "-1", "1.5",
            "10 s", "5 1h", "1hx", "9" * 20, "9" * 19 + "y", "9" * 5000, "\u0661", "1\n",
        )  # fmt: skip

    @settings(deadline=None)
    @given(st.integers(0, 10**6), st.integers(0, 23), st.integers(0, 59), st.integers(0, 59))
    def test_times_add_up(self, days: int, hours: int, minutes: int, seconds: int) -> None:
        text = f"{days}d{hours}h {minutes}m{seconds}"
        total = ((days * 24 + hours) * 60 + minutes) * 60 + seconds
        self.assertEqual(values.parse_time(text), total)

    @settings(deadline=None)
    @given(st.text(st.sampled_from("0129yMwdhms k"), max_size=12) | st.text())
    def test_any_text(self, text: str) -> None:
        for parse in (values.parse_size, values.parse_offset, values.parse_time):
            try:
                value = parse(text)
            except Invalid:
                continue
            self.assertGreaterEqual(value, 0)


class Converters(SynchronousTestCase):
    def convert(self, converter: Convert[Any], *texts: str) -> Any:
        directive = Directive("x", tuple(map(Word, texts)), "f", 1)
        return converter(directive, Directory())

    def message(self, converter: Convert[Any], text: str) -> str:
        return str(self.assertRaises(Invalid, self.convert, converter, text))

    def test_values(self) -> None:
        self.assertIs(self.convert(values.flag, "on"), True)
        self.assertIs(self.convert(values.flag, "OFF"), False)
        self.assertEqual(self.convert(values.number, "007"), 7)
        self.assertEqual(self.convert(values.size, "1k"), 1024)
        self.assertEqual(self.convert(values.offset, "1g"), 1 << 30)
        self.assertEqual(self.convert(values.time, "1m"), 60)
        self.assertEqual(self.convert(values.text, "a"), "a")
        self.assertEqual(self.convert(values.words, "a", "b"), ("a", "b"))
        self.assertEqual(self.convert(values.path, "a"), "/prefix/a")
        self.assertEqual(self.convert(values.conf_path, "a"), "/conf/a")
        self.assertEqual(self.convert(values.template, "a").source, "a")

    def test_choice(self) -> None:
        numbers: Convert[int] = values.choice({"one": 1, "two": 2})
        self.assertEqual(self.convert(numbers, "two"), 2)
        same: Convert[str] = values.choice(("a", "b"))
        self.assertEqual(self.convert(same, "b"), "b")
        self.assertEqual(
            self.message(numbers, "three"),
            'invalid value "three" in "x" directive, it must be one of: "one", "two"',
        )

    def test_messages(self) -> None:
        self.assertEqual(
            self.message(values.flag, "yes"),
            'invalid value "yes" in "x" directive, it must be "on" or "off"',
        )
        for text in ("-1", "", "x", "1k", "9" * 5000, "²"):
            self.assertEqual(self.message(values.number, text), '"x" directive invalid number')
        for converter in (values.size, values.offset, values.time):
            self.assertEqual(self.message(converter, "x"), '"x" directive invalid value')
