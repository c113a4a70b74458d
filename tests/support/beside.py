"""Real nginx beside us, each with a configuration and a directory of its own."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from . import farmsite, tools
from .processes import Daemon, imagefarm
from .stages import Cleanup

#: A configuration, which is in the directory that is the server's prefix, and what it listens on.
Server = tuple[Path, Sequence[int]]


def directory(cleanup: Cleanup, name: str) -> Path:
    """A place for both, where nginx's workers get in, too. Skips the test without nginx."""
    tools.nginx()
    made = Path(tempfile.mkdtemp(prefix=f"{name}-"))
    cleanup(shutil.rmtree, made, ignore_errors=True)
    made.chmod(0o755)
    return made


def start(cleanup: Cleanup, theirs: Server, ours: Server, role: str = "master") -> None:
    """Start both and wait until they listen."""
    (config, ports), (our_config, our_ports) = theirs, ours
    words = ["--config", str(our_config)]
    daemons: list[Daemon] = [
        farmsite.nginx(tools.nginx(), config.parent, config, list(ports)),
        imagefarm(role, our_config.parent, *words, ports=our_ports),
    ]
    for daemon in daemons:
        cleanup(daemon.stop)
    for daemon in daemons:
        daemon.started()
