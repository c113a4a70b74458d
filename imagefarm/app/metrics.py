"""The status of a daemon as metrics (`resources.metrics`)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from imagefarm.http.meter import BOUNDS, CLASSES
from imagefarm.resources.metrics import Family, Sample, histogram

#: Of a peer's JSON: where a number stands, and the metric that it becomes.
_PEER: Final[tuple[tuple[tuple[str, ...], str, str, str], ...]] = (
    (("active",), "active_requests", "gauge", "Requests that the server works on now."),
    (("weight",), "weight", "gauge", "The server's weight."),
    (("sent",), "sent_bytes_total", "counter", "Bytes sent to the server."),
    (("received",), "received_bytes_total", "counter", "Bytes received from the server."),
    (("fails",), "fails_total", "counter", "Unsuccessful attempts to use the server."),
    (("unavail",), "unavail_total", "counter", "How often failures put the server out."),
    (("health_checks", "checks"), "health_checks_total", "counter", "Health checks made."),
    (("health_checks", "fails"), "health_checks_failed_total", "counter",
     "Health checks that failed."),
    (("health_checks", "unhealthy"), "health_checks_unhealthy_total", "counter",
     "How often health checks put the server out."),
)  # fmt: skip
#: Of a cache zone's JSON: what is no counter.
_ZONE: Final = (
    ("entries", "entries", "Answers in the cache, of all processes."),
    ("size", "size_bytes", "Bytes on the disk of the answers in the cache, of all processes."),
    ("max_size", "max_size_bytes", "The most that the cache may hold."),
    (
        "hit_ratio",
        "hit_ratio",
        "The share of requests that no upstream was waited for.",
    ),
    ("manager", "manager", "1 where one of our processes manages the cache's directory."),
)
STATES: Final = ("up", "draining", "down", "unavail", "checking", "unhealthy")
_CODES: Final = CLASSES
#: Of a process's JSON.
_PROCESS: Final = (
    ("cpu", "cpu_seconds_total", "counter", "Seconds of processor time."),
    ("resident", "resident_memory_bytes", "gauge", "Memory that the process holds."),
    ("descriptors", "open_fds", "gauge", "Open file descriptors."),
    ("threads", "threads", "gauge", "Threads."),
    ("uptime", "uptime_seconds", "gauge", "Seconds since the process was started."),
)


def families(status: Mapping[str, Any]) -> Iterable[Family]:
    """The metrics of what the JSON status says."""
    connections = status["connections"]
    yield Family(
        "imagefarm_connections_accepted_total", "counter", "Connections that came.",
        (Sample(connections["accepted"]),),
    )  # fmt: skip
    yield Family(
        "imagefarm_connections_handled_total", "counter", "Connections that were served.",
        (Sample(connections["handled"]),),
    )  # fmt: skip
    states = ("reading", "writing", "waiting")
    yield Family(
        "imagefarm_connections", "gauge", "Connections now, by what they are at.",
        tuple(Sample(connections[state], {"state": state}) for state in states),
    )  # fmt: skip
    yield from _servers(status["servers"])
    yield from common(status)
    yield from _upstreams(status["upstreams"])
    yield from _caches(status["caches"])


def common(status: Mapping[str, Any]) -> Iterable[Family]:
    """The metrics that all roles have."""
    yield Family(
        "imagefarm_uptime_seconds", "gauge", "Seconds since the daemon was started.",
        (Sample(status["uptime"]),),
    )  # fmt: skip
    yield from _configuration(status["configuration"])
    yield from _processes(status["processes"])


def resizer_families(status: Mapping[str, Any]) -> Iterable[Family]:
    """The metrics of a resizer."""
    yield from common(status)
    resizer = status["resizer"]
    answers, prefix = resizer["answers"], "imagefarm_resizer_"
    yield Family(
        f"{prefix}requests_total", "counter", "Requests of web servers, by class of status.",
        tuple(Sample(count, {"code": code}) for code, count in answers["responses"].items()),
    )  # fmt: skip
    yield Family(
        f"{prefix}request_duration_seconds", "histogram", "From a request to its answer.",
        tuple(
            sample
            for code, buckets in answers["buckets"].items()
            if sum(buckets)
            for sample in histogram(buckets, BOUNDS, answers["seconds"][code], {"code": code})
        ),
    )  # fmt: skip
    yield Family(
        f"{prefix}jobs_total", "counter", "What became of jobs, and of processes.",
        tuple(Sample(count, {"event": event}) for event, count in resizer["jobs"].items()),
    )  # fmt: skip
    yield Family(
        f"{prefix}job_duration_seconds", "histogram", "From a job's coming to its end, by lane.",
        tuple(
            sample
            for name, lane in resizer["lanes"].items()
            for sample in histogram(lane["buckets"], BOUNDS, lane["seconds"], {"lane": name})
        ),
    )  # fmt: skip
    for word, text in (
        ("waiting", "Jobs that wait for a process."), ("running", "Jobs that are worked on."),
    ):  # fmt: skip
        yield Family(
            f"{prefix}jobs_{word}", "gauge", text,
            tuple(Sample(count, {"lane": lane}) for lane, count in resizer[word].items()),
        )  # fmt: skip
    for key, text in (
        ("queue", "The most jobs that may wait."),
        ("processes", "Processes that work at the same time."),
        ("quarantined", "Originals that are not tried again as long as they are the same."),
    ):
        yield Family(f"{prefix}{key}", "gauge", text, (Sample(resizer[key]),))
    yield Family(
        f"{prefix}step_seconds", "summary", "What the steps of jobs took; queue is the waiting.",
        tuple(
            Sample(value, {"step": name}, suffix)
            for name, step in resizer["steps"].items()
            for suffix, value in (("_sum", step["seconds"]), ("_count", step["count"]))
        ),
    )  # fmt: skip


def _servers(servers: Mapping[str, Any]) -> Iterable[Family]:
    each = [
        ({"server": name, "code": code}, server, code)
        for name, server in servers.items()
        for code in _CODES
        if server["responses"][code]
    ]
    yield Family(
        "imagefarm_http_requests_total", "counter",
        "Requests of clients, by virtual server and class of status.",
        tuple(Sample(server["responses"][code], labels) for labels, server, code in each),
    )  # fmt: skip
    yield Family(
        "imagefarm_http_request_duration_seconds", "histogram",
        "From the first byte of a request to the last of its answer.",
        tuple(
            sample
            for labels, server, code in each
            for sample in histogram(
                server["buckets"][code], BOUNDS, server["seconds"][code], labels
            )
        ),
    )  # fmt: skip
    for word, text in (("received", "Bytes of requests."), ("sent", "Bytes of answers.")):
        yield Family(
            f"imagefarm_http_{word}_bytes_total", "counter", text,
            tuple(Sample(server[word], {"server": name}) for name, server in servers.items()),
        )  # fmt: skip


def _processes(processes: Iterable[Mapping[str, Any]]) -> Iterable[Family]:
    found = [
        ({"role": process["role"], "pid": str(process["pid"])}, process)
        for process in processes
        if process["role"] != "farm"  # which all of its members tell of
    ]
    for key, name, kind, text in _PROCESS:
        yield Family(
            f"imagefarm_process_{name}", kind, text,
            tuple(
                Sample(process[key], labels)
                for labels, process in found
                if process.get(key) is not None
            ),
        )  # fmt: skip


def _configuration(configuration: Mapping[str, Any]) -> Iterable[Family]:
    if configuration:
        yield Family(
            "imagefarm_config_generation", "gauge", "How many configurations have been in force.",
            (Sample(configuration["generation"]),),
        )  # fmt: skip
        yield Family(
            "imagefarm_config_last_reload_successful", "gauge",
            "Whether the last configuration that was to be used could be.",
            (Sample(int(configuration["last_reload"] == "ok")),),
        )  # fmt: skip


def _upstreams(upstreams: Mapping[str, Any]) -> Iterable[Family]:
    yield Family(
        "imagefarm_upstream_keepalive_connections", "gauge", "Idle connections that are kept.",
        tuple(Sample(u["keepalive"], {"upstream": name}) for name, u in upstreams.items()),
    )  # fmt: skip
    peers = [
        ({"upstream": name, "peer": peer["server"]}, peer)
        for name, upstream in upstreams.items()
        for peer in upstream["peers"]
    ]
    prefix = "imagefarm_upstream_peer_"
    yield Family(
        f"{prefix}requests_total", "counter", "Answers of the server, by class of status.",
        tuple(
            Sample(peer["responses"][code], {**labels, "code": code})
            for labels, peer in peers for code in _CODES
        ),
    )  # fmt: skip
    yield Family(
        f"{prefix}state", "gauge", "1 for the state that the server is in, 0 for the others.",
        tuple(
            Sample(peer["state"] == state, {**labels, "state": state})
            for labels, peer in peers for state in STATES
        ),
    )  # fmt: skip
    for path, name, kind, text in _PEER:
        samples = tuple(Sample(_at(peer, path), labels) for labels, peer in peers)
        yield Family(prefix + name, kind, text, samples)
    for word, text in (
        ("header", "From the beginning of an attempt to the head of its answer."),
        ("response", "From the beginning of an attempt to the end of its answer."),
    ):
        pairs = [(labels, peer["times"][word]) for labels, peer in peers]
        samples = tuple(
            Sample(value, labels, suffix)
            for labels, (total, count) in pairs
            for suffix, value in (("_sum", total), ("_count", count))
        )
        yield Family(f"{prefix}{word}_seconds", "summary", text, samples)


def _at(value: Any, path: tuple[str, ...]) -> float:
    for name in path:
        value = value[name]
    number: float = value
    return number


def _caches(caches: Mapping[str, Any]) -> Iterable[Family]:
    for key, name, text in _ZONE:
        yield Family(
            f"imagefarm_cache_{name}", "gauge", text,
            tuple(
                Sample(zone[key], {"zone": name})
                for name, zone in caches.items()
                if zone[key] is not None
            ),
        )  # fmt: skip
    state = {key for key, _, _ in _ZONE}
    yield Family(
        "imagefarm_cache_events_total", "counter", "What became of requests, and of entries.",
        tuple(
            Sample(count, {"zone": name, "event": event})
            for name, zone in caches.items()
            for event, count in zone.items()
            if event not in state
        ),
    )  # fmt: skip
