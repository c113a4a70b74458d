"""The lexer, against what nginx 1.22 was seen to do with the same texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.config.ast import Directive, Word
from imagefarm.config.errors import ConfigurationError
from imagefarm.config.lexer import MAX_DEPTH, MAX_WORD, lex, lex_all, unescape

MASTER = r"""
user  webtob;
#error_log  logs/error.log  notice;
events {
#    worker_connections  1024;
    worker_connections 5120;
    use epoll;
}


http {
    include       mime.types;

    log_format  main  '$remote_addr - $remote_user [$time_local] "$request" '
                      '$status $body_bytes_sent "$http_referer"';
    keepalive_requests 5; 
    gzip_disable "MSIE [1-6]\.(?!.*SV1)";

    upstream tving_image{
                #ip_hash;
                server 127.0.0.1:8081;
                keepalive 10;
    }
    fastcgi_cache_path /var/cache levels=1:2 keys_zone=one:100m inactive=60m max_size=300M;

    server {
        location = /favicon.ico {
            return 204;
        }
#        location ~* ^.+\.(jpg|jpeg)$ {
#        }
        location ~^/thumbnail/{
                try_files $uri @notfound;
        }
        location ~ \.php$ {
            fastcgi_cache_key "$scheme$host$request_uri$cookie_user";
        }
        location ~ ^/$ {
                if (-f /index.html){
                        rewrite (.*) /index.html last;
                }
        }
        location ~ .*\.(js|css|swf)?$ {
                  expires      5m;
        }
        location ~* ^{
                root /images;
        }
    }

}
"""  # noqa: W291

REFERENCE = Path(__file__).parents[1] / "interop" / "farm"


def words(text: str) -> tuple[str, ...]:
    """The words of the one directive in ``text``, its name included."""
    (directive,) = lex(text, "f")
    return (directive.name, *directive.args)


def messages(text: str) -> list[str]:
    return [str(problem) for problem in lex_all(text, "f").problems]


class Words(SynchronousTestCase):
    def test_plain(self) -> None:
        self.assertEqual(words("a  b\tc\r\nd;"), ("a", "b", "c", "d"))
        self.assertEqual(words("a;"), ("a",))

    def test_quoted(self) -> None:
        self.assertEqual(words("""a "b c" 'd;{}#' "";"""), ("a", "b c", "d;{}#", ""))
        (directive,) = lex("""a b "c" 'd';""", "f")
        self.assertEqual([word.quoted for word in directive.words], [False, True, True])

    def test_quotes_inside_a_word_are_ordinary(self) -> None:
        self.assertEqual(words("""a b"c d'e;"""), ("a", 'b"c', "d'e"))

    def test_hash_and_brace_inside_a_word_are_ordinary(self) -> None:
        self.assertEqual(words("a b#c d}e;"), ("a", "b#c", "d}e"))

    def test_comments(self) -> None:
        self.assertEqual(words("# x; {\na # y\n b;# z"), ("a", "b"))

    def test_escapes(self) -> None:
        self.assertEqual(words(r'a "\t\r\n\\\"\'" \t\r\n\\\"\';'), ("a", *["\t\r\n\\\"'"] * 2))

    def test_backslash_stays_before_anything_else(self) -> None:
        self.assertEqual(
            words(r'use a\ b "a\ b\d\$" \.php$ \;\{ "\;";'),
            ("use", r"a\ b", r"a\ b\d\$", r"\.php$", r"\;\{", r"\;"),
        )

    def test_even_backslashes_before_a_quote(self) -> None:
        self.assertEqual(words(r'a "b\\" c;'), ("a", "b\\", "c"))

    def test_braces_after_a_dollar(self) -> None:
        self.assertEqual(words("a ${b}c$d;"), ("a", "${b}c$d"))
        (directive,) = lex("a ${{b{}", "f")
        self.assertEqual((directive.args, directive.block), (("${{b",), ()))
        (directive,) = lex("a b$c{}", "f")
        self.assertEqual((directive.args, directive.block), (("b$c",), ()))

    def test_escaped_dollar_does_not_take_braces(self) -> None:
        (directive,) = lex(r"a b\${}", "f")
        self.assertEqual((directive.args, directive.block), ((r"b\$",), ()))

    def test_parenthesis_after_a_quote_begins_a_word(self) -> None:
        (directive,) = lex('if ($a = "b"){}', "f")
        self.assertEqual(directive.args, ("($a", "=", "b", ")"))
        self.assertEqual(
            directive.words,
            (Word("($a"), Word("="), Word("b", quoted=True), Word(")")),
        )

    def test_byte_order_mark(self) -> None:
        self.assertEqual(words("\ufeffa b;"), ("a", "b"))
        self.assertEqual(words("a \ufeffb;"), ("a", "\ufeffb"))

    def test_other_white_space_is_ordinary(self) -> None:
        self.assertEqual(words("a\x0bb \x0c\xa0;"), ("a\x0bb", "\x0c\xa0"))

    def test_longest_word(self) -> None:
        longest = "x" * MAX_WORD
        self.assertEqual(words(f"a {longest} '{longest}';"), ("a", longest, longest))
        self.assertEqual(words(f"# {longest * 2}\na;"), ("a",))


