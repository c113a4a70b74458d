"""Any ``twisted.web`` Resource as the content of a location.

`mounted` makes the content handler; the directive ``resource`` names what is mounted. Requests
reach the resource from our own engine: its answer is an ordinary `Response`, so the location's
filters, access rules, logs and limits apply to it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from io import BytesIO
from typing import IO, Any, Final

from attrs import field, frozen
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.python.reflect import namedAny
from twisted.web.resource import IResource

from imagefarm.config.ast import Directive
from imagefarm.config.errors import Invalid
from imagefarm.config.table import LOCATION, Environment, Row, Scope
from imagefarm.http.body import BodyError
from imagefarm.http.message import BodyStream, Request, Response
from imagefarm.http.requestlog import report

from .channel import Channel, MountSite, Place
from .location import Content

#: Request bodies are kept in memory up to this size, beyond it in a temporary file; what
#: ``client_max_body_size`` allows is the most that there can be.
BODY_IN_MEMORY: Final = 100_000


def mounted(resource: IResource, prefix: bytes = b"/", *, reactor: Any) -> Content:
    """``resource`` and what is below it, for the URIs at and below ``prefix``.

    It sees the URI that chose the location: decoded, normalised, after rewriting. The segments
    of ``prefix`` are its ``prepath``; after ``rewrite ... break`` the whole new URI is below it.
    A URI that only begins like the prefix (/apple for /app) is 404. ``reactor`` serves sessions
    and pull producers. Raises `ValueError` for a prefix without its leading slash.
    """
    if not prefix.startswith(b"/"):
        raise ValueError(f"the prefix {prefix!r} does not begin with a slash")
    site = MountSite(resource, reactor)

    def serve(request: Request) -> Response | Deferred[Response]:
        place = split(request.uri, prefix if request.valid_location else b"/")
        if place is None:
            return Response(404)
        channel = Channel(request, site, place, reactor)
        if request.body.length == 0:
            return channel.run(BytesIO(), 0)

        def render(content: IO[bytes]) -> Response | Deferred[Response]:
            return channel.run(content, content.tell())

        answering: Deferred[Response] = receive(request.body).addCallback(render)
        return answering.addErrback(_unreadable, request)

    return serve


def split(uri: bytes, prefix: bytes) -> Place | None:
    """``prepath`` and ``postpath``: the segments of ``prefix``, and those of the rest.

    None if ``uri`` is not below ``prefix``. For the prefix itself, without a slash at its end,
    there is no rest: that is the resource, not its child "".
    """
    base = prefix.rstrip(b"/")
    if uri != base and not uri.startswith(base + b"/"):
        return None
    below = uri[len(base) :]
    return base.split(b"/")[1:], below.split(b"/")[1:]


def _unreadable(failure: Failure, request: Request) -> Response:
    failure.trap(BodyError, OSError)
    error = failure.value
    if isinstance(error, BodyError):
        return Response(error.status)
    report(request, "crit", f"the request body could not be stored: {error}")
    return Response(500)


def receive(body: BodyStream) -> Deferred[IO[bytes]]:
    """The whole of ``body`` as a file that stands at its end.

    Fails with the body's own error, or with `OSError` if it can't be stored.
    """
    spool = _Spool(body)
    body.start(spool)
    return spool.stored


class _Spool:
    """`BodySink`."""

    def __init__(self, body: BodyStream) -> None:
        self.stored: Deferred[IO[bytes]] = Deferred()
        self._body = body
        make_file: Any = tempfile.SpooledTemporaryFile
        self._file: Any = make_file(BODY_IN_MEMORY)  # Twisted's request closes it

    def data(self, chunk: bytes) -> None:
        try:
            self._file.write(chunk)
        except OSError as error:
            self._body.cancel()
            self.fail(error)

    def end(self) -> None:
        self.stored.callback(self._file)

    def fail(self, error: Exception) -> None:
        self._file.close()
        self.stored.errback(error)


@frozen(eq=False)
class Named:
    """What ``resource`` names: an `IResource`, or what makes one of the reactor."""

    name: str
    value: IResource | Callable[[Any], IResource] = field(repr=False)

    def resource(self, reactor: Any) -> IResource:
        """The resource. Raises `Invalid` if it can't be made."""
        value: Any = self.value
        if IResource.providedBy(value):
            given: IResource = value
            return given
        try:
            made = value(reactor)
        except Exception as error:
            raise Invalid(f'resource "{self.name}" failed: {_reason(error)}') from error
        if not IResource.providedBy(made):
            raise Invalid(f'"{self.name}" made {type(made).__name__}, not a resource')
        resource: IResource = made
        return resource


def _reason(error: Exception) -> str:
    """One line for the configuration's errors."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _named(directive: Directive, env: Environment) -> Named:
    name = directive.args[0]
    try:
        value = namedAny(name)
    except Exception as error:  # whatever the module does while it is imported
        raise Invalid(f'resource "{name}" could not be imported: {_reason(error)}') from error
    if not IResource.providedBy(value) and not callable(value):
        raise Invalid(f'"{name}" is neither a resource nor a callable')
    return Named(name, value)


RESOURCE: Final[Row[Named | None]] = Row(
    name="resource", contexts=frozenset({LOCATION}), convert=_named, default=None,
    inherits=False, syntax="package.module.attribute",
    doc="Serves a twisted.web Resource below the location: the object of that Python name, or "
    "what it returns when it is called with the reactor.",
)  # fmt: skip


def mount_point(scope: Scope) -> bytes:
    """The prefix of a ``location``; "/" for a regular expression or a name."""
    _, name, pattern = scope.value
    prefix: bytes = name
    return prefix if pattern is None and prefix.startswith(b"/") else b"/"
