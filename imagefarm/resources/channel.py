"""A Twisted request on our engine: `TwistedRequest` and the `Channel` that it believes to be on.

``twisted.web.http.Request`` parses forms and cookies, keeps what resources set, and tells its
channel what to send. `Channel` makes a `Response` of that. Framing, ``Date`` and ``Server``,
timeouts and keep-alive stay with the connection.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import IO, Any, Final

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import NO_BODY_CODES
from twisted.web.http_headers import Headers as TwistedHeaders
from twisted.web.resource import IResource
from twisted.web.server import NOT_DONE_YET, Site
from twisted.web.server import Request as ServerRequest

from imagefarm.http.headers import Headers
from imagefarm.http.message import BodySink, Request, Response
from imagefarm.http.requestlog import report, report_failure
from imagefarm.http.uri import escape_uri

from .outflow import Outflow, Unsent

CLIENT_CLOSED_REQUEST: Final = 499
CLOSE_WITHOUT_ANSWER: Final = 444

#: What the connection writes itself.
_OURS: Final = frozenset(
    {b"connection", b"content-length", b"date", b"keep-alive", b"server", b"transfer-encoding"}
)
#: Request fields that no longer hold once the whole body is here; a resource that forwards the
#: request (`ReverseProxyResource`) would send them along with a body that is not so framed.
_DONE_WITH: Final = frozenset({b"transfer-encoding", b"expect"})

Address = IPv4Address | IPv6Address | UNIXAddress
Place = tuple[list[bytes], list[bytes]]

_log: Final = Logger(namespace="imagefarm.mounted")


def address(host: str, port: int) -> Address:
    """A `Peer`'s address as Twisted's resources know addresses."""
    if host.startswith("unix:"):
        return UNIXAddress(host.removeprefix("unix:") or None)
    if ":" in host:
        return IPv6Address("TCP", host, port)
    return IPv4Address("TCP", host or "0.0.0.0", port)


class Bodiless:
    """A `BodyStream` for HEAD whose length nobody knows. It has no state."""

    __slots__ = ()
    length: int | None = None

    def start(self, sink: BodySink) -> None:
        """Ends at once."""
        sink.end()

    def pause(self) -> None:
        """Nothing to pause."""

    def resume(self) -> None:
        """Nothing to resume."""

    def cancel(self) -> None:
        """Nothing to cancel."""


class _Rendering:
    """A resource whose ``render`` may also answer with a Deferred of bytes."""

    def __init__(self, resource: Any) -> None:
        self._resource = resource

    def __repr__(self) -> str:
        return repr(self._resource)

    def render(self, request: TwistedRequest) -> bytes | int:
        answer: Any = self._resource.render(request)
        if isinstance(answer, Deferred):
            answer.addCallback(request.rendered).addErrback(request.crashed)
            return NOT_DONE_YET
        if answer is not NOT_DONE_YET and not isinstance(answer, bytes):
            raise TypeError(f"{self._resource!r} rendered {type(answer).__name__}, not bytes")
        return answer


class TwistedRequest(ServerRequest):
    """What a mounted resource gets: Twisted's own request, with the mount point as its site's
    root (``prepath`` has the segments that lead there) and errors left to our error pages.
    """

    def __init__(self, channel: Channel, place: Place) -> None:
        ServerRequest.__init__(self, channel)
        self._place: Place | None = place

    def enter(self) -> None:
        """Stand at the mount point; once only, since resources may start from the site again."""
        if self._place is not None:
            (self.prepath, self.postpath), self._place = self._place, None

    def render(self, resrc: IResource) -> None:
        """Render it; see `_Rendering` for what it may answer with."""
        ServerRequest.render(self, _Rendering(resrc))

    def rendered(self, body: object) -> None:
        """The Deferred that ``render`` had answered with has fired."""
        channel: Channel | None = getattr(self, "channel", None)
        if channel is None or channel.over:
            return  # the client has gone, or a HEAD has been answered
        if not isinstance(body, bytes):
            raise TypeError(f"a Deferred of {type(body).__name__}, not of bytes")
        ServerRequest.setHeader(self, b"Content-Length", b"%d" % len(body))
        ServerRequest.write(self, body)
        ServerRequest.finish(self)

    def crashed(self, failure: Failure) -> None:
        """The Deferred failed: `processingFailed`, and nobody else has to hear of it."""
        self.processingFailed(failure)

    def processingFailed(self, reason: Failure) -> Failure:
        """An answer of ours, 500, unless one has begun: that breaks off."""
        channel: Channel | None = getattr(self, "channel", None)
        if channel is None:  # the client has gone
            _log.failure("a mounted resource failed on {request!r}", reason, request=self)
        else:
            channel.crash(reason)
        return reason


class MountSite(Site):
    """Where the mounted resource believes to be: finds resources, and keeps their sessions."""

    def __init__(self, resource: IResource, reactor: Any) -> None:
        Site.__init__(self, resource, reactor=reactor)

    def getResourceFor(self, request: TwistedRequest) -> IResource:
        """The resource for what is left of the path after the mount point."""
        request.enter()
        found: IResource = Site.getResourceFor(self, request)
        return found


class Channel:
    """One request's ``channel`` and ``transport``, and the maker of its `Response`.

    The answer is handed over when `run` returns, if it is there by then; otherwise a turn of the
    event loop after it has begun, so that what is written in one go goes out in one go.
    """

    factory = None  # Twisted would log the request to it

    def __init__(self, request: Request, site: Site, place: Place, reactor: Any) -> None:
        #: The resource can do nothing more for the answer.
        self.over = False
        self.site = site
        self.transport = self
        self._incoming = request
        self._reactor = reactor
        self._outflow = Outflow(reactor, failed=self.fail, cancelled=self.gone)
        self._response: Response | None = None  # made, not handed over
        self._waiting: Deferred[Response] | None = None
        self._call: Any = None
        self._request: Any = TwistedRequest(self, place)

    def __repr__(self) -> str:
        return f"<Channel {self._incoming!r} {self._outflow!r}>"

    def run(self, content: IO[bytes], length: int) -> Response | Deferred[Response]:
        """Let the resource answer a request with the body ``content`` of ``length`` bytes."""
        incoming, twisted = self._incoming, self._request
        incoming.on_gone.append(self.gone)
        twisted.requestHeaders = _request_headers(incoming.head.headers, length)
        twisted.content = content
        twisted.parseCookies()
        uri = escape_uri(incoming.uri)
        if incoming.args:
            uri += b"?" + incoming.args
        version = b"HTTP/%d.%d" % incoming.head.version
        try:
            twisted.requestReceived(incoming.head.method, uri, version)
        except Exception:
            twisted.processingFailed(Failure())
        self._outflow.prime()
        if self._ready:
            return self._hand_over()
        self._waiting = Deferred(lambda _: self.gone())
        return self._waiting

    # What Twisted's Request asks of a channel

    def getPeer(self) -> Address:
        """The client."""
        return address(self._incoming.peer.address, self._incoming.peer.port)

    def getHost(self) -> Address:
        """The listening socket."""
        return address(*self._incoming.peer.server)

    def isSecure(self) -> bool:
        """Whether the client speaks TLS."""
        return self._incoming.peer.tls is not None

    def writeHeaders(
        self, version: bytes, code: bytes, reason: bytes, headers: TwistedHeaders
    ) -> None:
        """The answer begins. The reason phrase is the connection's, as the framing is."""
        self._request.chunked = 0
        fields = [(name, v) for name, values in headers.getAllRawHeaders() for v in values]
        declared = headers.getRawHeaders(b"Content-Length", [b""])[0]
        options = b",".join(headers.getRawHeaders(b"Connection", [])).lower().split(b",")
        self._outflow.length = int(declared) if declared.isdigit() else None
        self._outflow.silent = (
            self._incoming.head.method == b"HEAD" or int(code) in NO_BODY_CODES
        )  # fmt: skip
        self._settle(
            Response(
                int(code),
                Headers(field for field in fields if field[0].lower() not in _OURS),
                body=self._outflow,
                # The resource has tested preconditions, and cut ranges.
                conditional=False,
                final=True,
                close=b"close" in [option.strip() for option in options],
            )
        )

    def write(self, data: bytes) -> None:
        """A piece of the body."""
        try:
            self._outflow.write(bytes(data))  # raises TypeError for text, as transports do
        except Unsent as error:
            report(self._incoming, "error", f"a mounted resource: {error}")
            self._break_off(error)

    def writeSequence(self, iovec: Iterable[bytes]) -> None:
        """Pieces of the body."""
        self.write(b"".join(iovec))

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """The resource's producer."""
        self._outflow.register(producer, streaming)

    def unregisterProducer(self) -> None:
        """It is done."""
        self._outflow.unregister()

    def requestDone(self, request: TwistedRequest) -> None:
        """The resource has finished."""
        if not self.over:
            self.over = True
            self._outflow.finish()
            self._settle(self._response)

    def loseConnection(self) -> None:
        """The resource gives up; an answer that is complete only closes the connection."""
        if not self.over:
            self._break_off(ConnectionAborted(), CLOSE_WITHOUT_ANSWER)
        elif self._response is not None:
            self._response.close = True

    abortConnection = loseConnection

    def _respondToBadRequestAndDisconnect(self) -> None:
        """What Twisted calls for a multipart form that it can't read."""
        self._break_off(ConnectionAborted(), 400)

    # How it ends otherwise

    def crash(self, reason: Failure) -> None:
        """The resource failed: say so, and `fail`."""
        report_failure(self._incoming, "a mounted resource failed", reason)
        self.fail(reason)

    def fail(self, reason: Failure) -> None:
        """A defect of the resource: 500, or a broken answer if it has begun."""
        error = reason.value
        self._break_off(error if isinstance(error, Exception) else RuntimeError(repr(error)))

    def gone(self) -> None:
        """The client has gone, or nobody wants the answer."""
        self._break_off(ConnectionDone(), CLIENT_CLOSED_REQUEST)

    def _break_off(self, error: Exception, status: int = 500) -> None:
        """Tell the resource, and answer with ``status`` if nothing has been handed over."""
        if self.over:
            return
        self.over = True
        self._outflow.fail(error)
        self._request.connectionLost(Failure(error))
        self._settle(Response(status))

    # Handing over

    @property
    def _ready(self) -> bool:
        """Whether the response can go: an answer to HEAD only once the resource is done, since
        it would not hear of a client that leaves afterwards.
        """
        return self._response is not None and (self.over or not self._outflow.silent)

    def _settle(self, response: Response | None) -> None:
        self._response = response
        if self._waiting is None or not self._ready:
            return
        if self.over:
            self._answer()
        elif self._call is None:
            self._call = self._reactor.callLater(0, self._answer)

    def _answer(self) -> None:
        if self._call is not None and self._call.active():
            self._call.cancel()
        waiting, self._waiting, self._call = self._waiting, None, None
        if waiting is not None:
            waiting.callback(self._hand_over())

    def _hand_over(self) -> Response:
        """The response; with its body as bytes if that is complete."""
        response, self._response = self._response, None
        assert response is not None
        outflow = self._outflow
        if response.body is not outflow or not outflow.complete:
            return response
        if outflow.silent:
            response.length = outflow.length
            bodiless = response.status in NO_BODY_CODES or outflow.length is not None
            response.body = b"" if bodiless else Bodiless()
            return response
        body = outflow.take()
        if outflow.length not in (None, len(body)):
            error = f"the Content-Length is {outflow.length}, the body has {len(body)} bytes"
            report(self._incoming, "error", f"a mounted resource: {error}")
            return Response(500)
        response.body = body
        return response


def _request_headers(fields: Headers, length: int) -> TwistedHeaders:
    """The request's fields for Twisted; a chunked body has got its length by now."""
    headers = TwistedHeaders()
    chunked = b"transfer-encoding" in fields
    for name, value in fields:
        if name.lower() not in _DONE_WITH:
            headers.addRawHeader(name, value)
    if chunked:
        headers.setRawHeaders(b"Content-Length", [b"%d" % length])
    return headers
