"""One remembered answer: see `http.plans`."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Final

from .body import EMPTY
from .errorpages import tokens_of
from .headers import Headers
from .keeping import Kept
from .message import (
    OPEN_FLAGS,
    FileBody,
    Identity,
    Look,
    Occasion,
    OpenFile,
    Outcome,
    Request,
    RequestHead,
    Response,
    identity,
)
from .serializer import Serializer, connection_field

#: Gives a response's headers as they are in a second.
HeadersAt = Callable[[int], Headers]


class Plan:
    """How to answer one request. ``request`` is the one it was learnt from."""

    __slots__ = (
        "_closing", "_framing", "_headers_at", "_keeping", "_lent", "_second", "args", "body",
        "keep", "kept", "line", "look", "memory", "request", "response", "target", "transfer",
        "uri", "witnesses",
    )  # fmt: skip

    many: Final = False
    took: Final = 0.0
    #: Whether a field is the request id, which is to be set as ``name`` before `head` is called.
    named = False
    name = b""

    def __init__(
        self, request: Request, response: Response, framing: bytes, headers_at: HeadersAt
    ) -> None:
        self.request = request
        self.response = response
        self.transfer = request.transfer
        #: Of no interest where it stands for one request only.
        self.line = self.target = self.uri = self.args = b""
        #: The cache's word, where it comes from one.
        self.kept: Kept | None = response.kept
        self.witnesses = tuple(request.witnesses)
        #: The body, while it is in memory.
        self.body: bytes | None = response.body if isinstance(response.body, bytes) else None
        #: How to open the body's file where it is kept open; it is not kept in memory then.
        self.look: Look | None = None
        if isinstance(response.body, FileBody):
            looks = {path: look for path, _, look in self.witnesses}
            self.look = looks.get(response.body.file.path)
        self._lent: OpenFile | None = None
        self.keep = not response.close
        #: What the application keeps for its log, by client.
        self.memory: dict[Any, Any] = {}
        self._framing = framing
        self._headers_at = headers_at
        self._second = -1
        self._keeping = self._closing = b""

    def holds(self, now: float) -> bool:
        """Whether all files are what they were. `read` comes next where there is no body."""
        for path, wanted, look in self.witnesses:
            try:
                found = self._seen(look(path, wanted)) if look else identity(os.stat(path))
            except (FileNotFoundError, NotADirectoryError):
                found = None
            except (OSError, ValueError):
                return self._fails()
            if found != wanted:
                return self._fails()
        return True

    def _seen(self, file: OpenFile | None) -> Identity | None:
        """What an open file is. The body's is kept: to open it anew would count as a use."""
        if file is None:
            return None
        body = self.response.body
        if self._lent is None and isinstance(body, FileBody) and body.file.path == file.path:
            self._lent = file
        else:
            file.close()
        return file.identity

    def _fails(self) -> bool:
        lent, self._lent = self._lent, None
        if lent is not None:
            lent.close()
        return False

    def read(self) -> bytes | None:
        """The body from its file, if that is still what it was."""
        part = self.response.body
        assert isinstance(part, FileBody)
        file = part.file
        lent, self._lent = self._lent, None
        if lent is not None:
            return _read_whole(lent, part)
        try:
            fd = os.open(file.path, OPEN_FLAGS)
        except OSError:
            return None
        try:
            if identity(os.fstat(fd)) != file.identity:
                return None
            data = os.pread(fd, part.length, part.offset)
            if len(data) != part.length or identity(os.fstat(fd)) != file.identity:
                return None
            return data
        except OSError:
            return None
        finally:
            os.close(fd)

    def head(self, serializer: Serializer, now: float, keep: bool) -> bytes:
        """The head for this second, from the connection's own serializer."""
        second = int(now)
        if second != self._second:
            self._second = second
            self._keeping = self._closing = b""
            self.response.headers = self._headers_at(second)
        head = self._keeping if keep else self._closing
        if not head:
            transfer = self.request.transfer
            head = serializer.head(
                self.response.status,
                self.response.headers,
                self._framing,
                connection_field(keep, transfer.keepalive_header),
                now,
                tokens=tokens_of(self.request),
            )
            if keep:
                self._keeping = head
            else:
                self._closing = head
        return head

    @property
    def changed(self) -> float:
        """When the file that changed last did, in seconds of the time of day."""
        return max(wanted[0] for _, wanted, _ in self.witnesses if wanted is not None) / 1e9

    def replay(self, occasion: Occasion) -> Request:
        """The finished request for the log, as the ordinary path would have left it.

        ``size`` bytes were read for it and ``sent`` written; the connection was kept or not.
        """
        headers, peer, number, size, started, sent, keep = occasion
        model, head = self.request, self.request.received or self.request.head
        body = self.response.body
        length = len(body) if isinstance(body, bytes) else getattr(body, "length", 0)
        return Request(
            RequestHead(head.method, head.target, (1, 1), headers),
            peer,
            EMPTY,
            started,
            model.host,
            model.uri,
            model.args,
            model.captures,
            dict(model.variables),
            model.server,
            model.location,
            internal=model.internal,
            number=number,
            length=size,
            transfer=model.transfer,
            outcome=Outcome(
                self.response.status,
                sent,
                length,
                compressed=model.outcome.compressed,
                complete=True,
                keep=keep,
                response=self.response,
            ),
            notes=list(model.notes),
        )


def _read_whole(file: OpenFile, part: FileBody) -> bytes | None:
    """The body from the descriptor that the ordinary path would have sent; closes it."""
    try:
        data = os.pread(file.fd, part.length, part.offset)
    except OSError:
        return None
    finally:
        file.close()
    return data if len(data) == part.length else None