class Blocks(SynchronousTestCase):
    def test_lines_are_those_of_the_names(self) -> None:
        tree = lex("\na\n b;\nc {\n\n  d 'x\ny';\n  e;\n}\nf;", "f")
        self.assertEqual([(d.name, d.line) for d in tree], [("a", 2), ("c", 4), ("f", 10)])
        inner = tree[1].block
        assert inner is not None
        self.assertEqual([(d.name, d.line) for d in inner], [("d", 6), ("e", 8)])

    def test_no_space_needed(self) -> None:
        expected = Directive("b", (), "f", 1)
        self.assertEqual(lex("a{b;}b;", "f"), (Directive("a", (), "f", 1, (expected,)), expected))
        (directive,) = lex("location ~^/thumbnail/{}", "f")
        self.assertEqual(directive.args, ("~^/thumbnail/",))

    def test_empty(self) -> None:
        for text in ("", " \r\n\t", "# x", "\ufeff"):
            self.assertEqual(lex(text, "f"), ())

    def test_the_farm(self) -> None:
        tree = lex(MASTER, "f")
        self.assertEqual([directive.name for directive in tree], ["user", "events", "http"])
        http = tree[2].block
        assert http is not None
        log_format, gzip_disable, server = http[1], http[3], http[-1]
        self.assertEqual(len(log_format.args), 3)
        self.assertEqual(gzip_disable.args, (r"MSIE [1-6]\.(?!.*SV1)",))
        assert server.block is not None
        self.assertEqual(
            [directive.args for directive in server.block],
            [
                ("=", "/favicon.ico"),
                ("~^/thumbnail/",),
                ("~", r"\.php$"),
                ("~", "^/$"),
                ("~", r".*\.(js|css|swf)?$"),
                ("~*", "^"),
            ],
        )
        condition = (server.block[3].block or ())[0]
        self.assertEqual(condition.args, ("(-f", "/index.html)"))

    def test_crlf(self) -> None:
        self.assertEqual(lex(MASTER.replace("\n", "\r\n"), "f"), lex(MASTER, "f"))

    def test_the_files_themselves(self) -> None:
        files = sorted(REFERENCE.glob("nginx_*.conf"))
        self.assertEqual(len(files), 2)
        for file in files:
            tree = lex(file.read_text(encoding="utf-8", errors="surrogateescape"), file.name)
            self.assertEqual(tree[-1].name, "http")


class Problems(SynchronousTestCase):
    def test_nginx_words(self) -> None:
        expected = {
            "a": 'unexpected end of file, expecting ";" or "}" in f:1',
            "a\n# b\n": 'unexpected end of file, expecting ";" or "}" in f:3',
            "a\\": 'unexpected end of file, expecting ";" or "}" in f:1',
            "a 'b;\n": 'unexpected end of file, expecting ";" or "}" in f:2',
            "a}": 'unexpected end of file, expecting ";" or "}" in f:1',
            "a {\n b;\n": 'unexpected end of file, expecting "}" in f:3',
            "a;\n}": 'unexpected "}" in f:2',
            "a { b }\n": 'unexpected "}" in f:1',
            "a;;": 'unexpected ";" in f:1',
            "{ }": 'unexpected "{" in f:1',
            'a "b"c;': 'unexpected "c" in f:1',
            "# \0\na\n b\0;": "unexpected NUL in f:3",
            "a '\0';": "unexpected NUL in f:1",
            'a "b"};': 'unexpected "}" in f:1',
            "a\n" + "x" * 5000 + ";": 'too long parameter "xxxxxxxxxx..." started in f:2',
            "a é" + "é" * 2048 + ";": 'too long parameter "éééééééééé..." started in f:1',
            "a\n '" + "x\n" * 5000 + "';": (
                'too long parameter, probably missing terminating "\'" character in f:2'
            ),
        }
        for text, message in expected.items():
            self.assertEqual(messages(text)[0], message, text[:20])

    def test_several_at_once(self) -> None:
        text = 'a { b; ;\n c "d"e;\n}\n}\n{ f; }\ng { h'
        self.assertEqual(
            messages(text),
            [
                'unexpected ";" in f:1',
                'unexpected "e" in f:2',
                'unexpected "}" in f:4',
                'unexpected "{" in f:5',
                'unexpected end of file, expecting ";" or "}" in f:6',
            ],
        )
        self.assertEqual([d.name for d in lex_all(text, "f").directives], ["a", "g"])
        error = self.assertRaises(ConfigurationError, lex, text, "f")
        self.assertEqual(len(error.problems), 5)

    def test_depth(self) -> None:
        good = "a{" * MAX_DEPTH + "}" * MAX_DEPTH
        self.assertEqual(messages(good), [])
        self.assertEqual(
            messages("\n" + "a{" * 100_000), [f"blocks are nested deeper than {MAX_DEPTH} in f:2"]
        )


