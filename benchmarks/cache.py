"""The response cache: hits against nginx's fastcgi_cache, herds, a million entries, limits.

.venv/bin/python -m benchmarks.cache [--pairs N] [--seconds N] [--scale N] [CASE ...]
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import os
import random
import signal
import socket
import socketserver
import statistics
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

from twisted.internet.task import Clock

from benchmarks.cases import Effort
from benchmarks.entries import FORMAT, LEVELS, populate
from benchmarks.helpers import Helper
from benchmarks.herd import stampede
from benchmarks.pairs import alternate
from benchmarks.report import Line, Outcome, Wanted, throughput
from benchmarks.servers import Server, directory
from imagefarm.cache.entry import Entry
from imagefarm.cache.index import Index
from imagefarm.cache.settings import ZoneSettings
from imagefarm.cache.store import digest_of
from imagefarm.cache.zone import Zone
from tests.support import farmsite
from tests.support.cachestage import holder
from tests.support.processes import descendants, free_ports, imagefarm, resident, wait_until
from tests.support.tools import nginx

SIZE = 17 * 1024
MANY = 100_000
MILLION = 1_000_000
SMALL = 200
#: The limit that fillers run against, and the size of what they store.
LIMIT, FILL = 256 << 20, 16 << 10
FILLERS = 4
#: A 99th percentile is of another size each time: so often more than a throughput is measured.
TIMES = 5
#: Clients that ask for one key at once.
HERD = 200

_CONFIG = """
worker_processes {workers};
pid {pid};
error_log {directory}/logs/{name}.error.log;
events {{ worker_connections 2560; }}
http {{
    access_log {directory}/logs/{name}.access.log;
    keepalive_requests 10000000;
    fastcgi_cache_path {directory}/cache-{name} levels=1:2 use_temp_path=off
                       keys_zone=bench:200m inactive=7d;
    fastcgi_temp_path {directory}/temp-{name};
    server {{
        listen 127.0.0.1:{port};
        location / {{
            {protocol}_pass {scheme}127.0.0.1:{upstream};
            fastcgi_param REQUEST_METHOD $request_method;
            {protocol}_cache bench;
            {protocol}_cache_key $uri;
            {protocol}_cache_valid 200 7d;
            {protocol}_cache_lock_timeout 30s;
        }}
    }}
}}
"""


# The upstream: one answer for everything


class _Answer(socketserver.StreamRequestHandler):
    """One FastCGI request, to its end; the same image for each."""

    def handle(self) -> None:
        while True:
            header = self.rfile.read(8)
            if len(header) < 8:
                return
            _, kind, number, length, padding = struct.unpack(">BBHHBx", header)
            self.rfile.read(length + padding)
            if kind == 5 and not length:  # the end of FCGI_STDIN
                break
        head = b"Content-Type: image/jpeg\r\n\r\n"
        body = head + bytes(SIZE)
        self.wfile.write(
            struct.pack(">BBHHBx", 1, 6, number, len(body), 0) + body
            + struct.pack(">BBHHBx", 1, 6, number, 0, 0)
            + struct.pack(">BBHHBx", 1, 3, number, 8, 0) + bytes(8)
        )  # fmt: skip


class _Upstream(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 256


@contextmanager
def _upstream() -> Iterator[int]:
    with _Upstream(("127.0.0.1", 0), _Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


@contextmanager
def _running(
    kind: str, path: Path, upstream: int, workers: int = 1, protocol: str = "fastcgi"
) -> Iterator[Server]:
    (port,) = free_ports(1)
    pidfile, config = path / f"logs/{kind}.pid", path / f"{kind}.conf"
    for folder in ("logs", f"cache-{kind}", f"temp-{kind}"):
        (path / folder).mkdir(exist_ok=True)
        (path / folder).chmod(0o777)
    config.write_text(
        _CONFIG.format(
            directory=path,
            name=kind,
            port=port,
            upstream=upstream,
            pid=pidfile,
            workers=workers,
            protocol=protocol,
            scheme="http://" if protocol == "proxy" else "",
        )
    )
    if kind == "nginx":
        daemon = farmsite.nginx(nginx(), path, config, [port])
    else:
        daemon = imagefarm("master", path, "--config", str(config), ports=[port], name=kind)
    try:
        daemon.started()
        wait_until(pidfile.exists, what="pidfile")
        yield Server(kind, daemon, port, tls=False)
    finally:
        daemon.stop()


@contextmanager
def _both(path: Path) -> Iterator[tuple[Server, Server]]:
    with ExitStack() as stack:
        upstream = stack.enter_context(_upstream())
        yield (
            stack.enter_context(_running("nginx", path, upstream)),
            stack.enter_context(_running("imagefarm", path, upstream)),
        )


# The cases


def hit(effort: Effort, _scale: int) -> Iterator[Outcome]:
    """One cached answer of 17 KB, kept alive."""
    with directory() as path, _both(path) as (theirs, ours):
        load = effort.load()
        result = alternate(
            lambda: theirs.load("/one", load), lambda: ours.load("/one", load), effort.pairs
        )
    yield throughput("cached hit, 17 KB", result)


def shuffled(effort: Effort, scale: int) -> Iterator[Outcome]:
    """The same with 100,000 of them in random order."""
    count = MANY // scale
    with directory() as path, _both(path) as (theirs, ours):
        fill = effort.load(script="cycle.lua", words=(FORMAT, str(count)))
        populate(path / "cache-imagefarm", count, SIZE)
        while _files(path / "cache-nginx") < count:
            theirs.load("/", fill)
        load = effort.load(script="cycle.lua", words=(FORMAT, str(count), "1"))
        result = alternate(
            lambda: theirs.load("/", load), lambda: ours.load("/", load), effort.pairs
        )
    yield throughput(f"{count:,} entries, shuffled", result, Wanted(0.8))


def _files(path: Path) -> int:
    return sum(len(name) == 32 for _, _, names in os.walk(path) for name in names)


def million(effort: Effort, scale: int) -> Iterator[Outcome]:
    """Start on a million small files: the first answer, p99 while they are loaded, memory."""
    count = MILLION // scale
    load = effort.load(connections=16)
    with directory() as path, _upstream() as upstream:
        cache = path / "cache-imagefarm"
        begun = time.monotonic()
        with _running("imagefarm", path, upstream) as server:
            _get(server, 0)
            nothing = time.monotonic() - begun
            empty = _managing(cache)
        begun = time.monotonic()
        populate(cache, count, SMALL)
        made = time.monotonic() - begun
        begun = time.monotonic()
        with _running("imagefarm", path, upstream) as server:
            assert b"hit" in _get(server, count // 2)
            first = time.monotonic() - begun
            hot = FORMAT % (7, 7)
            loading = [server.load(hot, load).p99 for _ in range(TIMES * effort.pairs)]
            begun = time.monotonic()
            _hasten(server, path / "imagefarm.conf")
            wait_until(lambda: _loaded(cache) >= count, 600, what="loader")
            took = time.monotonic() - begun
            quiet = [server.load(hot, load).p99 for _ in range(TIMES * effort.pairs)]
            entry = (_managing(cache) - empty) / count
    usual = statistics.median(quiet)
    ratios = sorted(p99 / usual for p99 in loading)
    ratio = statistics.median(ratios)
    start = _bound("first answer, seconds", f"{count:,} entries, start", first, 1.0)
    note = f"from the start of twistd; {nothing:.2f} with nothing in the cache"
    yield replace(start, notes=[note])
    yield Outcome(
        "loader, p99 of hits", Wanted(1.1, at_most=True),
        [Line("ms", usual, ratio * usual, ratio, ratios[0], ratios[-1])],
        [f"the files were made in {made:.0f} s; in a hurry all are loaded in {took:.0f} s"],
        names=("loaded", "loading"),
    )  # fmt: skip
    yield _bound("bytes an entry", "memory of the manager", entry, 120.0)


def waiters(effort: Effort, _scale: int) -> Iterator[Outcome]:
    """200 simultaneous requests for a cold key, 4 workers: one goes on; when do all have it?"""
    herds = []
    with (
        directory() as path,
        socket.create_server(("127.0.0.1", 0), backlog=HERD) as origin,
        _running(
            "imagefarm", path, origin.getsockname()[1], workers=4, protocol="proxy"
        ) as server,
    ):
        for _ in range(effort.pairs * 4):
            herds.append(stampede(server.port, origin, HERD, os.urandom(SIZE)))
    asked, right = sum(herd.asked for herd in herds), sum(herd.right for herd in herds)
    faults = (asked != len(herds)) + (right != HERD * len(herds))
    lines = []
    for share, what in ((1.0, "the last, ms"), (0.5, "half of them, ms"), (0.9, "90 %, ms")):
        times = sorted(sorted(h.arrivals)[int(HERD * share) - 1] * 1e3 for h in herds)
        middle, most = times[len(times) // 2], 20.0
        lines.append(Line(what, most, middle, middle / most, times[0] / most, times[-1] / most))
    yield Outcome(
        f"{HERD} requests for a cold key", Wanted(1.0, at_most=True), lines,
        [f"{len(herds)} herds, {asked} requests to the origin, {right} right answers"],
        faults, names=("at most", "imagefarm"),
    )  # fmt: skip


def _bound(what: str, title: str, value: float, most: float) -> Outcome:
    line = Line(what, most, value, value / most, value / most, value / most)
    return Outcome(title, Wanted(1.0, at_most=True), [line], names=("at most", "imagefarm"))


def _hasten(server: Server, config: Path) -> None:
    """Have what is not loaded yet loaded at once, by a new worker."""
    paces = "inactive=7d loader_files=1000000 loader_threshold=200ms loader_sleep=1ms"
    config.write_text(config.read_text().replace("inactive=7d", paces))
    old = set(descendants(server.daemon.pid))
    server.daemon.signal(signal.SIGHUP)
    wait_until(lambda: old.isdisjoint(descendants(server.daemon.pid)), 60, what="new worker")


def _get(server: Server, number: int) -> bytes:
    """What the Cache-Status of an answer says."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    with contextlib.closing(connection):
        connection.request("GET", FORMAT % (number % 100, number))
        answer = connection.getresponse()
        assert answer.status == 200
        return (answer.getheader("Cache-Status") or "").encode()


