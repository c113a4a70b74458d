"""The work of ``twistd imagefarm farm``: its members, and a hint of what to try."""

from __future__ import annotations

import itertools
import os
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from attrs import evolve
from twisted.internet.defer import Deferred

from imagefarm.config.errors import ConfigurationError, Problem
from imagefarm.config.loader import Loaded
from imagefarm.config.table import Scope
from imagefarm.process.farm import Member, child_specs
from imagefarm.process.privileges import Belongings
from imagefarm.process.supervisor import Supervisor
from imagefarm.resources import directives as rows
from imagefarm.resources.dashboard import DASHBOARD

from .configuration import Options, read
from .ending import give_up, stop_gently, stop_now
from .logs import notice

#: How long a member may take to finish what it does.
FINISH_SECONDS: Final = 60.0

#: Files looked at for one to show: the root may hold millions.
MAX_LOOKED_AT: Final = 1000

#: What is worth a look on a farm of our own samples, and what it shows.
_TRIES: Final = (
    ("{base}/", "the samples on a page"),
    ("{base}{image}", "a static image, by way of the slaves"),
    ("{stillshots}/thumbnail/{stillshot}", "a stillshot, served by the master"),
    ("{base}/resize?src={image}&w=320", "a thumbnail; the second time from the cache"),
    ("{dashboard}", "the dashboard"),
)

#: The virtual host of the stillshots. Names under localhost are this machine (RFC 6761, 6.3).
_STILLSHOTS: Final = (b"stillshot-origin.*", "stillshot-origin.localhost")


class FarmWork:
    """`Work` of the farm's process. Draws samples into an empty root first."""

    def __init__(self, reactor: Any, options: Options, members: Sequence[Member]) -> None:
        self._reactor = reactor
        self._options = options
        self._members = tuple(members)
        self._root = Path(options.root or os.path.join(options.prefix, "images"))
        specs = child_specs(
            self._members, options.prefix, os.environ, str(self._root), options.settings
        )
        self.supervisor = Supervisor(specs, reactor)

    def prepare(self) -> None:
        """Check the members' files, make the root, and samples in an empty one.

        Raises `ConfigurationError`, and OSError.
        """
        self._check()
        self._root.mkdir(parents=True, exist_ok=True)
        if not any(self._root.iterdir()):
            notice(f"{self._root} is empty, drawing sample images")
            # Pillow is for workers that make images: all other processes start without it.
            from imagefarm.image.samples import draw

            draw(self._root)

    def _check(self) -> None:
        """Read the members' configurations. Raises `ConfigurationError` with all their errors.

        Without it the members before a wrong one would be started, and in the background nobody
        would learn of it.
        """
        found: list[Problem] = []
        for member in self._members:
            try:
                found += read(self._options_of(member)).problems
            except ConfigurationError as error:
                found += error.problems
        if found:  # two slaves may share a file
            raise ConfigurationError(list(dict.fromkeys(found)))

    def start(self, sockets: Mapping[str, socket.socket]) -> None:
        """Start the members one after another."""
        self.supervisor.startService()
        self.supervisor.ready.addCallbacks(
            lambda _: self._announce(), lambda failure: give_up(self._reactor, failure)
        )

    def _announce(self) -> None:
        lines = ["", "The farm runs. Try:", ""]
        base, stillshots, dashboard = self._base_urls()
        image, stillshot = _an_image(self._root), _an_image(self._root / "thumbnail")
        for path, what in _TRIES:
            if ("{image}" in path and not image) or ("{stillshot}" in path and not stillshot):
                continue
            if "{dashboard}" in path and not dashboard:
                continue
            url = path.format(
                base=base, stillshots=stillshots, image=f"/{image}", stillshot=stillshot,
                dashboard=dashboard,
            )  # fmt: skip
            lines.append(f"  {url:<58}  {what}")
        lines += ["", "Ctrl-C stops it.", ""]
        sys.stdout.write("\n".join(lines) + "\n")
        sys.stdout.flush()

    def _options_of(self, member: Member) -> Options:
        return evolve(self._options, role=member.role, config=member.config, port=member.port)

    def _base_urls(self) -> tuple[str, str, str]:
        """Where the first master listens without TLS: by any name, for stillshots, and its
        dashboard.
        """
        for member in self._members:
            if member.role != "master":
                continue
            loaded = read(self._options_of(member))
            port = _plain_port(loaded)
            if port:
                name, host = _STILLSHOTS
                stillshots = host if name in _server_names(loaded) else "localhost"
                base = f"http://localhost:{port}"
                return base, f"http://{stillshots}:{port}", _dashboard(loaded)
        return "", "", ""

    def drain(self) -> Deferred[Any]:
        """QUIT: the members finish what they do."""
        stop_gently(self.supervisor, FINISH_SECONDS)
        return self.supervisor.stopService()

    def stop(self) -> Deferred[Any]:
        """TERM: in the reverse order of the start."""
        stop_now(self.supervisor)
        return self.supervisor.stopService()

    def reopen(self) -> None:
        """USR1 goes to everyone."""
        self.supervisor.signal("USR1")

    def hang_up(self) -> None:
        """HUP: each member reads its configuration anew; which members there are stays."""
        self.supervisor.signal("HUP")

    def belongings(self) -> Belongings:
        """Nothing but the error log: each member has its own."""
        return Belongings()


def _servers(loaded: Loaded) -> Iterator[Scope]:
    for block in loaded.root.blocks(rows.HTTP_BLOCK):
        yield from block.blocks(rows.SERVER_BLOCK)


def _plain_port(loaded: Loaded) -> int | None:
    for server in _servers(loaded):
        for listen in server.all(rows.LISTEN):
            if not listen.ssl and listen.address[1]:
                return listen.address[1]
    return None


def _server_names(loaded: Loaded) -> set[bytes]:
    lines = (line for server in _servers(loaded) for line in server.all(rows.SERVER_NAME))
    return {name.text for line in lines for name in line}


def _dashboard(loaded: Loaded) -> str:
    """The URL of a dashboard; empty without one."""
    for server in _servers(loaded):
        for location in server.blocks(rows.LOCATION_BLOCK):
            if location[DASHBOARD] is None:
                continue
            _, name, pattern = location.value
            for listen in server.all(rows.LISTEN):
                host, port = listen.address
                if not listen.ssl and port and pattern is None:
                    return f"http://{host or 'localhost'}:{port}{name.decode('utf-8', 'replace')}"
    return ""


def _an_image(directory: Path) -> str | None:
    """An image to show, relative to ``directory``: a large JPEG says most."""
    files = itertools.chain(directory.glob("*.[jJ][pP]*[gG]"), directory.glob("*/*.[jJ][pP]*[gG]"))
    try:
        found = list(itertools.islice(files, MAX_LOOKED_AT))
        largest = max(found, key=lambda path: path.stat().st_size, default=None)
    except OSError:
        return None
    return None if largest is None else largest.relative_to(directory).as_posix()
