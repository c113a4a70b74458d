"""An upstream's answer as the client may see it: hidden fields, ``X-Accel-*``, failures.

What a server says with ``X-Accel-*`` is obeyed here for every protocol (nginx's
ngx_http_upstream_process_headers); ``X-Accel-Expires`` is the cache's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final

from twisted.internet.defer import CancelledError
from twisted.python.failure import Failure

from imagefarm.config.errors import Invalid

from .body import BodyError
from .buffering import buffer
from .dates import parse_http
from .filters.charset import SAID, overridden
from .headers import Headers
from .message import Request, Response, discard
from .requestlog import report, report_failure
from .timers import Clock
from .upstream import Fault, NoLivePeers, UnknownHost, UpstreamError
from .upstream_rows import UpstreamSettings

#: The fields that stay with an answer which X-Accel-Redirect sends elsewhere (nginx); and what the
#: cache on the way has said.
_KEPT: Final = frozenset({
    b"content-type", b"set-cookie", b"content-disposition", b"cache-control", b"expires",
    b"accept-ranges", b"cache-status",
})  # fmt: skip
#: nginx's status for a client that has gone; nobody sees it but the access log.
_GONE: Final = 499
#: nginx's statuses for failures; 502 for the others.
_STATUSES: Final = {Fault.TIMEOUT: 504, Fault.LOCAL: 500}

#: Changes a field: its name, the name in lower case, its value.
Rewrite = Callable[[Request, bytes, bytes], bytes]


class Presenter:
    """Makes of an upstream's answers what a location answers.

    ``rewrites`` change the values of the fields named (in lower case).
    """

    def __init__(
        self,
        settings: UpstreamSettings,
        clock: Clock,
        rewrites: Mapping[bytes, Rewrite] | None = None,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._rewrites = rewrites or {}
        self._obeyed = settings.obeyed
        self._hidden = settings.hidden
        if settings.force_ranges:
            self._hidden |= {b"accept-ranges"}  # it is ours to say
        self._special = self._hidden | self._obeyed | frozenset(self._rewrites)

    def present(self, response: Response, request: Request) -> Response:
        """The same answer, changed in place; or one that leads elsewhere in the tree."""
        settings = self._settings
        response.conditional = False
        response.final = not (settings.intercept_errors and response.status >= 300)
        if not settings.streaming.buffering.enabled:
            response.buffering = False
        self.again(response, request)
        if response.redirect is None:
            self._own(response, request)
        return response

    def again(self, response: Response, request: Request) -> None:
        """Change the fields of an answer that a cache has kept as it came: they are hidden,
        rewritten and obeyed as this location and this request have it.
        """
        special = self._special
        fields: list[tuple[bytes, bytes]] = []
        said: dict[bytes, bytes] = {}
        for field in response.headers:
            lower = field[0].lower()
            if lower in special:
                name, value = field
                if lower in self._obeyed:
                    said.setdefault(lower, value)
                if lower in self._hidden:
                    continue
                rewrite = self._rewrites.get(lower)
                if rewrite is not None:
                    field = name, rewrite(request, lower, value)
            fields.append(field)
        response.headers = Headers(fields)
        response.passed = True
        if said:
            self._obey(said, response, request)
        if response.redirect is None and request.preset and b"content-type" in response.headers:
            request.preset.remove(b"content-type")

    def _own(self, response: Response, request: Request) -> None:
        """What is for answers that end here."""
        buffer(response, request, self._settings.streaming.buffering, self._clock)
        if self._settings.force_ranges:
            response.ranges = response.single_range = True
            modified = response.headers.first(b"last-modified")
            response.mtime = None if modified is None else parse_http(modified)

    def _obey(self, said: dict[bytes, bytes], response: Response, request: Request) -> None:
        rate = said.get(b"x-accel-limit-rate", b"")
        if rate.isdigit():
            request.variables["limit_rate"] = rate
        buffering = said.get(b"x-accel-buffering", b"").lower()
        if buffering in (b"yes", b"no"):
            response.buffering = buffering == b"yes"
        response.redirect = said.get(b"x-accel-redirect") or None
        charset = said.get(b"x-accel-charset", b"")
        if charset:
            # For whatever will be the answer; and here, for what may be cached of this one.
            request.variables[SAID] = charset
            kind = response.headers.first(b"content-type")
            with suppress(Invalid):
                kind = kind and overridden(kind, charset, self._settings.charsets, response.status)
            if kind:
                response.headers.set(b"Content-Type", kind)


def leave(response: Response, request: Request) -> None:
    """Go where ``response.redirect`` leads: keep what stays of the answer, drop the rest."""
    discard(response.body)
    for name, value in response.headers:
        lower = name.lower()
        if lower in _KEPT:
            if lower == b"content-type":
                request.preset.remove(lower)
            request.preset.add(name, value)


def describe_anew(request: Request) -> None:
    """An error page takes the place of what X-Accel-Redirect led to: forget what described it."""
    request.preset.remove(b"content-type")
    request.preset.remove(b"accept-ranges")


def complete(response: Response, request: Request) -> None:
    """Add to ``response`` what stays of the answers that led to it with X-Accel-Redirect.

    Their Content-Type goes before that of a file, as in nginx; of the others only Set-Cookie
    may stand beside the answer's own.
    """
    own = {name.lower() for name, _ in response.headers}
    for name, value in request.preset:
        lower = name.lower()
        if lower == b"content-type":
            response.headers.set(name, value)
        elif lower == b"set-cookie" or lower not in own:
            response.headers.add(name, value)


def failure_response(failure: Failure, request: Request) -> Response:
    """The answer to the client where there is none; an attempt's reason is in the log already."""
    error = failure.value
    if isinstance(error, UpstreamError):
        request.outcome.failed = error.fault.word
        return Response(_STATUSES.get(error.fault, 502))
    if isinstance(error, NoLivePeers):
        request.outcome.failed = "error"
        return Response(502)
    if isinstance(error, UnknownHost | Invalid):
        # What a variable made of the *_pass is no address, or leads nowhere: 500 and 502 in nginx.
        report(request, "error", str(error))
        return Response(502 if isinstance(error, UnknownHost) else 500)
    if isinstance(error, CancelledError):
        return Response(_GONE, close=True)
    if isinstance(error, BodyError):
        return Response(error.status, close=True)
    report_failure(request, "passing on failed", failure)
    return Response(500)
