"""``map``; nginx is the judge of the whole in tests.interop.test_map_nginx."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.config.errors import ConfigurationError
from imagefarm.config.loader import Loaded, convert
from imagefarm.config.parse import parse_text
from imagefarm.config.table import HTTP, MAIN, BlockRow, DirectiveTable
from imagefarm.http.hostnames import HostNames
from imagefarm.http.lookup import Stability
from imagefarm.http.maps import MAP, Map
from imagefarm.http.message import Request
from imagefarm.http.variables import variable_table

from .samples import NOW, request

HTTP_BLOCK = BlockRow[None](
    name="http", contexts=frozenset({MAIN}), opens=HTTP, convert=lambda *_: None, doc=""
)


def load(text: str) -> Loaded:
    return convert(
        parse_text(f"http {{\n{text}\n}}", "f"),
        table=DirectiveTable({"all": (HTTP_BLOCK, MAP)}),
        variables=variable_table(clock=lambda: NOW),
        prefix="/p",
        conf_dir="/p/conf",
    )


def maps(text: str) -> dict[str, Map]:
    (http,) = load(text).root.blocks(HTTP_BLOCK)
    return {scope.value.name: scope.value for scope in http.blocks(MAP)}


def ask(args: str = "", **more: bytes) -> Request:
    made = request()
    made.args = args.encode()
    made.variables.update(more)
    return made


class MapTests(SynchronousTestCase):
    def test_a_value_stays(self) -> None:
        """Whatever becomes of its source, unless it is volatile."""
        made = maps("map $arg_a $kept { 1 x; 2 y; } map $arg_a $fresh { volatile; 1 x; 2 y; }")
        asked = ask("a=1")
        self.assertEqual([one.lookup(asked) for one in made.values()], [b"x", b"x"])
        asked.args = b"a=2"
        self.assertEqual([one.lookup(asked) for one in made.values()], [b"x", b"y"])
        self.assertEqual(asked.variables, {})  # which outlives a request, as a model of others

    def test_set_has_the_last_word(self) -> None:
        made = maps("map $arg_a $b { default x; }")
        self.assertEqual(made["b"].lookup(ask(b=b"mine")), b"mine")
        self.assertEqual(made["b"].lookup(ask(b=b"")), b"")

    def test_used_before_it_is_made(self) -> None:
        made = maps("map $second $first { y z; } map $arg_a $second { default y; }")
        self.assertEqual(made["first"].lookup(ask()), b"z")

    def test_circles(self) -> None:
        for text, line in (
            ("map $a $a { }", 2),
            ("map $b $a { }\nmap $a $b { }", 3),
            ("map $arg_x $a {\n1 $b; }\nmap $a $b { }", 4),
        ):
            error = self.assertRaises(ConfigurationError, load, text)
            self.assertEqual(
                [str(problem) for problem in error.problems],
                [f'cycle while evaluating variable "a" in f:{line}'],
            )

    def test_what_is_wrong_is_said_once(self) -> None:
        error = self.assertRaises(
            ConfigurationError, load, "map $a $b { }\nmap $b $c { }\nmap $arg_x $a {\nx; }"
        )
        self.assertEqual(
            [str(problem) for problem in error.problems],
            ["invalid number of the map parameters in f:5"],
        )

    def test_every_line_is_looked_at(self) -> None:
        error = self.assertRaises(
            ConfigurationError,
            load,
            "map $arg_x $a {\ndefault 1;\ndefault 2;\n~[ x;\nb;\nc $none;\nd 1;\n}",
        )
        self.assertEqual(
            [str(problem) for problem in error.problems],
            [
                "duplicate default map parameter in f:4",
                'pcre2_compile() failed: unterminated character set in "[" in f:5',
                "invalid number of the map parameters in f:6",
                'unknown "none" variable in f:7',
            ],
        )

    def test_stability(self) -> None:
        """What answers may be repeated where it has a say; never more than its sources allow."""
        for text, stability in (
            ("map $host $x { a b; }", Stability.HOST),
            ("map $http_a $x { ~b c; }", Stability.BLOCK),
            ("map $http_a $x { ~(b) c; }", Stability.REQUEST),
            ("map $http_a $x { b $host; }", Stability.REQUEST),
            ("map $http_a $x { b $http_c; }", Stability.BLOCK),
            ("map $uri $x { }", Stability.REQUEST),
            ("map $arg_a $x { }", Stability.ARGUMENT),
            ("map $remote_addr $x { }", Stability.ANSWER),
            ("map $msec $x { }", Stability.REQUEST),
            ("map $status $x { }", Stability.ANSWER),
            ("map same $x { same one; }", Stability.HOST),
            ("map $host $y { }\nmap $y $x { }", Stability.HOST),
        ):
            self.assertIs(maps(text)["x"].stability, stability, text)


labels = st.sampled_from((b"a", b"b", b"cc"))
hosts = st.lists(labels, min_size=1, max_size=4).map(b".".join)
names = st.builds(
    lambda before, host, after: before + host + after,
    st.sampled_from((b"", b"*.", b".")),
    hosts,
    st.just(b""),
) | hosts.map(lambda host: host + b".*")


def expected(known: list[bytes], host: bytes) -> bytes | None:
    """By the book: exact, the longest with an asterisk before, the longest with one behind."""
    if host in known or b"." + host in known:
        return host if host in known else b"." + host
    before = [
        name for name in known if name[:1] in b"*." and host.endswith(name.removeprefix(b"*"))
    ]
    behind = [name for name in known if name[-1:] == b"*" and host.startswith(name[:-1])]
    longest = max(before, key=lambda name: len(name.removeprefix(b"*")), default=None)
    return longest or max(behind, key=len, default=None)


class HostNamesTests(SynchronousTestCase):
    @given(st.lists(names, max_size=8), st.lists(hosts, min_size=1, max_size=8))
    def test_by_the_book(self, known: list[bytes], asked: list[bytes]) -> None:
        found = HostNames[bytes]()
        added = [name for name in known if found.add(name, name)]
        for host in asked:
            self.assertEqual(found.find(host), expected(added, host), (added, host))

    def test_taken(self) -> None:
        found = HostNames[int]()
        adds = [(b"a", True), (b"a", False), (b".a", False), (b"*.a", True), (b"*.a", False)]
        self.assertEqual([found.add(name, 1) for name, _ in adds], [free for _, free in adds])

    def test_without_wildcards(self) -> None:
        found = HostNames[int]()
        for number, name in enumerate((b"*.a", b".a", b"a.*")):
            self.assertTrue(found.add(name, number, wildcards=False))
            self.assertEqual(found.find(name), number)
        self.assertIsNone(found.find(b"b.a"))
