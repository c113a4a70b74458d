"""The loader: what it accepts, what it says of what it does not."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from imagefarm.config import values
from imagefarm.config.ast import Directive
from imagefarm.config.errors import ConfigurationError, Invalid
from imagefarm.config.loader import Loaded, convert, override
from imagefarm.config.parse import Parsed, parse_text
from imagefarm.config.table import (
    EVENTS,
    HSL,
    HTTP,
    LOCATION,
    LOCATION_IF,
    MAIN,
    SERVER,
    SERVER_IF,
    UPSTREAM,
    BlockRow,
    DirectiveTable,
    Environment,
    Ignored,
    ListRow,
    Row,
)
from imagefarm.config.variables import VariableTable


def nothing(directive: Directive, env: Environment) -> None:
    return None


def broken(directive: Directive, env: Environment) -> None:
    raise ZeroDivisionError


def warned(directive: Directive, env: Environment) -> str:
    env.warn("that is obsolete")
    return directive.args[0]


def first_named(directive: Directive) -> tuple[str, ...]:
    if directive.args[0] == "bad":
        raise Invalid("bad pattern")
    return (directive.args[0].removeprefix("$"),)


def set_value(directive: Directive, env: Environment) -> Any:
    if directive.args[0] == "bad":
        raise Invalid("bad pattern")
    return directive.args[0], env.template(directive.args[1])


def data_lines(directive: Directive, env: Environment) -> dict[str, tuple[str, ...]]:
    for inner in directive.block or ():
        if not inner.args:
            raise Invalid("no extension", inner)
    return {inner.name: inner.args for inner in directive.block or ()}


EVENTS_BLOCK = BlockRow(
    name="events", contexts=frozenset({MAIN}), opens=EVENTS, convert=nothing, unique=True, doc=""
)
HTTP_BLOCK = BlockRow(
    name="http", contexts=frozenset({MAIN}), opens=HTTP, convert=nothing, unique=True, doc=""
)
SERVER_BLOCK = BlockRow(
    name="server", contexts=frozenset({HTTP}), opens=SERVER, convert=nothing, doc=""
)
LOCATION_BLOCK = BlockRow(
    name="location",
    contexts=frozenset({SERVER, LOCATION}),
    arity=(1, 2),
    opens=LOCATION,
    convert=values.words,
    doc="",
)
UPSTREAM_BLOCK = BlockRow(
    name="upstream",
    contexts=frozenset({HTTP}),
    arity=(1, 1),
    opens=UPSTREAM,
    convert=values.text,
    doc="",
)
IF_BLOCK = BlockRow(
    name="if",
    contexts=frozenset({SERVER, LOCATION}),
    arity=(1, None),
    opens={SERVER: SERVER_IF, LOCATION: LOCATION_IF},
    convert=values.words,
    doc="",
)
TYPES = BlockRow(name="types", contexts=HSL, free=True, convert=data_lines, doc="")
PEER = ListRow(
    name="server", contexts=frozenset({UPSTREAM}), arity=(1, None), convert=values.words, doc=""
)
WORKERS = Row(
    name="worker_processes", contexts=frozenset({MAIN}), convert=values.number, default=1, doc=""
)
ERROR_LOG = ListRow(name="error_log", contexts=HSL | {MAIN}, convert=values.path, doc="")
GZIP = Row(name="gzip", contexts=HSL | {LOCATION_IF}, convert=values.flag, default=False, doc="")
ROOT = Row(name="root", contexts=HSL, convert=values.path, default="html", doc="")
HEADER = ListRow(
    name="add_header", contexts=HSL, arity=(2, 2), convert=values.words, default=((),), doc=""
)
RETURN = Row(
    name="return",
    contexts=frozenset({SERVER, LOCATION, SERVER_IF}),
    convert=values.template,
    default=None,
    inherits=False,
    doc="",
)
SET = ListRow(
    name="set",
    contexts=frozenset({SERVER, LOCATION, LOCATION_IF}),
    arity=(2, 2),
    convert=set_value,
    defines=first_named,
    doc="",
)
CERTIFICATE = Row(
    name="ssl_certificate", contexts=HSL, convert=values.conf_path, default="", doc=""
)
BROKEN = Row(name="broken", contexts=HSL, arity=(0, 0), convert=broken, default=None, doc="")
WARNED = Row(name="obsolete", contexts=HSL, convert=warned, default="", doc="")
AIO = Ignored(name="aio", contexts=HSL, why="files are sent by the kernel")

TABLE = DirectiveTable(
    {
        "Core": (EVENTS_BLOCK, HTTP_BLOCK, SERVER_BLOCK, LOCATION_BLOCK, WORKERS, ERROR_LOG),
        "Upstream": (UPSTREAM_BLOCK, PEER),
        "Rest": (
            *(IF_BLOCK, TYPES, GZIP, ROOT, HEADER, RETURN, SET, CERTIFICATE),
            *(BROKEN, WARNED, AIO),
        ),
    }
)

VARIABLES = VariableTable(
    exact={"host": lambda request: b"example.org"},
    prefixes={"http_": lambda rest: lambda request: rest.encode()},
    defined=lambda name: lambda request: request[name],
    capture=lambda number: lambda request: str(number).encode(),
)


def load(text: str | Parsed) -> Loaded:
    parsed = parse_text(text, "f") if isinstance(text, str) else text
    return convert(parsed, table=TABLE, variables=VARIABLES, prefix="/farm", conf_dir="/farm/conf")


class Loading(SynchronousTestCase):
    def errors(self, text: str | Parsed) -> list[str]:
        error = self.assertRaises(ConfigurationError, load, text)
        return [str(problem) for problem in error.problems]

    def test_values_and_defaults(self) -> None:
        root = load("worker_processes 4;").root
        self.assertEqual(root[WORKERS], 4)
        self.assertEqual(root[GZIP], False)
        self.assertTrue(root.is_set(WORKERS))
        self.assertFalse(root.is_set(GZIP))

    def test_inheritance(self) -> None:
        root = load(
            "http { gzip on; root /a; add_header a 1; add_header b 2; "
            "server { root b; return 1; location /x { gzip off; add_header c 3; } "
            "location /y { } } }"
        ).root
        (http,) = root.blocks(HTTP_BLOCK)
        (server,) = http.blocks(SERVER_BLOCK)
        x, y = server.blocks(LOCATION_BLOCK)
        self.assertEqual([s[GZIP] for s in (http, server, x, y)], [True, True, False, True])
        self.assertEqual([s[ROOT] for s in (http, x)], ["/a", "/farm/b"])
        self.assertEqual(http.all(HEADER), (("a", "1"), ("b", "2")))
        self.assertEqual(y.all(HEADER), (("a", "1"), ("b", "2")))
        self.assertEqual(x.all(HEADER), (("c", "3"),))
        self.assertEqual(root.all(HEADER), ((),))
        self.assertEqual(x.anywhere(HEADER), root.anywhere(HEADER))
        self.assertEqual(len(x.anywhere(HEADER)), 3)
        self.assertIsNone(x[RETURN])
        self.assertEqual(x.value, ("/x",))

    def test_items_keep_the_order(self) -> None:
        root = load("http { aio on; gzip on; server { } root x; server { } }").root
        (http,) = root.blocks(HTTP_BLOCK)
        self.assertEqual(
            [row for row, _, _ in http.items], [AIO, GZIP, SERVER_BLOCK, ROOT, SERVER_BLOCK]
        )
        self.assertEqual([item for _, item, _ in http.items[:2]], [None, True])

    def test_one_name_two_meanings(self) -> None:
        root = load("http { upstream u { server a; server b weight=2; } server { } }").root
        (http,) = root.blocks(HTTP_BLOCK)
        (upstream,) = http.blocks(UPSTREAM_BLOCK)
        self.assertEqual(upstream.value, "u")
        self.assertEqual(upstream.all(PEER), (("a",), ("b", "weight=2")))
        self.assertEqual(len(http.blocks(SERVER_BLOCK)), 1)

    def test_if_opens_what_fits(self) -> None:
        root = load("http { server { if (a) { return 1; } location / { if (b) { gzip on; } } } }")
        server = root.root.blocks(HTTP_BLOCK)[0].blocks(SERVER_BLOCK)[0]
        self.assertEqual(server.blocks(IF_BLOCK)[0].context, SERVER_IF)
        inner = server.blocks(LOCATION_BLOCK)[0].blocks(IF_BLOCK)[0]
        self.assertEqual((inner.context, inner[GZIP]), (LOCATION_IF, True))
        self.assertEqual(
            self.errors("http { server { if (a) { gzip on; } } }"),
            ['"gzip" directive is not allowed here in f:1'],
        )

    def test_free_block(self) -> None:
        root = load("http { types { text/html html htm; gzip nonsense; } server { } }").root
        (http,) = root.blocks(HTTP_BLOCK)
        expected = {"text/html": ("html", "htm"), "gzip": ("nonsense",)}
        self.assertEqual(http.blocks(TYPES)[0].value, expected)

    def test_an_error_inside_a_free_block_has_its_own_line(self) -> None:
        self.assertEqual(
            self.errors("http { types {\ntext/html html;\ntext/css;\n} }"), ["no extension in f:3"]
        )

    def test_paths(self) -> None:
        root = load("http { ssl_certificate a.pem; root img; }").root
        (http,) = root.blocks(HTTP_BLOCK)
        self.assertEqual(http[CERTIFICATE], "/farm/conf/a.pem")
        self.assertEqual(http[ROOT], "/farm/img")

    def test_variables_may_be_used_before_they_are_defined(self) -> None:
        root = load(
            "http { server { location / { return $Mine$1; } location /b { set $mine x; } } }"
        ).root
        server = root.blocks(HTTP_BLOCK)[0].blocks(SERVER_BLOCK)[0]
        template = server.blocks(LOCATION_BLOCK)[0][RETURN]
        self.assertEqual(template({"mine": b"value"}), b"value1")

    def test_all_errors_at_once_in_order(self) -> None:
        text = """gzip on;
