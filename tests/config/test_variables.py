"""Templates, as nginx 1.22 was seen to take them."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.config.errors import Invalid
from imagefarm.config.variables import Getter, Template, VariableTable, encode


def said(text: str) -> Getter:
    """A getter that says its name and what it was asked of."""
    return lambda request: f"<{text}:{request}>".encode()


TABLE = VariableTable(
    exact={"host": said("host"), "http_host": said("exact")},
    prefixes={"http_": lambda rest: said(f"header {rest}"), "arg_": lambda rest: said(rest)},
    defined=lambda name: said(f"own {name}"),
    capture=lambda number: said(f"capture {number}"),
)


class Templates(SynchronousTestCase):
    def value(self, text: str, known: frozenset[str] = frozenset()) -> bytes:
        return TABLE.compile(text, known)("R")

    def message(self, text: str) -> str:
        return str(self.assertRaises(Invalid, TABLE.compile, text))

    def test_values(self) -> None:
        expected = {
            "": b"",
            "plain": b"plain",
            "$host": b"<host:R>",
            "a${host}b": b"a<host:R>b",
            "$host-$http_foo;": b"<host:R>-<header foo:R>;",
            "$http_host": b"<exact:R>",
            "$1$23": b"<capture 1:R><capture 2:R>3",
            "$HOST$Http_Foo": b"<host:R><header foo:R>",
            "é$hosté": "é<host:R>é".encode(),
            "\udce9": b"\xe9",
        }
        for text, value in expected.items():
            self.assertEqual(self.value(text), value, text)

    def test_own_variables(self) -> None:
        self.assertEqual(self.value("$Mine", frozenset({"mine"})), b"<own mine:R>")
        self.assertEqual(self.value("$http_x", frozenset({"http_x"})), b"<own http_x:R>")

    def test_constants(self) -> None:
        self.assertEqual(TABLE.compile("plain").constant, b"plain")
        self.assertEqual(TABLE.compile("").constant, b"")
        self.assertIsNone(TABLE.compile("$host").constant)
        self.assertEqual(TABLE.compile("$host").source, "$host")

    def test_errors(self) -> None:
        expected = {
            "$": "invalid variable name",
            "a$ b": "invalid variable name",
            "$$host": "invalid variable name",
            "${}": "invalid variable name",
            "${": "invalid variable name",
            "${host": 'the closing bracket in "host" variable is missing',
            "${host-}": 'the closing bracket in "host" variable is missing',
            "$nope": 'unknown "nope" variable',
            "$http_": 'unknown "http_" variable',
            "$0": 'unknown "0" variable',
            "${1}": 'unknown "1" variable',
        }
        for text, message in expected.items():
            self.assertEqual(self.message(text), message, text)

    @settings(deadline=None)
    @given(st.text(st.sampled_from("${}host_1 é\n"), max_size=16))
    def test_any_text(self, text: str) -> None:
        try:
            template = TABLE.compile(text)
        except Invalid:
            self.assertIn("$", text)
            return
        self.assertIsInstance(template, Template)
        if "$" not in text:
            self.assertEqual(template("R"), encode(text))
