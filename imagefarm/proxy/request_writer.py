"""Writes one request to an upstream: the head, then the body with backpressure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from imagefarm.http.chunked import LAST_CHUNK, encode_chunk
from imagefarm.http.message import Traffic
from imagefarm.http.upstream import Outgoing


class BodyMismatch(Exception):
    """The source of a request body delivered another number of bytes than it promised."""


@implementer(IPushProducer)
class RequestWriter:
    """One request. ``notify(writer, error)`` tells of each change of `done` and `stalled`.
    ``traffic`` counts what is written.

    The framing is Content-Length where the body's length is known, chunked where it is not
    (RFC 9112 section 6); HTTP/1.0 has no way to send a body of unknown length, and
    ``notify`` gets a `BodyMismatch`.
    """

    def __init__(
        self,
        transport: Any,
        outgoing: Outgoing,
        notify: Callable[[RequestWriter, Exception | None], None],
        traffic: Traffic,
    ) -> None:
        self._transport = transport
        self._outgoing = outgoing
        self._notify = notify
        self._traffic = traffic
        self._body = outgoing.body
        self._length = None if self._body is None else self._body.length
        self._written = 0
        self._registered = False
        #: All has been handed to the transport.
        self.done = False
        #: The transport takes no more for now.
        self.stalled = False

    def start(self) -> None:
        """Write the head and let the body flow."""
        body, outgoing = self._body, self._outgoing
        if body is None:
            self._write(request_head(outgoing))
            self.done = True
        elif self._length is None and outgoing.version < (1, 1):
            self.fail(BodyMismatch("a body of unknown length cannot be sent over HTTP/1.0"))
            return
        else:
            self._write(request_head(outgoing))
            self._transport.registerProducer(self, True)
            self._registered = True
            body.start(self)
        if self.done == (body is None):
            self._notify(self, None)

    def cancel(self) -> None:
        """Send no more, and let go of the body."""
        self._unregister()
        body, self._body = self._body, None
        if body is not None and not self.done:
            body.cancel()

    # -- BodySink

    def data(self, chunk: bytes) -> None:
        """Some bytes of the body."""
        if self._body is None:
            return
        self._written += len(chunk)
        if self._length is None:
            chunk = encode_chunk(chunk)
        elif self._written > self._length:
            self.fail(BodyMismatch("the request body is longer than announced"))
            return
        self._write(chunk)

    def end(self) -> None:
        """The body is complete."""
        if self._body is None:
            return
        if self._length is None:
            self._write(LAST_CHUNK)
        elif self._written < self._length:
            self.fail(BodyMismatch("the request body is shorter than announced"))
            return
        self._unregister()
        self.done = True
        self._notify(self, None)

    def fail(self, error: Exception) -> None:
        """The body broke off."""
        self._unregister()
        self._notify(self, error)

    # -- IPushProducer

    def pauseProducing(self) -> None:
        """The transport is full."""
        self.stalled = True
        if self._body is not None:
            self._body.pause()
            self._notify(self, None)

    def resumeProducing(self) -> None:
        """The transport has drained."""
        self.stalled = False
        if self._body is not None:
            self._notify(self, None)
            self._body.resume()

    def stopProducing(self) -> None:
        """The transport is gone; the connection learns of it as well and calls `cancel`."""
        self._registered = False

    def _write(self, data: bytes) -> None:
        self._traffic.sent += len(data)
        self._transport.write(data)

    def _unregister(self) -> None:
        if self._registered:
            self._registered = False
            self._transport.unregisterProducer()


def request_head(outgoing: Outgoing) -> bytes:
    """The request line and fields of ``outgoing`` with what frames its body."""
    major, minor = outgoing.version
    lines = [b"%b %b HTTP/%d.%d" % (outgoing.method, outgoing.target, major, minor)]
    headers = outgoing.headers
    fields = () if headers is None else headers
    lines += [name + b": " + value for name, value in fields]
    if outgoing.body is not None:
        length = outgoing.body.length
        if length is None:
            lines.append(b"Transfer-Encoding: chunked")
        else:
            lines.append(b"Content-Length: %d" % length)
    if outgoing.version < (1, 1) and (headers is None or b"connection" not in headers):
        lines.append(b"Connection: close")
    lines.append(b"\r\n")
    return b"\r\n".join(lines)


def keeps(outgoing: Outgoing) -> bool:
    """Whether the connection is for another request, too: ``close`` ends it, whatever the peer
    says (RFC 9112 section 9.6).
    """
    connection = outgoing.headers and outgoing.headers.get(b"connection")
    return outgoing.version >= (1, 1) and (
        not connection
        or b"close" not in {option.strip(b" \t") for option in connection.lower().split(b",")}
    )
