from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from imagefarm.cache.directives import (
    CACHE_STATUS_HEADER,
    DIRECTIVES,
    FASTCGI,
    PROXY,
    CacheSettings,
    problems,
    zone_settings,
)
from imagefarm.cache.policy import ValidTime
from imagefarm.cache.settings import Pace, ZoneSettings
from imagefarm.config.ast import Directive, Word
from imagefarm.config.errors import Invalid
from imagefarm.config.table import HTTP, LOCATION, BlockRow, ListRow, Row, Scope
from imagefarm.config.variables import Template, VariableTable

TABLE = VariableTable({"uri": lambda request: b"/u"}, {}, lambda name: bytes, lambda number: bytes)
BLOCK: BlockRow[None] = BlockRow(
    name="location", contexts=frozenset({HTTP}), convert=lambda d, e: None, doc="", opens=LOCATION
)


class Env:
    def template(self, text: str) -> Template:
        return TABLE.compile(text)

    def path(self, text: str) -> str:
        return text if text.startswith("/") else "/prefix/" + text

    conf_path = path

    def warn(self, message: str) -> None:
        raise AssertionError(message)


def directive(text: str, line: int = 1) -> Directive:
    name, *args = text.split()
    return Directive(name, tuple(Word(arg) for arg in args), "nginx.conf", line)


def scope(*lines: str, context: str = HTTP, parent: Scope | None = None) -> Scope:
    """A block with these directives, as the loader would make it."""
    rows: dict[str, Any] = {row.name: row for row in DIRECTIVES}
    made = Scope(context, None, parent, None)
    for number, text in enumerate(lines, 1):
        line = directive(text, number)
        row = rows[line.name]
        value = row.convert(line, Env())
        if isinstance(row, ListRow):
            made.own[row] = (*made.own.get(row, ()), value)
        else:
            made.own[row] = value
        made.items.append((row, value, line))
    if parent is not None:
        parent.items.append((BLOCK, made, directive("location /")))
    return made


def convert(row: Row[Any] | ListRow[Any], text: str) -> Any:
    return row.convert(directive(text), Env())


class PathTests(SynchronousTestCase):
    def test_the_farm_s_own(self) -> None:
        line = "fastcgi_cache_path cache levels=1:2 keys_zone=one:100m inactive=60m max_size=300M"
        self.assertEqual(
            convert(FASTCGI.path, line),
            ZoneSettings(
                name="one", path="/prefix/cache", keys=100 * 8192, levels=(1, 2),
                inactive=3600.0, max_size=300 << 20,
            ),
        )  # fmt: skip

    def test_defaults(self) -> None:
        found = convert(PROXY.path, "proxy_cache_path /c keys_zone=two:1m use_temp_path=off")
        self.assertEqual(found, ZoneSettings(name="two", path="/c", keys=8192))

    def test_upkeep(self) -> None:
        line = (
            "proxy_cache_path /c keys_zone=two:1m min_free=2g loader_files=7 loader_sleep=1s "
            "loader_threshold=200ms manager_files=3 manager_sleep=10ms manager_threshold=2ms "
            "purger=on purger_files=9 purger_sleep=2 purger_threshold=1ms"
        )
        expected = ZoneSettings(
            name="two", path="/c", keys=8192, min_free=2 << 30, purger=True,
            loader=Pace(files=7, sleep=1.0, threshold=0.2),
            manager=Pace(files=3, sleep=0.01, threshold=0.002),
            purging=Pace(files=9, sleep=2.0, threshold=0.001),
        )  # fmt: skip
        self.assertEqual(convert(PROXY.path, line), expected)

    def test_mistakes_in_nginx_s_words(self) -> None:
        for words, message in (
            ("keys_zone=a:1m min_free=x", 'invalid min_free value "min_free=x"'),
            ("keys_zone=a:1m loader_files=0", 'invalid loader_files value "loader_files=0"'),
            ("keys_zone=a:1m loader_size=1", 'invalid parameter "loader_size=1"'),
            ("keys_zone=a:1m manager_sleep=x", 'invalid manager_sleep value "manager_sleep=x"'),
            (
                "keys_zone=a:1m purger=1",
                'invalid purger value "purger=1", it must be either "on" or "off"',
            ),
            ("levels=1:2", '"proxy_cache_path" must have "keys_zone" parameter'),
            ("keys_zone=a:1m levels=3", 'invalid "levels" "levels=3"'),
            ("keys_zone=a:1m levels=1:2:1:2", 'invalid "levels" "levels=1:2:1:2"'),
            ("keys_zone=a", 'invalid keys zone size "keys_zone=a"'),
            ("keys_zone=:1m", 'invalid keys zone size "keys_zone=:1m"'),
            ("keys_zone=a:big", 'invalid keys zone size "keys_zone=a:big"'),
            ("keys_zone=a:1k", 'keys zone "keys_zone=a:1k" is too small'),
            ("keys_zone=a:1m inactive=x", 'invalid inactive value "inactive=x"'),
            ("keys_zone=a:1m max_size=x", 'invalid max_size value "max_size=x"'),
            (
                "keys_zone=a:1m use_temp_path=x",
                'invalid use_temp_path value "use_temp_path=x", it must be either "on" or "off"',
            ),
            ("keys_zone=a:1m what=1", 'invalid parameter "what=1"'),
            ("keys_zone=a:1m what", 'invalid parameter "what"'),
        ):
            error = self.assertRaises(Invalid, convert, PROXY.path, f"proxy_cache_path /c {words}")
            self.assertEqual(str(error), message)


