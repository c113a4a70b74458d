"""PCRE patterns as Python ones."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.config.errors import Invalid
from imagefarm.config.regex import compile_pattern, names


class Patterns(SynchronousTestCase):
    def check(self, pattern: str, *, yes: tuple[bytes, ...], no: tuple[bytes, ...] = ()) -> None:
        compiled = compile_pattern(pattern)
        for text in yes:
            self.assertIsNotNone(compiled.search(text), (pattern, text))
        for text in no:
            self.assertIsNone(compiled.search(text), (pattern, text))

    def test_the_farm(self) -> None:
        self.check("^/thumbnail/", yes=(b"/thumbnail/x",), no=(b"/x/thumbnail/",))
        self.check(r"\.php$", yes=(b"/a.php",), no=(b"/a.php5", b"/aphp"))
        self.check(r".*\.(js|css|swf)?$", yes=(b"a.js", b"a."), no=(b"a.jsx",))
        self.check(r"MSIE [1-6]\.(?!.*SV1)", yes=(b"MSIE 6.0",), no=(b"MSIE 6.0 SV1", b"MSIE 7.0"))
        self.check("^", yes=(b"",))

    def test_case(self) -> None:
        self.assertIsNotNone(compile_pattern("JPG$", ignore_case=True).search(b"a.jpg"))
        self.assertIsNone(compile_pattern("JPG$").search(b"a.jpg"))

    def test_bytes_outside_ascii(self) -> None:
        self.check("é", yes=("é".encode(),))
        self.check("\udce9", yes=(b"\xe9",))
        self.check("^..$", yes=("é".encode(),))

    def test_named_groups(self) -> None:
        for pattern in ("^/(?<size>[0-9]+)/(?<rest>.*)$", "^/(?P<size>.*)/(?'rest'.*)$"):
            match = compile_pattern(pattern).match(b"/12/x.png")
            assert match is not None
            self.assertEqual(match.groupdict(), {"size": b"12", "rest": b"x.png"})
            self.assertEqual(names(pattern), ("size", "rest"))
        self.assertEqual(names("(a)(?:b)(?<=b)(?<!c)"), ())

    def test_back_references(self) -> None:
        for reference in (
            r"\k<a>",
            r"\k'a'",
            r"\k{a}",
            r"\g{a}",
            "(?P=a)",
            r"\1",
            r"\g1",
            r"\g{1}",
        ):
            self.check(f"^(?<a>.){reference}$", yes=(b"xx",), no=(b"xy",))
        self.check(r"^(.)\g{1}2$", yes=(b"xx2",))

    def test_options_in_the_middle(self) -> None:
        self.check("^a(?i)b$", yes=(b"ab", b"aB"), no=(b"Ab",))
        self.check("^(a(?i)b|c)d$", yes=(b"aBd", b"Cd"), no=(b"aBD", b"Abd"))
        self.check("(?i)^a(?-i)b$", yes=(b"Ab",), no=(b"AB",))
        self.check("(?i)^a|b$", yes=(b"A", b"B"))
        self.check("^(?i:a)b$", yes=(b"Ab",), no=(b"AB",))
        self.check("(?s)^a.b$", yes=(b"a\nb",))

    def test_classes(self) -> None:
        self.check("^[[:alpha:]_]+$", yes=(b"aZ_",), no=(b"a1", b""))
        self.check("^[[:^digit:]x]$", yes=(b"x", b"\xe9"), no=(b"1",))
        self.check("^[^[:space:]]$", yes=(b"x",), no=(b" ", b"\t"))
        self.check("^[]a]+$", yes=(b"]a",), no=(b"b",))
        self.check("^[^]a]+$", yes=(b"b",), no=(b"]",))
        self.check("^[[a]+$", yes=(b"[a",), no=(b"b",))
        self.check(r"^[\h\]\x{41}]+$", yes=(b" \t]A",), no=(b"b",))
        self.check("^[(?<a>)|]+$", yes=(b"(?<a>)|",))

    def test_escapes(self) -> None:
        self.check(r"^\Qa.b(\E.$", yes=(b"a.b(x",), no=(b"axb(x",))
        self.check(r"^a\z", yes=(b"a",), no=(b"a\n",))
        self.check(r"^a\Z", yes=(b"a", b"a\n"), no=(b"a\n\n",))
        self.check(r"^\h\H\R$", yes=(b" a\r\n", b"\tb\n"), no=(b"aa\n",))
        self.check(r"^\x{2f}\x2F\/$", yes=(b"///",))
        self.check(r"^\(\?<a>\[\\$", yes=(b"(?<a>[\\",))

    def test_quantifiers(self) -> None:
        self.check("^[0-9]{2,3}$", yes=(b"12", b"123"), no=(b"1",))
        self.check("^a{,2}$", yes=(b"a{,2}",), no=(b"aa",))
        self.check("^a++b?+(?>c*)$", yes=(b"aabcc",))

    def test_errors(self) -> None:
        for pattern in (
            "(", ")", "[", "*", "a**", "a{2,1}", "(?R)", "(?1)", "(?|a|b)", "(*UTF8)a", "\\",
            r"\K", r"\g{-1}", "[[:nope:]]", r"[\Qa\E]", "(?<a>x)(?<a>y)", "(?<=a|bc)",
            "a{99999999999999}", "(?i", "(?<1>a)", "(?#",
        ):  # fmt: skip
            error = self.assertRaises(Invalid, compile_pattern, pattern)
            self.assertTrue(str(error).startswith("pcre2_compile() failed: "), pattern)
            self.assertTrue(str(error).endswith(f'in "{pattern}"'), pattern)
            self.assertRaises(Invalid, names, pattern)

    def test_deep(self) -> None:
        self.assertRaises(Invalid, compile_pattern, "(" * 5000 + ")" * 5000)

    @settings(deadline=None)
    @given(st.text(st.sampled_from("ab1(?<>:=!|)[]{,}^$*+.\\QEkgxhiPN'-#&~ é"), max_size=24))
    def test_any_pattern_compiles_or_is_invalid(self, pattern: str) -> None:
        try:
            compiled = compile_pattern(pattern)
        except Invalid:
            return
        self.assertEqual(names(pattern), tuple(compiled.groupindex))

    @settings(deadline=None)
    @given(st.text(st.characters(exclude_categories=["Cs"]), max_size=20))
    def test_a_quoted_literal_matches_itself(self, text: str) -> None:
        quoted = text.replace("\\", "/")
        compiled = compile_pattern(rf"\A\Q{quoted}\E\z")
        self.assertIsNotNone(compiled.match(quoted.encode()))
        self.assertIsNone(compiled.match(quoted.encode() + b"\n"))
