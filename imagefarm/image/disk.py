"""The part of the intermediates that is on disk: it outlives a worker, and all workers share it.

A file is a line of JSON (mode, size, length of the colour profile), the profile, the pixels. It
is written under another name and renamed, so it is there whole or not at all, and what is read is
checked: whoever may write here may choose pixels, nothing else. How long ago a file was used is
its time of change; the oldest are deleted when the directory has grown over its limit.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
from pathlib import Path

from attrs import define, field
from PIL import Image

#: Longest first line, and longest profile, in bytes.
_MAX_HEAD = 200
_MAX_PROFILE = 4 << 20
_BANDS = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4, "CMYK": 4}
#: A file may take this share of the limit at most; the directory is measured each time that so
#: much has been written; it is then brought down to the last share.
_LARGEST = 1 / 4
_MEASURE = 1 / 16
_LOW = 0.9


@define
class DiskStore:
    """Pictures by name in ``directory``, of ``limit`` bytes in all, if only about."""

    directory: Path
    limit: int
    #: Written since the directory was measured; at the start nobody knows.
    _written: float = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._written = self.limit
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            sys.stderr.write(f"no intermediates on disk: {error.strerror}\n")
            self.limit = 0

    def _path(self, name: str) -> Path:
        return self.directory / hashlib.blake2b(name.encode("utf-8"), digest_size=16).hexdigest()

    def get(self, name: str) -> Image.Image | None:
        """The picture of that name, if there is one and it is whole."""
        path = self._path(name)
        try:
            with path.open("rb") as file:
                head = json.loads(file.readline(_MAX_HEAD))
                width, height, profile = (int(head[key]) for key in ("w", "h", "icc"))
                left = os.fstat(file.fileno()).st_size - file.tell() - profile
                mode = str(head["mode"])
                if not 0 <= profile <= _MAX_PROFILE or left != width * height * _BANDS[mode]:
                    raise ValueError("a file of another length")
                icc = file.read(profile)
                picture = Image.frombytes(mode, (width, height), file.read(left))
            os.utime(path)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError):
            with contextlib.suppress(OSError):
                path.unlink()
            return None
        if icc:
            picture.info["icc_profile"] = icc
        return picture

    def put(self, name: str, picture: Image.Image) -> None:
        """Keep the picture under that name, unless it is too large; a full disk is no error."""
        icc = picture.info.get("icc_profile", b"")
        size = picture.width * picture.height * _BANDS.get(picture.mode, 1) + len(icc)
        if picture.mode not in _BANDS or size > self.limit * _LARGEST or len(icc) > _MAX_PROFILE:
            return
        head = {"mode": picture.mode, "w": picture.width, "h": picture.height, "icc": len(icc)}
        path = self._path(name)
        unfinished = path.with_name(f"{path.name}.{os.getpid()}")
        try:
            with unfinished.open("wb") as file:
                file.write(json.dumps(head).encode("ascii") + b"\n" + icc)
                file.write(picture.tobytes())
            unfinished.replace(path)
        except OSError:
            with contextlib.suppress(OSError):
                unfinished.unlink()
            return
        self._written += size
        if self._written > self.limit * _MEASURE:
            self._measure()

    def _measure(self) -> None:
        """Delete the oldest files until the directory is within its limit."""
        found = []
        with os.scandir(self.directory) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):  # another worker was quicker
                    status = entry.stat(follow_symlinks=False)
                    found.append((status.st_mtime_ns, status.st_size, entry.path))
        total = sum(size for _, size, _ in found)
        self._written = 0
        if total <= self.limit:
            return
        for _, size, path in sorted(found):
            if total <= self.limit * _LOW:
                break
            with contextlib.suppress(OSError):
                os.unlink(path)
            total -= size
