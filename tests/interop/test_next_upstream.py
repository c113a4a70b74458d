"""``proxy_next_upstream``: which failures go on to the next server, for nginx and for us."""

from __future__ import annotations

import itertools
import shutil
import socket
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.support import farmsite, rawhttp, tools
from tests.support.acceptor import Acceptor
from tests.support.processes import Daemon, free_ports
from tests.support.processes import imagefarm as start_imagefarm
from tests.support.stages import StagedCase

from .upstream.recorder import read_request

CONFIGURATION = """
worker_processes 1;
error_log logs/{name}.log;
pid logs/{name}.pid;
events {{ }}
http {{
    access_log off;
    client_body_temp_path {directory}/temp;
    proxy_read_timeout 300ms;
    proxy_http_version 1.1;
    {upstreams}
    {lasting}
    server {{
        listen 127.0.0.1:{port};
        add_header X-Tries "$upstream_status" always;
        {locations}
    }}
}}
"""
STATUSES = (500, 502, 503, 504, 403, 404, 429, 400)
BEHAVIOURS = ("refuse", "close", "hang", "garbage", "half", *map(str, STATUSES))
SETTINGS = (
    "",
    "proxy_next_upstream off;",
    "proxy_next_upstream error;",
    "proxy_next_upstream timeout;",
    "proxy_next_upstream invalid_header;",
    "proxy_next_upstream non_idempotent error timeout invalid_header http_500 http_502;",
    "proxy_next_upstream http_500 http_502 http_503 http_504 http_403 http_404 http_429;",
    "proxy_next_upstream error timeout invalid_header http_500; proxy_next_upstream_tries 1;",
    "proxy_next_upstream error timeout invalid_header http_500; proxy_next_upstream_tries 2;",
    "proxy_next_upstream error timeout invalid_header; proxy_next_upstream_timeout 100ms;",
)
#: Groups that are asked several times, with servers that are put out.
OUT = "max_fails=1 fail_timeout=100"
TWICE = "max_fails=2 fail_timeout=100"
LASTING = {
    "all": (("500", TWICE), ("503", TWICE)),
    "answer_last": (("refuse", OUT), ("500", OUT)),
    "answer_first": (("500", OUT), ("refuse", OUT)),
    "blameless": (("404", OUT), ("404", OUT)),
    "mixed": (("404", OUT), ("500", OUT), ("503", OUT)),
    "backup": (("500", OUT), ("503", OUT + " down"), ("503", OUT + " backup")),
    "one": (("500", OUT),),
    "all_down_but_one": (("500", OUT), ("503", OUT + " down")),
}
METHODS = ("GET", "POST", "PUT", "DELETE")
#: Said, so that we don't use a connection again that is just being closed.
CLOSE = b"Connection: close\r\n"
GOOD = b"HTTP/1.1 200 OK\r\n" + CLOSE + b"Content-Length: 4\r\n\r\ngood"
ANSWERS = {
    "close": b"",
    "garbage": b"HTTP/1.1 200 OK\r\nX: a\0b\r\n\r\n",
    "half": b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf",
    **{
        str(status): b"HTTP/1.1 %d X\r\n%bContent-Length: 3\r\n\r\nbad" % (status, CLOSE)
        for status in STATUSES
    },
}


class Server(Acceptor):
    """Gives one answer to each connection and closes it; without one it says nothing."""

    def __init__(self, answer: bytes | None) -> None:
        self._answer = answer
        self.open()

    def serve(self, client: socket.socket) -> None:
        client.settimeout(10)
        read_request(client)
        if self._answer is None:
            client.recv(65536)
        else:
            client.sendall(self._answer)


