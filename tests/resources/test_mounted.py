"""Twisted resources behind the engine: what they see, how they answer, how it ends."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.error import UnsupportedMethod
from twisted.web.resource import IResource, Resource
from twisted.web.server import NOT_DONE_YET
from zope.interface import implementer

from imagefarm.app.configuration import directive_table, variables
from imagefarm.config.errors import ConfigurationError, Invalid
from imagefarm.config.loader import Loaded, convert
from imagefarm.config.parse import parse_text
from imagefarm.http.message import Request, Response
from imagefarm.http.uri import escape_uri, normalise
from imagefarm.resources import directives, outflow
from imagefarm.resources.directives import LOCATION_BLOCK, RESOURCE, SERVER_BLOCK
from imagefarm.resources.mounted import BODY_IN_MEMORY, mount_point, mounted, split
from tests.http.fakes import Client, ScriptedApplication


@implementer(IResource)
class Leaf:
    """A third party's leaf, in the manner of Klein: no `Resource`, `IResource` only."""

    isLeaf = True

    def __init__(self, answer: Callable[[Any], Any]) -> None:
        self.answer = answer
        self.requests: list[Any] = []
        #: What `notifyFinish` said, in order: None or the exception.
        self.finished: list[BaseException | None] = []

    def render(self, request: Any) -> Any:
        self.requests.append(request)
        request.notifyFinish().addCallbacks(
            self.finished.append, lambda failure: self.finished.append(failure.value)
        )
        return self.answer(request)

    def getChildWithDefault(self, name: bytes, request: Any) -> Any:
        raise AssertionError("a leaf has no children")

    def putChild(self, path: bytes, child: Any) -> None:
        raise AssertionError("a leaf has no children")


class Mount(ScriptedApplication):
    """An application that is nothing but a mounted resource."""

    content: Any = None
    #: The responses, for what the wire does not show.
    responses: list[Response]

    def respond(self, request: Request) -> Response | Deferred[Response]:
        self.requests.append(request)
        request.transfer = self.transfer
        request.uri, request.args = normalise(request.head.target)
        answer: Response | Deferred[Response] = self.content(request)
        if isinstance(answer, Deferred):
            return answer.addCallback(self.seen)
        return self.seen(answer)

    def seen(self, response: Response) -> Response:
        self.responses.append(response)
        return response


