"""What every role's process does besides its work: logs, pidfile, sockets, privileges, signals.

A role with one worker serves in its own process. With more (or to keep root for the pidfile
while the workers drop it) the process opens the sockets and supervises workers, which are the
same command with ``--worker``: they inherit the sockets by number.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol

from attrs import evolve
from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger, globalLogPublisher
from twisted.python.failure import Failure

from imagefarm.config.errors import Problem
from imagefarm.http.transport import LEAN
from imagefarm.process.board import INHERITED as BOARD
from imagefarm.process.board import Board
from imagefarm.process.child import SUPERVISED, supervision
from imagefarm.process.children import READY_FD, ChildSpec, Patience
from imagefarm.process.directives import MainSettings
from imagefarm.process.errorlog import ErrorLog, ErrorLogSetting, LogFileError
from imagefarm.process.limits import limit_open_files
from imagefarm.process.loop import spare_the_collector, streamline
from imagefarm.process.pidfile import PidFile
from imagefarm.process.privileges import Belongings, drop, hand_to, resolve
from imagefarm.process.sockets import (
    INHERITED,
    Endpoint,
    adopt,
    hand_over,
    open_clones,
    open_sockets,
)
from imagefarm.process.supervisor import Supervisor

from .configuration import Options

_log: Final = Logger(namespace="imagefarm")


def warn(message: str) -> None:
    """A warning for the error log."""
    _log.warn("{text}", text=message, severity="warn")


def notice(message: str) -> None:
    """Something an operator wants to know, for the error log."""
    _log.info("{text}", text=message, severity="notice")


def fault(message: str) -> None:
    """Something that needs an operator, for the error log."""
    _log.critical("{message}", message=message, severity="emerg")


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


class Idle:
    """The work of a process that only supervises."""

    def start(self, sockets: Mapping[str, socket.socket]) -> None:
        """Nothing to serve."""

    def drain(self) -> Deferred[Any]:
        """Nothing under way."""
        return maybeDeferred(lambda: None)

    def stop(self) -> Deferred[Any]:
        """Nothing to drop."""
        return maybeDeferred(lambda: None)

    def reopen(self) -> None:
        """No files."""

    def belongings(self) -> Belongings:
        """No files."""
        return Belongings()


class ErrorLogs:
    """The ``error_log`` files of the main context: `open` attaches them to twisted.logger."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._logs: list[Any] = []

    def open(self, settings: Sequence[ErrorLogSetting], prefix: str) -> None:
        """Open the files. Raises `LogFileError`."""
        default = ErrorLogSetting(os.path.join(prefix, "logs", "error.log"))
        self._logs = [ErrorLog(setting) for setting in settings or (default,)]
        for log in self._logs:
            globalLogPublisher.addObserver(log)

    def write(self, level: str, message: str) -> None:
        """Write a request's line directly: twisted.logger would take most of the time."""
        now = self._clock()
        for log in self._logs:
            log.line(level, message, now)

    def reopen(self) -> None:
        """After rotation."""
        for log in self._logs:
            try:
                log.reopen()
            except LogFileError as error:  # it goes on in the old file
                fault(str(error))

    def close(self) -> None:
        """Detach and close."""
        for log in self._logs:
            globalLogPublisher.removeObserver(log)
            log.close()


