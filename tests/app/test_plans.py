"""A plan never gives an answer that the ordinary path would not have given.

Random requests against random configurations, over files that change meanwhile: two servers on
the same files, one that remembers answers and one that does not, send the same bytes and log the
same lines.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.app.configuration import Options, read
from imagefarm.app.web import WebWork
from imagefarm.http.plans import Plans
from imagefarm.process.directives import MainSettings
from tests.http.fakes import ClientTransport
from tests.support.errorlines import ErrorLines
from tests.support.stamps import next_stamp

HTTP = (
    "gzip on; gzip_min_length 10; gzip_types text/css;", "gzip on; gzip_vary on;",
    "gzip_disable \"MSIE\";", "expires 10s;", "expires modified +1h;", "expires -1;",
    "expires max;",
    "expires @03h;", "error_page 404 400 /e.html;", "error_page 404 =200 /e.html;",
    "error_page 404 @other;", "error_page 416 412 /e.html;", "error_page 404 http://x.example/;",
    "charset utf-8;", "add_header X-A b;", "add_header X-A b always;", "etag off;",
    "max_ranges 0;", "if_modified_since before;", "keepalive_requests 3;", "msie_padding off;",
    "server_tokens off;", "log_not_found off;", "keepalive_timeout 5 5;", "default_type text/css;",
    "open_file_cache max=2;", "open_file_cache max=9 inactive=20s;", "open_file_cache_valid 15s;",
    "open_file_cache_errors on;", "open_file_cache_min_uses 3;", "keepalive_time 20s;",
    "lingering_close always;", "keepalive_disable safari;", "server_tokens us;",
    "add_header Expires never;", "access_log PREFIX/logs/a.log odd;", "access_log off;",
    "access_log PREFIX/logs/b.log facts;", 'add_header ETag "x";', 'add_header X-P "%d %s";',
    "map $http_user_agent $agent { default other; ~*msie bad; } add_header X-M $agent;",
    "map $uri $kind { default - ; ~(.)[.]txt$ $1; } access_log PREFIX/logs/d.log maps;",
    "map $host $named { default - ; h here; } add_header X-N $named;",
)  # fmt: skip
LOCATIONS = (
    "location / { }",
    "location / { try_files $uri $uri/ /a.txt; }",
    "location / { try_files $uri /none @other; }",
    "location / { try_files $arg_f $uri =404; }",
    "location / { index index.html a.txt; }",
    "location ~ \\.(txt|css)$ { expires 1h; }",
    "location ~* ^/sub/(?<rest>.*)$ { try_files /$rest =400; }",
    "location ^~ /sub/ { alias PREFIX/root/; }",
    "location = /a.txt { return 204; }",
    "location /sub { error_page 404 /a.txt; }",
    "location ~ ^/sub/b { deny all; }",
    "location = /e.html { internal; }",
    "location /al { alias PREFIX/root/sub; }",
    "location /d { expires 3h; }",
    "location = /d.txt { charset koi8-r; }",
    "location ^~ /sub/d { add_header X-Sub 1; }",
    "location ~ .*\\.(txt|css)$ { expires 5s; location ~ b { return 202; } }",
    "location ~ ^/d\\.txt$ { return 203; }",
    "location ~ ^/d { expires -2; }",
    "location ~ ^/$ { return 205; }",
    "location ~ (?<kind>t)xt$ { add_header X-Kind here; }",
    "location ~ .*\\.(txt|jpg)?$ { access_log PREFIX/logs/c.log facts; }",
    "location ~ ^/(a|c)\\.[a-z]+$ { alias PREFIX/root/d.txt; }",
    "location / { location ~ c { expires 9s; } location /sub/ { expires 8s; } }",
    "if ($http_cookie) { return 403; }",
    "rewrite ^/r/(.*)$ /$1;",
)  # fmt: skip
TARGETS = (
    b"/a.txt", b"/b.css", b"/c.jpg", b"/sub/a.txt", b"/sub/b.css", b"/none", b"/none.txt", b"/sub",
    b"/sub/", b"/", b"/e.html", b"/a.txt?x=1", b"/none?f=/a.txt", b"/%61.txt", b"/al/a.txt",
    b"/r/a.txt",
    b"//a.txt", b"/../a.txt", b"http://h/a.txt",
    b"/d.txt", b"/da.txt", b"/e.txt", b"/d.css", b"/sub/d.txt", b"/sub/e.txt", b"/.txt",
    b"/e..txt", b"/e.TXT", b"/empty.txt", b"/d.txt/", b"/al/d.txt", b"/d.jpg", b"/e%2etxt",
)  # fmt: skip
FIELDS = (
    b"Accept-Encoding: gzip", b"Range: bytes=0-3", b"Range: bytes=5-1,9999-",
    b"Range: bytes=99999-", b"Range: bytes=0-1,3-4",
    b"If-Modified-Since: Thu, 01 Jan 2026 00:00:00 GMT", b"If-None-Match: *",
    b"If-None-Match: \"x\"",
    b"If-Match: \"x\"", b"Connection: close", b"Cookie: a=b", b"User-Agent: MSIE 6 Chrome/1",
    b"Referer: \"\\\xff", b"Via: 1.1 x", b"Content-Length: 0", b"Expect: 100-continue",
)  # fmt: skip
FILES = (
    "a.txt", "b.css", "c.jpg", "sub/a.txt", "sub/b.css", "index.html", "e.html", "d.txt", "da.txt",
    "e.txt", "d.css", "sub/d.txt", "sub/e.txt", ".txt", "e..txt", "e.TXT", "d.jpg",
)  # fmt: skip


class NoPlans(Plans):
    """Remembers nothing."""

    def find(self, data: bytes, end: int, now: float) -> None:
        return None


class Server:
    """A tree without a network; ``now`` is the time of day."""

    def __init__(self, prefix: Path, text: str, now: Callable[[], float], plans: Plans) -> None:
        (prefix / "logs").mkdir(parents=True, exist_ok=True)
        self.prefix = prefix
        config = prefix / "server.conf"
        config.write_text(text)
        loaded = read(Options("slave", str(config), str(prefix)), clock=now)
        log = ErrorLines()
        self.errors = log.lines
        self.work = WebWork(
            Clock(), loaded, MainSettings(), str(prefix),
            lambda settings, note: log, now,
        )  # fmt: skip
        self.factory = self.work.doors[0].factory
        self.factory.plans = plans
        self.connections: dict[int, Any] = {}

    def send(self, number: int, data: bytes) -> bytes:
        if number not in self.connections:
            transport = ClientTransport()
            connection = self.factory.buildProtocol(transport.getPeer())
            assert connection is not None
            connection.makeConnection(transport)
            self.connections[number] = connection, transport
        connection, transport = self.connections[number]
        connection.dataReceived(data)
        self.work.reactor.advance(0)
        sent: bytes = transport.value()
        transport.clear()
        if transport.disconnecting or transport.aborted:
            connection.connectionLost(Failure(ConnectionDone()))
            del self.connections[number]
        return sent

    def log(self) -> list[str]:
        self.work.logs.flush()
        paths = sorted((self.prefix / "logs").iterdir())
        return [path.name + path.read_text("latin-1") for path in paths]

    def close(self) -> None:
        for connection, _ in self.connections.values():
            connection.connectionLost(Failure(ConnectionDone()))
        self.work.stop()


def configuration(root: Path, prefix: Path, http: list[str], locations: list[str]) -> str:
    seen: set[str] = set()
    lines = []
    for line in http:
        name = line.split()[0]
        if name not in seen:  # twice is an error
            seen.add(name)
            lines.append(line)
    names: set[str] = set()
    places = []
    for line in locations:
        head = line.split("{")[0]
        if head not in names:
            names.add(head)
            places.append(line)
    text = (
        "types { text/plain txt; text/css css; image/jpeg jpg; text/html html; }\n"
        'log_format odd "$remote_addr $request $status $body_bytes_sent $bytes_sent '
        '$sent_http_expires $sent_http_etag $uri $connection_requests $1 $request_filename";\n'
        'map $arg_x $arg { default none; "" no; } map $request_method $way { GET in; }'
        "map $uri $path { default other; ~^/sub/ inner; }"
        'log_format maps "$arg $way $path $uri";'
        'log_format facts "$remote_addr 100%s $request $uri $request_uri $body_bytes_sent '
        '$bytes_sent $request_length $http_user_agent";\n'
        + "\n".join(lines)
        + f"\nserver {{ listen 8080; root {root}; location @other {{ return 418 other; }}\n"
        + "\n".join(places)
        + "}"
    )
    return "http {" + text.replace("PREFIX/root", str(root)).replace("PREFIX", str(prefix)) + "}"


def request(
    target: bytes, method: bytes, version: bytes, host: bytes, fields: list[bytes]
) -> bytes:
    lines = [method + b" " + target + b" HTTP/" + version, b"Host: " + host, *fields]
    return b"\r\n".join(lines) + b"\r\n\r\n"


requests = st.builds(
    request,
    st.sampled_from(TARGETS),
    st.sampled_from((b"GET", b"GET", b"GET", b"HEAD", b"POST", b"OPTIONS")),
    st.sampled_from((b"1.1", b"1.1", b"1.1", b"1.0")),
    st.sampled_from((b"h", b"h", b"other:80")),
    st.lists(st.sampled_from(FIELDS), max_size=2, unique=True),
)
#: A request on a connection, sent so often; a change of a file; or seconds that pass.
events = st.one_of(
    st.tuples(st.integers(0, 1), requests, st.integers(1, 3)),
    st.tuples(st.integers(0, 1), requests, st.integers(1, 3)),
    st.tuples(st.sampled_from(("write", "replace", "remove", "mkdir")), st.sampled_from(FILES)),
    st.integers(1, 4000),
)


#: For files beside each other: what tells them apart, and what is the same for all of them.
NEAR: Final = tuple(line for line in LOCATIONS if line not in (
    "location / { index index.html a.txt; }", "if ($http_cookie) { return 403; }",
    "rewrite ^/r/(.*)$ /$1;", "location = /e.html { internal; }",
))  # fmt: skip
NEAR_HTTP: Final = tuple(line for line in HTTP if line.split()[0] in {
    "expires", "add_header", "access_log", "etag", "charset", "gzip", "keepalive_requests",
    "open_file_cache", "log_not_found",
})  # fmt: skip
NEIGHBOURS: Final = (
    b"/a.txt", b"/d.txt", b"/da.txt", b"/e.txt", b"/e..txt", b"/.txt", b"/empty.txt", b"/b.css",
    b"/d.css", b"/c.jpg", b"/d.jpg", b"/sub/a.txt", b"/sub/d.txt", b"/sub/e.txt", b"/al/d.txt",
    b"/al/a.txt", b"/e.TXT", b"/e%2etxt", b"/d.txt?x", b"/none.txt",
)  # fmt: skip
gets = st.builds(
    lambda target, fields: (0, request(target, b"GET", b"1.1", b"h", fields), 1),
    st.sampled_from(NEIGHBOURS),
    st.sampled_from(([], [], [], [], [b"User-Agent: \xe9"], [b"Connection: close"])),
)
changes = st.tuples(st.sampled_from(("write", "replace", "remove")), st.sampled_from(FILES))


class PlansTests(SynchronousTestCase):
    def change(self, root: Path, kind: str, name: str, serial: int) -> None:
        path = root / name
        if kind == "remove":
            path.unlink() if path.is_file() else path.is_dir() and path.rmdir()
        elif kind == "mkdir":
            path.is_file() and path.unlink()
            path.mkdir(exist_ok=True)
        else:
            if path.is_dir():
                path.rmdir()
            content = (b"%06d " % serial) * 4  # of one size: only the time and inode tell
            if kind == "write":
                path.write_bytes(content)
            else:
                fresh = path.with_suffix(".new")
                fresh.write_bytes(content)
                fresh.replace(path)
        next_stamp()

    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(
        st.lists(st.sampled_from(HTTP), max_size=6, unique=True),
        st.lists(st.sampled_from(LOCATIONS), max_size=4, unique=True),
        st.lists(events, max_size=25),
    )
    def test_same_bytes(self, http: list[str], locations: list[str], script: list[Any]) -> None:
        base = Path(tempfile.mkdtemp(prefix="plans-"))
        self.addCleanup(shutil.rmtree, base, ignore_errors=True)
        root = base / "root"
        for i, name in enumerate(FILES):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(b"content of file %d, some text to compress" % i * (3 + i))
        (root / "empty.txt").touch()
        late = [time.time() + 100.0]
        servers = [
            Server(prefix, configuration(root, prefix, http, locations), lambda: late[0], plans)
            for prefix, plans in ((base / "planned", Plans()), (base / "ordinary", NoPlans()))
        ]
        for serial, event in enumerate(script):
            if isinstance(event, int):
                late[0] += event
            elif isinstance(event[0], str):
                self.change(root, *event, serial)
            else:
                number, data, times = event
                for _ in range(times):
                    planned, ordinary = (server.send(number, data) for server in servers)
                    self.assertEqual(planned, ordinary, data)
        planned, ordinary = servers
        self.assertEqual(planned.errors, ordinary.errors)
        self.assertEqual(planned.log(), ordinary.log())
        for server in servers:
            server.close()

    @settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
    @given(
        st.lists(st.sampled_from(NEAR_HTTP), max_size=3, unique=True),
        st.lists(st.sampled_from(NEAR), max_size=3, unique=True),
        st.lists(
            st.one_of(gets, gets, gets, gets, st.integers(1, 4), changes), min_size=12, max_size=40
        ),
    )
    def test_neighbours(self, http: list[str], locations: list[str], script: list[Any]) -> None:
        """Files that are answered by what was learnt from others beside them."""
        inner = PlansTests.test_same_bytes.hypothesis.inner_test
        inner(self, http, locations, script)

    def test_version_is_part_of_the_meaning(self) -> None:
        """What keeps an HTTP/1.1 connection closes an HTTP/1.0 one."""
        get = b"GET /a.txt HTTP/1.1\r\nHost: h\r\n\r\n"
        old = get.replace(b"1.1", b"1.0")
        inner = PlansTests.test_same_bytes.hypothesis.inner_test
        inner(self, [], [], [(0, get, 4), (0, old, 2), (0, get, 2)])

    def test_maps(self) -> None:
        """What a ``map`` says goes by its source, however an answer is found."""
        inner = PlansTests.test_same_bytes.hypothesis.inner_test
        maps = [line for line in HTTP if line.startswith("map ")]
        self.assertEqual(len(maps), 3)
        script: list[Any] = [
            (0, request(target, method, b"1.1", host, [b"User-Agent: " + agent]), 2)
            for host in (b"h", b"other")
            for agent in (b"curl", b"MSIE 6")
            for method in (b"GET", b"HEAD")
            for target in (
                b"/a.txt", b"/b.txt", b"/sub/a.txt", b"/sub/d.txt", b"/a.txt?x=", b"/a.txt?x=1",
                b"/b.txt?x=1", b"/none.txt",
            )
        ]  # fmt: skip
        for line in maps:
            inner(self, [line], ["location / { }"], [*script, *reversed(script)])

    def test_an_error_whose_access_line_is_made_each_time(self) -> None:
        """Telling the error again must not note it again, without end."""
        get = b"GET /none HTTP/1.1\r\nHost: h\r\n\r\n"
        inner = PlansTests.test_same_bytes.hypothesis.inner_test
        inner(self, ["access_log PREFIX/logs/a.log odd;"], [], [(0, get, 4)])

    def test_open_file_cache_counts_a_use_once(self) -> None:
        get = b"GET /a.txt HTTP/1.1\r\nHost: h\r\n\r\n"
        inner = PlansTests.test_same_bytes.hypothesis.inner_test
        http = ["open_file_cache max=9;", "open_file_cache_min_uses 3;"]
        changes = [(0, get, 1), ("replace", "a.txt")] * 5
        inner(self, http, [], [*changes, 70, *changes])

    def test_a_refused_range_expires_with_its_file(self) -> None:
        get = b"GET /a.txt HTTP/1.1\r\nHost: h\r\nRange: bytes=99999-\r\n\r\n"
        inner = PlansTests.test_same_bytes.hypothesis.inner_test
        inner(self, ["expires modified +1h;"], [], [(0, get, 2), 5, (0, get, 2)])

    def test_neighbours_are_answered_at_first_sight(self) -> None:
        """The test of neighbours would prove nothing without."""
        base = Path(tempfile.mkdtemp(prefix="plans-"))
        self.addCleanup(shutil.rmtree, base, ignore_errors=True)
        (base / "root").mkdir()
        for name in ("a.txt", "b.txt", "c.css", "d.txt"):
            (base / "root" / name).write_bytes(b"text")
        plans = Plans()
        places = ["location ~ \\.(txt|css)$ { expires 1h; }", "location = /d.txt { expires 2h; }"]
        server = Server(
            base, configuration(base / "root", base, [], places), lambda: time.time() + 9.0, plans
        )
        self.addCleanup(server.close)
        rest = b" HTTP/1.1\r\nHost: h\r\n\r\n"
        server.send(0, b"GET /a.txt" + rest)
        for name, known in ((b"/b.txt", True), (b"/c.css", False), (b"/d.txt", False)):
            data = b"GET " + name + rest
            self.assertEqual(plans.find(data, data.index(b"\r\n"), 0.0) is not None, known, name)

    def test_plans_are_used(self) -> None:
        """The test above would prove nothing if nothing were remembered."""
        base = Path(tempfile.mkdtemp(prefix="plans-"))
        self.addCleanup(shutil.rmtree, base, ignore_errors=True)
        (base / "root").mkdir()
        (base / "root" / "a.txt").write_bytes(b"text")
        plans = Plans()
        text = configuration(base / "root", base, ["error_page 404 =200 /a.txt;"], [])
        server = Server(base, text, lambda: time.time() + 100.0, plans)
        self.addCleanup(server.close)
        simple = b" HTTP/1.1\r\nHost: h\r\n\r\n"
        special = b" HTTP/1.1\r\nHost: h\r\nIf-None-Match: *\r\n\r\n"
        for data in (b"GET /a.txt" + simple, b"GET /none" + simple, b"GET /a.txt" + special):
            self.assertIsNone(plans.find(data, data.index(b"\r\n"), 0.0))
            first = server.send(0, data)
            found = plans.find(data, data.index(b"\r\n"), 0.0)
            assert found is not None, data
            self.assertEqual(server.send(0, data), first)
        (base / "root" / "a.txt").unlink()
        self.assertIn(b"404", server.send(0, b"GET /a.txt" + simple).split(b"\r\n")[0])
        self.assertEqual(os.listdir(base / "root"), [])

    def test_expires_counts_from_a_date_that_is_replaced(self) -> None:
        """``expires modified`` goes by the file's date, whatever ``add_header`` says it is."""
        get = b"GET /a.txt HTTP/1.1\r\nHost: h\r\n\r\n"
        inner = PlansTests.test_same_bytes.hypothesis.inner_test
        for value in ('""', '"Thu, 01 Jan 1970 00:00:00 GMT"'):
            http = ["expires modified +1h;", f"add_header Last-Modified {value};"]
            inner(self, http, [], [(0, get, 2), 5, (0, get, 2)])
