"""A body on its way to the client and into the cache at once.

The file is filled at the upstream's pace. A client that is slower reads what it has missed
back from the file; one that leaves does not stop the filling. Without a file (the disk is
full) it is an ordinary stream at the client's pace.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

import attrs

from imagefarm.http.message import BodySink, BodyStream

from .entry import Entry
from .locks import Landing
from .store import Writer
from .zone import Zone

#: How much a slow client reads back from the file at once.
_READ: Final = 65536


class Incomplete(Exception):
    """The upstream ended before the length that it had promised, or a read-back failed."""


class Filling:
    """A `BodyStream` for the client, a `BodySink` for the upstream's ``source``.

    ``entry`` goes under ``digest`` when the body is complete; ``landed`` is told once how it
    ended: STORED, PASS (it can't be stored) or LEAD (the upstream failed).
    """

    def __init__(
        self,
        zone: Zone,
        source: BodyStream,
        writer: Writer,
        entry: Entry,
        digest: bytes,
        landed: Callable[[Landing], None],
    ) -> None:
        self._zone = zone
        self._source = source
        self._writer = writer
        self._entry = entry
        self._digest = digest
        self._landed: Callable[[Landing], None] | None = landed
        self._sink: BodySink | None = None
        self._started = self._paused = self._ended = self._pumping = self._gone = False
        self._source_paused = False
        self._sent = 0
        #: Chunks that the client has to get and the file could not take; the source is paused.
        self._held: deque[bytes] = deque()

    # The client's side

    @property
    def length(self) -> int | None:
        """The source's length."""
        return self._source.length

    def start(self, sink: BodySink) -> None:
        """Begin delivery and filling."""
        self._sink = sink
        self._started = True
        self._source.start(self)

    def pause(self) -> None:
        """The client is slow; the filling goes on."""
        self._paused = True
        if not self._storing and not self._ended:
            self._hold_source()

    def resume(self) -> None:
        """The client is ready again."""
        self._paused = False
        self._pump()

    def cancel(self) -> None:
        """The client has gone. What is being stored will be; else the source is cancelled."""
        if self._gone:
            return
        self._gone, self._sink = True, None
        self._held.clear()
        if self._ended:
            self._writer.close()
        elif not self._storing:
            self._drop()
        elif not self._started:
            self._started = True
            self._source.start(self)

    # The upstream's side

    def data(self, chunk: bytes) -> None:
        """Some bytes from the upstream."""
        behind = self._paused or self._behind
        if self._storing and not self._store(chunk):
            self._land(Landing.PASS)
        if self._sink is not None:
            if not behind:
                self._sent += len(chunk)
                self._sink.data(chunk)
            elif not self._storing:
                self._held.append(chunk)
                self._hold_source()
        elif not self._storing:
            self._drop()

    def end(self) -> None:
        """The upstream's body is complete."""
        length = self._source.length
        if self._storing and length is not None and length != self._writer.written:
            self.fail(Incomplete(f"{self._writer.written} of {length} bytes"))
            return
        self._ended = True
        if self._storing:
            entry = attrs.evolve(self._entry, body_length=self._writer.written)
            stored = self._zone.commit(self._writer, entry, self._digest)
            self._land(Landing.STORED if stored else Landing.PASS)
        self._pump()

    def fail(self, error: Exception) -> None:
        """The upstream's body broke off: nothing is stored, another request may try."""
        self._ended = True
        self._writer.close()
        if self._storing:
            self._land(Landing.LEAD)
        sink, self._sink = self._sink, None
        if sink is not None:
            sink.fail(error)

    # Inside

    @property
    def _storing(self) -> bool:
        return self._landed is not None

    @property
    def _behind(self) -> bool:
        return self._sent < self._writer.written or bool(self._held)

    def _land(self, landing: Landing) -> None:
        landed, self._landed = self._landed, None
        if landed is not None:
            landed(landing)

    def _store(self, chunk: bytes) -> bool:
        limit = self._zone.settings.max_size
        if limit is not None and self._writer.written + len(chunk) > limit:
            self._writer.abort()
            return False
        return self._zone.write(self._writer, chunk)

    def _hold_source(self) -> None:
        if not self._source_paused:
            self._source_paused = True
            self._source.pause()

    def _drop(self) -> None:
        self._ended = True
        self._source.cancel()
        self._writer.close()

    def _pump(self) -> None:
        """Deliver what the client has missed; when it has all, let the source go on, or end."""
        if self._pumping:
            return
        self._pumping = True
        try:
            while self._sink is not None and not self._paused and self._behind:
                self._deliver(self._sink)
        finally:
            self._pumping = False
        if self._sink is not None and self._behind:
            return
        if self._ended:
            self._writer.close()
            sink, self._sink = self._sink, None
            if sink is not None:
                sink.end()
        elif self._source_paused and not self._paused:
            self._source_paused = False
            self._source.resume()

    def _deliver(self, sink: BodySink) -> None:
        if self._sent >= self._writer.written:
            chunk = self._held.popleft()
        else:
            try:
                chunk = self._writer.read(self._sent, _READ)
            except OSError:
                chunk = b""
            if not chunk:
                self._sink = None
                if not self._ended and not self._storing:
                    self._drop()
                sink.fail(Incomplete("the cache file can't be read back"))
                return
        self._sent += len(chunk)
        sink.data(chunk)
