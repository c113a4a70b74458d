"""``proxy_pass`` and its kin: what the upstream is sent and the client gets, on nginx and here."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.support import beside, farmsite, rawhttp
from tests.support.processes import free_ports
from tests.support.stages import StagedCase

from .upstream.cases import CASES, DIFFERENT, SERVER, Case
from .upstream.recorder import Recorder

CONFIGURATION = """
worker_processes 1;
error_log logs/error.log info;
pid logs/daemon.pid;
events {{ worker_connections 512; }}
http {{
    access_log off;
    default_type text/plain;
    keepalive_requests 100000;
    types {{ text/plain txt; }}
    proxy_http_version 1.1;
    proxy_temp_path {directory}/temp;
    client_body_temp_path {directory}/temp;
    upstream backend {{ server UP; }}
    server {{
        listen 127.0.0.1:{port};
        server_name here.example;
        root {directory}/www;
        {locations}
    }}
}}
"""

#: Fields of requests that are nobody's business but the connection's.
_OURS = frozenset({"connection"})
#: Fields of answers that differ by who made them, and when.
_MADE = frozenset({"server", "date", "connection", "keep-alive"})
SECOND = (
    b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nContent-Type: text/second\r\nSet-Cookie: c=3\r\n"
    b"\r\nsecond"
)


class Side:
    """One server with upstreams of its own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        for name in ("logs", "www", "temp"):
            (directory / name).mkdir(parents=True)
        directory.chmod(0o755)
        farmsite.write_files(
            directory / "www",
            {"file.txt": b"a file's text", "a b.txt": b"a b", "a%20b.txt": b"escaped"},
        )
        (self.port,) = free_ports(1)
        socket = str(directory / "up.sock")
        self.main, self.unix, self.second = Recorder(), Recorder(socket), Recorder()
        self.second.answer = SECOND
        (directory / "up.sock").chmod(0o777)
        self.names = {
            "SOCKET": socket, "SECOND": f"127.0.0.1:{self.second.port}",
            "ROOT": str(directory / "www"), "UP": f"127.0.0.1:{self.main.port}",
        }  # fmt: skip
        text = CONFIGURATION.format(
            directory=directory, port=self.port,
            locations="\n".join([SERVER, *(case.conf for case in CASES)]),
        )  # fmt: skip
        for name, value in self.names.items():
            text = re.sub(rf"\b{name}\b", value, text)
        self.config = directory / "server.conf"
        self.config.write_text(text)

    def close(self) -> None:
        for recorder in (self.main, self.unix, self.second):
            recorder.close()

    def plain(self, text: str) -> str:
        """``text`` without what is this side's own."""
        for name in ("SOCKET", "SECOND", "UP"):
            text = text.replace(self.names[name], name)
        return text.replace(f"127.0.0.1:{self.port}", "US").replace(f":{self.port}", ":PORT")

    def play(self, case: Case) -> list[Any]:
        """What the upstreams saw and the client got, for each target."""
        found: list[Any] = []
        reply = case.answer.replace(b"UP", self.names["UP"].encode())
        self.main.answer = self.unix.answer = reply
        for target in case.targets:
            data = rawhttp.request(
                target, *case.fields, method=case.method, host="client.example", body=case.body
            )
            answer = rawhttp.exchange(self.port, data)
            seen = [*self.main.take(), *self.unix.take(), *self.second.take()]
            found.append((target, [self._seen(request) for request in seen], self._got(answer)))
        return found

    def _seen(self, request: bytes) -> Any:
        head, _, body = request.partition(b"\r\n\r\n")
        line, *fields = self.plain(head.decode("latin-1")).split("\r\n")
        pairs = [(name.lower(), value) for name, _, value in (f.partition(": ") for f in fields)]
        return line, sorted(pair for pair in pairs if pair[0] not in _OURS), body

    def _got(self, answer: rawhttp.Answer | None) -> Any:
        if answer is None:
            return None
        pairs = [(name.lower(), self.plain(value)) for name, value in answer.headers]
        body = answer.body
        made = _MADE
        if b"<center>" in body:  # a built-in page, with another foot
            made, body = _MADE | {"content-length"}, b"built-in"
        boundary = re.search(rb"\r\n--(\d{20})--", body)
        if boundary is not None:
            body = body.replace(boundary[1], b"BOUNDARY")
            pairs = [(n, v.replace(boundary[1].decode(), "BOUNDARY")) for n, v in pairs]
        pairs = [(n, "TAG" if n == "etag" and len(v) > 12 else v) for n, v in pairs]
        pairs = [
            ("expires", "SOON") if n == "expires" and "1994" not in v else (n, v) for n, v in pairs
        ]
        pairs = [
            ("last-modified", "T") if n == "last-modified" and "1994" not in v else (n, v)
            for n, v in pairs
        ]
        return answer.status, sorted(pair for pair in pairs if pair[0] not in made), body

    @staticmethod
    def _lasting(name: str, value: str) -> str:
        """A value, or what stands for one that depends on when the files were made."""
        dated = name in ("expires", "last-modified") and "1994" not in value
        return "now" if dated or (name == "etag" and len(value) > 12) else value


class UpstreamTests(StagedCase):
    """One nginx, one imagefarm, all cases."""

    def test_same(self) -> None:
        directory = beside.directory(self.addCleanup, "upstream")
        theirs, ours = Side(directory / "nginx"), Side(directory / "imagefarm")
        self.addCleanup(theirs.close)
        self.addCleanup(ours.close)
        beside.start(self.addCleanup, (theirs.config, [theirs.port]), (ours.config, [ours.port]))
        with ThreadPoolExecutor(2) as pool:
            expected, got = pool.map(lambda side: list(map(side.play, CASES)), (theirs, ours))
        found = []
        for case, theirs_, ours_ in zip(CASES, expected, got, strict=True):
            for one, other in zip(theirs_, ours_, strict=True):
                if one != other and case.name not in DIFFERENT:
                    found.append(f"{case.name} {one[0]}\n    {one[1:]}\n    {other[1:]}")
        self.assertEqual(found, [], "\n" + "\n".join(found))
