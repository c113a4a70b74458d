"""TLS to upstreams: what is refused, who is believed, what is shared."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from OpenSSL import SSL
from twisted.internet import reactor
from twisted.internet.defer import inlineCallbacks
from twisted.internet.ssl import DefaultOpenSSLContextFactory
from twisted.internet.task import deferLater
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.config.errors import ConfigurationError
from imagefarm.proxy.groups import Groups
from imagefarm.proxy.handler import ProxyPass
from imagefarm.proxy.settings import ProxySettings
from imagefarm.proxy.tls_client import TlsClient, TlsOptions, make_client_context
from tests.support.certificates import Authority

from .support import load_location, make_request
from .test_loopback import OK, ProxyingTestCase, answer, hang


class RefusedTests(SynchronousTestCase):
    def refuse(self, inside: str) -> str:
        scope = load_location("/", f"proxy_pass https://127.0.0.1; {inside}")
        settings = ProxySettings.from_scope(scope)
        assert settings is not None
        with self.assertRaises(ConfigurationError) as caught:
            ProxyPass(settings, Groups(MemoryReactorClock()))
        return str(caught.exception)

    def test_words(self) -> None:
        directory = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, directory)
        pem, key, _ = Authority(Path(directory), "ca").issue("a", password=b"secret")
        other = Authority(Path(directory), "other").issue("b")[1]
        ours, its = "proxy_ssl_certificate", "proxy_ssl_certificate_key"
        for inside, words in (
            ("proxy_ssl_verify on;", "no proxy_ssl_trusted_certificate for proxy_ssl_verify"),
            ("proxy_ssl_certificate /a;", 'no "proxy_ssl_certificate_key" is defined for'),
            ("proxy_ssl_trusted_certificate /none/a;", "cannot load trusted certificate"),
            (f"proxy_ssl_trusted_certificate {key};", "cannot load trusted certificate"),
            ("proxy_ssl_crl /none/a;", 'cannot load CRL "/none/a": (2: No such file'),
            (f"{ours} {key}; {its} {key};", "cannot load certificate"),
            (f"{ours} {pem}; {its} {key};", "cannot load certificate key"),
            (f"{ours} {pem}; {its} {other};", "cannot load certificate key"),
            (
                f"{ours} {pem}; {its} {key}; proxy_ssl_password_file /none/a;",
                "cannot load password file",
            ),
        ):  # fmt: skip
            self.assertIn(words, self.refuse(inside), inside)

    def test_where_only_http_is_spoken_nothing_is_read(self) -> None:
        scope = load_location("/", "proxy_pass http://127.0.0.1; proxy_ssl_crl /none/a;")
        settings = ProxySettings.from_scope(scope)
        assert settings is not None
        ProxyPass(settings, Groups(MemoryReactorClock()))


class ClientTests(SynchronousTestCase):
    def test_equality(self) -> None:
        """Which connections may be used for which requests."""

        def client(name: str = "a", **options: Any) -> TlsClient:
            made = TlsOptions(**options)
            return TlsClient(made, name, make_client_context(made))

        self.assertEqual(client(), client())
        for other in (client("b"), client(verify=True), client(protocols=("TLSv1.3",))):
            self.assertNotEqual(client(), other)
            self.assertNotEqual(hash(client()), hash(other))


class TlsLoopbackTests(ProxyingTestCase):
    def setUp(self) -> None:
        super().setUp()
        directory = Path(tempfile.mkdtemp())
        self.directories.append(str(directory))
        authority = Authority(directory, "ca")
        certificate, key, _ = authority.issue("server", "127.0.0.1", "a.example")
        self.tls = DefaultOpenSSLContextFactory(key, certificate, SSL.TLS_SERVER_METHOD)
        self.trust = f"proxy_ssl_verify on; proxy_ssl_trusted_certificate {authority.certificate};"

    @inlineCallbacks
    def test_an_address_may_be_the_name(self) -> Any:
        port = self.serve(answer(OK), tls=self.tls).port
        handler = self.proxy(f"proxy_pass https://127.0.0.1:{port}; {self.trust}")
        response = yield handler(make_request())
        self.assertEqual(response.status, 200)
        handler = self.proxy(
            f"proxy_pass https://127.0.0.1:{port}; {self.trust} proxy_ssl_name 127.0.0.2;"
        )
        with capturedLogs() as logs:
            response = yield handler(make_request(b"POST"))
        self.assertEqual(response.status, 502)
        (line,) = [formatEvent(event) for event in logs if "upstream" in str(event)]
        self.assertIn('SSL certificate does not match "127.0.0.2" while SSL handshaking to', line)
        self.assertIn(f'upstream: "https://127.0.0.1:{port}/"', line)

    @inlineCallbacks
    def test_connections_are_kept_for_their_name_only(self) -> Any:
        server = self.serve(answer(OK), tls=self.tls)
        handler = self.proxy(
            f"proxy_pass https://u; {self.trust} proxy_ssl_name $arg_n;",
            f"upstream u {{ server 127.0.0.1:{server.port}; keepalive 8; }}",
        )
        for name, status in ((b"a.example", 200), (b"127.0.0.1", 200), (b"b.example", 502)) * 2:
            response = yield handler(make_request(target=b"/?n=" + name))
            self.assertEqual(response.status, status, name)
        self.assertEqual(len(server.requests), 4)
        self.assertEqual(server.accepted, 4)

    @inlineCallbacks
    def test_a_handshake_without_end(self) -> Any:
        port = self.serve(hang).port
        handler = self.proxy(f"proxy_pass https://127.0.0.1:{port}; proxy_connect_timeout 100ms;")
        with capturedLogs() as logs:
            response = yield handler(make_request())
        self.assertEqual(response.status, 504)
        lines = [formatEvent(event) for event in logs]
        self.assertTrue(any("timed out" in x and "SSL handshaking" in x for x in lines), lines)

    @inlineCallbacks
    def test_a_client_that_leaves_during_the_handshake(self) -> Any:
        server = self.serve(hang)
        handler = self.proxy(f"proxy_pass https://127.0.0.1:{server.port};")
        request = make_request()
        answering = handler(request)
        while not server.connections:
            yield deferLater(reactor, 0.01)
        for gone in request.on_gone:
            gone()
        response = yield answering
        self.assertEqual(response.status, 499)
        yield server.drained()
