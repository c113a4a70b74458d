"""The composition root: configuration -> services. The only place that wires things together."""

from __future__ import annotations

import os
from typing import Any

from twisted.application.service import IService

from imagefarm.config.errors import ConfigurationError
from imagefarm.process.certificate import CertificateError
from imagefarm.process.errorlog import LogFileError
from imagefarm.process.pidfile import PidFileError
from imagefarm.process.prefix import prepare
from imagefarm.process.privileges import PrivilegeError
from imagefarm.process.sockets import ListenError

from .configuration import SHIPPED, Options, read
from .daemon import warn
from .errors import CannotStart
from .roles import farm, resizer, web


def make_service(options: Options, reactor: Any) -> IService:
    """The service of ``options.role``. Raises `CannotStart`; then nothing has been started."""
    if options.root is not None and not os.path.isdir(options.root):
        raise CannotStart([f'--root "{options.root}" is not a directory'])
    try:
        loaded = read(options)
        if not options.worker:
            prepare(options.prefix, SHIPPED, warn)
        if options.role in ("farm", "resizer") and loaded.problems:
            raise ConfigurationError(loaded.problems)
        if options.role == "farm":
            return farm(loaded, options, reactor)
        if options.role == "resizer":
            return resizer(loaded, options, reactor)
        return web(loaded, options, reactor)
    except ConfigurationError as error:
        raise CannotStart(map(str, error.problems)) from error
    except ListenError as error:
        raise CannotStart(error.problems) from error
    except (CertificateError, LogFileError, PidFileError, PrivilegeError) as error:
        raise CannotStart([str(error)]) from error


__all__ = ["CannotStart", "Options", "make_service"]
