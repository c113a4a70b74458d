"""One line for each request, in the configured format, with the status and size it had."""

from __future__ import annotations

import re
import signal
import socket
import struct
import time

from tests.support import farm, rawhttp
from tests.support.processes import wait_until
from tests.support.stages import StagedCase

#: The "farm" format of the shipped master.conf.
LINE = re.compile(
    r'(?P<addr>\S+) - (?P<user>\S+) \[(?P<time>[^]]+)\] "(?P<request>[^"]*)" '
    r'(?P<status>\d{3}) (?P<bytes>\d+) "(?P<referer>[^"]*)" "(?P<agent>[^"]*)" '
    r'"(?P<forwarded>[^"]*)" (?P<took>\d+\.\d{3}) (?P<peer>.+) (?P<peertook>.+) (?P<cache>\S+) '
    r"(?P<id>[0-9a-f]{32})"
)


class AccessLog(StagedCase):
    def setUp(self) -> None:
        self.parts = farm.parts()
        self.prefix = self.parts.prefix
        self.log = self.prefix.logs / "master_access.log"
        time.sleep(0.15)  # what earlier tests asked for is written by now
        self.before = self.log.stat().st_size

    def lines(self, count: int) -> list[dict[str, str]]:
        """The lines written since; exactly so many."""

        def added() -> list[str]:
            with self.log.open() as file:
                file.seek(self.before)
                return file.read().splitlines()

        wait_until(lambda: len(added()) >= count, 30, f"{count} lines")
        time.sleep(0.15)
        found = []
        for line in added():
            match = LINE.fullmatch(line)
            assert match is not None, line
            found.append(match.groupdict())
        self.assertEqual(len(found), count, found)
        return found

    def test_requests(self) -> None:
        """Status and body bytes of each kind of answer, and who was asked for it."""
        photo = (self.prefix.images / "photos/landscape.jpg").stat().st_size
        target = "/photos/landscape.jpg"
        cases = (
            (rawhttp.request(target, "User-Agent: me", "Referer: http://a/"), 200, photo),
            (rawhttp.request(target, method="HEAD"), 200, 0),
            (rawhttp.request(target, "Range: bytes=0-99"), 206, 100),
            (rawhttp.request(target, "If-None-Match: *"), 304, 0),
            (rawhttp.request("/none.jpg"), 404, None),
            (rawhttp.request(f"/resize?src={target}&w=33"), 200, None),
            (rawhttp.request(f"/resize?src={target}&w=33"), 200, None),
            (rawhttp.request("/thumbnail/none.jpg", host=farm.STILLSHOTS), 400, None),
        )
        sizes = []
        for data, status, _ in cases:
            answer = rawhttp.exchange(self.prefix.ports.http, data)
            assert answer is not None
            self.assertEqual(answer.status, status)
            sizes.append(len(answer.body))
        found = self.lines(len(cases))
        for (data, status, size), actual, line in zip(cases, sizes, found, strict=True):
            self.assertEqual(line["request"], data.split(b"\r\n")[0].decode())
            self.assertEqual(line["status"], str(status))
            self.assertEqual(int(line["bytes"]), actual)
            self.assertIn(size, (None, actual))
            self.assertEqual(line["addr"], "127.0.0.1")
        self.assertEqual((found[0]["agent"], found[0]["referer"]), ("me", "http://a/"))
        self.assertEqual((found[1]["agent"], found[1]["referer"]), ("-", "-"))
        ports = self.prefix.ports
        slaves = {f"127.0.0.1:{ports.slave1}", f"127.0.0.1:{ports.slave2}"}
        self.assertEqual({line["peer"] for line in found[:5]}, slaves)
        self.assertEqual(found[5]["peer"], f"127.0.0.1:{ports.fastcgi}")
        self.assertEqual((found[5]["cache"], found[6]["cache"]), ("MISS", "HIT"))
        self.assertEqual((found[6]["peer"], found[6]["peertook"]), ("-", "-"))

    def test_bad_requests(self) -> None:
        """What can't be understood is logged as 400, and forges no line."""
        cases = (
            b"NONSENSE\r\n\r\n",
            b"GET /a%00b HTTP/1.1\r\nHost: localhost\r\n\r\n",
            b"GET /no-host HTTP/1.1\r\n\r\n",
            b"GET /two HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            b'GET /quote"%0a127.0.0.1 HTTP/1.1\r\nHost: a b\r\n\r\n',
            b"GET /bad\x01control HTTP/1.1\r\nHost: localhost\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        )
        for data in cases:
            answer = rawhttp.exchange(self.prefix.ports.http, data)
            assert answer is not None, data
            self.assertEqual(answer.status, 400, data)
        found = self.lines(len(cases))
        self.assertEqual({line["status"] for line in found}, {"400"})
        self.assertIn("NONSENSE", found[0]["request"])
        self.assertIn("/no-host", found[2]["request"])
        self.assertIn("\\x16\\x03\\x01", found[6]["request"])

    def test_clients_that_leave(self) -> None:
        """499 for one that left before its answer began, with nothing sent."""
        slaves = [self.parts.running[name] for name in ("slave1", "slave2")]
        for slave in slaves:
            slave.signal(signal.SIGSTOP)
            self.addCleanup(slave.signal, signal.SIGCONT)
        for how in ("close", "reset"):
            with rawhttp.connect(self.prefix.ports.http) as sock:
                sock.sendall(rawhttp.request(f"/photos/grey.jpg?{how}"))
                time.sleep(0.1)
                if how == "reset":
                    linger = struct.pack("ii", 1, 0)
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        found = self.lines(2)
        for how, line in zip(("close", "reset"), found, strict=True):
            self.assertIn(f"?{how} ", line["request"])
            self.assertEqual((line["status"], line["bytes"]), ("499", "0"), line)
        for slave in slaves:
            slave.signal(signal.SIGCONT)
        time.sleep(1.0)
        self.prefix.await_answer("/photos/grey.jpg")

    def test_client_that_leaves_in_the_middle(self) -> None:
        """The status that it was given, and as many bytes as went out."""
        path = self.prefix.images / "middle.bin"
        with path.open("wb") as file:
            file.truncate(50_000_000)
        self.addCleanup(path.unlink)
        with rawhttp.connect(self.prefix.ports.http) as sock:
            sock.sendall(rawhttp.request("/middle.bin"))
            sock.recv(65536)
        (line,) = self.lines(1)
        self.assertEqual(line["status"], "200")
        self.assertTrue(0 < int(line["bytes"]) < 50_000_000, line)

    def test_silence(self) -> None:
        """favicon.ico and the status pages are not logged; nor is a client that says nothing."""
        for target in ("/favicon.ico", "/status", "/nginx_status"):
            self.assertLess(self.prefix.get(target).status, 300)
        rawhttp.connect(self.prefix.ports.http).close()
        self.prefix.get("/page.html?last")
        (line,) = self.lines(1)
        self.assertIn("?last", line["request"])

    def test_slaves_line(self) -> None:
        """The slave logs what the master asked, and for whom."""
        logs = self.prefix.logs / "slave_access.log"
        before = logs.stat().st_size
        self.prefix.get("/page.html?slave", "X-Forwarded-For: 192.0.2.1")
        wait_until(lambda: logs.stat().st_size > before, 30, "line")
        line = logs.read_text()[before:]
        self.assertIn('"GET /page.html?slave HTTP/1.1" 200 ', line)
        self.assertRegex(line, r'"192\.0\.2\.1, 127\.0\.0\.1" [0-9a-f]{32}\n\Z')
        self.assertEqual(line.count("\n"), 1)
