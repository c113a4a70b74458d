"""``early_hints``: 103 of an upstream for the client (RFC 8297, nginx 1.29)."""

from __future__ import annotations

from imagefarm.http.headers import Headers
from imagefarm.http.message import Request
from imagefarm.http.requestlog import report

from .settings import ProxySettings


class EarlyHints:
    """Takes the hints that come for a request, and passes on what is not hidden."""

    __slots__ = ("_hidden", "_left", "_request")

    def __init__(self, request: Request, hidden: frozenset[bytes], limit: int) -> None:
        self._request = request
        self._hidden = hidden
        #: Bytes that the heads may still have.
        self._left = limit

    @classmethod
    def of(cls, request: Request, settings: ProxySettings) -> EarlyHints | None:
        """What takes them, if ``early_hints`` says that they are wanted."""
        if any(template(request) not in (b"", b"0") for template in settings.early_hints):
            return cls(request, settings.hidden, settings.buffer_size)
        return None

    def __call__(self, size: int, headers: Headers) -> None:
        """`http.upstream.Outgoing.hinted`."""
        self._left -= size
        if self._left < 0:
            report(self._request, "info", "upstream sent too big early hints")
        elif self._request.hint is not None:
            fields = [field for field in headers if field[0].lower() not in self._hidden]
            self._request.hint(Headers(fields))
