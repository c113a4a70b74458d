"""Running wrk against two servers in turns, and reading what it says."""

from __future__ import annotations

import re
import statistics
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support.tools import tool

SCRIPTS = Path(__file__).parent / "lua"


@dataclass(frozen=True)
class Load:
    """How hard wrk tries: connections, threads, seconds; a script from ``lua/`` and its words."""

    connections: int = 32
    threads: int = 1
    seconds: int = 3
    script: str = ""
    words: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Reading:
    """One run.

    Requests (or handshakes) answered and the seconds that took, bytes per second, latencies in
    milliseconds, failed requests; CPU seconds (user and system) of each of the server's
    processes meanwhile, and of all that is neither the server nor the client.
    """

    requests: int
    seconds: float
    throughput: float = 0.0
    p50: float = 0.0
    p99: float = 0.0
    errors: int = 0
    cpu: tuple[float, ...] = ()
    others: float = 0.0

    @property
    def rate(self) -> float:
        """Requests per second."""
        return self.requests / self.seconds

    @property
    def cost(self) -> float:
        """The server's CPU time per request, in microseconds."""
        return sum(self.cpu) / self.requests * 1e6

    @property
    def busy(self) -> float:
        """CPU seconds of the server per second: 1 is one core used up."""
        return sum(self.cpu) / self.seconds

    @property
    def spread(self) -> float:
        """How many processes the work is spread over: 2 if two did the same, 1 if one did all."""
        return sum(self.cpu) / max(self.cpu)


_UNITS = {"us": 0.001, "ms": 1.0, "s": 1000.0, "m": 60000.0}
_SIZES = {"B": 1.0, "KB": 1024.0, "MB": 1024.0**2, "GB": 1024.0**3}


def _latency(output: str, percentile: str) -> float:
    match = re.search(rf"\s{percentile}%\s+([\d.]+)(us|ms|s|m)", output)
    return float(match[1]) * _UNITS[match[2]] if match else 0.0


def wrk(url: str, load: Load) -> Reading:
    """Run wrk once. Raises AssertionError where not a single request was answered."""
    command = [
        tool("wrk"), "-t", str(load.threads), "-c", str(load.connections),
        "-d", f"{load.seconds}s", "--latency",
    ]  # fmt: skip
    for header in load.headers:
        command += ["-H", header]
    if load.script:
        command += ["-s", str(SCRIPTS / load.script)]
    command += [url, *(("--", *load.words) if load.words else ())]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    total = re.search(r"(\d+) requests in ", output)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", output)
    volume = re.search(r"Transfer/sec:\s+([\d.]+)(GB|MB|KB|B)", output)
    assert total and rate and volume and int(total[1]), f"{' '.join(command)}\n{output}"
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", output)
    sockets = re.search(r"connect (\d+), read (\d+), write (\d+), timeout (\d+)", output)
    # wrk counts a connection that the server closes between requests as a read error.
    errors = int(bad[1]) if bad else 0
    errors += int(sockets[1]) + int(sockets[4]) if sockets else 0
    return Reading(
        int(total[1]), int(total[1]) / float(rate[1]), float(volume[1]) * _SIZES[volume[2]],
        _latency(output, "50"), _latency(output, "99"), errors,
    )  # fmt: skip


@dataclass(frozen=True)
class Result:
    """Pairs of readings, theirs and ours, taken one after the other."""

    pairs: Sequence[tuple[Reading, Reading]]

    def ratios(self, figure: Callable[[Reading], float]) -> list[float]:
        """Our figure over theirs, of each pair."""
        return [figure(ours) / figure(theirs) for theirs, ours in self.pairs]

    def ratio(self, figure: Callable[[Reading], float]) -> float:
        """Our figure over theirs: the median of the pairs."""
        return statistics.median(self.ratios(figure))

    def theirs(self, figure: Callable[[Reading], float]) -> float:
        """Their figure: the median of the pairs."""
        return statistics.median(figure(theirs) for theirs, _ in self.pairs)

    def ours(self, figure: Callable[[Reading], float]) -> float:
        """Our figure: the median of the pairs."""
        return statistics.median(figure(ours) for _, ours in self.pairs)


def alternate(theirs: Callable[[], Reading], ours: Callable[[], Reading], pairs: int) -> Result:
    """Take ``pairs`` pairs; a first one warms both up and is not counted.

    Every other pair begins with us, so that neither gains from a machine that gets slower.
    """
    theirs()
    ours()
    taken = []
    for number in range(pairs):
        if number % 2:
            second = ours()
            taken.append((theirs(), second))
        else:
            first = theirs()
            taken.append((first, ours()))
    return Result(taken)
