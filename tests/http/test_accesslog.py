"""Log formats and the files they are written to."""

from __future__ import annotations

import gzip
import json
import os
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.config.errors import ConfigurationError
from imagefarm.config.table import Scope
from imagefarm.http.accesslog import (
    ACCESS_LOG,
    DEFAULT_BUFFER,
    DEFAULT_FLUSH,
    SILENCE,
    AccessLogs,
    LogFiles,
)
from imagefarm.http.logformat import (
    LOG_FORMAT,
    combined,
    escape_default,
    escape_json,
    escape_none,
)
from imagefarm.http.message import Request
from imagefarm.http.variables import variable_table

from .samples import NOW, http_scope, location_scope, request

VARIABLES = variable_table(clock=lambda: NOW)


class EscapeTests(SynchronousTestCase):
    def test_default(self) -> None:
        self.assertEqual(
            escape_default(b'a"b\\c\n\x7f\xe9~ \x1f'), b"a\\x22b\\x5Cc\\x0A\\x7F\\xE9~ \\x1F"
        )
        self.assertEqual((escape_default(b""), escape_default(None)), (b"", b"-"))

    def test_json(self) -> None:
        self.assertEqual(
            escape_json(b'a"\\\n\t\r\b\f\x1f\xe9'), b'a\\"\\\\\\n\\t\\r\\b\\f\\u001F\xe9'
        )
        self.assertEqual(escape_json(None), b"")

    def test_none(self) -> None:
        self.assertEqual((escape_none(b'"\n'), escape_none(None)), (b'"\n', b""))

    @settings(deadline=None)
    @given(st.binary())
    def test_default_stays_on_its_line_and_in_its_quotes(self, value: bytes) -> None:
        found = escape_default(value)
        self.assertNotRegex(found, rb'[\x00-\x1f"\x7f-\xff]')
        back = found.decode("unicode_escape").encode("latin-1")
        self.assertEqual(back, value)

    @settings(deadline=None)
    @given(st.text())
    def test_json_can_be_read_back(self, text: str) -> None:
        found = escape_json(text.encode("utf-8", "surrogatepass"))
        quoted = '"' + found.decode("utf-8", "surrogatepass") + '"'
        self.assertEqual(json.loads(quoted), text)


class FormatTests(SynchronousTestCase):
    def lines(self, text: str, asked: Request) -> list[bytes]:
        return [form.line(asked) for form in http_scope(text).all(LOG_FORMAT)]

    def test_the_farms_own(self) -> None:
        asked = request(b"/a.jpg?x", [(b"User-Agent", b'a"b'), (b"X-Forwarded-For", b"")])
        asked.outcome.status, asked.outcome.body_bytes_sent = 200, 1234
        (line,) = self.lines(
            "log_format main '$remote_addr - $remote_user [$time_local] \"$request\" ' "
            "'$status $body_bytes_sent \"$http_referer\" ' "
            '\'"$http_user_agent" "$http_x_forwarded_for"\';',
            asked,
        )
        self.assertRegex(
            line,
            rb'^192\.0\.2\.7 - - \[\d\d/Nov/1994:[0-9:]{8} [+-]\d{4}\] "GET /a\.jpg\?x HTTP/1\.1" '
            rb'200 1234 "-" "a\\x22b" ""\n$',
        )

    def test_combined(self) -> None:
        line = combined(VARIABLES).line(request(b"/a"))
        self.assertRegex(line, rb'^192\.0\.2\.7 - - \[[^]]+\] "GET /a HTTP/1\.1" 000 0 "-" "-"\n$')

    def test_escapes(self) -> None:
        asked = request(b"/", [(b"X", b'"')])
        self.assertEqual(
            self.lines(
                "log_format a '[$http_x$http_y]'; log_format b escape=default '[$http_x$http_y]';"
                "log_format c escape=json '[$http_x$http_y]';"
                "log_format d escape=none '[$http_x$http_y]';",
                asked,
            ),
            [b"[\\x22-]\n", b"[\\x22-]\n", b'[\\"]\n', b'["]\n'],
        )

    def test_errors(self) -> None:
        for line, message in {
            "log_format a escape=xml b;": 'unknown log format escaping "xml"',
            "log_format a '$nothing';": 'unknown "nothing" variable',
        }.items():
            with self.assertRaises(ConfigurationError, msg=line) as raised:
                http_scope(line)
            self.assertIn(message, str(raised.exception))


class LogTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.dir = os.path.abspath(self.mktemp())
        os.mkdir(self.dir)
        self.clock = Clock()
        self.files = LogFiles(self.clock, VARIABLES)
        self.addCleanup(self.files.close)

    def logs(self, scope: Scope) -> AccessLogs:
        """The logs of a scope, opened."""
        logs = self.files.for_scope(scope)
        self.files.open()
        return logs

    def path(self, name: str) -> str:
        return os.path.join(self.dir, name)

    def content(self, name: str = "a.log") -> bytes:
        with open(self.path(name), "rb") as file:
            return file.read()

    def http(self, text: str) -> Scope:
        return http_scope("log_format m '$uri';" + text.replace("DIR", self.dir))

    def write(self, logs: AccessLogs, *targets: bytes) -> None:
        for target in targets:
            logs.write(request(target))

    def test_written_after_a_moment(self) -> None:
        logs = self.logs(self.http("access_log DIR/a.log m;"))
        self.write(logs, b"/a", b"/b")
        self.assertEqual(self.content(), b"")
        self.clock.advance(DEFAULT_FLUSH)
        self.assertEqual(self.content(), b"/a\n/b\n")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_written_when_the_buffer_is_full(self) -> None:
        logs = self.logs(self.http("access_log DIR/a.log m buffer=8;"))
        self.write(logs, b"/aa", b"/bb")
        self.assertEqual(self.content(), b"/aa\n/bb\n")
        self.write(logs, b"/cc", b"/ddd")
        self.assertEqual(self.content(), b"/aa\n/bb\n/cc\n")
        self.write(logs, b"/longer-than-the-buffer")
        self.assertEqual(self.content(), b"/aa\n/bb\n/cc\n/ddd\n/longer-than-the-buffer\n")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_flush_time(self) -> None:
        logs = self.logs(self.http("access_log DIR/a.log m buffer=1k flush=5m;"))
        self.write(logs, b"/a")
        self.clock.advance(299)
        self.assertEqual(self.content(), b"")
        self.clock.advance(1)
        self.assertEqual(self.content(), b"/a\n")

    def test_written_at_close(self) -> None:
        self.write(self.logs(self.http("access_log DIR/a.log m;")), b"/a")
        self.files.close()
        self.assertEqual(self.content(), b"/a\n")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_appends(self) -> None:
        with open(self.path("a.log"), "wb") as file:
            file.write(b"before\n")
        self.write(self.logs(self.http("access_log DIR/a.log m;")), b"/a")
        self.files.flush()
        self.assertEqual(self.content(), b"before\n/a\n")

    def test_reopen(self) -> None:
        logs = self.logs(self.http("access_log DIR/a.log m;"))
        self.write(logs, b"/a")
        os.rename(self.path("a.log"), self.path("a.log.1"))
        self.assertEqual(self.files.reopen(), [])
        self.write(logs, b"/b")
        self.files.flush()
        self.assertEqual((self.content("a.log.1"), self.content()), (b"/a\n", b"/b\n"))

    def test_a_failed_reopen_keeps_the_old_file(self) -> None:
        logs = self.logs(self.http("access_log DIR/a.log m;"))
        moved = self.dir + ".moved"
        os.rename(self.dir, moved)
        (failure,) = self.files.reopen()
        self.assertIn(f'open() "{self.path("a.log")}" failed (2: No such file', failure)
        self.write(logs, b"/a")
        self.files.flush()
        os.rename(moved, self.dir)
        self.assertEqual(self.content(), b"/a\n")

    def test_several_and_off(self) -> None:
        scope = self.http(
            "access_log DIR/a.log m; access_log DIR/b.log; server { } server { access_log off; }"
        )
        row = next(row for row, _, directive in scope.items if directive.name == "server")
        on, off = scope.blocks(row)  # type: ignore[arg-type]
        logs = self.logs(on)
        self.assertEqual(self.files.for_scope(off), AccessLogs())
        self.write(logs, b"/a")
        self.files.flush()
        self.assertEqual(self.content(), b"/a\n")
        self.assertRegex(self.content("b.log"), rb'^192\.0\.2\.7 - .* "GET /a HTTP/1\.1" 000 0')

    def test_equal_targets_share_a_file(self) -> None:
        first = self.logs(self.http("access_log DIR/a.log m;"))
        second = self.files.for_scope(self.http("log_format n 'n'; access_log DIR/a.log n;"))
        self.assertIs(first.entries[0].file, second.entries[0].file)
        self.write(first, b"/a")
        self.write(second, b"/b")
        self.files.flush()
        self.assertEqual(self.content(), b"/a\nn\n")

    def test_condition(self) -> None:
        logs = self.logs(self.http("access_log DIR/a.log m if=$arg_log;"))
        self.write(logs, b"/a?log=1", b"/b?log=0", b"/c", b"/d?log=x")
        self.files.flush()
        self.assertEqual(self.content(), b"/a\n/d\n")

    def test_gzip(self) -> None:
        logs = self.logs(self.http("access_log DIR/a.log m gzip;"))
        self.write(logs, b"/a")
        self.files.flush()
        self.write(logs, b"/b")
        self.files.flush()
        self.assertEqual(gzip.decompress(self.content()), b"/a\n/b\n")

    def test_path_with_variables(self) -> None:
        logs = self.logs(self.http("access_log DIR/$arg_n.log m;"))
        self.write(logs, b"/a?n=1", b"/b?n=2", b"/c?n=1", b"/d?n=none/there")
        self.files.flush()
        self.assertEqual((self.content("1.log"), self.content("2.log")), (b"/a\n/c\n", b"/b\n"))
        self.assertEqual(logs.entries[0].file.lost, 1)

    def test_relative_paths(self) -> None:
        scope = http_scope("access_log logs/a.log;", prefix=self.dir)
        os.mkdir(self.path("logs"))
        self.write(self.logs(scope), b"/a")
        self.files.flush()
        self.assertIn(b"/a", self.content("logs/a.log"))

    def test_no_access_log(self) -> None:
        self.assertEqual(self.files.for_scope(http_scope("")), AccessLogs())

    def test_inherited_as_a_whole(self) -> None:
        scope = location_scope(
            f"access_log {self.path('a.log')}; location / {{ access_log {self.path('b.log')}; }}"
        )
        self.assertEqual(len(self.files.for_scope(scope).entries), 1)

    def test_everything_wrong_at_once(self) -> None:
        self.files.for_scope(
            self.http("access_log DIR/a.log;\naccess_log DIR/a.log other;\nlog_format m 'x';")
        )
        self.files.for_scope(self.http("\naccess_log DIR/none/b.log m;"))
        with self.assertRaises(ConfigurationError) as raised:
            self.files.open()
        text = str(raised.exception)
        self.assertIn('unknown log format "other" in test.conf:3', text)
        self.assertIn('duplicate "log_format" name "m" in test.conf:4', text)
        self.assertIn(
            f'open() "{self.path("none/b.log")}" failed (2: No such file or directory)'
            " in test.conf:3",
            text,
        )

    def test_a_full_disk_loses_lines_and_nothing_else(self) -> None:
        """The error log is told, once a minute."""
        logs = self.logs(self.http("access_log /dev/full m;"))
        with capturedLogs() as said:
            for seconds in (DEFAULT_FLUSH, SILENCE - 1, 1):
                self.write(logs, b"/a", b"/b")
                self.clock.advance(seconds)
        self.assertEqual(
            [formatEvent(event) for event in said],
            [
                'writing to "/dev/full" failed (28: No space left on device), '
                f"{lost} lines are lost so far"
                for lost in (2, 6)
            ],
        )
        self.assertEqual(repr(logs.entries[0].file), "<LogFile /dev/full buffered=0 lost=6>")

    def test_a_log_that_takes_a_part_gets_the_rest(self) -> None:
        logs = self.logs(self.http("access_log DIR/a.log m;"))
        real = os.write
        self.patch(os, "write", lambda fd, data: real(fd, data[:3]))
        self.write(logs, b"/a", b"/b")
        self.files.flush()
        self.assertEqual(self.content(), b"/a\n/b\n")

    def test_nothing_is_wrong(self) -> None:
        logs = self.logs(self.http("access_log DIR/a.log m;"))
        self.write(logs, b"/a", b"/b")
        self.clock.advance(DEFAULT_FLUSH)
        self.assertIn("buffered=0 lost=0", repr(logs.entries[0].file))