def _managing(cache: Path) -> int:
    """The resident memory of the process that is the manager."""
    wait_until(lambda: holder(cache / "manager.lock"), what="manager")
    pid = holder(cache / "manager.lock")
    assert pid
    return resident(pid)


def _settings(path: Path, **changes: object) -> ZoneSettings:
    given = {"name": "bench", "path": str(path), "keys": MILLION * 2, "levels": LEVELS}
    return ZoneSettings(**{**given, **changes})  # type: ignore[arg-type]


def _loaded(path: Path) -> int:
    """What the manager has counted."""
    data = (path / "state").read_bytes()
    return int(struct.unpack_from("=Q", data, 16)[0])


def overshoot(effort: Effort, scale: int) -> Iterator[Outcome]:
    """Four processes that do nothing but store, against ``max_size``."""
    limit = LIMIT // scale
    with directory() as path, ExitStack() as stack:
        cache = path / "cache"
        helpers = [
            stack.enter_context(Helper(_fill, str(cache), limit, number))
            for number in range(FILLERS)
        ]
        for helper in helpers:
            helper.receive()  # ready
        for helper in helpers:
            helper.send(effort.seconds * effort.pairs)
        end, most = time.monotonic() + effort.seconds * effort.pairs, 0
        while time.monotonic() < end:
            most = max(most, _held(cache))
            time.sleep(0.2)
        stored = sum(helper.receive() for helper in helpers)
        stopped = time.monotonic()
        while _held(cache) > limit and time.monotonic() < stopped + 60:
            time.sleep(0.1)
        back = time.monotonic() - stopped
    over = _bound("MB", "max_size under filling", most / 1e6, limit * 1.05 / 1e6)
    yield Outcome(
        over.title, over.wanted, over.lines,
        [f"{stored:,} files stored ({FILL >> 10} KB)", f"under the limit {back:.1f} s later"],
        int(back > 10), over.names,
    )  # fmt: skip


