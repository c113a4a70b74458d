"""The group and its HTTP connections over real sockets, against scripted servers."""

from __future__ import annotations

import shutil
import tempfile
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, gatherResults, inlineCallbacks
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from imagefarm.config.variables import Template
from imagefarm.http.binding import Binding, parse_local
from imagefarm.http.headers import Headers
from imagefarm.http.message import BodyStream, Request
from imagefarm.http.spool import SpooledBody
from imagefarm.http.upstream import ExchangeRules, Fault, Outgoing, Timeouts, UpstreamError
from imagefarm.proxy.connection import HttpConnector
from imagefarm.proxy.group import Group
from imagefarm.proxy.groups import Groups
from imagefarm.proxy.handler import ProxyPass
from imagefarm.proxy.peer import Address, Peer
from imagefarm.proxy.peers import Peers
from imagefarm.proxy.policies import RoundRobin
from imagefarm.proxy.pool import KeepaliveSettings
from imagefarm.proxy.settings import ProxySettings

from .support import (
    ScriptedPeer,
    Server,
    Sink,
    Source,
    load_location,
    make_request,
    read,
    server_certificate,
    unused_port,
)

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def answer(data: bytes, then: str = "") -> Any:
    def script(peer: ScriptedPeer, head: bytes) -> None:
        peer.reply(data)
        if then:
            getattr(peer.transport, then)()

    return script


def hang(peer: ScriptedPeer, head: bytes) -> None:
    """Answers nothing."""


class LoopbackTestCase(TestCase):
    timeout = 10

    def setUp(self) -> None:
        self.servers: list[Server] = []
        self.directories: list[str] = []
        self.groups: list[Group | Groups] = []

    @inlineCallbacks
    def tearDown(self) -> Any:
        for group in self.groups:
            group.stop()
        for server in self.servers:
            yield server.close()
            for connection in server.connections[:]:
                connection.transport.loseConnection()
            yield server.drained()
        for directory in self.directories:
            shutil.rmtree(directory)
        yield deferLater(reactor, 0)

    def serve(self, script: Any, **options: Any) -> Server:
        server = Server(script, **options)
        self.servers.append(server)
        return server


