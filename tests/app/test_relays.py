"""A relay never does anything that the ordinary path would not have done (`http.relays`).

Random requests, answers of upstreams, breaks and pauses: two masters, one that remembers how
requests are passed on and one that does not, send the same bytes to clients and to upstreams, log
the same lines and count the same.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from attrs import evolve
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.app.configuration import Options, read
from imagefarm.app.web import WebWork
from imagefarm.http.plans import Plans
from imagefarm.http.relays import MAX_PIECES
from imagefarm.process.directives import MainSettings
from tests.http.fakes import ClientTransport
from tests.support.errorlines import ErrorLines

HTTP: Final = (
    "access_log PREFIX/logs/a.log upstreams;", "access_log PREFIX/logs/b.log facts;",
    "gzip on; gzip_vary on; gzip_min_length 10; gzip_types image/x;", "expires 10s;",
    "add_header X-A b always;",
    "keepalive_requests 3;", "error_page 404 502 /e;", "add_header X-H $host;", "charset utf-8;",
    "expires modified +1h;", "server_tokens off;", "keepalive_timeout 5 5;",
)  # fmt: skip
PROXY: Final = (
    "proxy_set_header Host $host;", "proxy_set_header X-Real-IP $remote_addr;",
    "proxy_set_header X-Port $remote_port;", "proxy_set_header X-Uri $request_uri;",
    "proxy_hide_header ETag;", "proxy_hide_header Last-Modified;", "proxy_pass_header Date;",
    "proxy_intercept_errors on;", "proxy_next_upstream off;",
    "proxy_next_upstream error http_404 non_idempotent;", "proxy_read_timeout 7s;",
    "proxy_set_header X-F $proxy_add_x_forwarded_for;", "proxy_http_version 1.0;",
    "proxy_ignore_headers Expires;", "proxy_pass_request_headers off;", "proxy_buffering off;",
    "proxy_ignore_client_abort on;", "proxy_bind 127.0.0.9;",
    "proxy_bind 127.0.0.$connection_requests;",
)  # fmt: skip
LOCATIONS: Final = (
    "location = /d.jpg { return 204; }", "location /sub/ { proxy_pass http://b; }",
    "location ~ ^/b { deny all; }", "location ~ .*\\.(gif|png)$ { return 203; }",
    "location ~ .*\\.(jpg|x)$ { proxy_pass http://b; expires 3s; }",
    "location ^~ /sub/b { proxy_pass http://g/other/; }",
)  # fmt: skip
TARGETS: Final = (
    b"/a.jpg", b"/b.jpg", b"/c.jpg", b"/d.jpg", b"/sub/a.jpg", b"/sub/b.jpg", b"/a.x", b"/b.gif",
    b"/a.jpg?x=1", b"/%61.jpg", b"/none",
)  # fmt: skip
FIELDS: Final = (
    b"Connection: close", b"Range: bytes=0-2", b"If-None-Match: \"t\"", b"Cookie: a=b",
    b"Accept-Encoding: gzip", b"X-Forwarded-For: 1.2.3.4", b"TE: trailers",
)  # fmt: skip


def answer(status: bytes, body: bytes, *fields: bytes, length: bool = True) -> bytes:
    lines = [b"HTTP/1.1 " + status, b"Server: up", b"Date: Sun, 06 Nov 1994 08:49:37 GMT", *fields]
    if length:
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


JPEG: Final = b"Content-Type: image/jpeg"
MODIFIED: Final = b"Last-Modified: Sat, 05 Nov 1994 08:49:37 GMT"
EXPIRES: Final = b"Expires: Mon, 07 Nov 1994 08:49:37 GMT"
ANSWERS: Final = (
    answer(b"200 OK", b"picture one", JPEG, MODIFIED, b'ETag: "t"'),
    answer(b"200 OK", b"the second picture", JPEG, MODIFIED.replace(b"05", b"04"), b'ETag: "u"'),
    answer(b"200 OK", b"one more", JPEG, b'ETag: W/"t"', EXPIRES),
    answer(b"200 OK", b"", JPEG, MODIFIED, b'ETag: "empty"'),
    answer(b"200 OK", b"plain " * 9, b"Content-Type: image/x", b'ETag: "x"'),
    answer(b"200 OK", b"short", b"Content-Type: image/x", b'ETag: "x"'),
    answer(b"200 OK", b"mine", JPEG, b"Set-Cookie: a=b", b'ETag: "t"'),
    answer(b"200 OK", b"bye", JPEG, MODIFIED, b'ETag: "t"', b"Connection: close"),
    answer(b"200 OK", b"z" * 70000, JPEG, MODIFIED, b'ETag: "t"'),
    answer(b"404 Not Found", b"nothing", JPEG), answer(b"500 Oh", b"broken", JPEG),
    answer(b"200 OK", b"twice", JPEG, b"Content-Length: 4"),
    answer(b"200 OK", b"tab", JPEG, b'ETag: "\x01"'), answer(b"200 OK", b"t", JPEG, b"ETag: \ta"),
    answer(b"200 OK", b"3\r\nabc\r\n0\r\n\r\n", b"Transfer-Encoding: chunked", length=False),
    answer(b"200 OK", b"until the end", JPEG, length=False), b"garbage\r\n\r\n",
    answer(b"200 OK", b"too much", JPEG, MODIFIED, b'ETag: "t"') + b"more",
    answer(b"304 Not Modified", b"", b'ETag: "t"', length=False),
    b"HTTP/1.1 100 Continue\r\n\r\n" + answer(b"200 OK", b"late", JPEG, MODIFIED),
    answer(b"200 OK", b"elsewhere", JPEG, b"X-Accel-Redirect: /none"),
)  # fmt: skip
USUAL: Final = ANSWERS[:4]
#: Not among them: where they are relayed the client gets nothing of what breaks off.
SHORT: Final = answer(b"200 OK", b"too short", JPEG, MODIFIED, b'ETag: "t"')[:-1]
LONG: Final = answer(b"200 OK", b"x" * 3000, JPEG, MODIFIED, b'ETag: "t"')
BYE: Final = answer(b"200 OK", b"bye", JPEG, MODIFIED, b"Connection: close")


class NoPlans(Plans):
    """Remembers nothing."""

    def find(self, data: bytes, end: int, now: float) -> None:
        return None

    def relay(self, data: bytes, end: int) -> None:
        return None


class Upstream(ClientTransport):
    """A connection to a peer; ``asked`` is what has not been answered."""

    def __init__(self, address: tuple[str, int], bind: tuple[str, int] | None) -> None:
        super().__init__()
        self.peer = address
        self.bind = bind
        self.gone = False

    def setTcpNoDelay(self, on: bool) -> None:
        """Nothing."""


class World(Clock):
    """A reactor whose peers answer when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.upstreams: list[Upstream] = []

    def connectTCP(
        self, host: str, port: int, factory: Any, timeout: float, bind: Any = None
    ) -> Any:
        transport = Upstream((host, port), bind)
        self.upstreams.append(transport)
        transport.protocol = factory.buildProtocol(None)
        transport.protocol.makeConnection(transport)
        return self

    def disconnect(self) -> None:
        """Nothing is under way."""


