"""A remembered hit never gives an answer that the cache itself would not have given.

As `tests.app.test_plans`, with an upstream behind a cache: two servers with a cache each, to
whose files the same happens.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from attrs import asdict
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.cache.kept import Shelf
from imagefarm.cache.purge import Purger
from imagefarm.fastcgi.handler import FastCGIPass
from imagefarm.http import plans
from imagefarm.http.headers import Headers
from imagefarm.http.message import Request, Response
from imagefarm.http.plans import MAX_BODIES, Plans
from tests.app.test_plans import NoPlans, Server, request
from tests.support.stamps import next_stamp

HTTP: Final = (
    "gzip on; gzip_min_length 10; gzip_types text/css;", "gzip on; gzip_vary on;", "expires 10s;",
    "expires modified +1h;", "expires -1;", "error_page 404 /c/b.jpg;",
    "error_page 404 = @cached;", "charset utf-8;", "add_header X-A b;",
    "add_header X-Cache $upstream_cache_status always;", "add_header X-Host $host;",
    "add_header ETag own;", "add_header X-Own again;", "max_ranges 0;", "keepalive_requests 7;",
    "etag off;", "server_tokens off;",
    "access_log PREFIX/logs/a.log facts;", "access_log PREFIX/logs/a.log parts;",
    "access_log PREFIX/logs/a.log sent;", "access_log PREFIX/logs/a.log facts;",
    "fastcgi_cache_rfc9111 on;", "cache_status_header off;", "fastcgi_cache_min_uses 2;",
    "fastcgi_cache_use_stale updating;", "fastcgi_cache_background_update on;",
    "fastcgi_cache_revalidate on;", "fastcgi_cache_convert_head off;",
    "fastcgi_cache_max_range_offset 3;", "fastcgi_ignore_headers Cache-Control Vary;",
    "fastcgi_cache_follow_source ROOT;", "fastcgi_cache_follow_source ROOT;",
    "fastcgi_cache_bypass $arg_w;", "fastcgi_cache_bypass $http_pragma;",
    "fastcgi_cache_bypass $remote_port;", "fastcgi_cache_purge $http_x_purge;",
    "fastcgi_cache_purge $arg_purge;",
)  # fmt: skip
KEYS: Final = (
    "$scheme$host$request_uri", "$uri", "$uri$is_args$args", "$request_uri$cookie_user",
    "$uri$arg_w", "$request_method$uri", "$remote_addr$uri", "$http_host$uri", "$args", "same",
)  # fmt: skip
LOCATIONS: Final = (
    "location ~ b\\.jpg$ { return 204; }", "location = /c/noext { return 203; }",
    "location ~ (?<kind>j)pg$ { fastcgi_pass up; add_header X-Kind regex; }",
    "location /c/a { fastcgi_pass up; expires 1h; }",
    "location ^~ /q { fastcgi_pass up; add_header X-Q 1; }",
    "location /v/ { fastcgi_pass up; fastcgi_cache_key $uri; }",
    "location /c/n { root ROOT; try_files $uri @cached; }",
)  # fmt: skip
TARGETS: Final = (
    b"/c/a.jpg", b"/c/b.jpg", b"/c/ab.jpg", b"/c/a.css", b"/c/b.css", b"/c/noext", b"/c/next",
    b"/c/a.jpg?w=1", b"/c/a.jpg?w=2", b"/q?src=/a.jpg&w=1", b"/q?src=/a.jpg&w=2",
    b"/q?src=/b.jpg&purge=1", b"/q?w=", b"/q?", b"/q", b"/v/a.jpg", b"/v/b.jpg", b"/v/a.jpg?w=1",
    b"/c/stamped.jpg", b"/c/none.jpg", b"/c/moved.jpg", b"/c/limited.jpg", b"/c/long.jpg",
    b"/c/empty.jpg", b"/c/ranges.jpg", b"/c/odd.jpg", b"/c/twice.jpg", b"/c/%61.jpg", b"/c//a.jpg",
    b'/q?src="', b"/c/a.jpg#x", b"http://h/c/a.jpg",
)  # fmt: skip
FIELDS: Final = (
    b"Accept-Encoding: gzip", b"Accept: image/avif", b"Accept: image/webp", b"Range: bytes=0-3",
    b"Range: bytes=5-", b"Range: bytes=99999-", b"Range: bytes=0-1,3-4",
    b"If-None-Match: *", b'If-None-Match: "/a.jpg.0"', b'If-Match: "x"',
    b"If-Modified-Since: Thu, 01 Jan 2026 00:00:00 GMT", b"Connection: close",
    b"Cookie: user=me", b"Pragma: 1", b"X-Purge: 1", b"Cache-Control: no-cache", b"Via: 1.1 x",
)  # fmt: skip
ORIGINALS: Final = ("a.jpg", "b.jpg", "q.jpg")
#: For hits beside each other.
NEAR_HTTP: Final = tuple(line for line in HTTP if line.split()[0] in {
    "gzip", "expires", "add_header", "charset", "access_log", "fastcgi_cache_rfc9111",
    "cache_status_header", "fastcgi_cache_follow_source", "fastcgi_cache_use_stale",
    "fastcgi_cache_background_update", "keepalive_requests",
})  # fmt: skip
NEAR_KEYS: Final = KEYS[:5]
NEAR_TARGETS: Final = (
    b"/c/a.jpg", b"/c/b.jpg", b"/c/ab.jpg", b"/c/ba.jpg", b"/c/next", b"/c/noext", b"/c/a.jpg?w=1",
    b"/c/a.jpg?w=2", b"/q?src=/a.jpg&w=1", b"/q?src=/a.jpg&w=2", b"/q?src=/b.jpg&w=2",
    b"/c/ranges.jpg", b"/c/odd.jpg", b"/v/a.jpg", b"/v/b.jpg", b"/c/long.jpg", b"/c/empty.jpg",
    b"/c/stamped.jpg", b"/c/b.css", b"/c/a.css", b"/c/limited.jpg",
)  # fmt: skip
#: What may happen to a file of the cache behind our back.
MISCHIEF: Final = (
    "remove", "truncate", "append", "damage", "rewrite", "swap", "copy", "soften", "touch", "link",
)  # fmt: skip


#: What is special about some answers: more fields, how often the text is repeated, the status.
EXTRA: Final = {
    b"stamped.jpg": [(b"Age", b"3"), (b"Cache-Status", b"other; hit")],
    b"moved.jpg": [(b"Location", b"/elsewhere")],
    b"ranges.jpg": [(b"Accept-Ranges", b"none"), (b"Age", b"7")],
    b"odd.jpg": [(b"Cache-Control", b"max-age=7"), (b"Expires", b"0")],
    b"twice.jpg": [(b"X-Two", b"1"), (b"X-Two", b"2")],
    b"b.css": [(b"Last-Modified", b"Thu, 01 Jan 2026 00:00:00 GMT")],
}
TIMES: Final = {b"long.jpg": 5000, b"empty.jpg": 0}
STATUSES: Final = {b"none.jpg": 404, b"moved.jpg": 302}


class World:
    """The upstream, and what it makes its answers of."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.versions = dict.fromkeys(ORIGINALS, 0)

    def answer(self, asked: Request) -> Response:
        path = asked.uri
        name = "q.jpg" if b"q" in path else "b.jpg" if path.endswith(b"b.jpg") else "a.jpg"
        version = self.versions[name]
        tag = b'"/%b.%d"' % (name.encode(), version)
        if tag in (asked.head.headers.getall(b"if-none-match")):
            asked.outcome.upstream_headers = headers = Headers([(b"ETag", tag)])
            return Response(304, headers)
        kind = b"text/css" if path.endswith(b"css") else b"image/jpeg"
        fields = [(b"Content-Type", kind), (b"ETag", tag), (b"X-Own", b"%%d%d" % version)]
        own = path.rpartition(b"/")[2]
        fields += EXTRA.get(own, ())
        body = b"%b %b %04d " % (path, asked.args, version) * TIMES.get(own, 9)
        if path.startswith(b"/v/"):
            fields.append((b"Vary", b"Accept"))
            body += asked.head.headers.first(b"accept") or b"none"
        sent = [*fields, (b"X-Imagefarm-Source", b"/" + name.encode())]
        if own == b"limited.jpg":
            sent.append((b"X-Accel-Limit-Rate", b"1000000"))
        asked.outcome.upstream_headers = Headers(sent)
        return Response(STATUSES.get(own, 200), Headers(fields), body, conditional=False)

    def change(self, name: str) -> None:
        """The original is another one."""
        self.versions[name] += 1
        fresh = self.root / "fresh"
        fresh.write_bytes(b"%d" % self.versions[name])
        fresh.replace(self.root / name)


