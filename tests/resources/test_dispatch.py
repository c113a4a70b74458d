"""The dispatcher: phases, error pages, limits, and handlers that misbehave."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.http import filters
from imagefarm.http.headers import Headers
from imagefarm.http.message import BodySink, Request, Response
from imagefarm.resources.dispatch import MAX_REDIRECTS
from tests.support.descriptors import descriptors, keep_garbage

from .site import Shown, Site


class Upload:
    """A request's body that says how long it is, and whether it was dropped."""

    def __init__(self, length: int | None) -> None:
        self.length = length
        self.cancelled = False

    def start(self, sink: BodySink) -> None:
        raise AssertionError("nobody should read it")

    def pause(self) -> None:
        raise AssertionError

    def resume(self) -> None:
        raise AssertionError

    def cancel(self) -> None:
        self.cancelled = True


class DispatchCase(SynchronousTestCase):
    def site(self, text: str, **more: Any) -> Site:
        return Site(self.addCleanup, text, **more)


class HandlerTests(DispatchCase):
    def answer(self, content: Any, text: str = "location /x { }") -> tuple[Shown, list[Any]]:
        site = self.site(text, contents={"/x": content})
        with capturedLogs() as logs:
            shown = site.ask("/x")
        return shown, logs

    def test_response(self) -> None:
        shown, _ = self.answer(lambda request: Response(200, Headers(), b"fine"))
        self.assertEqual((shown.status, shown.body), (200, b"fine"))

    def test_raising_is_500_and_logged(self) -> None:
        def broken(request: Request) -> Response:
            raise ZeroDivisionError("oh")

        shown, logs = self.answer(broken)
        self.assertEqual((shown.status, shown.close), (500, True))
        self.assertIn(b"500 Internal Server Error", shown.body)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertIn(
            'while answering, client: 192.0.2.1, server: site, request: "GET /x HTTP/1.1"',
            formatEvent(logs[0]),
        )

    def test_deferred(self) -> None:
        waiting: Deferred[Response] = Deferred()
        site = self.site("location /x { }", contents={"/x": lambda request: waiting})
        result = site.result(site.request("/x"))
        assert isinstance(result, Deferred)
        self.assertNoResult(result)
        waiting.callback(Response(200, Headers(), b"late"))
        self.assertEqual(self.successResultOf(result).body, b"late")

    def test_deferred_to_an_error_page(self) -> None:
        waiting: Deferred[Response] = Deferred()
        site = self.site(
            'location /x { error_page 502 /page; } location /page { return 200 "page"; }',
            contents={"/x": lambda request: waiting},
        )
        result = site.result(site.request("/x"))
        assert isinstance(result, Deferred)
        waiting.callback(Response(502))
        answer = self.successResultOf(result)
        self.assertEqual((answer.status, answer.body), (502, b"page"))

    def test_failing_deferred_is_500_and_logged(self) -> None:
        waiting: Deferred[Response] = Deferred()
        site = self.site("location /x { }", contents={"/x": lambda request: waiting})
        result = site.result(site.request("/x"))
        assert isinstance(result, Deferred)
        waiting.errback(ValueError("no"))
        self.assertEqual(self.successResultOf(result).status, 500)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_cancelled_is_no_defect(self) -> None:
        waiting: Deferred[Response] = Deferred()
        site = self.site("location /x { }", contents={"/x": lambda request: waiting})
        result = site.result(site.request("/x"))
        assert isinstance(result, Deferred)
        waiting.errback(CancelledError())
        answer = self.successResultOf(result)
        self.assertEqual((answer.status, answer.close), (499, True))
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_a_filter_that_raises_leaves_no_file_open(self) -> None:
        def broken(request: Request, response: Response, settings: object) -> Response:
            raise ZeroDivisionError("oh")

        site = self.site("location / { }", files=["a.txt"])
        site.ask("/a.txt")
        self.patch(filters, "FILTERS", (*filters.FILTERS, broken))
        keep_garbage(self)
        before = descriptors()
        for _ in range(5):
            self.assertEqual(site.ask("/a.txt").status, 500)
        self.assertEqual(descriptors(), before)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 5)

    def test_final_answers_have_no_error_page(self) -> None:
        shown, _ = self.answer(
            lambda request: Response(404, Headers(), b"mine", final=True),
            "location /x { error_page 404 /y; } location /y { return 200; }",
        )
        self.assertEqual((shown.status, shown.body), (404, b"mine"))