class Master:
    """A tree without a network."""

    def __init__(self, prefix: Path, text: str, now: float, plans: Plans) -> None:
        (prefix / "logs").mkdir(parents=True, exist_ok=True)
        self.prefix = prefix
        (prefix / "master.conf").write_text(text.replace("PREFIX", str(prefix)))
        self.world = World()
        clock = lambda: now + self.world.seconds()  # noqa: E731
        loaded = read(Options("master", str(prefix / "master.conf"), str(prefix)), clock=clock)
        log = ErrorLines()
        self.errors, self.names = log.lines, log.names
        self.work = WebWork(
            self.world, loaded, MainSettings(), str(prefix),
            lambda settings, note: log, clock,
        )  # fmt: skip
        self.factory = self.work.doors[0].factory
        self.factory.plans = plans
        self.clients: dict[int, Any] = {}

    def play(self, event: tuple[Any, ...], late: float = 0.02) -> list[Any]:
        """What the outside sees of an event: bytes to clients and to upstreams.

        ``late`` seconds pass, so that what is held back for a moment comes out, too.
        """
        kind, *rest = event
        getattr(self, kind)(*rest)
        self.world.advance(late)
        seen: list[Any] = []
        for number, (connection, transport) in list(self.clients.items()):
            seen.append((number, transport.value(), transport.disconnecting, transport.aborted))
            transport.clear()
            if transport.disconnecting or transport.aborted:
                connection.connectionLost(Failure(ConnectionDone()))
                del self.clients[number]
        for place, upstream in enumerate(self.world.upstreams):
            if not upstream.gone:
                closed = upstream.disconnecting, upstream.aborted
                seen.append((place, upstream.bind, upstream.value(), closed))
                if upstream.disconnecting or upstream.aborted:
                    self._close(upstream, clean=True)
        return seen

    def ask(self, number: int, data: bytes) -> None:
        if number not in self.clients:
            transport = ClientTransport()
            connection = self.factory.buildProtocol(transport.getPeer())
            assert connection is not None
            connection.makeConnection(transport)
            self.clients[number] = connection, transport
        self.clients[number][0].dataReceived(data)

    def _asked(self) -> Upstream | None:
        return next((u for u in self.world.upstreams if not u.gone and u.value()), None)

    def answer(self, data: bytes, cuts: list[int]) -> None:
        upstream = self._asked()
        if upstream is None:
            return
        upstream.clear()
        pieces = [0, *sorted(cut % len(data) for cut in cuts), len(data)]
        for start, end in pairwise(pieces):
            if start < end and not upstream.disconnecting and not upstream.aborted:
                upstream.protocol.dataReceived(data[start:end])

    def hang_up(self, clean: bool) -> None:
        upstream = self._asked() or next((u for u in self.world.upstreams if not u.gone), None)
        if upstream is not None:
            self._close(upstream, clean=clean)

    def _close(self, upstream: Upstream, *, clean: bool) -> None:
        upstream.gone = True
        upstream.protocol.connectionLost(Failure(ConnectionDone() if clean else ConnectionLost()))

    def leave(self, number: int) -> None:
        if number in self.clients:
            connection, _ = self.clients.pop(number)
            connection.connectionLost(Failure(ConnectionDone()))

    def wait(self, seconds: float) -> None:
        self.world.advance(seconds)

    def counts(self) -> list[str]:
        groups = self.work.groups
        # The head of an answer whose body is late is seen a little later; an answer is over with
        # its last byte, where the ordinary path counts to the end of a connection that closes.
        return [
            f"{peer!r} {evolve(peer.counters, header_time=0.0, response_time=0.0)!r}"
            for name in ("g", "b")
            for peer in groups.find(name, 80).peers
        ]

    def log(self) -> list[str]:
        self.work.logs.flush()
        paths = sorted((self.prefix / "logs").iterdir())
        return [path.name + path.read_text("latin-1") for path in paths]

    def close(self) -> None:
        for number in tuple(self.clients):
            self.leave(number)
        self.work.stop()


