"""Cache files made by the hundred thousand, as fast as the file system can take them."""

from __future__ import annotations

import os
import time
import zlib
from contextlib import ExitStack
from multiprocessing.connection import Connection
from pathlib import Path

from benchmarks.helpers import Helper
from imagefarm.cache.entry import Entry, encode
from imagefarm.cache.store import Directory, digest_of

#: Requests by number: benchmarks/lua/cycle.lua makes them.
FORMAT = "/%02d/%06d"
LEVELS = (1, 2)
_HELPERS = 2
#: Before the checksum: the magic; before what it covers: both.
_MAGIC, _CHECKED = 4, 8


def key_of(number: int) -> bytes:
    """The key of an entry; all have the same length."""
    return (FORMAT % (number % 100, number)).encode()


def populate(path: Path, count: int, size: int) -> None:
    """Make files of ``size`` bytes in the zone at ``path``, with the first ``count`` keys."""
    path.mkdir(mode=0o700, exist_ok=True)
    for number in range(4096):
        first, second = f"{number:03x}"[0], f"{number:03x}"[1:]
        (path / first / second).mkdir(mode=0o700, parents=True, exist_ok=True)
    with ExitStack() as stack:
        helpers = [
            stack.enter_context(Helper(_write, str(path), count, size, share))
            for share in range(_HELPERS)
        ]
        for helper in helpers:
            helper.receive()


def _write(pipe: Connection, path: str, count: int, size: int, share: int) -> None:
    now, directory = time.time(), Directory(path, LEVELS)
    sample = key_of(0)
    headers = ((b"Content-Type", b"image/jpeg"),)
    block = encode(Entry(sample, 200, headers, now, now + 7 * 86400, size))
    before, _, after = block.partition(sample)
    body = after + bytes(size)
    keys = {digest_of(key): key for key in map(key_of, range(share, count, _HELPERS))}
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    for digest in sorted(keys, key=lambda digest: digest[::-1]):  # directory by directory
        checked = before[_CHECKED:] + keys[digest]
        crc = zlib.crc32(after, zlib.crc32(checked)).to_bytes(4, "big")
        fd = os.open(directory.file(digest), flags, 0o600)
        os.writev(fd, (before[:_MAGIC], crc, checked, body))
        os.close(fd)
    pipe.send(None)