events;
worker_processes many;
worker_processes 2;
frobnicate 1;
http {
    server extra { return $nope; }
    types;
    gzip maybe;
    root a b;
    root { }
    upstream { server; }
    set bad x;
    server { set bad x;
    frob; }
}
http { }
"""
        self.assertEqual(
            self.errors(text),
            [
                '"gzip" directive is not allowed here in f:1',
                'directive "events" has no opening "{" in f:2',
                '"worker_processes" directive invalid number in f:3',
                '"worker_processes" directive is duplicate in f:4',
                'unknown directive "frobnicate" in f:5',
                'invalid number of arguments in "server" directive in f:7',
                'directive "types" has no opening "{" in f:8',
                'invalid value "maybe" in "gzip" directive, it must be "on" or "off" in f:9',
                'invalid number of arguments in "root" directive in f:10',
                'directive "root" is not terminated by ";" in f:11',
                'invalid number of arguments in "upstream" directive in f:12',
                'invalid number of arguments in "server" directive in f:12',
                '"set" directive is not allowed here in f:13',
                "bad pattern in f:14",
                'unknown directive "frob" in f:15',
                '"http" directive is duplicate in f:17',
            ],
        )

    def test_what_follows_a_syntax_error_is_not_judged(self) -> None:
        self.assertEqual(
            self.errors("frob;\nhttp {\nserver {\n;\nroot a b;\n}\n}"),
            ['unknown directive "frob" in f:1', 'unexpected ";" in f:4'],
        )

    def test_unknown_variable(self) -> None:
        self.assertEqual(
            self.errors("http { server { return $nope; } }"), ['unknown "nope" variable in f:1']
        )

    def test_warnings(self) -> None:
        loaded = load("http {\nobsolete x;\naio on;\nserver { } }")
        self.assertEqual(
            [str(warning) for warning in loaded.warnings],
            [
                "that is obsolete in f:2",
                '"aio" directive is ignored: files are sent by the kernel in f:3',
            ],
        )

    def test_a_bug_in_a_converter_is_not_hidden(self) -> None:
        self.assertRaises(ZeroDivisionError, load, "http { broken; }")

    def test_override(self) -> None:
        parsed = parse_text("worker_processes 4; error_log a; events { }", "f")
        extra = parse_text("worker_processes 2; error_log b;", "--set")
        root = load(override(parsed, extra, TABLE)).root
        self.assertEqual(root[WORKERS], 2)
        self.assertEqual(root.all(ERROR_LOG), ("/farm/a", "/farm/b"))
        bad = parse_text("worker_processes x;\nevents { }", "--set")
        self.assertEqual(
            self.errors(override(parsed, bad, TABLE)),
            [
                '"worker_processes" directive invalid number in --set:1',
                '"events" directive is duplicate in --set:2',
            ],
        )


class Table(SynchronousTestCase):
    def test_two_rows_in_one_place_are_a_mistake(self) -> None:
        self.assertRaises(ValueError, DirectiveTable, {"a": [GZIP], "b": [GZIP]})

    def test_find(self) -> None:
        self.assertIs(TABLE.find("server", UPSTREAM), PEER)
        self.assertIs(TABLE.find("server", HTTP), SERVER_BLOCK)
        self.assertIsNone(TABLE.find("server", MAIN))
        self.assertIn("server", TABLE)
        self.assertNotIn("serve", TABLE)
