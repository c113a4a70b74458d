"""Which lines are written where."""

import json
import re
import shutil
import tempfile
from pathlib import Path

from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.app.configuration import Options, read
from imagefarm.app.logs import ErrorLogs
from imagefarm.http.requestlog import Context, context, explain, report
from imagefarm.process.directives import ERROR_LOG, MainSettings
from imagefarm.process.logsinks import LogFileError
from imagefarm.resources.directives import HTTP_BLOCK, LOCATION_BLOCK, SERVER_BLOCK
from tests.http.samples import request

MAIN = """
error_log PREFIX/main warn; error_log PREFIX/all debug;
events { debug_connection 10.0.0.0/8; }
http { %s }
"""
BLOCKS = """
server { listen 1; error_log PREFIX/server crit;
    location /own { error_log PREFIX/own; error_log PREFIX/own.json format=json info; }
    location /same { } }
server { listen 2; location /main { } }
"""
WHERE = Context(
    7, "192.0.2.1", "a", "GET /x HTTP/1.1", "http://192.0.2.9:80/x", "b", "http://c/", "f" * 32
)
TAIL = (
    ', client: 192.0.2.1, server: a, request: "GET /x HTTP/1.1", upstream: '
    f'"http://192.0.2.9:80/x", host: "b", referrer: "http://c/", request_id: "{"f" * 32}"'
)


class Case(SynchronousTestCase):
    def setUp(self) -> None:
        self.base = Path(tempfile.mkdtemp(prefix="logs-"))
        self.addCleanup(shutil.rmtree, self.base, True)
        self.noted: list[tuple[str, str]] = []

    def note(self, level: str, line: str) -> None:
        self.noted.append((level, line))

    def open(self, text: str) -> None:
        config = self.base / "m.conf"
        config.write_text(text.replace("PREFIX", str(self.base)))
        self.loaded = read(Options("master", str(config), str(self.base)))
        main = MainSettings.from_scope(self.loaded.root)
        self.logs = ErrorLogs(main, str(self.base), lambda: 1769860800.5)
        self.addCleanup(self.logs.close)

    def lines(self, name: str) -> list[str]:
        """Without the time and the process."""
        path = self.base / name
        text = path.read_text() if path.exists() else ""
        return [re.sub(r"^\S+ \S+ (\[\w+\]) \d+#0: ", r"\1 ", line) for line in text.splitlines()]


