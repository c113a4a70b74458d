"""The composition root: configuration -> services. The only place that wires things together."""

from __future__ import annotations

import os
from functools import partial
from typing import Any, cast

from twisted.application.service import IService

from imagefarm.config.errors import ConfigurationError
from imagefarm.process.prefix import prepare

from .configuration import SHIPPED, Options, read
from .daemon import DaemonService
from .errors import CannotStart
from .logs import warn
from .plan import Plan, explained
from .roles import farm, resizer, web


def make_plan(options: Options, reactor: Any) -> Plan:
    """Read and build the configuration of ``options.role``. Raises `CannotStart`."""
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
        return web(loaded, options, reactor)


def make_service(options: Options, reactor: Any) -> IService:
    """The service of ``options.role``. Raises `CannotStart`; then nothing has been started."""
    with explained():
        return cast(
            IService, DaemonService(reactor, options, partial(make_plan, options, reactor))
        )


__all__ = ["CannotStart", "Options", "make_plan", "make_service"]
