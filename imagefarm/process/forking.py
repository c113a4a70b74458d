"""Children that are forks of us, as nginx's workers are: nothing is read or imported again.

A worker so runs the very configuration that its parent has checked, also when it takes the place
of a dead one and the files have changed since; it starts in a fraction of the time, and shares
the memory of what is the same.

The fork happens inside the parent's reactor, of which the child must use nothing: `become` gives
it a new one. Twisted's `Process` arranges the descriptors and closes all others; the objects that
stood for these are kept from ever being collected, for they would close numbers that belong to
others by then.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Callable, Mapping
from typing import Any, Final, NoReturn

from twisted.internet import process
from twisted.internet.epollreactor import EPollReactor
from twisted.internet.main import installReactor
from twisted.logger import globalLogPublisher

from .console import Console

#: What a child does; it ends the process.
Run = Callable[[], NoReturn]

#: Held back from the fork until the child can tell its own signals from its parent's.
_HELD: Final = (
    signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2,
    signal.SIGWINCH, signal.SIGCHLD,
)  # fmt: skip
#: What ends a child that is not ready yet; the others mean nothing to it.
_ENDING: Final = (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM)

#: The parent's objects, in the child.
_former: list[Any] = []


class ForkedProcess(process.Process):
    """A `Process` whose child calls ``run`` instead of executing a program."""

    def __init__(
        self, reactor: Any, protocol: Any, run: Run, fds: Mapping[int, int | str]
    ) -> None:
        self._run = run
        parent: Any = super()
        parent.__init__(reactor, b"", [], None, None, protocol, childFDs=fds)

    def _trySpawnInsteadOfFork(self, *arguments: Any) -> bool:
        return False

    def _resetSignalDisposition(self) -> None:
        """What is ignored stays so: Python is not started again, which ignores SIGPIPE."""

    def _fork(self, *arguments: Any, **keywords: Any) -> None:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _HELD)
        try:
            parent: Any = super()
            parent._fork(*arguments, **keywords)  # does not return in the child
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _execChild(self, *arguments: Any) -> None:
        gc.freeze()
        gc.enable()
        self._run()


def become() -> Any:
    """Make this child a process of its own. Returns its reactor, which is not running.

    It has its own session, so that Ctrl-C on a terminal reaches only its parent, and shows on
    stderr (a pipe to its parent) what is worth it.
    """
    os.setsid()
    signal.set_wakeup_fd(-1)
    for number in _HELD:
        ending = number in _ENDING
        signal.signal(number, _exit if ending else signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _former.extend(
        (sys.modules.pop("twisted.internet.reactor"), dict(process.reapProcessHandlers))
    )
    process.reapProcessHandlers.clear()
    for observer in tuple(globalLogPublisher._observers):
        _former.append(observer)
        globalLogPublisher.removeObserver(observer)
    console: Any = Console()
    globalLogPublisher.addObserver(console)
    reactor = EPollReactor()
    installReactor(reactor)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _HELD)
    return reactor


def _exit(*_: object) -> None:
    os._exit(0)
