"""What the tests of a module share, such as a master before two slaves: made by the first test
that wants it, ended with the module's last test.

So a module finds no process and no thread of another one, and leaves none.
"""

from __future__ import annotations

import atexit
import functools
import os
import threading
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, Concatenate, ParamSpec, TypeVar

from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from .processes import descendants, wait_until

#: How long processes and threads may need to end, in seconds, when they have been told to.
END_SECONDS = 30.0

P = ParamSpec("P")
T = TypeVar("T")
#: Has something called at the end, last one first: like `addCleanup` of a test.
Cleanup = Callable[..., object]


class _Module:
    """The tests of a module that wait or run, and what they have made."""

    #: The one whose test runs.
    current: _Module | None = None

    def __init__(self) -> None:
        self.tests = 0
        self.made: dict[Any, Any] = {}
        self.stack = ExitStack()
        self._threads: frozenset[threading.Thread] = frozenset()

    def begin(self) -> None:
        """A test begins."""
        if _Module.current is not self:
            _Module.current = self
            self._threads = frozenset(threading.enumerate())
            atexit.register(self.stack.close)

    def finish(self) -> None:
        """A test has ended. Raises AssertionError if it was the last and something is left."""
        self.tests -= 1
        if self.tests > 0:
            return
        _Module.current = None
        self.made.clear()
        atexit.unregister(self.stack.close)
        self.stack.close()
        wait_until(lambda: not descendants(os.getpid()), END_SECONDS, "end of all processes")
        wait_until(lambda: not self._left(), END_SECONDS, "end of all threads")

    def _left(self) -> list[threading.Thread]:
        """Threads of this module; those of the reactor's pool are nobody's."""
        return [
            thread
            for thread in threading.enumerate()
            if thread not in self._threads and not thread.name.startswith("PoolThread-")
        ]


_modules: dict[str, _Module] = {}


class StagedCase(SynchronousTestCase):
    """A case of a module that may have something to share, and must leave nothing behind."""

    def __init__(self, methodName: str = "runTest") -> None:
        super().__init__(methodName)
        self._module = _modules.setdefault(type(self).__module__, _Module())
        self._module.tests += 1

    def run(self, result: Any = None) -> None:
        self._module.begin()
        try:
            super().run(result)
        finally:
            try:
                self._module.finish()
            except Exception:
                result.addError(self, Failure())


def shared(make: Callable[Concatenate[Cleanup, P], T]) -> Callable[P, T]:
    """Let ``make(cleanup, ...)`` be called once for a module's tests and the same arguments."""

    @functools.wraps(make)
    def get(*arguments: P.args, **named: P.kwargs) -> T:
        module = _Module.current
        assert module is not None, "only tests of a StagedCase share"
        key = make, arguments, tuple(sorted(named.items()))
        if key not in module.made:
            module.made[key] = make(module.stack.callback, *arguments, **named)
        made: T = module.made[key]
        return made

    return get