def configuration(
    root: Path, prefix: Path, http: list[str], key: str, locations: list[str]
) -> str:
    seen: set[str] = set()
    lines = []
    for line in http:
        name = line.split()[0]
        if name not in seen or name in ("add_header", "fastcgi_cache_bypass"):
            seen.add(name)
            lines.append(line)
    heads = [line.split("{")[0] for line in locations]
    places = [line for i, line in enumerate(locations) if heads[i] not in heads[:i]]
    newline = "\n"
    text = f"""
        log_format facts '$remote_addr 100%s $request $uri $request_uri $args $body_bytes_sent '
            '$bytes_sent $request_length $http_user_agent $request_time $upstream_cache_status '
            '$is_args$query_string $status $upstream_addr $request_method $host $msec';
        log_format parts '$uri $arg_w $http_cookie $cookie_user';
        log_format sent '$request $sent_http_cache_status $sent_http_age $sent_http_etag '
            '$upstream_http_etag $upstream_http_x_own $upstream_cache_status $1 $args '
            '$request_uri';
        {newline.join(lines)}
        upstream up {{ server 127.0.0.1:9; }}
        fastcgi_cache_path PREFIX/cache levels=1:2 keys_zone=one:1m inactive=40s;
        fastcgi_cache one;
        fastcgi_cache_key "{key}";
        fastcgi_cache_valid 200 302 404 30s;
        server {{
            listen 8080;
            location / {{ fastcgi_pass up; }}
            location @cached {{ fastcgi_pass up; }}
            {newline.join(places)}
        }}
    """
    return "http {" + text.replace("ROOT", str(root)).replace("PREFIX", str(prefix)) + "}"


