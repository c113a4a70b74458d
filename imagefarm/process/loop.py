"""Leaner turns of Twisted's epoll loop, and less work for the garbage collector.

Twisted runs each event inside a logging context (seven calls deep), which costs more than
reading the socket. Our own transports catch what they raise themselves, so their plain "readable"
events are delivered directly; everything else goes Twisted's way. As long as there is nothing to
do but to wait for the next events, they are waited for at once.
"""

from __future__ import annotations

import gc
import select
from typing import Any, Final

from twisted.internet.epollreactor import EPollReactor
from twisted.python import log

_READABLE: Final = select.EPOLLIN
#: What of Twisted's reactor is looked at beyond its interface; without it nothing is changed.
_PARTS: Final = (
    "_poller", "_selectables", "_doReadOrWrite", "threadCallQueue", "_newTimedCalls",
    "_pendingTimedCalls", "_justStopped", "running",
)  # fmt: skip
#: Events taken in one turn: room for them is made each time, however few there are.
MAX_EVENTS: Final = 512


def streamline(reactor: Any, lean: tuple[type, ...]) -> bool:
    """Deliver readable events of transports of the ``lean`` types directly.

    They have ``read_ready()``, which never raises. Returns whether ``reactor`` is one that this
    is written for; any other is left alone.
    """
    if type(reactor) is not EPollReactor or not all(hasattr(reactor, name) for name in _PARTS):
        return False
    poller, selectables = reactor._poller, reactor._selectables
    deliver = reactor._doReadOrWrite

    def do_poll(timeout: float | None) -> None:
        while True:
            try:
                most = min(len(selectables), MAX_EVENTS)
                events = poller.poll(-1 if timeout is None else timeout, most)
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
            timeout = _patience(loop)
            if timeout is not None and timeout <= 0:
                return

    loop: Any = reactor
    loop.doPoll = loop.doIteration = do_poll
    return True


def _patience(loop: Any) -> float | None:
    """Seconds until Twisted's own part of a turn has something to do; None: not before an event.

    Its part: calls from threads, delayed calls, the end.
    """
    if loop.threadCallQueue or loop._newTimedCalls or loop._justStopped or not loop.running:
        return 0.0
    calls = loop._pendingTimedCalls
    return calls[0].time - loop.seconds() if calls else None


def spare_the_collector(*, anew: bool = False) -> None:
    """Take what has been made at the start out of the garbage collector's sight.

    ``anew``: what was taken out of it before may be garbage by now. (Not in a fork: there it must
    never be collected.)

    Modules and the compiled configuration live as long as the process; requests make few cycles.
    So collections are rarer, shorter, and the pages of a forked child stay shared.
    """
    if anew:
        gc.unfreeze()
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
