"""``health_check`` in a configuration: what it comes to, and what is wrong with it."""

from __future__ import annotations

import os

from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.app.configuration import Options, read
from imagefarm.app.web import WebWork
from imagefarm.config.errors import ConfigurationError
from imagefarm.process.directives import MainSettings
from tests.fastcgi.fakes import end, stdout, stdout_end
from tests.proxy.support import Transport

HTTP = """events {{ }}
http {{ {http}
    upstream back {{ server 10.0.0.1:80; server 10.0.0.2:80 backup; }}
    server {{ listen 8090; server_name images.example; {server} }} }}
"""


class HealthCheckTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = os.path.abspath(self.mktemp())
        os.makedirs(os.path.join(self.directory, "logs"))
        self.reactor = MemoryReactorClock()

    def work(self, server: str, http: str = "") -> WebWork:
        path = os.path.join(self.directory, "nginx.conf")
        with open(path, "w") as file:
            file.write(HTTP.format(http=http, server=server))
        loaded = read(Options("master", path, self.directory))
        main = MainSettings.from_scope(loaded.root)
        work = WebWork(self.reactor, loaded, main, self.directory)
        self.addCleanup(work.stop)
        return work

    def asked(self, server: str, http: str = "") -> bytes:
        """The bytes of the first check."""
        work = self.work(server, http)
        work.management.start(None)
        self.reactor.advance(1.0)
        self.assertEqual(len(self.reactor.tcpClients), 2)
        transport = Transport()
        protocol = self.reactor.tcpClients[0][2].buildProtocol(None)
        transport.protocol = protocol
        protocol.makeConnection(transport)
        work.management.stop()
        return transport.value()

    def problems(self, server: str, http: str = "") -> list[tuple[str, int]]:
        error = self.assertRaises(ConfigurationError, self.work, server, http)
        return [(problem.message, problem.line) for problem in error.problems]

    def test_the_request_is_the_locations(self) -> None:
        self.assertEqual(
            self.asked(
                "location /x { proxy_pass http://back/y; health_check uri=/up?a=1; "
                "proxy_set_header X-Host $host; proxy_set_header X-Uri $uri$is_args$args; "
                "proxy_set_header X-Server $server_name; proxy_set_header Host $proxy_host; }"
            ),
            b"GET /up?a=1 HTTP/1.1\r\nX-Host: images.example\r\nX-Uri: /up?a=1\r\n"
            b"X-Server: images.example\r\nHost: back\r\n\r\n",
        )

    def test_over_http_1_0(self) -> None:
        asked = self.asked(
            "location / { proxy_pass http://back; proxy_http_version 1.0; health_check; }"
        )
        self.assertTrue(asked.startswith(b"GET / HTTP/1.0\r\n"), asked)

    def test_over_fastcgi(self) -> None:
        asked = self.asked(
            "location ~ [.]php$ { root /srv; fastcgi_pass back; health_check uri=/a/ping.php; "
            "fastcgi_param SCRIPT_FILENAME $document_root$fastcgi_script_name; "
            "fastcgi_param REQUEST_METHOD $request_method; fastcgi_param QUERY $args; }"
        )
        self.assertIn(b"SCRIPT_FILENAME/srv/a/ping.php", asked)
        self.assertIn(b"REQUEST_METHODGET", asked)

    def test_what_fastcgi_answers_is_judged(self) -> None:
        work = self.work(
            "location / { fastcgi_pass back; health_check match=image; }",
            "match image { header Content-Type ~ image; body ~ ok; }",
        )
        work.management.start(None)
        self.reactor.advance(1.0)
        heads = {"10.0.0.1": b"Content-Type: image/png", "10.0.0.2": b"Status: 200"}
        for client in self.reactor.tcpClients:  # in the order of chance
            head = heads.pop(client[0])
            transport = Transport()
            protocol = client[2].buildProtocol(None)
            transport.protocol = protocol
            protocol.makeConnection(transport)
            transport.protocol.dataReceived(stdout(head + b"\r\n\r\nok") + stdout_end() + end())
        (back,) = work.management.report().values()
        self.assertEqual([peer["state"] for peer in back["peers"]], ["up", "unhealthy"])
        self.assertEqual([peer["health_checks"]["checks"] for peer in back["peers"]], [1, 1])
        work.management.stop()

    def test_behind_a_cache(self) -> None:
        """A check asks the upstream, whatever the cache has."""
        zone = f"proxy_cache_path {self.directory}/cache keys_zone=one:1m;"
        asked = self.asked(
            "location / { proxy_pass http://back; proxy_cache one; health_check; }", zone
        )
        self.assertTrue(asked.startswith(b"GET / "))

    def test_mandatory_from_the_first_moment(self) -> None:
        work = self.work("location / { proxy_pass http://back; health_check mandatory; }")
        work.management.start(None)
        (back,) = work.management.report().values()
        self.assertEqual([peer["state"] for peer in back["peers"]], ["checking"] * 2)
        work.management.stop()

    def test_errors(self) -> None:
        for server, http, message, line in (
            ("location / { health_check; }", "",
             '"health_check" needs "proxy_pass" or "fastcgi_pass" in its location', 4),
            ("location / { proxy_pass http://$host; health_check; }", "",
             '"health_check" cannot be used where the upstream is given by variables', 4),
            ("location / { fastcgi_pass $host; health_check; }", "",
             '"health_check" cannot be used where the upstream is given by variables', 4),
            ("location / { proxy_pass http://back; health_check match=x; }",
             "match y { status 200; }", 'match "x" is not found', 4),
            ("location / { }", "match y { status 200; } match y { status 200; }",
             'duplicate match "y"', 2),
        ):  # fmt: skip
            self.assertEqual(self.problems(server, http), [(message, line)])
