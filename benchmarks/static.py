"""Static files: a slave of ours against nginx, the farm's own slave configuration, one worker.

.venv/bin/python -m benchmarks.static [--pairs N] [--seconds N] [CASE ...]
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks.pairs import Load, Reading, alternate, wrk
from tests.support import farmsite
from tests.support.processes import Daemon, imagefarm
from tests.support.tools import nginx

#: Case -> (path, what is changed in the farm's configuration for it).
CASES: dict[str, tuple[str, tuple[tuple[str, str], ...]]] = {
    "10 KB, the farm's configuration": ("/a.jpg", ()),
    "10 KB, kept-alive connections": (
        "/a.jpg",
        (("keepalive_requests 5;", "keepalive_requests 100000;"),),
    ),
    "404": ("/missing.jpg", (("keepalive_requests 5;", "keepalive_requests 100000;"),)),
    "1.5 MB": ("/big.jpg", (("keepalive_requests 5;", "keepalive_requests 100000;"),)),
}


class Contest:
    """nginx and a slave of ours on the same directory, each on its own port."""

    def __init__(self, directory: Path, changes: tuple[tuple[str, str], ...]) -> None:
        self.site = farmsite.FarmSite(directory, farmsite.Ports.free())
        for config in self.site.slaves:
            text = config.read_text()
            for old, new in (*changes, ("worker_processes  8;", "worker_processes  1;")):
                assert old in text, old
                text = text.replace(old, new)
            config.write_text(text)
        theirs, ours = self.site.slaves
        ports = self.site.ports
        self.daemons: list[Daemon] = [
            farmsite.nginx(nginx(), directory, theirs, [ports.slave1]),
            imagefarm("slave", directory, "--config", str(ours), ports=[ports.slave2]),
        ]
        for daemon in self.daemons:
            daemon.started()

    def run(self, path: str, load: Load) -> tuple[Callable[[], Reading], Callable[[], Reading]]:
        """What to alternate."""
        ports = self.site.ports
        theirs, ours = (f"http://127.0.0.1:{port}{path}" for port in (ports.slave1, ports.slave2))
        return (lambda: wrk(theirs, load)), (lambda: wrk(ours, load))

    def stop(self) -> None:
        """End both."""
        for daemon in self.daemons:
            daemon.stop()


def main() -> None:
    """Print a line a case."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="*", metavar="CASE")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3)
    options = parser.parse_args()
    print(f"{'requests per second':<46} {'nginx':>9} {'imagefarm':>9}")
    for name, (path, changes) in CASES.items():
        if options.cases and not any(word in name for word in options.cases):
            continue
        directory = Path(tempfile.mkdtemp(prefix="bench-"))
        directory.chmod(0o755)
        contest = Contest(directory, changes)
        try:
            result = alternate(*contest.run(path, Load(seconds=options.seconds)), options.pairs)
            print(result.line(name), flush=True)
        finally:
            contest.stop()
            shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
