"""A configuration that was read, built and found good: what a daemon runs."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, Protocol

from attrs import evolve, frozen
from twisted.internet.defer import Deferred

from imagefarm.config.errors import ConfigurationError, Problem
from imagefarm.process.board import Board
from imagefarm.process.certificate import CertificateError
from imagefarm.process.directives import MainSettings
from imagefarm.process.ledger import Ledger
from imagefarm.process.logsinks import LogFileError
from imagefarm.process.pidfile import PidFileError
from imagefarm.process.privileges import Belongings, PrivilegeError
from imagefarm.process.sockets import Endpoint, ListenError

from .errors import CannotStart
from .logs import ErrorLogs


class Work(Protocol):
    """What a process is for."""

    def start(self, sockets: Mapping[str, socket.socket]) -> None:
        """Serve on the sockets (by `Endpoint` text)."""

    def drain(self) -> Deferred[Any]:
        """Take nothing new, finish what is under way; fires when that is done."""

    def stop(self) -> Deferred[Any]:
        """Drop everything."""

    def reopen(self) -> None:
        """Open log files anew."""

    def belongings(self) -> Belongings:
        """What it writes to."""


class Upkeep(Protocol):
    """What a parent does for its workers."""

    def start(self, reactor: Any) -> None:
        """Begin; in the parent's reactor."""

    def stop(self) -> None:
        """No more of it."""


@frozen
class Boards:
    """What the processes of a daemon share.

    ``shared`` is for the workers of one configuration (None in a process that is alone);
    ``journal`` says what became of the last reload, ``ledger`` what all of them have counted, for
    status pages; ``number`` is the worker's, from 1. ``past`` is for what dashboards have seen.
    """

    shared: Board | None = None
    journal: Board | None = None
    ledger: Ledger | None = None
    number: int = 1
    past: Board | None = None


#: How long clients may still send on idle connections when we finish, in seconds: none of them
#: can know yet, and a request that crosses our closing would be lost.
PARTING: Final = 1.0


@frozen(eq=False)
class Plan:
    """``work`` was made to see whether it can be; ``make`` makes it for another reactor."""

    prefix: str
    main: MainSettings
    warnings: Sequence[Problem]
    endpoints: tuple[Endpoint, ...]
    logs: ErrorLogs
    work: Work
    make: Callable[[Any, Boards], Work]
    #: What the parent does as long as its workers serve.
    upkeep: Upkeep | None = None
    #: Passes a HUP on to whom it concerns, where that is others.
    hang_up: Callable[[], None] | None = None
    #: Whether USR2 is a reload, as with php-fpm, and not an upgrade, as with nginx.
    usr2_reloads: bool = False

    def belongings(self) -> Belongings:
        """What the processes write to, the error log included."""
        found = self.work.belongings()
        return evolve(found, logs=(*self.logs.paths, *found.logs))


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """Whatever is known to stand in the way of a start is raised as `CannotStart`."""
    try:
        yield
    except ConfigurationError as error:
        raise CannotStart(map(str, error.problems)) from error
    except ListenError as error:
        raise CannotStart(error.problems) from error
    except (CertificateError, LogFileError, PidFileError, PrivilegeError) as error:
        raise CannotStart([str(error)]) from error
