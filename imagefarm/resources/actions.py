"""What a step of routing may lead to, besides a `Response`."""

from __future__ import annotations

from attrs import frozen
from twisted.internet.defer import Deferred

from imagefarm.http.message import Response


@frozen
class InternalRedirect:
    """Go through the tree again with another URI (``try_files``, ``index``, ``error_page``)."""

    uri: bytes
    args: bytes = b""


@frozen
class NamedRedirect:
    """Go on in the location ``@name``; the URI stays."""

    name: bytes


Redirect = InternalRedirect | NamedRedirect
Action = Response | Redirect
Result = Action | Deferred[Response] | Deferred[Action]
