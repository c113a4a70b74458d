"""``open_file_cache``: open files and what is known of them, kept for a while in each process.

What is kept is taken as true for ``open_file_cache_valid``; then one stat tells whether the open
file is still the one of that name. A descriptor that is still being sent outlives its entry.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from attrs import define, field, frozen

from imagefarm.config import values
from imagefarm.config.ast import Directive
from imagefarm.config.errors import Invalid
from imagefarm.config.table import HSL, AnyRow, Environment, Row, Scope
from imagefarm.http.message import Identity, OpenFile, identity

from .files import Directory, Forbidden, NotFound, Symlinks, open_file


@frozen(eq=False)
class Size:
    """How much a cache holds. Each ``open_file_cache`` of a configuration has a cache of its own,
    which the blocks inside share: the same object stands for the same cache.
    """

    max: int
    #: Seconds after which what nobody asks for is dropped.
    inactive: float = 60.0


def _size(directive: Directive, env: Environment) -> Size | None:
    limit, inactive = 0, 60.0
    for word in directive.args:
        name, _, value = word.partition("=")
        try:
            if word == "off" and len(directive.args) == 1:
                return None
            if name == "max" and value.isdecimal() and int(value) > 0:
                limit = int(value)
            elif name == "inactive":
                inactive = values.parse_time(value)
            else:
                raise Invalid("")
        except Invalid:
            raise Invalid(f'invalid "open_file_cache" parameter "{word}"') from None
    if not limit:
        raise Invalid('"open_file_cache" must have the "max" parameter')
    return Size(limit, inactive)


OPEN_FILE_CACHE: Final = Row[Size | None](
    name="open_file_cache",
    contexts=HSL,
    arity=(1, 2),
    convert=_size,
    default=None,
    default_text="off",
    syntax="off | max=N [inactive=time]",
    doc="Keeps up to N files open, with their sizes and times, and remembers directories. What "
    "is not asked for during ``inactive`` is dropped; so is the least recently used where there "
    "is no room.",
)
OPEN_FILE_CACHE_VALID: Final = Row[float](
    name="open_file_cache_valid",
    contexts=HSL,
    convert=values.time,
    default=60.0,
    syntax="time",
    doc="For how long what is cached is taken as true before the file is looked at again.",
)
OPEN_FILE_CACHE_MIN_USES: Final = Row[int](
    name="open_file_cache_min_uses",
    contexts=HSL,
    convert=values.number,
    default=1,
    syntax="number",
    doc="How often a file must be asked for, while it is in the cache, to be kept open.",
)
OPEN_FILE_CACHE_ERRORS: Final = Row[bool](
    name="open_file_cache_errors",
    contexts=HSL,
    convert=values.flag,
    default=False,
    syntax="on | off",
    doc="Whether it is cached that a file is missing or can't be opened.",
)
DIRECTIVES: Final[tuple[AnyRow, ...]] = (
    OPEN_FILE_CACHE,
    OPEN_FILE_CACHE_VALID,
    OPEN_FILE_CACHE_MIN_USES,
    OPEN_FILE_CACHE_ERRORS,
)


@frozen
class Rules:
    """How a location uses a cache; ``valid`` in seconds. Names are nginx's directives."""

    valid: float = 60.0
    min_uses: int = 1
    errors: bool = False

    @classmethod
    def from_scope(cls, scope: Scope) -> Rules:
        """The rules in ``scope``."""
        return cls(
            valid=scope[OPEN_FILE_CACHE_VALID],
            min_uses=scope[OPEN_FILE_CACHE_MIN_USES],
            errors=scope[OPEN_FILE_CACHE_ERRORS],
        )


#: ``disable_symlinks``: what it asks for, and the part of the path that is not checked.
Way = tuple[Symlinks, bytes]
ANY_WAY: Final[Way] = (Symlinks.ALLOWED, b"")


@define(eq=False)
class _Entry:
    """What is known of a path: an open file, a directory, or why it can't be opened."""

    way: Way
    created: float
    accessed: float
    file: OpenFile | None = None
    #: The file is there, and was not asked for often enough to be kept open.
    shut: bool = False
    error: Exception | None = None
    uses: int = 1
    #: Answers that are using the descriptor now.
    users: int = 0
    #: It is in the cache no more, and closed by the last of the users.
    gone: bool = False

    def shut_down(self) -> None:
        """Close the descriptor."""
        if self.file is not None:
            self.file.close()
            self.file = None


@define(eq=False)
class _Lent(OpenFile):
    """An `OpenFile` whose descriptor belongs to the cache."""

    give_back: Callable[[], None] = field(kw_only=True)

    def close(self) -> None:
        """Give the descriptor back."""
        if self.fd >= 0:
            self.fd = -1
            self.give_back()