class RowTests(SynchronousTestCase):
    def test_names(self) -> None:
        names = [row.name for row in DIRECTIVES]
        self.assertEqual(len(names), len(set(names)))
        self.assertTrue(
            all(not isinstance(row, Row) or (row.doc and row.syntax) for row in DIRECTIVES)
        )
        self.assertIn("fastcgi_no_cache", names)
        self.assertIn("proxy_cache_use_stale", names)

    def test_valid(self) -> None:
        def valid(words: str) -> Any:
            return convert(PROXY.valid, f"proxy_cache_valid {words}")

        self.assertEqual(valid("5m"), ValidTime(frozenset({200, 301, 302}), 300.0))
        self.assertEqual(valid("200 302 1m"), ValidTime(frozenset({200, 302}), 60.0))
        self.assertEqual(valid("any 1s"), ValidTime(None, 1.0))
        for words, message in (
            ("200 soon", 'invalid time value "soon"'),
            ("99 1m", 'invalid status "99"'),
            ("600 1m", 'invalid status "600"'),
        ):
            self.assertEqual(str(self.assertRaises(Invalid, valid, words)), message)

    def test_methods(self) -> None:
        self.assertEqual(
            convert(PROXY.methods, "proxy_cache_methods POST"), {b"GET", b"HEAD", b"POST"}
        )
        self.assertRaises(Invalid, convert, PROXY.methods, "proxy_cache_methods get")

    def test_use_stale(self) -> None:
        found = convert(PROXY.use_stale, "proxy_cache_use_stale error http_500")
        self.assertEqual(found, {"error", "http_500"})
        self.assertEqual(convert(PROXY.use_stale, "proxy_cache_use_stale off"), frozenset())
        self.assertRaises(Invalid, convert, PROXY.use_stale, "proxy_cache_use_stale http_418")


class SettingsTests(SynchronousTestCase):
    def test_from_scope(self) -> None:
        http = scope("fastcgi_cache_path /c keys_zone=one:1m", "fastcgi_cache_valid 200 1m")
        inner = scope(
            "fastcgi_cache one", "fastcgi_cache_key k$uri", "fastcgi_cache_min_uses 2",
            "fastcgi_cache_bypass $uri 0", "fastcgi_cache_bypass 1", "fastcgi_no_cache $uri",
            "fastcgi_cache_use_stale updating", "cache_status_header off",
            context=LOCATION, parent=http,
        )  # fmt: skip
        made = CacheSettings.from_scope("fastcgi", inner, ignore_headers=frozenset({b"vary"}))
        assert made is not None
        self.assertEqual((made.zone, made.key(None), made.min_uses), ("one", b"k/u", 2))
        self.assertEqual(made.valid, (ValidTime(frozenset({200}), 60.0),))
        self.assertEqual([item(None) for item in made.bypass], [b"/u", b"0", b"1"])
        self.assertEqual([item(None) for item in made.no_cache], [b"/u"])
        self.assertEqual(made.use_stale, {"updating"})
        self.assertEqual(made.ignore_headers, {b"vary"})
        self.assertFalse(made.status_header)
        self.assertIsNone(CacheSettings.from_scope("proxy", inner))
        self.assertEqual(problems(http), ())

    def test_without_zone_or_key_nothing_is_cached(self) -> None:
        for lines in ((), ("proxy_cache off", "proxy_cache_key k"), ("proxy_cache one",)):
            self.assertIsNone(CacheSettings.from_scope("proxy", scope(*lines)))
        made = CacheSettings.from_scope(
            "proxy", scope("proxy_cache one"), default_key=lambda request: b"default"
        )
        assert made is not None
        self.assertEqual(made.key(None), b"default")
        self.assertTrue(scope()[CACHE_STATUS_HEADER])

    def test_zones(self) -> None:
        http = scope(
            "fastcgi_cache_path /c keys_zone=one:1m", "proxy_cache_path /d keys_zone=two:1m"
        )
        found = {name: zone.path for name, zone in zone_settings(http).items()}
        self.assertEqual(found, {"one": "/c", "two": "/d"})

    def test_problems(self) -> None:
        http = scope(
            "fastcgi_cache_path /c keys_zone=one:1m",
            "proxy_cache_path /d keys_zone=one:1m",
            "proxy_cache_path /c keys_zone=two:1m",
            "proxy_cache three",
        )
        scope("fastcgi_cache one", "fastcgi_cache four", context=LOCATION, parent=http)
        self.assertEqual(
            [str(problem) for problem in problems(http)],
            [
                'duplicate zone "one" in nginx.conf:2',
                'the same path name "/c" used in nginx.conf:1 and in nginx.conf:3',
                '"proxy_cache" zone "three" is unknown in nginx.conf:4',
                '"fastcgi_cache" zone "four" is unknown in nginx.conf:2',
            ],
        )
