"""One worker process as the pool sees it: it gets ready, does one job at a time, and ends."""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Sequence
from enum import Enum
from typing import Any, Protocol

from twisted.internet.error import ProcessExitedAlready
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

import imagefarm

from .channel import Channel
from .errors import ImageError, Withdrawn
from .job import WITHDRAWAL, Decoder, Job, Message, Rendered, WireError, read_answer
from .limits import Limits

#: Most of a worker's standard error that is logged for one job, in bytes. Codecs may have a line
#: to say about each row of a picture.
_MAX_LOGGED = 4096
#: How many of its last sources a worker is remembered by.
RECENT = 16


class State(Enum):
    """Where a worker stands."""

    STARTING = "starting"
    IDLE = "idle"
    BUSY = "busy"
    #: Told to end, or killed.
    ENDING = "ending"
    ENDED = "ended"


class Owner(Protocol):
    """What a worker tells its pool."""

    def ready(self, worker: WorkerProcess) -> None:
        """It has started and takes jobs."""

    def answered(self, worker: WorkerProcess, answer: Rendered | ImageError) -> None:
        """It has done its job, the first one of those that it was sent."""

    def ended(self, worker: WorkerProcess) -> None:
        """The process is gone and its pipes are closed."""


class WorkerProcess(ProcessProtocol):
    """The parent's end of one worker."""

    log = Logger()
    #: An IProcessTransport, once spawned.
    transport: Any

    def __init__(self, owner: Owner, limits: Limits) -> None:
        self.state = State.STARTING
        self.was_ready = False
        self.jobs = 0
        #: Bytes that it had resident after its last job, as it says.
        self.resident = 0
        #: What it has worked on and may still have decoded, the last one last.
        self.recent: deque[bytes] = deque(maxlen=RECENT)
        #: Jobs that it was sent and has not answered.
        self._sent = 0
        #: Bytes on standard error since its last job began.
        self._complained = 0
        #: A line on standard error that has no end yet: libtiff writes one in three pieces.
        self._line = b""
        self._owner = owner
        self._decoder = Decoder(limits.max_output_bytes)
        self._channel: Channel
        #: The process's number, also after its end.
        self.pid: int | None = None

    def spawn(self, reactor: Any, limits: Limits) -> None:
        """Start the process. A socket carries the messages, a pipe its errors."""
        self._channel = Channel(reactor, self.said)
        end = self._channel.theirs.fileno()
        reactor.spawnProcess(
            self,
            sys.executable,
            command(limits),
            env=environment(),
            childFDs={0: end, 1: end, 2: "r"},
        )
        self._channel.started()
        self.pid = self.transport.pid

    @property
    def unread(self) -> bool:
        """Whether it has ended without having read the last that it was sent."""
        return self._channel.unread

    def send(self, job: Job) -> None:
        """Give it a job, which it does when it has done those that it has."""
        if self.state not in (State.IDLE, State.BUSY):
            raise RuntimeError(f"a job for a worker that is {self.state.value}")
        self.state = State.BUSY
        self._sent += 1
        self.recent.append(job.recipe.src)
        if not self._channel.send(job.message().encode()):
            self.kill()

    def withdraw(self) -> None:
        """Take back the last job; if it has not begun it, it answers `errors.Withdrawn`."""
        if self.state is State.BUSY and not self._channel.send(WITHDRAWAL.encode()):
            self.kill()

    def finish(self) -> None:
        """Let it end once it has done what it is doing."""
        if self.state is not State.ENDED:
            self.state = State.ENDING
            self._channel.finish()

    def kill(self) -> None:
        """End it now, whatever it is doing."""
        if self.state is State.ENDED:
            return
        self.state = State.ENDING
        try:
            self.transport.signalProcess("KILL")
        except ProcessExitedAlready:
            pass  # it was quicker; processEnded is on its way

    def said(self, data: bytes | memoryview) -> None:
        """Messages from the worker: ``ready`` first, then answers."""
        try:
            messages = self._decoder.feed(data)
        except WireError as error:
            self.log.error("worker {pid}: {error}", pid=self.transport.pid, error=error)
            self.kill()
            return
        for message in messages:
            if "ready" in message.head:
                if self.state is State.STARTING:
                    self.state, self.was_ready = State.IDLE, True
                    self._owner.ready(self)
            elif self._sent:
                self._answered(message)
            else:
                self.log.error("worker {pid}: an answer to nothing", pid=self.pid)
                self.kill()

    def _answered(self, message: Message) -> None:
        answer = read_answer(message)
        self._sent -= 1
        self._complained = 0
        if not isinstance(answer, Withdrawn):
            self.jobs += 1
            said = message.head.get("resident")
            self.resident = said if isinstance(said, int) else 0
        if self.state is State.BUSY and not self._sent:
            self.state = State.IDLE
        self._owner.answered(self, answer)

    def errReceived(self, data: bytes) -> None:
        """What it has to complain about goes to the log, up to a limit for each job."""
        room = _MAX_LOGGED - self._complained
        self._complained += len(data)
        if room <= 0:
            return
        lines, end, self._line = (self._line + data[:room]).rpartition(b"\n")
        if len(data) > room:
            kept = (lines + end + self._line).rstrip()
            self._complain(kept + b" ... (what follows is not logged)")
            self._line = b""
        elif end:
            self._complain(lines)

    def _complain(self, lines: bytes) -> None:
        text = lines.decode("utf-8", "backslashreplace").rstrip()
        self.log.warn("worker {pid}: {text}", pid=self.pid, text=text)

    def processEnded(self, reason: Failure) -> None:
        """The process is gone; what it has said before it died counts."""
        self.state = State.ENDING
        self._channel.drain()
        if self._line:
            self._complain(self._line)
        self.state = State.ENDED
        self._owner.ended(self)

    def __repr__(self) -> str:
        return f"<WorkerProcess {self.state.value} jobs={self.jobs}>"


def command(limits: Limits) -> Sequence[str]:
    """The worker's command line. ``-P``: the current directory is nobody's to put modules in."""
    return [sys.executable, "-P", "-m", "imagefarm.image.worker", limits.to_argument()]


#: What glibc's allocator is told (mallopt(3)): two arenas instead of eight a core, and memory that
#: a picture has left stays for the next one, up to 64 MiB. Giving it back each time means that
#: each page of the next picture is a fault, which costs a quarter of the time of a thumbnail.
_MALLOC = {
    "MALLOC_ARENA_MAX": "2",
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(64 << 20),
}


def environment() -> dict[str, str]:
    """Ours, with settings for the allocator, and the place we were loaded from."""
    package = os.path.dirname(os.path.dirname(os.path.abspath(imagefarm.__file__)))
    paths = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, **_MALLOC, "PYTHONPATH": os.pathsep.join(paths)}
