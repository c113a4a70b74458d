"""What a deployer's own package would have: resources to be named in a configuration."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import deferLater
from twisted.web import static, util, vhost
from twisted.web.proxy import ReverseProxyResource
from twisted.web.resource import EncodingResourceWrapper, IResource, Resource
from twisted.web.server import NOT_DONE_YET, GzipEncoderFactory
from twisted.web.wsgi import WSGIResource
from zope.interface import implementer

TEXT = b"some text of the resource " * 100

#: Set by the test before it reads its configuration.
directory = ""
upstream_port = 0

data = static.Data(TEXT, "text/plain")
packed = EncodingResourceWrapper(static.Data(TEXT, "text/plain"), [GzipEncoderFactory()])
redirect = util.Redirect(b"/data?moved")

hosts = vhost.NameVirtualHost()
hosts.addHost(b"one.test", static.Data(b"the first", "text/plain"))
hosts.default = static.Data(b"another", "text/plain")

tree = Resource()
tree.putChild(b"", static.Data(b"index", "text/plain"))
tree.putChild(b"child", static.Data(b"child", "text/plain"))


class Broken(Resource):
    """One with a defect."""

    isLeaf = True

    def render_GET(self, request: Any) -> bytes:
        return b"%f" % (1 / len(request.postpath[1:]))


broken = Broken()


def files(reactor: Any) -> IResource:
    return static.File(directory)


def reverse_proxy(reactor: Any) -> IResource:
    return ReverseProxyResource("127.0.0.1", upstream_port, b"/behind", reactor)


def application(environ: Any, start_response: Any) -> Any:
    """A WSGI application: says what it was asked, streams, or fails."""
    path = environ["PATH_INFO"]
    if path == "/fail":
        raise LookupError("in the application")
    if path == "/stream":
        start_response("200 OK", [("Content-Type", "text/plain")])
        return (b"%d\n" % i * 1000 for i in range(20))
    body = environ["wsgi.input"].read()
    words = [environ[k] for k in ("REQUEST_METHOD", "SCRIPT_NAME", "PATH_INFO", "QUERY_STRING")]
    answer = " ".join(words).encode() + b" " + body
    start_response(
        "202 Taken", [("Content-Length", str(len(answer))), ("X-App", "1"), ("X-App", "2")]
    )
    return [answer]


def wsgi(reactor: Any) -> IResource:
    return WSGIResource(reactor, reactor.getThreadPool(), application)


@implementer(IResource)
class Router:
    """In the manner of Klein: a leaf that routes by itself and answers with Deferreds."""

    isLeaf = True

    def __init__(self, reactor: Any) -> None:
        self.reactor = reactor
        self.streaming: list[Any] = []

    def render(self, request: Any) -> Any:
        route = getattr(self, "on_" + b"_".join(request.postpath).decode())
        return route(request)

    def getChildWithDefault(self, name: bytes, request: Any) -> Any:
        raise AssertionError("a leaf has no children")

    def putChild(self, path: bytes, child: Any) -> None:
        raise AssertionError("a leaf has no children")

    def on_later(self, request: Any) -> Any:
        def answer() -> None:
            request.setHeader(b"Content-Type", b"text/plain")
            request.write(b"later")
            request.finish()

        deferLater(self.reactor, 0.01, answer).addErrback(request.processingFailed)
        return NOT_DONE_YET

    def on_deferred(self, request: Any) -> Any:
        return deferLater(self.reactor, 0.01, lambda: b"deferred")

    def on_session(self, request: Any) -> Any:
        session = request.getSession()
        session.visits = getattr(session, "visits", 0) + 1
        return b"visit %d" % session.visits

    def on_form(self, request: Any) -> Any:
        return b"|".join(request.args[b"name"] + request.args[b"file"])

    def on_tagged(self, request: Any) -> Any:
        return b"" if request.setETag(b'"tag"') else b"whole"

    def on_raise(self, request: Any) -> Any:
        raise ZeroDivisionError

    def on_events(self, request: Any) -> Any:
        """Goes on until the client leaves."""

        def event() -> None:
            if request in self.streaming:
                request.write(b"event")
                self.reactor.callLater(0.01, event)

        request.notifyFinish().addErrback(lambda failure: self.streaming.remove(request))
        self.streaming.append(request)
        event()
        return NOT_DONE_YET


routers: list[Router] = []


def router(reactor: Any) -> IResource:
    routers.append(Router(reactor))
    return routers[-1]
