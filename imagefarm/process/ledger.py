"""Shared memory where each process of a daemon keeps a JSON document that the others can read.

The parent makes it, for as long as the daemon lives, and hands its descriptor to all workers. It
is cut into slots. Slot 0 is what those have left that are gone, slot 1 the parent's; each worker
takes another one, and holds its record lock for life (POSIX: the kernel lets go of it when the
process ends, however it ends). So whoever can lock a slot that is written on knows that its owner
is dead, and adds what stands there to slot 0 (``fold``): what was counted is never lost.

A writer asks nobody. It puts the text into whichever of the slot's two places the head does not
point to, then writes the head, so one that is killed half way leaves the slot as it was; a reader
that meets a place being written anew sees it by the checksum, and looks again.

Nobody is told of anything. Who wants to know what all have now counts ``asked`` up (`Ledger.ask`);
each worker looks at it now and then, and says with its document which one it answers.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from attrs import frozen

from .board import anonymous_file

#: The most bytes of JSON in a slot.
MAX_DOCUMENT: Final = 8 << 20
#: The most workers at a time, those included that finish after a reload.
MAX_WORKERS: Final = 1024
#: How often a slot is looked at whose owner writes faster than we read.
_TRIES: Final = 16

_GONE: Final = 0
_PARENT: Final = 1
_FIRST: Final = 2

_PAGE: Final = 4096
_SLOT: Final = _PAGE + 2 * MAX_DOCUMENT
#: At the beginning: what was asked last, and the number of slots that were ever used.
_COUNTS: Final = struct.Struct("=QQ")
#: Of a slot: version, length and checksum of the text, what it answers. The version says which of
#: the two places the text is in; a length of 0 is an empty slot.
_HEAD: Final = struct.Struct("=QIIQ")
#: Bytes of the file that are locked: while slots are folded and read, and, from here on, slots.
_READING: Final = 0
_OWNED: Final = 1

Document = dict[str, Any]
#: Adds the document of a process that is gone to what others have left.
Fold = Callable[[Mapping[str, Any], Mapping[str, Any]], Document]


class LedgerFull(Exception):
    """A document does not fit; the one before still stands."""


@frozen
class Page:
    """What a living process has written; ``own`` if we are it. ``answers``: see `Ledger.ask`."""

    document: Mapping[str, Any]
    answers: int
    own: bool


@frozen
class Snapshot:
    """All that stands there at one moment."""

    gone: Mapping[str, Any]
    parent: Mapping[str, Any]
    pages: tuple[Page, ...]


class Ledger:
    """The ledger behind a descriptor, which it owns."""

    def __init__(self, fd: int, fold: Fold) -> None:
        self._fd = fd
        self._fold = fold
        self._own = -1

    @classmethod
    def make(cls, fold: Fold) -> Ledger:
        """An empty one. Raises OSError."""
        fd = anonymous_file("imagefarm-ledger")
        os.pwrite(fd, _COUNTS.pack(0, _FIRST), 0)
        return cls(fd, fold)

    def fileno(self) -> int:
        """The descriptor, for handing over."""
        return self._fd

    def claim(self) -> bool:
        """Take a slot, as a worker; False if there is none left, and nothing will be counted."""
        with self._locked():
            asked, used = self._counts()
            for slot in range(_FIRST, _FIRST + MAX_WORKERS):
                if self._try(slot):
                    if slot < used:
                        self._bury(slot)
                    os.pwrite(self._fd, _COUNTS.pack(asked, max(used, slot + 1)), 0)
                    self._own = slot
                    return True
        return False

    def publish(self, document: Mapping[str, Any], answers: int = 0) -> None:
        """Write ours, as a worker. Raises `LedgerFull`."""
        if self._own >= 0:
            self._write(self._own, document, answers)

    def publish_parent(self, document: Mapping[str, Any]) -> None:
        """Write the parent's, as the parent. Raises `LedgerFull`."""
        self._write(_PARENT, document, 0)

    @property
    def asked(self) -> int:
        """What was asked last."""
        return self._counts()[0]

    def ask(self) -> int:
        """Have all workers write down what they have now; they answer with this number."""
        with self._locked():
            asked, used = self._counts()
            os.pwrite(self._fd, _COUNTS.pack(asked + 1, used), 0)
            return asked + 1

    def read(self) -> Snapshot:
        """All of it; first what the dead have left is added up."""
        with self._locked():
            pages = []
            for slot in range(_FIRST, self._counts()[1]):
                if slot != self._own and self._try(slot):
                    self._bury(slot)
                    self._let_go(slot)
                    continue
                document, answers = self._read(slot)
                if document is not None:
                    pages.append(Page(document, answers, slot == self._own))
            return Snapshot(
                (self._read(_GONE)[0] or {}).get("left", {}),
                self._read(_PARENT)[0] or {},
                tuple(pages),
            )

    def close(self) -> None:
        """Let go of it; what we have written is what we leave."""
        fd, self._fd = self._fd, -1
        self._own = -1
        if fd >= 0:
            os.close(fd)

    def _bury(self, slot: int) -> None:
        """Add what stands in a slot of a dead process to what others have left, and clear it."""
        version = self._head(slot)[0]
        document = self._read(slot)[0]
        if document is not None:
            gone = self._read(_GONE)[0] or {}
            # Who was killed between the two writes has added it already.
            if gone.get("last") != [slot, version]:
                try:
                    self._leave(self._fold(gone.get("left", {}), document), slot, version)
                except LedgerFull:  # of a thousand configurations, each with other names
                    with contextlib.suppress(LedgerFull):
                        self._leave(self._fold({}, document), slot, version)
        os.pwrite(self._fd, _HEAD.pack(version + 1, 0, 0, 0), self._at(slot))

    def _leave(self, left: Document, slot: int, version: int) -> None:
        self._write(_GONE, {"left": left, "last": [slot, version]}, 0)

    def _write(self, slot: int, document: Mapping[str, Any], answers: int) -> None:
        text = json.dumps(document, separators=(",", ":")).encode()
        if len(text) > MAX_DOCUMENT:
            raise LedgerFull(f"{len(text)} bytes")
        version = self._head(slot)[0] + 1
        os.pwrite(self._fd, text, self._place(slot, version))
        head = _HEAD.pack(version, len(text), zlib.crc32(text), answers)
        os.pwrite(self._fd, head, self._at(slot))

    def _read(self, slot: int) -> tuple[Document | None, int]:
        for _ in range(_TRIES):
            version, length, checksum, answers = self._head(slot)
            if not length:
                break
            text = os.pread(self._fd, length, self._place(slot, version))
            if zlib.crc32(text) == checksum:
                return json.loads(text), answers
        return None, 0

    def _head(self, slot: int) -> tuple[int, int, int, int]:
        data = os.pread(self._fd, _HEAD.size, self._at(slot)).ljust(_HEAD.size, b"\0")
        version, length, checksum, answers = _HEAD.unpack(data)
        return version, length, checksum, answers

    def _counts(self) -> tuple[int, int]:
        asked, used = _COUNTS.unpack(os.pread(self._fd, _COUNTS.size, 0))
        return asked, used

    @staticmethod
    def _at(slot: int) -> int:
        return _PAGE + slot * _SLOT

    def _place(self, slot: int, version: int) -> int:
        return self._at(slot) + _PAGE + (version % 2) * MAX_DOCUMENT

    def _try(self, slot: int) -> bool:
        try:
            fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _OWNED + slot)
        except OSError:
            return False
        return True

    def _let_go(self, slot: int) -> None:
        fcntl.lockf(self._fd, fcntl.LOCK_UN, 1, _OWNED + slot)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        fcntl.lockf(self._fd, fcntl.LOCK_EX, 1, _READING)
        try:
            yield
        finally:
            fcntl.lockf(self._fd, fcntl.LOCK_UN, 1, _READING)

    def __repr__(self) -> str:
        return f"<Ledger fd={self._fd} slot={self._own}>"