class RuleTests(SynchronousTestCase):
    def rule(self, words: str) -> Any:
        (rule,) = http_scope(f"access_log {words};").all(ACCESS_LOG)
        return rule

    def test_defaults(self) -> None:
        target = self.rule("logs/a.log").target
        self.assertEqual(
            (target.path.constant, target.buffer, target.flush, target.gzip),
            (b"/srv/logs/a.log", DEFAULT_BUFFER, DEFAULT_FLUSH, None),
        )

    def test_parameters(self) -> None:
        rule = self.rule("a main buffer=32k flush=5m gzip=6 if=$host")
        self.assertEqual(rule.format, "main")
        self.assertEqual((rule.target.buffer, rule.target.flush), (32768, 300.0))
        self.assertEqual((rule.target.gzip, rule.condition.source), (6, "$host"))
        rule = self.rule("a gzip")
        self.assertEqual(
            (rule.format, rule.target.gzip, rule.target.buffer), ("combined", 1, 65536)
        )

    def test_errors(self) -> None:
        for words, message in {
            "off main": 'invalid parameter "main"',
            "a main bufer=1": 'invalid parameter "bufer=1"',
            "a main buffer=0": 'invalid buffer size "0"',
            "a main buffer=x": 'invalid value "x"',
            "a main flush=1": "no buffer is defined for access_log",
            "a main buffer=1k flush=0": 'invalid flush time "0"',
            "a main gzip=10": 'invalid compression level "10"',
            "a main gzip=": 'invalid compression level ""',
            "syslog:server=127.0.0.1 main gzip": "logs to syslog cannot be buffered",
            "syslog:tag=a": "no syslog server specified",
        }.items():
            with self.assertRaises(ConfigurationError, msg=words) as raised:
                http_scope(f"access_log {words};")
            self.assertIn(message, str(raised.exception))
