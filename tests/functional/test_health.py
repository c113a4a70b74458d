"""Health checks, status and control on a real master with two workers."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
from collections import Counter
from typing import Any

from tests.support import rawhttp
from tests.support.farm import temporary_prefix
from tests.support.processes import descendants, free_ports, running, wait_until
from tests.support.slave import CHECK, Slave
from tests.support.stages import Cleanup, StagedCase, shared

WORKERS = 2
INTERVAL = 0.2
FAILS = 2
READ_TIMEOUT = 0.5
#: What a loaded machine may add to a bound.
SLACK = 3.0
TOKEN = "0123456789abcdefghij"
CONF = """
worker_processes 2;
pid logs/master.pid;
error_log logs/error.log notice;
events {{ }}
http {{
    access_log off;
    match image {{ status 200-399; header Content-Type ~ image; body ~ "slave"; }}
    upstream limited {{ zone limited 64k; server 127.0.0.1:{one} max_conns=2; }}
    upstream slaves {{ server 127.0.0.1:{one}; server 127.0.0.1:{two}; }}
    server {{
        listen 127.0.0.1:{http};
        location / {{
            proxy_pass http://slaves;
            proxy_read_timeout {read}ms;
            proxy_next_upstream off;
            health_check interval={interval}ms fails={fails} passes=2 uri={check} match=image;
        }}
        location /slow {{ proxy_pass http://slaves; }}
        location /limited {{ proxy_pass http://limited; add_header X-Worker $pid always; }}
        location = /status {{ status; }}
        location = /metrics {{ status prometheus; }}
    }}
    server {{
        listen 127.0.0.1:{control};
        listen unix:{socket};
        location /api {{ api write=on token_file=token; }}
    }}
}}
"""


class Stage:
    """A master with two workers before two slaves, for all tests of this module."""

    def __init__(self, cleanup: Cleanup) -> None:
        self.one, self.two = (Slave(f"slave{n}", cleanup) for n in (1, 2))
        self.prefix = temporary_prefix(cleanup)
        self.http, self.control = free_ports(2)
        self.socket = str(self.prefix.directory / "control.sock")
        self.prefix.write("token", TOKEN).chmod(0o600)
        self.prefix.write(
            "health.conf",
            CONF.format(
                one=self.one.port, two=self.two.port, http=self.http, control=self.control,
                socket=self.socket, check=CHECK, fails=FAILS,
                read=int(READ_TIMEOUT * 1000), interval=int(INTERVAL * 1000),
            ),
        )  # fmt: skip
        self.master = self.prefix.start(
            "master", ports=[self.http, self.control], config="health.conf"
        )
        cleanup(self.master.stop)
        self.master.started()


@shared
def stage(cleanup: Cleanup) -> Stage:
    """The stage, set up by the first test that wants it."""
    return Stage(cleanup)


class HealthTests(StagedCase):
    def setUp(self) -> None:
        made = stage()
        self.one, self.two, self.prefix, self.master = made.one, made.two, made.prefix, made.master
        self.http, self.control, self.socket = made.http, made.control, made.socket
        self.restore()
        self.written = len(self.prefix.log("error.log"))
        self.addCleanup(self.release)

    def release(self) -> None:
        """Nobody is held up any longer."""
        for slave in (self.one, self.two):
            slave.mode = "good"
            slave.release.set()

    def restore(self) -> None:
        """Both slaves are well, and every worker knows it."""
        self.release()
        for slave in (self.one, self.two):
            self.change(slave, down=False, drain=False, weight=1)
            wait_until(lambda slave=slave: self.everywhere(slave, "up"), what="two slaves")
            slave.release.clear()
            slave.busy.clear()

    # -- asking

    def get(self, target: str = "/x") -> rawhttp.Answer:
        answer = rawhttp.exchange(self.http, rawhttp.request(target, "Connection: close"))
        assert answer is not None
        return answer

    def answers(self, count: int) -> Counter[str]:
        """Who answers, each time on a connection of its own, so that all workers are asked."""
        return Counter(self.get().body.decode() for _ in range(count))

    def api(
        self, path: str, method: str = "GET", value: Any = None, token: str | None = TOKEN
    ) -> tuple[rawhttp.Answer, Any]:
        fields = ["Connection: close"]
        if token is not None:
            fields.append(f"Authorization: Bearer {token}")
        body = b"" if value is None else value if isinstance(value, bytes) else _json(value)
        if value is not None:
            fields.append(f"Content-Length: {len(body)}")
        data = rawhttp.request(f"/api/9/http/upstreams{path}", *fields, method=method) + body
        answer = rawhttp.exchange(self.control, data)
        assert answer is not None
        return answer, json.loads(answer.body) if answer.body else None

    def server(self, slave: Slave) -> int:
        """The number of a slave."""
        _, servers = self.api("/slaves/servers/")
        name = f"127.0.0.1:{slave.port}"
        (number,) = (server["id"] for server in servers if server["server"] == name)
        return int(number)

    def change(self, slave: Slave, **changes: Any) -> None:
        answer, _ = self.api(f"/slaves/servers/{self.server(slave)}", "PATCH", changes)
        self.assertEqual(answer.status, 200)
        time.sleep(0.3)  # until the other worker has looked at the board: it has no voice

    def states(self) -> dict[int, dict[str, str]]:
        """The state of each slave, as each of the workers says: asked until all have answered."""
        found: dict[int, dict[str, str]] = {}

        def all_said() -> bool:
            report = json.loads(self.get("/status").body)
            peers = report["upstreams"]["slaves"]["peers"]
            found[report["pid"]] = {peer["server"]: peer["state"] for peer in peers}
            workers = descendants(self.master.pid)
            return len(workers) == WORKERS and set(workers) <= set(found)

        wait_until(all_said, what="every worker's word")
        return {pid: found[pid] for pid in descendants(self.master.pid)}

    def everywhere(self, slave: Slave, state: str) -> bool:
        name = f"127.0.0.1:{slave.port}"
        return all(states[name] == state for states in self.states().values())

    def lines(self, words: str) -> list[str]:
        log = self.prefix.log("error.log")[self.written :]
        return [line for line in log.splitlines() if words in line]

    # -- health

    def test_a_slave_falls_sick(self) -> None:
        """500s, another type, silence: it is out in time in every worker, and back after."""
        for mode, words in (
            ("error", "unhealthy while checking status code"),
            ("text", "unhealthy while checking header"),
            ("hang", "unhealthy while reading response header from upstream"),
        ):
            begin = time.monotonic()
            self.two.mode = mode
            wait_until(lambda: self.everywhere(self.two, "unhealthy"), what=f"out: {mode}")
            bound = FAILS * (INTERVAL + (READ_TIMEOUT if mode == "hang" else 0))
            self.assertLess(time.monotonic() - begin, bound + SLACK, mode)
            asked = self.two.asked
            self.assertEqual(set(self.answers(30)), {"slave1"})
            self.assertEqual(self.two.asked, asked)
            self.two.mode = "good"
            self.two.release.set()
            wait_until(lambda: self.everywhere(self.two, "up"), what=f"back: {mode}")
            self.two.release.clear()
            self.assertEqual(set(self.answers(30)), {"slave1", "slave2"})
            (line,) = self.lines(words)
            self.assertIn(
                f'health check "image" of peer 127.0.0.1:{self.two.port} in upstream "slaves"',
                line,
            )
        self.assertEqual(len(self.lines("peer is healthy while checking body")), 3)

    def test_one_worker_checks_and_another_after_its_death(self) -> None:
        before = self.two.checked
        wait_until(lambda: self.two.checked >= before + 10, what="checks")
        begin, before = time.monotonic(), self.two.checked
        time.sleep(2.0)
        rate = (self.two.checked - before) / (time.monotonic() - begin)
        self.assertLess(rate, 1.5 / INTERVAL)  # two checkers would ask twice as often
        self.two.mode = "error"
        wait_until(lambda: self.everywhere(self.two, "unhealthy"), what="out")
        workers = list(self.states())
        for pid in workers:  # one of them was the leader
            os.kill(pid, signal.SIGKILL)
            wait_until(lambda pid=pid: not running(pid), what="its end")
            self.assertNotIn(pid, self.states())
            self.assertTrue(self.everywhere(self.two, "unhealthy"))
        self.two.mode = "good"
        wait_until(lambda: self.everywhere(self.two, "up"), what="back")

    def test_under_full_load(self) -> None:
        """A master that has all it can do does not take its slaves for dead."""
        end = threading.Event()
        seen: Counter[int] = Counter()

        def ask() -> None:
            data = rawhttp.request("/x")
            while not end.is_set():
                with rawhttp.connect(self.http) as sock:
                    reader = rawhttp.Reader(sock)
                    for _ in range(100):
                        sock.sendall(data)
                        answer = reader.answer()
                        seen[answer.status if answer else 0] += 1
                        if end.is_set() or answer is None:
                            break

        threads = [threading.Thread(target=ask) for _ in range(16)]
        for thread in threads:
            thread.start()
        try:
            before = self.one.checked
            wait_until(lambda: self.one.checked >= before + 10, 30, "checks under load")
            # Held up as a whole for longer than the timeout, each process in the middle of work.
            for pid in descendants(self.master.pid):
                os.kill(pid, signal.SIGSTOP)
                time.sleep(READ_TIMEOUT * 1.5)
                os.kill(pid, signal.SIGCONT)
            before = self.one.checked
            wait_until(lambda: self.one.checked >= before + 5, 30, "checks afterwards")
        finally:
            end.set()
            for thread in threads:
                thread.join()
        self.assertGreater(seen[200], 200)
        self.assertEqual(self.lines("peer is unhealthy"), [])

    # -- what all workers count together

    def hold(self) -> None:
        """Have one more request at the first slave, which does not end."""
        asked = self.one.asked
        sock = rawhttp.connect(self.http)
        self.addCleanup(sock.close)
        sock.sendall(rawhttp.request("/limited"))
        wait_until(lambda: self.one.asked == asked + 1, what="request at the slave")

    def test_max_conns_of_a_zone(self) -> None:
        """The places that one worker has taken are taken for the other, until it dies."""
        self.one.mode = "slow"
        self.hold()
        self.hold()
        asked, workers = self.one.asked, set()
        for _ in range(200):
            answer = self.get("/limited")
            self.assertEqual(answer.status, 502)
            workers.add(int(answer.header("x-worker") or 0))
            if len(workers) == WORKERS:
                break
        self.assertEqual((len(workers), self.one.asked), (WORKERS, asked))
        for pid in workers:
            os.kill(pid, signal.SIGKILL)
            wait_until(lambda pid=pid: not running(pid), what="its end")
        wait_until(lambda: len(self.states()) == WORKERS, what="new workers")
        self.hold()
        self.hold()
        self.assertEqual(self.get("/limited").status, 502)

    # -- control

    def test_drain_finishes_what_runs(self) -> None:
        self.one.mode = "slow"
        self.change(self.two, down=True)
        answers: list[rawhttp.Answer] = []
        asking = threading.Thread(target=lambda: answers.append(self.get("/slow")))
        asking.start()
        self.assertTrue(self.one.busy.wait(10))
        self.change(self.two, down=False)
        self.change(self.one, drain=True)
        self.assertTrue(self.everywhere(self.one, "draining"))
        self.assertEqual(self.answers(20), {"slave2": 20})
        self.one.release.set()
        asking.join(10)
        self.assertEqual([(a.status, a.body) for a in answers], [(200, b"slave1")])
        self.change(self.one, drain=False)
        self.assertEqual(set(self.answers(20)), {"slave1", "slave2"})

    def test_weight_shifts_the_distribution(self) -> None:
        self.change(self.two, weight=9)
        found = self.answers(60)
        # Each of two workers has a turn of its own: at most one round apart from the promise.
        self.assertLessEqual(abs(found["slave2"] - 54), 4, found)

    def test_servers_come_and_go(self) -> None:
        third = Slave("slave3", self.addCleanup)
        answer, server = self.api(
            "/slaves/servers/", "POST", {"server": f"127.0.0.1:{third.port}"}
        )
        self.assertEqual(answer.status, 201)
        wait_until(lambda: third.checked, what="its first check")
        wait_until(lambda: set(self.answers(30)) == {"slave1", "slave2", "slave3"}, what="three")
        answer, left = self.api(f"/slaves/servers/{server['id']}", "DELETE")
        self.assertEqual((answer.status, len(left)), (200, 2))
        wait_until(lambda: set(self.answers(30)) == {"slave1", "slave2"}, what="two again")

    def test_a_change_outlives_the_workers(self) -> None:
        self.change(self.one, down=True)
        for pid in list(self.states()):
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: len(self.lines("is ready")) >= WORKERS, what="new workers")
        self.assertTrue(self.everywhere(self.one, "down"))
        self.assertEqual(self.answers(10), {"slave2": 10})

    def test_refusals(self) -> None:
        one = f"/slaves/servers/{self.server(self.one)}"
        for path, method, value, token, status in (
            (one, "PATCH", {"down": True}, None, 401),
            (one, "PATCH", {"down": True}, "x" * 20, 401),
            ("/", "GET", None, None, 401),
            (one, "PATCH", b"{", TOKEN, 400),
            (one, "PATCH", {"weight": 0}, TOKEN, 400),
            (one, "PATCH", b"x" * 100_000, TOKEN, 413),
            ("/nope/servers/", "GET", None, TOKEN, 404),
            ("/slaves/servers/99", "PATCH", {}, TOKEN, 404),
            (one, "PUT", {}, TOKEN, 405),
        ):
            answer, error = self.api(path, method, value, token)
            self.assertEqual(answer.status, status, (path, method, value))
            self.assertEqual(error["error"]["status"], status)
            self.assertEqual(answer.header("allow") is not None, status == 405)
        self.assertTrue(self.everywhere(self.one, "up"))

    def test_the_unix_socket_knows_us(self) -> None:
        """We are the user that the master runs as."""
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(self.socket)
            sock.sendall(rawhttp.request("/api/", "Connection: close"))
            answer = rawhttp.Reader(sock).answer()
        assert answer is not None
        self.assertEqual((answer.status, json.loads(answer.body)[-1]), (200, 9))

    def test_metrics(self) -> None:
        self.answers(4)
        answer = self.get("/metrics")
        self.assertEqual(answer.header("content-type"), "text/plain; version=0.0.4; charset=utf-8")
        labels = f'{{upstream="slaves",peer="127.0.0.1:{self.one.port}",state="up"}}'
        self.assertIn(f"imagefarm_upstream_peer_state{labels}", answer.body.decode())

    def test_counters(self) -> None:
        """All workers': the requests of clients, not the checks, with their bytes."""

        def counted() -> tuple[int, int, int]:
            peers = json.loads(self.get("/status").body)["upstreams"]["slaves"]["peers"]
            answers = sum(peer["responses"]["2xx"] for peer in peers)
            sent, received = (sum(peer[key] for peer in peers) for key in ("sent", "received"))
            return answers, sent, received

        before, checked = counted(), self.one.checked
        self.answers(10)
        wait_until(lambda: self.one.checked > checked, what="a check")
        answers, sent, received = (a - b for a, b in zip(counted(), before, strict=True))
        self.assertEqual(answers, 10)
        self.assertGreater(sent, 10 * len("GET /x HTTP/1.1"))
        self.assertGreater(received, 10 * len("HTTP/1.1 200 OK"))


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()
