"""The state of upstreams and caches as plain values, for the status pages and the API."""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from attrs import asdict, frozen

from imagefarm.cache.zone import Zone
from imagefarm.proxy.group import Group
from imagefarm.proxy.health.records import Tally
from imagefarm.proxy.names.reply import Kind
from imagefarm.proxy.names.resolver import Resolver
from imagefarm.proxy.peer import Peer

from .health import HealthChecks
from .servers import keyed
from .totals import hit_ratio

_CODES: Final = {
    0: "noerror", 1: "formerr", 2: "servfail", 3: "nxdomain", 4: "notimp", 5: "refused",
    110: "timedout",
}  # fmt: skip


@frozen(eq=False)
class UpstreamReport:
    """Reports on groups. ``clock`` gives seconds since the epoch.

    Names and meanings are nginx Plus's (ngx_http_api_module, "HTTP Upstream"). Counters are this
    process's own since it started (`totals` adds them up), those of health checks all workers'.
    """

    groups: Mapping[str, Group]
    checks: HealthChecks
    clock: Callable[[], float]

    def group(self, name: str, numbers: Mapping[str, int]) -> Mapping[str, Any]:
        """One group; ``numbers`` are its servers'."""
        group = self.groups[name]
        return {
            "peers": [self._peer(group, key, p, numbers.get(key, -1)) for key, p in
                      keyed(group.peers)],
            "keepalive": group.idle,
            "zombies": 0,
        }  # fmt: skip

    def _peer(self, group: Group, key: str, peer: Peer, number: int) -> Mapping[str, Any]:
        now = group.reactor.seconds()
        counters = peer.counters
        name = peer.name.decode("utf-8", "replace")
        found: dict[str, Any] = {
            "id": number,
            "server": name,
            "name": peer.server.decode("utf-8", "replace"),
            "backup": peer.backup,
            "weight": peer.weight,
            "state": peer.state(now),
            "active": peer.conns,
            "requests": counters.requests,
            "responses": {
                **{f"{n}xx": counters.responses[n] for n in range(1, 6)},
                "total": sum(counters.responses),
            },
            "sent": counters.sent,
            "received": counters.received,
            "fails": counters.fails,
            "unavail": counters.unavail,
            "health_checks": _checks(self.checks.tally(group, key)),
            # Sums in seconds with what they are sums of, for those who draw rates.
            "times": {
                "header": [round(counters.header_time, 6), sum(counters.responses)],
                "response": [round(counters.response_time, 6), counters.completed],
            },
        }
        if peer.max_conns:
            found["max_conns"] = peer.max_conns
        if found["responses"]["total"]:
            found["header_time"] = round(1000 * counters.header_time / sum(counters.responses))
        if counters.completed:
            found["response_time"] = round(1000 * counters.response_time / counters.completed)
        if counters.selected is not None:
            found["selected"] = self._date(counters.selected, now)
        if counters.last_failure is not None:
            found["last_failure"] = self._date(counters.last_failure, now)
            found["last_failure_reason"] = counters.last_reason
        since = self.checks.since(peer)
        if found["state"] == "unavail":
            since = counters.last_failure
        if since is not None:
            found["downstart"] = self._date(since, now)
        return found

    def _date(self, moment: float, now: float) -> str:
        """A moment of the reactor's clock as ISO 8601."""
        date = datetime.datetime.fromtimestamp(self.clock() - (now - moment), datetime.UTC)
        return date.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _checks(tally: Tally) -> Mapping[str, Any]:
    found: dict[str, Any] = {
        "checks": tally.checks, "fails": tally.fails, "unhealthy": tally.unhealthy,
    }  # fmt: skip
    if tally.last_passed is not None:
        found["last_passed"] = tally.last_passed
    return found


def resolver_report(resolvers: Sequence[Resolver]) -> Mapping[str, Any]:
    """What the resolvers of one ``status_zone`` asked, and what became of it (nginx's words)."""
    asked = sum((resolver.asked for resolver in resolvers), Counter[Kind]())
    codes = sum((resolver.codes for resolver in resolvers), Counter[int]())
    responses = {word: codes.pop(code, 0) for code, word in _CODES.items()}
    return {
        "requests": {kind.name.lower(): asked[kind] for kind in Kind},
        "responses": {**responses, "unknown": codes.total()},
    }


def zone_report(zone: Zone) -> Mapping[str, Any]:
    """A cache zone: what it holds (bytes, of all processes), and what became of requests here.

    ``hit_ratio`` is the share of requests answered from the cache; None before the first.
    """
    counts = asdict(zone.counters)
    return {
        "entries": zone.entries,
        "size": zone.size,
        "max_size": zone.settings.max_size,
        "hit_ratio": hit_ratio(counts),
        "manager": zone.manager,
        **counts,
    }