def configuration(http: list[str], proxy: list[str], locations: list[str]) -> str:
    def once(lines: list[str]) -> str:
        found = {line.split()[0] + line.split()[1] * ("_set_" in line): line for line in lines}
        return "\n".join(found.values())

    places = {line.split("{")[0]: line for line in locations}
    return (
        "http { default_type image/jpeg;\n"
        'log_format upstreams "$remote_addr $request $status $upstream_addr $upstream_status '
        "$upstream_response_time $upstream_bytes_received $upstream_http_etag $sent_http_expires "
        '$request_time $connection_requests $upstream_bytes_sent $upstream_response_length";\n'
        'log_format facts "$remote_addr $request $uri $body_bytes_sent $bytes_sent '
        '$request_length $status";\n'
        + once(http)
        + "\nupstream g { server 127.0.0.1:1001; server 127.0.0.1:1002 weight=2; keepalive 2; }\n"
        "upstream b { least_conn; server 127.0.0.1:1003 max_fails=2; keepalive 1; }\n"
        "server { listen 8080; location /e { return 200 e; }\n"
        "location / { proxy_pass http://g; }\n"
        + once(proxy)
        + "\n"
        + "\n".join(places.values())
        + "}}"
    )


def request(target: bytes, version: bytes, fields: list[bytes], body: bool) -> bytes:
    method, length = (b"POST", [b"Content-Length: 2"]) if body else (b"GET", [])
    lines = [method + b" " + target + b" HTTP/" + version, b"Host: h", *fields, *length]
    return b"\r\n".join(lines) + b"\r\n\r\n" + b"hi" * body


