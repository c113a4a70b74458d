"""The plans of the roles, made from their configuration."""

from __future__ import annotations

import os
from typing import Any

from imagefarm.config.errors import Invalid, Problem
from imagefarm.config.loader import Loaded
from imagefarm.image.directives import ResizerSettings
from imagefarm.process.directives import MainSettings, farm_members
from imagefarm.process.limits import too_few_files
from imagefarm.process.sockets import Endpoint
from imagefarm.resources import directives as rows
from imagefarm.resources.listen import parse_address

from .certificates import Bases, Certificates
from .configuration import Options
from .errors import CannotStart
from .farm import FarmWork
from .instance import Place
from .logs import ErrorLogs
from .plan import Boards, Plan
from .resizing import ResizerWork
from .web import WebWork


def web(loaded: Loaded, options: Options, reactor: Any, bases: Bases) -> Plan:
    """Master and slave: they differ in their configuration only. ``bases`` outlive reloads."""
    main = MainSettings.from_scope(loaded.root)
    servers = [
        server
        for block in loaded.root.blocks(rows.HTTP_BLOCK)
        for server in block.blocks(rows.SERVER_BLOCK)
    ]
    if not servers:
        raise CannotStart([f'no "server" is defined in {options.config}'])
    logs = ErrorLogs(main, options.prefix)
    certificates = Certificates(bases)

    def make(reactor: Any, boards: Boards) -> WebWork:
        return WebWork(
            reactor, loaded, main, options.prefix, logs.place,
            board=boards.shared, place=_place(boards), certificates=certificates,
        )  # fmt: skip

    work = make(reactor, Boards())
    endpoints = tuple(gate.endpoint for gate in work.gates)
    warnings = (*loaded.warnings, *dict.fromkeys(work.warnings), *_limits(main))
    return Plan(options.prefix, main, warnings, endpoints, logs, work, make, certificates)


def _place(boards: Boards) -> Place:
    return Place(boards.ledger, boards.journal, boards.number, boards.past)


def resizer(loaded: Loaded, options: Options, reactor: Any) -> Plan:
    """The FastCGI responder."""
    main = MainSettings.from_scope(loaded.root)
    try:
        settings = ResizerSettings.from_scope(loaded.root)
    except Invalid as error:
        raise CannotStart([f"{error} in {options.config}"]) from error
    if not os.path.isdir(settings.root):
        raise CannotStart([f'root "{settings.root}" of the "resizer" is not a directory'])
    endpoints = tuple(Endpoint.from_address(parse_address(text)) for text in settings.listen)

    logs = ErrorLogs(main, options.prefix)

    def make(reactor: Any, boards: Boards) -> ResizerWork:
        return ResizerWork(reactor, settings, endpoints, _place(boards), logs.place)

    work = make(reactor, Boards())
    return Plan(
        options.prefix, main, loaded.warnings, endpoints, logs, work, make, usr2_reloads=True
    )


def farm(loaded: Loaded, options: Options, reactor: Any) -> Plan:
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
    return Plan(
        options.prefix, main, loaded.warnings, (), ErrorLogs(main, options.prefix), work,
        lambda reactor, boards: work, hang_up=work.hang_up,
    )  # fmt: skip


def _limits(main: MainSettings) -> list[Problem]:
    """A warning, if the workers may have more connections than descriptors."""
    text = too_few_files(main.worker_connections, main.worker_rlimit_nofile)
    return [] if text is None else [Problem(text, "", 0)]
