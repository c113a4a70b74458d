"""Which other files are answered as one was: for answering files never asked for before.

What is remembered of an answer (`http.plans`) can stand for a whole directory, if nothing in the
answer depends on the file but its size and its date, and nothing on the name but its extension.
"""

from __future__ import annotations

from typing import Final

from imagefarm.http.alike import Alike
from imagefarm.http.filters.headers import Kind
from imagefarm.http.message import FileBody, Request, Response

from .location import Location

#: Fields that speak of the file, where `add_header` does not.
_OF_FILE: Final = frozenset({b"last-modified", b"etag"})


def alike(request: Request, response: Response) -> Alike | None:
    """The files that are answered as ``request`` was with ``response``; None if no other is.

    The answer is one that may be remembered, and in which only Host had a say.
    """
    location: Location = request.location
    body, uri = response.body, request.uri
    if not isinstance(body, FileBody) or body.offset or body.length != body.file.size:
        return None
    if request.head.method != b"GET" or request.internal or uri != request.head.target:
        return None
    if not _by_name(location, response):
        return None
    path = location.path(request)
    name = uri.rpartition(b"/")[2]
    if len(request.witnesses) != 1 or request.witnesses[0] != (path, body.file.identity, None):
        return None
    return request.server.locations.alike(uri, path[: -len(name)]) if name else None


def alike_kept(request: Request, response: Response) -> Alike | None:
    """The requests that are answered as ``request`` was with the hit ``response``, but for the
    hit; None if no others are.
    """
    location: Location = request.location
    kept, body, uri, target = response.kept, response.body, request.uri, request.head.target
    if kept is None or kept.chosen or location.filters.expires.kind is Kind.MODIFIED:
        return None
    if not isinstance(body, FileBody) or body.length != kept.length:
        return None
    if request.head.method != b"GET" or request.internal or request.witnesses:
        return None
    if any(rule.name.lower() in _OF_FILE for rule in location.filters.add_headers):
        return None
    if uri == target:
        found: Alike | None = request.server.locations.alike(uri, b"")
        return found
    if request.args and target == b"%b?%b" % (uri, request.args):
        return Alike(b"")  # the query has no say in what location it is
    return None


def _by_name(location: Location, response: Response) -> bool:
    """Whether the path is made of the name, and the answer of no more of it than the type."""
    filters = location.filters
    return (
        location.try_files is None
        and (location.alias is None or bool(location.prefix))
        and filters.expires.kind is not Kind.MODIFIED
        and not any(rule.name.lower() in _OF_FILE for rule in filters.add_headers)
        and response.mtime is not None
    )
