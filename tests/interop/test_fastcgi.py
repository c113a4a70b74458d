"""FastCGI with the real ones: nginx and cgi-fcgi before our responder, we before php-fpm."""

from __future__ import annotations

import getpass
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from imagefarm.config.variables import Template
from imagefarm.fastcgi.client import ConnectionFactory, FastCGIConnection
from imagefarm.fastcgi.directives import FastCGISettings, Param
from imagefarm.fastcgi.handler import FastCGIPass
from imagefarm.fastcgi.responder import ResponderFactory
from imagefarm.fastcgi.session import FastCGIRequest, ResponderLimits
from imagefarm.http.headers import Headers
from imagefarm.http.message import (
    BodyStream,
    Peer,
    Request,
    RequestHead,
    Response,
    body_length,
    discard,
)
from imagefarm.http.spool import SpooledBody
from imagefarm.http.upstream import Outgoing, Timeouts, UpstreamError
from imagefarm.proxy.groups import Groups
from tests.support import farmsite, rawhttp, tools
from tests.support.processes import free_ports
from tests.support.stages import StagedCase

LARGE = hashlib.sha256(b"x").digest() * 100_000


class Collected:
    """A `BodySink` with a Deferred of everything; ``delay`` makes it a slow one."""

    def __init__(self, body: BodyStream, delay: float = 0.0) -> None:
        self.body = body
        self.delay = delay
        self.chunks: list[bytes] = []
        self.done: Deferred[bytes] = Deferred()

    def data(self, chunk: bytes) -> None:
        self.chunks.append(chunk)
        if self.delay:
            self.body.pause()
            deferLater(reactor, self.delay, self.body.resume)

    def end(self) -> None:
        self.done.callback(b"".join(self.chunks))

    def fail(self, error: Exception) -> None:
        self.done.errback(error)


def read(response: Response, delay: float = 0.0) -> Deferred[bytes]:
    """The whole body."""
    body: Any = response.body
    if isinstance(body, bytes):
        whole: Deferred[bytes] = Deferred()
        whole.callback(body)
        return whole
    collected = Collected(body, delay)
    body.start(collected)
    return collected.done


class InteropCase(StagedCase, TestCase):
    def setUp(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="imagefarm-fastcgi-"))
        self.addCleanup(shutil.rmtree, self.directory)


class ResponderCase(InteropCase):
    """A responder that tells what it was asked."""

    limits = ResponderLimits(requests=4)

    def setUp(self) -> None:
        super().setUp()
        self.hanging: list[Deferred[Response]] = []
        self.factory = ResponderFactory(self.handle, reactor, self.limits)
        port = reactor.listenTCP(0, self.factory, interface="127.0.0.1")
        self.port = port.getHost().port
        self.addCleanup(self.factory.drain)
        self.addCleanup(port.stopListening)

    def handle(self, request: FastCGIRequest) -> Response | Deferred[Response]:
        path = request.params[b"SCRIPT_NAME"]
        if path == b"/large":
            return Response(200, body=LARGE)
        if path == b"/hang":
            self.hanging.append(Deferred())
            return self.hanging[-1]
        if path == b"/gone":
            return Response(404, body=b"nothing here")
        if path == b"/moved":
            return Response(301, Headers([(b"Location", b"http://elsewhere/")]))
        told = {
            "method": request.method.decode(),
            "stdin": len(request.stdin),
            "sum": hashlib.sha256(request.stdin).hexdigest(),
            "long": len(request.params.get(b"HTTP_X_LONG", b"")),
            "id": request.request_id,
        }
        fields = Headers([(b"Content-Type", b"application/json"), (b"X-Twice", b"1")])
        fields.add(b"X-Twice", b"2")
        return Response(200, fields, json.dumps(told).encode())


