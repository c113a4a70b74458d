"""The master against nginx: what the hop to the slaves costs. The slaves are nginx in both."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.cases import Effort
from benchmarks.pairs import Result, alternate
from benchmarks.report import (
    Outcome,
    Wanted,
    busy,
    cost,
    line,
    throughput,
)
from benchmarks.servers import KEPT, Server, Setting, Site, directory
from benchmarks.special import PACE

#: Kept-alive connections to the slaves in nginx, too: HTTP/1.1, and no Connection field.
SPOKEN = (
    *(("keepalive_requests 5; ", "keepalive_requests 10000000;"),),
    (
        "proxy_pass              http://tving_image;",
        "proxy_pass http://tving_image; proxy_http_version 1.1; proxy_set_header Connection '';",
    ),
)


@contextmanager
def _masters(master: Setting, slave: Setting, size: int = 0) -> Iterator[tuple[Server, Server]]:
    """Both masters in front of the same two slaves; ``size`` bytes are in /made.jpg."""
    with directory() as path:
        site = Site(path)
        if size:
            (site.images / "made.jpg").write_bytes(bytes(range(256)) * (size // 256))
        with site.slaves(slave), site.contest(master) as both:
            yield both


def _race(both: tuple[Server, Server], path: str, effort: Effort, connections: int) -> Result:
    theirs, ours = both
    load = effort.load(connections=connections)
    return alternate(
        lambda: theirs.load(path, load), lambda: ours.load(path, load), effort.pairs
    )  # fmt: skip


def hop(effort: Effort) -> Iterator[Outcome]:
    """10 KB through the master to two slaves, the farm's configuration as it is."""
    with _masters(Setting(role="master"), Setting()) as both:
        result = _race(both, "/a.jpg", effort, 32)
    yield throughput("10 KB through the master", result, Wanted(1.5))


def kept(effort: Effort) -> Iterator[Outcome]:
    """The same with connections that stay, on both sides."""
    with _masters(Setting(SPOKEN, role="master"), Setting(KEPT)) as both:
        result = _race(both, "/a.jpg", effort, 32)
    yield throughput("the same, kept alive", result, Wanted(0.8))


def megabyte(effort: Effort) -> Iterator[Outcome]:
    """1 MB through the master; bytes per second count."""
    with _masters(Setting(SPOKEN, role="master"), Setting(KEPT), 1 << 20) as both:
        result = _race(both, "/made.jpg", effort, 16)
    volume = line("MB a second", result, lambda reading: reading.throughput / 1024**2)
    errors = sum(ours.errors for _, ours in result.pairs)
    yield Outcome(
        "1 MB through the master", Wanted(0.9), [volume, cost(result)], [busy(result)], errors
    )


def latency(effort: Effort) -> Iterator[Outcome]:
    """The 99th percentile that the hop adds, at half the load that the slower one can."""
    slave = Setting(KEPT)
    with directory() as path:
        site = Site(path)
        with site.slaves(slave) as slaves, site.contest(Setting(SPOKEN, role="master")) as both:
            full = effort.load()
            top = [server.load("/a.jpg", full).rate for server in both]
            rate = min(top) / 2
            half = effort.load(
                connections=max(8, math.ceil(rate * PACE / 1000)),
                script="paced.lua",
                words=(str(PACE),),
            )
            direct = slaves[0].load("/a.jpg", half).p99
            theirs, ours = both
            result = alternate(
                lambda: theirs.load("/a.jpg", half),
                lambda: ours.load("/a.jpg", half),
                effort.pairs,
            )
    # What the client sees anyway is no work of the hop; a microsecond at least, to divide by.
    added = line(
        "added p99 ms at half load", result, lambda reading: max(reading.p99 - direct, 0.001)
    )
    notes = [
        f"a slave alone: p99 {direct:.2f} ms; maximum {top[0]:,.0f} and {top[1]:,.0f} a second"
    ]
    yield Outcome(
        "added p99 at half load", Wanted(1.5, at_most=True),
        [added, line("p50 ms", result, lambda reading: max(reading.p50, 0.001)), cost(result)],
        [*notes, busy(result)],
        sum(pair[1].errors for pair in result.pairs),
    )  # fmt: skip
