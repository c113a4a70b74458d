"""``absolute_redirect``: our own redirects get scheme, host and port, as nginx's do."""

from __future__ import annotations

from imagefarm.http.message import Request, Response

from .location import Location

_DEFAULT_PORTS = {b"http": 80, b"https": 443}


def absolute_location(request: Request, response: Response) -> None:
    """Complete a ``Location`` that starts with "/" in a response of our own making."""
    target = response.headers.first(b"location")
    if target is None or not target.startswith(b"/") or response.final:
        return
    location: Location = request.location
    if not location.absolute_redirect:
        return
    scheme = b"https" if request.peer.tls else b"http"
    address, port = request.peer.server
    if location.server_name_in_redirect:
        host = request.server.name
    else:
        host = request.host or address.encode()
    if location.port_in_redirect and port and port != _DEFAULT_PORTS[scheme]:
        host += b":%d" % port
    response.headers.set(b"Location", scheme + b"://" + host + target)