class Cached(Server):
    """A server with a cache."""

    def __init__(self, prefix: Path, text: str, now: Callable[[], float], plans: Plans) -> None:
        super().__init__(prefix, text, now, plans)
        self.zone = self.work.zones["one"]
        self.zone.start(self.work.reactor)
        self.work.reactor.advance(0)

    def files(self) -> list[Path]:
        found = (self.prefix / "cache").glob("?/??/*")
        return sorted(path for path in found if len(path.name) == 32)

    def state(self) -> Any:
        return (
            asdict(self.zone.counters),
            [(path.name, *(() if path.is_symlink() else (info.st_size, info.st_mtime)))
             for path in self.files() for info in [path.lstat()]],
        )  # fmt: skip

    def harm(self, kind: str, number: int) -> None:
        """Do something to one of the files."""
        files = [path for path in self.files() if not path.is_symlink()]
        if not files:
            return
        path, other = files[number % len(files)], files[(number + 1) % len(files)]
        data = path.read_bytes()
        middle = len(data) - 5 if kind == "rewrite" else 30
        changed = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
        info = path.stat()
        if kind == "remove":
            path.unlink()
        elif kind == "truncate":
            os.truncate(path, len(data) - 1)
            os.utime(path, (info.st_mtime, info.st_mtime))
        elif kind == "append":
            path.write_bytes(data + b"x")
            os.utime(path, (info.st_mtime, info.st_mtime))
        elif kind in ("damage", "rewrite"):
            path.write_bytes(changed)
            os.utime(path, (info.st_mtime, info.st_mtime))
        elif kind in ("swap", "copy"):
            fresh = path.with_suffix(".new")
            fresh.write_bytes(other.read_bytes() if kind == "swap" else data)
            os.utime(fresh, (info.st_mtime, info.st_mtime))
            fresh.replace(path)
        elif kind == "soften":
            path.chmod(0o400)
        elif kind == "touch":
            os.utime(path, (info.st_mtime + number, info.st_mtime + number))
        elif kind == "link":
            fresh = path.with_suffix(".new")
            fresh.symlink_to(other)
            fresh.replace(path)

    def purge(self, kind: str, what: str, soft: bool) -> None:
        purger = self.zone.purger
        with contextlib.suppress(OSError):  # at a symbolic link
            self.end(purger, kind, what, soft)

    @staticmethod
    def end(purger: Purger, kind: str, what: str, soft: bool) -> None:
        if kind == "prefix":
            purger.prefix(what.encode(), soft=soft)
        elif kind == "source":
            purger.source(b"/" + what.encode(), soft=soft)
        else:
            purger.key(what.encode(), soft=soft)


