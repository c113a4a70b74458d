"""What the cache's tests share: scripted upstreams and clients, zones in temporary places."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.cache.directives import CacheSettings
from imagefarm.cache.handler import CachingHandler
from imagefarm.cache.policy import ValidTime
from imagefarm.cache.settings import ZoneSettings
from imagefarm.cache.zone import Zone
from imagefarm.http.headers import Headers
from imagefarm.http.message import BodySink, FileBody, Peer, Request, RequestHead, Response

PEER = Peer("127.0.0.1", 40000, ("127.0.0.1", 8080), 1)


def request(
    target: bytes = b"/a.jpg",
    *fields: tuple[bytes, bytes],
    method: bytes = b"GET",
    started: float = 0.0,
) -> Request:
    head = RequestHead(method, target, (1, 1), Headers(fields))
    return Request(head, PEER, Stream(0), started)


class Stream:
    """A scripted `BodyStream`: the test calls `send`, `finish`, `breaks`."""

    def __init__(self, length: int | None = None) -> None:
        self.length = length
        self.sink: BodySink | None = None
        self.paused = False
        self.cancelled = False
        self.waiting: list[Callable[[], None]] = []

    def start(self, sink: BodySink) -> None:
        self.sink = sink
        self._flush()

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = False
        self._flush()

    def cancel(self) -> None:
        self.cancelled = True

    def send(self, *chunks: bytes) -> None:
        for chunk in chunks:
            self.waiting.append(lambda chunk=chunk: self.sink.data(chunk))
        self._flush()

    def finish(self) -> None:
        self.waiting.append(lambda: self.sink.end())
        self._flush()

    def breaks(self, error: Exception) -> None:
        self.waiting.append(lambda: self.sink.fail(error))
        self._flush()

    def _flush(self) -> None:
        while self.waiting and self.sink is not None and not (self.paused or self.cancelled):
            self.waiting.pop(0)()


class Sink:
    """A client. Pauses ``stream`` after each chunk if it is ``slow``."""

    def __init__(self, stream: Any = None, slow: bool = False) -> None:
        self.chunks: list[bytes] = []
        self.ended = False
        self.error: Exception | None = None
        self.stream, self.slow = stream, slow

    @property
    def body(self) -> bytes:
        return b"".join(self.chunks)

    def data(self, chunk: bytes) -> None:
        assert chunk and not self.ended and self.error is None
        self.chunks.append(chunk)
        if self.slow:
            self.stream.pause()

    def end(self) -> None:
        assert not self.ended and self.error is None
        self.ended = True

    def fail(self, error: Exception) -> None:
        assert not self.ended and self.error is None
        self.error = error


class Upstream:
    """An inner handler: answers with what `answers` holds, in turn; remembers the requests."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.requests: list[Request] = []

    def __call__(self, request: Request) -> Response | Deferred[Response]:
        self.requests.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def image(body: bytes = b"image", *fields: tuple[bytes, bytes], status: int = 200) -> Response:
    return Response(status, Headers(((b"Content-Type", b"image/jpeg"), *fields)), body)


def read(response: Response) -> bytes:
    """The body of a settled answer; closes what it holds."""
    body = response.body
    if isinstance(body, FileBody):
        data = os.pread(body.file.fd, body.length, body.offset)
        body.file.close()
        return data
    assert isinstance(body, bytes)
    return body


class ZoneCase(SynchronousTestCase):
    """A test with a cache directory, a clock that stands at the present, and a zone."""

    def setUp(self) -> None:
        self.path = os.path.join(tempfile.mkdtemp(prefix="imagefarm-cache-"), "zone")
        self.addCleanup(shutil.rmtree, os.path.dirname(self.path), True)
        self.clock = Clock()
        self.clock.advance(time.time())
        self.zone = self.make_zone()

    def make_zone(self, **changes: Any) -> Zone:
        given = {"name": "one", "path": self.path, "keys": 1000, "levels": (1, 2)}
        zone = Zone(ZoneSettings(**{**given, **changes}), self.clock.seconds)
        zone.start(self.clock)
        self.clock.advance(0)
        self.addCleanup(zone.stop)
        return zone

    def make_handler(self, inner: Upstream, zone: Zone | None = None, **changes: Any) -> Any:
        given: dict[str, Any] = {
            "zone": "one",
            "key": lambda request: request.head.target,
            "valid": (ValidTime(frozenset({200, 302}), 60.0),),
        }
        settings = CacheSettings(**{**given, **changes})
        return CachingHandler(inner, settings, zone or self.zone)

    def rounds(self, count: int = 20, seconds: float = 1.0) -> None:
        for _ in range(count):
            self.clock.advance(seconds)

    def now(self, response: Response | Deferred[Response]) -> Response:
        """The answer, which must be there at once."""
        if isinstance(response, Deferred):
            return self.successResultOf(response)
        return response

    def files(self) -> list[str]:
        """All cache files, and temporary ones, relative to the directory."""
        found = (
            os.path.relpath(os.path.join(where, name), self.path)
            for where, _, names in os.walk(self.path)
            for name in names
        )
        others = ("manager.lock", "state", "members/", "groups/", "purges", "uses")
        return sorted(name for name in found if not name.startswith(others))
