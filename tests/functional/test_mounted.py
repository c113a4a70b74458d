"""Twisted's own resources, and others', behind the engine on real sockets."""

from __future__ import annotations

import gzip
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase
from twisted.web.resource import Resource
from twisted.web.server import Site

from imagefarm.app.configuration import Options, read
from imagefarm.app.web import WebWork
from imagefarm.config.errors import ConfigurationError
from imagefarm.process.directives import MainSettings
from tests.support import mounts, rawhttp
from tests.support.processes import free_ports, imagefarm
from tests.support.stages import StagedCase

BIG = bytes(range(256)) * 20_000
MTIME = "Tue, 14 Nov 2023 22:13:20 GMT"

LOCATIONS = """
    location / { return 404; }
    location /data { resource tests.support.mounts.data; }
    location = /exact { resource tests.support.mounts.data; }
    location /files/ { resource tests.support.mounts.files; }
    location /packed { resource tests.support.mounts.packed; }
    location /filtered { gzip on; gzip_types text/plain; expires 5s;
                          resource tests.support.mounts.data; }
    location /redirect/ { resource tests.support.mounts.redirect; }
    location /hosts { resource tests.support.mounts.hosts; }
    location /tree/ { resource tests.support.mounts.tree; location /tree/own/ { return 403; } }
    location /wsgi/ { resource tests.support.mounts.wsgi; client_max_body_size 10; }
    location /app/ { resource tests.support.mounts.router;
                     error_page 500 /sorry; }
    location /proxy/ { resource tests.support.mounts.reverse_proxy; }
    location /renamed/ { rewrite ^/renamed(/.*) /tree$1; }
    location /broken/ { rewrite ^/broken/(.*) /$1 break; resource tests.support.mounts.tree; }
    location /denied/ { deny all; resource tests.support.mounts.data; }
    location ~ ^/tree/regex { resource tests.support.mounts.tree; }
    location = /sorry { return 200 "sorry"; }
"""


def configuration(directory: Path, port: int, locations: str) -> Path:
    """A file with one server."""
    path = directory / "mounted.conf"
    path.write_text(
        f"error_log {directory}/error.log;\npid {directory}/pid;\nevents {{ }}\nhttp {{\n"
        f"access_log {directory}/access.log;\n"
        f"server {{\nlisten 127.0.0.1:{port};\n{locations} }} }}\n"
    )
    return path


class Echo(Resource):
    """The upstream of the reverse proxy: says what it got."""

    isLeaf = True

    def render(self, request: Any) -> bytes:
        request.setHeader(b"X-Upstream", b"1")
        framing = request.getHeader(b"transfer-encoding") or b"-"
        return b" ".join((request.method, request.uri, framing, request.content.read()))