requests = st.tuples(
    st.integers(0, 1),
    st.builds(
        request,
        st.sampled_from(TARGETS),
        st.sampled_from((b"GET", b"GET", b"GET", b"GET", b"HEAD", b"POST")),
        st.sampled_from((b"1.1", b"1.1", b"1.1", b"1.1", b"1.0")),
        st.sampled_from((b"h", b"h", b"h", b"H:80", b"other")),
        st.one_of(st.just([]), st.lists(st.sampled_from(FIELDS), max_size=2, unique=True)),
    ),
    st.integers(1, 4),
)
gets = st.builds(
    lambda target, fields, times: (0, request(target, b"GET", b"1.1", b"h", fields), times),
    st.sampled_from(NEAR_TARGETS),
    st.sampled_from(([], [], [], [], [b"Cookie: user=me"], [b"Accept: image/webp"])),
    st.integers(1, 3),
)
purges = st.one_of(
    st.tuples(
        st.just("purge"), st.just("key"),
        st.sampled_from(("/c/a.jpg", "httph/c/a.jpg", "same")), st.booleans(),
    ),
    st.tuples(
        st.just("purge"), st.just("prefix"), st.sampled_from(("", "/c/", "http", "/q")),
        st.booleans(),
    ),
    st.tuples(st.just("purge"), st.just("source"), st.sampled_from(ORIGINALS), st.booleans()),
)  # fmt: skip
events = st.one_of(
    requests, requests, gets, gets, gets,
    st.tuples(st.just("harm"), st.sampled_from(MISCHIEF), st.integers(0, 20)),
    st.tuples(st.just("change"), st.sampled_from(ORIGINALS)),
    purges,
    st.sampled_from((0.3, 1.0, 4.0, 11.0, 29.5, 31.0, -3.0)),
)  # fmt: skip
#: Mostly hits: requests for a few targets, and something that happens.
near = st.tuples(
    st.lists(gets, min_size=6, max_size=15),
    st.one_of(
        st.tuples(st.just("harm"), st.sampled_from(MISCHIEF), st.integers(0, 20)),
        st.tuples(st.just("change"), st.sampled_from(ORIGINALS)), purges,
        st.sampled_from((0.3, 1.0, 4.0, 11.0)), st.sampled_from((0.3, 1.0, 4.0, 11.0)),
    ),
)  # fmt: skip


