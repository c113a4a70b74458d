"""Heads with gaps, made once a second: for answers that differ in little else (`http.plans`)."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Final

from .errorpages import tokens_of
from .headers import Headers
from .message import Request, Response
from .serializer import Serializer, connection_field

#: A gap is one of these bytes while the head is made; they are never in a field otherwise.
_MARKS: Final = re.compile(rb"[\x01-\x08]")


def has_marks(headers: Headers) -> bool:
    """Whether a field could be taken for a gap."""
    return any(_MARKS.search(value) for _, value in headers)


class HeadForm:
    """The head of ``response``, with gaps.

    ``gaps`` says what is written into which field (by its name in lower case): a format as for
    ``%``. Content-Length is one of them. They are filled in the order of the head: length, date
    of modification, tag.
    """

    __slots__ = ("_closing", "_gaps", "_keeping", "_request", "_response", "_second")

    def __init__(self, request: Request, response: Response, gaps: Mapping[bytes, bytes]) -> None:
        self._request = request
        self._response = response
        self._gaps = {
            name: (b"%c" % mark, form) for mark, (name, form) in enumerate(gaps.items(), 1)
        }
        self._second = -1
        self._keeping = self._closing = b""

    def at(self, serializer: Serializer, now: float, keep: bool) -> bytes:
        """The head in this second, to be filled with ``%``."""
        second = int(now)
        if second != self._second:
            self._second = second
            self._keeping = self._closing = b""
        form = self._keeping if keep else self._closing
        if not form:
            form = self._make(serializer, now, keep)
            if keep:
                self._keeping = form
            else:
                self._closing = form
        return form

    @property
    def gaps(self) -> Collection[bytes]:
        """The names of the fields that have one."""
        return self._gaps

    def headers(self, now: float) -> Headers:
        """The fields as they are now."""
        headers_at = self._response.headers_at
        assert headers_at is not None
        return headers_at(int(now))

    def _make(self, serializer: Serializer, now: float, keep: bool) -> bytes:
        gaps = self._gaps
        length = gaps.get(b"content-length")
        headers = Headers(
            (name, gaps[lower][0] if (lower := name.lower()) in gaps else value)
            for name, value in self.headers(now)
        )
        head = serializer.head(
            self._response.status,
            headers,
            b"" if length is None else b"Content-Length: %b\r\n" % length[0],
            connection_field(keep, self._request.transfer.keepalive_header),
            now,
            tokens=tokens_of(self._request),
        ).replace(b"%", b"%%")
        for mark, form in gaps.values():
            head = head.replace(mark, form)
        return head