requests = st.builds(
    request,
    st.sampled_from(TARGETS + TARGETS[:3] * 4),
    st.sampled_from((b"1.1",) * 9 + (b"1.0",)),
    st.lists(st.sampled_from(FIELDS), max_size=1) | st.just([]),
    st.integers(0, 19).map(lambda n: n == 0),
)
asks = st.tuples(st.just("ask"), st.integers(0, 2), requests)
answers = st.tuples(
    st.just("answer"),
    st.sampled_from(USUAL) | st.sampled_from(USUAL) | st.sampled_from(ANSWERS),
    st.lists(st.integers(0, 400), max_size=2) | st.just([]),
)
events = st.one_of(
    st.tuples(asks, answers), st.tuples(asks, answers), st.tuples(asks, asks, answers, answers),
    st.tuples(asks), st.tuples(answers),
    st.tuples(st.tuples(st.just("hang_up"), st.booleans())),
    st.tuples(asks, st.tuples(st.just("leave"), st.integers(0, 2))),
    st.tuples(st.tuples(st.just("wait"), st.sampled_from((0.2, 1.5, 8.0, 70.0)))),
)  # fmt: skip


#: So that both peers have a kept connection, and what is usual has been learnt.
LEARNING: Final = [
    (("ask", 0, request(b"/a.jpg", b"1.1", [], False)), ("answer", USUAL[0], []))
] * 4 + [(("ask", 0, request(b"/a.jpg", b"1.1", [], False)), ("answer", USUAL[2], []))]
ASK: Final = ("ask", 0, request(b"/a.jpg", b"1.1", [], False))
plain = st.builds(
    lambda number, target, fields: ("ask", number, request(target, b"1.1", fields, False)),
    st.sampled_from((0, 0, 0, 1)),
    st.sampled_from((b"/a.jpg", b"/b.jpg", b"/c.jpg", b"/d.jpg")),
    st.sampled_from(([], [], [], [], [b"Connection: close"])),
)
near = st.one_of(
    st.tuples(plain, answers), st.tuples(plain, answers),
    st.tuples(plain, plain, answers, answers),
    st.tuples(plain, st.just(("hang_up", True))), st.tuples(plain, st.just(("wait", 8.0))),
    st.tuples(plain, st.just(("leave", 0)), answers), events,
)  # fmt: skip


