"""``max_conns`` and ``max_fails`` of groups with ``zone``: what all workers have counts.

Each server that has a limit gets columns of the workers' tally, under its name on the board. A
worker writes there how many requests it has at the server, before it looks at the sum: so the
limit is never exceeded, whoever else takes a place in the same moment. Failures are written with
their time, since nobody tells when they are forgotten; one is not enough to put the server out
(else there is nothing to count, and `failures` tells the others).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from attrs import frozen
from twisted.logger import Logger

from imagefarm.process.board import BoardFull
from imagefarm.process.tally import MAX_COLUMNS, Tally
from imagefarm.proxy.group import Group
from imagefarm.proxy.peer import Peer

from .servers import keyed
from .shared import Shared

_SECTION: Final = "columns"

_log: Final = Logger(namespace="imagefarm.upstream")


@frozen(eq=False)
class Column:
    """A `proxy.peer.Crowd`."""

    tally: Tally
    number: int

    def mine(self, conns: int) -> None:
        """`Crowd`."""
        self.tally.write(self.number, conns)

    def all(self) -> int:
        """`Crowd`."""
        return self.tally.sum(self.number)


@frozen(eq=False)
class Failed:
    """A `proxy.peer.Rumour`: the columns of failures, and of the second of the last one."""

    tally: Tally
    count: int
    when: int

    def failed(self, now: float, window: float, *, first: bool) -> int:
        """`Rumour`."""
        tally, second = self.tally, int(now)
        tally.write(self.count, 1 if first else tally.own(self.count) + 1)
        tally.write(self.when, second)
        counts = zip(tally.column(self.count), tally.column(self.when), strict=True)
        return sum(count for count, when in counts if second - when <= window)


class Crowds:
    """The groups whose workers count together."""

    def __init__(self, reactor: Any, shared: Shared, groups: Mapping[str, Group]) -> None:
        self._reactor = reactor
        self._shared = shared
        self._groups = {name: group for name, group in groups.items() if group.zone}
        self._assigning: Any = None

    def start(self) -> None:
        """Follow the board, after those that add servers to the groups."""
        if self._groups:
            self._shared.on_change(self._read)
            for group in self._groups.values():
                group.on_replace.append(self._again)

    def stop(self) -> None:
        """Give no more columns."""
        assigning, self._assigning = self._assigning, None
        if assigning is not None:
            assigning.cancel()

    def _again(self) -> None:
        self._read(self._shared.read())

    def _read(self, document: Mapping[str, Any]) -> None:
        tally = self._shared.tally
        if tally is None:
            return
        columns = document.get(_SECTION, {})
        for name, group in self._groups.items():
            for key, peer in keyed(group.peers):
                wanted = _wanted(f"{name} {key}", peer)
                numbers = [columns[entry] for entry in wanted if entry in columns]
                if len(numbers) == len(wanted):
                    _join(peer, tally, *numbers)
                elif self._assigning is None and len(columns) < MAX_COLUMNS:
                    self._assigning = self._reactor.callLater(0, self._assign)

    def _assign(self) -> None:
        """Give a column to each server that should have one."""
        self._assigning = None
        try:
            with self._shared.edit() as document:
                columns = document.setdefault(_SECTION, {})
                for name, group in self._groups.items():
                    for key, peer in keyed(group.peers):
                        for entry in _wanted(f"{name} {key}", peer):
                            if len(columns) < MAX_COLUMNS:
                                columns.setdefault(entry, len(columns))
                if len(columns) == MAX_COLUMNS:
                    _log.warn("more servers with max_conns or max_fails than all workers count")
        except (BoardFull, OSError) as error:
            _log.error("max_conns and max_fails hold for each worker by itself: {e}", e=error)

    def __repr__(self) -> str:
        return f"<Crowds {sorted(self._groups)}>"


def _wanted(name: str, peer: Peer) -> list[str]:
    """The columns that ``peer`` should have and has not."""
    wanted = [f"{name} conns"] if peer.max_conns and peer.crowd is None else []
    if peer.max_fails > 1 and peer.rumour is None:
        wanted += [f"{name} fails", f"{name} when"]
    return wanted


def _join(peer: Peer, tally: Tally, *numbers: int) -> None:
    """Let it have the columns that it wanted."""
    if len(numbers) % 2:
        peer.join(Column(tally, numbers[0]))
    if len(numbers) > 1:
        peer.rumour = Failed(tally, *numbers[-2:])