class Mounted(StagedCase, TestCase):
    timeout = 30

    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).absolute()
        (self.directory / "files" / "sub").mkdir(parents=True)
        big = self.directory / "files" / "big.bin"
        big.write_bytes(BIG)
        (self.directory / "files" / "small.txt").write_bytes(b"small")
        os.utime(big, (1_700_000_000, 1_700_000_000))
        self.upstream = reactor.listenTCP(0, Site(Echo()), interface="127.0.0.1")
        self.addCleanup(self.upstream.stopListening)
        mounts.directory = str(self.directory / "files")
        mounts.upstream_port = self.upstream.getHost().port
        (self.port,) = free_ports(1)
        config = configuration(self.directory, self.port, LOCATIONS)
        loaded = read(Options("slave", str(config), str(self.directory)))
        settings = MainSettings.from_scope(loaded.root)
        self.work = WebWork(reactor, loaded, settings, str(self.directory))
        self.listener = socket.create_server(("127.0.0.1", self.port))
        self.listener.setblocking(False)
        self.addCleanup(self.listener.close)
        (gate,) = self.work.gates
        self.work.start({str(gate.endpoint): self.listener})
        self.addCleanup(self.stop)

    @inlineCallbacks
    def stop(self) -> Any:
        yield self.work.stop()
        for call in reactor.getDelayedCalls():
            if call.func.__qualname__ == "Session.expire":
                call.cancel()
        # The clients' and the proxy's connections see their end.
        yield deferLater(reactor, 0.05, lambda: None)

    def client(self, script: Callable[[], Any]) -> Deferred[Any]:
        """Run ``script`` in a thread of its own."""
        return deferToThread(script)

    def ask(self, target: str, *fields: str, **more: Any) -> rawhttp.Answer:
        """One request; called in the script's thread."""
        answer = rawhttp.exchange(self.port, rawhttp.request(target, *fields, **more))
        assert answer is not None
        return answer

    @inlineCallbacks
    def test_data(self) -> Any:
        def script() -> None:
            answer = self.ask("/data")
            self.assertEqual((answer.status, answer.body), (200, mounts.TEXT))
            self.assertEqual(answer.header("content-type"), "text/plain")
            self.assertEqual(answer.header("content-length"), str(len(mounts.TEXT)))
            self.assertRegex(str(answer.header("server")), "^imagefarm")
            self.assertEqual(self.ask("/exact").body, mounts.TEXT)
            self.assertEqual(self.ask("/data/child").status, 404)
            self.assertEqual(self.ask("/database").status, 404)
            head = self.ask("/data", method="HEAD")
            self.assertEqual(head.header("content-length"), str(len(mounts.TEXT)))
            self.assertEqual(self.ask("/denied/").status, 403)

        yield self.client(script)

    @inlineCallbacks
    def test_kept_alive_and_pipelined(self) -> Any:
        """All of it on one connection: bytes, streams, HEAD, 404, and in order."""

        def script() -> None:
            targets = [
                ("GET", "/data"), ("GET", "/app/later"), ("GET", "/files/big.bin"),
                ("HEAD", "/files/big.bin"), ("GET", "/wsgi/stream"), ("GET", "/tree/none"),
                ("GET", "/app/deferred"), ("GET", "/tree/"),
            ]  # fmt: skip
            with rawhttp.connect(self.port) as sock:
                sock.sendall(b"".join(rawhttp.request(t, method=m) for m, t in targets))
                reader = rawhttp.Reader(sock)
                answers = [reader.answer(method) for method, _ in targets]
            bodies = [answer.body for answer in answers if answer is not None]
            self.assertEqual(bodies[:4], [mounts.TEXT, b"later", BIG, b""])
            self.assertEqual(bodies[4], b"".join(b"%d\n" % i * 1000 for i in range(20)))
            self.assertIn(b"No Such Resource", bodies[5])
            self.assertEqual(bodies[6:], [b"deferred", b"index"])

        yield self.client(script)

    @inlineCallbacks
    def test_files(self) -> Any:
        def script() -> None:
            whole = self.ask("/files/big.bin")
            self.assertEqual((whole.status, whole.body), (200, BIG))
            self.assertEqual(whole.header("last-modified"), MTIME)
            self.assertEqual(whole.header("content-length"), str(len(BIG)))
            part = self.ask("/files/big.bin", "Range: bytes=5-9")
            self.assertEqual((part.status, part.body), (206, BIG[5:10]))
            self.assertEqual(part.header("content-range"), f"bytes 5-9/{len(BIG)}")
            parts = self.ask("/files/big.bin", "Range: bytes=0-1,5-9")
            self.assertEqual(parts.status, 206)
            self.assertIn(BIG[5:10], parts.body)
            beyond = self.ask("/files/big.bin", f"Range: bytes={len(BIG)}-")
            self.assertEqual(beyond.status, 416)
            fresh = self.ask("/files/big.bin", f"If-Modified-Since: {MTIME}")
            self.assertEqual((fresh.status, fresh.body), (304, b""))
            head = self.ask("/files/big.bin", method="HEAD")
            self.assertEqual(head.header("content-length"), str(len(BIG)))
            self.assertEqual(self.ask("/files/none").status, 404)
            self.assertEqual(self.ask("/files/sub").status, 302)
            self.assertIn(b"big.bin", self.ask("/files/").body)
            self.assertEqual(self.ask("/files/../../etc/passwd").status, 400)

        yield self.client(script)

    @inlineCallbacks
    def test_slow_reader(self) -> Any:
        """The file is read as the client reads."""

        def script() -> None:
            with rawhttp.connect(self.port) as sock:
                sock.sendall(rawhttp.request("/files/big.bin"))
                time.sleep(0.3)
                answer = rawhttp.Reader(sock).answer()
            assert answer is not None
            self.assertEqual(answer.body, BIG)

        yield self.client(script)

    @inlineCallbacks
    def test_encoders(self) -> Any:
        """The resource's own gzip, ours, and not both."""

        def script() -> None:
            for target in ("/packed", "/filtered"):
                answer = self.ask(target, "Accept-Encoding: gzip")
                self.assertEqual(answer.header("content-encoding"), "gzip", target)
                self.assertEqual(gzip.decompress(answer.body), mounts.TEXT)
                self.assertEqual(self.ask(target).body, mounts.TEXT)
            self.assertEqual(self.ask("/filtered").header("cache-control"), "max-age=5")

        yield self.client(script)

    @inlineCallbacks
    def test_routing(self) -> Any:
        def script() -> None:
            answer = self.ask("/redirect/")
            self.assertEqual(answer.status, 302)
            self.assertEqual(answer.header("location"), "/data?moved")
            self.assertEqual(self.ask("/hosts", host="one.test").body, b"the first")
            self.assertEqual(self.ask("/hosts", host="two.test").body, b"another")
            self.assertEqual(self.ask("/tree/").body, b"index")
            self.assertEqual(self.ask("/tree/child").body, b"child")
            self.assertEqual(self.ask("/tree/x/%2e%2e/child").body, b"child")
            self.assertEqual(self.ask("/renamed/child").body, b"child")
            self.assertEqual(self.ask("/broken/child").body, b"child")
            self.assertEqual(self.ask("/tree/own/").status, 403)
            self.assertEqual(self.ask("/tree/regex").status, 404)  # not below its root

        yield self.client(script)

    @inlineCallbacks
    def test_wsgi(self) -> Any:
        def script() -> None:
            answer = self.ask("/wsgi/a%20b/c?q=1", method="POST", body=b"body")
            self.assertEqual(answer.status, 202)
            self.assertEqual(answer.body, b"POST /wsgi /a b/c q=1 body")
            self.assertEqual(answer.header("x-app"), "1, 2")
            self.assertEqual(self.ask("/wsgi/x", method="PUT", body=b"x" * 11).status, 413)
            stream = self.ask("/wsgi/stream")
            self.assertEqual(stream.header("transfer-encoding"), "chunked")
            self.assertEqual(self.ask("/wsgi/fail").status, 500)

        yield self.client(script)
        self.assertEqual(len(self.flushLoggedErrors(LookupError)), 1)

    @inlineCallbacks
    def test_router(self) -> Any:
        def script() -> None:
            self.assertEqual(self.ask("/app/later").body, b"later")
            self.assertEqual(self.ask("/app/deferred").body, b"deferred")
            self.assertEqual(self.ask("/app/tagged").body, b"whole")
            fresh = self.ask("/app/tagged", 'If-None-Match: "tag"')
            self.assertEqual((fresh.status, fresh.header("etag")), (304, '"tag"'))
            first = self.ask("/app/session")
            cookie = str(first.header("set-cookie")).partition(";")[0]
            second = self.ask("/app/session", f"Cookie: {cookie}")
            self.assertEqual((first.body, second.body), (b"visit 1", b"visit 2"))
            self.assertIsNone(second.header("set-cookie"))

        yield self.client(script)

    @inlineCallbacks
    def test_upload(self) -> Any:
        """A multipart form, large enough for a temporary file."""
        form = (
            b'--b\r\nContent-Disposition: form-data; name="name"\r\n\r\nme\r\n'
            b'--b\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n'
            + b"x" * 200_000
            + b"\r\n--b--\r\n"
        )

        def script() -> None:
            kind = "Content-Type: multipart/form-data; boundary=b"
            answer = self.ask("/app/form", kind, method="POST", body=form)
            self.assertEqual(answer.body, b"me|" + b"x" * 200_000)

        yield self.client(script)

    @inlineCallbacks
    def test_failure_has_our_error_page(self) -> Any:
        def script() -> None:
            answer = self.ask("/app/raise")
            self.assertEqual((answer.status, answer.body), (500, b"sorry"))

        yield self.client(script)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    @inlineCallbacks
    def test_client_leaves(self) -> Any:
        router = mounts.routers[-1]

        def script() -> None:
            with rawhttp.connect(self.port) as sock:
                sock.sendall(rawhttp.request("/app/events"))
                data = b""
                while b"event" not in data:
                    data += sock.recv(1000)

        yield self.client(script)
        for _ in range(200):
            if not router.streaming:
                break
            yield deferLater(reactor, 0.01, lambda: None)
        self.assertEqual(router.streaming, [])

    @inlineCallbacks
    def test_reverse_proxy(self) -> Any:
        def script() -> None:
            answer = self.ask("/proxy/a%20b?q=1", method="POST", body=b"body")
            self.assertEqual(answer.body, b"POST /behind/a%20b?q=1 - body")
            self.assertEqual(answer.header("x-upstream"), "1")
            self.assertRegex(str(answer.header("server")), "^imagefarm")
            chunked = rawhttp.request("/proxy/x", "Transfer-Encoding: chunked", method="POST")
            sent = rawhttp.exchange(self.port, chunked + b"3\r\nabc\r\n0\r\n\r\n")
            assert sent is not None
            self.assertEqual(sent.body, b"POST /behind/x - abc")

        yield self.client(script)


