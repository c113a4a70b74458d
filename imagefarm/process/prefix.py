"""The prefix directory: what relative paths of a configuration lie in, made ready at start."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from typing import Final

#: Directories that a prefix has to have, as ``make install`` of nginx makes them.
MADE: Final = ("logs", "cache")
#: Shipped directories that a prefix gets a copy of where it has none: the error pages.
COPIED: Final = ("html",)


def prepare(prefix: str, source: str, warn: Callable[[str], None]) -> None:
    """Make the directories that ``prefix`` lacks, and put the pages of ``source`` there.

    What is there is left alone, so an operator's pages survive an update. Failing is no reason
    not to start, as the configuration may use other places: ``warn`` is told.
    """
    for name in MADE:
        path = os.path.join(prefix, name)
        try:
            os.makedirs(path, exist_ok=True)
        except OSError as error:
            warn(f'mkdir() "{path}" failed ({error.errno}: {error.strerror})')
    for name in COPIED:
        target = os.path.join(prefix, name)
        if os.path.lexists(target):
            continue
        # Several roles may start at a time: each copies for itself, one rename wins.
        temporary = f"{target}.{os.getpid()}"
        try:
            shutil.copytree(os.path.join(source, name), temporary)
            os.rename(temporary, target)
        except OSError as error:
            shutil.rmtree(temporary, ignore_errors=True)
            if not os.path.isdir(target):
                warn(f'cannot copy the pages to "{target}": {error.strerror or error}')
