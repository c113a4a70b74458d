"""The error log: nginx and imagefarm write the same lines, to files and to syslog.

Numbers of processes and connections, times and ports are replaced first; our request id, which
nginx lacks, is taken off.
"""

from __future__ import annotations

import contextlib
import re
import socket
from pathlib import Path

from tests.support import beside, farmsite, rawhttp
from tests.support.acceptor import Acceptor
from tests.support.processes import free_ports, wait_until
from tests.support.stages import StagedCase

CONFIGURATION = """
worker_processes 1;
error_log logs/error.log {level};
error_log syslog:server=127.0.0.1:{syslog},tag=x,nohostname error;
pid logs/daemon.pid;
events {{ worker_connections 512; }}
http {{
    access_log syslog:server=127.0.0.1:{syslog},facility=user,severity=warn combined;
    root {root};
    proxy_next_upstream off;
    upstream none {{ server 127.0.0.1:{dead} down; server 127.0.0.1:{dead} down; }}
    server {{
        listen 127.0.0.1:{port};
        server_name first.test second.test;
        client_max_body_size 10;
        location /dead {{ proxy_pass http://127.0.0.1:{dead}; }}
        location /fcgi {{ fastcgi_pass 127.0.0.1:{dead}; }}
        location /none {{ proxy_pass http://none; }}
        location /late {{ proxy_pass http://127.0.0.1:{raw}; proxy_read_timeout 300ms; }}
        location /early {{ proxy_pass http://127.0.0.1:{raw}; }}
        location /deny/ {{ deny all; }}
        location /quiet/ {{ log_not_found off; }}
        location /cycle {{ rewrite ^ /cycle last; }}
        location /old/ {{ rewrite_log on; rewrite ^/old/(.*)$ /new/$1?a=b last; }}
        location /own/ {{ error_log logs/own.log; }}
        location /crit/ {{ error_log logs/crit.log crit; }}
        location /at {{ try_files /x @nobody; }}
    }}
}}
"""
ASKED = (
    ("/missing", ()), ("/missing?a=%22b", ("Referer: http://r.test/x?y",)),
    ("/dir/", ()), ("/deny/x", ()), ("/quiet/x", ()), ("/a.txt/below", ()), ("/a.txt/", ()),
    ("/dead/x?y=z", ("Referer: http://r.test/",)), ("/fcgi/x", ()), ("/none", ()), ("/late", ()),
    ("/early", ()), ("/cycle", ()), ("/old/x", ()), ("/own/x", ()), ("/crit/x", ()),
    ("/large", ("Content-Length: 11",)), ("/nowhere/index/", ()), ("/at", ()),
)  # fmt: skip


class Raw(Acceptor):
    """Says nothing, or hangs up."""

    def serve(self, client: socket.socket) -> None:
        if b"/late" in client.recv(65536):
            client.recv(65536)


class Side:
    def __init__(self, here: Path, raw: int, level: str) -> None:
        here.mkdir()
        here.chmod(0o755)
        self.here = here
        (here / "logs").mkdir()
        farmsite.write_files(here / "www", {"a.txt": b"a", "dir/x": b"x"})
        self.syslog = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.syslog.bind(("127.0.0.1", 0))
        self.syslog.settimeout(10)
        self.port, self.dead = free_ports(2)
        self.raw = raw
        self.config = here / "server.conf"
        self.config.write_text(
            CONFIGURATION.format(
                level=level, port=self.port, dead=self.dead, raw=raw, root=here / "www",
                syslog=self.syslog.getsockname()[1],
            )
        )  # fmt: skip

    def ask(self, target: str, *fields: str) -> int:
        method = "POST" if any("Length" in field for field in fields) else "GET"
        data = rawhttp.request(
            target, "Connection: close", *fields, host="second.test", method=method
        )
        with rawhttp.connect(self.port) as sock:
            sock.sendall(data)
            answer = rawhttp.Reader(sock).answer()
        return 0 if answer is None else answer.status

    def neutral(self, text: str) -> str:
        text = text.replace(str(self.here), "HERE").replace(f":{self.raw}", ":RAW")
        text = text.replace(f":{self.dead}", ":DEAD")
        text = re.sub(r", request_id: \"[0-9a-f]{32}\"$", "", text)
        text = re.sub(r"\d{4}/\d\d/\d\d [\d:]{8}", "TIME", text)
        return re.sub(r"\d+#\d+: \*\d+ ", "N#N: *N ", text)

    def lines(self, name: str) -> list[str]:
        path = self.here / "logs" / name
        text = path.read_text("latin-1") if path.exists() else ""
        return [self.neutral(line) for line in text.splitlines() if "*" in line]


def catch_up(theirs: Side, ours: Side, name: str) -> None:
    """Wait for lines that nginx has; whether they are the same is asked then."""
    with contextlib.suppress(AssertionError):
        wait_until(lambda: len(ours.lines(name)) >= len(theirs.lines(name)), 5)


class ErrorLogTests(StagedCase):
    maxDiff = None

    def sides(self, level: str) -> tuple[Side, Side]:
        base = beside.directory(self.addCleanup, "errorlog")
        raw = Raw()
        raw.open()
        self.addCleanup(raw.close)
        theirs, ours = (Side(base / name, raw.port, level) for name in ("nginx", "ours"))
        self.addCleanup(theirs.syslog.close)
        self.addCleanup(ours.syslog.close)
        beside.start(self.addCleanup, (theirs.config, [theirs.port]), (ours.config, [ours.port]))
        return theirs, ours

    def test_lines(self) -> None:
        theirs, ours = self.sides("notice")
        differ = []
        for target, fields in ASKED:
            statuses = theirs.ask(target, *fields), ours.ask(target, *fields)
            self.assertEqual(statuses[0], statuses[1], target)
            for name in ("error.log", "own.log", "crit.log"):
                catch_up(theirs, ours, name)
                expected, found = theirs.lines(name), ours.lines(name)
                if expected != found:
                    differ.append((target, name, expected, found))
                for side in (theirs, ours):
                    (side.here / "logs" / name).open("w").close()
        self.assertEqual(differ, [])

    def test_levels(self) -> None:
        """At crit nothing of this is written, whoever asks."""
        theirs, ours = self.sides("crit")
        for target in ("/missing", "/deny/x", "/dead/x", "/old/x"):
            self.assertEqual(theirs.ask(target), ours.ask(target))
        for side in (theirs, ours):
            self.assertEqual(side.lines("error.log"), [])

    def test_syslog(self) -> None:
        theirs, ours = self.sides("notice")
        told = []
        for side in (theirs, ours):
            side.ask("/missing", "User-Agent: x")
            messages = [side.syslog.recv(4096).decode() for _ in range(2)]
            told.append(
                sorted(
                    re.sub(r"[A-Z][a-z]{2} [ \d]\d [\d:]{8}|\[\d\d/[^]]*\]|404 \d+", "N", text)
                    for text in map(side.neutral, messages)
                )
            )
        self.assertEqual(*told)