class GroupTests(LoopbackTestCase):
    """Groups and HTTP connections."""

    def group(self, *ports: int, keepalive: int = 8, **parameters: Any) -> Group:
        peers = Peers(Peer(Address("127.0.0.1", port), **parameters) for port in ports)
        group = Group(
            reactor, b"backend", peers, RoundRobin(), KeepaliveSettings(connections=keepalive)
        )
        self.groups.append(group)
        return group

    def exchange(
        self,
        group: Group,
        request: Request | None = None,
        body: BodyStream | None = None,
        read_timeout: float = 5.0,
        next_upstream: frozenset[str] = frozenset({"error", "timeout"}),
    ) -> Deferred[Any]:
        request = request if request is not None else make_request()
        rules = ExchangeRules(
            HttpConnector(reactor),
            timeouts=Timeouts(connect=2.0, send=2.0, read=read_timeout),
            next_upstream=next_upstream,
        )
        outgoing = Outgoing(
            request.head.method, request.head.target, Headers([(b"Host", b"h")]), body=body
        )
        return group.exchange(request, outgoing, rules)

    @inlineCallbacks
    def fault(self, script: Any, **options: Any) -> Any:
        group = self.group(self.serve(script).port)
        error = yield self.assertFailure(self.exchange(group, **options), UpstreamError)
        return error.fault

    @inlineCallbacks
    def test_small_answer_and_reuse(self) -> Any:
        server = self.serve(answer(OK))
        group = self.group(server.port)
        for _ in range(3):
            response = yield self.exchange(group)
            self.assertEqual((response.status, response.body), (200, b"ok"))
        self.assertEqual(server.accepted, 1)
        self.assertEqual(server.requests[0], b"GET / HTTP/1.1\r\nHost: h")
        self.assertEqual(repr(group), "<Group backend links=1 idle=1>")

    @inlineCallbacks
    def test_dead_peer_is_invisible(self) -> Any:
        server = self.serve(answer(OK))
        dead = unused_port()
        group = self.group(dead, server.port)
        request = make_request()
        response = yield self.exchange(group, request)
        self.assertEqual(response.status, 200)
        tries = [(attempt.address, attempt.status) for attempt in request.outcome.attempts]
        self.assertEqual(
            tries, [(b"127.0.0.1:%d" % dead, 502), (b"127.0.0.1:%d" % server.port, 200)]
        )
        responses = yield gatherResults([self.exchange(group) for _ in range(20)])
        self.assertEqual({response.status for response in responses}, {200})

    @inlineCallbacks
    def test_garbage(self) -> Any:
        for junk in (b"SSH-2.0-x\r\n", b"HTTP/1.1 200 OK\r\nA B\r\n\r\n", b"\0" * 9000):
            fault = yield self.fault(answer(junk))
            self.assertIs(fault, Fault.INVALID_HEADER)

    @inlineCallbacks
    def test_closed_or_reset_before_the_head_is_whole(self) -> Any:
        for how in ("loseConnection", "abortConnection"):
            fault = yield self.fault(answer(b"HTTP/1.1 200 OK\r\n", how))
            self.assertIs(fault, Fault.CLOSED)

    @inlineCallbacks
    def test_silence_is_a_timeout(self) -> Any:
        fault = yield self.fault(hang, read_timeout=0.05)
        self.assertIs(fault, Fault.TIMEOUT)

    @inlineCallbacks
    def test_a_local_address_that_cannot_be_had(self) -> Any:
        """It is not the peer that has failed."""
        group = self.group(self.serve(answer(OK)).port)
        text = "198.51.100.1"
        bind = Binding(Template(text, (text.encode(),), text.encode()), False, parse_local(text))
        rules = ExchangeRules(HttpConnector(reactor), bind=bind)
        exchange = group.exchange(make_request(), Outgoing(b"GET", b"/"), rules)
        error = yield self.assertFailure(exchange, UpstreamError)
        self.assertIs(error.fault, Fault.LOCAL)
        self.assertEqual(next(iter(group.peers)).counters.fails, 0)

    @inlineCallbacks
    def test_truncated_body_fails_the_sink(self) -> Any:
        head = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"
        group = self.group(self.serve(answer(head, "loseConnection")).port)
        response = yield self.exchange(group)
        sink: Sink = yield read(response)
        self.assertEqual(sink.received, b"abc")
        self.assertIsInstance(sink.error, UpstreamError)

    @inlineCallbacks
    def test_large_body_streams(self) -> Any:
        body = b"x" * 3_000_000
        head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body)
        server = self.serve(answer(head + body))
        group = self.group(server.port)
        request = make_request()
        response = yield self.exchange(group, request)
        self.assertEqual(response.body.length, len(body))
        yield deferLater(reactor, 0.05)
        sink: Sink = yield read(response)
        self.assertEqual(len(sink.received), len(body))
        self.assertGreater(request.outcome.attempts[0].response_time, 0.04)
        response = yield self.exchange(group)
        yield read(response)
        self.assertEqual(server.accepted, 1)

    @inlineCallbacks
    def test_upload_streams(self) -> Any:
        chunks = [b"u" * 50_000 for _ in range(40)]
        got = []

        def script(peer: ScriptedPeer, head: bytes) -> None:
            got.append(head)

            def more(data: bytes) -> None:
                got.append(data)
                if sum(map(len, got[1:])) == 2_000_000:
                    peer.reply(OK)

            initial, peer.buffer = peer.buffer, b""
            peer.dataReceived = more  # type: ignore[method-assign]
            if initial:
                more(initial)

        group = self.group(self.serve(script).port)
        response = yield self.exchange(group, make_request(b"PUT"), Source(chunks))
        self.assertEqual(response.body, b"ok")
        self.assertIn(b"Content-Length: 2000000", got[0])
        self.assertEqual(b"".join(got[1:]), b"u" * 2_000_000)

    @inlineCallbacks
    def test_stale_connection_is_replaced_unnoticed(self) -> Any:
        def script(peer: ScriptedPeer, head: bytes) -> None:
            if len(server.requests) == 2:
                peer.transport.loseConnection()  # as if keep-alive had run out
            else:
                peer.reply(OK)

        server = self.serve(script)
        group = self.group(server.port)
        yield self.exchange(group)
        request = make_request()
        response = yield self.exchange(group, request)
        self.assertEqual(response.status, 200)
        self.assertEqual((len(server.requests), server.accepted), (3, 2))
        self.assertEqual(len(request.outcome.attempts), 1)
        self.assertEqual(group.peers.primary[0].fails, 0)

    @inlineCallbacks
    def test_post_is_not_repeated(self) -> Any:
        first = self.serve(answer(b"", "loseConnection"))
        second = self.serve(answer(OK))
        group = self.group(first.port, second.port)
        body = Source([b"data"])
        failing = self.exchange(group, make_request(b"POST"), body)
        yield self.assertFailure(failing, UpstreamError)
        self.assertEqual(second.requests, [])

    @inlineCallbacks
    def test_put_is_repeated_with_its_body(self) -> Any:
        first = self.serve(answer(b"", "loseConnection"))
        second = self.serve(answer(OK))
        group = self.group(first.port, second.port)
        body = SpooledBody(b"data")
        response = yield self.exchange(group, make_request(b"PUT"), body)
        self.assertEqual(response.status, 200)
        self.assertIn(b"Content-Length: 4", second.requests[0])
        self.assertEqual(second.connections[0].buffer, b"data")

    @inlineCallbacks
    def test_what_streams_is_not_repeated(self) -> Any:
        first = self.serve(answer(b"", "loseConnection"))
        second = self.serve(answer(OK))
        group = self.group(first.port, second.port)
        failing = self.exchange(group, make_request(b"PUT"), Source([b"data"]))
        yield self.assertFailure(failing, UpstreamError)
        self.assertEqual(second.requests, [])

    @inlineCallbacks
    def test_status_goes_to_the_next_peer(self) -> Any:
        first = self.serve(answer(b"HTTP/1.1 500 X\r\nContent-Length: 3\r\n\r\nbad"))
        second = self.serve(answer(OK))
        group = self.group(first.port, second.port)
        request = make_request()
        response = yield self.exchange(group, request, next_upstream=frozenset({"http_500"}))
        self.assertEqual(response.status, 200)
        self.assertEqual([a.status for a in request.outcome.attempts], [500, 200])

    @inlineCallbacks
    def test_bytes_after_the_response_end_the_connection(self) -> Any:
        server = self.serve(answer(OK + b"HTTP/1.1 200 OK\r\n"))
        group = self.group(server.port)
        response = yield self.exchange(group)
        self.assertEqual(response.body, b"ok")
        yield self.exchange(group)
        self.assertEqual(server.accepted, 2)

    @inlineCallbacks
    def test_client_that_leaves_cancels(self) -> Any:
        server = self.serve(hang)
        group = self.group(server.port)
        request = make_request()
        answering = self.exchange(group, request)
        while not server.requests:
            yield deferLater(reactor, 0.01)
        for gone in request.on_gone:
            gone()
        yield self.assertFailure(answering, CancelledError)
        yield server.drained()
        self.assertEqual(group.peers.primary[0].conns, 0)

    @inlineCallbacks
    def test_reader_that_leaves_cancels(self) -> Any:
        server = self.serve(answer(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"))
        group = self.group(server.port)
        response = yield self.exchange(group)
        response.body.cancel()
        yield server.drained()
        yield deferLater(reactor, 0.01)
        self.assertEqual(group.peers.primary[0].conns, 0)


class ProxyingTestCase(LoopbackTestCase):
    def proxy(self, inside: str, http: str = "") -> ProxyPass:
        scope = load_location("/", inside, http)
        settings = ProxySettings.from_scope(scope)
        assert settings is not None
        outer = scope.parent and scope.parent.parent
        assert outer is not None
        groups = Groups.from_scope(outer, reactor)
        self.groups.append(groups)
        return ProxyPass(settings, groups)


class ProxyPassTests(ProxyingTestCase):
    """The handler, the group and the connection together."""

    @inlineCallbacks
    def test_two_peers_one_dead_under_load(self) -> Any:
        server = self.serve(answer(b"HTTP/1.1 200 OK\r\nServer: s\r\n" + OK[17:]))
        handler = self.proxy(
            "proxy_pass http://u;",
            f"upstream u {{ server 127.0.0.1:{unused_port()}; server 127.0.0.1:{server.port}; }}",
        )
        for _ in range(10):
            responses = yield gatherResults([handler(make_request()) for _ in range(5)])
            self.assertEqual([response.status for response in responses], [200] * 5)
            self.assertNotIn(b"server", responses[0].headers)
        self.assertLessEqual(server.accepted, 6)

    @inlineCallbacks
    def test_both_dead_then_back(self) -> Any:
        port = unused_port()
        handler = self.proxy(f"proxy_pass http://127.0.0.1:{port};")
        response = yield handler(make_request())
        self.assertEqual(response.status, 502)
        server = self.serve(answer(OK), port=port)
        response = yield handler(make_request())
        self.assertEqual((response.status, response.body), (200, b"ok"))
        self.assertEqual(server.requests, [b"GET / HTTP/1.1\r\nHost: 127.0.0.1:%d" % port])

    @inlineCallbacks
    def test_slow_peer_is_504(self) -> Any:
        port = self.serve(hang).port
        handler = self.proxy(f"proxy_pass http://127.0.0.1:{port}; proxy_read_timeout 50ms;")
        response = yield handler(make_request())
        self.assertEqual(response.status, 504)

    @inlineCallbacks
    def test_https(self) -> Any:
        server = self.serve(answer(OK), tls=server_certificate())
        handler = self.proxy(
            "proxy_pass https://u;", f"upstream u {{ server 127.0.0.1:{server.port}; }}"
        )
        for _ in range(2):
            response = yield handler(make_request())
            self.assertEqual((response.status, response.body), (200, b"ok"))
        self.assertEqual(server.accepted, 1)

    @inlineCallbacks
    def test_https_to_a_peer_that_speaks_plain_http(self) -> Any:
        server = self.serve(answer(OK))
        handler = self.proxy(f"proxy_pass https://127.0.0.1:{server.port};")
        server.script = hang
        for connection in server.connections:
            connection.transport.loseConnection()
        answering = handler(make_request())
        while not server.connections:
            yield deferLater(reactor, 0.01)
        server.connections[0].transport.write(b"HTTP/1.1 400 No\r\n\r\n")
        response = yield answering
        self.assertEqual(response.status, 502)

    @inlineCallbacks
    def test_unix_socket(self) -> Any:
        directory = tempfile.mkdtemp()  # trial's own names are too long for a socket
        self.directories.append(directory)
        path = f"{directory}/s"
        server = self.serve(answer(OK), path=path)
        handler = self.proxy(f"proxy_pass http://unix:{path}:/base;")
        response = yield handler(make_request(target=b"/x"))
        self.assertEqual(response.body, b"ok")
        self.assertTrue(server.requests[0].startswith(b"GET /basex HTTP/1.1\r\nHost: localhost"))

    @inlineCallbacks
    def test_socket_keepalive(self) -> Any:
        server = self.serve(answer(OK))
        http = f"upstream u {{ server 127.0.0.1:{server.port}; keepalive 2; }}"
        for flag in ("on", "off"):
            handler = self.proxy(f"proxy_pass http://u; proxy_socket_keepalive {flag};", http)
            yield handler(make_request())
            group: Any = handler._group
            (link,) = group._links.values()
            self.assertEqual(bool(link.connection.transport.getTcpKeepAlive()), flag == "on")
