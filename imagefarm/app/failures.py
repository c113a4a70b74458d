"""What one worker finds out about the servers of a group with ``zone``, for the others.

A server that failures have put out (``max_fails``) is written on the board with the time of the
last one; the other workers leave it alone for as long as the one that found out does. Each counts
for itself until then, and each tries the server again by itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Final

from twisted.logger import Logger

from imagefarm.process.board import BoardFull
from imagefarm.proxy.group import Group
from imagefarm.proxy.peer import Peer

from .servers import keyed
from .shared import Shared

_SECTION: Final = "failed"

_log: Final = Logger(namespace="imagefarm.upstream")


class Failures:
    """The groups that share them. ``reactor`` gives seconds that are the same in all workers."""

    def __init__(self, reactor: Any, shared: Shared, groups: Mapping[str, Group]) -> None:
        self._reactor = reactor
        self._shared = shared
        self._groups = {name: group for name, group in groups.items() if group.zone}
        #: When a peer was put out last, as far as that has had its effect here.
        self._known: dict[tuple[str, str], float] = {}
        self._new: dict[tuple[str, str], float] = {}
        self._writing: Any = None

    def start(self) -> None:
        """Tell what happens here, and follow what the others tell."""
        for name, group in self._groups.items():
            group.on_out.append(partial(self._put_out, name, group))
        if self._groups:
            self._shared.on_change(self._read)

    def stop(self) -> None:
        """Tell no more."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.cancel()

    def _put_out(self, name: str, group: Group, peer: Peer) -> None:
        if not self._shared.several:
            return
        key = next((key for key, known in keyed(group.peers) if known is peer), None)
        if key is None:
            return  # it has gone
        self._new[name, key] = self._known[name, key] = peer.checked
        if self._writing is None:
            # Servers fail together: one look at the board is enough for all of them.
            self._writing = self._reactor.callLater(0, self._write)

    def _write(self) -> None:
        self._writing = None
        new, self._new = self._new, {}
        try:
            with self._shared.edit() as document:
                failed = document.setdefault(_SECTION, {})
                for (name, key), at in new.items():
                    section = failed.setdefault(name, {})
                    section[key] = max(at, section.get(key, at))
                for name, group in self._groups.items():
                    self._forget(failed.get(name, {}), group)
        except (BoardFull, OSError) as error:
            _log.error("failed servers could not be told to the other workers: {e}", e=error)

    def _forget(self, section: dict[str, float], group: Group) -> None:
        """Drop what is of no use to anybody any more."""
        peers, now = dict(keyed(group.peers)), self._reactor.seconds()
        for key, at in list(section.items()):
            if key not in peers or now > at + peers[key].fail_timeout:
                del section[key]

    def _read(self, document: Mapping[str, Any]) -> None:
        now = self._reactor.seconds()
        for name, section in document.get(_SECTION, {}).items():
            group = self._groups.get(name)
            if group is None or not section:
                continue
            for key, peer in keyed(group.peers):
                at = section.get(key)
                # Once: an operator or a check may have forgotten the failure since.
                if at is not None and at > self._known.get((name, key), 0.0):
                    self._known[name, key] = at
                    peer.failed_elsewhere(at, now)

    def __repr__(self) -> str:
        return f"<Failures {sorted(self._groups)}>"
