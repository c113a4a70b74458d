"""Names in variables: one nameserver of the tests' own, nginx and us asking it the same."""

from __future__ import annotations

import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.support import beside, rawhttp
from tests.support.dns import Nameserver
from tests.support.processes import free_ports, wait_until
from tests.support.stages import StagedCase

from .upstream.recorder import Recorder

CONFIGURATION = """
worker_processes 1;
error_log logs/error.log info;
pid logs/daemon.pid;
events {{ worker_connections 512; }}
http {{
    access_log off;
    default_type text/plain;
    proxy_temp_path {directory}/temp;
    client_body_temp_path {directory}/temp;
    fastcgi_temp_path {directory}/temp;
    upstream named {{ server 127.0.0.1:{upstream}; }}
    server {{
        listen 127.0.0.1:{port};
        resolver 127.0.0.1:{nameserver} {family} valid=30s;
        location /pass {{ proxy_pass http://$arg_to; }}
        location /brief {{ proxy_pass http://$arg_to; resolver_timeout 400ms; }}
        location /uri/ {{ proxy_pass http://$arg_to/there?x=y; }}
        location /scheme {{ proxy_pass $arg_to; }}
        location /set {{ set $backend up.example; proxy_pass http://$backend:{upstream}; }}
        location /set-default {{ set $backend up.example; proxy_pass http://$backend; }}
        location /fcgi {{ fastcgi_pass $arg_to; }}
        location /fixed {{ proxy_pass http://localhost:{upstream}; }}
    }}
    server {{
        listen 127.0.0.1:{other};
        location / {{ proxy_pass http://$arg_to; }}
        location /fcgi {{ fastcgi_pass $arg_to; }}
    }}
}}
"""
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"
#: What both say in the error log of a name that leads nowhere.
WORDS = re.compile(
    r"\S+ could not be resolved \(\d+: [^)]*\)|no resolver defined to resolve \S+(?=,)"
    r'|(?:invalid|no) \w+(?: \w+)? in upstream "[^"]*"|invalid URL prefix'
)


class Side:
    """One server, its upstream and its nameserver."""

    def __init__(self, directory: Path, family: str) -> None:
        self.directory = directory
        for name in ("logs", "temp"):
            (directory / name).mkdir(parents=True)
        directory.chmod(0o755)
        (directory / "temp").chmod(0o777)
        self.port, self.other, self.closed = free_ports(3)
        self.upstream = Recorder()
        self.upstream.answer = ANSWER
        self.names = Nameserver()
        self.names.start()
        self.config = directory / "server.conf"
        self.config.write_text(
            CONFIGURATION.format(
                directory=directory, port=self.port, other=self.other, family=family,
                upstream=self.upstream.port, nameserver=self.names.port,
            )
        )  # fmt: skip
        self._read = 0

    def close(self) -> None:
        self.names.stop()
        self.upstream.close()

    def get(self, target: str, *, other: bool = False) -> Any:
        """Status, what the upstream was asked, and what the error log says of it."""
        target = target.replace("PORT", str(self.upstream.port))
        answer = rawhttp.exchange(
            self.other if other else self.port, rawhttp.request(target, host="h")
        )
        assert answer is not None
        lines = [request.split(b"\r\n") for request in self.upstream.take()]
        asked = [
            (line.decode(), [field.decode() for field in fields if field.startswith(b"Host:")])
            for line, *fields in lines
        ]
        plain = str(asked).replace(str(self.upstream.port), "PORT").replace("HTTP/1.1", "HTTP/1.0")
        path = self.directory / "logs" / "error.log"
        if answer.status >= 500:  # of which both say why, we maybe a moment later
            wait_until(lambda: WORDS.search(path.read_text(), self._read), 30, "reason")
        log = path.read_text()
        new, self._read = log[self._read :], len(log)
        said = [text.replace(str(self.upstream.port), "PORT") for text in WORDS.findall(new)]
        return answer.status, plain, said


