import os
import time

from hypothesis import given
from hypothesis import strategies as st
from twisted.logger import Logger, LogPublisher
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.process.errorlog import (
    LEVELS,
    MAX_MESSAGE,
    ErrorLog,
    ErrorLogSetting,
)
from imagefarm.process.logsinks import FileSink, LogFileError


class ErrorLogTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.path = os.path.join(self.mktemp(), "logs", "error.log")

    def open(self, level: str = "info") -> ErrorLog:
        self.sink = FileSink(self.path)
        log = ErrorLog(ErrorLogSetting(self.path, level), self.sink, lambda: 123, time.gmtime)
        self.addCleanup(self.sink.close)
        self.log = Logger(observer=LogPublisher(log))
        return log

    def text(self) -> str:
        with open(self.path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()

    def test_line_form(self) -> None:
        log = self.open()
        log({"log_time": 1769860800.9, "log_format": "upstream {what}", "what": "timed out"})
        self.assertEqual(self.text(), "2026/01/31 12:00:00 [info] 123#0: upstream timed out\n")

    def test_levels_of_the_logger(self) -> None:
        self.open("debug")
        for level in ("debug", "info", "warn", "error", "critical"):
            getattr(self.log, level)("x")
        words = [line.split()[2] for line in self.text().splitlines()]
        self.assertEqual(words, ["[debug]", "[info]", "[warn]", "[error]", "[crit]"])

    def test_severity_names_nginx_levels(self) -> None:
        self.open("alert")
        for level in LEVELS:
            self.log.error("x", severity=level)
        words = [line.split()[2] for line in self.text().splitlines()]
        self.assertEqual(words, ["[alert]", "[emerg]"])

    def test_below_the_level_nothing_is_written(self) -> None:
        self.open("error")
        self.log.warn("x")
        self.assertEqual(self.text(), "")

    def test_clients_can_not_forge_lines(self) -> None:
        self.open()
        self.log.info("path {path}", path="/\r\n2026/01/31 [emerg] \x1b[2J")
        self.assertTrue(self.text().endswith("path /\\x0D\\x0A2026/01/31 [emerg] \\x1B[2J\n"))

    def test_traceback_is_indented_and_prefixed(self) -> None:
        self.open()
        try:
            raise ValueError("bad\nthing")
        except ValueError:
            self.log.failure("while resizing")
        first, *rest = self.text().splitlines()
        self.assertTrue(first.endswith("[crit] 123#0: while resizing: ValueError: bad\\x0Athing"))
        self.assertTrue(all("[crit] 123#0:     " in line for line in rest))
        self.assertTrue(any("ValueError" in line for line in rest))

    def test_long_message_is_cut(self) -> None:
        self.open()
        self.log.info("{x}", x="a" * (MAX_MESSAGE + 1))
        self.assertEqual(self.text().count("a"), MAX_MESSAGE)

    def test_reopen_after_rotation(self) -> None:
        self.open()
        self.log.info("before")
        os.rename(self.path, self.path + ".1")
        self.log.info("between")
        self.sink.reopen()
        self.log.info("after")
        self.assertIn("after", self.text())
        self.assertNotIn("between", self.text())

    def test_reopen_keeps_the_old_file_if_it_must(self) -> None:
        self.open()
        os.rename(self.path, self.path + ".1")
        os.mkdir(self.path)
        error = self.assertRaises(LogFileError, self.sink.reopen)
        self.assertEqual(str(error), f'open() "{self.path}" failed (21: Is a directory)')
        self.log.info("still here")
        with open(self.path + ".1") as file:
            self.assertIn("still here", file.read())

    def test_can_not_be_opened(self) -> None:
        os.makedirs(self.path)
        error = self.assertRaises(LogFileError, self.open)
        self.assertIn("failed (21: Is a directory)", str(error))

    def test_closed_log_writes_no_more(self) -> None:
        self.open()
        self.sink.close()
        self.sink.close()
        self.log.info("x")
        self.assertEqual(self.text(), "")

    def test_stderr_needs_no_file(self) -> None:
        sink = FileSink(None)
        log = ErrorLog(ErrorLogSetting(None, "crit"), sink)
        sink.reopen()
        self.assertEqual(repr(log), "<ErrorLog stderr crit>")

    @given(st.text(max_size=50))
    def test_one_event_is_one_line(self, text: str) -> None:
        log = self.open()
        before = self.text().count("\n")
        log({"log_time": 0.0, "log_format": "{text}", "text": text})
        self.assertEqual(self.text().count("\n"), before + 1)
        self.sink.close()
