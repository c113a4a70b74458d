"""One child process: started, watched, restarted, stopped."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from signal import Signals
from typing import Any, Final

from attrs import Factory, frozen
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ProcessDone, ProcessExitedAlready
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from .backoff import Backoff
from .forking import ForkedProcess, Run

#: The child's descriptor for saying that it is ready.
READY_FD: Final = 3
#: The longest line of output in bytes that is kept together.
MAX_LINE: Final = 8192
#: How a child says why it can't start, and how many lines of that are of interest.
LAST_WORDS: Final = b"imagefarm: [emerg] "
MAX_LAST_WORDS: Final = 5
#: How long the output of a child is read after its end, in seconds.
LINGER: Final = 1.0


class State(Enum):
    """Where a child is in its life."""

    STOPPED = "stopped"
    STARTING = "starting"
    RUNNING = "running"
    WAITING = "waiting to be restarted"
    STOPPING = "stopping"


@frozen
class ChildSpec:
    """A process to run: ``command`` with ``environment`` (whole, not added to ours).

    ``fds`` maps further descriptors of the child, from 4 on, to ours (listening sockets). With
    ``run`` it is a fork of us that calls this, and has our environment and directory.
    """

    name: str
    command: tuple[str, ...] = ()
    environment: Mapping[str, str] = Factory(dict)
    directory: str | None = None
    fds: Mapping[int, int] = Factory(dict)
    run: Run | None = None


@frozen
class Patience:
    """How long to wait for a child, in seconds.

    ``ready``: until it says that it is ready, or it is killed and that counts as a death.
    ``stop``: signals and how long each has to work; KILL follows the last.
    """

    ready: float = 30.0
    stop: tuple[tuple[str, float], ...] = (("TERM", 10.0),)


class ChildFailed(Exception):
    """A child died before it was ready for the first time; ``why`` is what it said about it."""

    def __init__(self, name: str, how: str, why: str = "") -> None:
        super().__init__(f"{name} {how} before it was ready{why and ': '}{why}")
        self.name = name
        self.how = how


def how_it_ended(reason: Failure) -> str:
    """``exited with status 1`` or ``was killed by signal 9``."""
    if reason.check(ProcessDone):
        return "exited with status 0"
    signal = getattr(reason.value, "signal", None)
    if signal is not None:
        return f"was killed by signal {signal}"
    return f"exited with status {getattr(reason.value, 'exitCode', None)}"


class _Lines:
    """Cuts one output descriptor into lines; an over-long line is passed on in pieces."""

    def __init__(self, emit: Callable[[bytes], None]) -> None:
        self._emit = emit
        self._rest = b""

    def feed(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._emit(line)
        while len(self._rest) > MAX_LINE:
            self._emit(self._rest[:MAX_LINE])
            self._rest = self._rest[MAX_LINE:]

    def finish(self) -> None:
        if self._rest:
            self._emit(self._rest)
            self._rest = b""


class _Process(ProcessProtocol):
    """One life of a child; tells `Child` what happens."""

    def __init__(self, child: Child, output: Callable[[str, bytes], None]) -> None:
        self._child = child
        self._lines = {fd: _Lines(self._said) for fd in (1, 2)}
        self._output = output
        self._linger: Any = None

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        if childFD == READY_FD:
            self._child.said_ready()
        elif childFD in self._lines:
            self._lines[childFD].feed(data)

    def _said(self, line: bytes) -> None:
        if not self._child.said(line):
            self._output(self._child.spec.name, line)

    def childConnectionLost(self, childFD: int) -> None:
        if childFD in self._lines:
            self._lines[childFD].finish()

    def processExited(self, reason: Failure) -> None:
        # What it said last may still be in the pipes: they are read to their end. A grandchild
        # may hold them open for ever, though, and the child itself is gone.
        self._linger = self._child.reactor.callLater(LINGER, self._give_up)

    def _give_up(self) -> None:
        transport: Any = self.transport
        transport.closeChildFD(READY_FD)
        transport.loseConnection()

    def processEnded(self, reason: Failure) -> None:
        if self._linger is not None and self._linger.active():
            self._linger.cancel()
        self._child.exited(how_it_ended(reason))


class Child:
    """One supervised process: its state, how often it was restarted, and since when it runs."""

    _log = Logger()

    def __init__(
        self,
        spec: ChildSpec,
        reactor: Any,
        output: Callable[[str, bytes], None],
        backoff: Backoff,
        patience: Patience,
    ) -> None:
        self.spec = spec
        self.state = State.STOPPED
        self.restarts = 0
        self.started_at = 0.0
        self.reactor = reactor
        self._output = output
        self._backoff = backoff
        self.patience = patience
        self._deaths = 0
        self._was_ready = False
        #: Why this life of it came to nothing, in its own words.
        self._last_words: list[str] = []
        self._transport: Any = None
        self._timer: Any = None
        self._ready: Deferred[None] | None = None
        self._gone: list[Deferred[None]] = []

    def __repr__(self) -> str:
        return f"<Child {self.spec.name} {self.state.value} pid={self.pid or '-'}>"

    @property
    def pid(self) -> int | None:
        """The process number while it lives."""
        return None if self._transport is None else self._transport.pid

    def start(self) -> Deferred[None]:
        """Start it. Fires when it is ready; errs with `ChildFailed` if it dies before."""
        self._ready = Deferred()
        ready = self._ready
        self._spawn()
        return ready

    def _spawn(self) -> None:
        self._timer = None
        self.state = State.STARTING
        self._last_words = []
        self.started_at = self.reactor.seconds()
        descriptors: dict[int, int | str] = {0: "w", 1: "r", 2: "r", READY_FD: "r"}
        descriptors.update(self.spec.fds)
        protocol = _Process(self, self._output)
        try:
            self._transport = self._launch(protocol, descriptors)
        except OSError as error:  # no process or no descriptor to be had: as if it had died
            self._died(f"could not be started ({error})")
            return
        self._timer = self.reactor.callLater(self.patience.ready, self._too_slow)

    def _launch(self, protocol: _Process, descriptors: dict[int, int | str]) -> Any:
        spec = self.spec
        if spec.run is not None:
            return ForkedProcess(self.reactor, protocol, spec.run, descriptors)
        return self.reactor.spawnProcess(
            protocol, spec.command[0], spec.command, spec.environment, spec.directory,
            childFDs=descriptors,
        )  # fmt: skip

    def _too_slow(self) -> None:
        self._timer = None
        self._log.error(
            "{name} is not ready after {seconds} s, killed",
            name=self.spec.name,
            seconds=self.patience.ready,
        )
        self.signal("KILL")

    def said_ready(self) -> None:
        """The byte arrived."""
        if self.state is not State.STARTING:
            return
        self._cancel_timer()
        self.state = State.RUNNING
        self._was_ready = True
        self._log.info(
            "{name} is ready (pid {pid})", name=self.spec.name, pid=self.pid, severity="notice"
        )
        ready, self._ready = self._ready, None
        if ready is not None:
            ready.callback(None)

    def said(self, line: bytes) -> bool:
        """It printed a line; whether that is why it can't start, which we tell with its death."""
        if self.state is not State.STARTING or not line.startswith(LAST_WORDS):
            return False
        if len(self._last_words) < MAX_LAST_WORDS:
            self._last_words.append(line.removeprefix(LAST_WORDS).decode("utf-8", "replace"))
        return True

    def exited(self, how: str) -> None:
        """The process is gone and reaped."""
        self._transport = None
        self._cancel_timer()
        if self.state is State.STOPPING:
            self.state = State.STOPPED
            gone, self._gone = self._gone, []
            for waiting in gone:
                waiting.callback(None)
            return
        self._died(how)

    def _died(self, how: str) -> None:
        ready, self._ready = self._ready, None
        why = "; ".join(self._last_words)
        if ready is not None and not self._was_ready:
            self.state = State.STOPPED
            ready.errback(Failure(ChildFailed(self.spec.name, how, why)))
            return
        ran_for = self.reactor.seconds() - self.started_at
        self._deaths = self._backoff.deaths(self._deaths, ran_for)
        delay = self._backoff.delay(self._deaths)
        self._log.error(
            "{name} {how}{why}, restarting in {delay:g} s",
            name=self.spec.name,
            how=how,
            why=f" ({why})" if why else "",
            delay=delay,
            severity="alert",
        )
        self.state = State.WAITING
        self._timer = self.reactor.callLater(delay, self._again)

    def _again(self) -> None:
        self.restarts += 1
        self._spawn()

    def _cancel_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()

    def signal(self, name: str) -> bool:
        """Send it ``HUP``, ``USR1``...; whether there was a process to send it to."""
        if self._transport is None:
            return False
        try:
            # By number: Twisted knows only a few by name, QUIT and USR1 not among them.
            self._transport.signalProcess(Signals[f"SIG{name}"].value)
        except ProcessExitedAlready:
            return False
        return True

    def stop(self) -> Deferred[None]:
        """End it: each signal of `Patience`, then KILL. Fires when it is gone."""
        self._ready = None
        if self._transport is None:
            self._cancel_timer()
            self.state = State.STOPPED
            return succeed(None)
        gone: Deferred[None] = Deferred()
        self._gone.append(gone)
        if self.state is not State.STOPPING:
            self.state = State.STOPPING
            self._cancel_timer()
            self._escalate(self.patience.stop)
        return gone

    def hurry(self) -> None:
        """If it is being stopped: begin anew with the signals of `patience` as it is now."""
        if self.state is State.STOPPING:
            self._cancel_timer()
            self._escalate(self.patience.stop)

    def _escalate(self, steps: tuple[tuple[str, float], ...]) -> None:
        self._timer = None
        if not steps:
            self._log.warn("{name} does not stop, killed", name=self.spec.name)
            self.signal("KILL")
            return
        (signal, grace), *rest = steps
        self.signal(signal)
        self._timer = self.reactor.callLater(grace, self._escalate, tuple(rest))
