"""What the workers of a role know together, behind `process.board.Board`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from imagefarm.process.board import Board
from imagefarm.process.tally import Tally

#: How often a worker looks at the board, in seconds: so long it takes until a change that one
#: worker was told of holds in all.
POLL: Final = 0.1


class BoardClosed(OSError):
    """We are not at work, or not any more."""


Reader = Callable[[Mapping[str, Any]], None]


class Shared:
    """A board, looked at now and then while there are other workers that write on it."""

    def __init__(self, reactor: Any) -> None:
        #: Whether there are other workers.
        self.several = False
        self._reactor = reactor
        self._board: Board | None = None
        self._seen = 0
        self._readers: list[Reader] = []
        self._leaders: list[Callable[[], None]] = []
        self._leading = False
        self._poll: Any = None
        #: Where the workers count together; None where there are no others.
        self.tally: Tally | None = None

    def on_change(self, reader: Reader) -> None:
        """Call ``reader`` with what stands on the board, now and after each change."""
        self._readers.append(reader)

    def on_lead(self, function: Callable[[], None]) -> None:
        """Call ``function`` once, when this process is the one that works for all."""
        self._leaders.append(function)

    def start(self, board: Board | None) -> None:
        """Look at ``board``, the workers', and go on looking until `stop`; None: we are alone."""
        self.several = board is not None
        self._board = board or Board.make()
        if board is not None:
            self.tally = board.tally()
            self.tally.claim()
        self._look(self._board)

    def stop(self) -> None:
        """Look no more, and leave the lead to another worker."""
        poll, self._poll = self._poll, None
        if poll is not None:
            poll.cancel()
        tally, self.tally = self.tally, None
        if tally is not None:
            tally.leave()
        board, self._board = self._board, None
        if board is not None:
            board.close()

    def refresh(self) -> None:
        """See now what other workers have written."""
        if self._board is not None:
            self._refresh(self._board)

    def read(self) -> Mapping[str, Any]:
        """What stands on the board; nothing before `start` and after `stop`."""
        return {} if self._board is None else self._board.read()[1]

    @contextlib.contextmanager
    def edit(self) -> Iterator[dict[str, Any]]:
        """Change what stands there; our own readers learn of it before this returns."""
        if self._board is None:
            raise BoardClosed("the workers' board is closed")
        with self._board.edit() as document:
            yield document
        self._refresh(self._board)

    def _look(self, board: Board) -> None:
        if self.several:
            self._poll = self._reactor.callLater(POLL, self._look, board)
        if self.tally is not None:
            self.tally.sweep()
        takes_over = not self._leading and board.lead()
        self._refresh(board)  # whoever takes over goes on from the last that was written
        if takes_over:
            self._leading = True
            for function in self._leaders:
                function()

    def _refresh(self, board: Board) -> None:
        if board.version == self._seen:
            return
        self._seen, document = board.read()
        for reader in self._readers:
            reader(document)
