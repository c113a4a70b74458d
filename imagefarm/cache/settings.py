"""What the configuration says of a zone."""

from __future__ import annotations

from typing import Final

from attrs import frozen

#: The bytes of ``keys_zone`` that one key takes: "one megabyte can store about 8 thousand".
KEY_SIZE: Final = 128


@frozen(kw_only=True)
class Pace:
    """How work in the background is cut up: ``files`` or ``threshold`` seconds, then ``sleep``.

    nginx has processes of its own for this work and a threshold of 200 ms; here a worker does it
    between requests, so it is 5 ms. The manager sleeps 10 ms where nginx's sleeps 50.
    """

    files: int = 100
    sleep: float = 0.05
    threshold: float = 0.005

    def finer(self, parts: int) -> Pace:
        """The same pace in so many times as many steps, as far as there are files for them."""
        parts = max(1, min(parts, self.files))
        return Pace(
            files=self.files // parts, sleep=self.sleep / parts, threshold=self.threshold / parts
        )


@frozen(kw_only=True)
class ZoneSettings:
    """One ``*_cache_path``: sizes in bytes, times in seconds.

    ``keys`` is the most keys that a process remembers, ``max_size`` None is no limit. With
    ``purger`` the files that a purge by prefix has ended are removed at the pace ``purging``, else
    when they are asked for or inactive.
    """

    name: str
    path: str
    keys: int
    levels: tuple[int, ...] = ()
    inactive: float = 600.0
    max_size: int | None = None
    min_free: int = 0
    loader: Pace = Pace()
    manager: Pace = Pace(sleep=0.01)
    purger: bool = False
    purging: Pace = Pace()
