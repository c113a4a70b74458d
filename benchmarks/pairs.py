"""Running wrk against two servers in turns, and reading what it says."""

from __future__ import annotations

import re
import statistics
import subprocess
from collections.abc import Callable
from dataclasses import dataclass

from tests.support.tools import tool


@dataclass(frozen=True)
class Load:
    """How hard wrk tries: connections, threads, seconds."""

    connections: int = 32
    threads: int = 1
    seconds: int = 3


@dataclass(frozen=True)
class Reading:
    """One run: requests and bytes per second, latencies in milliseconds, failed requests."""

    rate: float
    throughput: float
    p50: float
    p99: float
    errors: int


_UNITS = {"us": 0.001, "ms": 1.0, "s": 1000.0, "m": 60000.0}
_SIZES = {"B": 1.0, "KB": 1024.0, "MB": 1024.0**2, "GB": 1024.0**3}


def _latency(output: str, percentile: str) -> float:
    match = re.search(rf"\s{percentile}%\s+([\d.]+)(us|ms|s|m)", output)
    return float(match[1]) * _UNITS[match[2]] if match else 0.0


def wrk(url: str, load: Load, *extra: str) -> Reading:
    """Run wrk once. Raises AssertionError where not a single request was answered."""
    command = [
        tool("wrk"), "-t", str(load.threads), "-c", str(load.connections),
        "-d", f"{load.seconds}s", "--latency", *extra, url,
    ]  # fmt: skip
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    rate = re.search(r"Requests/sec:\s+([\d.]+)", output)
    volume = re.search(r"Transfer/sec:\s+([\d.]+)(B|KB|MB|GB)", output)
    assert rate and volume and float(rate[1]) > 0, output
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", output)
    sockets = re.search(r"connect (\d+), read (\d+), write (\d+), timeout (\d+)", output)
    # wrk counts a connection that the server closes between requests as a read error.
    errors = int(bad[1]) if bad else 0
    errors += int(sockets[1]) + int(sockets[4]) if sockets else 0
    return Reading(
        float(rate[1]), float(volume[1]) * _SIZES[volume[2]],
        _latency(output, "50"), _latency(output, "99"), errors,
    )  # fmt: skip


@dataclass(frozen=True)
class Result:
    """Pairs of readings, theirs and ours, taken one after the other."""

    pairs: list[tuple[Reading, Reading]]

    def ratio(self, figure: Callable[[Reading], float] = lambda reading: reading.rate) -> float:
        """Our figure over theirs: the median of the pairs."""
        return statistics.median(figure(ours) / figure(theirs) for theirs, ours in self.pairs)

    def line(self, name: str) -> str:
        """One line for people."""
        theirs = statistics.median(pair[0].rate for pair in self.pairs)
        ours = statistics.median(pair[1].rate for pair in self.pairs)
        errors = sum(pair[1].errors for pair in self.pairs)
        return (
            f"{name:<46} {theirs:>9.0f} {ours:>9.0f}   ratio {self.ratio():.2f}"
            f"   p99 ratio {self.ratio(lambda reading: reading.p99 or 0.001):.2f}"
            + (f"   ERRORS {errors}" if errors else "")
        )


def alternate(theirs: Callable[[], Reading], ours: Callable[[], Reading], pairs: int) -> Result:
    """Take ``pairs`` pairs; a first one warms both up and is not counted."""
    theirs()
    ours()
    return Result([(theirs(), ours()) for _ in range(pairs)])
