"""The status of a daemon: the sums of all its workers, whatever becomes of them."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from typing import Any

from tests.functional.test_commands import CommandCase
from tests.resources.test_metrics import read
from tests.support import rawhttp
from tests.support.processes import Daemon, descendants, running, wait_until

CONFIGURATION = """
worker_processes {workers};
worker_shutdown_timeout 5s;
error_log  logs/error.log notice;
pid        logs/status.pid;
events {{ }}
http {{
    access_log  {log};
    root        images;
    server {{
        listen       127.0.0.1:{port};
        server_name  pictures;
        location = /status {{ status; access_log off; }}
        location = /metrics {{ status prometheus; access_log off; }}
        location = /stub {{ stub_status; access_log off; }}
        location / {{ }}
    }}
}}
"""
#: Connections, and requests on each: any of them may land in any worker.
CONNECTIONS, EACH = 12, 5


class StatusCase(CommandCase):
    workers = 2
    log = "logs/access.log"

    def setUp(self) -> None:
        super().setUp()
        text = CONFIGURATION.format(workers=self.workers, port=self.port, log=self.log)
        self.prefix.write("status.conf", text)
        self.daemon = self.start("slave", config="status.conf")

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.get("/status").body)
        return found

    def metrics(self) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
        samples = read(self.get("/metrics").body)
        found = {(name, tuple(sorted(labels.items()))): value for name, labels, value in samples}
        self.assertEqual(len(found), len(samples), "a sample is there twice")
        return found

    def load(self) -> None:
        for _ in range(CONNECTIONS):
            with rawhttp.connect(self.port) as sock:
                reader = rawhttp.Reader(sock)
                for number in range(EACH):
                    target = "/missing" if number == 0 else "/a.txt"
                    sock.sendall(rawhttp.request(target))
                    self.assertIsNotNone(reader.answer())

    def workers_of(self, daemon: Daemon) -> list[int]:
        return [p["pid"] for p in self.status()["processes"] if p["role"] == "worker"]


class Sums(StatusCase):
    def test_all_workers_count(self) -> None:
        """Requests, bytes and histograms are exact, whichever worker answers."""
        before = self.status()
        self.load()
        answered_by = set()
        for asked in range(1, 30):
            now = self.status()
            answered_by.add(now["pid"])
            made = CONNECTIONS * EACH
            self.assertEqual(now["requests"] - before["requests"], made + asked)
            server = now["servers"]["pictures"]
            self.assertEqual(server["responses"]["4xx"], CONNECTIONS)
            self.assertEqual(sum(server["buckets"]["2xx"]), server["responses"]["2xx"])
            self.assertGreater(server["sent"], made * 100)
            self.assertEqual(
                now["connections"]["accepted"] - before["connections"]["accepted"],
                CONNECTIONS + asked,
            )
            if len(answered_by) == self.workers:
                break
        self.assertEqual(len(answered_by), self.workers)
        roles = Counter(process["role"] for process in now["processes"])
        self.assertEqual(roles, {"master": 1, "worker": 2})
        self.assertEqual(
            {process["pid"] for process in now["processes"]},
            {self.daemon.pid, *descendants(self.daemon.pid)},
        )
        for process in now["processes"]:
            self.assertGreater(process["resident"], 1 << 20)
            self.assertGreater(process["descriptors"], 3)
        self.stub(now)
        self.prometheus(now)

    def stub(self, status: dict[str, Any]) -> None:
        text = self.get("/stub").body.decode()
        accepted, requests = status["connections"]["accepted"] + 1, status["requests"] + 2
        self.assertEqual(
            text,
            "Active connections: 1 \nserver accepts handled requests\n"
            f" {accepted} {accepted} {requests} \nReading: 0 Writing: 1 Waiting: 0 \n",
        )

    def prometheus(self, status: dict[str, Any]) -> None:
        found = self.metrics()
        labels = (("code", "4xx"), ("server", "pictures"))
        self.assertEqual(found["imagefarm_http_requests_total", labels], CONNECTIONS)
        name = "imagefarm_http_request_duration_seconds"
        buckets = [
            value
            for (sample, where), value in found.items()
            if sample == f"{name}_bucket" and ("code", "4xx") in where
        ]
        self.assertEqual(buckets, sorted(buckets))
        self.assertEqual(buckets[-1], found[f"{name}_count", labels])
        pids = {dict(where)["pid"] for (sample, where) in found if sample.endswith("open_fds")}
        self.assertEqual(pids, {str(process["pid"]) for process in status["processes"]})


class NeverLess(StatusCase):
    def counters(self) -> dict[Any, float]:
        return {
            key: value
            for key, value in self.metrics().items()
            if key[0].endswith(("_total", "_bucket", "_count", "_sum"))
            and not key[0].startswith("imagefarm_process")
        }

    def assert_not_less(self, before: dict[Any, float]) -> dict[Any, float]:
        now = self.counters()
        less = {
            key: (value, now.get(key)) for key, value in before.items() if value > now.get(key, -1)
        }
        self.assertEqual(less, {})
        return now

    def test_workers_die_and_are_replaced(self) -> None:
        """By kill -9, by a reload, by another number of workers."""
        self.load()
        known = self.counters()
        for _ in range(3):
            victim = self.workers_of(self.daemon)[0]
            os.kill(victim, signal.SIGKILL)
            wait_until(lambda pid=victim: not running(pid), 10, "end")
            known = self.assert_not_less(known)
            wait_until(lambda: len(self.workers_of(self.daemon)) == 2, 20, "successor")
            self.load()
            known = self.assert_not_less(known)
        errors = self.status()["errors"]
        self.assertTrue(any("was killed by signal 9" in error["text"] for error in errors), errors)
        old = set(self.workers_of(self.daemon))
        text = CONFIGURATION.format(workers=3, port=self.port, log=self.log)
        self.prefix.write("status.conf", text)
        self.daemon.signal(signal.SIGHUP)
        wait_until(lambda: len(set(self.workers_of(self.daemon)) - old) == 3, 20, "new workers")
        known = self.assert_not_less(known)
        wait_until(lambda: not any(map(running, old)), 20, "end of the old ones")
        wait_until(lambda: len(self.workers_of(self.daemon)) == 3, 20, "the end in the status")
        self.assert_not_less(known)

    def test_a_worker_that_hangs(self) -> None:
        """What it has told last is told for it, and nobody waits for it for long."""
        self.load()
        known = self.counters()
        victim = self.workers_of(self.daemon)[0]
        os.kill(victim, signal.SIGSTOP)
        self.addCleanup(os.kill, victim, signal.SIGCONT)
        self.assert_not_less(known)  # who is stopped does not accept

        def state() -> str:
            return next(p["state"] for p in self.status()["processes"] if p["pid"] == victim)

        wait_until(lambda: state() == "hangs", 30, "word of it")
        self.assert_not_less(known)
        os.kill(victim, signal.SIGCONT)
        wait_until(lambda: state() == "serves", 30, "its return")


class Alone(StatusCase):
    """Without workers, and without a log: the fast path counts all the same."""

    workers = 1
    log = "off"

    def setUp(self) -> None:
        CommandCase.setUp(self)
        text = CONFIGURATION.format(workers=1, port=self.port, log=self.log)
        self.prefix.write("status.conf", "master_process off;" + text)
        self.daemon = self.start("slave", config="status.conf")

    def test_counts(self) -> None:
        self.load()
        now = self.status()
        self.assertEqual(now["requests"], CONNECTIONS * EACH)
        self.assertEqual([p["role"] for p in now["processes"]], ["worker"])
