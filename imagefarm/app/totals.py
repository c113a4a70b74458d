"""What the workers of a daemon have counted, added up.

A worker's figures are trees: dictionaries of dictionaries, numbers, and lists of numbers. Those
in ``counters`` only ever grow, and what a worker that is gone has counted stays in the sum; those
in ``gauges`` are of the moment, and go with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from attrs import frozen

from imagefarm.http.meter import BUCKETS, SECONDS, describe
from imagefarm.image.pool import PoolSettings

#: The most recent errors that are kept of all processes.
MAX_ERRORS: Final = 50

#: The originals that a resizer tells of.
MAX_ORIGINALS: Final = 20

Tree = Any

_PEER: Final = ("requests", "sent", "received", "fails", "unavail", "responses", "times")
#: Of a cache zone's report: what is no counter.
_ZONE: Final = frozenset({"entries", "size", "max_size", "hit_ratio", "manager"})


def plus(one: Tree, other: Tree) -> Tree:
    """The sum of two trees; what is in only one of them is taken as it is."""
    if isinstance(one, Mapping):
        names = dict.fromkeys([*one, *other])
        return {
            name: plus(one[name], other[name]) if name in one and name in other
            else one.get(name, other.get(name))
            for name in names
        }  # fmt: skip
    if isinstance(one, Sequence):
        longer, shorter = (one, other) if len(one) >= len(other) else (other, one)
        sums = [plus(a, b) for a, b in zip(longer, shorter, strict=False)]
        return [*sums, *longer[len(shorter) :]]
    return one + other


def fold(left: Mapping[str, Any], gone: Mapping[str, Any]) -> dict[str, Any]:
    """`process.ledger.Fold`: what is left of a worker is what it has counted, and its errors."""
    return {
        "counters": plus(left.get("counters", {}), gone.get("counters", {})),
        "errors": latest(left.get("errors", ()), gone.get("errors", ())),
    }


def latest(*some: Sequence[Any]) -> list[Any]:
    """The last errors of all, in the order of time, which each begins with."""
    merged = sorted((error for errors in some for error in errors), key=lambda error: error[0])
    return merged[-MAX_ERRORS:]


@frozen
class Figures:
    """The sums of all workers."""

    counters: Tree
    gauges: Tree


def figures(left: Mapping[str, Any], documents: Sequence[Mapping[str, Any]]) -> Figures:
    """The sums of the documents of those who live, and of what the others have left."""
    counters: Tree = left.get("counters", {})
    gauges: Tree = {}
    for document in documents:
        counters = plus(counters, document.get("counters", {}))
        gauges = plus(gauges, document.get("gauges", {}))
    return Figures(counters, gauges)


# A server's report: what of it is counted, and the report with the sums in its place.


def figures_of(report: Mapping[str, Any], meters: Mapping[str, Any]) -> Figures:
    """What one worker has counted. ``meters`` are `http.meter.Meter.report` by server name."""
    connections = report["connections"]
    return Figures(
        {
            "connections": {name: connections[name] for name in ("accepted", "handled")},
            "servers": meters,
            "upstreams": {
                name: {key: {k: peer[k] for k in _PEER} for key, peer in keyed(upstream["peers"])}
                for name, upstream in report["upstreams"].items()
            },
            "resolvers": report["resolvers"],
            "caches": {
                name: {key: value for key, value in zone.items() if key not in _ZONE}
                for name, zone in report["caches"].items()
            },
        },
        {
            "connections": {
                name: connections[name] for name in ("active", "reading", "writing", "waiting")
            },
            "upstreams": {
                name: {
                    "keepalive": upstream["keepalive"],
                    "active": {key: peer["active"] for key, peer in keyed(upstream["peers"])},
                }
                for name, upstream in report["upstreams"].items()
            },
            "caches": {
                name: {"manager": int(zone["manager"])} for name, zone in report["caches"].items()
            },
        },
    )


def keyed(peers: Sequence[Mapping[str, Any]]) -> list[tuple[str, Mapping[str, Any]]]:
    """The peers by their address; a second one of the same is ``address#2``."""
    seen: dict[str, int] = {}
    found = []
    for peer in peers:
        name = peer["server"]
        count = seen[name] = seen.get(name, 0) + 1
        found.append((name if count == 1 else f"{name}#{count}", peer))
    return found


