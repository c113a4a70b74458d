"""The services of the roles, made from their configuration."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, cast

from attrs import evolve
from twisted.application.service import IService

from imagefarm.config.errors import Invalid
from imagefarm.config.loader import Loaded
from imagefarm.image.directives import ResizerSettings
from imagefarm.process.board import Board
from imagefarm.process.directives import MainSettings, farm_members
from imagefarm.process.sockets import Endpoint
from imagefarm.resources import directives as rows
from imagefarm.resources.listen import parse_address

from .configuration import Options
from .daemon import DaemonService, ErrorLogs, Work
from .errors import CannotStart
from .farm import FarmWork
from .resizing import ResizerWork
from .web import WebWork


def web(loaded: Loaded, options: Options, reactor: Any) -> IService:
    """Master and slave: they differ in their configuration only."""
    main = MainSettings.from_scope(loaded.root)
    servers = [
        server
        for block in loaded.root.blocks(rows.HTTP_BLOCK)
        for server in block.blocks(rows.SERVER_BLOCK)
    ]
    if not servers:
        raise CannotStart([f'no "server" is defined in {options.config}'])
    logs = ErrorLogs()
    board = Board.inherit(os.environ)
    work = WebWork(reactor, loaded, main, options.prefix, logs.write, board=board)
    endpoints = [gate.endpoint for gate in work.gates]
    warned = evolve(loaded, warnings=(*loaded.warnings, *dict.fromkeys(work.warnings)))
    return _service(reactor, options, main, warned, endpoints, work, logs)


def resizer(loaded: Loaded, options: Options, reactor: Any) -> IService:
    """The FastCGI responder."""
    main = MainSettings.from_scope(loaded.root)
    settings = ResizerSettings.from_scope(loaded.root)
    if not os.path.isdir(settings.root):
        raise CannotStart([f'root "{settings.root}" of the "resizer" is not a directory'])
    endpoints = [Endpoint.from_address(parse_address(text)) for text in settings.listen]
    return _service(
        reactor, options, main, loaded, endpoints,
        ResizerWork(reactor, settings, endpoints),
    )  # fmt: skip


def farm(loaded: Loaded, options: Options, reactor: Any) -> IService:
    """Supervisor of the others."""
    main = MainSettings.from_scope(loaded.root)
    try:
        members = farm_members(loaded.root)
    except Invalid as error:
        raise CannotStart([f"{error} in {options.config}"]) from error
    work = FarmWork(reactor, options, members)
    try:
        work.prepare()
    except OSError as error:
        reason = f"({error.errno}: {error.strerror})"
        raise CannotStart([f'root "{error.filename}" cannot be used {reason}']) from error
    return _service(reactor, options, main, loaded, (), work)


def _service(
    reactor: Any,
    options: Options,
    main: MainSettings,
    loaded: Loaded,
    endpoints: Sequence[Endpoint],
    work: Work,
    logs: ErrorLogs | None = None,
) -> IService:
    service = DaemonService(
        reactor, options, main, loaded.warnings, endpoints, work, logs or ErrorLogs()
    )
    return cast(IService, service)
