"""Another worker that inherits the board, for tests of what workers share."""

from __future__ import annotations

import os
import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase

from imagefarm.process.board import INHERITED, Board


def start(test: SynchronousTestCase, board: Board, code: str) -> tuple[subprocess.Popen[str], str]:
    """A process that runs ``code``, ended with the test, and the first line that it says."""
    fd = board.fileno()
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        pass_fds=[fd],
        env={**os.environ, INHERITED: str(fd)},
        text=True,
    )
    assert process.stdin is not None and process.stdout is not None
    for clean in (process.wait, process.kill, process.stdout.close, process.stdin.close):
        test.addCleanup(clean)
    return process, process.stdout.readline().strip()
