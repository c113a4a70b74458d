"""The resizer's slow log: which answers took long, and what the time went to (php-fpm's slowlog).

A line for each: when, the status, seconds, the request and its id as the web server has told
them, then what the answer says of itself: the recipe, and the milliseconds of each step.
"""

from __future__ import annotations

import datetime
import os
import time
from collections.abc import Callable
from typing import Final

from twisted.logger import Logger

from imagefarm.http.message import Response
from imagefarm.http.requestlog import Context

#: The most of a request and of its id that is told, in characters.
MAX_REQUEST: Final = 2000
MAX_ID: Final = 200


class SlowLog:
    """A file at ``path``; answers that took ``threshold`` seconds or more are written there.

    ``clock`` gives seconds since the epoch.
    """

    _log = Logger()

    def __init__(
        self, path: str, threshold: float, clock: Callable[[], float] = time.time
    ) -> None:
        self.path = path
        self._clock = clock
        self._threshold = threshold
        self._fd = -1

    def open(self) -> None:
        """Open the file, anew if it is open: it may have been moved away.

        What can't be opened is told in the error log, and the old file goes on to be written.
        """
        try:
            fresh = os.open(
                self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644
            )
        except OSError as error:
            self._log.critical(
                'open() "{path}" failed ({number}: {reason})',
                path=self.path, number=error.errno, reason=error.strerror,
            )  # fmt: skip
            return
        self.close()
        self._fd = fresh

    def close(self) -> None:
        """Write no more."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)

    def answered(self, asked: Context, response: Response, took: float) -> None:
        """Write of an answer that took ``took`` seconds, if that is slow."""
        if took < self._threshold or self._fd < 0:
            return
        when = datetime.datetime.fromtimestamp(self._clock()).astimezone()
        headers = response.headers
        quoted = (
            asked.request_id[:MAX_ID].encode(),
            asked.request[:MAX_REQUEST].encode(),
            headers.first(b"x-imagefarm-recipe"),
            headers.first(b"server-timing"),
        )
        line = b"%b %d %.3f" % (when.isoformat(" ", "seconds").encode(), response.status, took)
        line += b"".join(b' "%b"' % (text or b"-") for text in quoted) + b"\n"
        try:
            os.write(self._fd, line)
        except OSError as error:
            self._log.critical(
                'writing to "{path}" failed ({number}: {reason})',
                path=self.path, number=error.errno, reason=error.strerror,
            )  # fmt: skip