# --- properties ---------------------------------------------------------------------------------


def render_word(word: Word, *, quote: bool) -> str:
    """``word`` as one may write it so that it is read as it was."""
    text = word.text.replace("\\", "\\\\")
    if not quote and not word.quoted:
        return text
    return '"' + text.replace('"', '\\"') + '"'


def render(tree: tuple[Directive, ...], *, quote: bool = False) -> str:
    lines = []
    for directive in tree:
        all_words = (Word(directive.name), *directive.words)
        head = " ".join(render_word(word, quote=quote) for word in all_words)
        if directive.block is None:
            lines.append(f"{head};")
        else:
            lines.append(f"{head} {{\n{render(directive.block, quote=quote)}\n}}")
    return "\n".join(lines)


def bare(tree: tuple[Directive, ...]) -> tuple[Directive, ...]:
    """Without the places."""
    return tuple(
        Directive(d.name, d.words, "", 0, None if d.block is None else bare(d.block)) for d in tree
    )


def plain(tree: tuple[Directive, ...]) -> Any:
    """Texts alone."""
    return [(d.name, d.args, None if d.block is None else plain(d.block)) for d in tree]


NAMES = st.from_regex(r"[a-z_]{1,12}", fullmatch=True)
WORDS = st.builds(
    Word,
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20),
    quoted=st.just(True),
) | st.builds(
    Word, st.from_regex(r"[A-Za-z0-9~^/.*=@:$|()?+\\-][^\0\s;{}\"'#]{0,12}", fullmatch=True)
)
LEAVES = st.builds(
    Directive, NAMES, st.lists(WORDS, max_size=4).map(tuple), st.just(""), st.just(0)
)
TREES = st.recursive(
    LEAVES,
    lambda inner: st.builds(
        Directive,
        NAMES,
        st.lists(WORDS, max_size=2).map(tuple),
        st.just(""),
        st.just(0),
        st.lists(inner, max_size=4).map(tuple),
    ),
    max_leaves=12,
)
CONFIGURATIONS = st.lists(TREES, max_size=4).map(tuple)
#: Texts of what matters to the lexer, of which many are whole.
SOUP = st.lists(
    st.sampled_from(
        [*"ab ;\n\r{}\"'\\$#()né\udce9\ufeff", "a;", "b {", "}", "'a'", '"\\""', "\\n ", "${"]
    ),
    max_size=30,
).map("".join)


class Properties(SynchronousTestCase):
    @settings(deadline=None)
    @given(CONFIGURATIONS)
    def test_round_trip(self, tree: tuple[Directive, ...]) -> None:
        self.assertEqual(bare(lex(render(tree), "f")), tree)

    @settings(deadline=None, max_examples=400)
    @given(SOUP | st.text())
    def test_any_text(self, text: str) -> None:
        lexed = lex_all(text, "f")
        last = text.count("\n") + 1
        lines = [problem.line for problem in lexed.problems]
        self.assertEqual(lines, sorted(lines))
        for line in lines:
            self.assertTrue(1 <= line <= last)
        if not lexed.problems:
            again = lex(render(lexed.directives, quote=True), "f")
            self.assertEqual(plain(again), plain(lexed.directives))

    def test_every_truncation(self) -> None:
        for end in range(len(MASTER)):
            text = MASTER[:end]
            lexed = lex_all(text, "f")
            self.assertLessEqual(len(lexed.problems), 1)
            for problem in lexed.problems:
                self.assertTrue(problem.message.startswith("unexpected end of file"), problem)
                self.assertEqual(problem.line, text.count("\n") + 1)
            if not lexed.problems:
                self.assertEqual(text.count("{"), text.count("}"))

    @settings(deadline=None)
    @given(st.text())
    def test_unescape_leaves_other_texts_alone(self, text: str) -> None:
        plain = text.replace("\\", "/")
        self.assertEqual(unescape(plain), plain)
        self.assertEqual(unescape(text.replace("\\", "\\\\")), text)
