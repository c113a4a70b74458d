"""Processes that help a case: a writer, a checker, clients that wrk can't be."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any

#: A new interpreter inherits no descriptors: when the benchmark ends in whatever way, the pipe
#: does, and with it the helper.
_SPAWN = multiprocessing.get_context("spawn")


def _serve(pipe: Connection, target: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        target(pipe, *arguments)
    except EOFError:
        return
    except ConnectionError:
        if not pipe.poll(0):  # the pipe is well: it was a server's connection
            raise


class Helper:
    """``target(pipe, *arguments)`` in a process of its own; it ends when the pipe is closed."""

    def __init__(self, target: Callable[..., None], *arguments: Any) -> None:
        self._pipe, theirs = _SPAWN.Pipe()
        self._process = _SPAWN.Process(
            target=_serve, args=(theirs, target, arguments), daemon=True
        )
        self._process.start()
        theirs.close()

    def send(self, question: Any) -> None:
        """Give it something to do."""
        self._pipe.send(question)

    def receive(self) -> Any:
        """Wait for what it found. Raises EOFError if it died."""
        return self._pipe.recv()

    def ask(self, question: Any) -> Any:
        """Both."""
        self.send(question)
        return self.receive()

    def __enter__(self) -> Helper:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._pipe.close()
        self._process.join(5)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
