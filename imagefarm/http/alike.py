"""Which other files an answer speaks for; see `http.families`."""

from __future__ import annotations

import re

from attrs import frozen


@frozen(eq=False)
class Alike:
    """What else is answered as one file was, but for size and date: the files beside it that
    have its extension.

    ``directory`` is theirs, with its last "/". Not those whose names begin with one of
    ``elsewhere`` (other locations), nor those whose URI one of ``patterns`` finds although it did
    not find the first one's, or the other way round. ``captures`` is the pattern that found it.
    """

    directory: bytes
    elsewhere: tuple[bytes, ...] = ()
    patterns: tuple[tuple[re.Pattern[bytes], bool], ...] = ()
    captures: re.Pattern[bytes] | None = None
