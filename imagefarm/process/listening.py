"""The listening sockets of a daemon through all its configurations.

Those that two configurations have in common stay what they are: the queues of connections that
wait to be accepted are in them.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Mapping, Sequence
from typing import Any

from attrs import define, field, frozen

from .sockets import Endpoint, ListenError, adopt, open_socket

Sockets = dict[str, socket.socket]


@frozen(eq=False)
class Change:
    """Sockets for a configuration, by `Endpoint` text. ``new`` were opened for it.

    ``clones`` are what ``reuseport`` gives to the second worker and those after it.
    """

    endpoints: tuple[Endpoint, ...]
    sockets: Sockets
    clones: tuple[Sockets, ...]
    new: tuple[socket.socket, ...]

    def of_worker(self, number: int) -> Mapping[Endpoint, socket.socket]:
        """What worker ``number`` (from 1) accepts on."""
        clones = self.clones[number - 2] if number > 1 else {}
        return {e: clones.get(str(e), self.sockets[str(e)]) for e in self.endpoints}


@define(eq=False)
class Listening:
    """All that is open. `prepare`, then `commit` or `abandon` what it gave."""

    _sockets: Sockets = field(factory=dict)
    _clones: tuple[Sockets, ...] = ()

    def adopt(self, text: str) -> None:
        """Take over what another program has handed to us. Raises `ListenError`."""
        clones: list[Sockets] = []
        for name, sock in adopt(text):
            free = next((some for some in (self._sockets, *clones) if name not in some), None)
            if free is None:
                free = {}
                clones.append(free)
            free[name] = sock
        self._clones = tuple(clones)

    def prepare(self, endpoints: Sequence[Endpoint], workers: int) -> Change:
        """Open what is not open yet. Raises `ListenError` that names every failure."""
        endpoints = tuple(dict.fromkeys(endpoints))
        new: list[socket.socket] = []
        problems: list[str] = []

        def have(endpoint: Endpoint, known: Sockets) -> socket.socket | None:
            sock = known.get(str(endpoint))
            if sock is not None:
                _adjust(sock, endpoint)
                return sock
            try:
                new.append(open_socket(endpoint))
            except ListenError as error:
                problems.extend(error.problems)
                return None
            return new[-1]

        def all_of(wanted: Sequence[Endpoint], known: Sockets) -> Sockets:
            found = {str(endpoint): have(endpoint, known) for endpoint in wanted}
            return {name: sock for name, sock in found.items() if sock is not None}

        sockets = all_of(endpoints, self._sockets)
        own = [e for e in endpoints if e.reuseport and e.path is None and str(e) in sockets]
        known = (*self._clones, *[{}] * workers)
        clones = tuple(all_of(own, one) for one in known[: workers - 1])
        change = Change(endpoints, sockets, clones, tuple(new))
        if problems:
            self.abandon(change)
            raise ListenError(dict.fromkeys(problems))
        return change

    def abandon(self, change: Change) -> None:
        """Everything stays as it was."""
        for sock in change.new:
            _close(sock)

    def commit(self, change: Change) -> None:
        """``change`` is in force: close what it has no use for."""
        kept = {id(sock) for some in (change.sockets, *change.clones) for sock in some.values()}
        for some in (self._sockets, *self._clones):
            for sock in some.values():
                if id(sock) not in kept:
                    _close(sock)
        self._sockets, self._clones = dict(change.sockets), change.clones

    def close(self, *, unlink: bool) -> None:
        """Close everything; ``unlink`` the paths of Unix sockets."""
        for some in (self._sockets, *self._clones):
            for sock in some.values():
                if unlink:
                    _close(sock)
                else:
                    sock.close()
        self._sockets, self._clones = {}, ()

    def inherit(self) -> list[tuple[str, socket.socket]]:
        """What a new program takes over."""
        return [pair for some in (self._sockets, *self._clones) for pair in some.items()]


def _adjust(sock: socket.socket, endpoint: Endpoint) -> None:
    """What may have changed in the configuration of an open socket."""
    with contextlib.suppress(OSError):
        if endpoint.reuseport and endpoint.path is None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.listen(endpoint.backlog)


def _close(sock: socket.socket) -> None:
    name: Any = (
        sock.getsockname() if sock.fileno() >= 0 and sock.family == socket.AF_UNIX else None
    )
    sock.close()
    if name:
        with contextlib.suppress(OSError):
            os.unlink(name)