def _held(path: Path) -> int:
    total = 0
    for where, _, names in os.walk(path):
        for name in names:
            if len(name) == 32:
                with contextlib.suppress(OSError):
                    total += os.stat(os.path.join(where, name)).st_blocks * 512
    return total


def _fill(pipe: Connection, path: str, limit: int, seed: int) -> None:
    """Store as fast as possible for so many seconds, with the upkeep of a worker meanwhile."""
    zone, clock = Zone(_settings(Path(path), max_size=limit)), Clock()
    zone.start(clock)
    clock.advance(0)
    pipe.send(None)
    seconds = pipe.recv()
    end, body, last = time.monotonic() + seconds, bytes(FILL - 400), time.monotonic()
    number = 0
    while (now := time.monotonic()) < end:
        clock.advance(now - last)
        last = now
        number += 1
        key = b"%d.%d" % (seed, number)
        zone.store(Entry(key, 200, (), time.time(), time.time() + 60), digest_of(key), body)
    pipe.send(zone.counters.stored)
    while not pipe.poll(0.05):
        now = time.monotonic()
        clock.advance(now - last)
        last = now


def eviction(_effort: Effort, scale: int) -> Iterator[Outcome]:
    """Half of the entries are evicted: how many of them were in the older half?"""
    count = MILLION // scale // 4
    index, order = Index(count), list(range(count))
    random.Random(1).shuffle(order)
    for place, number in enumerate(order):
        index.put(digest_of(b"%d" % number), 4096, float(place))
    right, begun = 0, time.process_time()
    for _ in range(count // 2):
        while (oldest := index.oldest(1e12)) is None:
            index.sweep(1e12)
        right += oldest[1].accessed < count / 2
        index.forget(oldest[0])
    spent = (time.process_time() - begun) / (count // 2) * 1e6
    share = right / (count // 2)
    yield Outcome(
        f"eviction of {count // 2:,}", Wanted(1.0),
        [Line("share of the older half", 1.0, share, share, share, share)],
        [f"{spent:.1f} us each"], names=("exact", "imagefarm"),
    )  # fmt: skip


CASES: dict[str, Callable[[Effort, int], Iterator[Outcome]]] = {
    "hit": hit, "shuffled": shuffled, "waiters": waiters, "million": million,
    "overshoot": overshoot, "eviction": eviction,
}  # fmt: skip


def main() -> int:
    """Print each case as it is done. 1 if something was wrong."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cache", description=__doc__)
    parser.add_argument("cases", nargs="*", metavar="CASE", help="some of: " + ", ".join(CASES))
    parser.add_argument("--pairs", type=int, default=5, help="pairs of runs that count")
    parser.add_argument("--seconds", type=int, default=3, help="seconds a run")
    parser.add_argument("--scale", type=int, default=1, help="divide the number of entries")
    options = parser.parse_args()
    if unknown := [name for name in options.cases if name not in CASES]:
        parser.error(f"no such case: {', '.join(unknown)}")
    faults = 0
    for name in options.cases or CASES:
        for outcome in CASES[name](Effort(options.pairs, options.seconds), options.scale):
            print(outcome, flush=True)
            print()
            faults += outcome.faults
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