class DaemonService(Service):
    """A role's process. ``workers`` are supervised children; without any, ``work`` is done here.

    Its constructor opens logs and sockets, so that whatever is wrong with them is known before
    the process detaches from the terminal.
    """

    def __init__(
        self,
        reactor: Any,
        options: Options,
        main: MainSettings,
        warnings: Sequence[Problem],
        endpoints: Sequence[Endpoint],
        work: Work,
        logs: ErrorLogs,
    ) -> None:
        self._reactor = reactor
        self._main = main
        self._supervision = supervision(os.environ)
        inherited = os.environ.pop(INHERITED, "")
        os.environ.pop(BOARD, None)
        self._logs = logs
        logs.open(main.error_logs, options.prefix)
        for problem in warnings if not options.worker else ():
            warn(str(problem))
        self._pidfile: PidFile | None = None
        if main.pid is not None and not options.worker:
            self._pidfile = PidFile(main.pid, warn)
            self._pidfile.check()
        self._credentials = resolve(main.user, _quiet if options.worker else warn, os.geteuid())
        if main.worker_rlimit_nofile is not None:
            problem_text = limit_open_files(main.worker_rlimit_nofile)
            if problem_text and not options.worker:
                warn(problem_text)
        self._stopping = False
        self._supervisor: Supervisor | None = None
        #: What the workers share; kept for those that will be started anew.
        self._board: Board | None = None
        several = main.worker_processes > 1 or self._credentials is not None
        in_parent = several and main.master_process and bool(endpoints) and not options.worker
        self._belongings = self._all_belongings(work)
        self._work = work
        #: Unix sockets that are ours to remove.
        self._paths = [] if options.worker else [e.path for e in endpoints if e.path]
        if in_parent:  # it was made to see whether it can be: the workers make their own
            work.stop()
            self._work = Idle()
        self._sockets = adopt(inherited) if options.worker else _open(endpoints)
        #: What ``reuseport`` gives to the second worker and those after it.
        self._clones: list[dict[str, socket.socket]] = []
        if in_parent:
            self._clones = open_clones(endpoints, main.worker_processes)
            self._supervisor = self._workers(options, endpoints)

    def _all_belongings(self, work: Work) -> Belongings:
        found = work.belongings()
        paths = [log.path for log in self._main.error_logs if log.path is not None]
        return evolve(found, logs=(*paths, *found.logs))

    def _hand_over(self) -> None:
        """Let the workers' user write what root opened or made."""
        if self._credentials is not None:
            for failure in hand_to(self._credentials, self._belongings):
                fault(failure)

    def _workers(self, options: Options, endpoints: Sequence[Endpoint]) -> Supervisor:
        command = (sys.executable, "-m", "imagefarm.process", *worker_arguments(options))
        specs = []
        board = self._board = Board.make()
        for number, clones in enumerate([{}, *self._clones], 1):
            sockets = {**self._sockets, **clones}
            inheritance = hand_over({endpoint: sockets[str(endpoint)] for endpoint in endpoints})
            spare = max(inheritance.fds, default=READY_FD) + 1
            environment = {
                **os.environ, **inheritance.environment, SUPERVISED: "1", BOARD: str(spare),
            }  # fmt: skip
            fds = {**inheritance.fds, spare: board.fileno()}
            specs.append(ChildSpec(f"worker {number}", command, environment, None, fds))
        return Supervisor(specs, self._reactor, together=True)

    def startService(self) -> None:
        """Serve, or start the workers; then write the pidfile and say that we are ready."""
        Service.startService(self)
        streamline(self._reactor, LEAN)
        self._install_signals()
        if self._supervision is not None:
            self._supervision.watch(self._reactor, self._orphaned)
        if self._supervisor is not None:
            self._supervisor.startService()
            ready = self._supervisor.ready.addCallback(lambda _: self._write_pidfile())
            ready.addCallback(lambda _: self._ready())
            ready.addErrback(lambda failure: give_up(self._reactor, failure))
            return
        self._write_pidfile()
        if self._credentials is not None:
            self._hand_over()
            drop(self._credentials)  # before any work: what it starts must not be root's
        self._work.start(self._sockets)
        self._close_sockets()  # the work has its own descriptors of them
        spare_the_collector()
        self._ready()

    def _write_pidfile(self) -> None:
        if self._pidfile is not None:
            self._pidfile.write()

    def _ready(self) -> None:
        if self._supervision is not None:
            self._supervision.say_ready()
        notice("ready")

    def _orphaned(self) -> None:
        notice("the supervisor is gone, stopping")
        self._stop_reactor()

    def _stop_reactor(self) -> None:
        if self._reactor.running and not self._stopping:
            self._stopping = True
            self._reactor.stop()

    def _install_signals(self) -> None:
        def on(number: signal.Signals, action: Callable[[], None]) -> None:
            signal.signal(number, lambda *_: self._reactor.callFromThread(action))

        on(signal.SIGQUIT, self._graceful)
        on(signal.SIGUSR1, self._reopen)
        # Its default would end the process, and a rotation script may well send it.
        on(signal.SIGHUP, _not_reread)

        def on_fast() -> None:
            on(signal.SIGTERM, self._fast)
            on(signal.SIGINT, self._fast)

        # The reactor sets handlers of its own when it starts, after which twistd would end by
        # the signal it was sent; nginx exits with status 0.
        self._reactor.callWhenRunning(on_fast)

    def _fast(self) -> None:
        """TERM, INT: stop at once, also while a graceful stop is under way."""
        notice("exiting")
        if self._supervisor is not None:
            stop_now(self._supervisor)
        self._stop_reactor()

    def _graceful(self) -> None:
        """QUIT: finish what is under way, then stop."""
        notice("gracefully shutting down")
        if self._supervisor is not None:
            self._close_sockets()  # or clients would go on to connect, with nobody to accept
            stop_gently(self._supervisor, self._shutdown_time())
            self._stop_reactor()
            return
        drained = self._work.drain()
        if self._main.worker_shutdown_timeout is not None:
            drained.addTimeout(self._main.worker_shutdown_timeout, self._reactor)
        drained.addErrback(lambda _: None).addCallback(lambda _: self._stop_reactor())

    def _shutdown_time(self) -> float:
        given = self._main.worker_shutdown_timeout
        return 3600.0 if given is None else given + 1.0

    def _reopen(self) -> None:
        """USR1: log files were rotated."""
        self._logs.reopen()
        self._work.reopen()
        if self._supervisor is not None:
            self._hand_over()
            self._supervisor.signal("USR1")
        notice("reopened logs")

    def stopService(self) -> Deferred[Any]:
        """Stop serving, stop the workers, take the pidfile away."""
        Service.stopService(self)
        stopping = maybeDeferred(self._work.stop)
        if self._supervisor is not None:
            supervisor = self._supervisor
            stopping.addBoth(lambda _: supervisor.stopService())
        return stopping.addBoth(self._end)

    def _close_sockets(self) -> None:
        for sockets in (self._sockets, *self._clones):
            for sock in sockets.values():
                sock.close()

    def _end(self, result: Any) -> Any:
        self._close_sockets()
        if self._board is not None:
            self._board.close()
        for path in self._paths:
            with contextlib.suppress(OSError):
                os.unlink(path)
        if self._pidfile is not None:
            self._pidfile.remove()
        self._logs.close()
        return result


def give_up(reactor: Any, failure: Failure) -> None:
    """A child could not start: stop, and exit with status 1 once everything has ended."""
    _log.critical("{error}", error=failure.getErrorMessage(), severity="emerg")
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


def _not_reread() -> None:
    warn("signal HUP: the configuration is read at the start only, restart to have a new one")


def _quiet(message: str) -> None:
    """Workers do not repeat what their parent has said."""


def _open(endpoints: Sequence[Endpoint]) -> dict[str, socket.socket]:
    return {str(endpoint): sock for endpoint, sock in open_sockets(endpoints).items()}


def worker_arguments(options: Options) -> tuple[str, ...]:
    """The twistd arguments of a worker of the same role and configuration."""
    words = ["-n", "--pidfile=", "imagefarm", options.role, "--worker"]
    words += ["--config", options.config, "--prefix", options.prefix]
    for setting in options.settings:
        words += ["--set", setting]
    for name, value in (
        ("--root", options.root), ("--port", options.port), ("--tls-port", options.tls_port),
    ):  # fmt: skip
        if value is not None:
            words += [name, str(value)]
    return tuple(words)
