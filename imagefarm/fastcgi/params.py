"""The parameters of a request: ``fastcgi_param`` and the request's header fields.

What nginx sends, in its order: every ``fastcgi_param`` line (a name that is given twice is sent
twice; applications take the last), then the header fields as ``HTTP_NAME``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Set
from typing import Final

from imagefarm.http.message import Request

from .directives import FastCGISettings, Param

Pair = tuple[bytes, bytes]

#: nginx drops other names (``underscores_in_headers``, ``ignore_invalid_headers``), because
#: ``X_Real_IP`` would become the same parameter as ``X-Real-IP``.
_NAME: Final = re.compile(rb"[A-Za-z0-9-]+")
#: Libraries take HTTP_PROXY for the proxy of their own requests ("httpoxy", CVE-2016-5385).
_NEVER: Final = frozenset({b"HTTP_PROXY"})


def build_params(
    settings: FastCGISettings, request: Request, body_length: int | None = None
) -> tuple[Pair, ...]:
    """All parameters of ``request``.

    ``body_length``: the length of a body that came without Content-Length and was collected;
    it is what an empty CONTENT_LENGTH should say.
    """
    pairs = list(_configured(settings.params, request))
    if body_length is not None:
        length = b"%d" % body_length
        pairs = [
            (name, length if name == b"CONTENT_LENGTH" and not value else value)
            for name, value in pairs
        ]
    passed = request.head.headers if settings.pass_request_headers else request.validators
    if passed:
        pairs += header_params(passed, settings.taken)
    return tuple(pairs)


def _configured(params: tuple[Param, ...], request: Request) -> list[Pair]:
    pairs = []
    for param in params:
        value = param.value(request)
        if value or not param.if_not_empty:
            pairs.append((param.name, value))
    return pairs


def header_params(headers: Iterable[Pair], taken: Set[bytes]) -> list[Pair]:
    """The header fields as parameters, but those whose name is in ``taken``.

    Fields of the same name are joined as one (RFC 3875 section 4.1.18).
    """
    joined: dict[bytes, bytes] = {}
    for name, value in headers:
        if _NAME.fullmatch(name) is None:
            continue
        key = b"HTTP_" + name.upper().replace(b"-", b"_")
        if key in taken or key in _NEVER:
            continue
        previous = joined.get(key)
        if previous is not None:
            value = previous + (b"; " if key == b"HTTP_COOKIE" else b", ") + value
        joined[key] = value
    return list(joined.items())


__all__ = ["FastCGISettings", "Param", "build_params", "header_params"]
