"""``state``: the file that keeps the servers of an ``upstream`` block, as its ``server`` lines."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterable
from typing import Final

from imagefarm.config.ast import Directive
from imagefarm.config.errors import ConfigurationError, Invalid
from imagefarm.config.parse import parse_text

from .peer import Peer

#: The most bytes of a file that are read.
MAX_STATE: Final = 16 << 20
#: Numbers of ``server`` and what they are without a word.
_NUMBERS: Final = {"weight": 1, "max_fails": 1, "max_conns": 0}
_TIMES: Final = {"fail_timeout": 10.0, "slow_start": 0.0}


def load(path: str) -> tuple[Directive, ...]:
    """The lines; none if there is no such file yet. Raises `Invalid`."""
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_STATE + 1)
    except FileNotFoundError:
        return ()
    except OSError as error:
        why = f"({error.errno}: {os.strerror(error.errno or 0)})"
        raise Invalid(f'cannot read state file "{path}" {why}') from None
    if len(data) > MAX_STATE:
        raise Invalid(f'state file "{path}" is too large')
    try:
        lines = parse_text(data.decode("utf-8", "surrogateescape"), path).directives
    except ConfigurationError as error:
        raise Invalid(f'state file "{path}": {error}') from None
    for line in lines:
        if line.name != "server" or not line.args or line.block is not None:
            raise Invalid(f'state file "{path}": "{line.name}" is no server in line {line.line}')
    return tuple(lines)


def line(peer: Peer) -> str:
    """The ``server`` line that makes ``peer``."""
    words = [f"server {_word(peer.name)}"]
    words += [
        f"{name}={getattr(peer, name)}"
        for name, default in _NUMBERS.items()
        if getattr(peer, name) != default
    ]
    words += [
        f"{name}={round(getattr(peer, name) * 1000)}ms"
        for name, default in _TIMES.items()
        if getattr(peer, name) != default
    ]
    flags = {"backup": peer.backup, "down": peer.down, "drain": peer.draining}
    words += [name for name, on in flags.items() if on]
    return " ".join(words) + ";\n"


def save(path: str, peers: Iterable[Peer]) -> None:
    """Put the servers into the file, whole or not at all, and onto the disk. Raises `OSError`."""
    text = "".join(map(line, peers)).encode("utf-8", "surrogateescape")
    fd, temporary = tempfile.mkstemp(prefix=".state-", dir=os.path.dirname(path))
    try:
        with os.fdopen(fd, "wb") as file:
            os.fchmod(file.fileno(), 0o644)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def _word(name: bytes) -> str:
    """An address as a word of the configuration; paths of Unix sockets may have anything."""
    text = name.decode("utf-8", "surrogateescape")
    if not any(c in " \t\r\n;{}\"'\\#$" for c in text):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
