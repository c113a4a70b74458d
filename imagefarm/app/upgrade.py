"""USR2: another program takes over our sockets; until we are told to QUIT both serve."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from imagefarm.process.children import how_it_ended
from imagefarm.process.pidfile import PidFile, PidFileError
from imagefarm.process.sockets import INHERITED_BY_NGINX, hand_over

from .configuration import Options
from .logs import fault, notice

#: What our pidfile is called meanwhile.
OLD: Final = ".oldbin"


def command_line(options: Options) -> tuple[str, ...]:
    """How the same role is started with the same configuration, in the foreground."""
    if options.program:
        return options.program
    words = [sys.executable, "-m", "imagefarm.process", "-n", "--pidfile=", "imagefarm"]
    words += [options.role, "--config", options.config, "--prefix", options.prefix]
    for setting in options.settings:
        words += ["--set", setting]
    for name, value in (
        ("--root", options.root), ("--port", options.port), ("--tls-port", options.tls_port),
    ):  # fmt: skip
        if value is not None:
            words += [name, str(value)]
    return tuple(words)


class _NewProgram(ProcessProtocol):
    def __init__(self, ended: Callable[[str], None]) -> None:
        self._ended = ended

    def processEnded(self, reason: Failure) -> None:
        self._ended(how_it_ended(reason))


class Upgrade:
    """At most one new program at a time. ``restored`` is called when it has ended before us."""

    def __init__(
        self,
        reactor: Any,
        environment: Mapping[str, str],
        command: tuple[str, ...],
        restored: Callable[[], None],
    ) -> None:
        self._reactor = reactor
        self._environment = environment
        self._command = command
        self._restored = restored
        self._pidfile: PidFile | None = None
        #: Whether there is a new program.
        self.under_way = False

    def start(self, sockets: Sequence[tuple[str, socket.socket]], pidfile: PidFile | None) -> None:
        """Start the new program, and give it the name of our pidfile.

        If that program is nginx it finds the sockets as if nginx had started it.
        """
        notice("changing binary")
        try:
            if pidfile is not None:
                pidfile.rename(OLD)
        except PidFileError as error:
            fault(str(error))
            return
        self._pidfile = pidfile
        inheritance = hand_over(sockets)
        fds: dict[int, int] = {0: 0, 1: 1, 2: 2, **inheritance.fds}
        for_nginx = "".join(f"{number};" for number in inheritance.fds)
        environment = {
            **self._environment, **inheritance.environment, INHERITED_BY_NGINX: for_nginx,
        }  # fmt: skip
        try:
            self._reactor.spawnProcess(
                _NewProgram(self._ended),
                self._command[0],
                self._command,
                environment,
                childFDs=fds,
            )
        except OSError as error:
            self._ended(f"could not be started ({error})")
            return
        self.under_way = True

    def _ended(self, how: str) -> None:
        self.under_way = False
        fault(f"the new program {how}, the old one goes on")
        if self._pidfile is not None:
            try:
                self._pidfile.rename("")
            except PidFileError as error:
                fault(str(error))
        self._restored()