class HitsTests(SynchronousTestCase):
    def play(
        self, http: list[str], key: str, locations: list[str], script: list[Any],
        bodies: int = MAX_BODIES,
    ) -> None:  # fmt: skip
        self.patch(plans, "MAX_BODIES", bodies)
        base = Path(tempfile.mkdtemp(prefix="hits-"))
        self.addCleanup(shutil.rmtree, base, ignore_errors=True)
        root = base / "root"
        root.mkdir()
        world = World(root)
        self.patch(FastCGIPass, "__call__", lambda _, asked: world.answer(asked))
        for name in ORIGINALS:
            world.change(name)
        late = [time.time() + 100.25]
        planned, ordinary = servers = [
            Cached(prefix, configuration(root, prefix, http, key, locations), lambda: late[0], p)
            for prefix, p in ((base / "planned", Plans()), (base / "ordinary", NoPlans()))
        ]
        try:
            for event in script:
                self.step(world, servers, late, event)
            self.assertEqual(planned.errors, ordinary.errors)
            self.assertEqual(planned.log(), ordinary.log())
        finally:
            for server in servers:
                server.zone.stop()
                server.close()

    def step(self, world: World, servers: list[Cached], late: list[float], event: Any) -> None:
        planned, ordinary = servers
        if isinstance(event, float):
            late[0] += event
            for server in servers:
                server.work.reactor.advance(max(event, 0.0))
        elif event[0] == "harm":
            for server in servers:
                server.harm(*event[1:])
            next_stamp()
        elif event[0] == "change":
            world.change(event[1])
            next_stamp()
        elif event[0] == "purge":
            for server in servers:
                server.purge(*event[1:])
            next_stamp()
        else:
            number, data, times = event
            for _ in range(times):
                self.assertEqual(planned.send(number, data), ordinary.send(number, data), data)
                self.assertEqual(planned.state(), ordinary.state(), data)

    @settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
    @given(
        st.lists(st.sampled_from(HTTP), max_size=6, unique=True),
        st.sampled_from(KEYS),
        st.lists(st.sampled_from(LOCATIONS), max_size=3, unique=True),
        st.lists(events, min_size=5, max_size=40),
        st.sampled_from((0, MAX_BODIES)),
    )
    def test_same_bytes(
        self, http: list[str], key: str, locations: list[str], script: list[Any], bodies: int
    ) -> None:
        self.play(http, key, locations, script, bodies)

    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(
        st.lists(st.sampled_from(NEAR_HTTP), max_size=3, unique=True),
        st.sampled_from(NEAR_KEYS),
        st.lists(st.sampled_from(LOCATIONS), max_size=2, unique=True),
        st.lists(near, min_size=2, max_size=5),
        st.sampled_from((0, MAX_BODIES)),
    )
    def test_neighbours(
        self, http: list[str], key: str, locations: list[str], parts: list[Any], bodies: int
    ) -> None:
        """Hits that are answered by what was learnt from others, with bodies kept or without."""
        script = [event for asked, change in parts for event in (*asked, change)]
        self.play(http, key, locations, script, bodies)

    def test_what_ends_a_hit(self) -> None:
        """Each thing alone, after which nothing of what is remembered may be said."""
        http = ["fastcgi_cache_follow_source ROOT;"]
        one = (0, request(b"/c/a.jpg", b"GET", b"1.1", b"h", []), 4)
        part = (0, request(b"/c/a.jpg", b"GET", b"1.1", b"h", [b"Range: bytes=0-3"]), 3)
        chosen = [
            (0, request(b"/v/a.jpg", b"GET", b"1.1", b"h", [b"Accept: image/" + kind]), 3)
            for kind in (b"webp", b"avif")
        ]
        happening: list[Any] = [("harm", kind, n) for kind in MISCHIEF for n in (0, 1, 2)]
        happening += [("purge", "key", "/c/a.jpg", soft) for soft in (False, True)]
        happening += [("purge", "prefix", "/", soft) for soft in (False, True)]
        happening += [("purge", "source", "a.jpg", soft) for soft in (False, True)]
        happening += [("change", "a.jpg"), 11.0, 29.5, 31.0, -100.0]
        for event in happening:
            again = [one, part, *reversed(chosen)]
            self.play(http, "$uri", [], [one, part, *chosen, event, *again])
            # The same for what is on record, because another was learnt from.
            other = (0, request(b"/c/ab.jpg", b"GET", b"1.1", b"h", []), 2)
            self.play(http, "$uri", [], [other, one, event, one, other, one], 0)

    def test_version_is_part_of_the_meaning(self) -> None:
        """As for files: what keeps an HTTP/1.1 connection closes an HTTP/1.0 one."""
        new = request(b"/q?w=1", b"GET", b"1.1", b"h", [])
        self.play([], "$uri", [], [(0, new, 3), (0, new.replace(b"1.1", b"1.0"), 1)])

    def served(
        self, http: list[str], first: list[bytes], then: list[bytes], key: str = "$uri$arg_w"
    ) -> list[bool]:
        """Whether each of ``then`` is answered by what was learnt from ``first``."""
        base = Path(tempfile.mkdtemp(prefix="hits-"))
        self.addCleanup(shutil.rmtree, base, ignore_errors=True)
        world = World(base)
        self.patch(FastCGIPass, "__call__", lambda _, asked: world.answer(asked))
        for name in ORIGINALS:
            world.change(name)
        memory = Plans()
        server = Cached(
            base, configuration(base, base, http, key, []), lambda: time.time() + 100.0, memory
        )
        self.addCleanup(server.close)
        self.addCleanup(server.zone.stop)
        for data in (*then, *first):
            server.send(0, data)  # fills
        memory.forget()
        for data in first:
            server.send(0, data)  # makes known what its block means
            server.send(0, data)
        return [memory.find(data, data.index(b"\r\n"), time.time() + 100.0) is not None
                for data in then]  # fmt: skip

    def test_hits_are_remembered(self) -> None:
        """The tests above would prove nothing if nothing were."""
        http = ["fastcgi_cache_follow_source ROOT;", "add_header X-Cache $upstream_cache_status;"]
        get, end = b"GET /c/", b" HTTP/1.1\r\nHost: h\r\n\r\n"
        whole = [get + name + end for name in (b"a.jpg", b"ab.jpg?w=1", b"next")]
        special = [
            request(b"/c/a.jpg", b"GET", b"1.1", b"h", [field])
            for field in (b"Range: bytes=0-3", b"If-None-Match: *")
        ]
        chosen = request(b"/v/a.jpg", b"GET", b"1.1", b"h", [b"Accept: image/webp"])
        head = request(b"/c/a.jpg", b"HEAD", b"1.1", b"h", [])
        asked = [*whole, *special, chosen, head]
        self.assertEqual(self.served(http, asked, asked), [True] * 7)

    def test_the_request_id_is_a_new_one_each_time(self) -> None:
        """In the answer and in the log, whatever else of the hit is remembered."""
        base = Path(tempfile.mkdtemp(prefix="hits-"))
        self.addCleanup(shutil.rmtree, base, ignore_errors=True)
        world, memory = World(base), Plans()
        self.patch(FastCGIPass, "__call__", lambda _, asked: world.answer(asked))
        log = "log_format ids '$request_id $sent_http_x_name'; log_format id '$request_id';"
        access = "access_log PREFIX/logs/a.log ids; access_log PREFIX/logs/b.log id;"
        http = [log, access, "add_header X-Name $request_id;"]
        server = Cached(
            base, configuration(base, base, http, "$uri", []), lambda: time.time() + 100.0, memory
        )
        self.addCleanup(server.close)
        self.addCleanup(server.zone.stop)
        asked = [
            request(b"/c/a.jpg", b"GET", b"1.1", b"h", []),
            request(b"/c/ab.jpg", b"GET", b"1.1", b"h", []),
            request(b"/c/a.jpg", b"GET", b"1.1", b"h", [b"If-None-Match: *"]),
        ]
        told = []
        for data in asked * 5:
            head = server.send(0, data).decode()
            told.append(head.split("X-Name: ")[1].split("\r\n")[0])
        self.assertEqual(len(set(told)), 15)
        self.assertNotIn("\x01", "".join(told))
        found = [memory.find(data, data.index(b"\r\n"), time.time() + 100.0) for data in asked]
        self.assertNotIn(None, found)
        one, other = server.log()
        self.assertEqual(one.split()[:2], ["a.log" + told[0], told[0]])
        self.assertEqual(one.split()[2:], [name for name in told[1:] for _ in range(2)])
        self.assertEqual(other.removeprefix("b.log").split(), told)

    def test_a_second_variant_is_remembered(self) -> None:
        asked = [
            request(b"/v/a.jpg", b"GET", b"1.1", b"h", [b"Accept: image/" + kind])
            for kind in (b"webp", b"avif")
        ]
        self.assertEqual(self.served([], asked, asked), [True, True])

    def test_neighbours_are_answered_at_first_sight(self) -> None:
        first = [request(t, b"GET", b"1.1", b"h", []) for t in (b"/c/a.jpg", b"/q?w=1", b"/c/n")]
        then = {
            b"/c/ab.jpg": True, b"/q?w=2": True, b"/q?src=/a.jpg&w=3": True, b"/c/next": True,
            b"/c/a.css": False, b"/v/a.jpg": False, b"/c/long.jpg": False,
            b"/c/limited.jpg": False, b"/q?w=4": True,
        }  # fmt: skip
        asked = [request(target, b"GET", b"1.1", b"h", []) for target in then]
        self.assertEqual(self.served([], first, asked), [*then.values()])

    def test_what_is_on_record_is_not_read_again(self) -> None:
        """But for its body; and not more than so many."""
        self.patch(plans, "MAX_BODIES", 0)
        taken: list[bytes] = []
        take = Shelf.take

        def counted(shelf: Shelf, asked: Request, now: float) -> Any:
            taken.append(asked.head.target)
            return take(shelf, asked, now)

        self.patch(Shelf, "take", counted)
        asked = [request(b"/c/%b.jpg" % name, b"GET", b"1.1", b"h", []) for name in (b"x", b"y")]
        learnt = request(b"/c/a.jpg", b"GET", b"1.1", b"h", [])
        self.served([], [learnt], [*asked, *asked, *asked], "$uri")
        filling = [b"/c/y.jpg", b"/c/a.jpg"]
        self.assertEqual(taken, [*filling, b"/c/x.jpg", b"/c/y.jpg"])
        taken.clear()
        self.patch(plans, "MAX_RECORDS", 1)
        self.assertEqual(self.served([], [learnt], [*asked, *asked], "$uri"), [True] * 4)
        self.assertEqual(taken, [*filling, *[b"/c/x.jpg", b"/c/y.jpg"] * 2])

    def test_what_depends_on_more_is_not_remembered(self) -> None:
        asked = [request(b"/c/a.jpg", b"GET", b"1.1", b"h", [])]
        for http, key in (
            ([], "$remote_addr$uri"), (["fastcgi_cache_bypass $connection_requests;"], "$uri"),
            (["add_header X-Time $msec;"], "$uri"),
            (["add_header X-Name $request_id; request_id_from X-Request-ID;"], "$uri"),
        ):  # fmt: skip
            self.assertEqual(self.served(http, asked, asked, key), [False], (http, key))
