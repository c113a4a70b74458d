"""Static files: what a location serves when no other handler was given it.

nginx's index and static modules in one leaf: a URI that ends in "/" looks for an index file, any
other is opened under ``root`` or ``alias``.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence

from attrs import evolve

from imagefarm.config.variables import Template
from imagefarm.http.dates import format_http
from imagefarm.http.etag import etag
from imagefarm.http.filters.gzip import add_vary, client_accepts_gzip
from imagefarm.http.headers import Headers
from imagefarm.http.message import FileBody, OpenFile, Request, Response
from imagefarm.http.requestlog import printable, report
from imagefarm.http.uri import escape_uri

from .actions import Action, InternalRedirect, not_allowed
from .files import Directory, Forbidden, NotFound, open_file, reason
from .location import Location


def open_for(request: Request, path: bytes) -> OpenFile:
    """Open ``path`` under the rules of the request's location. Raises as `open_file`."""
    location: Location = request.location
    trusted = location.symlinks_from
    way = location.symlinks, trusted(request) if trusted else b""
    if location.file_cache is not None:
        return location.file_cache.open(path, location.file_cache_rules, way)
    return open_file(path, *way)


def exists(request: Request, path: bytes, directory: bool) -> bool:
    """Whether the request's location finds a file (or a directory) there."""
    try:
        if request.location.file_cache is None:
            mode = os.stat(path).st_mode
            return stat.S_ISDIR(mode) if directory else stat.S_ISREG(mode)
        open_for(request, path).close()
    except Directory:
        return directory
    except (NotFound, Forbidden, OSError, ValueError):
        return False
    return not directory


def serve(request: Request) -> Action:
    """The content handler."""
    if request.head.method not in (b"GET", b"HEAD", b"POST"):
        return not_allowed()
    if request.uri.endswith(b"/"):
        return _index(request)
    if request.head.method == b"POST":
        return _not_allowed(request)
    location: Location = request.location
    path = location.path(request)
    packed = _packed(request, location, path) if location.gzip_static != "off" else None
    if packed is not None and _takes_packed(request, location):
        # As in nginx no ranges are cut from it.
        response = evolve(_respond(request, location, packed), ranges=False)
        response.headers.add(b"Content-Encoding", b"gzip")
    else:
        opened = _open(request, path)
        if isinstance(opened, OpenFile):
            response = _respond(request, location, opened)
        else:
            response = opened
        if packed is not None:
            packed.close()
    if packed is not None and location.gzip_static == "on" and location.filters.gzip.vary:
        add_vary(response.headers)
    return response


def _open(request: Request, path: bytes) -> OpenFile | Response:
    """Open the file, or say with which status and why not."""
    try:
        file = open_for(request, path)
        request.location.witness(request, path, file.identity)
        return file
    except Directory:
        request.plannable = False
        return _add_slash(request)
    except NotFound as error:
        request.location.witness(request, path, None)
        if request.location.log_not_found:
            report(request, "error", f'open() "{printable(path)}" failed {error}')
        return Response(404)
    except Forbidden as error:
        request.plannable = False
        report(request, "error", f'open() "{printable(path)}" failed {error}')
        return Response(403)
    except OSError as error:
        request.plannable = False
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
    return not_allowed()


def _add_slash(request: Request) -> Response:
    target = escape_uri(request.uri) + b"/"
    if request.args:
        target += b"?" + request.args
    return Response(301, Headers([(b"Location", target)]))


def _index(request: Request) -> Action:
    request.plannable = False
    location: Location = request.location
    directory = location.path(request)
    names: Sequence[Template] = location.index
    for template in names:
        name = template(request)
        if name.startswith(b"/"):
            return InternalRedirect(name, request.args)
        try:
            open_for(request, directory + name).close()
        except NotFound:
            continue
        except Directory:
            pass  # found, as nginx sees it: the redirect adds a slash
        except (Forbidden, OSError) as error:
            text = reason(error) if isinstance(error, OSError) else str(error)
            report(request, "error", f'open() "{printable(directory + name)}" failed {text}')
            return Response(403)
        return InternalRedirect(request.uri + name, request.args)
    try:
        open_for(request, directory).close()
    except Directory:
        report(request, "error", f'directory index of "{printable(directory)}" is forbidden')
        return Response(403)
    except Forbidden as error:
        report(request, "error", f'open() "{printable(directory)}" failed {error}')
        return Response(403)
    except (NotFound, OSError):
        pass
    if location.log_not_found:
        report(request, "error", f'"{printable(directory)}" is not found')
    return Response(404)
