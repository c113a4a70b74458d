"""Watching new sockets with Twisted's epoll reactor, without its detours.

``addReader`` is for what may have been watched before, and ``removeReader`` for what may stay
open. Our connections are new when they come, and closed when they go, of which the kernel knows.
"""

from __future__ import annotations

import select
from typing import Any

from twisted.internet.epollreactor import EPollReactor


def watch(reactor: Any, fd: int, reader: Any) -> None:
    """``reactor.addReader(reader)``, for a socket ``fd`` that has never been watched."""
    if type(reactor) is EPollReactor:
        parts: Any = reactor
        parts._poller.register(fd, select.EPOLLIN)
        parts._reads.add(fd)
        parts._selectables[fd] = reader
    else:
        reactor.addReader(reader)


def forget(reactor: Any, fd: int, reader: Any) -> None:
    """No longer read from or write to ``reader``, whose socket ``fd`` is closed at once.

    It has to be the only descriptor of the socket.
    """
    if type(reactor) is EPollReactor:
        parts: Any = reactor
        parts._reads.discard(fd)
        parts._writes.discard(fd)
        parts._selectables.pop(fd, None)
    else:
        reactor.removeReader(reader)
        reactor.removeWriter(reader)
