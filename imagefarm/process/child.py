"""The child's side of the supervisor: the lifeline and readiness."""

from __future__ import annotations

import os
from collections.abc import Callable, MutableMapping
from typing import Any, Final

from attrs import define
from twisted.internet import fdesc
from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure

from .children import READY_FD

#: Set to 1 in the environment of a supervised process.
SUPERVISED: Final = "IMAGEFARM_SUPERVISED"
LIFELINE_FD: Final = 0


@define(eq=False)
class _Lifeline:
    """Reads the lifeline until its end; an `IReadDescriptor`."""

    fd: int
    reactor: Any
    orphaned: Callable[[], None]

    def fileno(self) -> int:
        return self.fd

    def logPrefix(self) -> str:
        return "lifeline"

    def doRead(self) -> None:
        if fdesc.readFromFD(self.fd, lambda data: None) is not None:
            self._end()

    def connectionLost(self, reason: Failure) -> None:
        # Done: the pipe hung up. Anything else: the reactor itself is shutting down.
        if reason.check(ConnectionDone):
            self._end()

    def _end(self) -> None:
        self.reactor.removeReader(self)
        orphaned, self.orphaned = self.orphaned, _nothing
        orphaned()


def _nothing() -> None:
    return None


@define(eq=False)
class Supervision:
    """A supervised process's view of its supervisor."""

    lifeline: int = LIFELINE_FD
    readiness: int = READY_FD

    def say_ready(self) -> None:
        """Tell the supervisor that the sockets listen. Saying it again does nothing."""
        fd, self.readiness = self.readiness, -1
        if fd < 0:
            return
        try:
            os.write(fd, b"\n")
        except OSError:
            pass  # The supervisor is gone: the lifeline says so too.
        finally:
            os.close(fd)

    def watch(self, reactor: Any, orphaned: Callable[[], None]) -> None:
        """Call ``orphaned`` once, when the supervisor is gone."""
        fdesc.setNonBlocking(self.lifeline)
        reactor.addReader(_Lifeline(self.lifeline, reactor, orphaned))


def supervision(environment: MutableMapping[str, str]) -> Supervision | None:
    """Our supervisor, or None if we weren't started by one.

    Takes the mark out of ``environment`` and marks the descriptors close-on-exec: our own
    children must not think they are supervised by it.
    """
    if environment.pop(SUPERVISED, "") != "1":
        return None
    os.set_inheritable(READY_FD, False)
    return Supervision()