class Producer:
    """Records what is asked of it."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def pauseProducing(self) -> None:
        self.calls.append("pause")

    def resumeProducing(self) -> None:
        self.calls.append("resume")

    def stopProducing(self) -> None:
        self.calls.append("stop")


class Pulled(Producer):
    """An `IPullProducer` with ``count`` chunks."""

    def __init__(self, request: Any, chunk: bytes, count: int) -> None:
        super().__init__()
        self.request, self.chunk, self.count = request, chunk, count

    def resumeProducing(self) -> None:
        super().resumeProducing()
        self.count -= 1
        self.request.write(self.chunk)
        if not self.count:
            self.request.unregisterProducer()
            self.request.finish()


class Case(SynchronousTestCase):
    def mount(self, answer: Any, prefix: bytes = b"/") -> Client:
        """A client of a resource, or of a leaf whose ``render`` is ``answer``."""
        self.leaf = Leaf(answer)
        resource: Any = answer if IResource.providedBy(answer) else self.leaf
        app = Mount()
        app.responses = []
        self.client = client = Client(app)
        self.app = app
        app.content = mounted(resource, prefix, reactor=client.clock)
        return client

    def turn(self) -> bytes:
        """One turn of the event loop; what the client got."""
        self.client.clock.advance(0)
        return self.client.read()

    def body(self, data: bytes) -> bytes:
        return data.partition(b"\r\n\r\n")[2]


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


class Head(Case):
    def head(self) -> bytes:
        return self.client.send(b"HEAD / HTTP/1.1\r\nHost: h\r\n\r\n")

    def test_bytes(self) -> None:
        self.mount(lambda request: b"hello")
        answer = self.head()
        self.assertIn(b"Content-Length: 5\r\n", answer)
        self.assertEqual(self.body(answer), b"")

    def test_get_in_its_place(self) -> None:
        class GetOnly(Leaf):
            def render(self, request: Any) -> Any:
                if request.method != b"GET":
                    raise UnsupportedMethod([b"GET"])
                return b"hello"

        self.mount(GetOnly(lambda request: b""))
        self.assertIn(b"Content-Length: 5\r\n", self.head())

    def test_no_length_is_known(self) -> None:
        """It gets none; not "Content-Length: 0"."""
        client = self.mount(lambda request: NOT_DONE_YET)
        self.assertEqual(self.head(), b"")
        request = self.leaf.requests[0]
        request.write(b"abc")
        request.finish()
        answer = client.read()
        self.assertIn(b" 200 ", answer)
        self.assertNotIn(b"Content-Length", answer)
        self.assertEqual(self.body(answer), b"")
        self.assertFalse(client.closing)

    def test_pull_producer_runs_to_its_end(self) -> None:
        """Its writes go nowhere, and yet it is asked until it finishes."""

        def render(request: Any) -> int:
            request.registerProducer(Pulled(request, b"abc", 5), False)
            return NOT_DONE_YET

        client = self.mount(render)
        answer = self.head()
        for _ in range(5):
            answer += self.turn()
        self.assertIn(b" 200 ", answer)
        self.assertEqual(self.leaf.finished, [None])
        self.assertFalse(client.closing)

    def test_client_leaves(self) -> None:
        """A resource that goes on for ever hears of it."""
        client = self.mount(lambda request: NOT_DONE_YET)
        self.head()
        self.leaf.requests[0].write(b"event")
        client.leave()
        self.assertEqual(len(self.leaf.finished), 1)
        self.assertIsInstance(self.leaf.finished[0], Exception)


class Backpressure(Case):
    def test_push_producer(self) -> None:
        producer = Producer()
        client = self.mount(lambda request: NOT_DONE_YET)
        client.get()
        request = self.leaf.requests[0]
        request.registerProducer(producer, True)
        request.write(b"a")
        self.turn()
        self.assertEqual(producer.calls, [])
        client.connection.pauseProducing()
        self.assertEqual(producer.calls, ["pause"])
        request.write(b"b")
        self.assertEqual(client.read(), b"")
        client.connection.resumeProducing()
        self.assertEqual(producer.calls, ["pause", "resume"])
        self.assertEqual(client.read(), b"1\r\nb\r\n")
        request.unregisterProducer()
        client.connection.pauseProducing()
        self.assertEqual(producer.calls, ["pause", "resume"])

    def test_push_producer_before_the_answer_goes(self) -> None:
        """It is paused when there is enough, whoever reads."""
        producer = Producer()

        def render(request: Any) -> int:
            request.registerProducer(producer, True)
            request.write(bytes(outflow.ENOUGH))
            calls.extend(producer.calls)
            return NOT_DONE_YET

        calls: list[str] = []
        answer = self.mount(render).get()
        self.assertEqual(calls, ["pause"])
        self.assertEqual(producer.calls, ["pause", "resume"])
        self.assertIn(bytes(outflow.ENOUGH), answer)

    def pulled(self, chunk: bytes, count: int) -> Client:
        """A client of a resource whose pull producer will be ``self.producer``."""

        def render(request: Any) -> int:
            self.producer = Pulled(request, chunk, count)
            request.registerProducer(self.producer, False)
            self.assertEqual(self.producer.calls, [])
            return NOT_DONE_YET

        return self.mount(render)

    def test_small_pull_producer_is_bytes(self) -> None:
        answer = self.pulled(b"abc", 5).get()
        self.assertIn(b"Content-Length: 15\r\n", answer)
        self.assertEqual(self.body(answer), b"abc" * 5)

    def test_large_pull_producer(self) -> None:
        """None is asked for while the client does not read; else one chunk a turn."""
        client = self.pulled(bytes(50_000), 5)
        client.get()
        self.assertEqual(self.producer.count, 3)
        client.connection.pauseProducing()
        self.turn()
        self.assertEqual(self.producer.count, 3)
        client.connection.resumeProducing()
        self.assertEqual(self.producer.count, 3)
        seen: list[int] = []
        client.clock.callLater(0, lambda: seen.append(self.producer.count))
        self.assertTrue(self.turn().endswith(b"0\r\n\r\n"))
        self.assertEqual(seen, [2])
        self.assertEqual(self.leaf.finished, [None])
        self.assertFalse(client.closing)

    def test_pull_producer_that_raises(self) -> None:
        class Broken(Producer):
            def resumeProducing(self) -> None:
                raise ZeroDivisionError

        def render(request: Any) -> int:
            request.registerProducer(Broken(), False)
            return NOT_DONE_YET

        self.assertIn(b" 500 ", self.mount(render).get())
        self.flushLoggedErrors(ZeroDivisionError)

    def test_without_a_producer_there_is_a_limit(self) -> None:
        self.patch(outflow, "MAX_UNSENT", 1000)
        client = self.mount(lambda request: NOT_DONE_YET)
        client.get()
        request = self.leaf.requests[0]
        request.write(b"a")
        self.turn()
        client.connection.pauseProducing()
        request.write(bytes(1000))
        self.assertEqual(self.leaf.finished, [])
        request.write(b"more")
        self.assertIsInstance(self.leaf.finished[0], outflow.Unsent)
        client.connection.resumeProducing()
        self.assertTrue(client.transport.aborted)


class Leaving(Case):
    """The client goes away."""

    def test_before_the_answer(self) -> None:
        producer = Producer()
        client = self.mount(lambda request: NOT_DONE_YET)
        client.get()
        request = self.leaf.requests[0]
        request.registerProducer(producer, True)
        client.leave()
        self.assertEqual(producer.calls, ["stop"])
        self.assertEqual(len(self.leaf.finished), 1)
        self.assertIsInstance(self.leaf.finished[0], Exception)
        request.write(b"ignored")
        self.assertRaises(RuntimeError, request.finish)
        self.assertEqual(self.app.outcomes, [(b"/", 499, 0)])

    def test_while_it_is_made(self) -> None:
        """Between the first byte written and the next turn of the loop."""
        client = self.mount(lambda request: NOT_DONE_YET)
        client.get()
        self.leaf.requests[0].write(b"a")
        client.leave()
        self.assertEqual(self.turn(), b"")
        self.assertEqual(len(self.leaf.finished), 1)

    def test_during_the_answer(self) -> None:
        producer = Producer()
        client = self.mount(lambda request: NOT_DONE_YET)
        client.get()
        request = self.leaf.requests[0]
        request.registerProducer(producer, True)
        request.write(b"a")
        self.turn()
        client.leave()
        self.assertEqual(producer.calls, ["stop"])
        self.assertEqual(len(self.leaf.finished), 1)
        self.assertTrue(request.content.closed)
        self.assertEqual(self.app.outcomes, [(b"/", 200, 1)])

    def test_pull_producer(self) -> None:
        def render(request: Any) -> int:
            self.producer = Pulled(request, bytes(50_000), 50)
            request.registerProducer(self.producer, False)
            return NOT_DONE_YET

        client = self.mount(render)
        client.get()
        client.leave()
        self.assertEqual(self.producer.calls[-1], "stop")
        count = self.producer.count
        self.turn()
        self.assertEqual(self.producer.count, count)


class Sessions(Case):
    def test_session(self) -> None:
        def render(request: Any) -> bytes:
            session = request.getSession()
            session.count = getattr(session, "count", 0) + 1
            return b"%d" % session.count

        client = self.mount(render, b"/app/")
        first = client.get(b"/app/")
        self.assertEqual(self.body(first), b"1")
        cookie = first.partition(b"Set-Cookie: ")[2].partition(b";")[0]
        self.assertTrue(cookie.startswith(b"TWISTED_SESSION_app="), cookie)
        again = client.get(b"/app/x", b"Cookie: " + cookie + b"\r\n")
        self.assertEqual(self.body(again), b"2")
        self.assertNotIn(b"Set-Cookie", again)
        site = self.leaf.requests[0].site
        self.assertEqual(len(site.sessions), 1)
        client.clock.advance(1000)
        self.assertEqual(site.sessions, {})


# What the directive names in the tests below.
PAGE = Leaf(lambda request: b"page")
NUMBER = 7


def factory(reactor: Any) -> Leaf:
    return Leaf(lambda request: repr(reactor).encode())


def broken(reactor: Any) -> Leaf:
    raise LookupError("no\ndatabase")


def wrong(reactor: Any) -> int:
    return 7


class Directive(SynchronousTestCase):
    here = __name__

    def load(self, name: str, location: str = "location /app/") -> Any:
        text = f"http {{\nserver {{\n{location} {{\nresource {name};\n}} }} }}"
        loaded: Loaded = convert(
            parse_text(text, "f.conf"),
            table=directive_table(),
            variables=variables(),
            prefix="/",
            conf_dir="/",
        )
        (http,) = loaded.root.blocks(directives.HTTP_BLOCK)
        (server,) = http.blocks(SERVER_BLOCK)
        (scope,) = server.blocks(LOCATION_BLOCK)
        return scope

    def problem(self, name: str) -> str:
        error = self.assertRaises(ConfigurationError, self.load, name)
        (problem,) = error.problems
        return str(problem)

    def test_resource(self) -> None:
        named = self.load(f"{self.here}.PAGE")[RESOURCE]
        self.assertIs(named.resource("reactor"), PAGE)

    def test_callable(self) -> None:
        made = self.load(f"{self.here}.factory")[RESOURCE].resource("reactor")
        self.assertEqual(made.answer(None), b"'reactor'")

    def test_mount_point(self) -> None:
        for location, prefix in (
            ("location /app/", b"/app/"),
            ("location = /app", b"/app"),
            ("location ^~ /app", b"/app"),
            ("location ~ ^/app/", b"/"),
            ("location @app", b"/"),
        ):
            scope = self.load(f"{self.here}.PAGE", location)
            self.assertEqual(mount_point(scope), prefix, location)

    def test_import_errors(self) -> None:
        self.assertEqual(
            self.problem("no.such.module"),
            'resource "no.such.module" could not be imported: '
            "ObjectNotFound: 'no.such.module' does not name an object in f.conf:4",
        )
        self.assertRegex(self.problem(f"{self.here}.NOTHING"), "AttributeError.* in f.conf:4$")
        self.assertRegex(self.problem("..x"), "InvalidName.* in f.conf:4$")

    def test_module_that_raises(self) -> None:
        directory = Path(self.mktemp()).absolute()
        directory.mkdir()
        (directory / "mounted_and_broken.py").write_text("1/0\n")
        self.patch(sys, "path", [str(directory), *sys.path])
        self.assertRegex(
            self.problem("mounted_and_broken.x"), "ZeroDivisionError: .* in f.conf:4$"
        )

    def test_wrong_kind(self) -> None:
        self.assertEqual(
            self.problem(f"{self.here}.NUMBER"),
            f'"{self.here}.NUMBER" is neither a resource nor a callable in f.conf:4',
        )

    def test_callable_that_fails(self) -> None:
        for name, message in (
            ("broken", f'resource "{self.here}.broken" failed: LookupError: no database'),
            ("wrong", f'"{self.here}.wrong" made int, not a resource'),
        ):
            named = self.load(f"{self.here}.{name}")[RESOURCE]
            error = self.assertRaises(Invalid, named.resource, None)
            self.assertEqual(str(error), message)