class PhaseTests(DispatchCase):
    def test_malformed_targets(self) -> None:
        site = self.site("return 204;")
        for target in ("/%", "/%zz", "/%00", "/../x", "/a/../../b"):
            shown = site.ask(target)
            self.assertEqual((shown.status, shown.close), (400, True), target)

    def test_options_of_the_whole_server(self) -> None:
        site = self.site("add_header X-A b; location / { return 403; }")
        shown = site.ask("*", method=b"OPTIONS")
        self.assertEqual((shown.status, shown.body, shown.close), (200, b"", False))
        self.assertEqual(shown.header("allow"), "GET, HEAD, OPTIONS")
        self.assertEqual(shown.header("x-a"), "b")

    def test_refused_methods(self) -> None:
        """RFC 9110 section 15.5.6: with Allow, whatever page takes the built-in one's place."""
        for text in ("", 'error_page 405 /p; location /p { return 200 "page"; }'):
            site = self.site(text)
            answer = site.dispatcher.reject(site.request("/x", method=b"TRACE"), 405)
            assert isinstance(answer, Response)
            self.assertEqual((answer.status, answer.close), (405, True))
            self.assertEqual(answer.headers.get(b"allow"), b"GET, HEAD")
            self.assertEqual(site.ask("/x", method=b"PUT").header("allow"), "GET, HEAD")

    def test_internal(self) -> None:
        site = self.site(
            'location /in { internal; return 200 "in"; } location /to { try_files /none /in; }'
        )
        self.assertEqual(site.ask("/in").status, 404)
        self.assertEqual(site.ask("/to").body, b"in")

    def test_body_size(self) -> None:
        site = self.site(
            'location /small { client_max_body_size 10; return 200 "taken"; }'
            'location /any { client_max_body_size 0; return 200 "taken"; }'
        )
        for target, length, status in (
            ("/small", 11, 413), ("/small", 10, 200), ("/small", None, 200), ("/any", 1 << 40, 200)
        ):  # fmt: skip
            shown = site.ask(target, method=b"POST", body=Upload(length))
            self.assertEqual(shown.status, status, (target, length))

    def test_access_comes_after_rewriting(self) -> None:
        site = self.site("location /a { deny all; return 204; } location /b { deny all; }")
        self.assertEqual(site.ask("/a").status, 204)
        self.assertEqual(site.ask("/b").status, 403)

    def test_access_rules(self) -> None:
        site = self.site(
            "location /a { deny 10.0.0.1; allow 10.0.0.0/8; allow 2001:db8::/32; allow unix:;"
            " deny all; }"
            "location /open { deny 10.0.0.1; }",
            contents={"/a": lambda r: Response(204), "/open": lambda r: Response(204)},
        )
        for client, status in {
            "10.0.0.1": 403, "10.0.0.2": 204, "11.0.0.1": 403, "2001:db8::5": 204,
            "2001:db9::5": 403, "unix:": 204, "": 403,
        }.items():  # fmt: skip
            self.assertEqual(site.ask("/a", client=client).status, status, client)
        self.assertEqual(site.ask("/open", client="10.0.0.2").status, 204)

    def test_rejected_requests_get_the_servers_error_page(self) -> None:
        site = self.site('error_page 400 /p; location /p { return 200 "page"; }')
        response = site.dispatcher.reject(site.request("/x"), 400)
        assert isinstance(response, Response)
        self.assertEqual((response.status, response.body, response.close), (400, b"page", True))


