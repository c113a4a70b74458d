"""Remembered answers: the fast path for requests that have been answered before.

The ordinary path answers a request first. If its answer was a whole small file, and nothing else
than the target, the host and that file had a say in it (`Request.plannable`), the connection
remembers a `Plan`. The next request with the same request line and host is then served from the
plan: the file's identity is checked with one stat, and head and body go out in one write.

A plan can never give an answer that the ordinary path would not have given: whatever is unusual
about a request (a body, conditions, ranges, an expectation, another version) has no plan, and a
file that has changed in any way sends the request down the ordinary path.

The header block (all after the request line) of a client is the same for all its requests, so
what it means is remembered too: `Block`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Final

from .body import EMPTY
from .headers import Headers
from .message import (
    FileBody,
    OpenFile,
    Outcome,
    Peer,
    Request,
    RequestHead,
    Response,
    identity,
)
from .parser import ParsedHead
from .serializer import Serializer, connection_field, content_length

#: How many header blocks and plans one listening socket remembers. When there are more, all are
#: forgotten: that is cheaper than a record of use, and they are learnt again at once.
MAX_BLOCKS: Final = 8192
MAX_PLANS: Final = 131072
#: The longest header block and request line worth remembering, in bytes.
MAX_BLOCK: Final = 2048
MAX_LINE: Final = 1024
#: Larger files are sent with sendfile on the ordinary path; in bytes.
MAX_BODY: Final = 65536
#: The bytes of bodies kept in memory by one listening socket.
MAX_BODIES: Final = 64 << 20
#: A file that has changed within so many seconds is read anew each time: two changes within one
#: tick of the kernel's clock could have the same time stamp.
RACY: Final = 0.1

#: Fields whose presence makes a request unusual.
_UNUSUAL: Final = frozenset({
    b"range", b"if-range", b"if-match", b"if-none-match", b"if-modified-since",
    b"if-unmodified-since", b"expect", b"upgrade", b"content-length", b"transfer-encoding",
    b"via", b"te", b"trailer",
})  # fmt: skip

#: Gives a response's headers as they are in a second.
HeadersAt = Callable[[int], Headers]


class Block:
    """What a header block means, for usual requests in HTTP/1.1."""

    __slots__ = ("headers", "keep", "plans")

    def __init__(self, parsed: ParsedHead, plans: dict[bytes, Plan]) -> None:
        self.headers = parsed.head.headers
        self.keep = parsed.keep_alive
        self.plans = plans


class Plan:
    """How to answer one request line with one file. ``request`` is the one it was learnt from."""

    __slots__ = (
        "_closing", "_headers_at", "_keeping", "_second", "body", "file", "memory", "mtime",
        "path", "request", "response",
    )  # fmt: skip

    def __init__(
        self, request: Request, response: Response, file: OpenFile, headers_at: HeadersAt
    ) -> None:
        self.path = file.path
        self.file = file.identity
        self.mtime = file.mtime
        self.request = request
        self.response = response
        self.body: bytes | None = None
        #: What the application keeps for its log, by client.
        self.memory: dict[Any, Any] = {}
        self._headers_at = headers_at
        self._second = -1
        self._keeping = self._closing = b""

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
                200,
                self.response.headers,
                content_length(self.file[1]),
                connection_field(keep, transfer.keepalive_header),
                now,
                tokens=transfer.server_tokens,
            )
            if keep:
                self._keeping = head
            else:
                self._closing = head
        return head

    def replay(
        self, block: Block, peer: Peer, number: int, size: int, started: float, head: int
    ) -> Request:
        """The finished request for the log, as the ordinary path would have left it."""
        model = self.request
        body = self.file[1]
        return Request(
            RequestHead(model.head.method, model.head.target, (1, 1), block.headers),
            peer,
            EMPTY,
            started,
            model.host,
            model.uri,
            model.args,
            model.captures,
            dict(model.variables) if model.variables else {},
            model.server,
            model.location,
            number=number,
            length=size,
            transfer=model.transfer,
            outcome=Outcome(200, head + body, body, response=self.response),
        )


class Plans:
    """What one listening socket remembers."""

    __slots__ = ("_bodies", "_count", "_hosts", "blocks")

    def __init__(self) -> None:
        self.blocks: dict[bytes, Block] = {}
        self._hosts: dict[bytes, dict[bytes, Plan]] = {}
        self._count = 0
        self._bodies = 0

    def __repr__(self) -> str:
        return f"<Plans {len(self.blocks)} blocks {self._count} plans {self._bodies} bytes>"

    def know(self, block: bytes, parsed: ParsedHead) -> None:
        """Remember what a header block means, if the request was a usual one."""
        head = parsed.head
        if head.version != (1, 1) or parsed.length != 0 or len(block) > MAX_BLOCK:
            return
        if any(name.lower() in _UNUSUAL for name, _ in head.headers):
            return
        if len(self.blocks) >= MAX_BLOCKS:
            self.forget()
        self.blocks[block] = Block(parsed, self._hosts.setdefault(parsed.host, {}))

    def learn(self, line: bytes, block: bytes, request: Request, response: Response) -> None:
        """Remember how ``request`` was answered, if that can be repeated."""
        body = response.body
        known = self.blocks.get(block)
        if known is None or not isinstance(body, FileBody) or len(line) > MAX_LINE:
            return
        file = body.file
        if response.headers_at is None:
            return
        whole = response.status == 200 and body.offset == 0 and body.length == file.size
        if not whole or file.size > MAX_BODY or not request.head.target.startswith(b"/"):
            return
        if self._count >= MAX_PLANS:
            self.forget()
            return
        if line not in known.plans:
            self._count += 1
        known.plans[line] = Plan(request, response, file, response.headers_at)

    def keep(self, plan: Plan, body: bytes, now: float) -> None:
        """Keep a body in memory, if the file has been at rest for long enough."""
        if now - plan.mtime > RACY and self._bodies + len(body) <= MAX_BODIES:
            plan.body = body
            self._bodies += len(body)

    def drop(self, plans: dict[bytes, Plan], line: bytes) -> None:
        """Forget a plan that holds no longer."""
        plan = plans.pop(line, None)
        if plan is not None:
            self._count -= 1
            self._bodies -= len(plan.body or b"")

    def forget(self) -> None:
        """Forget everything."""
        for plans in self._hosts.values():
            plans.clear()
        self._hosts.clear()
        self.blocks.clear()
        self._count = self._bodies = 0


def read(plan: Plan) -> bytes | None:
    """The file's content if the file is still the one of the plan, else None."""
    try:
        fd = os.open(plan.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except OSError:
        return None
    try:
        if identity(os.fstat(fd)) != plan.file:
            return None
        data = os.read(fd, plan.file[1] + 1)
        if len(data) != plan.file[1] or identity(os.fstat(fd)) != plan.file:
            return None
        return data
    except OSError:
        return None
    finally:
        os.close(fd)