class NextUpstreamTests(StagedCase):
    def setUp(self) -> None:
        program = tools.nginx()
        directory = Path(tempfile.mkdtemp(prefix="next-upstream-"))
        self.addCleanup(shutil.rmtree, directory, ignore_errors=True)
        directory.chmod(0o755)
        (directory / "logs").mkdir()
        (directory / "temp").mkdir()
        (refused,) = free_ports(1)
        good, hang = Server(GOOD), Server(None)
        servers = {name: Server(answer) for name, answer in ANSWERS.items()}
        for server in (good, hang, *servers.values()):
            self.addCleanup(server.close)
        ports = {
            **{name: server.port for name, server in servers.items()},
            "refuse": refused, "hang": hang.port,
        }  # fmt: skip
        self.ports = free_ports(2)
        daemons: list[Daemon] = []
        for name, port in zip(("nginx", "imagefarm"), self.ports, strict=True):
            config = directory / f"{name}.conf"
            config.write_text(
                CONFIGURATION.format(
                    name=name, port=port, directory=directory,
                    upstreams="\n".join(
                        f"upstream u{behaviour} {{ server 127.0.0.1:{ports[behaviour]} "
                        f"max_fails=0; server 127.0.0.1:{good.port} backup; }}"
                        for behaviour in BEHAVIOURS
                    ),
                    lasting="\n".join(
                        f"upstream {group} {{ "
                        + " ".join(f"server 127.0.0.1:{ports[one]} {how};" for one, how in peers)
                        + " }"
                        for group, peers in LASTING.items()
                    ),
                    locations="\n".join(
                        f"location /{number}/{behaviour}/ "
                        f"{{ proxy_pass http://u{behaviour}; {setting} }}"
                        for (number, setting), behaviour in itertools.product(
                            enumerate(SETTINGS), BEHAVIOURS
                        )
                    )
                    + "proxy_next_upstream error timeout http_500 http_503 http_404;"
                    + "\n".join(f"location /{g}/ {{ proxy_pass http://{g}; }}" for g in LASTING),
                )
            )  # fmt: skip
            if name == "nginx":
                daemons.append(farmsite.nginx(program, directory, config, [port]))
            else:
                words = ("--config", str(config))
                daemons.append(start_imagefarm("master", directory, *words, ports=[port]))
            self.addCleanup(daemons[-1].stop)
        for daemon in daemons:
            daemon.started()

    def test_until_all_have_failed(self) -> None:
        """What the client gets, and who is asked, when a status has put servers out."""

        def play(port: int, group: str) -> list[tuple[int, str | None, bytes]]:
            found = []
            for _ in range(5):
                data = rawhttp.request(f"/{group}/", "Connection: close")
                answer = rawhttp.exchange(port, data)
                assert answer is not None
                body = answer.body if b"<html" not in answer.body else b"a page"
                found.append((answer.status, answer.header("x-tries"), body))
            return found

        for group in LASTING:
            theirs, ours = (play(port, group) for port in self.ports)
            self.assertEqual(ours, theirs, group)

    def test_same(self) -> None:
        asked = [
            (number, behaviour, method)
            for number, behaviour, method in itertools.product(
                range(len(SETTINGS)), BEHAVIOURS, METHODS
            )
        ]

        def ask(what: tuple[int, tuple[int, str, str]]) -> str:
            port, (number, behaviour, method) = what
            body = b"body" if method in ("POST", "PUT") else b""
            data = rawhttp.request(
                f"/{number}/{behaviour}/", "Connection: close", method=method, body=body
            )
            try:
                answer = rawhttp.exchange(port, data)
            except (AssertionError, ValueError):
                return "cut"
            assert answer is not None
            return f"{answer.status} after {answer.header('x-tries')}"

        with ThreadPoolExecutor(32) as pool:
            theirs, ours = (
                list(pool.map(ask, [(port, what) for what in asked])) for port in self.ports
            )
        found = [
            f"{method} {behaviour} {SETTINGS[number]!r}: {expected}, not {got}"
            for (number, behaviour, method), expected, got in zip(asked, theirs, ours, strict=True)
            if expected != got
        ]
        self.assertEqual(found, [], "\n" + "\n".join(found))