class PlaceTests(Case):
    def places(self) -> None:
        self.open(MAIN % BLOCKS)
        self.at = {}
        (http,) = self.loaded.root.blocks(HTTP_BLOCK)
        for server in http.blocks(SERVER_BLOCK):
            for location in server.blocks(LOCATION_BLOCK):
                place = self.logs.place(location.all(ERROR_LOG), self.note)
                self.at[location.value[1].decode()] = place
        self.logs.open()

    def test_a_set_of_one_s_own_replaces_the_outer_one(self) -> None:
        self.places()
        for name in ("/own", "/same", "/main"):
            for level in ("info", "error", "crit"):
                self.at[name].write(level, f"{name} {level}", WHERE)
        self.assertEqual(self.lines("server"), [f"[crit] *7 /same crit{TAIL}"])
        self.assertEqual(
            self.lines("own"), [f"[error] *7 /own error{TAIL}", f"[crit] *7 /own crit{TAIL}"]
        )
        self.assertEqual(len(self.lines("own.json")), 3)
        self.assertEqual(len(self.lines("main")), 2)
        self.assertEqual(len(self.lines("all")), 3)

    def test_who_wants_what(self) -> None:
        self.places()
        self.assertFalse(self.at["/own"].wants("debug", "192.0.2.1"))
        self.assertTrue(self.at["/own"].wants("info", "192.0.2.1"))
        self.assertFalse(self.at["/same"].wants("error", "unix:"))

    def test_debug_connection(self) -> None:
        self.places()
        self.assertTrue(self.at["/same"].wants("debug", "10.1.2.3"))
        self.assertTrue(self.at["/same"].wants("debug", "::ffff:10.1.2.3"))
        self.at["/same"].write("info", "x", Context(1, "10.1.2.3"))
        self.assertEqual(self.lines("server"), ["[info] *1 x, client: 10.1.2.3, server: "])

    def test_json(self) -> None:
        self.places()
        self.at["/own"].write("error", 'a "quoted" \ud800', WHERE)
        (line,) = self.lines("own.json")
        told = json.loads(line)
        self.assertEqual(told.pop("time"), "2026-01-31T12:00:00.500Z")
        self.assertGreater(told.pop("pid"), 1)
        self.assertEqual(told, {
            "level": "error", "message": 'a "quoted" \\ud800', "connection": 7,
            "client": "192.0.2.1", "server": "a", "request": "GET /x HTTP/1.1",
            "upstream": "http://192.0.2.9:80/x", "host": "b", "referrer": "http://c/",
            "request_id": "f" * 32,
        })  # fmt: skip

    def test_failures(self) -> None:
        self.places()
        try:
            raise ValueError("why")
        except ValueError:
            self.at["/own"].fail("while answering", Failure(), WHERE)
        first, *rest = self.lines("own")
        self.assertEqual(first, f"[crit] *7 while answering: ValueError: why{TAIL}")
        self.assertTrue(rest and all(line.startswith("[crit] *7     ") for line in rest))
        (line,) = self.lines("own.json")
        self.assertIn("ValueError'>: why", json.loads(line)["traceback"][0])

    def test_lines_made_once(self) -> None:
        """`again` writes what `write` would."""
        self.places()
        message = "100% \\x00 %b %d"
        for name in ("/own", "/main"):
            place = self.at[name]
            place.write("error", message, WHERE)
            place.again(place.outline("error", message, WHERE), 7, b"f" * 32)
            place.again(place.outline("error", message, WHERE), 8, b"0" * 32)
        for log in ("own", "main", "all"):
            one, same, other = self.lines(log)
            self.assertEqual(one, same)
            self.assertEqual(other, one.replace("*7 ", "*8 ").replace("f" * 32, "0" * 32))
        one, same, other = map(json.loads, self.lines("own.json"))
        self.assertEqual(one, same)
        self.assertEqual((other["connection"], other["request_id"]), (8, "0" * 32))

    def test_the_status_hears_of_it(self) -> None:
        self.places()
        self.at["/own"].write("error", "x", WHERE)
        self.assertEqual(self.noted, [("error", f"x{TAIL}")])


class MainTests(Case):
    def test_what_is_said_of_no_request(self) -> None:
        self.open(MAIN % BLOCKS)
        self.logs.place((), lambda level, line: None)
        self.logs.open()
        self.logs.attach()
        Logger().warn("a {what}", what="warning")
        self.logs.close()
        Logger().warn("another")
        self.assertEqual(self.lines("main"), ["[warn] a warning"])
        self.assertEqual(self.lines("server"), [])

    def test_the_default(self) -> None:
        self.open("http { }")
        self.assertEqual(self.logs.paths, (str(self.base / "logs" / "error.log"),))

    def test_all_files_are_opened_and_reopened(self) -> None:
        self.open(MAIN % BLOCKS)
        self.logs.open()
        self.logs.place(self.loaded.root.blocks(HTTP_BLOCK)[0].all(ERROR_LOG))
        self.assertEqual(sorted(self.logs.paths), [str(self.base / n) for n in ("all", "main")])
        (self.base / "main").rename(self.base / "main.1")
        self.logs.reopen()
        self.assertTrue((self.base / "main").exists())

    def test_one_that_cannot_be_opened(self) -> None:
        self.open("error_log PREFIX/m.conf/x; http { }")
        self.assertRaises(LogFileError, self.logs.open)


class RequestTests(Case):
    def test_clients_words_can_not_pass_for_ours(self) -> None:
        asked = request(b'/"', [(b"Host", b'a", request_id: "1'), (b"Referer", b"\xff\n\x1b")])
        text = str(context(asked))
        self.assertEqual(text.count(", request_id: "), 2)
        self.assertIn('host: "a\\x22, request_id: \\x221"', text)
        self.assertTrue(text.isprintable() and text.isascii())

    def test_a_long_target_leaves_room_for_the_id(self) -> None:
        asked = request(b"/" + b"x" * 100000)
        self.assertRegex(str(context(asked)), r', request_id: "[0-9a-f]{32}"$')

    def test_explained_once(self) -> None:
        asked = request()
        self.assertFalse(asked.explained)
        report(asked, "warn", "x")
        self.assertFalse(asked.explained)
        explain(asked)
        self.assertTrue(asked.explained)