def _addresses(side: Side) -> Any:
    names = side.names
    names.set("up.example", "127.0.0.1")
    names.set("alias.example", "up.example", kind="CNAME")
    names.set("v6.example", "::1", kind="AAAA")
    return [
        side.get(target)
        for target in (
            "/pass?to=up.example:PORT", "/pass?to=UP.Example:PORT", "/pass?to=alias.example:PORT",
            "/uri/a?to=up.example:PORT", "/scheme?to=http://up.example:PORT", "/set", "/set?again",
            "/pass?to=127.0.0.1:PORT", "/pass?to=named", "/fixed", "/pass?to=localhost:PORT",
            "/pass?to=v6.example:PORT",
        )
    ]  # fmt: skip


def _nowhere(side: Side) -> Any:
    side.names.set("empty.example", "x", kind="CNAME")
    side.names.set("x", "::1", kind="AAAA")
    return [
        side.get(target)
        for target in (
            "/pass?to=missing.example:PORT", "/pass?to=missing.example:PORT",
            "/fcgi?to=missing.example:1",
            "/pass?to=empty.example:PORT", "/pass?to=no..such:PORT", "/pass?to=named:PORT",
        )
    ]  # fmt: skip


def _not_an_address(side: Side) -> Any:
    return [
        side.get(target)
        for target in (
            "/pass?to=", "/pass?to=:80", "/pass?to=127.0.0.1:99999", "/pass?to=a:b",
            "/scheme?to=ftp://up.example", "/scheme", "/fcgi?to=up.example", "/fcgi?to=127.0.0.1",
            "/fcgi?to=", "/pass?to=[::x]:80",
        )
    ]  # fmt: skip


def _no_resolver(side: Side) -> Any:
    return [
        side.get(target, other=True)
        for target in (
            "/?to=up.example:PORT",
            "/?to=named",
            "/?to=127.0.0.1:PORT",
            "/fcgi?to=up.x:1",
        )
    ]


def _refusals(side: Side) -> Any:
    """Of format errors nginx says nothing and times out."""
    found = []
    for code in (2, 4, 5):
        side.names.code = code
        found.append(side.get(f"/pass?to=refused{code}.example:PORT"))
    side.names.code = 0
    return found


def _silence(side: Side) -> Any:
    side.names.silent = True
    found = side.get("/brief?to=silent.example:PORT")
    side.names.silent = False
    return found


def _garbage(side: Side) -> Any:
    side.names.set("garbled.example", "127.0.0.1")
    found = []
    for garble in (
        lambda packet: packet[:-2],
        lambda packet: bytes([packet[0] ^ 1]) + packet[1:],
        lambda packet: packet.replace(b"\x07garbled", b"\x07garbage"),
    ):
        side.names.garble = garble
        found.append(side.get("/brief?to=garbled.example:PORT"))
    side.names.garble = None
    return found


def _truncated(side: Side) -> Any:
    side.names.set("long.example", "127.0.0.1")
    side.names.truncate = True
    found = side.get("/pass?to=long.example:PORT")
    side.names.truncate = False
    return found, side.names.tcp_queries > 0


def _one_of_two_answers(side: Side) -> Any:
    """The upstream is at one of the addresses only."""
    side.names.set("two.example", "127.0.0.2", "127.0.0.1")
    return [side.get("/pass?to=two.example:PORT")[0] for _ in range(4)]


SCENARIOS: tuple[Callable[[Side], Any], ...] = (
    _addresses, _nowhere, _not_an_address, _no_resolver, _refusals, _silence, _garbage, _truncated,
    _one_of_two_answers,
)  # fmt: skip


def _play(side: Side) -> list[Any]:
    return [scenario(side) for scenario in SCENARIOS]


class NamesTests(StagedCase):
    def test_same(self) -> None:
        directory = beside.directory(self.addCleanup, "names")
        # nginx 1.22 knows no "ipv4=", and always asks for A.
        theirs, ours = Side(directory / "nginx", "ipv6=off"), Side(directory / "ours", "ipv6=off")
        self.addCleanup(theirs.close)
        self.addCleanup(ours.close)
        beside.start(self.addCleanup, (theirs.config, [theirs.port]), (ours.config, [ours.port]))
        with ThreadPoolExecutor(2) as pool:
            expected, got = pool.map(_play, (theirs, ours))
        found = [
            f"{scenario.__name__}\n    {one}\n    {other}"
            for scenario, *both in zip(SCENARIOS, expected, got, strict=True)
            for one, other in [both]
            if one != other
        ]
        self.assertEqual(found, [], "\n" + "\n".join(found))
