"""What is wrong with the instances of a farm, judged by their status; and samples for plots.

Sans-IO. An instance is a dictionary: ``name``, ``up``, ``error`` where it is not, else ``status``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from imagefarm.http.meter import BUCKETS

#: So many seconds back failed answers are a finding.
WINDOW: Final = 60.0
#: The share of failed answers that is more than a warning.
MANY: Final = 0.05

_OUT: Final = frozenset({"unavail", "unhealthy"})

Instance = Mapping[str, Any]


def findings(
    instances: Sequence[Instance], samples: Sequence[Mapping[str, Any]] = ()
) -> list[dict[str, str]]:
    """What an operator should know, the worst first: ``level`` (bad or warn) and ``text``."""
    found: list[dict[str, str]] = []
    for instance in instances:
        name = instance["name"]
        if not instance["up"]:
            found.append(_bad(f"{name} does not answer: {instance['error']}"))
            continue
        status = instance["status"]
        found += _reload(name, status.get("configuration", {}))
        for upstream, group in status.get("upstreams", {}).items():
            found += _peers(name, upstream, group["peers"])
        found += _processes(name, status.get("processes", ()))
        if "resizer" in status:
            found += _resizer(name, status["resizer"])
        found += _failures(name, samples)
    return sorted(found, key=lambda finding: finding["level"])


def _bad(text: str) -> dict[str, str]:
    return {"level": "bad", "text": text}


def _warn(text: str) -> dict[str, str]:
    return {"level": "warn", "text": text}


def _reload(name: str, configuration: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    if configuration.get("last_reload") == "failed":
        why = next(iter(configuration.get("errors", ())), "the error log says why")
        yield _bad(f"{name}: the last reload failed, the former configuration is in force: {why}")


def _peers(
    name: str, upstream: str, peers: Sequence[Mapping[str, Any]]
) -> Iterator[dict[str, str]]:
    states = [peer["state"] for peer in peers if not peer.get("backup")]
    if states and "up" not in states:
        yield _bad(f"{name}: no server of upstream {upstream} is up")
    for peer in peers:
        if peer["state"] in _OUT:
            why = peer.get("last_failure_reason")
            text = f"{name}: server {peer['server']} of upstream {upstream} is {peer['state']}"
            yield _bad(f"{text}: {why}" if why else text)


def _processes(name: str, processes: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, str]]:
    for process in processes:
        if process.get("state") == "hangs":
            number, pid = process.get("number"), process["pid"]
            yield _bad(f"{name}: worker {number} (process {pid}) hangs")


def _resizer(name: str, resizer: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    waiting, room = sum(resizer["waiting"].values()), resizer["queue"]
    if room and waiting >= room:
        yield _bad(f"{name}: its queue is full ({waiting} pictures wait), more are refused")
    elif room and waiting > room / 2:
        yield _warn(f"{name}: {waiting} pictures wait, there is room for {room}")
    if resizer["quarantined"]:
        count = resizer["quarantined"]
        what = "picture that takes" if count == 1 else "pictures that take"
        yield _warn(f"{name}: {count} {what} too long, in quarantine until the original changes")


def _failures(name: str, samples: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, str]]:
    ours = [(each["time"], each["of"][name]) for each in samples if name in each["of"]]
    if not ours:
        return
    end, now = ours[-1]
    for when, then in ours:
        if end - WINDOW <= when and then["n"] <= now["n"]:
            failed, asked = now["e"] - then["e"], now["n"] - then["n"]
            if failed > 0 and asked > 0:
                text = f"{name}: {failed} of {asked} answers within the last minute were 5xx"
                yield _bad(text) if failed > MANY * asked else _warn(text)
            return


def sample(time: float, instances: Iterable[Instance], quiet: str = "") -> dict[str, Any]:
    """The counters of a moment that plots are made of, by instance; those that are down are left
    out. Of the server named ``quiet`` (that of the page itself) nothing is counted.

    ``n`` requests, ``e`` of them 5xx, ``b`` bytes sent, ``h`` buckets, ``c`` requests to caches:
    hits, all; ``u`` servers that are out; of a resizer ``q`` jobs, waiting and running, each cheap
    and expensive, and ``j`` done.
    """
    return {
        "time": time,
        "of": {each["name"]: _sample(each["status"], quiet) for each in instances if each["up"]},
    }


def _sample(status: Mapping[str, Any], quiet: str) -> dict[str, Any]:
    resizer = status.get("resizer")
    if resizer is not None:
        servers = [resizer["answers"]]
    else:
        servers = [each for name, each in status["servers"].items() if name != quiet]
    buckets = [each["buckets"].values() for each in servers]
    caches = list(status.get("caches", {}).values())
    served = sum(zone[key] for zone in caches for key in ("hits", "stale", "updating"))
    missed = sum(zone[key] for zone in caches for key in ("misses", "expired", "bypass"))
    found = {
        "n": sum(each["requests"] for each in servers),
        "e": sum(each["responses"]["5xx"] for each in servers),
        "b": sum(each["sent"] for each in servers),
        "h": [sum(cell[i] for cells in buckets for cell in cells) for i in range(BUCKETS)],
        "c": [served, served + missed],
        "u": [
            f"{name} {peer['server']}"
            for name, upstream in status.get("upstreams", {}).items()
            for peer in upstream["peers"]
            if peer["state"] in _OUT
        ],
    }
    if resizer is not None:
        lanes = [resizer[what][lane] for what in ("waiting", "running")
                 for lane in ("cheap", "expensive")]  # fmt: skip
        found |= {"q": lanes, "j": resizer["jobs"]["done"]}
    return found