class ErrorPageTests(DispatchCase):
    def ask(self, text: str, target: str = "/x", **more: Any) -> Shown:
        return self.site(text).ask(target, **more)

    def page(self, words: str) -> tuple[int, bytes]:
        shown = self.ask(
            f"location /x {{ error_page 404 {words}; }}"
            'location /page { return 201 "$uri $args"; } location @named { return 200 "n $uri"; }'
        )
        return shown.status, shown.body

    def test_forms(self) -> None:
        for words, expected in {
            "/page": (404, b"/page "),
            "/page?a=1": (404, b"/page a=1"),
            "= /page": (201, b"/page "),
            "=202 /page": (202, b"/page "),
            "@named": (404, b"n /x"),
            "= @named": (200, b"n /x"),
            "=410 @named": (410, b"n /x"),
        }.items():
            self.assertEqual(self.page(words), expected, words)

    def test_an_upstream_s_empty_answer_is_its_page(self) -> None:
        answer = Response(404, Headers([(b"Content-Type", b"text/x")]), passed=True)
        site = self.site("location /x {}", contents={"/x": lambda request: answer})
        shown = site.ask("/x")
        self.assertEqual((shown.status, shown.body), (404, b""))
        self.assertEqual(shown.header("content-type"), "text/x")

    def test_urls(self) -> None:
        for words, expected in {
            "http://other/": (302, "http://other/"),
            "=301 http://other/": (301, "http://other/"),
            "=404 http://other/$uri": (302, "http://other//x"),
        }.items():
            shown = self.ask(f"location /x {{ error_page 404 {words}; }}")
            self.assertEqual((shown.status, shown.header("location")), expected, words)

    def test_name_from_a_variable(self) -> None:
        shown = self.ask('set $to @n; error_page 404 $to; location @n { return 200 "n"; }')
        self.assertEqual((shown.status, shown.body), (404, b"n"))

    def test_not_recursive(self) -> None:
        shown = self.ask(
            "location /x { error_page 404 /y; } location /y { error_page 404 /z; }"
            'location /z { return 200 "z"; }'
        )
        self.assertEqual(shown.status, 404)
        self.assertIn(b"404 Not Found", shown.body)

    def test_recursive(self) -> None:
        shown = self.ask(
            "recursive_error_pages on; location /x { error_page 404 /y; }"
            'location /y { error_page 404 =205 /z; } location /z { return 200 "z"; }'
        )
        self.assertEqual((shown.status, shown.body), (205, b"z"))

    def test_cycles_end(self) -> None:
        """Error pages that lead to themselves, by way of each kind of redirect."""
        for text in (
            "recursive_error_pages on; error_page 404 500 /x;",
            "recursive_error_pages on; error_page 404 500 @x; location @x { return 500; }",
            "location / { try_files /none /x; }",
            "location / { try_files /none @x; } location @x { rewrite ^ /x last; }",
            "location / { rewrite ^ /x last; }",
        ):
            shown = self.ask(text)
            self.assertEqual((shown.status, shown.close), (500, True), text)
            self.assertEqual(shown.request.redirects, MAX_REDIRECTS + 1)

    def test_a_status_that_its_own_redirect_gives(self) -> None:
        shown = self.ask("recursive_error_pages on; error_page 404 302 http://other/;")
        self.assertEqual((shown.status, shown.header("location")), (302, "http://other/"))
        self.assertIn(b"302 Found", shown.body)

    def test_all_redirects_together_are_limited(self) -> None:
        site = self.site(
            "location /a { rewrite ^/a(.*)x$ /a$1 last; try_files /none /b$uri; }"
            'location /b { return 200 "end"; }'
        )
        self.assertEqual(site.ask("/a" + "x" * (MAX_REDIRECTS - 1)).body, b"end")
        self.assertEqual(site.ask("/a" + "x" * MAX_REDIRECTS).status, 500)

    def test_the_page_is_got(self) -> None:
        body = Upload(3)
        shown = self.ask(
            'error_page 404 /p; location /p { return 200 "$request_method $request"; }',
            method=b"PUT", body=body,
        )  # fmt: skip
        self.assertEqual(shown.status, 405)  # PUT of a static file
        shown = self.ask(
            'location /x { return 403; } error_page 403 /p; location /p { return 200 '
            '"$request_method $request"; }',
            method=b"PUT",
        )  # fmt: skip
        self.assertEqual(shown.body, b"GET PUT /x HTTP/1.1")

    def test_what_the_answer_said_goes_with_the_page(self) -> None:
        shown = self.ask(
            'location /x { return 302 /y; } error_page 302 /p; location /p { return 200 "p"; }'
        )
        self.assertEqual((shown.status, shown.body), (302, b"p"))
        self.assertEqual(shown.header("location"), "http://site:8080/y")

    def test_unknown_name(self) -> None:
        shown = self.ask("error_page 404 @nowhere;")
        self.assertEqual(shown.status, 500)

    def test_refused_ranges_and_preconditions(self) -> None:
        site = self.site(
            'error_page 412 416 /p; location = /p { return 200 "p"; }', files=["a.txt"]
        )
        shown = site.ask("/a.txt", (b"Range", b"bytes=999-"))
        self.assertEqual((shown.status, shown.body), (416, b"p"))
        self.assertEqual(shown.header("content-range"), "bytes */16")
        shown = site.ask("/a.txt", (b"If-Match", b'"x"'))
        self.assertEqual((shown.status, shown.body), (412, b"p"))