class NginxTests(ResponderCase):
    """nginx as the web server."""

    timeout = 60

    def setUp(self) -> None:
        program = tools.nginx()
        super().setUp()
        (self.http,) = free_ports(1)
        config = self.directory / "nginx.conf"
        temporary = "\n".join(
            f"{name}_temp_path {self.directory}/{name};"
            for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        config.write_text(
            f"""
            user {getpass.getuser()};
            error_log {self.directory}/error.log;
            pid {self.directory}/nginx.pid;
            events {{ }}
            http {{
                access_log off;
                client_max_body_size 8m;
                large_client_header_buffers 4 32k;
                {temporary}
                upstream app {{ server 127.0.0.1:{self.port}; keepalive 4; }}
                fastcgi_param SCRIPT_NAME $uri;
                fastcgi_param REQUEST_METHOD $request_method;
                server {{
                    listen 127.0.0.1:{self.http};
                    location / {{ fastcgi_pass app; fastcgi_keep_conn on; }}
                    location /single/ {{
                        rewrite ^/single(.*) $1 break;
                        fastcgi_pass 127.0.0.1:{self.port};
                    }}
                }}
            }}
            """
        )
        daemon = farmsite.nginx(program, self.directory, config, [self.http])
        self.addCleanup(daemon.stop)
        daemon.started()

    def ask(self, target: str, *fields: str, **more: Any) -> Deferred[rawhttp.Answer]:
        data = rawhttp.request(target, *fields, "Connection: close", **more)
        return deferToThread(rawhttp.exchange, self.http, data)

    @inlineCallbacks
    def test_requests(self) -> Any:
        for target in ("/x", "/single/x"):
            answer = yield self.ask(target, "X-Long: " + "y" * 20000)
            self.assertEqual(answer.status, 200)
            self.assertEqual(answer.header("x-twice"), "1, 2")
            self.assertEqual(answer.header("content-type"), "application/json")
            told = json.loads(answer.body)
            self.assertEqual((told["method"], told["long"], told["id"]), ("GET", 20000, 1))

    @inlineCallbacks
    def test_bodies_both_ways(self) -> Any:
        body = os.urandom(700_000)
        for _ in range(3):
            answer = yield self.ask("/x", method="POST", body=body)
            told = json.loads(answer.body)
            self.assertEqual(told["stdin"], len(body))
            self.assertEqual(told["sum"], hashlib.sha256(body).hexdigest())
        for target in ("/large", "/single/large"):
            answer = yield self.ask(target)
            self.assertEqual(answer.header("content-length"), str(len(LARGE)))
            self.assertTrue(answer.body == LARGE)

    @inlineCallbacks
    def test_a_body_that_is_too_large(self) -> Any:
        answer = yield self.ask("/x", method="POST", body=bytes((1 << 20) + 1))
        self.assertEqual(answer.status, 413)
        answer = yield self.ask("/x")
        self.assertEqual(answer.status, 200)

    @inlineCallbacks
    def test_statuses(self) -> Any:
        answer = yield self.ask("/gone")
        self.assertEqual((answer.status, answer.body), (404, b"nothing here"))
        answer = yield self.ask("/moved")
        self.assertEqual((answer.status, answer.header("location")), (301, "http://elsewhere/"))
        answer = yield self.ask("/large", method="HEAD")
        self.assertEqual(answer.header("content-length"), str(len(LARGE)))

    @inlineCallbacks
    def test_connections_are_kept(self) -> Any:
        for _ in range(5):
            yield self.ask("/x")
            self.assertEqual(len(self.factory.connections), 1)
        yield self.ask("/single/x")
        yield deferLater(reactor, 0.1, lambda: None)
        self.assertEqual(len(self.factory.connections), 1)

    @inlineCallbacks
    def test_overload_is_told_at_once(self) -> Any:
        waiting = [self.ask("/hang") for _ in range(4)]
        while len(self.hanging) < 4:
            yield deferLater(reactor, 0.01, lambda: None)
        answer = yield self.ask("/x")
        # nginx does not know FCGI_OVERLOADED; an answer without a head is a bad gateway.
        self.assertEqual(answer.status, 502)
        for pending in self.hanging:
            pending.callback(Response(200, body=b"late"))
        for wait in waiting:
            answer = yield wait
            self.assertEqual(answer.body, b"late")
        self.assertEqual(self.factory.active, 0)


class LibfcgiTests(ResponderCase):
    """cgi-fcgi of libfcgi as the web server."""

    timeout = 30

    def run_one(self, program: str, environment: dict[str, str], stdin: bytes) -> bytes:
        command = [program, "-bind", "-connect", f"127.0.0.1:{self.port}"]
        done = subprocess.run(
            command, input=stdin, env=environment, capture_output=True, timeout=20, check=True
        )
        return done.stdout

    @inlineCallbacks
    def test_a_request(self) -> Any:
        program = tools.tool("cgi-fcgi")
        environment = {
            "SCRIPT_NAME": "/x", "REQUEST_METHOD": "POST", "CONTENT_LENGTH": "100000",
        }  # fmt: skip
        body = b"z" * 100_000
        out = yield deferToThread(self.run_one, program, environment, body)
        head, _, told = out.partition(b"\r\n\r\n")
        self.assertIn(b"Status: 200 OK\r\n", head)
        self.assertEqual(json.loads(told)["sum"], hashlib.sha256(body).hexdigest())

    @inlineCallbacks
    def test_a_large_answer(self) -> Any:
        program = tools.tool("cgi-fcgi")
        environment = {"SCRIPT_NAME": "/large", "REQUEST_METHOD": "GET"}
        out = yield deferToThread(self.run_one, program, environment, b"")
        self.assertTrue(out.endswith(b"\r\n\r\n" + LARGE))


SCRIPTS = {
    "echo.php": """<?php
        header('X-Twice: 1'); header('X-Twice: 2', false);
        $body = file_get_contents('php://input');
        echo json_encode(['pid' => getmypid(), 'method' => $_SERVER['REQUEST_METHOD'],
            'length' => strlen($body), 'sum' => hash('sha256', $body),
            'twice' => $_SERVER['TWICE'] ?? null]);""",
    "large.php": "<?php for ($i = 0; $i < 100; $i++) echo str_repeat(chr(65 + $i % 26), 40000);",
    "missing.php": "<?php http_response_code(404); echo 'none';",
    "moved.php": "<?php header('Location: /there');",
    "lazy.php": "<?php echo getmypid();",
    "noise.php": "<?php error_log('careful now'); echo 'fine';",
    "length.php": "<?php header('Content-Length: 10'); echo 'short';",
    "die.php": "<?php header('Content-Length: 10'); echo 'x'; flush(); posix_kill(getmypid(), 9);",
    "slow.php": "<?php sleep(5);",
}


class PhpTests(InteropCase):
    """php-fpm as the application."""

    timeout = 60

    def setUp(self) -> None:
        program = tools.php_fpm()
        super().setUp()
        for name, text in SCRIPTS.items():
            (self.directory / name).write_text(text)
        (self.port,) = free_ports(1)
        daemon = farmsite.php_fpm(program, self.directory, self.port, children=2)
        self.addCleanup(daemon.stop)

    @inlineCallbacks
    def connect(self, *, keep: bool = True) -> Any:
        connection = ConnectionFactory(reactor, keep=keep)()
        closed: Deferred[None] = Deferred()
        connection.on_closed = lambda _: closed.callback(None)
        self.addCleanup(lambda: closed)
        self.addCleanup(connection.abort)
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", self.port)
        yield connectProtocol(endpoint, connection)
        self.idle: list[object] = []
        connection.on_idle = self.idle.append
        return connection

    def params(
        self, script: str, method: bytes = b"GET", length: int | None = None
    ) -> tuple[tuple[bytes, bytes], ...]:
        path = os.fsencode(self.directory / script)
        pairs = [
            (b"SCRIPT_FILENAME", path), (b"REQUEST_METHOD", method), (b"TWICE", b"first"),
            (b"TWICE", b"second"), (b"SERVER_PROTOCOL", b"HTTP/1.1"),
        ]  # fmt: skip
        if length is not None:
            pairs.append((b"CONTENT_LENGTH", b"%d" % length))
        return tuple(pairs)

    def send(
        self,
        connection: FastCGIConnection,
        script: str,
        method: bytes = b"GET",
        body: bytes | None = None,
        timeout: float = 10.0,
    ) -> Deferred[Response]:
        outgoing = Outgoing(
            method,
            params=self.params(script, method, None if body is None else len(body)),
            body=None if body is None else SpooledBody(body),
        )
        return connection.send(outgoing, Timeouts(10, 10, timeout), reused=False)

    @inlineCallbacks
    def test_a_kept_connection_serves_again(self) -> Any:
        connection = yield self.connect()
        pids = set()
        for number in range(5):
            body = os.urandom(number * 100_000)
            response = yield self.send(connection, "echo.php", b"POST", body)
            told = json.loads((yield read(response)))
            pids.add(told["pid"])
            self.assertEqual(response.headers.getall(b"x-twice"), [b"1", b"2"])
            self.assertEqual(told["sum"], hashlib.sha256(body).hexdigest())
            # Of a parameter that is sent twice, PHP takes the last.
            self.assertEqual(told["twice"], "second")
            self.assertEqual(len(self.idle), number + 1)
        self.assertEqual(len(pids), 1)

    @inlineCallbacks
    def test_a_single_connection(self) -> Any:
        connection = yield self.connect(keep=False)
        response = yield self.send(connection, "echo.php")
        self.assertEqual(json.loads((yield read(response)))["method"], "GET")
        self.assertEqual(self.idle, [])

    @inlineCallbacks
    def test_a_large_answer_to_a_slow_reader(self) -> Any:
        connection = yield self.connect()
        response = yield self.send(connection, "large.php")
        self.assertNotIsInstance(response.body, bytes)
        body = yield read(response, delay=0.001)
        self.assertEqual(len(body), 4_000_000)
        self.assertEqual(body[3_999_999:], b"V")
        self.assertEqual(len(self.idle), 1)

    @inlineCallbacks
    def test_statuses(self) -> Any:
        connection = yield self.connect()
        response = yield self.send(connection, "missing.php")
        self.assertEqual((response.status, (yield read(response))), (404, b"none"))
        response = yield self.send(connection, "moved.php")
        self.assertEqual(response.status, 302)
        self.assertEqual(response.headers.get(b"location"), b"/there")
        response = yield self.send(connection, "missing.php", b"HEAD")
        self.assertEqual((response.status, body_length(response.body)), (404, None))
        discard(response.body)
        response = yield self.send(connection, "nowhere.php")
        self.assertEqual(response.status, 404)

    @inlineCallbacks
    def test_a_body_that_is_not_read(self) -> Any:
        # php-fpm closes such a connection although it promised to keep it: the next request
        # finds it closed, before or after it was sent.
        connection = yield self.connect()
        response = yield self.send(connection, "lazy.php", b"POST", bytes(5_000_000))
        self.assertRegex((yield read(response)), rb"^\d+$")

    @inlineCallbacks
    def test_complaints(self) -> Any:
        connection = yield self.connect()
        lines: list[str] = []
        connection.on_note = lambda _, text: lines.append(text)
        response = yield self.send(connection, "noise.php")
        self.assertEqual((yield read(response)), b"fine")
        self.assertTrue(
            any('FastCGI sent in stderr: "PHP message: careful now"' in line for line in lines),
            lines,
        )

    @inlineCallbacks
    def test_an_answer_that_is_too_short(self) -> Any:
        connection = yield self.connect()
        with self.assertRaisesRegex(UpstreamError, "prematurely closed FastCGI stdout"):
            yield read((yield self.send(connection, "length.php")))

    @inlineCallbacks
    def test_a_worker_that_dies(self) -> Any:
        connection = yield self.connect()
        with self.assertRaises(UpstreamError):
            yield read((yield self.send(connection, "die.php")))

    @inlineCallbacks
    def test_a_worker_that_is_slow(self) -> Any:
        connection = yield self.connect()
        with self.assertRaisesRegex(UpstreamError, "timed out"):
            yield self.send(connection, "slow.php", timeout=0.2)

    @inlineCallbacks
    def test_fastcgi_pass(self) -> Any:
        groups = Groups(reactor)
        self.addCleanup(groups.stop)

        def constant(value: bytes) -> Template:
            return Template(value.decode(), (value,), value)

        params = self.params("echo.php", b"POST", length=5)
        settings = FastCGISettings(
            address=constant(b"127.0.0.1:%d" % self.port),
            params=tuple(Param(name, constant(value)) for name, value in params),
        )
        handler = FastCGIPass(settings, lambda name: groups.find(name.decode()), reactor)
        head = RequestHead(b"POST", b"/echo.php", (1, 1), Headers())
        peer = Peer("127.0.0.1", 1, ("127.0.0.1", 80), 1)
        request = Request(head, peer, SpooledBody(b"hello"), 0.0)
        response = yield handler(request)
        told = json.loads((yield read(response)))
        self.assertEqual(response.status, 200)
        self.assertEqual((told["method"], told["length"]), ("POST", 5))
        (attempt,) = request.outcome.attempts
        self.assertEqual(attempt.status, 200)
