"""The servers of upstreams as operators change them at run time (`resources.api.Upstreams`).

What was changed stands on the workers' board, by upstream and by server, and every worker makes
its groups be like that: a worker that starts later finds it there too. A server is called by its
address; where an address is there twice, the second is ``address#2``. Its number, which the API
goes by, is given once and stays.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from twisted.logger import Logger

from imagefarm.config.errors import Invalid
from imagefarm.process.board import BoardFull
from imagefarm.proxy.addresses import literal, parse_authority, resolve
from imagefarm.proxy.group import Group
from imagefarm.proxy.peer import Address, Peer
from imagefarm.proxy.statefile import save
from imagefarm.resources.api import ApiError, Server

from .shared import Shared

_log: Final = Logger(namespace="imagefarm.upstream")

_SECTION: Final = "servers"
#: Settings of `Peer.set_limits`.
LIMITS: Final = ("max_conns", "max_fails", "fail_timeout", "slow_start")


def keyed(peers: Iterable[Peer]) -> Iterator[tuple[str, Peer]]:
    """The peers with what they are called on the board."""
    seen: dict[str, int] = {}
    for peer in peers:
        name = peer.name.decode("utf-8", "replace")
        count = seen[name] = seen.get(name, 0) + 1
        yield (name if count == 1 else f"{name}#{count}"), peer


class Servers:
    """The named groups under control. ``report`` makes a group's part of the status."""

    def __init__(
        self,
        reactor: Any,
        shared: Shared,
        groups: Mapping[str, Group],
        report: Callable[[str, Mapping[str, int]], Mapping[str, Any]],
    ) -> None:
        self._reactor = reactor
        self._shared = shared
        self._groups = groups
        self._report = report
        #: Which servers of a group were there because of the board, when it was last read.
        self._added: dict[Group, set[str]] = {}

    def start(self) -> None:
        """Follow the board, before anybody else does who needs to know the servers."""
        self._shared.on_change(self._read)
        for group in self._groups.values():
            group.on_replace.append(self._again)

    # -- resources.api.Upstreams -----------------------------------------------------------------

    def names(self) -> Sequence[str]:
        """The groups' names."""
        return tuple(self._groups)

    def report(self, name: str) -> Mapping[str, Any]:
        """A group's state and counters."""
        self._group(name)
        return self._report(name, self.numbers(name))

    def servers(self, name: str) -> Sequence[Server]:
        """The settings of a group's servers."""
        numbers = self.numbers(name)
        return [_settings(peer, numbers[key]) for key, peer in keyed(self._group(name).peers)]

    def change(self, name: str, number: int, changes: Mapping[str, Any]) -> Server:
        """Change a server; its settings afterwards."""
        key = self._find(name, number)
        peer = dict(keyed(self._group(name).peers))[key]
        changes = {"down": peer.down, "drain": peer.draining, **changes}
        if changes["down"] and changes["drain"]:  # the one that was asked for now
            changes["drain" if peer.draining else "down"] = False
        with self._edit(name) as section:
            section["settings"].setdefault(key, {}).update(changes)
        self._keep(name)
        return self._settings_of(name, number)

    def add(self, name: str, settings: Mapping[str, Any]) -> Server:
        """Add a server; its settings."""
        group = self._group(name)
        address = _address(settings["server"])
        key = address.name.decode("utf-8", "replace")
        if any(known == key for known, _ in keyed(group.peers)):
            raise ApiError(400, "UpstreamBadAddress", f'"{key}" is there already')
        self.numbers(name)
        with self._edit(name) as section:
            number: int = section["next"]
            section["next"] += 1
            section["ids"][key] = number
            section["settings"].pop(key, None)
            if key in section["removed"]:
                section["removed"].remove(key)
            section["added"][key] = dict(settings)
        self._keep(name)
        return self._settings_of(name, number)

    def remove(self, name: str, number: int) -> Sequence[Server]:
        """Take a server out; the settings of those that remain."""
        key = self._find(name, number)
        peers = dict(keyed(self._group(name).peers))
        if not any(not peer.backup for other, peer in peers.items() if other != key):
            raise ApiError(400, "UpstreamServerImmutable", "the last server cannot be removed")
        with self._edit(name) as section:
            section["ids"].pop(key, None)
            section["settings"].pop(key, None)
            if section["added"].pop(key, None) is None:
                section["removed"].append(key)
        self._keep(name)
        return self.servers(name)

    def numbers(self, name: str) -> Mapping[str, int]:
        """The numbers of a group's servers; new servers get theirs here."""
        keys = [key for key, _ in keyed(self._group(name).peers)]
        known = self._shared.read().get(_SECTION, {}).get(name, {}).get("ids", {})
        if all(key in known for key in keys):
            return {key: known[key] for key in keys}
        with self._edit(name) as section:
            for key in keys:
                if key not in section["ids"]:
                    section["ids"][key] = section["next"]
                    section["next"] += 1
            return {key: section["ids"][key] for key in keys}

    # -- the board -------------------------------------------------------------------------------

    def _group(self, name: str) -> Group:
        self._shared.refresh()
        group = self._groups.get(name)
        if group is None:
            raise ApiError(404, "UpstreamNotFound", "upstream not found")
        return group

    def _find(self, name: str, number: int) -> str:
        for key, known in self.numbers(name).items():
            if known == number:
                return key
        raise _no_server(number)

    def _settings_of(self, name: str, number: int) -> Server:
        for server in self.servers(name):
            if server["id"] == number:
                return server
        raise _no_server(number)

    @contextlib.contextmanager
    def _edit(self, name: str) -> Iterator[dict[str, Any]]:
        """The group's part of the board, to be changed. Raises `ApiError`."""
        self._group(name)
        try:
            with self._shared.edit() as document:
                section = document.setdefault(_SECTION, {}).setdefault(name, {})
                for part in ("ids", "settings", "added"):
                    section.setdefault(part, {})
                section.setdefault("next", 0)
                section.setdefault("removed", [])
                yield section
        except (BoardFull, OSError) as error:
            text = f"the change cannot be kept: {error}"
            raise ApiError(503, "UpstreamOutOfMemory", text) from error

    def _keep(self, name: str) -> None:
        """Write the group's ``state``. Who writes holds the board, so that the last one knows all.

        A change holds, even if it can't be kept.
        """
        group = self._groups[name]
        if group.state is None:
            return
        try:
            with self._shared.edit() as document:
                self._read(document)
                save(group.state, group.peers)
        except (BoardFull, OSError) as error:
            _log.error(
                'state file "{path}" of upstream "{name}" could not be written: {e}',
                path=group.state, name=name, e=error,
            )  # fmt: skip

    def _read(self, document: Mapping[str, Any]) -> None:
        for name, section in document.get(_SECTION, {}).items():
            group = self._groups.get(name)
            if group is not None:
                self._gather(group, section["added"], section["removed"])
                for key, peer in keyed(group.peers):
                    if key in section["settings"]:
                        self._apply(peer, section["settings"][key])

    def _again(self) -> None:
        """Names have given a group other servers: what was changed by hand holds still."""
        self._read(self._shared.read())

    def _gather(
        self, group: Group, added: Mapping[str, Mapping[str, Any]], removed: Sequence[str]
    ) -> None:
        """Make the group have the servers that it should."""
        present = dict(keyed(group.peers))
        ours = self._added.setdefault(group, set())
        gone = {key for key in present if key in removed or (key in ours and key not in added)}
        new = {key: settings for key, settings in added.items() if key not in present}
        if gone or new:
            kept = [peer for key, peer in present.items() if key not in gone]
            group.replace([*kept, *map(_peer, new.values())])
        ours.clear()
        ours.update(added)

    def _apply(self, peer: Peer, wanted: Mapping[str, Any]) -> None:
        """Make ``peer`` be as its settings say."""
        now = self._reactor.seconds()
        if wanted.get("weight", peer.weight) != peer.weight:
            peer.set_weight(wanted["weight"])
        peer.set_limits(now, **{name: wanted[name] for name in LIMITS if name in wanted})
        if wanted["down"]:
            if not peer.down:
                peer.set_down()
        elif wanted["drain"]:
            if not peer.draining:
                peer.drain()
        elif peer.down or peer.draining:
            peer.set_up(now)

    def __repr__(self) -> str:
        return f"<Servers {sorted(self._groups)}>"


