"""The variables of the proxy (ngx_http_proxy_module, "Embedded Variables")."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Final

from imagefarm.config.variables import Getter
from imagefarm.http.lookup import Stability, Variable
from imagefarm.http.message import Request

#: Where `ProxyPass` leaves the values for the getters.
PROXY_HOST: Final = "proxy_host"
PROXY_PORT: Final = "proxy_port"


def _kept(name: str, request: Request) -> bytes | None:
    return request.variables.get(name)


VARIABLES: Final[Mapping[str, Getter]] = {
    # Where requests are remembered, they go to one place, or to none yet.
    name: Variable(partial(_kept, name), Stability.HOST)
    for name in (PROXY_HOST, PROXY_PORT)
}
