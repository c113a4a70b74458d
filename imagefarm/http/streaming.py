"""Directives of both upstream protocols about how bodies pass through, and what they come to.

`streaming_rows` makes the rows for ``proxy`` and for ``fastcgi``; they differ in their names only.
"""

from __future__ import annotations

import os
from typing import Any, Final

from attrs import field, frozen

from imagefarm.config import values
from imagefarm.config.errors import ConfigurationError, Problem
from imagefarm.config.table import HSL, AnyRow, Ignored, Row, Scope
from imagefarm.config.variables import Template

from .buffering import Buffering
from .spool import Spooling
from .tempfiles import TempPath, temp_path
from .transfer import (
    CLIENT_BODY_BUFFER_SIZE,
    CLIENT_BODY_IN_FILE_ONLY,
    CLIENT_BODY_TEMP_PATH,
    buffers,
    rate,
)

_BUFFERS: Final = (8, 8192)


@frozen(eq=False)
class StreamingRows:
    """The rows of one protocol; ``prefix`` is ``proxy`` or ``fastcgi``."""

    prefix: str
    buffering: Row[bool]
    buffers: Row[tuple[int, int]]
    busy: Row[int | None]
    max_file: Row[int | None]
    write_size: Row[int | None]
    temp_path: Row[TempPath | None]
    limit_rate: Row[int | Template]
    request_buffering: Row[bool]
    ignore_client_abort: Row[bool]

    @property
    def rows(self) -> tuple[AnyRow, ...]:
        """All of them, for the directive table."""
        return (
            self.buffering, self.buffers, self.busy, self.max_file, self.write_size,
            self.temp_path, self.limit_rate, self.request_buffering, self.ignore_client_abort,
            self._send_lowat,
        )  # fmt: skip

    @property
    def _send_lowat(self) -> AnyRow:
        why = "Linux has no such limit; nginx ignores it there too"
        return Ignored(name=f"{self.prefix}_send_lowat", contexts=HSL, why=why)


def streaming_rows(prefix: str) -> StreamingRows:
    """The rows for ``prefix``."""
    return StreamingRows(
        prefix,
        buffering=Row(
            name=f"{prefix}_buffering", contexts=HSL, convert=values.flag, default=True,
            syntax="on | off",
            doc="Reads answers as fast as the upstream gives them: what the client's socket does "
            "not take waits in memory and then in a temporary file. ``off``: the upstream goes "
            "at the client's pace. ``X-Accel-Buffering: yes | no`` in an answer goes before it.",
        ),
        buffers=Row(
            name=f"{prefix}_buffers", contexts=HSL, arity=(2, 2), convert=buffers,
            default=_BUFFERS, default_text="8 8k", syntax="number size",
            doc="How much of an answer waits in memory for its client: their product, and one "
            "read more (64k).",
        ),
        busy=Row(
            name=f"{prefix}_busy_buffers_size", contexts=HSL, convert=values.size, default=None,
            default_text="16k", syntax="size",
            doc="Checked as nginx does, without effect: what the client's socket has room for "
            "goes at once, and no more than 64k wait before it.",
        ),
        max_file=Row(
            name=f"{prefix}_max_temp_file_size", contexts=HSL, convert=values.offset,
            default=None, default_text="1024m", syntax="size",
            doc="How much of an answer waits in a temporary file at most; beyond that the "
            "upstream has to wait. 0 makes no files.",
        ),
        write_size=Row(
            name=f"{prefix}_temp_file_write_size", contexts=HSL, convert=values.size,
            default=None, default_text="16k", syntax="size",
            doc="How much is written to a temporary file at once.",
        ),
        temp_path=Row(
            name=f"{prefix}_temp_path", contexts=HSL, arity=(1, 4), convert=temp_path,
            default=None, default_text=f"{prefix}_temp", syntax="path [level1 [level2 [level3]]]",
            doc="Where temporary files are made. They lose their name at once.",
        ),
        limit_rate=Row(
            name=f"{prefix}_limit_rate", contexts=HSL, convert=rate, default=0, syntax="rate",
            doc="How many bytes a second of an answer are read from the upstream; 0 is no limit. "
            "May have variables. Without buffering it has no effect.",
        ),
        request_buffering=Row(
            name=f"{prefix}_request_buffering", contexts=HSL, convert=values.flag, default=True,
            syntax="on | off",
            doc="Reads a request's body whole, into memory and then a temporary file "
            "(``client_body_buffer_size``, ``client_body_temp_path``), before an upstream gets "
            "it, so that another one can get it too. ``off``: it streams through, and goes to "
            "no second server once it has begun to. A chunked body that must have a length is "
            "read whole anyway.",
        ),
        ignore_client_abort=Row(
            name=f"{prefix}_ignore_client_abort", contexts=HSL, convert=values.flag,
            default=False, syntax="on | off",
            doc="Whether an answer is still awaited when the client has gone. One that has closed "
            "no more than its half of the connection gets it.",
        ),
    )  # fmt: skip


