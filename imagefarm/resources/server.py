"""The tree: `Farm` chooses a `VirtualHost` by address and name, that a `LocationLeaf` by URI.

They are Twisted Resources: ``getChild`` chooses, the leaf renders. ``render`` of our leaves
answers with `Response` values instead of writing to the request, which is what makes filters and
internal redirects possible; the dispatcher walks the tree.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from attrs import frozen
from twisted.web.resource import Resource

from imagefarm.http.captures import remember
from imagefarm.http.message import Request
from imagefarm.http.tls_verify import ClientCheck

from .actions import Result
from .location import Location
from .matching import Locations, ServerNames
from .rewrite import Steps

#: RFC 9110 section 15.5.20
MISDIRECTED: Final = 421


@frozen(eq=False, kw_only=True)
class ServerSettings:
    """What a ``server`` block says beside its locations.

    ``fallback`` is the location in force where none matches: the server's own settings.
    ``client`` is None where clients need no certificate.
    """

    name: bytes
    steps: Steps = ()
    rewrite_log: bool = False
    fallback: Location
    merge_slashes: bool = True
    client: ClientCheck | None = None


class LocationLeaf(Resource):
    """A location in the tree. `render` answers with the location's content."""

    isLeaf = True

    def __init__(self, location: Location) -> None:
        Resource.__init__(self)
        self.location = location

    def render(self, request: Request) -> Result:
        """The content of the location in force, which an ``if`` may have replaced."""
        location: Location = request.location
        return location.content(request)

    def __repr__(self) -> str:
        return f"<LocationLeaf {self.location.name}>"


class VirtualHost(Resource):
    """One ``server`` block."""

    def __init__(self, settings: ServerSettings, locations: Locations[LocationLeaf]) -> None:
        Resource.__init__(self)
        self.settings = settings
        self.locations = locations
        self._fallback = LocationLeaf(settings.fallback)

    @property
    def name(self) -> bytes:
        """``$server_name``: the first name."""
        return self.settings.name

    def getChild(self, path: bytes, request: Request) -> LocationLeaf:
        """The location for ``request.uri``; regex captures become the request's."""
        found = self.locations.find(request.uri)
        if found is None:
            return self._fallback
        if found.captures is not None:
            remember(request, found.captures)
        return found.item

    def __repr__(self) -> str:
        return f"<VirtualHost {self.name.decode('latin-1')}>"


class Farm(Resource):
    """The root: listening addresses, and on each the servers by name."""

    def __init__(self, listeners: Mapping[tuple[str, int], ServerNames[VirtualHost]]) -> None:
        Resource.__init__(self)
        self._listeners = dict(listeners)

    def first(self, request: Request) -> VirtualHost:
        """The server in force before the request is read: what SNI names, or the default."""
        peer = request.peer
        servers = self._listeners[peer.server]
        return (servers.find(peer.sni.lower()) if peer.sni else servers.default).item

    def refusal(self, request: Request, host: VirtualHost) -> tuple[int, str] | None:
        """Status and reason, if ``host``, which verifies clients, won't serve this one."""
        check = host.settings.client
        if check is None or request.peer.handle is None:
            return None
        if self._renamed(request, host):
            return MISDIRECTED, (
                "client attempted to request the server name different from the one that was "
                "negotiated"
            )
        return check.problem(request)

    def _renamed(self, request: Request, host: VirtualHost) -> bool:
        """Whether TLS was told the name of another server than ``host``, which is asked.

        Where it was told none, or nobody's, the default server has verified the client: that
        will do if it trusts the same (nginx does not mind whom it trusts).
        """
        name = (request.peer.sni or b"").lower()
        servers = self._listeners[request.peer.server]
        if servers.alone:
            return False
        found = servers.find(name) if name else servers.default
        if found is not servers.default:
            return name != request.host
        check = found.item.settings.client
        return check is not None and not check.trusts_like(host.settings.client)

    def getChild(self, path: bytes, request: Request) -> VirtualHost:
        """The server for ``request.host`` on the address that the client connected to."""
        found = self._listeners[request.peer.server].find(request.host)
        if found.captures is not None:
            remember(request, found.captures)
        return found.item
