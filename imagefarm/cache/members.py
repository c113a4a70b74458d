"""What the processes of a zone tell each other: small mapped files beside the cache files.

::

    PATH/state               the manager: size and number of files; whoever purges: a generation
    PATH/members/BOOT.PID.N  one for each process, locked (flock) by it: what it stored, removed

A member's file is a ring of `RING` records. Its owner writes records and then `head`; the
manager reads them and then writes `tail`. Whoever dies in between leaves a record that was told
twice or of a file that never came, which does no harm. All numbers are 8 bytes in the machine's
own order and are written by one process only.

The sum of what the manager says and of what members have stored since is the size of the cache
as any process may know it at any moment: `Board.size`.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import struct
from collections.abc import Iterator
from typing import Final

from attrs import define, frozen

from .mapped import HEADER, Mapped, opened

#: The records of a member's ring; a power of two.
RING: Final = 4096
#: digest, bytes on the disk, time; bytes `_REMOVED`: the file was removed.
_RECORD: Final = struct.Struct("=16sQd")
_REMOVED: Final = (1 << 64) - 1
_MEMBER: Final = HEADER + RING * _RECORD.size
_STATE: Final = 4096
# Places of numbers in a member's file: written by its owner, and by the manager.
_HEAD, _STORED, _TAIL, _SEEN = 8, 16, 24, 32
# And in the state.
_SIZE, _FILES, _GENERATION = 8, 16, 24

_serials = itertools.count(1)


@frozen
class Note:
    """A member stored a file of ``size`` bytes on the disk, or removed it (None)."""

    digest: bytes
    size: int | None
    moment: float


@define(eq=False)
class _Own:
    path: bytes
    file: Mapped


class Board:
    """The state of a zone and its members, as one process sees them.

    Whatever can't be read or written is as if it were not there: `joined` is False, nothing is
    told, and the manager learns of files from the directory alone.
    """

    def __init__(self, path: bytes) -> None:
        self._members = os.path.join(path, b"members")
        self._state_path = os.path.join(path, b"state")
        self._state: Mapped | None = None
        self._own: _Own | None = None
        self._others: dict[bytes, Mapped] = {}
        self._met = 0

    @property
    def joined(self) -> bool:
        """Whether this process is a member."""
        return self._own is not None

    def join(self) -> None:
        """Become a member, again if our files were removed; meet the others. Raises OSError."""
        if self._state is not None and not self._state.stands_at(self._state_path):
            self.leave()
        if self._state is None:
            os.makedirs(self._members, 0o700, exist_ok=True)
            self._state = opened(self._state_path, _STATE, create=True)
        if self._own is not None and not self._own.file.stands_at(self._own.path):
            self._own.file.close()
            self._own = None
        while self._own is None:
            self._own = self._begin()
        self._meet()

    def _begin(self) -> _Own | None:
        """A file of our own; None if a manager took it for a dead member's before we had it."""
        name = b"%s.%d.%d" % (os.urandom(6).hex().encode(), os.getpid(), next(_serials))
        path = os.path.join(self._members, name)
        try:
            mapped = opened(path, _MEMBER, create=True)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(path)
            raise
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(mapped.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if mapped.stands_at(path):
                return _Own(path, mapped)
        mapped.close()
        return None

    def meet(self) -> None:
        """Learn who has joined or left since the last time. Never raises."""
        with contextlib.suppress(OSError):
            if self._own is not None and os.stat(self._members).st_mtime_ns != self._met:
                self._meet()

    def _meet(self) -> None:
        """Map the files of the other members, unmap those that are gone."""
        assert self._own is not None
        self._met = os.stat(self._members).st_mtime_ns
        names = set(os.listdir(self._members))
        names.discard(os.path.basename(self._own.path))
        for name in [*self._others]:
            if name not in names:
                self._others.pop(name).close()
        for name in names.difference(self._others):
            with contextlib.suppress(OSError):
                path = os.path.join(self._members, name)
                self._others[name] = opened(path, _MEMBER, create=False)

    def leave(self) -> None:
        """Be no member any more. What was not read yet stays for the manager."""
        own, self._own = self._own, None
        if own is not None:
            own.file.close()
        for mapped in self._others.values():
            mapped.close()
        self._others.clear()
        if self._state is not None:
            self._state.close()
            self._state = None

    # A member's side

    def tell(self, note: Note) -> None:
        """Tell the manager. Of more than `RING` untold notes the oldest are lost."""
        if self._own is None:
            return
        own = self._own.file
        head = own[_HEAD]
        place = HEADER + head % RING * _RECORD.size
        size = _REMOVED if note.size is None else note.size
        _RECORD.pack_into(own.map, place, note.digest, size, note.moment)
        if note.size is not None:
            own[_STORED] += note.size
        own[_HEAD] = head + 1

    @property
    def pending(self) -> int:
        """The bytes on the disk that members have stored and the manager has not counted."""
        files = [*self._others.values()]
        if self._own is not None:
            files.append(self._own.file)
        return sum(max(file[_STORED] - file[_SEEN], 0) for file in files)

    @property
    def size(self) -> int:
        """The bytes on the disk of all files, as far as they have been told."""
        return (self._state[_SIZE] if self._state else 0) + self.pending

    @property
    def files(self) -> int:
        """The number of files, as the manager said last."""
        return self._state[_FILES] if self._state else 0

    @property
    def generation(self) -> int:
        """Changes whenever something was purged by prefix."""
        return self._state[_GENERATION] if self._state else 0

    def advance(self) -> None:
        """Change `generation`. The caller makes sure that nobody else does so now."""
        if self._state is not None:
            self._state[_GENERATION] += 1

    # The manager's side

    def publish(self, size: int, files: int) -> None:
        """Say what the cache holds."""
        if self._state is not None:
            self._state[_SIZE], self._state[_FILES] = size, files

    def notes(self) -> Iterator[Note | None]:
        """What members have told and nobody has read yet; None where some of it was lost.

        A note is counted as read when the next one is asked for. The files of members that are
        dead go with their last note.
        """
        if self._own is not None:
            yield from self._read(self._own.file)
        for name, mapped in [*self._others.items()]:
            dead = _dead(mapped.fd)
            yield from self._read(mapped)
            if dead:
                with contextlib.suppress(OSError):
                    os.unlink(os.path.join(self._members, name))
                del self._others[name]
                mapped.close()

    @staticmethod
    def _read(file: Mapped) -> Iterator[Note | None]:
        head, tail = file[_HEAD], file[_TAIL]
        if not tail <= head <= tail + RING:
            # Lost, or not ours at all: the directory knows.
            file[_TAIL], file[_SEEN] = head, file[_STORED]
            yield None
            return
        while tail < head:
            place = HEADER + tail % RING * _RECORD.size
            digest, size, moment = _RECORD.unpack_from(file.map, place)
            yield Note(digest, None if size == _REMOVED else size, moment)
            tail += 1
            if size != _REMOVED:
                file[_SEEN] += size
            file[_TAIL] = tail


def _dead(fd: int) -> bool:
    """Whether the owner of a member's file has gone: its lock has gone with it."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
