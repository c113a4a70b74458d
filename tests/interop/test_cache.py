"""The cache's decisions and real nginx's: the same requests and upstream answers on both.

Compared are ``$upstream_cache_status`` and how often the upstream was asked. `DIFFERENT` names
the cases in which we differ on purpose; docs/cache.md gives the reasons.
"""

from __future__ import annotations

import http.server
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from imagefarm.cache.directives import CacheSettings
from imagefarm.cache.handler import CachingHandler
from imagefarm.cache.policy import ValidTime
from imagefarm.cache.settings import ZoneSettings
from imagefarm.cache.zone import Zone
from imagefarm.http.dates import format_http
from imagefarm.http.headers import Headers
from imagefarm.http.message import Peer, Request, RequestHead, Response, discard
from tests.support import rawhttp, tools
from tests.support.acceptor import HttpServer
from tests.support.processes import Daemon, free_ports
from tests.support.stages import StagedCase

NOW = time.time()
LATER, PAST = format_http(NOW + 100_000).decode(), format_http(NOW - 1000).decode()
VALID = (ValidTime(frozenset({200, 302}), 60.0),)

Fields = tuple[tuple[str, str], ...]


@frozen
class Step:
    """One request: what it adds to the target, and its headers."""

    method: str = "GET"
    query: str = ""
    fields: Fields = ()


@frozen
class Case:
    """What the upstream answers, and the requests; ``place`` is the location they go to."""

    status: int
    fields: Fields
    steps: tuple[Step, ...] = (Step(), Step())
    place: str = "plain"


def case(status: int, *fields: tuple[str, str], **more: Any) -> Case:
    return Case(status, fields, **more)


def control(value: str) -> tuple[str, str]:
    return ("Cache-Control", value)


def accel(value: str) -> tuple[str, str]:
    return ("X-Accel-Expires", value)


AVIF, WEBP = Step(fields=(("Accept", "image/avif"),)), Step(fields=(("Accept", "image/webp"),))

CASES: dict[str, Case] = {
    "plain": case(200),
    "404": case(404),
    "301": case(301),
    "302": case(302),
    "206": case(206),
    "max-age": case(200, control("max-age=100")),
    "max-age on a 404": case(404, control("max-age=100")),
    "max-age on a 500": case(500, control("max-age=100")),
    "max-age on a 206": case(206, control("max-age=100")),
    "max-age=0": case(200, control("max-age=0")),
    "max-age malformed": case(200, control("max-age=soon")),
    "max-age quoted": case(200, control('max-age="100"')),
    "MAX-AGE": case(200, control("MAX-AGE=100")),
    "s-maxage=0": case(200, control("s-maxage=0, max-age=100")),
    "s-maxage first": case(200, control("max-age=0, s-maxage=100")),
    "no-cache": case(200, control("no-cache")),
    "no-store": case(200, control("no-store")),
    "private": case(200, control("Private")),
    "pragma": case(200, ("Pragma", "no-cache")),
    "expires": case(404, ("Expires", LATER)),
    "expires past": case(200, ("Expires", PAST)),
    "expires 0": case(200, ("Expires", "0")),
    "expires before max-age": case(200, ("Expires", PAST), control("max-age=100")),
    "max-age before expires": case(200, control("max-age=100"), ("Expires", PAST)),
    "accel": case(404, accel("100")),
    "accel 0": case(200, accel("0")),
    "accel junk": case(200, accel("junk")),
    "accel absolute": case(404, accel(f"@{int(NOW) + 100_000}")),
    "accel @0": case(200, accel("@0")),
    "accel before no-store": case(200, accel("100"), control("no-store")),
    "no-store before accel": case(200, control("no-store"), accel("100")),
    "set-cookie": case(200, ("Set-Cookie", "a=b")),
    "set-cookie and accel": case(200, ("Set-Cookie", "a=b"), accel("100")),
    "vary *": case(200, ("Vary", "*")),
    "vary *, accel": case(200, ("Vary", "*"), accel("100")),
    "vary with *": case(200, ("Vary", "Accept, *")),
    "vary long": case(200, ("Vary", "x" * 129)),
    "vary": case(200, ("Vary", "Accept"), steps=(AVIF, WEBP, AVIF, WEBP, Step(), AVIF)),
    "vary on nothing sent": case(200, ("Vary", "X-None"), steps=(AVIF, WEBP)),
    "head": case(200, steps=(Step("HEAD"), Step(), Step("HEAD"))),
    "range": case(200, steps=(Step(fields=(("Range", "bytes=0-1"),)), Step())),
    "post": case(200, steps=(Step("POST"), Step("POST"))),
    "query": case(200, steps=(Step(query="?a=1"), Step(query="?a=2"), Step(query="?a=1"))),
    "min_uses": case(200, steps=(Step(),) * 4, place="min"),
    "bypass": case(
        200, place="skip", steps=(Step(query="?0"), Step(query="?fresh=1"), Step(query="?0"))
    ),
    "no_cache": case(200, place="skip", steps=(Step(query="?private=1"),) * 2),
    "predicate 0": case(200, place="skip", steps=(Step(query="?private=0"),) * 2),
    "ignored no-store": case(200, control("no-store"), place="ignore"),
    "ignored cookie": case(200, ("Set-Cookie", "a=b"), place="ignore"),
    "ignored vary": case(200, ("Vary", "*"), place="ignore"),
    "any": case(404, place="any"),
    "any on a 500": case(500, place="any"),
    "named 500": case(500, place="error"),
}

