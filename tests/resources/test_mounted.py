"""Twisted resources behind the engine: what they see, how they answer, how it ends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from imagefarm.http.message import Request
from imagefarm.http.uri import escape_uri, normalise
from imagefarm.resources.mounted import BODY_IN_MEMORY, mounted, split

from .mounting import Case


class Seen(Case):
    """What the resource sees of the request."""

    def see(self, what: Callable[[Any], Any], data: bytes, prefix: bytes = b"/") -> Any:
        found = []

        def render(request: Any) -> bytes:
            found.append(what(request))
            return b""

        self.mount(render, prefix).send(data)
        self.assertEqual(len(found), 1)
        return found[0]

    def test_line_and_fields(self) -> None:
        seen = self.see(
            lambda r: (
                r.method, r.uri, r.path, r.args, r.clientproto, r.getHeader(b"x-a"),
                r.requestHeaders.getRawHeaders(b"x-a"), r.getCookie(b"k"),
                r.getRequestHostname(), r.content.read(),
            ),
            b"PUT /a%20b/c?x=1&x=2&y= HTTP/1.1\r\nHost: h:81\r\nX-A: 1\r\nX-A: 2\r\n"
            b"Cookie: k=v; l=w\r\n\r\n",
        )  # fmt: skip
        expected = (
            b"PUT", b"/a%20b/c?x=1&x=2&y=", b"/a%20b/c", {b"x": [b"1", b"2"], b"y": [b""]},
            b"HTTP/1.1", b"2", [b"1", b"2"], b"v", b"h", b"",
        )  # fmt: skip
        self.assertEqual(seen, expected)

    def test_mount_point(self) -> None:
        get = b"GET %b HTTP/1.1\r\nHost: h\r\n\r\n"
        for prefix, target, prepath, postpath in (
            (b"/", b"/", [], [b""]),
            (b"/", b"/a/b%2520c", [], [b"a", b"b%20c"]),
            (b"/app", b"/app", [b"app"], []),
            (b"/app", b"/app/", [b"app"], [b""]),
            (b"/app/", b"/app/", [b"app"], [b""]),
            (b"/a/b/", b"/a/b/c/d", [b"a", b"b"], [b"c", b"d"]),
            (b"/app/", b"/other/../app/x", [b"app"], [b"x"]),
        ):
            seen = self.see(lambda r: (r.prepath, r.postpath), get % target, prefix)
            self.assertEqual(seen, (prepath, postpath), (prefix, target))

    def test_url_of_the_mount(self) -> None:
        url = self.see(
            lambda r: (r.prePathURL(), str(r.URLPath())),
            b"GET /app/x HTTP/1.1\r\nHost: h\r\n\r\n",
            b"/app/",
        )
        self.assertEqual(url, (b"http://h:8080/app", "http://h:8080/app"))

    def test_beside_the_mount(self) -> None:
        client = self.mount(lambda request: b"no", b"/app")
        self.assertIn(b" 404 ", client.get(b"/apple"))
        self.assertEqual(self.leaf.requests, [])
        self.assertFalse(self.app.responses[0].final)

    def test_after_break_the_new_uri_is_below(self) -> None:
        seen = []

        def render(request: Any) -> bytes:
            seen.append((request.prepath, request.postpath))
            return b""

        self.mount(render, b"/old/")
        content = self.app.content

        def rewritten(request: Request) -> Any:
            request.uri, request.valid_location = b"/new/x", False
            return content(request)

        self.app.content = rewritten
        self.client.get(b"/old/x")
        self.assertEqual(seen, [([], [b"new", b"x"])])

    def test_bad_prefix(self) -> None:
        self.assertRaises(ValueError, mounted, Resource(), b"app", reactor=None)

    def test_addresses(self) -> None:
        peer = self.see(
            lambda r: (r.getClientAddress(), r.getHost(), r.isSecure()),
            b"GET / HTTP/1.1\r\nHost: h\r\n\r\n",
        )
        transport = self.client.transport.getPeer()
        self.assertEqual(peer[0].host, transport.host)
        self.assertEqual((peer[1].host, peer[1].port, peer[2]), ("127.0.0.1", 8080, False))

    def test_form(self) -> None:
        seen = self.see(
            lambda r: (r.args, r.content.read()),
            b"POST /?q=0 HTTP/1.1\r\nHost: h\r\nContent-Length: 7\r\n"
            b"Content-Type: application/x-www-form-urlencoded\r\n\r\nq=1&r=2",
        )
        self.assertEqual(seen, ({b"q": [b"1"], b"r": [b"2"]}, b"q=1&r=2"))

    def test_chunked_body_has_its_length(self) -> None:
        seen = self.see(
            lambda r: (
                r.content.read(), r.getHeader(b"content-length"),
                r.getHeader(b"transfer-encoding"), r.getHeader(b"expect"),
            ),
            b"PUT / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n"
            b"Expect: 100-continue\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
        )  # fmt: skip
        self.assertEqual(seen, (b"abcde", b"5", None, None))

    def test_large_body_is_in_a_file(self) -> None:
        data = bytes(BODY_IN_MEMORY + 1)
        head = b"PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % len(data)
        body = self.see(lambda r: (r.content.fileno() > 2, r.content.read()), head + data)
        self.assertEqual(body, (True, data))
        self.assertTrue(self.leaf.finished == [None])

    def test_bad_form(self) -> None:
        client = self.mount(lambda request: b"")
        answer = client.send(
            b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n"
            b"Content-Type: multipart/form-data\r\n\r\nabc"
        )
        self.assertIn(b" 400 ", answer)
        self.assertEqual(self.leaf.requests, [])

    def test_body_too_large(self) -> None:
        """A chunked body that grows past client_max_body_size."""
        client = self.mount(lambda request: b"")
        size = self.app.transfer.client_max_body_size + 1
        answer = client.send(
            b"PUT / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"%x\r\n" % size + bytes(size)
        )
        self.assertIn(b" 413 ", answer)
        self.assertEqual(self.leaf.requests, [])

    def test_client_leaves_during_its_body(self) -> None:
        client = self.mount(lambda request: b"")
        client.send(b"PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nabc")
        client.leave()
        self.assertEqual(self.leaf.requests, [])
        self.assertEqual(self.app.outcomes, [(b"/", 499, 0)])

    @given(
        st.lists(st.binary(min_size=1).filter(lambda s: b"/" not in s and b"\0" not in s)),
        st.lists(st.binary(min_size=1).filter(lambda s: b"/" not in s and b"\0" not in s)),
        st.booleans(),
    )
    def test_split(self, above: list[bytes], below: list[bytes], slash: bool) -> None:
        """Nothing is lost, whatever is in the segments."""
        prefix = b"".join(b"/" + segment for segment in above) + (b"/" if slash else b"")
        uri = b"".join(b"/" + segment for segment in [*above, *below])
        place = split(uri or b"/", prefix or b"/")
        self.assertEqual(place, (above, below or ([] if uri else [b""])))
        quoted = escape_uri(uri or b"/")
        if b"." not in [*above, *below] and b".." not in [*above, *below]:
            self.assertEqual(normalise(quoted)[0], uri or b"/")


class Answers(Case):
    """How a resource may answer."""

    def test_bytes(self) -> None:
        answer = self.mount(lambda request: b"hello").get()
        head, _, body = answer.partition(b"\r\n\r\n")
        self.assertTrue(head.startswith(b"HTTP/1.1 200 OK\r\nServer: imagefarm"), head)
        self.assertIn(b"Content-Type: text/html", head)
        self.assertIn(b"Content-Length: 5\r\n", head)
        self.assertNotIn(b"Twisted", head)
        self.assertEqual(head.count(b"Date: "), 1)
        self.assertEqual(body, b"hello")
        response = self.app.responses[0]
        self.assertEqual((response.final, response.conditional), (True, False))
        self.assertEqual(self.leaf.finished, [None])

    def test_later_in_one_go_is_bytes(self) -> None:
        client = self.mount(lambda request: NOT_DONE_YET)
        self.assertEqual(client.get(), b"")
        request = self.leaf.requests[0]
        request.setResponseCode(201)
        request.write(b"abc")
        self.assertEqual(client.read(), b"")
        request.write(b"de")
        request.finish()
        answer = client.read()
        self.assertIn(b" 201 Created", answer)
        self.assertIn(b"Content-Length: 5\r\n", answer)
        self.assertEqual(self.body(answer), b"abcde")
        self.assertEqual(self.turn(), b"")

    def test_stream(self) -> None:
        client = self.mount(lambda request: NOT_DONE_YET)
        client.get()
        request = self.leaf.requests[0]
        request.write(b"abc")
        self.assertIn(b"Transfer-Encoding: chunked\r\n", head := self.turn())
        self.assertEqual(self.body(head), b"3\r\nabc\r\n")
        request.write(b"de")
        self.assertEqual(client.read(), b"2\r\nde\r\n")
        request.finish()
        self.assertEqual(client.read(), b"0\r\n\r\n")
        self.assertEqual(self.leaf.finished, [None])
        self.assertFalse(client.closing)

    def test_stream_of_known_length(self) -> None:
        client = self.mount(lambda request: NOT_DONE_YET)
        client.get()
        request = self.leaf.requests[0]
        request.setHeader(b"Content-Length", b"5")
        request.write(b"abc")
        answer = self.turn()
        self.assertIn(b"Content-Length: 5\r\n", answer)
        self.assertNotIn(b"chunked", answer)
        request.write(b"de")
        request.finish()
        self.assertEqual(self.body(answer) + client.read(), b"abcde")
        self.assertFalse(client.closing)

    def test_head_of_a_stream_flushed_alone(self) -> None:
        """write(b"") sends the head, as event streams do."""
        client = self.mount(lambda request: NOT_DONE_YET)
        client.get()
        self.leaf.requests[0].write(b"")
        self.assertTrue(self.turn().endswith(b"\r\n\r\n"))

    def test_http_1_0_stream_ends_with_the_connection(self) -> None:
        client = self.mount(lambda request: NOT_DONE_YET)
        client.send(b"GET / HTTP/1.0\r\n\r\n")
        request = self.leaf.requests[0]
        request.write(b"abc")
        self.assertEqual(self.body(self.turn()), b"abc")
        request.finish()
        self.assertTrue(client.closing)

    def test_deferred(self) -> None:
        later: Deferred[bytes] = Deferred()
        client = self.mount(lambda request: later)
        self.assertEqual(client.get(), b"")
        later.callback(b"abc")
        self.assertEqual(self.body(client.read()), b"abc")

    def test_deferred_fails(self) -> None:
        later: Deferred[bytes] = Deferred()
        client = self.mount(lambda request: later)
        client.get()
        later.errback(Failure(LookupError("x")))
        self.assertIn(b" 500 ", client.read())
        self.assertEqual(len(self.flushLoggedErrors(LookupError)), 1)

    def test_deferred_of_something_else(self) -> None:
        later: Deferred[Any] = Deferred()
        client = self.mount(lambda request: later)
        client.get()
        later.callback("text")
        self.assertIn(b" 500 ", client.read())
        self.assertEqual(len(self.flushLoggedErrors(TypeError)), 1)

    def test_deferred_after_the_client(self) -> None:
        later: Deferred[bytes] = Deferred()
        client = self.mount(lambda request: later)
        client.get()
        client.leave()
        later.callback(b"abc")
        self.assertEqual(client.read(), b"")

    def test_inline_callbacks(self) -> None:
        step: Deferred[bytes] = Deferred()

        @inlineCallbacks
        def work(request: Any) -> Any:
            request.write((yield step))
            request.finish()

        def render(request: Any) -> int:
            work(request).addErrback(request.processingFailed)
            return NOT_DONE_YET

        client = self.mount(render)
        client.get()
        step.callback(b"done")
        self.assertEqual(self.body(client.read()), b"done")

    def test_not_bytes(self) -> None:
        self.assertIn(b" 500 ", answer := self.mount(lambda request: "text").get())
        self.assertNotIn(b"Leaf", answer)
        self.assertEqual(len(self.flushLoggedErrors(TypeError)), 1)

    def test_text_written(self) -> None:
        def render(request: Any) -> int:
            request.write("text")
            return NOT_DONE_YET

        self.assertIn(b" 500 ", self.mount(render).get())
        self.assertEqual(len(self.flushLoggedErrors(TypeError)), 1)

    def test_raises(self) -> None:
        def render(request: Any) -> bytes:
            raise ZeroDivisionError

        self.assertIn(b" 500 ", self.mount(render).get())
        response = self.app.responses[0]
        self.assertEqual((response.final, response.body), (False, b""))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertIsInstance(self.leaf.finished[0], ZeroDivisionError)

    def test_raises_after_it_has_begun(self) -> None:
        """What has been sent must not look complete."""
        client = self.mount(lambda request: NOT_DONE_YET)
        client.get()
        request = self.leaf.requests[0]
        request.write(b"abc")
        self.turn()
        request.processingFailed(Failure(ZeroDivisionError()))
        self.assertNotIn(b"0\r\n\r\n", client.read())
        self.assertTrue(client.transport.aborted)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_wrong_content_length(self) -> None:
        for declared in (b"4", b"6"):

            def render(request: Any, declared: bytes = declared) -> int:
                request.setHeader(b"Content-Length", declared)
                request.write(b"12345")
                request.finish()
                return NOT_DONE_YET

            self.assertIn(b" 500 ", self.mount(render).get())

    def test_bodiless_statuses(self) -> None:
        for status in (204, 304):

            def render(request: Any, status: int = status) -> bytes:
                request.setResponseCode(status)
                return b"dropped"

            head, _, body = self.mount(render).get().partition(b"\r\n\r\n")
            self.assertIn(b" %d " % status, head)
            self.assertNotIn(b"Content-Length", head)
            self.assertEqual(body, b"")

    def test_preconditions(self) -> None:
        def render(request: Any) -> bytes:
            request.setLastModified(1_000_000)
            return b"" if request.setETag(b'"e"') else b"whole"

        client = self.mount(render)
        plain = client.get()
        self.assertIn(b'ETag: "e"\r\n', plain)
        self.assertIn(b"Last-Modified: Mon, 12 Jan 1970 13:46:40 GMT\r\n", plain)
        self.assertIn(b" 304 ", client.get(extra=b'If-None-Match: "e"\r\n'))
        self.assertIn(b" 200 ", client.get(extra=b'If-None-Match: "f"\r\n'))

    def test_several_fields_of_a_name(self) -> None:
        def render(request: Any) -> bytes:
            request.addCookie(b"a", b"1")
            request.addCookie(b"b", b"2")
            return b""

        answer = self.mount(render).get()
        self.assertIn(b"Set-Cookie: a=1\r\nSet-Cookie: b=2\r\n", answer)

    def test_closes_the_connection_if_asked(self) -> None:
        def field(request: Any) -> bytes:
            request.setHeader(b"Connection", b"close")
            return b"bye"

        def afterwards(request: Any) -> int:
            request.write(b"bye")
            transport = request.transport
            request.finish()
            transport.loseConnection()
            return NOT_DONE_YET

        for render in (field, afterwards):
            client = self.mount(render)
            self.assertIn(b"Connection: close\r\n", client.get())
            self.assertTrue(client.closing)

    def test_loses_the_connection(self) -> None:
        def render(request: Any) -> int:
            request.loseConnection()
            return NOT_DONE_YET

        client = self.mount(render)
        self.assertEqual(client.get(), b"")
        self.assertTrue(client.closing)
        self.assertEqual(self.app.outcomes, [(b"/", 444, 0)])

    def test_unsupported_method(self) -> None:
        class GetOnly(Resource):
            isLeaf = True

            def render_GET(self, request: Any) -> bytes:
                return b"x"

        client = self.mount(GetOnly())
        answer = client.send(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n")
        self.assertIn(b" 405 ", answer)
        self.assertIn(b"Allow: GET", answer.replace(b"HEAD, ", b""))

    def test_missing_child(self) -> None:
        answer = self.mount(Resource()).get(b"/none")
        self.assertIn(b" 404 ", answer)
        self.assertIn(b"No Such Resource", answer)
