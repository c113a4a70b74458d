"""What a step of routing may lead to, besides a `Response`."""

from __future__ import annotations

from typing import Final

from attrs import frozen
from twisted.internet.defer import Deferred

from imagefarm.http.headers import Headers
from imagefarm.http.message import Response

#: The methods of what can only be read.
READ_ONLY: Final = b"GET, HEAD"


@frozen
class InternalRedirect:
    """Go through the tree again with another URI (``try_files``, ``index``, ``error_page``)."""

    uri: bytes
    args: bytes = b""


@frozen
class NamedRedirect:
    """Go on in the location ``@name``; the URI stays."""

    name: bytes


def not_allowed() -> Response:
    """405 with Allow (RFC 9110 section 15.5.6) from content that can only be read."""
    return Response(405, Headers([(b"Allow", READ_ONLY)]))


Redirect = InternalRedirect | NamedRedirect
Action = Response | Redirect
Result = Action | Deferred[Response] | Deferred[Action]
