"""The fast path for files that have not been asked for before.

When a file has been served, its neighbours with the same extension are mostly answered alike: in
the same location, with the same head but for size and date (`message.Alike`, which the
application vouches for). So a `Family` is remembered: the head with gaps, and how to tell who
belongs. A `Member` is one file of it, opened and read for one answer; `http.plans` keeps those
that are wanted again.
"""

from __future__ import annotations

import os
import re
import stat
from typing import Any, Final

from .alike import Alike
from .body import EMPTY
from .dates import format_http
from .etag import etag
from .forms import HeadForm, has_marks
from .headers import Headers
from .message import (
    OPEN_FLAGS,
    FileBody,
    Identity,
    Occasion,
    OpenFile,
    Outcome,
    Peer,
    Request,
    RequestHead,
    Response,
    identity,
)
from .serializer import Serializer

#: What names may be made of; all else is for the ordinary path to decode or to refuse.
_SAFE: Final = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-_."
_SAFE_IN_QUERY: Final = _SAFE + b"/=&%:,;+~!*'()@|$?[]"
#: What follows the target in a request line.
_VERSION: Final = len(b" HTTP/1.1")
_GAPS: Final = {b"content-length": b"%d", b"last-modified": b"%b", b"etag": b'"%x-%x"'}
#: Dates that are remembered as texts.
MAX_DATES: Final = 4096
#: Larger bodies are sent on the ordinary path, with sendfile; in bytes.
MAX_BODY: Final = 65536


def split(line: bytes) -> tuple[bytes, bytes] | None:
    """A request line without the name in it, and the name with its extension, if it has one.

    Where there is a query, that is the name.
    """
    if b"?" in line:
        return _split_query(line)
    slash = line.rfind(b"/", 0, -4) + 1
    dot = line.rfind(b".", slash, -4)
    name = line[slash:-_VERSION]
    if dot == slash or not name or name.translate(None, _SAFE) or line[slash] == 46:
        return None
    return line[:slash] + line[dot if dot > 0 else -_VERSION :], name


def _split_query(line: bytes) -> tuple[bytes, bytes] | None:
    mark = line.index(b"?") + 1
    name = line[mark:-_VERSION]
    if not name or name.translate(None, _SAFE_IN_QUERY):
        return None
    return line[:mark] + line[-_VERSION:], name


def target_of(line: bytes) -> bytes:
    """The target in a request line of HTTP/1.1 with the method GET."""
    return line[4:-_VERSION]


def replayed(
    model: Request,
    captures: re.Pattern[bytes] | None,
    uri: bytes,
    headers: Headers,
    peer: Peer,
    started: float,
    outcome: Outcome,
    *,
    number: int,
    size: int,
    args: bytes = b"",
) -> Request:
    """A finished request like ``model``, of which only the name in its target is another.

    ``captures`` is the pattern that led to its location, ``size`` its own bytes.
    """
    return Request(
        RequestHead(b"GET", b"%b?%b" % (uri, args) if args else uri, (1, 1), headers),
        peer,
        EMPTY,
        started,
        model.host,
        uri,
        args,
        model.captures if captures is None else captures.search(uri),
        dict(model.variables),
        model.server,
        model.location,
        number=number,
        length=size,
        transfer=model.transfer,
        outcome=outcome,
    )


def founds_family(response: Response) -> bool:
    """Whether a remembered answer speaks for others, too."""
    return response.alike is not None and not has_marks(response.headers)


class Family:
    """Files that are answered alike; ``request`` is the one that it was learnt from."""

    __slots__ = (
        "_alike", "_dates", "_tagged", "captures", "form", "keep", "memory", "request", "status",
        "transfer",
    )  # fmt: skip

    def __init__(self, request: Request, response: Response, dates: dict[int, bytes]) -> None:
        assert response.alike is not None
        self._alike: Alike = response.alike
        self.captures = response.alike.captures
        self.request = request
        self.status = response.status
        self.transfer = request.transfer
        self.keep = not response.close
        self.memory: dict[Any, Any] = {}
        self.form = HeadForm(request, response, _GAPS)
        self._tagged = b"etag" in response.headers
        self._dates = dates

    def member(self, line: bytes, name: bytes, headers: Headers, now: float) -> Member | None:
        """The file ``name`` that ``line`` asks for, and its content; None if it is not one."""
        if not belongs(self._alike, line, name):
            return None
        path = self._alike.directory + name
        found = read(path)
        return None if found is None else Member(self, line, path, *found)

    def head(self, serializer: Serializer, now: float, keep: bool, mtime: int, size: int) -> bytes:
        """The head of a file's answer in this second."""
        date = self._dates.get(mtime) or self._date(mtime)
        form = self.form.at(serializer, now, keep)
        return form % ((size, date, mtime, size) if self._tagged else (size, date))

    def _date(self, mtime: int) -> bytes:
        if len(self._dates) >= MAX_DATES:
            self._dates.clear()
        date = self._dates[mtime] = format_http(mtime)
        return date