DIFFERENT = frozenset(
    {
        "max-age on a 500", "max-age on a 206", "max-age quoted", "vary with *", "accel @0",
        "expires before max-age", "no-store before accel", "any on a 500",
    }
)  # fmt: skip

CONFIGURATION = """
daemon off; master_process off; pid nginx.pid; error_log error.log;
events {{ }}
http {{
    access_log off;
    proxy_cache_path cache levels=1:2 keys_zone=zone:1m;
    proxy_temp_path t1; client_body_temp_path t2; fastcgi_temp_path t3;
    uwsgi_temp_path t4; scgi_temp_path t5;
    proxy_cache zone;
    proxy_cache_key $request_uri;
    proxy_cache_valid 200 302 1m;
    add_header X-Cache $upstream_cache_status always;
    server {{
        listen 127.0.0.1:{port};
        location /plain/ {{ proxy_pass http://127.0.0.1:{origin}; }}
        location /min/ {{ proxy_pass http://127.0.0.1:{origin}; proxy_cache_min_uses 3; }}
        location /skip/ {{
            proxy_pass http://127.0.0.1:{origin};
            proxy_cache_key $uri;
            proxy_cache_bypass $arg_fresh;
            proxy_no_cache $arg_private;
        }}
        location /ignore/ {{
            proxy_pass http://127.0.0.1:{origin};
            proxy_ignore_headers Cache-Control Set-Cookie Vary;
        }}
        location /any/ {{ proxy_pass http://127.0.0.1:{origin}; proxy_cache_valid any 1m; }}
        location /error/ {{ proxy_pass http://127.0.0.1:{origin}; proxy_cache_valid 500 1m; }}
    }}
}}
"""


def _argument(name: bytes) -> Callable[[Request], bytes]:
    return lambda request: request.args.partition(name + b"=")[2]


def _settings(**changes: Any) -> CacheSettings:
    return CacheSettings(
        **{"zone": "one", "key": lambda request: request.head.target, "valid": VALID, **changes}
    )


SETTINGS = {
    "plain": _settings(),
    "min": _settings(min_uses=3),
    "skip": _settings(
        key=lambda request: request.uri,
        bypass=(_argument(b"fresh"),),
        no_cache=(_argument(b"private"),),
    ),
    "ignore": _settings(ignore_headers=frozenset({b"cache-control", b"set-cookie", b"vary"})),
    "any": _settings(valid=(ValidTime(None, 60.0),)),
    "error": _settings(valid=(ValidTime(frozenset({500}), 60.0),)),
}

NAMES = list(CASES)


