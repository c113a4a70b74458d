"""What those who waited for one filling share: the file is opened and read once for all."""

from __future__ import annotations

import os
from typing import Final

from attrs import frozen

from imagefarm.http.headers import Headers

from .entry import Entry
from .policy import variant
from .store import Found

#: The largest body that is read for them; of a larger one each opens the file.
MOST: Final = 65536


@frozen(eq=False)
class Portion:
    """A whole answer in memory, found for a location that follows the directories ``follow``."""

    entry: Entry
    body: bytes
    follow: tuple[bytes, ...]

    def suits(self, key: bytes, headers: Headers, follow: tuple[bytes, ...]) -> bool:
        """Whether a look-up just now would find the same."""
        entry = self.entry
        if entry.key != key or self.follow != follow:
            return False
        return not entry.vary or variant(entry.vary, headers) == entry.variant


def portion(found: Found, follow: tuple[bytes, ...]) -> Portion | None:
    """``found`` in memory, its file closed; None if it is too large or can't be read."""
    entry = found.entry
    if entry.body_length > MOST:
        return None
    try:
        body = os.pread(found.file.fd, entry.body_length, found.body_offset)
    except OSError:
        return None
    if len(body) != entry.body_length:
        return None
    found.file.close()
    return Portion(entry, body, follow)