class OpenFileCache:
    """One cache. ``clock`` gives seconds."""

    def __init__(self, size: Size, clock: Callable[[], float]) -> None:
        self._size = size
        self._clock = clock
        #: The least recently used first.
        self._entries: OrderedDict[bytes, _Entry] = OrderedDict()

    def __repr__(self) -> str:
        return f"<OpenFileCache {len(self._entries)}/{self._size.max}>"

    def __len__(self) -> int:
        return len(self._entries)

    def open(self, path: bytes, rules: Rules, way: Way = ANY_WAY) -> OpenFile:
        """Like `files.open_file`, and raises the same."""
        entry = self._find(path, rules, way)
        file = entry.file
        if file is None:
            error = entry.error or NotFound()
            raise type(error)(*error.args)  # not the same: a traceback would grow with each use
        return self._lend(path, entry, file, rules)

    def look(self, path: bytes, wanted: Identity | None, rules: Rules) -> OpenFile | None:
        """What `open` would find without looking at the disk, if it is ``wanted``.

        None stands for no such file. Raises OSError where it is something else, or where the
        disk has to be asked: that is for `open`, and this was no use.
        """
        entry, now = self._entries.get(path), self._clock()
        if entry is None and wanted is None and not rules.errors:
            if os.path.lexists(path):
                raise OSError("it has come into being")
            return None
        if entry is None or not _current(entry, now, rules, ANY_WAY):
            raise OSError("not known well enough")
        file = entry.file
        if file is None:
            if wanted is not None or not isinstance(entry.error, NotFound):
                raise OSError("not what it was")
            self._use(path, entry, now)
            return None
        if file.identity != wanted:
            raise OSError("not what it was")
        self._use(path, entry, now)
        return self._lend(path, entry, file, rules)

    def close(self) -> None:
        """Forget everything."""
        while self._entries:
            self._forget(next(iter(self._entries)))

    def _find(self, path: bytes, rules: Rules, way: Way) -> _Entry:
        now = self._clock()
        entry = self._entries.get(path)
        if entry is not None:
            self._use(path, entry, now)
            if _current(entry, now, rules, way):
                return entry
            if entry.file is not None and way == entry.way == ANY_WAY and _refreshed(entry):
                entry.created = now
                return entry
        file, error = _opened(path, way)
        if error is not None and not rules.errors and not isinstance(error, Directory):
            if entry is not None:
                self._forget(path)
            raise error
        if entry is not None and entry.users:
            self._forget(path)  # its users go on with what they have
            entry = None
        if entry is None:
            entry = self._entries[path] = self._room(_Entry(way, now, now))
        entry.shut_down()
        entry.file, entry.error, entry.shut = file, error, False
        entry.way, entry.created = way, now
        return entry

    def _use(self, path: bytes, entry: _Entry, now: float) -> None:
        entry.uses += 1
        entry.accessed = now
        self._entries.move_to_end(path)

    def _lend(self, path: bytes, entry: _Entry, file: OpenFile, rules: Rules) -> OpenFile:
        entry.users += 1
        return _Lent(
            file.fd, file.size, file.mtime, path, file.identity,
            give_back=lambda: self._give_back(path, entry, rules),
        )  # fmt: skip

    def _room(self, entry: _Entry) -> _Entry:
        """``entry``, for which there is room now."""
        if len(self._entries) >= self._size.max:
            self._forget(next(iter(self._entries)))
        self._expire()
        return entry

    def _expire(self) -> None:
        """Drop one or two that nobody has asked for: as many as can come in meanwhile."""
        for _ in range(2):
            path, entry = next(iter(self._entries.items()), (b"", None))
            if entry is None or self._clock() - entry.accessed <= self._size.inactive:
                return
            self._forget(path)

    def _forget(self, path: bytes) -> None:
        entry = self._entries.pop(path)
        entry.gone = True
        if not entry.users:
            entry.shut_down()

    def _give_back(self, path: bytes, entry: _Entry, rules: Rules) -> None:
        entry.users -= 1
        entry.accessed = self._clock()
        if entry.gone:
            if not entry.users:
                entry.shut_down()
            return
        self._entries.move_to_end(path)
        if not entry.users and entry.uses < rules.min_uses:
            entry.shut_down()
            entry.shut = True
        self._expire()


def _current(entry: _Entry, now: float, rules: Rules, way: Way) -> bool:
    """Whether what is known is still to be taken as true."""
    return not entry.shut and entry.way == way and 0 <= now - entry.created < rules.valid


def _opened(path: bytes, way: Way) -> tuple[OpenFile | None, Exception | None]:
    try:
        return open_file(path, *way), None
    except (Directory, NotFound, Forbidden, OSError) as error:
        return None, error.with_traceback(None)


def _refreshed(entry: _Entry) -> bool:
    """Whether the path still leads to the open file, which then is known anew.

    A descriptor keeps its inode, so that no other file can have the number meanwhile.
    """
    file = entry.file
    assert file is not None
    try:
        info = os.stat(file.path)
        if not os.path.samestat(info, os.fstat(file.fd)):
            return False
    except OSError:
        return False
    file.size, file.mtime, file.identity = info.st_size, info.st_mtime, identity(info)
    return True
