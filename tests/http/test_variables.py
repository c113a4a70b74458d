"""Variables over a request."""

from __future__ import annotations

import os
import re
import socket
from typing import Any

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from imagefarm import __version__
from imagefarm.config.variables import Template
from imagefarm.http.headers import Headers
from imagefarm.http.lookup import Variable, lookup_of
from imagefarm.http.message import (
    Attempt,
    Peer,
    Request,
    RequestHead,
    Response,
    Traffic,
    TransferSettings,
)
from imagefarm.http.transport import with_socket
from imagefarm.http.variables import needs_socket, variable_table

from .samples import NOW, Source, request

TLS_PEER = Peer(
    "2001:db8::1", 50000, ("192.0.2.1", 8443), 12, ("TLSv1.3", "TLS_AES_128_GCM_SHA256"), b"s.ni"
)


@attrs.frozen
class Server:
    name: bytes = b"farm.example"


@attrs.frozen
class Place:
    """A location as variables see it."""

    root: Template | None = None
    alias: Template | None = None
    prefix: bytes = b"/"


def constant(text: bytes) -> Template:
    return Template(text.decode(), (text,), text)


class VariableTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = [NOW]
        self.table = variable_table(
            clock=lambda: self.clock[0], random=lambda size: bytes(range(size))
        )

    def get(self, name: str, asked: Request | None = None) -> bytes | None:
        """The value, None if it is unset."""
        known = frozenset({"mine", "named"})
        getter = self.table.getter(name, known, frozenset({"mine"}))
        asked = asked or request()
        found = lookup_of(getter)(asked)
        self.assertEqual(getter(asked), found or b"")
        return found

    def check(self, asked: Request, **expected: bytes | None) -> None:
        found = {name: self.get(name, asked) for name in expected}
        self.assertEqual(found, expected)

    def test_request_line(self) -> None:
        self.check(
            request(b"/a%20b?x=1&Y=2&x=3&z", method=b"HEAD", version=(1, 0)),
            request=b"HEAD /a%20b?x=1&Y=2&x=3&z HTTP/1.0",
            request_uri=b"/a%20b?x=1&Y=2&x=3&z",
            request_method=b"HEAD",
            server_protocol=b"HTTP/1.0",
            args=b"x=1&Y=2&x=3&z",
            query_string=b"x=1&Y=2&x=3&z",
            is_args=b"?",
            arg_x=b"1",
            arg_y=b"2",
            arg_z=None,
            arg_w=None,
        )
        self.check(request(b"/a"), args=None, query_string=None, is_args=b"", arg_x=None)

    def test_uri_is_the_one_in_force(self) -> None:
        asked = request(b"/a%20b")
        asked.uri = b"/c d"
        self.check(asked, uri=b"/c d", document_uri=b"/c d", fastcgi_script_name=b"/c d")

    def test_request_uri_of_an_absolute_target(self) -> None:
        for target, expected in {
            b"http://a:80/x?y": b"/x?y", b"http://a?y": b"/?y", b"*": b"*", b"//a": b"//a",
        }.items():  # fmt: skip
            self.check(request(target), request_uri=expected)

    def test_a_request_that_was_not_read(self) -> None:
        asked = request()
        asked.head = RequestHead(b"", b"", (1, 1), Headers())
        self.check(asked, request=None, request_method=None, request_uri=None)

    def test_the_line_is_the_one_received(self) -> None:
        asked = request(b"/a", method=b"POST")
        asked.received = asked.head
        asked.head = attrs.evolve(asked.head, method=b"GET")
        self.check(asked, request=b"POST /a HTTP/1.1", request_method=b"GET")

    def test_http09(self) -> None:
        self.check(request(b"/a", version=(0, 9)), request=b"GET /a")

    def test_fields(self) -> None:
        asked = request(
            fields=[
                (b"User-Agent", b"x"),
                (b"X-Forwarded-For", b"192.0.2.1"),
                (b"x-forwarded-for", b"192.0.2.2"),
                (b"Content-Type", b"a/b"),
                (b"Content-Length", b"7"),
                (b"X-Empty", b""),
                (b"under_score", b"u"),
            ]
        )
        self.check(
            asked,
            http_user_agent=b"x",
            http_x_forwarded_for=b"192.0.2.1, 192.0.2.2",
            http_x_empty=b"",
            http_under_score=b"u",
            http_absent=None,
            content_type=b"a/b",
            content_length=b"7",
            proxy_add_x_forwarded_for=b"192.0.2.1, 192.0.2.2, 192.0.2.7",
        )
        self.check(
            request(),
            http_host=None,
            content_type=None,
            content_length=None,
            proxy_add_x_forwarded_for=b"192.0.2.7",
        )

    def test_cookies(self) -> None:
        asked = request(fields=[(b"Cookie", b"a=1; User = kim ;e="), (b"Cookie", b"b=x=y; flag")])
        self.check(
            asked,
            cookie_a=b"1",
            cookie_user=b"kim ",
            cookie_e=b"",
            cookie_b=b"x=y",
            cookie_flag=None,
            cookie_x=None,
            http_cookie=b"a=1; User = kim ;e=; b=x=y; flag",
        )

    def test_remote_user(self) -> None:
        for value, expected in {
            b"Basic dXNlcjpwYXNz": b"user",
            b"basic  dXNlcjpwYXNz": b"user",
            b"Basic OnBhc3M=": b"",
            b"Basic dXNlcg==": None,
            b"Basic !": None,
            b"Basic dXNlcjpwYXN": None,
            b"Bearer dXNlcjpwYXNz": None,
        }.items():
            asked = request(fields=[(b"Authorization", value)])
            self.assertEqual(self.get("remote_user", asked), expected, value)
        self.assertIsNone(self.get("remote_user"))

    def test_connection(self) -> None:
        asked = request()
        asked.number, asked.length = 4, 99
        self.check(
            asked,
            remote_addr=b"192.0.2.7",
            remote_port=b"4711",
            binary_remote_addr=socket.inet_aton("192.0.2.7"),
            server_addr=b"127.0.0.1",
            server_port=b"8080",
            scheme=b"http",
            https=b"",
            ssl_protocol=None,
            ssl_cipher=None,
            ssl_server_name=None,
            connection=b"3",
            connection_requests=b"4",
            request_length=b"99",
        )
        self.check(
            request(peer=TLS_PEER),
            binary_remote_addr=socket.inet_pton(socket.AF_INET6, "2001:db8::1"),
            scheme=b"https",
            https=b"on",
            ssl_protocol=b"TLSv1.3",
            ssl_cipher=b"TLS_AES_128_GCM_SHA256",
            ssl_server_name=b"s.ni",
        )
        self.check(
            request(peer=Peer("unix:", 0, ("unix:/x", 0), 1)),
            remote_addr=b"unix:",
            remote_port=b"",
            binary_remote_addr=b"unix:",
            server_addr=b"unix:/x",
            server_port=b"",
        )

    def test_names(self) -> None:
        asked = request()
        asked.server = Server()
        self.check(asked, host=b"farm.example", server_name=b"farm.example")
        asked.host = b""
        self.check(asked, host=b"farm.example")
        self.check(
            asked,
            hostname=socket.gethostname().lower().encode(),
            pid=b"%d" % os.getpid(),
            nginx_version=__version__.encode(),
        )

    def test_times(self) -> None:
        self.clock[0] = NOW + 1.2345
        self.check(request(), request_time=b"1.234", msec=b"784111778.234")
        self.clock[0] = NOW - 5  # the clock was set back
        self.check(request(), request_time=b"0.000")
        self.assertRegex(self.get("time_local") or b"", rb"^\d\d/Nov/1994:\d\d:49:32 [+-]\d{4}$")
        self.assertRegex(self.get("time_iso8601") or b"", rb"^1994-11-\d\dT\d\d:49:32[+-]\d\d:")

    def test_request_id_is_one_for_the_request(self) -> None:
        table = variable_table(clock=lambda: NOW)
        getter, one, other = table.getter("request_id"), request(), request()
        self.assertRegex(getter(one), rb"^[0-9a-f]{32}$")
        self.assertEqual(getter(one), getter(one))
        self.assertNotEqual(getter(one), getter(other))

    def test_files(self) -> None:
        asked = request(b"/img/a.png")
        self.check(asked, document_root=None, request_filename=None, realpath_root=None)
        asked.location = Place(root=constant(b"/srv/../srv"))
        self.check(
            asked,
            document_root=b"/srv/../srv",
            request_filename=b"/srv/../srv/img/a.png",
            realpath_root=os.path.realpath(b"/srv"),
        )
        asked.location = Place(root=constant(b"/r"), alias=constant(b"/data/"), prefix=b"/img/")
        self.check(asked, document_root=b"/data/", request_filename=b"/data/a.png")
        asked.location = Place(alias=constant(b"/data/x.png"), prefix=b"")
        self.check(asked, request_filename=b"/data/x.png")

    def test_outcome(self) -> None:
        asked = request()
        self.check(asked, status=b"000", bytes_sent=b"0", body_bytes_sent=b"0")
        asked.outcome.status, asked.outcome.bytes_sent, asked.outcome.body_bytes_sent = 206, 300, 9
        self.check(asked, status=b"206", bytes_sent=b"300", body_bytes_sent=b"9")

    def test_upstream(self) -> None:
        asked = request()
        unset: dict[str, Any] = dict.fromkeys(
            ["upstream_addr", "upstream_status", "upstream_response_time", "upstream_cache_status",
             "upstream_connect_time", "upstream_header_time", "upstream_http_x_a",
             "upstream_response_length", "upstream_bytes_sent", "upstream_cookie_a",
             "upstream_http_content_length"]
        )  # fmt: skip
        self.check(asked, **unset)
        asked.outcome.attempts = [
            Attempt(b"127.0.0.1:8081", 502, 0.0004),
            Attempt(b"127.0.0.1:8082", 0, 1.5),
            Attempt(b"127.0.0.1:8083", 200, 0.25, 0.001, 0.2, Traffic(1, 3, 2), first=True),
        ]
        asked.outcome.cache_status = b"MISS"
        asked.outcome.upstream_headers = Headers(
            [(b"X-A", b"1"), (b"Set-Cookie", b"b=2"), (b"Set-Cookie", b"A=3 ; path=/")]
        )
        asked.outcome.upstream_length = 2
        self.check(
            asked,
            upstream_addr=b"127.0.0.1:8081, 127.0.0.1:8082 : 127.0.0.1:8083",
            upstream_status=b"502, - : 200",
            upstream_response_time=b"0.000, 1.500 : 0.250",
            upstream_connect_time=b"-, - : 0.001",
            upstream_header_time=b"-, - : 0.200",
            upstream_bytes_sent=b"0, 0 : 1",
            upstream_bytes_received=b"0, 0 : 3",
            upstream_response_length=b"0, 0 : 2",
            upstream_cookie_a=b"3",
            upstream_cookie_c=None,
            upstream_http_content_length=b"2",
            upstream_cache_status=b"MISS",
            upstream_http_x_a=b"1",
            upstream_http_x_b=None,
        )

    def test_sent(self) -> None:
        asked = request()
        self.check(asked, sent_http_content_type=None, sent_http_content_length=None)
        asked.outcome.response = Response(200, Headers([(b"Content-Type", b"a/b")]), b"12345")
        self.check(asked, sent_http_content_type=b"a/b", sent_http_content_length=b"5")
        for response in (
            Response(304),
            Response(200, body=Source()),
        ):
            asked.outcome.response = response
            self.check(asked, sent_http_content_length=None)

    def test_captures_and_own_variables(self) -> None:
        asked = request()
        self.assertIsNone(self.get("1", asked))
        self.assertEqual(self.get("mine", asked), b"")  # `set` was not reached
        self.assertIsNone(self.get("named", asked))  # nothing was captured
        asked.captures = re.match(rb"(?P<named>a)(b)?(c)", b"ac")
        asked.variables["mine"] = b"m"
        self.assertEqual(self.get("1", asked), b"a")
        self.assertIsNone(self.get("2", asked))
        self.assertEqual(self.get("3", asked), b"c")
        self.assertIsNone(self.get("4", asked))
        self.assertEqual(self.get("mine", asked), b"m")
        self.assertEqual(self.get("named", asked), b"a")

    def test_rate(self) -> None:
        asked = request()
        asked.transfer = TransferSettings(limit_rate=2048)
        self.check(asked, limit_rate=b"0")
        asked.outcome.response = Response(200)
        self.check(asked, limit_rate=b"2048")
        asked.variables["limit_rate"] = b"1k"
        self.check(asked, limit_rate=b"1024")

    def test_compressed(self) -> None:
        asked = request()
        self.check(asked, gzip_ratio=None)
        for before, after, ratio in (
            (100, 40, b"2.50"), (1000, 300, b"3.33"), (2, 3, b"0.67"), (1999, 1000, b"2.00"),
        ):  # fmt: skip
            asked.outcome.compressed = before, after
            self.check(asked, gzip_ratio=ratio)

    def test_the_connections_own_end(self) -> None:
        asked = request()
        self.check(asked, server_addr=b"127.0.0.1", tcpinfo_rtt=None)
        listener = socket.create_server(("127.0.0.1", 0))
        client = socket.create_connection(listener.getsockname())
        own, _ = listener.accept()
        self.addCleanup(listener.close)
        self.addCleanup(client.close)
        transport = type("Transport", (), {"socket": own})
        anywhere = Peer("192.0.2.1", 1, ("", 80), 1)
        asked.peer = with_socket(anywhere, transport)
        self.check(asked, server_addr=b"127.0.0.1")
        for name in ("tcpinfo_rtt", "tcpinfo_rttvar", "tcpinfo_snd_cwnd", "tcpinfo_rcv_space"):
            self.assertGreater(int(self.get(name, asked) or b""), 0, name)
        own.close()
        self.check(asked, server_addr=b"127.0.0.1", tcpinfo_rtt=None)
        self.assertIs(with_socket(anywhere, transport), anywhere)

    def test_who_needs_the_socket(self) -> None:
        self.assertTrue(needs_socket({"server_addr"}, wildcard=True))
        self.assertFalse(needs_socket({"server_addr"}, wildcard=False))
        self.assertTrue(needs_socket({"tcpinfo_rtt"}, wildcard=False))
        self.assertFalse(needs_socket({"server_port"}, wildcard=True))

    def test_the_heads_own_fields(self) -> None:
        asked = request()
        names = ("sent_http_connection", "sent_http_keep_alive", "sent_http_transfer_encoding")
        self.check(asked, **dict.fromkeys(names))
        asked.outcome.response = Response(200)
        self.check(asked, sent_http_connection=b"close", sent_http_keep_alive=None)
        asked.transfer = TransferSettings(keepalive_header=9)
        asked.outcome.keep = asked.outcome.chunked = True
        self.check(
            asked,
            sent_http_connection=b"keep-alive",
            sent_http_keep_alive=b"timeout=9",
            sent_http_transfer_encoding=b"chunked",
        )

    def test_extra_goes_first(self) -> None:
        table = variable_table(
            {"uri": lambda request: b"other", "new": Variable(lambda request: None)},
            clock=lambda: NOW,
        )
        self.assertEqual(table.compile("$uri$new$host")(request()), b"otherfarm.example")

    @settings(deadline=None)
    @given(st.binary(max_size=30), st.binary(max_size=30))
    def test_hostile_fields(self, value: bytes, args: bytes) -> None:
        asked = request(
            b"/?" + args,
            [(b"Cookie", value), (b"Authorization", b"Basic " + value), (b"X", value)],
        )
        for name in ("cookie_a", "remote_user", "http_x", "arg_a", "request", "args"):
            self.get(name, asked)
