"""Static files: what a location serves when no other handler was given it.

nginx's index and static modules in one leaf: a URI that ends in "/" looks for an index file, any
other is opened under ``root`` or ``alias``.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from imagefarm.config.variables import Template
from imagefarm.http.dates import format_http
from imagefarm.http.etag import etag
from imagefarm.http.filters.gzip import add_vary, client_accepts_gzip
from imagefarm.http.headers import Headers
from imagefarm.http.message import FileBody, OpenFile, Request, Response
from imagefarm.http.requestlog import printable, report
from imagefarm.http.uri import escape_uri

from .actions import Action, InternalRedirect
from .files import Directory, Forbidden, NotFound, open_file, reason
from .location import Location


def open_for(request: Request, path: bytes) -> OpenFile:
    """Open ``path`` under the rules of the request's location. Raises as `open_file`."""
    location: Location = request.location
    trusted = location.symlinks_from
    return open_file(path, location.symlinks, trusted(request) if trusted else b"")


def serve(request: Request) -> Action:
    """The content handler."""
    if request.head.method not in (b"GET", b"HEAD", b"POST"):
        return Response(405)
    if request.uri.endswith(b"/"):
        return _index(request)
    if request.head.method == b"POST":
        return _not_allowed(request)
    location: Location = request.location
    path = location.path(request)
    packed = None
    if location.gzip_static != "off":
        packed = _packed(request, location, path)
        if packed is not None and _takes_packed(request, location):
            response = _respond(request, location, packed)
            response.headers.add(b"Content-Encoding", b"gzip")
            return response
    opened = _open(request, path)
    if isinstance(opened, Response):
        return opened
    response = _respond(request, location, opened)
    if packed is not None:
        packed.close()
        if location.filters.gzip.vary:
            add_vary(response.headers)
    return response


def _open(request: Request, path: bytes) -> OpenFile | Response:
    """Open the file, or say with which status and why not."""
    try:
        return open_for(request, path)
    except Directory:
        return _add_slash(request)
    except NotFound as error:
        if request.location.log_not_found:
            report(request, "error", f'open() "{printable(path)}" failed {error}')
        return Response(404)
    except Forbidden as error:
        report(request, "error", f'open() "{printable(path)}" failed {error}')
        return Response(403)
    except OSError as error:
        report(request, "crit", f'open() "{printable(path)}" failed {reason(error)}')
        return Response(500)


def _respond(request: Request, location: Location, file: OpenFile) -> Response:
    headers = [
        (b"Content-Type", location.types.lookup(request.uri)),
        (b"Last-Modified", format_http(file.mtime)),
    ]
    if location.filters.etag:
        headers.append((b"ETag", etag(file.mtime, file.size)))
    return Response(
        200,
        Headers(headers),
        FileBody(file, 0, file.size),
        mtime=file.mtime,
        ranges=True,
    )


def _packed(request: Request, location: Location, path: bytes) -> OpenFile | None:
    """The ``.gz`` file beside the one asked for, if it has a say in the answer."""
    if not location.filters.gzip.vary and not _takes_packed(request, location):
        return None
    try:
        return open_for(request, path + b".gz")
    except (Directory, NotFound, Forbidden, OSError):
        return None


def _takes_packed(request: Request, location: Location) -> bool:
    return location.gzip_static == "always" or client_accepts_gzip(request, location.filters.gzip)


def _not_allowed(request: Request) -> Response:
    """nginx's static handler looks for the file before it refuses POST."""
    opened = _open(request, request.location.path(request))
    if isinstance(opened, Response):
        return opened
    opened.close()
    return Response(405)


def _add_slash(request: Request) -> Response:
    target = escape_uri(request.uri) + b"/"
    if request.args:
        target += b"?" + request.args
    return Response(301, Headers([(b"Location", target)]))


def _index(request: Request) -> Action:
    location: Location = request.location
    names: Sequence[Template] = location.index
    for template in names:
        name = template(request)
        if name.startswith(b"/"):
            return InternalRedirect(name, request.args)
        uri = request.uri + name
        try:
            open_for(request, location.path(request, uri)).close()
        except (NotFound, Directory):
            continue
        except (Forbidden, OSError) as error:
            text = reason(error) if isinstance(error, OSError) else str(error)
            report(request, "error", f'open() "{printable(uri)}" failed {text}')
            return Response(403)
        return InternalRedirect(uri, request.args)
    directory = location.path(request)
    if not os.path.isdir(directory):
        if location.log_not_found:
            report(request, "error", f'"{printable(directory)}" is not found')
        return Response(404)
    report(request, "error", f'directory index of "{printable(directory)}" is forbidden')
    return Response(403)
