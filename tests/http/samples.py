"""Requests, files, configurations and sinks for the tests of filters, variables and logs."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from typing import Any

from imagefarm.config.ast import Directive
from imagefarm.config.loader import convert
from imagefarm.config.parse import parse_text
from imagefarm.config.table import (
    HTTP,
    LOCATION,
    MAIN,
    SERVER,
    BlockRow,
    DirectiveTable,
    Environment,
    Scope,
)
from imagefarm.http.directives import DIRECTIVES
from imagefarm.http.headers import Headers
from imagefarm.http.message import (
    Body,
    BodySink,
    FileBody,
    OpenFile,
    PartsBody,
    Peer,
    Request,
    RequestHead,
)
from imagefarm.http.variables import variable_table

#: Sun, 06 Nov 1994 08:49:37 GMT.
NOW = 784111777.0

Fields = Iterable[tuple[bytes, bytes]]


class Source:
    """A scripted `BodyStream`: the test says when something comes."""

    def __init__(self, *chunks: bytes, length: int | None = None) -> None:
        self.length = length
        self.log: list[str] = []
        self.sink: BodySink | None = None
        self._chunks = chunks

    def start(self, sink: BodySink) -> None:
        self.log.append("start")
        self.sink = sink
        for chunk in self._chunks:
            sink.data(chunk)
        if self._chunks:
            sink.end()

    def pause(self) -> None:
        self.log.append("pause")

    def resume(self) -> None:
        self.log.append("resume")

    def cancel(self) -> None:
        self.log.append("cancel")


class Sink:
    """A `BodySink` that remembers, and may pause its stream after each chunk."""

    def __init__(self, pausing: Any = None) -> None:
        self.chunks: list[bytes] = []
        self.ends = 0
        self.error: Exception | None = None
        self._pausing = pausing

    @property
    def body(self) -> bytes:
        return b"".join(self.chunks)

    def data(self, chunk: bytes) -> None:
        assert chunk and not self.ends and self.error is None
        self.chunks.append(chunk)
        if self._pausing is not None:
            self._pausing.pause()

    def end(self) -> None:
        self.ends += 1

    def fail(self, error: Exception) -> None:
        assert not self.ends and self.error is None
        self.error = error


def request(
    target: bytes = b"/",
    fields: Fields = (),
    *,
    method: bytes = b"GET",
    version: tuple[int, int] = (1, 1),
    peer: Peer | None = None,
    started: float = NOW,
) -> Request:
    """A request without a body."""
    uri, _, args = target.partition(b"?")
    return Request(
        head=RequestHead(method, target, version, Headers(fields)),
        peer=peer or Peer("192.0.2.7", 4711, ("127.0.0.1", 8080), 3),
        body=Source(length=0),
        started=started,
        host=b"farm.example",
        uri=uri,
        args=args,
    )


def open_file(content: bytes, mtime: float = NOW) -> OpenFile:
    """A file of its own with ``content``, open; it has no name any more."""
    fd, path = tempfile.mkstemp()
    os.write(fd, content)
    os.unlink(path)
    return OpenFile(fd, len(content), mtime)


def file_body(content: bytes) -> FileBody:
    """A body that is a whole file."""
    file = open_file(content)
    return FileBody(file, 0, file.size)


def read(body: Body) -> bytes:
    """All bytes of ``body``, which is used up. A stream must deliver them at once."""
    if isinstance(body, bytes):
        return body
    if isinstance(body, FileBody):
        return os.pread(body.file.fd, body.length, body.offset)
    if isinstance(body, PartsBody):
        return b"".join(map(read, body.parts))
    sink = Sink()
    body.start(sink)
    assert sink.ends == 1, sink.error
    return sink.body


def _nothing(directive: Directive, env: Environment) -> None:
    return None


def _block(name: str, outside: str, inside: str) -> BlockRow[None]:
    return BlockRow(
        name=name,
        contexts=frozenset({outside}),
        opens=inside,
        convert=_nothing,
        doc="",
        arity=(0, 1),
    )


_HTTP = _block("http", MAIN, HTTP)
_SERVER = _block("server", HTTP, SERVER)
_LOCATION = _block("location", SERVER, LOCATION)
_TABLE = DirectiveTable({"blocks": (_HTTP, _SERVER, _LOCATION), "http": DIRECTIVES})


def http_scope(text: str, prefix: str = "/srv") -> Scope:
    """The scope of an ``http`` block with these lines. Raises `ConfigurationError`."""
    loaded = convert(
        parse_text("http {\n" + text + "\n}", "test.conf"),
        table=_TABLE,
        variables=variable_table(clock=lambda: NOW),
        prefix=prefix,
        conf_dir=prefix,
    )
    return loaded.root.blocks(_HTTP)[0]


def server_scope(text: str) -> Scope:
    """The scope of the only ``server`` block in these lines of an ``http`` block."""
    return http_scope(text).blocks(_SERVER)[0]


def location_scope(text: str) -> Scope:
    """The scope of the only ``location`` in these lines of a ``server`` block."""
    return server_scope("server {\n" + text + "\n}").blocks(_LOCATION)[0]
