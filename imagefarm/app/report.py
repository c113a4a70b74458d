"""The state of upstreams and caches as plain values, for the status page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import asdict

from imagefarm.cache.zone import Zone
from imagefarm.proxy.group import Group
from imagefarm.proxy.peer import Peer


def _peer(group: Group, peer: Peer) -> Mapping[str, Any]:
    up = peer.available(group.reactor.seconds())
    return {
        "address": peer.name.decode("latin-1"),
        "state": "down" if peer.down else "up" if up else "unavailable",
        "weight": peer.weight,
        "backup": peer.backup,
        "active": peer.conns,
        "fails": peer.fails,
    }


def peers_report(group: Group) -> list[Mapping[str, Any]]:
    """The peers of a group."""
    return [_peer(group, peer) for peer in (*group.peers.primary, *group.peers.backup)]


def zone_report(zone: Zone) -> Mapping[str, Any]:
    """A cache zone: what it holds (bytes), and what became of requests."""
    return {"entries": zone.entries, "size": zone.size, **asdict(zone.counters)}
