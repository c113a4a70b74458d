"""The generated reference, and the names that nginx knows."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from imagefarm.config import values
from imagefarm.config.errors import ConfigurationError
from imagefarm.config.known import HARMLESS, UNSAFE
from imagefarm.config.loader import Loaded, convert
from imagefarm.config.parse import parse_text
from imagefarm.config.reference import render
from imagefarm.config.table import (
    EVENTS,
    HSLI,
    HTTP,
    MAIN,
    UPSTREAM,
    AnyRow,
    BlockRow,
    DirectiveTable,
    Ignored,
    ListRow,
    Row,
)
from imagefarm.config.variables import VariableTable


def row(name: str, convert: Any, default: Any, **more: Any) -> Row[Any]:
    return Row(
        name=name, contexts=frozenset({HTTP}), convert=convert, default=default, doc="D.", **more
    )


def entry(row: AnyRow) -> list[str]:
    """The lines of the entry for ``row``, without the empty ones."""
    text = render(DirectiveTable({"Group": [row]}))
    inside = text.partition("## Group\n")[2].partition("\n## ")[0]
    return [line for line in inside.splitlines() if line]


class Reference(SynchronousTestCase):
    def default(self, convert: Any, default: Any, **more: Any) -> str:
        (line,) = [
            line
            for line in entry(row("x", convert, default, **more))
            if line.startswith("- Default: ")
        ]
        return line.removeprefix("- Default: ")

    def test_row(self) -> None:
        gzip = Row(
            name="gzip",
            contexts=HSLI,
            convert=values.flag,
            default=False,
            syntax="on | off",
            doc="Compresses.",
        )
        self.assertEqual(
            entry(gzip),
            [
                "### `gzip`",
                "- Syntax: `gzip on | off;`",
                "- Default: `gzip off;`",
                "- Context: http, server, location, if in location",
                "Compresses.",
            ],
        )

    def test_list(self) -> None:
        server = ListRow(
            name="server",
            contexts=frozenset({UPSTREAM}),
            convert=values.text,
            syntax="address",
            doc="D.",
        )
        self.assertEqual(
            entry(server),
            [
                "### `server`",
                "- Syntax: `server address;`",
                "- Default: —",
                "- Context: upstream",
                "- May be repeated",
                "D.",
            ],
        )

    def test_block(self) -> None:
        events = BlockRow(
            name="events", contexts=frozenset({MAIN}), opens=EVENTS, convert=values.words, doc="D."
        )
        self.assertEqual(
            entry(events),
            ["### `events`", "- Syntax: `events { ... }`", "- Context: main", "D."],
        )

    def test_ignored(self) -> None:
        aio = Ignored(name="aio", contexts=frozenset({HTTP}), why="there is sendfile")
        self.assertEqual(
            entry(aio),
            ["### `aio`", "- Context: http", "Accepted without effect: there is sendfile."],
        )

    def test_defaults(self) -> None:
        self.assertEqual(self.default(values.flag, True), "`x on;`")
        self.assertEqual(self.default(values.size, 1 << 20), "`x 1m;`")
        self.assertEqual(self.default(values.offset, 2 << 30), "`x 2g;`")
        self.assertEqual(self.default(values.size, 20), "`x 20;`")
        self.assertEqual(self.default(values.size, 0), "`x 0;`")
        self.assertEqual(self.default(values.time, 75.0), "`x 75s;`")
        self.assertEqual(self.default(values.time, 3600.0), "`x 1h;`")
        self.assertEqual(self.default(values.time, 0.25), "`x 250ms;`")
        self.assertEqual(self.default(values.number, 1024), "`x 1024;`")
        self.assertEqual(self.default(values.text, "a"), "`x a;`")
        self.assertEqual(self.default(values.text, None), "—")
        self.assertEqual(self.default(values.words, (1, 2), default_text="1 2"), "`x 1 2;`")

    def test_groups_and_known_names(self) -> None:
        table = DirectiveTable(
            {
                "One": [row("b", values.text, ""), row("a", values.text, "")],
                "Two": [row("allow", values.text, "")],
            }
        )
        text = render(table)
        places = [text.index(mark) for mark in ("## One", "`a`", "`b`", "## Two", "## Refused")]
        self.assertEqual(places, sorted(places))
        refused = text.partition("## Refused")[2]
        self.assertIn("`deny`", refused)
        self.assertNotIn("`allow`", refused)
        self.assertIn("`multi_accept`", text.partition("## Known")[2])


class Known(SynchronousTestCase):
    table = DirectiveTable(
        {
            "": [
                BlockRow(
                    name="http",
                    contexts=frozenset({MAIN}),
                    opens=HTTP,
                    convert=values.words,
                    doc="",
                ),
                row("deny", values.text, None),
            ]
        }
    )
    variables = VariableTable(
        exact={},
        prefixes={},
        defined=lambda name: lambda request: b"",
        capture=lambda number: lambda request: b"",
    )

    def load(self, text: str) -> Loaded:
        return convert(
            parse_text(text, "f"),
            table=self.table,
            variables=self.variables,
            prefix="/",
            conf_dir="/",
        )

    def test_disjoint(self) -> None:
        self.assertEqual(HARMLESS & UNSAFE, frozenset())
        for name in ("allow", "auth_basic", "limit_req", "proxy_ssl_verify", "sub_filter", "map"):
            self.assertIn(name, UNSAFE)

    def test_harmless_ones_warn(self) -> None:
        loaded = self.load("timer_resolution 1;\nhttp {\nmgmt { anything; }\n}")
        self.assertEqual(
            [str(warning) for warning in loaded.warnings],
            [
                '"timer_resolution" directive is not supported and has no effect in f:1',
                '"mgmt" directive is not supported and has no effect in f:3',
            ],
        )

    def test_unsafe_ones_are_refused(self) -> None:
        error = self.assertRaises(
            ConfigurationError, self.load, "stream { x; }\nhttp {\nauth_basic x;\ndeny all;\n}"
        )
        self.assertEqual(
            [str(problem) for problem in error.problems],
            [
                '"stream" directive is not supported, and to ignore it is not safe in f:1',
                '"auth_basic" directive is not supported, and to ignore it is not safe in f:3',
            ],
        )

    def test_the_table_wins(self) -> None:
        self.load("http { deny all; }")
        error = self.assertRaises(ConfigurationError, self.load, "deny all;")
        self.assertEqual(
            [str(problem) for problem in error.problems],
            ['"deny" directive is not allowed here in f:1'],
        )