class Deployed(StagedCase):
    """The directive in a daemon's configuration."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir()
        (self.port,) = free_ports(1)

    def configure(self, name: str) -> Path:
        return configuration(self.directory, self.port, f"location /app/ {{ resource {name}; }}")

    def test_serves(self) -> None:
        config = self.configure("tests.support.mounts.tree")
        daemon = imagefarm(
            "slave", self.directory, "--config", str(config), ports=[self.port]
        ).started()
        self.addCleanup(daemon.stop)
        answer = rawhttp.exchange(self.port, rawhttp.request("/app/child"))
        assert answer is not None
        self.assertEqual((answer.status, answer.body), (200, b"child"))
        self.assertEqual(daemon.stop(), 0)

    def test_refuses(self) -> None:
        config = self.configure("tests.support.mounts.nothing")
        daemon = imagefarm("slave", self.directory, "--config", str(config))
        self.addCleanup(daemon.stop)
        self.assertNotEqual(daemon.wait(), 0)
        self.assertRegex(
            daemon.output.read_text(),
            r'resource "tests.support.mounts.nothing" could not be imported: .* in .*conf:8\b',
        )

    def test_refuses_what_cannot_be_made(self) -> None:
        config = self.configure("tests.support.mounts.application")
        loaded = read(Options("slave", str(config), str(self.directory)))
        settings = MainSettings.from_scope(loaded.root)
        error = self.assertRaises(
            ConfigurationError, WebWork, reactor, loaded, settings, str(self.directory)
        )
        self.assertRegex(
            str(error), r'resource "tests.support.mounts.application" failed: TypeError.*conf:8$'
        )
