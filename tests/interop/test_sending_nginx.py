"""How answers are sent, connections ended and files kept open: the same on nginx and on imagefarm.

Each scenario is played on both sides with one configuration; what the client saw must be equal.
Times are only told from one another where they differ by seconds.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.support import beside, farmsite, rawhttp
from tests.support.acceptor import Acceptor
from tests.support.processes import free_ports
from tests.support.stages import StagedCase

SIZE = 120_000
#: At 30k a second nginx takes three seconds and we four.
SECONDS = 1.5
SAFARI = "Mozilla/5.0 (Macintosh; Mac OS X 10_15) Version/17 Safari/605"
MSIE6 = "Mozilla/4.0 (compatible; MSIE 6.0; Windows NT 5.1)"

CONFIGURATION = """
worker_processes 1;
error_log logs/error.log;
pid logs/daemon.pid;
events {{ worker_connections 512; }}
http {{
    access_log off;
    types {{ text/plain txt; }}
    default_type text/plain;
    root {root};
    lingering_timeout 3s;
    proxy_max_temp_file_size 0;
    server {{
        listen 127.0.0.1:{port};
        merge_slashes off;
        location /slow/ {{ alias {root}/; limit_rate 30k; }}
        location /free/ {{ alias {root}/; limit_rate 1k; limit_rate_after 1m; }}
        location /asked/ {{ alias {root}/; limit_rate $arg_rate; }}
        location /told/ {{ alias {root}/; limit_rate 1k; set $limit_rate $arg_rate; }}
        location /if/ {{ alias {root}/; if ($arg_slow) {{ limit_rate 30k; }} }}
        location /sendfile/ {{
            alias {root}/; sendfile on; sendfile_max_chunk 1k; limit_rate 30k;
        }}
        location /chunks/ {{ alias {root}/; sendfile on; sendfile_max_chunk 4k; tcp_nopush on; }}
        location /none/ {{ alias {root}/; keepalive_disable none; }}
        location /safari/ {{ alias {root}/; keepalive_disable safari; }}
        location /brief/ {{ alias {root}/; keepalive_time 1s; }}
        location /raw {{ proxy_pass http://127.0.0.1:{raw}; }}
        location /raw/off {{ proxy_pass http://127.0.0.1:{raw}; chunked_transfer_encoding off; }}
        location /raw/slow {{ proxy_pass http://127.0.0.1:{raw}; limit_rate 30k; }}
        location /drip/ {{ proxy_pass http://127.0.0.1:{raw}; }}
        location /linger/always/ {{ alias {root}/; lingering_close always; }}
        location /linger/off/ {{ alias {root}/; lingering_close off; }}
        location /444 {{ return 444; }}
        location /444/reset {{ return 444; reset_timedout_connection on; }}
        location /ranges/0/ {{ alias {root}/; max_ranges 0; }}
        location /ranges/1/ {{ alias {root}/; max_ranges 1; }}
        location /since/off/ {{ alias {root}/; if_modified_since off; }}
        location /since/before/ {{ alias {root}/; if_modified_since before; }}
        location /etag/ {{ alias {root}/; etag off; }}
        location /kept/ {{
            alias {root}/;
            open_file_cache max=100 inactive=60s;
            location /kept/valid/ {{ alias {root}/valid/; open_file_cache_valid 1s; }}
            location /kept/errors/ {{ alias {root}/errors/; open_file_cache_errors on; }}
            location /kept/uses/ {{ alias {root}/uses/; open_file_cache_min_uses 3; }}
            location /kept/off/ {{ alias {root}/off/; open_file_cache off; }}
            location /kept/if {{
                root {root};
                open_file_cache_errors on;
                set $is "";
                if (-f {root}/if/$arg_name) {{ set $is "${{is}}f"; }}
                if (-d {root}/if/$arg_name) {{ set $is "${{is}}d"; }}
                if (-e {root}/if/$arg_name) {{ set $is "${{is}}e"; }}
                if (-x {root}/if/$arg_name) {{ set $is "${{is}}x"; }}
                return 200 "$is";
            }}
            location /kept/try {{ root {root}; try_files /try/$arg_name =404; }}
        }}
    }}
}}
"""


class Raw(Acceptor):
    """A server of HTTP/1.0 whose answers end with the connection."""

    def serve(self, client: socket.socket) -> None:
        if b"/drip" in (data := client.recv(65536)):
            self._drip(client, data)
        else:
            client.sendall(b"HTTP/1.0 200 OK\r\n\r\n" + b"r" * SIZE)

    def _drip(self, client: socket.socket, data: bytes) -> None:
        """Ten bytes in two seconds, the first with the head unless it is to be late."""
        name = data.split()[1].decode()
        if "late" in name:
            time.sleep(1)
        client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n")
        for _ in range(10):
            client.sendall(b"d")
            time.sleep(0.2)


class Site:
    """One side."""

    def __init__(self, directory: Path, raw: int) -> None:
        self.directory = directory
        (directory / "logs").mkdir(parents=True)
        self.root = directory / "www"
        farmsite.write_files(self.root, {"big.txt": b"b" * SIZE, "small.txt": b"small"})
        for name in ("valid", "errors", "uses", "off", "try", "if"):
            (self.root / name).mkdir()
        (self.port,) = free_ports(1)
        self.config = directory / "server.conf"
        self.config.write_text(CONFIGURATION.format(root=self.root, port=self.port, raw=raw))

    def write(self, name: str, text: str) -> None:
        new = self.root / f"{name}.new"
        new.write_text(text)
        new.rename(self.root / name)

    def get(self, target: str, *fields: str, method: str = "GET") -> rawhttp.Answer:
        lines = [f"{method} {target} HTTP/1.1", "Host: a", *fields, "", ""]
        answer = rawhttp.exchange(self.port, "\r\n".join(lines).encode())
        assert answer is not None, target
        return answer

    def seen(self, target: str, *fields: str, method: str = "GET") -> Any:
        """What is compared of an answer."""
        answer = self.get(target, *fields, method=method)
        names = ("connection", "transfer-encoding", "content-length", "etag", "content-range")
        return answer.status, [answer.header(name) for name in names], answer.body[:40]

    def body(self, target: str) -> Any:
        answer = self.get(target)
        return answer.status if answer.status != 200 else answer.body.decode()


Scenario = Callable[[Site], Any]


def _timed(target: str) -> Scenario:
    def play(site: Site) -> Any:
        start = time.monotonic()
        answer = site.get(target)
        return answer.status, len(answer.body), time.monotonic() - start > SECONDS

    return play


def _keeping(site: Site) -> Any:
    return [
        site.get(f"/{place}/small.txt", f"User-Agent: {agent}", *more, method=method).header(
            "connection"
        )
        for place in ("none", "safari", "slow")
        for agent in (SAFARI, MSIE6, "curl/8")
        for method, *more in (("GET",), ("POST", "Content-Length: 0"))
    ]


def _brief(site: Site) -> Any:
    found = []
    with rawhttp.connect(site.port) as sock:
        reader = rawhttp.Reader(sock)
        for wait in (0.0, 2.5):
            time.sleep(wait)
            sock.sendall(b"GET /brief/small.txt HTTP/1.1\r\nHost: a\r\n\r\n")
            answer = reader.answer()
            found.append(answer.header("connection"))
    return found


def _framing(site: Site) -> Any:
    return [site.seen(f"/raw{rest}")[:2] for rest in ("", "/off")]


def _ending(target: str) -> Scenario:
    """Whether the server still reads after its last answer."""

    def play(site: Site) -> Any:
        with rawhttp.connect(site.port) as sock:
            sock.sendall(f"GET {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
            while sock.recv(65536):
                pass
            try:
                for _ in range(5):
                    sock.sendall(b"more")
                    time.sleep(0.1)
            except (BrokenPipeError, ConnectionResetError):
                return "closed"
            return "reads on"

    return play


def _no_answer(target: str) -> Scenario:
    def play(site: Site) -> Any:
        with rawhttp.connect(site.port) as sock:
            sock.sendall(f"GET {target} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
            try:
                return sock.recv(10)
            except ConnectionResetError:
                return "reset"

    return play


def _conditions(site: Site) -> Any:
    after = "If-Modified-Since: Fri, 01 Jan 2100 00:00:00 GMT"
    return [
        site.seen("/ranges/0/small.txt", "Range: bytes=0-1"),
        site.seen("/ranges/1/small.txt", "Range: bytes=0-1"),
        site.seen("/ranges/1/small.txt", "Range: bytes=0-1,3-4"),
        site.seen("/since/off/small.txt", after),
        site.seen("/since/before/small.txt", after),
        site.seen("/slow/small.txt", after),
        site.seen("/etag/small.txt"),
        site.seen("/slow//small.txt"),
    ]


def _valid(site: Site) -> Any:
    found = []
    site.write("valid/a.txt", "first")
    for wait, text in ((0.0, "second"), (0.0, "third"), (3.0, "fourth"), (3.0, "fifth")):
        time.sleep(wait)
        found.append(site.body("/kept/valid/a.txt"))
        if wait == 0.0:
            site.write("valid/a.txt", text)
    os.unlink(site.root / "valid/a.txt")
    time.sleep(3)
    found.append(site.body("/kept/valid/a.txt"))
    return found


def _errors(site: Site) -> Any:
    found = []
    for place in ("errors", "off", "valid"):
        found.append(site.body(f"/kept/{place}/b.txt"))
        site.write(f"{place}/b.txt", "there")
        found.append(site.body(f"/kept/{place}/b.txt"))
    return found


def _uses(site: Site) -> Any:
    found = []
    for place in ("uses", "off"):
        for number in range(6):
            site.write(f"{place}/c.txt", str(number))
            found.append(site.body(f"/kept/{place}/c.txt"))
    return found


def _try(site: Site) -> Any:
    found = []
    for number in range(3):
        site.write("try/d.txt", str(number))
        found.append(site.body("/kept/try?name=d.txt"))
    os.unlink(site.root / "try/d.txt")
    found.append(site.body("/kept/try?name=d.txt"))
    found.append(site.body("/kept/try?name=none"))
    return found


def _if(site: Site) -> Any:
    """What was asked for is remembered, missing or not."""
    found = []
    site.write("if/e.txt", "there")
    (site.root / "if/dir").mkdir()
    for _ in range(2):
        found += [site.body(f"/kept/if?name={name}") for name in ("e.txt", "dir", "none")]
        if (site.root / "if/e.txt").exists():
            os.unlink(site.root / "if/e.txt")
            (site.root / "if/dir").rmdir()
            site.write("if/none", "no longer")
    return found


def _directories(site: Site) -> Any:
    (site.root / "off/dir").mkdir()
    return [site.get(target).status for target in ("/kept/off", "/kept/off/dir", "/kept/off/dir/")]


def _half_closed(target: str, *, late: bool = False) -> Scenario:
    """How much of the answer comes to a client that will send no more."""

    def play(site: Site) -> Any:
        with rawhttp.connect(site.port) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.sendall(f"GET {target} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
            found = b"" if late else sock.recv(2000)
            time.sleep(0.3)
            sock.shutdown(socket.SHUT_WR)
            time.sleep(0.3)
            try:
                while data := sock.recv(65536):
                    found += data
            except ConnectionResetError:
                return "reset"
            return len(found.partition(b"\r\n\r\n")[2])

    return play


SCENARIOS: dict[str, Scenario] = {
    "half-closed, small": _half_closed("/none/small.txt"),
    "half-closed at once, small": _half_closed("/none/small.txt", late=True),
    "half-closed, stream": _half_closed("/drip/now"),
    "half-closed, stream not begun": _half_closed("/drip/late", late=True),
    "slow file": _timed("/slow/big.txt"),
    "sendfile": _timed("/sendfile/big.txt"),
    "limit_rate_after": _timed("/free/big.txt"),
    "rate of a variable": _timed("/asked/big.txt?rate=30k"),
    "no rate": _timed("/asked/big.txt"),
    "not a rate": _timed("/asked/big.txt?rate=fast"),
    "set $limit_rate": _timed("/told/big.txt?rate=30k"),
    "set $limit_rate 0": _timed("/told/big.txt?rate=0"),
    "in if": _timed("/if/big.txt?slow=1"),
    "not in if": _timed("/if/big.txt"),
    "slow stream": _timed("/raw/slow"),
    "small chunks": _timed("/chunks/big.txt"),
    "keepalive_disable": _keeping,
    "keepalive_time": _brief,
    "chunked_transfer_encoding": _framing,
    "lingering_close always": _ending("/linger/always/small.txt"),
    "lingering_close off": _ending("/linger/off/small.txt"),
    "lingering_close on": _ending("/none/small.txt"),
    "444": _no_answer("/444"),
    "444 reset": _no_answer("/444/reset"),
    "conditions": _conditions,
    "open_file_cache_valid": _valid,
    "open_file_cache_errors": _errors,
    "open_file_cache_min_uses": _uses,
    "open_file_cache and try_files": _try,
    "open_file_cache and if": _if,
    "open_file_cache and directories": _directories,
}


class SendingTests(StagedCase):
    """One nginx, one imagefarm, all scenarios."""

    def test_same(self) -> None:
        directory = beside.directory(self.addCleanup, "sending")
        raw = Raw()
        raw.open()
        self.addCleanup(raw.close)
        theirs, ours = (Site(directory / name, raw.port) for name in ("nginx", "imagefarm"))
        beside.start(
            self.addCleanup, (theirs.config, [theirs.port]), (ours.config, [ours.port]), "slave"
        )
        with ThreadPoolExecutor(2 * len(SCENARIOS)) as pool:
            plays = {
                name: [pool.submit(scenario, site) for site in (theirs, ours)]
                for name, scenario in SCENARIOS.items()
            }
        found = []
        for name, (expected, got) in plays.items():
            if expected.result() != got.result():
                found.append(f"{name}\n    {expected.result()}\n    {got.result()}")
        self.assertEqual(found, [], "\n" + "\n".join(found))
