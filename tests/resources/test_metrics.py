"""Prometheus's text format, read back by a reader of its own."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.app.metrics import families
from imagefarm.http.meter import Meter, describe
from imagefarm.resources.metrics import Family, Sample, exposition

_LINE = re.compile(r'([a-z_]+)(?:\{((?:[a-z]+="(?:[^"\\\n]|\\[\\n"])*",?)+)\})? (-?[0-9.e+-]+)')
_LABEL = re.compile(r'([a-z]+)="((?:[^"\\\n]|\\[\\n"])*)"')
_PLAIN = {r"\\": "\\", r"\n": "\n", r"\"": '"'}


def read(text: bytes) -> list[tuple[str, dict[str, str], float]]:
    """The samples; each has to follow the HELP and TYPE of its family."""
    found = []
    family = ""
    for line in text.decode().split("\n")[:-1]:
        if line.startswith("# HELP "):
            family = line.split(" ")[2]
        elif line.startswith("# TYPE "):
            assert line.split(" ")[2] == family
            assert line.split(" ")[3] in ("counter", "gauge", "summary", "histogram")
        else:
            match = _LINE.fullmatch(line)
            assert match is not None, line
            assert match[1].startswith(family)
            labels = {
                name: re.sub(r'\\[\\n"]', lambda m: _PLAIN[m[0]], value)
                for name, value in _LABEL.findall(match[2] or "")
            }
            found.append((match[1], labels, float(match[3])))
    return found


class ExpositionTests(SynchronousTestCase):
    def test_the_text(self) -> None:
        family = Family(
            "x_total",
            "counter",
            "Two\nlines.",
            (Sample(3, {"a": 'q"b\\', "pid": "7"}), Sample(0.5)),
        )
        self.assertEqual(
            exposition([family, Family("y", "gauge", "None.", ())]),
            b"# HELP x_total Two\\nlines.\n# TYPE x_total counter\n"
            b'x_total{a="q\\"b\\\\",pid="7"} 3\nx_total 0.5\n',
        )

    @given(
        st.text(st.characters(exclude_categories=["Cs"])),
        st.floats(allow_nan=False, allow_infinity=False, width=32),
    )
    def test_property(self, value: str, number: float) -> None:
        family = Family("x", "gauge", "X.", (Sample(number, {"a": value}),))
        ((name, labels, read_number),) = read(exposition([family]))
        self.assertEqual((name, labels), ("x", {"a": value}))
        self.assertAlmostEqual(read_number, number, places=5)


class FamiliesTests(SynchronousTestCase):
    def test_the_status_as_metrics(self) -> None:
        peer = {
            "server": "10.0.0.1:80", "active": 2, "weight": 5, "sent": 10, "received": 20,
            "fails": 1, "unavail": 0, "state": "draining",
            "responses": {"1xx": 0, "2xx": 7, "3xx": 0, "4xx": 1, "5xx": 0},
            "health_checks": {"checks": 9, "fails": 2, "unhealthy": 1},
            "times": {"header": [1.5, 8], "response": [2.25, 8]},
        }  # fmt: skip
        meter = Meter()
        for seconds in (0.0005, 0.003, 60.0):
            meter.count(200, seconds, 10, 100)
        status = {
            "uptime": 1.5, "requests": 4, "servers": {"img": describe(meter.report())},
            "processes": [
                {"role": "worker", "pid": 7, "cpu": 1.5, "resident": 4096, "descriptors": None},
            ],
            "configuration": {"generation": 3, "last_reload": "failed"},
            "connections": {"accepted": 9, "handled": 8, "reading": 1, "writing": 2, "waiting": 3},
            "upstreams": {"back": {"keepalive": 3, "peers": [peer]}},
            "caches": {
                "thumbs": {
                    "entries": 1, "size": 2048, "max_size": None, "hit_ratio": 0.5,
                    "manager": True, "hits": 5,
                },
            },
        }  # fmt: skip
        found = read(exposition(families(status)))
        prefix, duration = "imagefarm_upstream_peer_", "imagefarm_http_request_duration_seconds"
        ok = {"server": "img", "code": "2xx"}
        mine = {"upstream": "back", "peer": "10.0.0.1:80"}
        for sample in (
            ("imagefarm_config_generation", {}, 3),
            ("imagefarm_config_last_reload_successful", {}, 0),
            (f"{prefix}requests_total", {**mine, "code": "2xx"}, 7),
            (f"{prefix}state", {**mine, "state": "draining"}, 1),
            (f"{prefix}state", {**mine, "state": "up"}, 0),
            (f"{prefix}sent_bytes_total", mine, 10),
            (f"{prefix}health_checks_failed_total", mine, 2),
            (f"{prefix}header_seconds_sum", mine, 1.5),
            (f"{prefix}response_seconds_count", mine, 8),
            ("imagefarm_cache_events_total", {"zone": "thumbs", "event": "hits"}, 5),
            ("imagefarm_cache_hit_ratio", {"zone": "thumbs"}, 0.5),
            ("imagefarm_cache_size_bytes", {"zone": "thumbs"}, 2048),
            ("imagefarm_cache_manager", {"zone": "thumbs"}, 1),
            ("imagefarm_connections", {"state": "waiting"}, 3),
            ("imagefarm_http_requests_total", ok, 3),
            (f"{duration}_bucket", {**ok, "le": "0.001"}, 1),
            (f"{duration}_bucket", {**ok, "le": "0.005"}, 2),
            (f"{duration}_bucket", {**ok, "le": "10"}, 2),
            (f"{duration}_bucket", {**ok, "le": "+Inf"}, 3),
            (f"{duration}_count", ok, 3),
            (f"{duration}_sum", ok, 60.0035),
            ("imagefarm_http_sent_bytes_total", {"server": "img"}, 300),
            ("imagefarm_process_cpu_seconds_total", {"role": "worker", "pid": "7"}, 1.5),
        ):
            self.assertIn(sample, found)
        self.assertNotIn("imagefarm_process_open_fds", [name for name, _, _ in found])
        names = [(name, tuple(labels.items())) for name, labels, _ in found]
        self.assertEqual(len(names), len(set(names)))