class Origin(http.server.BaseHTTPRequestHandler):
    """Answers ``/PLACE/N`` as the N-th case says, and counts."""

    protocol_version = "HTTP/1.1"
    asked = 0

    def _answer(self) -> None:
        Origin.asked += 1
        told = CASES[NAMES[int(self.path.partition("?")[0].rsplit("/", 1)[1])]]
        self.send_response_only(told.status)
        for name, value in told.fields:
            self.send_header(name, value)
        self.send_header("Content-Length", "5")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(b"hello")

    do_GET = do_HEAD = do_POST = _answer

    def log_message(self, format: str, *args: Any) -> None:
        pass


class CacheTests(StagedCase):
    def setUp(self) -> None:
        program = tools.nginx()
        self.directory = Path(tempfile.mkdtemp(prefix="imagefarm-interop-"))
        self.addCleanup(shutil.rmtree, self.directory, True)
        origin = HttpServer(Origin)
        self.addCleanup(origin.close)
        (self.port,) = free_ports(1)
        file = self.directory / "nginx.conf"
        file.write_text(CONFIGURATION.format(port=self.port, origin=origin.server_port))
        command = [program, "-p", str(self.directory), "-c", str(file)]
        daemon = Daemon(command, self.directory / "out", [self.port])
        self.addCleanup(daemon.stop)
        daemon.started()

    def of_nginx(self, name: str) -> tuple[list[str], int]:
        """The cache statuses that nginx gives, and how often it asked."""
        before, statuses = Origin.asked, []
        told = CASES[name]
        for step in told.steps:
            target = f"/{told.place}/{NAMES.index(name)}{step.query}"
            lines = [f"{step.method} {target} HTTP/1.1", "Host: h", "Connection: close"]
            lines += [f"{field}: {value}" for field, value in step.fields]
            if step.method == "POST":
                lines.append("Content-Length: 0")
            answer = rawhttp.exchange(self.port, "\r\n".join([*lines, "", ""]).encode())
            assert answer is not None
            statuses.append(answer.header("x-cache") or "")
            if step.method == "HEAD":
                time.sleep(0.2)  # nginx answers before it has stored the body
        return statuses, Origin.asked - before

    def of_ours(self, name: str) -> tuple[list[str], int]:
        """The same of a `CachingHandler`."""
        told, statuses, asked = CASES[name], [], 0

        def inner(request: Request) -> Response:
            nonlocal asked
            asked += 1
            fields = [(field.encode(), value.encode()) for field, value in told.fields]
            request.outcome.upstream_headers = Headers(fields)
            return Response(told.status, Headers(fields), b"hello")

        clock = Clock()
        clock.advance(NOW)
        path = str(self.directory / f"ours-{NAMES.index(name)}")
        zone = Zone(ZoneSettings(name="one", path=path, keys=99, levels=(1, 2)), clock.seconds)
        zone.start(clock)
        handler = CachingHandler(inner, SETTINGS[told.place], zone)
        for step in told.steps:
            request = _request(f"/{told.place}/1", step)
            response = handler(request)
            if isinstance(response, Deferred):
                response = self.successResultOf(response)
            discard(response.body)
            statuses.append(request.outcome.cache_status.decode())
        zone.stop()
        return statuses, asked

    def test_same_decisions(self) -> None:
        differ = {}
        for name in CASES:
            theirs, ours = self.of_nginx(name), self.of_ours(name)
            if theirs != ours:
                differ[name] = (theirs, ours)
        self.assertEqual(set(differ) - DIFFERENT, set(), differ)
        # nginx 1.23.3 and later agree with us on these two.
        newer = {"expires before max-age", "no-store before accel"}
        self.assertEqual(DIFFERENT - set(differ) - newer, set())


def _request(path: str, step: Step) -> Request:
    fields = [(field.encode(), value.encode()) for field, value in step.fields]
    head = RequestHead(step.method.encode(), (path + step.query).encode(), (1, 1), Headers(fields))
    peer = Peer("127.0.0.1", 1, ("127.0.0.1", 80), 1)
    return Request(
        head, peer, _NoBody(), NOW, uri=path.encode(), args=step.query.lstrip("?").encode()
    )


class _NoBody:
    length = 0

    def start(self, sink: Any) -> None:
        sink.end()

    def pause(self) -> None:
        pass

    def resume(self) -> None:
        pass

    def cancel(self) -> None:
        pass
