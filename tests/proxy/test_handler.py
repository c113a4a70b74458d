"""What `ProxyPass` asks of the upstream and makes of its answer; the group is a fake."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.config.errors import ConfigurationError
from imagefarm.http.body import BodyTooLarge
from imagefarm.http.headers import Headers
from imagefarm.http.message import Request, Response
from imagefarm.http.upstream import ExchangeRules, Fault, NoLivePeers, Outgoing, UpstreamError
from imagefarm.proxy.groups import Groups
from imagefarm.proxy.handler import ProxyPass
from imagefarm.proxy.settings import ProxySettings

from .support import Source, load_location, make_request, read, the_if

UPSTREAM = "upstream backend { server 127.0.0.1:8081; }"


class Recorder:
    """An `UpstreamGroup` that answers with what it is told to."""

    def __init__(self) -> None:
        self.outgoing: list[Outgoing] = []
        self.rules: list[ExchangeRules] = []
        self.answer: Deferred[Response] = succeed(Response(200))

    def exchange(
        self, request: Request, outgoing: Outgoing, rules: ExchangeRules
    ) -> Deferred[Response]:
        self.outgoing.append(outgoing)
        self.rules.append(rules)
        return self.answer


class HandlerTestCase(SynchronousTestCase):
    def handler(self, inside: str, words: str = "/") -> ProxyPass:
        scope = load_location(words, inside, UPSTREAM)
        settings = ProxySettings.from_scope(scope)
        assert settings is not None
        http = scope.parent and scope.parent.parent
        assert http is not None
        handler = ProxyPass(settings, Groups.from_scope(http, MemoryReactorClock()))
        self.group = Recorder()
        handler._group = self.group
        return handler

    def outgoing(self, inside: str, words: str = "/", **request: Any) -> Outgoing:
        handler = self.handler(inside, words)
        self.response = handler(make_request(**request))
        (outgoing,) = self.group.outgoing
        return outgoing

    def fields(self, inside: str, **request: Any) -> list[tuple[bytes, bytes]]:
        headers = self.outgoing("proxy_pass http://backend; " + inside, **request).headers
        assert headers is not None
        return list(headers)


class EarlyHintsTests(HandlerTestCase):
    """``early_hints``."""

    FIELDS = Headers([(b"Link", b"</a>"), (b"Server", b"x"), (b"X-Secret", b"y")])

    def hinted(self, inside: str, *sizes: int, **request: Any) -> tuple[list[Any], Request]:
        """What the client gets of hints of these sizes."""
        asked = make_request(**request)
        told: list[Any] = []
        asked.hint = lambda headers: told.append(list(headers))
        self.handler("proxy_pass http://backend; " + inside)(asked)
        take = self.group.outgoing[0].hinted
        if take is not None:
            for size in sizes:
                take(size, self.FIELDS)
        return told, asked

    def test_passed_without_what_is_hidden(self) -> None:
        told, _ = self.hinted("early_hints 1; proxy_hide_header x-secret;", 40)
        self.assertEqual(told, [[(b"Link", b"</a>")]])

    def test_where_a_string_says_so(self) -> None:
        for inside, target, count in (
            ("", b"/", 0),
            ("early_hints 0 $arg_a;", b"/", 0),
            ("early_hints 0 $arg_a;", b"/?a=0", 0),
            ("early_hints 0 $arg_a;", b"/?a=1", 1),
        ):
            told, _ = self.hinted(inside, 40, target=target)
            self.assertEqual(len(told), count, (inside, target))

    def test_too_big(self) -> None:
        told, request = self.hinted("early_hints 1; proxy_buffer_size 4k;", 4000, 96, 1)
        self.assertEqual(len(told), 2)
        self.assertIn(("info", "upstream sent too big early hints"), request.notes)

    def test_nobody_waits_for_them(self) -> None:
        """The answer has begun, or the client speaks HTTP/1.0: then there is no ``hint``."""
        asked = make_request()
        self.handler("proxy_pass http://backend; early_hints 1;")(asked)
        take = self.group.outgoing[0].hinted
        assert take is not None
        take(40, self.FIELDS)


class TargetTests(HandlerTestCase):
    def target(self, inside: str, words: str = "/", **request: Any) -> bytes:
        return self.outgoing(f"proxy_pass {inside};", words, **request).target

    def test_unchanged_uri_goes_as_received(self) -> None:
        for target in (b"/a%20b//c/../d?x=%41", b"/", b"/x?", b"/%7Euser", b"/a|b"):
            path = {b"/a%20b//c/../d?x=%41": b"/a b/d", b"/%7Euser": b"/~user", b"/x?": b"/x"}
            request = {"uri": path.get(target, target), "target": target}
            self.assertEqual(self.target("http://backend", **request), target)

    def test_absolute_form_loses_its_authority(self) -> None:
        target = self.target("http://backend", target=b"http://h/a?b", uri=b"/a", args=b"b")
        self.assertEqual(target, b"/a?b")

    def test_escaping_is_nginxs(self) -> None:
        # Observed on nginx 1.22.1: received, $uri, where to, sent.
        for received, uri, to, sent in (
            (b"/a|b", b"/a|b", "http://backend/q/", b"/q/a|b"),
            (b"/a%20b|c", b"/a b|c", "http://backend/q/", b"/q/a%20b%7Cc"),
            (b"//x/./y", b"/x/y", "http://backend/q/", b"/q/x/y"),
            (b"/x#frag", b"/x", "http://backend/q/", b"/q/x"),
            (b"/x#frag", b"/x", "http://backend", b"/x#frag"),
            (b"/rw/a|b", b"/zz/a|b", "http://backend", b"/zz/a%7Cb"),
        ):
            self.assertEqual(self.target(to, target=received, uri=uri), sent)

    def test_rewritten_uri_is_escaped(self) -> None:
        target = self.target(
            "http://backend", target=b"/old", uri=b"/new page%", args=b"q=1", redirects=1
        )
        self.assertEqual(target, b"/new%20page%25?q=1")

    def test_control_characters_never_reach_the_request_line(self) -> None:
        target = self.target(
            "http://backend", target=b"/old", uri=b"/x HTTP/1.1\r\nHost: evil", args=b"a\x7f b"
        )
        self.assertEqual(target, b"/x%20HTTP/1.1%0D%0AHost:%20evil?a%7F%20b")

    def test_uri_replaces_the_prefix(self) -> None:
        target = self.target("http://backend/b/", "/a/", target=b"/a/x%20y?q", uri=b"/a/x y")
        self.assertEqual(target, b"/b/x%20y?q")
        target = self.target("http://backend/", "^~ /a/", target=b"/a/x", uri=b"/a/x")
        self.assertEqual(target, b"/x")
        target = self.target("http://backend/y", "= /a", target=b"/a", uri=b"/a")
        self.assertEqual(target, b"/y")

    def test_uri_changed_out_of_the_prefix_replaces_all(self) -> None:
        target = self.target("http://backend/b/", "/a/", target=b"/a/x", uri=b"/c")
        self.assertEqual(target, b"/c")

    def test_uri_from_variables_is_taken_as_it_is(self) -> None:
        handler = self.handler("proxy_pass http://backend$uri;")
        group = Recorder()
        handler._groups._named["backend"] = group  # type: ignore[assignment]
        handler._group = None
        handler(make_request(target=b"/x?y", uri=b"/a\r\nb"))
        self.assertEqual(group.outgoing[0].target, b"/a%0D%0Ab")

    def test_uri_where_it_cannot_be(self) -> None:
        for words in ("~ ^/a", "@named"):
            with self.assertRaises(ConfigurationError) as caught:
                self.handler("proxy_pass http://backend/x;", words)
            self.assertIn('"proxy_pass" cannot have URI part', str(caught.exception))

    def test_if_has_the_handler_of_its_location(self) -> None:
        scope = load_location("/a/", "proxy_pass http://backend/b; if ($args) { }", UPSTREAM)
        settings = ProxySettings.from_scope(the_if(scope))
        assert settings is not None
        self.assertEqual(settings.location, b"/a/")


class RequestTests(HandlerTestCase):
    def test_default_fields(self) -> None:
        self.assertEqual(self.fields(""), [(b"Host", b"backend")])

    def test_the_farms_fields(self) -> None:
        fields = self.fields(
            "proxy_set_header Host $host; proxy_set_header X-Real-IP $remote_addr;"
            "proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;",
            headers=[
                (b"Host", b"Client.example:80"),
                (b"X-Forwarded-For", b"10.0.0.1"),
                (b"accept", b"*/*"),
                (b"If-None-Match", b'"x"'),
            ],
        )
        self.assertEqual(
            fields,
            [
                (b"Host", b"client.example"),
                (b"X-Real-IP", b"192.0.2.1"),
                (b"X-Forwarded-For", b"10.0.0.1, 192.0.2.1"),
                (b"accept", b"*/*"),
                (b"If-None-Match", b'"x"'),
            ],
        )

    def test_hop_by_hop_fields_stay_here(self) -> None:
        dropped = [
            (b"Connection", b"keep-alive, X-Hop"), (b"Keep-Alive", b"1"), (b"TE", b"trailers"),
            (b"Trailer", b"X"), (b"Upgrade", b"h2c"), (b"Expect", b"100-continue"),
            (b"Proxy-Connection", b"x"), (b"x-hop", b"1"), (b"Host", b"h"),
        ]  # fmt: skip
        fields = self.fields("", headers=[*dropped, (b"X-End", b"1")])
        self.assertEqual(fields, [(b"Host", b"backend"), (b"X-End", b"1")])

    def test_empty_value_drops_the_field(self) -> None:
        fields = self.fields('proxy_set_header accept "";', headers=[(b"Accept", b"x")])
        self.assertEqual(fields, [(b"Host", b"backend")])

    def test_http_1_1_has_a_host(self) -> None:
        empty = "proxy_set_header Host $host;"
        self.assertEqual(self.fields(empty, host=b""), [(b"Host", b"backend")])
        self.assertEqual(self.fields("proxy_http_version 1.0;" + empty, host=b""), [])

    def test_framing_and_upgrade_cannot_be_set(self) -> None:
        fields = self.fields(
            "proxy_set_header Content-Length 5; proxy_set_header Transfer-Encoding chunked;"
            "proxy_set_header Upgrade websocket; proxy_set_header Connection upgrade;"
        )
        self.assertEqual(fields, [(b"Host", b"backend")])

    def test_a_value_that_would_end_its_field_is_refused(self) -> None:
        handler = self.handler("proxy_pass http://backend; proxy_set_header X $uri;")
        response = handler(make_request(uri=b"/a\r\nEvil: 1"))
        assert isinstance(response, Response)
        self.assertEqual(response.status, 400)
        self.assertEqual(self.group.outgoing, [])

    def test_no_client_fields(self) -> None:
        fields = self.fields("proxy_pass_request_headers off;", headers=[(b"Accept", b"x")])
        self.assertEqual(fields, [(b"Host", b"backend")])

    def test_proxy_host_and_port(self) -> None:
        for url, host, port in (
            ("http://127.0.0.1:8081", b"127.0.0.1:8081", b"8081"),
            ("http://127.0.0.1:80/", b"127.0.0.1", b"80"),
            ("https://127.0.0.1/", b"127.0.0.1", b"443"),
            ("http://[::1]:81", b"[::1]:81", b"81"),
            ("http://unix:/run/x:/", b"localhost", b""),
        ):
            outgoing = self.outgoing(f"proxy_pass {url}; proxy_set_header X-Port $proxy_port;")
            expected = [(b"Host", host)] + ([(b"X-Port", port)] if port else [])
            self.assertEqual(list(outgoing.headers or ()), expected)

    def test_upgrade(self) -> None:
        asks = [(b"Connection", b"keep-alive, Upgrade"), (b"Upgrade", b"websocket")]
        config = "proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade;"
        proxy = "proxy_pass http://backend;"
        for inside, headers, upgrade in (
            (config, asks, True),
            ("", asks, False),
            (config, asks[:1], False),
            (config, asks[1:], False),
            (config + "proxy_http_version 1.0;", asks, False),
        ):
            outgoing = self.outgoing(proxy + inside, headers=headers)
            self.assertEqual(outgoing.upgrade, upgrade, (inside, headers))
            assert outgoing.headers is not None
            for name in (b"upgrade", b"connection"):
                self.assertEqual(name in outgoing.headers, upgrade, (inside, headers))

    def test_trailers(self) -> None:
        proxy = "proxy_pass http://backend;"
        for inside, te, passed in (
            ("proxy_pass_trailers on;", b"gzip, trailers", True),
            ("proxy_pass_trailers on;", b"gzip", False),
            ("", b"trailers", False),
        ):
            outgoing = self.outgoing(proxy + inside, headers=[(b"TE", te)])
            self.assertEqual(outgoing.trailers, passed)

    def test_bodies(self) -> None:
        body = Source([b"abc"])
        proxy = "proxy_pass http://backend;"
        length = {"headers": [(b"Content-Length", b"3")], "body": body, "method": b"PUT"}
        streamed = self.outgoing(proxy + "proxy_request_buffering off;", **length)
        self.assertIs(streamed.body, body)
        self.assertIsNone(self.outgoing(proxy, body=body).body)
        self.assertIsNone(self.outgoing(proxy + "proxy_pass_request_body off;", **length).body)
        fixed = self.outgoing(proxy + "proxy_set_body X$request_method;", **length).body
        assert fixed is not None
        self.assertEqual(fixed.length, 4)
        sink = self.successResultOf(read(Response(200, body=fixed)))
        self.assertEqual((sink.received, sink.ended), (b"XPUT", 1))

    def test_a_body_is_read_whole_before_the_upstream_gets_it(self) -> None:
        for more in ("", "proxy_request_buffering off; proxy_http_version 1.0;"):
            handler = self.handler("proxy_pass http://backend;" + more)
            body = Source([b"ab"], known=False, held=True)
            chunked = [(b"Transfer-Encoding", b"chunked")]
            handler(make_request(b"POST", headers=chunked, body=body))
            self.assertEqual(self.group.outgoing, [])
            body.more(b"c")
            body.finish()
            (outgoing,) = self.group.outgoing
            assert outgoing.body is not None
            self.assertEqual(outgoing.body.length, 3)

    def test_a_body_made_of_the_clients(self) -> None:
        for more in ("", "proxy_request_buffering off; proxy_pass_request_body off;"):
            inside = f'proxy_pass http://backend; proxy_set_body "<$request_body>"; {more}'
            handler = self.handler(inside)
            body = Source([b"ab"], known=False, held=True)
            chunked = [(b"Transfer-Encoding", b"chunked")]
            handler(make_request(b"POST", headers=chunked, body=body))
            self.assertEqual(self.group.outgoing, [])
            body.more(b"c")
            body.finish()
            outgoing = self.group.outgoing.pop()
            assert outgoing.body is not None
            sink = self.successResultOf(read(Response(200, body=outgoing.body)))
            self.assertEqual(sink.received, b"<abc>")

    def test_a_client_that_breaks_off_its_body(self) -> None:
        handler = self.handler("proxy_pass http://backend;")
        body = Source(known=False, held=True)
        chunked = [(b"Transfer-Encoding", b"chunked")]
        answer = handler(make_request(b"POST", headers=chunked, body=body))
        assert isinstance(answer, Deferred) and body.sink is not None
        body.sink.fail(BodyTooLarge("more than 1 bytes"))
        self.assertEqual(self.successResultOf(answer).status, 413)
        self.assertEqual(self.group.outgoing, [])

    def test_method_and_version(self) -> None:
        outgoing = self.outgoing(
            "proxy_pass http://backend; proxy_method PURGE; proxy_http_version 1.0;"
        )
        self.assertEqual((outgoing.method, outgoing.version), (b"PURGE", (1, 0)))
        self.assertEqual(self.outgoing("proxy_pass http://backend;").version, (1, 1))

    def test_method_from_a_variable_is_checked(self) -> None:
        handler = self.handler("proxy_pass http://backend; proxy_method $arg_m;")
        response = handler(make_request(target=b"/?m=A%20B", args=b"m=A%20B /x"))
        assert isinstance(response, Response)
        self.assertEqual(response.status, 400)

    def test_rules(self) -> None:
        self.outgoing(
            "proxy_pass http://backend; proxy_next_upstream error http_502 non_idempotent;"
            "proxy_next_upstream_tries 2; proxy_next_upstream_timeout 3s;"
            "proxy_connect_timeout 1s; proxy_send_timeout 2s; proxy_read_timeout 500ms;"
        )
        (rules,) = self.group.rules
        self.assertEqual(rules.next_upstream, {"error", "http_502", "non_idempotent"})
        self.assertEqual((rules.tries, rules.next_timeout, rules.scheme), (2, 3.0, "http"))
        timeouts = rules.timeouts
        self.assertEqual((timeouts.connect, timeouts.send, timeouts.read), (1.0, 2.0, 0.5))
        self.outgoing("proxy_pass http://backend; proxy_next_upstream off;")
        self.assertEqual(self.group.rules[0].next_upstream, frozenset())


class AnswerTests(HandlerTestCase):
    def answer(
        self,
        inside: str,
        fields: Sequence[tuple[bytes, bytes]],
        words: str = "/",
        status: int = 200,
        **request: Any,
    ) -> Response:
        handler = self.handler(inside, words)
        self.group.answer = succeed(Response(status, Headers(fields)))
        answering = handler(make_request(**request))
        assert isinstance(answering, Deferred)
        return self.successResultOf(answering)

    def location(self, inside: str, value: bytes, words: str = "/", **request: Any) -> bytes:
        response = self.answer(inside, [(b"Location", value)], words, **request)
        return response.headers.first(b"location") or b""

    def test_hidden_fields(self) -> None:
        fields = [
            (b"Date", b"x"), (b"Server", b"x"), (b"X-Accel-Expires", b"0"), (b"X-Pad", b"x"),
            (b"X-Secret", b"s"), (b"ETag", b'"e"'), (b"Set-Cookie", b"a"), (b"Set-Cookie", b"b"),
        ]  # fmt: skip
        response = self.answer("proxy_pass http://backend; proxy_hide_header X-Secret;", fields)
        self.assertEqual(list(response.headers), fields[5:])
        self.assertEqual((response.final, response.conditional), (True, False))
        response = self.answer("proxy_pass http://backend; proxy_pass_header server;", fields[:2])
        self.assertEqual(list(response.headers), [(b"Server", b"x")])

    def test_intercepted_errors_are_not_final(self) -> None:
        for status, final in ((200, True), (404, False)):
            response = self.answer(
                "proxy_pass http://backend; proxy_intercept_errors on;", [], status=status
            )
            self.assertEqual(response.final, final)

    def test_redirects_by_default(self) -> None:
        passing = "proxy_pass http://backend;"
        self.assertEqual(
            self.location(passing, b"http://backend/x"), b"http://client.example:8080/x"
        )
        self.assertEqual(self.location(passing, b"http://other/x"), b"http://other/x")
        self.assertEqual(self.location(passing, b"/x"), b"/x")
        passing = "proxy_pass http://backend/b/;"
        moved = self.location(passing, b"http://backend/b/x", "/a/")
        self.assertEqual(moved, b"http://client.example:8080/a/x")

    def test_redirects_off(self) -> None:
        passing = "proxy_pass http://backend; proxy_redirect off;"
        self.assertEqual(self.location(passing, b"http://backend/x"), b"http://backend/x")

    def test_redirect_pairs(self) -> None:
        passing = (
            "proxy_pass http://backend;"
            "proxy_redirect http://$host/a/ https://new/;"
            r"proxy_redirect ~*^http://x(?<digit>\d)/(.*)$ http://y$digit/$2;"
            "proxy_redirect default;"
        )
        self.assertEqual(self.location(passing, b"http://client.example/a/b"), b"https://new/b")
        self.assertEqual(self.location(passing, b"HTTP://X7/p"), b"http://y7/p")
        self.assertEqual(
            self.location(passing, b"http://backend/p"), b"http://client.example:8080/p"
        )

    def test_redirect_that_would_split_the_response_is_left_alone(self) -> None:
        passing = "proxy_pass http://backend; proxy_redirect http://a/ http://b/$uri;"
        self.assertEqual(self.location(passing, b"http://a/x", uri=b"/\r\nX:"), b"http://a/x")

    def test_refresh(self) -> None:
        response = self.answer(
            "proxy_pass http://backend; proxy_redirect http://backend/ /here/;",
            [(b"Refresh", b"5; url=http://backend/x")],
        )
        self.assertEqual(response.headers.first(b"refresh"), b"5; url=/here/x")

    def test_default_redirect_needs_a_constant(self) -> None:
        with self.assertRaises(ConfigurationError) as caught:
            self.handler("proxy_pass http://$host; proxy_redirect default;")
        self.assertIn('"proxy_redirect default" cannot be used', str(caught.exception))

    def failure(self, error: Exception) -> Response:
        handler = self.handler("proxy_pass http://backend;")
        self.group.answer = fail(error)
        answering = handler(make_request())
        assert isinstance(answering, Deferred)
        return self.successResultOf(answering)

    def test_failures(self) -> None:
        for error, status in (
            (UpstreamError(Fault.CONNECT, "x"), 502),
            (UpstreamError(Fault.INVALID_HEADER, "x"), 502),
            (UpstreamError(Fault.TIMEOUT, "x"), 504),
            (NoLivePeers("x"), 502),
            (CancelledError(), 499),
            (BodyTooLarge("x"), 413),
        ):
            response = self.failure(error)
            self.assertEqual((response.status, response.final), (status, False))

    def test_a_defect_is_500_and_logged(self) -> None:
        self.assertEqual(self.failure(KeyError("oops")).status, 500)
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)

    def test_dynamic_target_that_cannot_be(self) -> None:
        handler = self.handler("proxy_pass http://$arg_to;")
        handler._group = None
        for to, status in (
            (b"elsewhere.example", 502), (b"", 500), (b"127.0.0.1:99999", 500), (b"/", 500)
        ):  # fmt: skip
            response = handler(make_request(args=b"to=" + to))
            assert isinstance(response, Response)
            self.assertEqual(response.status, status)