def _no_server(number: int) -> ApiError:
    text = f'server with id "{number}" does not exist'
    return ApiError(404, "UpstreamServerNotFound", text)


def _address(text: str) -> Address:
    """Where a new server is. Names are refused: resolving them would hold all requests up."""
    try:
        authority = parse_authority(text)
        if not authority.path and literal(authority.host) is None:
            raise ApiError(
                400, "UpstreamConfNoResolver", f"no resolver defined to resolve {authority.host}"
            )
        (address,) = resolve(authority, 80, text)
    except Invalid as error:
        raise ApiError(400, "UpstreamBadAddress", str(error)) from None
    return address


def _peer(settings: Mapping[str, Any]) -> Peer:
    """A server that was added."""
    known = {name: settings[name] for name in ("weight", "backup", *LIMITS) if name in settings}
    peer = Peer(_address(settings["server"]), **known, server=settings["server"].encode())
    peer.down = settings.get("down", False)
    peer.draining = settings.get("drain", False)
    return peer


def _settings(peer: Peer, number: int) -> Server:
    """What the API shows of a server."""
    return {
        "id": number,
        "server": peer.name.decode("utf-8", "replace"),
        "weight": peer.weight,
        "max_conns": peer.max_conns,
        "max_fails": peer.max_fails,
        "fail_timeout": _time(peer.fail_timeout),
        "slow_start": _time(peer.slow_start),
        "route": "",
        "backup": peer.backup,
        "down": peer.down,
        "drain": peer.draining,
    }


def _time(seconds: float) -> str:
    return f"{seconds:g}s" if seconds == int(seconds) else f"{round(seconds * 1000)}ms"
