"""The composition root: configuration -> services. The only place that wires things together."""

from __future__ import annotations

import contextlib
import errno
import os
from functools import partial
from typing import Any, cast

from twisted.application.service import IService

from imagefarm.config.errors import ConfigurationError
from imagefarm.process.listening import Listening
from imagefarm.process.pidfile import AlreadyRunning, PidFile
from imagefarm.process.prefix import prepare
from imagefarm.process.privileges import resolve
from imagefarm.process.sockets import ListenError

from .certificates import Bases
from .configuration import SHIPPED, Options, read
from .daemon import DaemonService
from .errors import CannotStart
from .logs import warn
from .plan import Plan, explained
from .roles import farm, resizer, web


def make_plan(options: Options, reactor: Any, bases: Bases | None = None) -> Plan:
    """Read and build the configuration of ``options.role``. Raises `CannotStart`.

    ``bases`` are of the configurations before, so that TLS sessions can still be resumed.
    """
    if options.root is not None and not os.path.isdir(options.root):
        raise CannotStart([f'--root "{options.root}" is not a directory'])
    with explained():
        loaded = read(options)
        prepare(options.prefix, SHIPPED, warn)
        if options.role in ("farm", "resizer") and loaded.problems:
            raise ConfigurationError(loaded.problems)
        if options.role == "farm":
            return farm(loaded, options, reactor)
        if options.role == "resizer":
            return resizer(loaded, options, reactor)
        return web(loaded, options, reactor, bases or Bases())


def make_service(options: Options, reactor: Any) -> IService:
    """The service of ``options.role``. Raises `CannotStart`; then nothing has been started."""
    rebuild = partial(make_plan, options, reactor, Bases())
    with explained():
        return cast(IService, DaemonService(reactor, options, rebuild))


def check(options: Options, reactor: Any) -> Plan:
    """Build the configuration and open what a start would open. Raises `CannotStart`."""
    plan = make_plan(options, reactor)
    plan.work.stop()
    listening = Listening()
    with explained():
        plan.logs.open()
        plan.logs.close()
        resolve(plan.main.user, warn, os.geteuid())
        if plan.main.pid is not None:
            with contextlib.suppress(AlreadyRunning):
                PidFile(plan.main.pid, lambda message: None).check()
        for endpoint in plan.endpoints:
            try:
                listening.abandon(listening.prepare([endpoint], 1))
            except ListenError as error:
                # A running daemon may have it; that is found out at the start.
                if f"({errno.EADDRINUSE}:" not in str(error):
                    raise
    return plan


__all__ = ["CannotStart", "Options", "check", "make_plan", "make_service"]
