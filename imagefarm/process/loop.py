"""A leaner turn of Twisted's epoll loop.

Twisted runs each event inside a logging context (seven calls deep), which costs more than
reading the socket. Our own transports catch what they raise themselves, so their plain "readable"
events are delivered directly; everything else goes Twisted's way.
"""

from __future__ import annotations

import select
from typing import Any, Final

from twisted.internet.epollreactor import EPollReactor
from twisted.python import log

_READABLE: Final = select.EPOLLIN


def streamline(reactor: Any, lean: tuple[type, ...]) -> bool:
    """Deliver readable events of transports of the ``lean`` types directly.

    They have ``read_ready()``, which never raises. Returns whether ``reactor`` is one that this
    is written for; any other is left alone.
    """
    if type(reactor) is not EPollReactor:
        return False
    poller, selectables = reactor._poller, reactor._selectables
    deliver = reactor._doReadOrWrite

    def do_poll(timeout: float | None) -> None:
        try:
            events = poller.poll(-1 if timeout is None else timeout, len(selectables))
        except InterruptedError:
            return
        for fd, event in events:
            selectable = selectables.get(fd)
            if selectable is None:
                continue  # gone since the poll
            if event == _READABLE and isinstance(selectable, lean):
                selectable.read_ready()  # type: ignore[attr-defined]
            else:
                log.callWithLogger(selectable, deliver, selectable, fd, event)

    loop: Any = reactor
    loop.doPoll = loop.doIteration = do_poll
    return True