@frozen(eq=False)
class Streaming:
    """How bodies pass through in one location."""

    buffering: Buffering = field(factory=Buffering)
    spooling: Spooling = field(factory=Spooling)
    ignore_client_abort: bool = False

    @property
    def directories(self) -> tuple[bytes, ...]:
        """Where temporary files may be made."""
        return self.buffering.temp.directory, self.spooling.temp.directory


def streaming_of(scope: Scope, rows: StreamingRows, prefix: str, buffer_size: int) -> Streaming:
    """The settings in force in ``scope``. Raises `ConfigurationError` in nginx's words.

    ``prefix`` is the directory that default paths are in; ``buffer_size`` is
    ``*_buffer_size``.
    """
    return Streaming(
        _buffering(scope, rows, prefix, buffer_size),
        Spooling(
            enabled=scope[rows.request_buffering],
            memory=scope[CLIENT_BODY_BUFFER_SIZE],
            temp=_temp(scope[CLIENT_BODY_TEMP_PATH], prefix, "client_body_temp"),
            in_file_only=scope[CLIENT_BODY_IN_FILE_ONLY],
        ),
        ignore_client_abort=scope[rows.ignore_client_abort],
    )


def _buffering(scope: Scope, rows: StreamingRows, prefix: str, buffer_size: int) -> Buffering:
    name = rows.prefix
    number, size = scope[rows.buffers]
    if number < 2:
        raise _problem(scope, rows.buffers, f'there must be at least 2 "{name}_buffers"')
    least = max(buffer_size, size)
    tail = (
        f'must be equal to or greater than the maximum of the value of "{name}_buffer_size" and '
        f'one of the "{name}_buffers"'
    )
    busy = scope[rows.busy]
    if busy is not None and busy < least:
        raise _problem(scope, rows.busy, f'"{name}_busy_buffers_size" {tail}')
    if (2 * least if busy is None else busy) > (number - 1) * size:
        row = rows.buffers if busy is None else rows.busy
        raise _problem(
            scope, row,
            f'"{name}_busy_buffers_size" must be less than the size of all "{name}_buffers" '
            "minus one buffer",
        )  # fmt: skip
    write_size = scope[rows.write_size]
    if write_size is not None and write_size < least:
        raise _problem(scope, rows.write_size, f'"{name}_temp_file_write_size" {tail}')
    max_file = scope[rows.max_file]
    if max_file is not None and 0 < max_file < least:
        raise _problem(
            scope, rows.max_file,
            f'"{name}_max_temp_file_size" must be equal to zero to disable temporary files usage '
            f"or {tail}",
        )  # fmt: skip
    return Buffering(
        enabled=scope[rows.buffering],
        memory=number * size,
        max_file=1 << 30 if max_file is None else max_file,
        write_size=2 * least if write_size is None else write_size,
        temp=_temp(scope[rows.temp_path], prefix, f"{name}_temp"),
        rate=scope[rows.limit_rate],
    )


def _temp(path: TempPath | None, prefix: str, name: str) -> TempPath:
    """``path``, or else nginx's default: the directory ``name`` in ``prefix``."""
    return path or TempPath(os.fsencode(os.path.join(prefix, name)))


def _problem(scope: Scope, row: Row[Any], message: str) -> ConfigurationError:
    """An error at the line that gave ``row`` its value, or at the block that has the default."""
    inner: Scope | None = scope
    while inner is not None:
        for kind, _, directive in inner.items:
            if kind is row:
                return ConfigurationError([Problem(message, directive.file, directive.line)])
        inner = inner.parent
    where = scope.directive
    assert where is not None
    return ConfigurationError([Problem(message, where.file, where.line)])