class RedirectTests(DispatchCase):
    """``absolute_redirect`` and its like."""

    def location(self, text: str = "", **more: Any) -> str | None:
        return (
            self.site(f"location /x {{ {text} return 301 /y; }}")
            .ask("/x", **more)
            .header("location")
        )

    def test_forms(self) -> None:
        self.assertEqual(self.location(), "http://site:8080/y")
        self.assertEqual(self.location(host=b"other"), "http://other:8080/y")
        self.assertEqual(self.location(tls=True), "https://site:8080/y")
        self.assertEqual(self.location("port_in_redirect off;"), "http://site/y")
        self.assertEqual(
            self.location("server_name_in_redirect on;", host=b"other"), "http://site:8080/y"
        )
        self.assertEqual(self.location("absolute_redirect off;"), "/y")

    def test_without_host(self) -> None:
        self.assertEqual(self.location(host=b""), "http://127.0.0.1:8080/y")

    def test_without_host_on_every_address(self) -> None:
        for name, expected in {
            "site": "http://site:8080/y", "~rx": "/y", "*.example": "/y", '""': "/y",
        }.items():  # fmt: skip
            site = self.site(
                f"server {{ listen 8080; server_name {name}; return 301 /y; }}", whole=True
            )
            shown = site.ask("/", host=b"", server=("", 8080))
            self.assertEqual(shown.header("location"), expected, name)

    def test_default_ports(self) -> None:
        text = "server { listen 127.0.0.1:80; listen [::1]:443 ssl; return 301 /y; }"
        site = self.site(text, whole=True)
        shown = site.ask("/", server=("127.0.0.1", 80))
        self.assertEqual(shown.header("location"), "http://site/y")
        shown = site.ask("/", server=("::1", 443), tls=True, host=b"")
        self.assertEqual(shown.header("location"), "https://[::1]/y")

    def test_a_location_with_a_slash_is_reached_without(self) -> None:
        site = self.site(
            "location /app/ { deny all; return 410; proxy_pass http://127.0.0.1:9; }"
            "location /has/ { proxy_pass http://127.0.0.1:9; } location /has { return 204; }"
            "location /file/ { } location ~ . { return 205; }"
        )
        shown = site.ask("/app?x=1")
        self.assertEqual(
            (shown.status, shown.header("location")), (301, "http://site:8080/app/?x=1")
        )
        self.assertEqual(site.ask("/app2").status, 205)
        self.assertEqual(site.ask("/has").status, 205)
        self.assertEqual(site.ask("/file").status, 205)


class ElsewhereTests(DispatchCase):
    """X-Accel-Redirect."""

    text = """
        location /x { error_page 404 /page; }
        location /f { internal; }
        location /page { return 200 "page"; }
        location /loop { }
        location @named { return 200 "$request_method"; }
    """

    def ask(self, target: bytes, *fields: tuple[bytes, bytes], **more: Any) -> Shown:
        def accelerated(request: Request) -> Response:
            headers = Headers([(b"Content-Type", b"image/x"), (b"ETag", b'"hidden"')])
            headers.add(b"Cache-Status", b"x; fwd=miss")
            return Response(
                more.get("status", 200), headers, b"dropped",
                final=more.get("final", True), redirect=target,
            )  # fmt: skip

        site = self.site(
            self.text,
            contents={"/x": accelerated, "/loop": accelerated},
            files=("f/a b.txt", "f/..x"),
        )
        return site.ask("/x", *fields, method=more.get("method", b"GET"))

    def test_a_file(self) -> None:
        shown = self.ask(b"/f/a%20b.txt?q=1")
        self.assertEqual((shown.status, shown.body), (200, b"content of f/a b.txt"))
        self.assertEqual(shown.header("content-type"), "image/x")
        self.assertNotEqual(shown.header("etag"), '"hidden"')
        self.assertEqual(shown.header("cache-status"), "x; fwd=miss")

    def test_conditions_of_the_client_hold(self) -> None:
        shown = self.ask(b"/f/..x", (b"Range", b"bytes=0-6"))
        self.assertEqual((shown.status, shown.body), (206, b"content"))

    def test_unsafe(self) -> None:
        for target in (b"/f/../f/..x", b"/f/%2e./..x", b"f/..x", b"/f/..x%00", b"http://a/f"):
            self.assertEqual(self.ask(target).status, 404, target)

    def test_methods(self) -> None:
        self.assertEqual(self.ask(b"@named", method=b"POST").body, b"POST")
        self.assertEqual(self.ask(b"/f/..x", method=b"POST").status, 200)
        self.assertEqual(self.ask(b"@none").status, 500)

    def test_error_pages_go_first(self) -> None:
        shown = self.ask(b"/f/..x", status=404, final=False)
        self.assertEqual((shown.status, shown.body), (404, b"page"))
        shown = self.ask(b"/f/..x", status=503, final=False)
        self.assertEqual((shown.status, shown.body), (200, b"content of f/..x"))

    def test_without_end(self) -> None:
        self.assertEqual(self.ask(b"/loop").status, 500)