def with_totals(report: Mapping[str, Any], sums: Figures) -> dict[str, Any]:
    """One worker's report with the sums of all. States are that worker's, or the latest."""
    counters, gauges = sums.counters, sums.gauges
    servers = {name: describe(cells) for name, cells in counters["servers"].items()}
    return {
        **report,
        "connections": {**counters["connections"], **gauges["connections"]},
        "requests": sum(server["requests"] for server in servers.values()),
        "received": sum(server["received"] for server in servers.values()),
        "sent": sum(server["sent"] for server in servers.values()),
        "servers": servers,
        "upstreams": {
            name: {
                **upstream,
                "peers": [
                    _peer(
                        peer, counters["upstreams"][name][key],
                        gauges["upstreams"][name]["active"][key],
                    )
                    for key, peer in keyed(upstream["peers"])
                ],
                "keepalive": gauges["upstreams"][name]["keepalive"],
            }
            for name, upstream in report["upstreams"].items()
        },
        "resolvers": {name: counters["resolvers"][name] for name in report["resolvers"]},
        "caches": {
            name: _zone(zone, counters["caches"][name], gauges["caches"][name])
            for name, zone in report["caches"].items()
        },
    }  # fmt: skip


def _peer(peer: Mapping[str, Any], counted: Mapping[str, Any], active: int) -> Mapping[str, Any]:
    found = {**peer, **counted, "active": active}
    for name in ("header", "response"):
        seconds, count = counted["times"][name]
        found["times"] = {**found["times"], name: [round(seconds, 6), count]}
        if count:
            found[f"{name}_time"] = round(1000 * seconds / count)
    return found


def _zone(zone: Mapping[str, Any], counted: Mapping[str, Any], gauges: Any) -> Mapping[str, Any]:
    found = {**zone, **counted, "manager": gauges["manager"] > 0}
    return {**found, "hit_ratio": hit_ratio(counted)}


def hit_ratio(counted: Mapping[str, int]) -> float | None:
    """The share of requests that were answered from the cache; None before the first."""
    served = counted["hits"] + counted["stale"] + counted["updating"]
    asked = served + counted["misses"] + counted["expired"] + counted["bypass"]
    return round(served / asked, 4) if asked else None


def resizer_status(sums: Figures, settings: PoolSettings) -> dict[str, Any]:
    """What all workers of a resizer have done, and do."""
    counters, gauges = sums.counters, sums.gauges
    requests = describe(counters["requests"])
    workers = gauges["workers"]
    originals = sorted(gauges["originals"].items(), key=lambda item: item[1][1], reverse=True)
    return {
        "requests": requests["requests"],
        "sent": requests["sent"],
        "resizer": {
            "answers": requests,
            "jobs": counters["jobs"],
            "waiting": gauges["waiting"],
            "running": gauges["running"],
            "queue": settings.queue * workers,
            "processes": settings.processes * workers,
            "quarantined": gauges["quarantined"],
            "lanes": {
                name: {
                    "jobs": int(sum(cell[:BUCKETS])),
                    "seconds": round(cell[SECONDS], 6),
                    "buckets": [int(number) for number in cell[:BUCKETS]],
                }
                for name, cell in counters["lanes"].items()
            },
            "steps": {
                name: {"seconds": round(seconds, 6), "count": int(count)}
                for name, (seconds, count) in counters["steps"].items()
            },
            "originals": [
                {"original": name, "jobs": round(jobs, 1), "seconds": round(seconds, 3)}
                for name, (jobs, seconds) in originals[:MAX_ORIGINALS]
            ],
        },
    }
