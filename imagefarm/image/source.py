"""Opening a source: a regular file below a root, and nothing else, whatever the name.

Links are followed where they stay below the root. The check is made on the opened file, not on
its name, so nothing can be exchanged in between: a descriptor that can only name the file
(O_PATH) is asked what and where it is, and only then is it opened for reading.
"""

from __future__ import annotations

import errno
import os
import stat

from attrs import frozen

from .errors import Forbidden, NotFound, Unsupported

_FORBIDDEN = (errno.EACCES, errno.EPERM)


@frozen
class Identity:
    """What tells one state of a source from another. ``mtime`` is in nanoseconds."""

    size: int
    mtime: int

    @property
    def seconds(self) -> int:
        """The time of the last change in whole seconds since the epoch."""
        return self.mtime // 1_000_000_000


def identify(found: os.stat_result) -> Identity:
    """The identity in what stat said."""
    return Identity(found.st_size, found.st_mtime_ns)


def open_source(root: bytes, src: bytes) -> int:
    """A descriptor of the file ``src`` (a normalised path, see `recipe.source_path`).

    Raises `NotFound` where there is no regular file, `Forbidden` where the name leads out of
    the root or the file must not be read. The reasons name no path.
    """
    named, _ = _named(root, src)
    try:
        # O_NONBLOCK: should it be exchanged for a FIFO that waits, nothing hangs.
        again = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        return os.open(b"/proc/self/fd/%d" % named, again)
    except OSError as error:
        raise _refusal(error) from None
    finally:
        os.close(named)


def stat_source(root: bytes, src: bytes) -> Identity:
    """The identity of a source, under the same rules. Raises as `open_source` does."""
    named, found = _named(root, src)
    try:
        if not os.access(b"/proc/self/fd/%d" % named, os.R_OK, effective_ids=True):
            raise Forbidden("the source must not be read")
    finally:
        os.close(named)
    return identify(found)


def _named(root: bytes, src: bytes) -> tuple[int, os.stat_result]:
    """A descriptor that can only name the file (O_PATH), and what it is."""
    name = root.rstrip(b"/") + src
    try:
        named = os.open(name, os.O_PATH | os.O_CLOEXEC)
    except OSError as error:
        raise _refusal(error) from None
    try:
        return named, _require_regular_below(root, name, named)
    except BaseException as error:
        os.close(named)
        if isinstance(error, OSError):
            raise _refusal(error) from None
        raise


def _require_regular_below(root: bytes, name: bytes, named: int) -> os.stat_result:
    found = os.fstat(named)
    where = os.readlink(b"/proc/self/fd/%d" % named)
    # The file is where its name says, so no link is on the way to it, nor to the root.
    if where != name:
        real_root = os.path.realpath(root).rstrip(b"/") + b"/"
        if not (where + b"/").startswith(real_root):
            raise Forbidden("the source lies outside the image root")
    if not stat.S_ISREG(found.st_mode):
        raise NotFound("there is no such source")
    if found.st_size == 0:
        raise Unsupported("the source is empty")
    return found


def _refusal(error: OSError) -> Forbidden | NotFound:
    if error.errno in _FORBIDDEN:
        return Forbidden("the source must not be read")
    return NotFound("there is no such source")
