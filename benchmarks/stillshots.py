"""Files that are rewritten while they are served, and a client that believes nothing.

Every file says which one it is, which version, how long, and its checksum. The writer notes in a
shared table when it begins and when it has finished a version, so the checker knows which
versions an answer may have: none older than the last one finished before the request was sent,
none newer than the last one begun before the answer had arrived.
"""

from __future__ import annotations

import hashlib
import http.client
import mmap
import os
import random
import re
import time
import zlib
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

COUNT = 1000
FORMAT = "/still/%02d/%06d.jpg"
SIZE = 10_240


class Torn(Exception):
    """Not one whole version of the file asked for."""


def path(number: int) -> str:
    """The path of a file; ``lua/cycle.lua`` makes the same."""
    return FORMAT % (number % 100, number)


def content(name: str, version: int) -> bytes:
    """Version ``version`` of a file: about `SIZE` bytes, no part like any other version's."""
    seed = hashlib.sha256(f"{name} {version}".encode()).digest()
    # Lengths differ too: a Content-Length that belongs to another version shows.
    body = (seed * (SIZE // len(seed) + 1))[: SIZE - 300 + seed[0]]
    return b"%s %d %d %d\n%s" % (name.encode(), version, len(body), zlib.crc32(body), body)


def verify(name: str, answer: bytes) -> int:
    """The version that ``answer`` is. Raises `Torn`."""
    head, _, body = answer.partition(b"\n")
    match = re.fullmatch(rb"(\S+) (\d+) (\d+) (\d+)", head)
    if not match:
        raise Torn(f"{name}: {len(answer)} bytes that begin with {head[:60]!r}")
    if match[1].decode() != name:
        raise Torn(f"{name}: the content of {match[1]!r}")
    if len(body) != int(match[3]):
        raise Torn(f"{name}: {len(body)} bytes of {int(match[3])}")
    if zlib.crc32(body) != int(match[4]):
        raise Torn(f"{name}: wrong checksum")
    return int(match[2])


class Table:
    """For each file the version last begun and the one last finished, shared by mmap."""

    def __init__(self, file: Path, *, create: bool = False) -> None:
        if create:
            file.write_bytes(bytes(16 * COUNT))
        with file.open("r+b") as opened:
            cells = memoryview(mmap.mmap(opened.fileno(), 0)).cast("q")
        self.begun, self.finished = cells[:COUNT], cells[COUNT:]


def make(root: Path) -> None:
    """Version 0 of all files."""
    for number in range(COUNT):
        file = root / path(number)[1:]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content(path(number), 0))


def _rename(file: str, new: bytes) -> None:
    temporary = f"{file}.new"
    with open(temporary, "wb") as opened:
        opened.write(new)
    os.replace(temporary, file)


def _in_place(file: str, new: bytes) -> None:
    with open(file, "wb", buffering=0) as opened:  # truncates, as cp and most encoders do
        opened.write(new)


def write(pipe: Connection, root: Path, table: Path, period: float, in_place: bool) -> None:
    """Helper: rewrite every file once in ``period`` seconds, evenly, until the pipe closes."""
    shared = Table(table)
    rewrite = _in_place if in_place else _rename
    start = time.monotonic()
    turn = 0
    while not pipe.poll(max(0.0, start + turn * period / COUNT - time.monotonic())):
        number = turn % COUNT
        new = content(path(number), version := shared.begun[number] + 1)
        shared.begun[number] = version
        rewrite(f"{root}{path(number)}", new)
        shared.finished[number] = version
        turn += 1


@dataclass
class Verdict:
    """What the checker saw. ``excused``: bad, but while the file was rewritten in place."""

    answers: int = 0
    excused: int = 0
    torn: int = 0
    stale: int = 0
    failed: int = 0
    examples: list[str] = field(default_factory=list)

    @property
    def faults(self) -> int:
        """Everything that must not be."""
        return self.torn + self.stale + self.failed

    def add(self, other: Verdict) -> None:
        """Count another's as well."""
        for name in ("answers", "excused", "torn", "stale", "failed"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.examples = [*self.examples, *other.examples][:3]


class Checker:
    """Asks one server for one file after the other."""

    def __init__(self, port: int, table: Table, in_place: bool) -> None:
        self._port = port
        self._table = table
        self._in_place = in_place
        self._client = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        self.verdict = Verdict()

    def _get(self, name: str) -> bytes:
        for last in (False, True):
            try:
                self._client.request("GET", name)
                answer = self._client.getresponse()
            except (http.client.RemoteDisconnected, ConnectionError):
                self._client.close()  # a kept connection may have been closed meanwhile
                if last:
                    raise
            else:
                break
        body = answer.read()
        if answer.status != 200:
            raise Torn(f"{name}: status {answer.status}")
        return body

    def check(self, number: int) -> None:
        """One file."""
        name = path(number)
        oldest = self._table.finished[number]
        problem, stale, failed = "", False, False
        try:
            version = verify(name, self._get(name))
        except Torn as error:
            problem = str(error)
        except (http.client.HTTPException, OSError) as error:
            self._client.close()
            problem, failed = f"{name}: {error!r}", True
        else:
            if version < oldest:
                problem, stale = f"{name}: version {version} after {oldest} was finished", True
        newest = self._table.begun[number]
        if not problem and version > newest:
            problem = f"{name}: version {version} before it was written"
        self.verdict.answers += 1
        if not problem:
            return
        if self._in_place and newest > oldest and not stale:
            self.verdict.excused += 1
            return
        self.verdict.failed += failed
        self.verdict.stale += stale
        self.verdict.torn += not stale and not failed
        self.verdict.examples.append(problem)

    def close(self) -> None:
        """Hang up."""
        self._client.close()


def check(pipe: Connection, table: Path, rate: float, in_place: bool) -> None:
    """Helper: told a port, check random files ``rate`` times a second until told None."""
    shared = Table(table)
    generator = random.Random(1)
    while True:
        port = pipe.recv()
        checker = Checker(port, shared, in_place)
        pipe.send(None)
        due = time.monotonic()
        while not pipe.poll(max(0.0, due - time.monotonic())):
            checker.check(generator.randrange(COUNT))
            due = max(due + 1 / rate, time.monotonic() - 1)
        pipe.recv()
        checker.close()
        pipe.send(checker.verdict)