def belongs(alike: Alike, line: bytes, name: bytes) -> bool:
    """Whether the ``name`` that ``line`` asks for is one of those that ``alike`` speaks of."""
    if alike.elsewhere and name.startswith(alike.elsewhere):
        return False
    for pattern, expected in alike.patterns:
        if (pattern.search(target_of(line)) is not None) is not expected:
            return False
    return True


def read(path: bytes) -> tuple[Identity, int, bytes] | None:
    """A regular file's identity, date and content, if it is neither empty nor large."""
    try:
        fd = os.open(path, OPEN_FLAGS)
    except (OSError, ValueError):
        return None
    try:
        info = os.fstat(fd)
        size = info.st_size
        if not 0 < size <= MAX_BODY or not stat.S_ISREG(info.st_mode):
            return None
        data = os.read(fd, size)
    except OSError:
        return None
    finally:
        os.close(fd)
    if len(data) != size:
        return None
    return (info.st_ctime_ns, size, info.st_ino), int(info.st_mtime), data


class Member:
    """How to answer for one file of a family: what `plans.Plan` is for a single answer."""

    __slots__ = (
        "_identity", "_mtime", "_path", "_size", "body", "family", "keep", "line", "memory",
        "transfer",
    )  # fmt: skip

    many: Final = True
    took: Final = 0.0
    kept: Final = None
    named: Final = False
    name = b""
    #: It is the same for all header blocks, and has no query.
    own: Final = False
    args: Final = b""

    def __init__(
        self, family: Family, line: bytes, path: bytes, what: Identity, mtime: int, body: bytes
    ) -> None:
        self.family = family
        self.transfer = family.transfer
        self.keep = family.keep
        self.memory = family.memory
        self.line = line
        self.body: bytes | None = body
        self._path = path
        self._identity = what
        self._mtime = mtime
        self._size = len(body)

    @property
    def uri(self) -> bytes:
        """The path that is asked for."""
        return target_of(self.line)

    @property
    def target(self) -> bytes:
        """The same."""
        return target_of(self.line)

    @property
    def changed(self) -> float:
        """When the file last changed, in seconds of the time of day."""
        return self._identity[0] / 1e9

    def holds(self, now: float) -> bool:
        """Whether the file is what it was."""
        try:
            return identity(os.stat(self._path)) == self._identity
        except OSError:
            return False

    def read(self) -> bytes | None:
        """The body from the file, if that is still what it was."""
        found = read(self._path)
        if found is None or found[0] != self._identity or not self.holds(0.0):
            return None
        return found[2]

    def head(self, serializer: Serializer, now: float, keep: bool) -> bytes:
        """The head for this second."""
        return self.family.head(serializer, now, keep, self._mtime, self._size)

    def replay(self, occasion: Occasion) -> Request:
        """The finished request for the log, as the ordinary path would have left it."""
        headers, peer, number, size, started, sent, keep = occasion
        family = self.family
        values = {
            b"last-modified": format_http(self._mtime),
            b"etag": etag(self._mtime, self._size),
        }
        file = OpenFile(-1, self._size, float(self._mtime), self._path, self._identity)
        response = Response(
            family.status,
            Headers((n, values.get(n.lower(), v)) for n, v in family.form.headers(started)),
            FileBody(file, 0, self._size),
            mtime=float(self._mtime),
        )
        outcome = Outcome(
            response.status, sent, self._size, complete=True, keep=keep, response=response
        )
        return replayed(
            family.request, family.captures, self.uri, headers, peer, started, outcome,
            number=number, size=size,
        )  # fmt: skip
