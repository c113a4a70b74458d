"""The variables of the proxy (ngx_http_proxy_module, "Embedded Variables")."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Final

from imagefarm.config.variables import Getter
from imagefarm.http.lookup import Stability, Variable
from imagefarm.http.message import Request

from .target import Target

_HOST: Final = "proxy_host"
_PORT: Final = "proxy_port"


def name_target(request: Request, target: Target) -> None:
    """``$proxy_host`` and ``$proxy_port`` of a request that goes there."""
    request.variables[_HOST] = target.host_header
    request.variables[_PORT] = target.port


def _kept(name: str, request: Request) -> bytes | None:
    return request.variables.get(name)


VARIABLES: Final[Mapping[str, Getter]] = {
    # Where requests are remembered, they go to one place, or to none yet.
    name: Variable(partial(_kept, name), Stability.HOST)
    for name in (_HOST, _PORT)
}
