"""Static files: what a location serves when no other handler was given it.

nginx's index and static modules in one leaf: a URI that ends in "/" looks for an index file, any
other is opened under ``root`` or ``alias``.
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import evolve

from imagefarm.config.variables import Template
from imagefarm.http.dates import format_http
from imagefarm.http.etag import etag
from imagefarm.http.filters.gzip import add_vary, client_accepts_gzip
from imagefarm.http.headers import Headers
from imagefarm.http.message import FileBody, OpenFile, Request, Response
from imagefarm.http.requestlog import printable, report

from .actions import Action, InternalRedirect, not_allowed
from .files import Directory, Forbidden, NotFound, reason
from .location import Location
from .redirects import add_slash


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
    location: Location = request.location
    try:
        file = location.open(request, path)
        location.witness(request, path, file.identity)
        return file
    except Directory:
        request.plannable = False
        return add_slash(request)
    except NotFound as error:
        location.witness(request, path, None)
        if location.log_not_found:
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
        return location.open(request, path + b".gz")
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


def _index(request: Request) -> Action:
    request.plannable = False
    location: Location = request.location
    directory = location.path(request)
    names: Sequence[Template] = location.index
    missing = ""  # the first of them, and why: nginx names that
    for template in names:
        name = template(request)
        if name.startswith(b"/"):
            return InternalRedirect(name, request.args)
        try:
            location.open(request, directory + name).close()
        except NotFound as error:
            missing = missing or f'"{printable(directory + name)}" is not found {error}'
            continue
        except Directory:
            pass  # found, as nginx sees it: the redirect adds a slash
        except (Forbidden, OSError) as error:
            text = reason(error) if isinstance(error, OSError) else str(error)
            report(request, "error", f'open() "{printable(directory + name)}" failed {text}')
            return Response(403)
        return InternalRedirect(request.uri + name, request.args)
    try:
        location.open(request, directory).close()
    except Directory:
        report(request, "error", f'directory index of "{printable(directory)}" is forbidden')
        return Response(403)
    except Forbidden as error:
        report(request, "error", f'open() "{printable(directory)}" failed {error}')
        return Response(403)
    except (NotFound, OSError):
        pass
    if location.log_not_found:
        report(request, "error", missing or f'"{printable(directory)}" is not found')
    return Response(404)
