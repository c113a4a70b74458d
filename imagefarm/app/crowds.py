"""``max_conns`` of groups with ``zone``: the connections of all workers count.

Each server that has a limit gets a column of the workers' tally, under its name on the board. A
worker writes there how many requests it has at the server, before it looks at the sum: so the
limit is never exceeded, whoever else takes a place in the same moment.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from attrs import frozen
from twisted.logger import Logger

from imagefarm.process.board import BoardFull
from imagefarm.process.tally import MAX_COLUMNS, Tally
from imagefarm.proxy.group import Group

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
                if not peer.max_conns or peer.crowd is not None:
                    continue
                number = columns.get(_entry(name, key))
                if number is not None:
                    peer.join(Column(tally, number))
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
                        if peer.max_conns and len(columns) < MAX_COLUMNS:
                            columns.setdefault(_entry(name, key), len(columns))
                if len(columns) == MAX_COLUMNS:
                    _log.warn("more servers with max_conns than are counted for all workers")
        except (BoardFull, OSError) as error:
            _log.error("max_conns holds for each worker by itself: {e}", e=error)

    def __repr__(self) -> str:
        return f"<Crowds {sorted(self._groups)}>"


def _entry(group: str, key: str) -> str:
    return f"{group} {key}"
