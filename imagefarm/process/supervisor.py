"""Runs child processes: starts them in order, restarts the dead, stops all in reverse order.

A child is told three things by descriptors, which survive what signals don't:

- 0 is its lifeline, a pipe whose other end only the supervisor holds. End of file means that
  the supervisor is gone, even by ``kill -9``. PR_SET_PDEATHSIG would do the same without the
  child's help, but the kernel clears it when the child changes its user (``user``), and it
  follows the parent's thread rather than the process.
- 1 and 2 are pipes to the supervisor, which passes each line on with the child's name.
- 3 is for one byte: the child is ready, its sockets listen.

`imagefarm.process.child` is the other side.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList, succeed
from twisted.logger import Logger

from .backoff import Backoff
from .children import Child, ChildSpec, Patience

DEFAULT_BACKOFF: Final = Backoff()
DEFAULT_PATIENCE: Final = Patience()


def log_line(name: str, line: bytes) -> None:
    """The default ``output``: as if we had printed it, with the child's name before it."""
    text = f"{name}: {line.decode('utf-8', 'replace')}"
    Logger(namespace=name).info("{log_io}", log_io=text)


class Supervisor(Service):
    """A service that runs ``specs``: each starts when the one before it is ready.

    They stop one after another in the reverse order, so list first what others depend on;
    or, with ``together``, all at the same time.
    `ready` fires when all are; it errs with `ChildFailed` if one dies before it was ready for
    the first time (a bad configuration, a port in use), and then the rest isn't started: the
    caller decides to stop. Later deaths are restarted for ever, with ``backoff`` between them.
    """

    def __init__(
        self,
        specs: Sequence[ChildSpec],
        reactor: Any,
        output: Callable[[str, bytes], None] = log_line,
        backoff: Backoff = DEFAULT_BACKOFF,
        patience: Patience = DEFAULT_PATIENCE,
        together: bool = False,
    ) -> None:
        self.children = tuple(Child(spec, reactor, output, backoff, patience) for spec in specs)
        self.ready: Deferred[None] = Deferred()
        self._patience = patience
        self._together = together

    @property
    def patience(self) -> Patience:
        """How long to wait for a child; may be changed at any time."""
        return self._patience

    @patience.setter
    def patience(self, patience: Patience) -> None:
        self._patience = patience
        for child in self.children:
            child.patience = patience

    def __repr__(self) -> str:
        return f"<Supervisor {' '.join(map(repr, self.children))}>"

    def startService(self) -> None:
        """Start the first child; the others follow."""
        Service.startService(self)
        self._start(0)

    def _start(self, index: int) -> None:
        if not self.running:
            return
        if index == len(self.children):
            self.ready.callback(None)
            return
        starting = self.children[index].start()
        starting.addCallbacks(lambda _: self._start(index + 1), self.ready.errback)

    def stopService(self) -> Deferred[None]:
        """Stop the last child, then the one before it... Fires when none is left."""
        Service.stopService(self)
        if self._together:
            stopping = DeferredList([child.stop() for child in self.children])
            return stopping.addCallback(lambda _: None)
        return self._stop(len(self.children) - 1)

    def _stop(self, index: int) -> Deferred[None]:
        if index < 0:
            return succeed(None)
        return self.children[index].stop().addCallback(lambda _: self._stop(index - 1))

    def signal(self, name: str) -> None:
        """Pass a signal (``HUP``, ``USR1``) on to every child."""
        for child in self.children:
            child.signal(name)
