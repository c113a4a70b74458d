"""The cases that are all wrk: one setting, one path or script."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from benchmarks.connections import agreed
from benchmarks.helpers import Helper
from benchmarks.pairs import Load, Reading, alternate
from benchmarks.report import AT_LEAST_EQUAL, Outcome, Wanted, busy, cost, line, throughput
from benchmarks.servers import KEPT, Server, Setting, Site, directory
from benchmarks.stillshots import COUNT, FORMAT, Table, Verdict, check, make, write

#: The many files: how many, how large, where.
MANY, MANY_SIZE, MANY_FORMAT = 100_000, 4096, "/many/%02d/%06d.jpg"


@dataclass(frozen=True)
class Effort:
    """How long and how often: pairs of runs, seconds a run."""

    pairs: int = 5
    seconds: int = 3

    def load(self, **changes: Any) -> Load:
        """What wrk is told."""
        return replace(Load(seconds=self.seconds), **changes)


def _simple(
    title: str, setting: Setting, path: str, load: Load, pairs: int, site: Site,
    wanted: Wanted = AT_LEAST_EQUAL,
) -> Outcome:  # fmt: skip
    with site.contest(setting) as (theirs, ours):
        result = alternate(
            lambda: theirs.load(path, load), lambda: ours.load(path, load), pairs
        )  # fmt: skip
    return throughput(title, result, wanted)


def farm(effort: Effort) -> Iterator[Outcome]:
    """The farm's slave configuration as it is, but for the one worker."""
    with directory() as path:
        load = effort.load()
        yield _simple("10 KB, farm's slave", Setting(), "/a.jpg", load, effort.pairs, Site(path))


def kept(effort: Effort) -> Iterator[Outcome]:
    """The same with connections that stay."""
    with directory() as path:
        setting = Setting(KEPT)
        load = effort.load()
        yield _simple("10 KB, kept alive", setting, "/a.jpg", load, effort.pairs, Site(path))


def megabyte(effort: Effort) -> Iterator[Outcome]:
    """Files of 1 MB; bytes per second count."""
    with directory() as path:
        site = Site(path)
        (site.images / "megabyte.jpg").write_bytes(bytes(range(256)) * 4096)
        load = effort.load(connections=16)
        with site.contest(Setting(KEPT)) as (theirs, ours):
            result = alternate(
                lambda: theirs.load("/megabyte.jpg", load),
                lambda: ours.load("/megabyte.jpg", load),
                effort.pairs,
            )
    volume = line("MB a second", result, lambda reading: reading.throughput / 1024**2)
    errors = sum(reading.errors for _, reading in result.pairs)
    yield Outcome("1 MB files", AT_LEAST_EQUAL, [volume, cost(result)], [busy(result)], errors)


def many(effort: Effort) -> Iterator[Outcome]:
    """Files that are too many for any cache of decisions to help much, shuffled."""
    with directory() as path:
        site = Site(path)
        for number in range(MANY):
            file = site.images / (MANY_FORMAT % (number % 100, number))[1:]
            if number < 100:
                file.parent.mkdir(parents=True)
            file.write_bytes(b"%06d" % number + bytes(MANY_SIZE - 6))
        load = effort.load(script="cycle.lua", words=(MANY_FORMAT, str(MANY), "1"))
        wanted = Wanted(0.8)
        yield _simple("100,000 files", Setting(KEPT), "/", load, effort.pairs, site, wanted)


def errors(effort: Effort) -> Iterator[Outcome]:
    """Files that are not there."""
    with directory() as path:
        site = Site(path)
        load = effort.load()
        with site.contest(Setting(KEPT)) as (theirs, ours):
            result = alternate(
                lambda: _all_bad(theirs, load), lambda: _all_bad(ours, load), effort.pairs
            )  # fmt: skip
        yield throughput("404s", result)


def _all_bad(server: Server, load: Load) -> Reading:
    """An error is any answer that is not one: wrk counts 404s as failed."""
    reading = server.load("/missing.jpg", load)
    return replace(reading, errors=abs(reading.requests - reading.errors))


def unmodified(effort: Effort) -> Iterator[Outcome]:
    """Revalidations of a file that is as it was."""
    with directory() as path:
        site = Site(path)
        with site.contest(Setting(KEPT)) as (theirs, ours):

            def revalidate(server: Server) -> Reading:
                client = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
                client.request("HEAD", "/a.jpg")
                tag = client.getresponse().headers["ETag"]
                client.close()
                load = effort.load(headers=(f"If-None-Match: {tag}",))
                reading = server.load("/a.jpg", load)
                sent = reading.throughput / reading.rate
                assert sent < 1000, f"{server.name} answers 304s with {sent:.0f} bytes"
                return reading

            result = alternate(lambda: revalidate(theirs), lambda: revalidate(ours), effort.pairs)
        yield throughput("304s", result)


def tls(effort: Effort) -> Iterator[Outcome]:
    """10 KB over TLS, kept alive, with session resumption on."""
    with directory() as path:
        load = effort.load()
        site = Site(path)
        with site.contest(Setting(KEPT, tls=True)) as (theirs, ours):
            said = [agreed(server.port) for server in (theirs, ours)]
            result = alternate(
                lambda: theirs.load("/a.jpg", load),
                lambda: ours.load("/a.jpg", load),
                effort.pairs,
            )
        notes = [
            f"{name}: {words}, a second connection {'resumes' if resumed else 'does NOT resume'}"
            for name, (words, resumed) in zip(("nginx", "imagefarm"), said, strict=True)
        ]
        outcome = throughput("TLS 10 KB, kept alive", result, Wanted(0.9), notes)
        yield replace(outcome, faults=outcome.faults + (not said[1][1]))


def _rewritten(effort: Effort, *, in_place: bool, period: float) -> Outcome:
    load = effort.load(script="cycle.lua", words=(FORMAT, str(COUNT)))
    with directory() as path:
        site = Site(path)
        make(site.images)
        table = path / "versions"
        Table(table, create=True)
        seen = {"nginx": Verdict(), "imagefarm": Verdict()}
        with (
            site.contest(Setting(KEPT)) as (theirs, ours),
            Helper(check, table, 200.0, in_place) as checker,
            Helper(write, site.images, table, period, in_place),
        ):

            def watched(server: Server) -> Reading:
                checker.ask(server.port)
                reading = server.load("/", load)
                seen[server.name].add(checker.ask(None))
                return reading

            result = alternate(lambda: watched(theirs), lambda: watched(ours), effort.pairs)
    notes = [
        f"{name}: {verdict.answers} answers checked: {verdict.torn} torn, {verdict.stale} stale,"
        f" {verdict.failed} failed, {verdict.excused} excused" + "".join(
            f"\n    {example}" for example in verdict.examples
        )
        for name, verdict in seen.items()
    ]  # fmt: skip
    title = f"stillshots, {'in place' if in_place else 'renamed'}"
    outcome = throughput(title, result, Wanted(0.9), notes)
    # Rewriting in place makes a server close a connection now and then; the checker judges.
    faults = seen["imagefarm"].faults + (0 if in_place else outcome.faults)
    return replace(outcome, faults=faults)


def stillshots(effort: Effort) -> Iterator[Outcome]:
    """1,000 files, each rewritten every 3 seconds: by rename, then in place."""
    for in_place in (False, True):
        yield _rewritten(effort, in_place=in_place, period=3.0)