class RelaysTests(SynchronousTestCase):
    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(
        st.lists(st.sampled_from(HTTP), max_size=3, unique=True),
        st.lists(st.sampled_from(PROXY), max_size=2, unique=True),
        st.lists(st.sampled_from(LOCATIONS), max_size=2, unique=True),
        st.lists(events, min_size=4, max_size=16),
    )
    def test_the_same(
        self, http: list[str], proxy: list[str], locations: list[str], script: list[Any]
    ) -> None:
        base = Path(tempfile.mkdtemp(prefix="relays-"))
        self.addCleanup(shutil.rmtree, base, ignore_errors=True)
        text, now = configuration(http, proxy, locations), time.time()
        relaying, ordinary = (
            Master(base / name, text, now, plans)
            for name, plans in (("relaying", Plans()), ("ordinary", NoPlans()))
        )
        for event in (event for group in script for event in group):
            self.assertEqual(relaying.play(event), ordinary.play(event), event)
        self.assertEqual(relaying.counts(), ordinary.counts())
        relaying.close()
        ordinary.close()
        self.assertEqual(relaying.errors, ordinary.errors)
        self.assertEqual(relaying.log(), ordinary.log())

    @settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
    @given(
        st.lists(st.sampled_from(HTTP), max_size=1),
        st.lists(st.sampled_from(PROXY), max_size=1),
        st.lists(st.sampled_from(LOCATIONS), max_size=1),
        st.lists(near, min_size=6, max_size=16),
    )
    def test_what_was_learnt(
        self, http: list[str], proxy: list[str], locations: list[str], script: list[Any]
    ) -> None:
        """Requests like those that have been passed on before, and what may come between."""
        inner = RelaysTests.test_the_same.hypothesis.inner_test
        inner(self, http, proxy, locations, LEARNING + script)

    def scene(self, *proxy: str) -> Master:
        """A master whose first client asks on kept connections to both peers."""
        base = Path(tempfile.mkdtemp(prefix="relays-"))
        self.addCleanup(shutil.rmtree, base, ignore_errors=True)
        master = Master(base, configuration([], list(proxy), []), time.time(), Plans())
        self.addCleanup(master.close)
        for event in (event for group in LEARNING for event in group):
            master.play(event)
        return master

    def fails(self, master: Master) -> dict[str, int]:
        return {
            peer.name.decode(): peer.counters.fails
            for peer in master.work.groups.find("g", 80).peers
        }

    def test_an_answer_that_stops(self) -> None:
        """The client has got nothing of it, so another peer is asked; this one has failed."""
        for end in (("hang_up", True), ("hang_up", False)):
            master = self.scene()
            master.play(ASK)
            self.assertEqual(master.play(("answer", SHORT, []), 0.0)[0][1], b"")
            master.play(end)
            self.assertIsNotNone(master._asked())
            self.assertEqual(sum(self.fails(master).values()), 1, end)
            sent = master.play(("answer", USUAL[1], []))[0][1]
            self.assertTrue(sent.endswith(b"the second picture"), sent)

    def test_an_answer_in_crumbs(self) -> None:
        """The client gets it as it comes."""
        master = self.scene()
        master.play(ASK)
        upstream = master._asked()
        assert upstream is not None
        begun = LONG.index(b"xx")
        upstream.protocol.dataReceived(LONG[:begun])
        for at in range(begun, begun + MAX_PIECES):
            self.assertEqual(master.clients[0][1].value(), b"")
            upstream.protocol.dataReceived(LONG[at : at + 1])
        sent = master.clients[0][1].value()
        self.assertEqual(sent.partition(b"\r\n\r\n")[2], b"x" * MAX_PIECES)

    def test_gone_while_a_part_is_there(self) -> None:
        """The peer is not to blame, also where its answer is still read."""
        for proxy in ((), ("proxy_ignore_client_abort on;",)):
            master = self.scene(*proxy)
            master.play(ASK)
            upstream = master._asked()
            assert upstream is not None
            upstream.clear()
            upstream.protocol.dataReceived(SHORT)
            master.play(("leave", 0))
            if not upstream.gone:
                upstream.protocol.dataReceived(b"t")
            master.play(("wait", 70.0))
            self.assertEqual(sum(self.fails(master).values()), 0)

    def test_heads_that_are_not_taken(self) -> None:
        """The last answer of a connection; a length of another kind; a head that is too large."""
        twice = answer(b"200 OK", b"four", JPEG, MODIFIED, b"content-length: 4")
        wrong = answer(b"200 OK", b"fou", JPEG, MODIFIED, b"content-length: 4")
        large = answer(b"200 OK", b"x", JPEG, MODIFIED, b'ETag: "%b"' % (b"t" * 9000))
        master = self.scene()
        for last in (wrong, large):
            for reply in (twice, twice, last):
                master.play(ASK)
                seen = master.play(("answer", reply, []))[0][1]
                expected = b"HTTP/1.1 502" if reply is last else b"HTTP/1.1 200"
                self.assertEqual(seen[:12], expected)
            self.assertEqual(sum(self.fails(master).values()), 1 if last is wrong else 2)
            master.play(("wait", 20.0))
        master = self.scene()
        for _ in range(6):
            master.play(ASK)
            upstream = master._asked()
            master.play(("answer", BYE, []))
            assert upstream is not None
            self.assertTrue(upstream.gone)

    def test_relays_are_used(self) -> None:
        """The test above would prove nothing if nothing were relayed."""
        base = Path(tempfile.mkdtemp(prefix="relays-"))
        self.addCleanup(shutil.rmtree, base, ignore_errors=True)
        plans = Plans()
        master = Master(base, configuration([], [], []), time.time(), plans)
        self.addCleanup(master.close)
        get = request(b"/a.jpg", b"1.1", [], False)
        end = get.index(b"\r\n")
        for known in (False, True, True):
            self.assertEqual(plans.relay(get, end) is not None, known)
            master.play(("ask", 0, get))
            # The second finds the connection to the first peer, but it is the other's turn.
            master.play(("answer", USUAL[0], []))
        found = plans.relay(request(b"/other.jpg", b"1.1", [], False), end + 4)
        assert found is not None
        (present,) = found[1].presents.values()
        self.assertEqual(len(present.memory), 1)
