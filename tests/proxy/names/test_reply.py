"""What a reply says: aliases, times to live, absence."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.proxy.names.reply import (
    CNAME,
    MAX_RECORDS,
    MAX_TTL,
    Alias,
    Answer,
    Kind,
    Question,
    Record,
    Reply,
    canonical,
    could_not,
    read,
)

ASKED = Question("a.example", Kind.A)


def a(name: str, value: str, ttl: int = 60) -> Record:
    return Record(name, 1, ttl, value)


def alias(name: str, to: str, ttl: int = 60) -> Record:
    return Record(name, CNAME, ttl, to)


class ReadTests(SynchronousTestCase):
    def says(self, *records: Record, code: int = 0, negative: int | None = None) -> object:
        return read(Reply(code, records, negative_ttl=negative), ASKED)

    def test_addresses_and_the_least_ttl(self) -> None:
        said = self.says(a("a.example", "1.1.1.1", 60), a("a.example", "2.2.2.2", 5))
        self.assertEqual(said, Answer(("1.1.1.1", "2.2.2.2"), 5))

    def test_records_of_others_and_repeated_ones(self) -> None:
        said = self.says(
            a("b.example", "9.9.9.9"), a("a.example", "1.1.1.1"), a("a.example", "1.1.1.1"),
            Record("a.example", 28, 1, "::1"),
        )  # fmt: skip
        self.assertEqual(said, Answer(("1.1.1.1",), 60))

    def test_aliases_in_any_order(self) -> None:
        records = (
            alias("b.example", "c.example", 30), a("c.example", "1.1.1.1"),
            alias("a.example", "b.example", 40),
        )  # fmt: skip
        self.assertEqual(self.says(*records), Answer(("1.1.1.1",), 30))

    def test_an_alias_whose_target_is_not_there(self) -> None:
        said = self.says(alias("a.example", "b.example", 7))
        self.assertEqual(said, Alias("b.example", 7))

    def test_an_alias_whose_target_has_none(self) -> None:
        chain = alias("a.example", "b.example")
        self.assertEqual(self.says(chain, negative=9), Answer((), 9))
        self.assertEqual(self.says(chain, code=3), Answer((), None))

    def test_a_loop(self) -> None:
        said = self.says(alias("a.example", "b.example"), alias("b.example", "a.example"))
        self.assertEqual(said, 2)

    def test_absence(self) -> None:
        self.assertEqual(self.says(), Answer((), None))
        self.assertEqual(self.says(code=3, negative=10), Answer((), 10))

    def test_failures(self) -> None:
        for code in (1, 2, 4, 5, 9):
            self.assertEqual(self.says(a("a.example", "1.1.1.1"), code=code), code)
        self.assertEqual(could_not("x", 2), "x could not be resolved (2: Server failure)")
        self.assertEqual(could_not("x", 9), "x could not be resolved (9: Unknown error)")

    def test_bounds(self) -> None:
        self.assertEqual(self.says(a("a.example", "1.1.1.1", 2**31)), Answer(("1.1.1.1",), 0))
        self.assertEqual(
            self.says(a("a.example", "1.1.1.1", 2**31 - 1)), Answer(("1.1.1.1",), MAX_TTL)
        )
        many = [a("a.example", f"1.1.{n // 256}.{n % 256}") for n in range(MAX_RECORDS + 5)]
        said = self.says(*many)
        assert isinstance(said, Answer)
        self.assertEqual(len(said.items), MAX_RECORDS)

    @given(
        st.lists(
            st.builds(
                Record,
                st.sampled_from(["a.example", "b", "c"]),
                st.sampled_from([1, CNAME, 28]),
                st.integers(0, 2**32 - 1),
                st.sampled_from(["a.example", "b", "c", "d"]),
            )
        ),
        st.sampled_from([0, 2, 3]),
    )
    def test_whatever_comes(self, records: list[Record], code: int) -> None:
        said = self.says(*records, code=code)
        if isinstance(said, Answer):
            self.assertLessEqual(
                set(said.items), {record.value for record in records if record.kind == 1}
            )
            self.assertTrue(said.ttl is None or 0 <= said.ttl <= MAX_TTL)
        elif isinstance(said, Alias):
            self.assertIn(said.target, {r.value for r in records if r.kind == CNAME})
        else:
            self.assertEqual(said, 2)


class CanonicalTests(SynchronousTestCase):
    def test_names(self) -> None:
        for text, name in (
            ("A.Example", "a.example"),
            ("a.example.", "a.example"),
            ("_http._tcp.x", "_http._tcp.x"),
            ("x" * 63 + ".y", "x" * 63 + ".y"),
            ("", None),
            (".", None),
            ("a..b", None),
            (".a", None),
            ("x" * 64, None),
            ("a b", None),
            ("\xe4", None),
            (".".join(["x" * 60] * 5), None),
        ):
            self.assertEqual(canonical(text), name, text)
