"""How processes end: children gently or at once, and ourselves when a start has failed."""

from __future__ import annotations

import os
import sys
from typing import Any

from attrs import evolve
from twisted.python.failure import Failure

from imagefarm.process.children import Patience
from imagefarm.process.supervisor import Supervisor

from .logs import fault


def give_up(reactor: Any, failure: Failure) -> None:
    """A child could not start: stop, and exit with status 1 once everything has ended."""
    fault(failure.getErrorMessage())
    reactor.addSystemEventTrigger("after", "shutdown", _exit_with_failure)
    if reactor.running:
        reactor.stop()


def _exit_with_failure() -> None:
    # twistd exits with status 0 whatever a service says.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)


def stop_gently(supervisor: Supervisor, seconds: float) -> None:
    """Have the children told to QUIT, with so much time, before they are ended."""
    for child in supervisor.children:
        child.patience = evolve(child.patience, stop=(("QUIT", seconds), *Patience().stop))


def stop_now(supervisor: Supervisor) -> None:
    """End a gentle stop: the children are told to TERM, those already told to QUIT as well."""
    for child in supervisor.children:
        first, *rest = child.patience.stop
        if first[0] == "QUIT":
            child.patience = evolve(child.patience, stop=tuple(rest))
            child.hurry()
