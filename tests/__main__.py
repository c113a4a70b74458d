"""``python -m tests``: all tests, by two trials side by side.

Half of the tests that start daemons is waiting, and each trial computes on one core only. What a
module says is written whole when the module is done, then what has failed, and at the very end
one line for all, in trial's words.
"""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

HERE = Path(__file__).parent
#: Trials at a time.
PARTS = 2

_COUNTS = re.compile(r"(?:PASSED|FAILED) \((.*)\)")


def _parts() -> list[list[str]]:
    """The modules, dealt out in turn: each trial gets some of all kinds, and takes as long."""
    paths = sorted(HERE.rglob("test_*.py"))
    names = [".".join(path.relative_to(HERE.parent).with_suffix("").parts) for path in paths]
    return [names[number::PARTS] for number in range(PARTS)]


class Part:
    """One trial, and what it says."""

    def __init__(self, names: list[str], turn: threading.Lock) -> None:
        self.counts: Counter[str] = Counter()
        self._turn = turn
        command = [sys.executable, "-u", "-m", "twisted.trial", *names]
        self.process = subprocess.Popen(
            command, cwd=HERE.parent, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        lines: list[str] = []
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("tests."):  # a module begins
                self._write(lines)
            lines.append(line)
            found = _COUNTS.match(line)
            if found:
                pairs = (pair.split("=") for pair in found[1].split(", "))
                self.counts = Counter({name: int(value) for name, value in pairs})
        self._write(lines)

    def _write(self, lines: list[str]) -> None:
        with self._turn:
            sys.stdout.write("".join(lines))
            sys.stdout.flush()
        lines.clear()

    def wait(self) -> int:
        """Its exit status."""
        self._thread.join()
        return self.process.wait()


def main() -> int:
    """The exit status."""
    turn = threading.Lock()
    parts = [Part(names, turn) for names in _parts()]
    try:
        statuses = [part.wait() for part in parts]
    finally:
        for part in parts:
            if part.process.poll() is None:
                part.process.terminate()
    counts: Counter[str] = sum((part.counts for part in parts), Counter())
    told = ", ".join(f"{name}={number}" for name, number in sorted(counts.items()))
    sys.stdout.write(f"\n{'FAILED' if any(statuses) else 'PASSED'} ({told})\n")
    return int(any(statuses))


if __name__ == "__main__":
    sys.exit(main())
