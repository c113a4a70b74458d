"""The cases that are more than requests per second of one worker."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack

from benchmarks.cases import Effort
from benchmarks.connections import agreed, handshakes, hold, shake
from benchmarks.helpers import Helper
from benchmarks.pairs import Load, Reading, Result, alternate
from benchmarks.report import Line, Outcome, Wanted, busy, cost, line
from benchmarks.servers import KEPT, Server, Setting, Site, directory

#: Idle connections, and what the configuration needs to allow them.
IDLE = 10_000
CROWDED = (
    *KEPT,
    ("worker_connections 2560;", "worker_connections 12000;"),
    ("worker_rlimit_nofile 20480;", "worker_rlimit_nofile 20000;"),
    ("keepalive_timeout  5 5;", "keepalive_timeout  600;"),
)

#: Processes that make handshakes: while one waits for the server the others work.
CLIENTS = 3

#: Milliseconds between two requests of one connection, on average, of the paced load.
PACE = 20


def _handshakes(server: Server, effort: Effort) -> Reading:
    with ExitStack() as stack:
        clients = [stack.enter_context(Helper(shake, server.port)) for _ in range(CLIENTS)]
        for client in clients:
            client.ask(0)  # started
        return server.measure(lambda: handshakes(clients, effort.seconds))


def full_handshakes(effort: Effort) -> Iterator[Outcome]:
    """New TLS sessions per second, nothing asked."""
    with directory() as path, Site(path).contest(Setting(KEPT, tls=True)) as (theirs, ours):
        said = [agreed(server.port)[0] for server in (theirs, ours)]
        result = alternate(
            lambda: _handshakes(theirs, effort), lambda: _handshakes(ours, effort), effort.pairs
        )
    yield Outcome(
        "full TLS handshakes", Wanted(0.9),
        [
            line("handshakes a second", result, lambda reading: reading.rate),
            cost(result, "CPU us a handshake"),
        ],
        [busy(result), f"RSA 2048; nginx: {said[0]}, imagefarm: {said[1]}"],
    )  # fmt: skip


def memory(effort: Effort) -> Iterator[Outcome]:
    """Bytes of resident memory for each of 10,000 connections that asked once and stay.

    Both are started anew for each pair: what a process has once taken it seldom gives back.
    """
    setting = Setting(CROWDED)
    pairs = []
    with directory() as path:
        site = Site(path)
        for _ in range(max(1, effort.pairs // 2)):
            taken = []
            for kind in ("nginx", "imagefarm"):
                with site.running(kind, setting) as server:
                    server.load("/a.jpg", Load(seconds=1))
                    taken.append(_idle(server))
            pairs.append((taken[0], taken[1]))
    theirs, ours = (statistics.median(pair[side] for pair in pairs) for side in (0, 1))
    ratios = [mine / nginx for nginx, mine in pairs]
    first = Line(
        "bytes a connection", theirs, ours, statistics.median(ratios), min(ratios), max(ratios)
    )
    yield Outcome("idle connection, memory", Wanted(1.0, at_most=True), [first])


def _idle(server: Server) -> float:
    with Helper(hold, server.port, "/a.jpg") as clients:
        clients.ask(100)  # what the first requests need once is not the connections' memory
        time.sleep(0.5)
        before = server.memory()
        clients.ask(IDLE - 100)
        time.sleep(0.5)
        after = server.memory()
        living = clients.ask(0)
        assert living == IDLE, f"{server.name} kept {living} of {IDLE} connections"
    return max(1.0, (after - before) / (IDLE - 100))


def latency(effort: Effort) -> Iterator[Outcome]:
    """The 99th percentile while requests arrive at half the rate that the slower one can."""
    with directory() as path, Site(path).contest(Setting(KEPT)) as (theirs, ours):
        full = effort.load()
        top = alternate(
            lambda: theirs.load("/a.jpg", full), lambda: ours.load("/a.jpg", full), 1
        )  # fmt: skip
        most = [side(lambda reading: reading.rate) for side in (top.theirs, top.ours)]
        rate = min(most) / 2
        half = effort.load(
            connections=max(8, math.ceil(rate * PACE / 1000)),
            script="paced.lua",
            words=(str(PACE),),
        )
        result = alternate(
            lambda: theirs.load("/a.jpg", half), lambda: ours.load("/a.jpg", half), effort.pairs
        )  # fmt: skip
    notes = [
        f"maximum: {most[0]:,.0f} and {most[1]:,.0f} a second; {half.connections} connections"
        f" made {result.theirs(_rate):,.0f} and {result.ours(_rate):,.0f} of wanted {rate:,.0f}",
        busy(result),
    ]
    # A microsecond at least: wrk says 0 where nothing was measured, and that must not divide.
    lines = [
        line("p99 ms at half load", result, lambda reading: max(reading.p99, 0.001)),
        line("p50 ms", result, lambda reading: max(reading.p50, 0.001)),
        cost(result),
    ]
    yield Outcome(
        "p99 at half load", Wanted(1.5, at_most=True), lines, notes,
        sum(reading.errors for _, reading in result.pairs),
    )  # fmt: skip


def _rate(reading: Reading) -> float:
    return reading.rate


def _scaled(reading: Reading) -> float:
    """Requests per second that its workers could answer on cores of their own.

    Requests per CPU second, times the processes that the work is spread over: 2 where two did
    the same, 1.25 where one of them did four fifths of it.
    """
    return 1e6 / reading.cost * reading.spread


def _one_and_two(site: Site, kind: str, effort: Effort) -> Result:
    load = effort.load(connections=64)
    with (
        site.running(kind, Setting(workers=1), f"{kind}1") as one,
        site.running(kind, Setting(workers=2), f"{kind}2") as two,
    ):
        return alternate(
            lambda: one.load("/a.jpg", load), lambda: two.load("/a.jpg", load), effort.pairs
        )


def workers(effort: Effort) -> Iterator[Outcome]:
    """Two workers of ours over one, farm's slave configuration; nginx's ratio beside it."""
    with directory() as path:
        site = Site(path)
        nginx, ours = (_one_and_two(site, kind, effort) for kind in ("nginx", "imagefarm"))
    yield Outcome(
        "two workers over one", Wanted(1.8),
        [
            line("requests per CPU s, spread", ours, _scaled),
            line("requests a second (shared)", ours, _rate),
            cost(ours),
        ],
        [
            busy(ours),
            f"the work is spread over {ours.ours(lambda reading: reading.spread):.2f} processes"
            f" (nginx: {nginx.ours(lambda reading: reading.spread):.2f})",
            f"nginx: {nginx.ratio(_scaled):.2f} on cores of its own,"
            f" {nginx.ratio(_rate):.2f} sharing them with the client",
        ],
        sum(two.errors for _, two in ours.pairs),
        ("one worker", "two workers"),
    )  # fmt: skip
