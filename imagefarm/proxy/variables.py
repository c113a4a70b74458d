"""The variables of the proxy (ngx_http_proxy_module, "Embedded Variables")."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from imagefarm.config.variables import Getter
from imagefarm.http.message import Request

#: Where `ProxyPass` leaves the values for the getters.
PROXY_HOST: Final = "proxy_host"
PROXY_PORT: Final = "proxy_port"


def _proxy_host(request: Request) -> bytes:
    return request.variables.get(PROXY_HOST, b"")


def _proxy_port(request: Request) -> bytes:
    return request.variables.get(PROXY_PORT, b"")


VARIABLES: Final[Mapping[str, Getter]] = {
    "proxy_host": _proxy_host,
    "proxy_port": _proxy_port,
}
