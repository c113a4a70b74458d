"""``$fastcgi_script_name`` and ``$fastcgi_path_info`` (ngx_http_fastcgi_module)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Protocol, cast

from imagefarm.config.variables import Getter
from imagefarm.http.message import Request

from .directives import FastCGISettings


class FastCGILocation(Protocol):
    """What this package reads of ``request.location``."""

    @property
    def fastcgi(self) -> FastCGISettings | None:
        """The location's settings."""


def _settings(request: Request) -> FastCGISettings | None:
    location = cast("FastCGILocation | None", request.location)
    return None if location is None else location.fastcgi


def _split(uri: bytes, settings: FastCGISettings | None) -> tuple[bytes, bytes]:
    """The URI as script name and path info."""
    if settings is not None and settings.split_path_info is not None:
        match = settings.split_path_info.search(uri)
        if match is not None:
            return match[1] or b"", match[2] or b""
    return uri, b""


def script_name(request: Request) -> bytes:
    """``$fastcgi_script_name``: the URI, with ``fastcgi_index`` where it ends with a slash."""
    settings = _settings(request)
    name, _ = _split(request.uri, settings)
    return name + settings.index if settings is not None and name.endswith(b"/") else name


def path_info(request: Request) -> bytes:
    """``$fastcgi_path_info``: the second capture of ``fastcgi_split_path_info``."""
    return _split(request.uri, _settings(request))[1]


VARIABLES: Final[Mapping[str, Getter]] = {
    "fastcgi_path_info": path_info,
    "fastcgi_script_name": script_name,
}
