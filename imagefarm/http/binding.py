"""``proxy_bind`` and ``fastcgi_bind``: where connections to upstreams come from."""

from __future__ import annotations

import ipaddress
import re
from typing import Final

from attrs import field, frozen

from imagefarm.config.ast import Directive
from imagefarm.config.errors import Invalid
from imagefarm.config.table import Environment
from imagefarm.config.variables import Template

from .message import Request
from .requestlog import printable, report

_WITH_PORT: Final = re.compile(r"(?:\[([^\]]+)\]|([^:]+)):(\d{1,5})", re.ASCII)


@frozen
class Local:
    """A numeric address to connect from; port 0 is any.

    ``transparent``: it may be somebody else's (IP_TRANSPARENT, ip(7)), whom the kernel has to be
    told to send the answers to us for.
    """

    host: str
    port: int = 0
    transparent: bool = False
    #: As it was given.
    name: str = field(default="", eq=False)

    @property
    def v6(self) -> bool:
        """Whether it is an address of IPv6."""
        return ":" in self.host


def parse_local(text: str, *, transparent: bool = False) -> Local | None:
    """``address[:port]`` as nginx takes it (ngx_parse_addr_port); None for anything else."""
    host, port = text, 0
    match = _WITH_PORT.fullmatch(text)
    if match is not None:
        host, port = match[1] or match[2], int(match[3])
        if not 0 < port < 65536:
            return None
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    return Local(str(address), port, transparent, text)


@frozen(eq=False)
class Binding:
    """One line. ``local`` is its address, None where variables make it for each request."""

    address: Template
    transparent: bool
    local: Local | None

    def of(self, request: Request) -> Local | None:
        """Where the connection for ``request`` comes from; None leaves it to the system.

        A value that is no address is logged and does nothing, as in nginx.
        """
        if self.local is not None:
            return self.local
        value = self.address(request)
        if not value:
            return None
        local = parse_local(value.decode("latin-1"), transparent=self.transparent)
        if local is None:
            report(request, "error", f'invalid local address "{printable(value)}"')
        return local


def binding(directive: Directive, env: Environment) -> Binding | None:
    """Read a line: ``address[:port] [transparent] | off``. Raises `Invalid`."""
    text, *more = directive.args
    if directive.args == ("off",):
        return None
    template = env.template(text)
    local = None
    transparent = more == ["transparent"]
    if template.constant is not None:
        local = parse_local(text, transparent=transparent)
        if local is None:
            raise Invalid(f'invalid address "{text}"')
    if more and not transparent:
        raise Invalid(f'invalid parameter "{more[0]}"')
    return Binding(template, transparent, local)
