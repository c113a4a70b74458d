"""Our own redirects. ``absolute_redirect``: they get scheme, host and port, as nginx's do."""

from __future__ import annotations

from imagefarm.http.headers import Headers
from imagefarm.http.message import Request, Response
from imagefarm.http.uri import escape_uri

from .location import Location

_DEFAULT_PORTS = {b"http": 80, b"https": 443}


def _literal(address: str) -> bytes:
    """An address to listen on as it stands in a URL; empty for the wildcards."""
    if address in ("", "::") or address.startswith("unix:"):
        return b""
    return f"[{address}]".encode() if ":" in address else address.encode()


def absolute_location(request: Request, response: Response) -> None:
    """Complete a ``Location`` that starts with "/" in a response of our own making."""
    target = response.headers.first(b"location")
    if target is None or not target.startswith(b"/") or response.final or response.passed:
        return
    location: Location = request.location
    if not location.absolute_redirect:
        return
    scheme = b"https" if request.peer.tls else b"http"
    address, port = request.peer.server
    if location.server_name_in_redirect:
        host = request.server.name
    else:
        name: bytes = request.server.name
        host = request.host or _literal(address) or (b"" if name[:1] in b"~*." else name)
    if not host:
        return  # a client of HTTP/1.0 without Host: only the relative form is certain
    if location.port_in_redirect and port and port != _DEFAULT_PORTS[scheme]:
        host += b":%d" % port
    response.headers.set(b"Location", scheme + b"://" + host + target)


def add_slash(request: Request) -> Response:
    """The 301 to the same path with a slash at its end, which names a directory."""
    target = escape_uri(request.uri) + b"/"
    if request.args:
        target += b"?" + request.args
    return Response(301, Headers([(b"Location", target)]))
