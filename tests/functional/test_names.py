"""Servers whose addresses change in DNS, under a steady load: nobody notices."""

from __future__ import annotations

import math
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from twisted.trial.unittest import SkipTest

from tests.support import rawhttp
from tests.support.dns import Nameserver
from tests.support.load import Load, make_body
from tests.support.processes import Daemon, free_ports, imagefarm, wait_until
from tests.support.stages import StagedCase

VALID = 1.0
#: Requests a second that are offered, and at least offered.
RATE, LEAST = 600, 500
#: What a busy machine may add to the time in which a change is noticed, in seconds.
SLACK = 3.0
#: What is asked for: below ``/``, and below ``/variable``.
FILES = tuple(f"{number}.jpg" for number in range(20))
#: Two of the machine's own addresses, the same port on each.
FIRST, SECOND, THIRD = "127.0.0.1", "127.0.0.2", "127.0.0.3"
MASTER = """
events {{ worker_connections 4096; }}
error_log logs/error.log info;
http {{
    access_log off;
    keepalive_requests 1000000;
    resolver 127.0.0.1:{nameserver} valid={valid}s ipv6=off;
    resolver_timeout 2s;
    upstream slaves {{
        server slaves.example:{slave} resolve max_fails=1 fail_timeout=10s;
        keepalive 16;
    }}
    server {{
        listen 127.0.0.1:{port};
        location / {{ proxy_pass http://slaves; proxy_connect_timeout 2s; }}
        location /variable/ {{
            set $slave slaves.example;
            proxy_pass http://$slave:{slave};
        }}
    }}
}}
"""
SLAVE = """
events {{ worker_connections 4096; }}
error_log logs/error.log;
http {{
    access_log off;
    keepalive_requests 1000000;
    types {{ image/jpeg jpg; }}
    server {{
        listen {address}:{port};
        add_header X-Slave {address};
        location / {{ root files; }}
    }}
}}
"""


class Names(StagedCase):
    def setUp(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="names-"))
        self.addCleanup(shutil.rmtree, self.directory, ignore_errors=True)
        self.stack = ExitStack()
        self.addCleanup(self.stack.close)
        self.slave, self.port = free_ports(2)
        self.names = self.stack.enter_context(Nameserver())
        self.slaves: dict[str, Daemon] = {}
        #: The least that any load asked for, a second.
        self.offered = math.inf

    def start(self, role: str, name: str, text: str, port: int) -> Daemon:
        directory = self.directory / name
        (directory / "logs").mkdir(parents=True)
        for target in ("/", "/variable/"):
            folder = directory / "files" / target[1:]
            folder.mkdir(parents=True, exist_ok=True)
            for file in FILES:
                (folder / file).write_bytes(make_body(target + file, 1000))
        (directory / "server.conf").write_text(text)
        daemon = imagefarm(role, directory, "--config", str(directory / "server.conf"))
        self.stack.callback(daemon.stop)
        return daemon

    def start_slaves(self, *addresses: str) -> None:
        for address in addresses:
            text = SLAVE.format(address=address, port=self.slave)
            self.slaves[address] = self.start("slave", address, text, self.slave)
        for address in addresses:
            wait_until(lambda address=address: self.accepts(address), what=f"slave at {address}")

    def accepts(self, address: str) -> bool:
        try:
            socket.create_connection((address, self.slave), 1).close()
        except OSError:
            return False
        return True

    def start_master(self) -> None:
        text = MASTER.format(
            nameserver=self.names.port, valid=int(VALID), slave=self.slave, port=self.port
        )
        daemon = self.start("master", "master", text, self.port)
        daemon.ports = (self.port,)
        daemon.started()

    def get(self, target: str) -> rawhttp.Answer:
        answer = rawhttp.exchange(self.port, rawhttp.request(target, "Connection: close"))
        assert answer is not None
        return answer

    def log(self) -> str:
        return (self.directory / "master" / "logs" / "error.log").read_text()

    @contextmanager
    def load(self, target: str, rate: float = RATE) -> Iterator[Load]:
        """The load goes on; all its answers are good."""
        with Load(self.port, rate, [target + name for name in FILES]) as load:
            wait_until(lambda: load.count() > rate / 2, what="answers")
            yield load
        self.offered = min(self.offered, load.offered * RATE / rate)
        # "too many" are requests that were not made: the machine is too slow.
        bad = {answer.outcome for answer in load.answers} - {"too many"}
        self.assertEqual({o for o in bad if not o.startswith("good ")}, set(), self.log()[-4000:])

    def say_rate(self) -> None:
        """Skip, at a test's end, where too little was asked for to show what it is to show."""
        if self.offered < LEAST:
            raise SkipTest(
                f"none failed, but this machine asked for {self.offered:.0f} a second only"
            )

    def await_slave(self, target: str, address: str) -> float:
        """When it is there that clients are sent."""
        wait_until(
            lambda: self.get(target + FILES[0]).header("x-slave") == address,
            VALID + 1 + SLACK, f"answer of {address}",
        )  # fmt: skip
        return time.monotonic()

    def peers(self, load: Load, begin: float = 0.0, end: float = math.inf) -> set[str]:
        """Who answered what was asked for and answered between two moments."""
        return {
            answer.outcome.removeprefix("good ")
            for answer in load.answers
            if begin < answer.asked
            and answer.asked + answer.took < end
            and answer.outcome != "too many"
        }

    def move(self, target: str, before: set[str], after: set[str]) -> None:
        """Let the name have other addresses. Nothing goes to the old ones then."""
        (gone,), new = before - after, after - before
        with self.load(target) as load:
            swapped = time.monotonic()
            self.names.set("slaves.example", *sorted(after))
            if before & after:
                self.slaves[gone].kill()
            moved = self.await_slave(target, *new)
            goal = load.count() + RATE // 2
            wait_until(lambda: load.count() > goal, what="more answers")
        self.assertEqual(self.peers(load, end=swapped), before)
        self.assertEqual(self.peers(load, moved), after)

    def test_addresses_are_swapped(self) -> None:
        """One that keeps running, named in both ways; then one of two, which is killed."""
        self.start_slaves(FIRST, SECOND, THIRD)
        self.names.set("slaves.example", FIRST)
        self.start_master()
        self.move("/", {FIRST}, {SECOND})
        self.move("/variable/", {SECOND}, {FIRST})
        self.assertIn(
            f'addresses of slaves.example:{self.slave} in upstream "slaves": '
            f"{SECOND}:{self.slave}; new: {SECOND}:{self.slave}; gone: {FIRST}:{self.slave}",
            self.log(),
        )
        self.names.set("slaves.example", FIRST, SECOND)
        for address in (FIRST, SECOND):
            self.await_slave("/", address)
        self.move("/", {FIRST, SECOND}, {SECOND, THIRD})
        self.say_rate()

    def test_the_nameserver_is_away(self) -> None:
        """At the start, then it comes; then it goes for good and nobody notices."""
        self.start_slaves(FIRST)
        self.names.stop()
        self.start_master()
        for target in ("/", "/variable/"):
            self.assertEqual(self.get(target + FILES[0]).status, 502)
        self.names.set("slaves.example", FIRST)
        self.names.start()
        for target in ("/", "/variable/"):
            self.await_slave(target, FIRST)
        with self.load("/", RATE / 2) as load, self.load("/variable/", RATE / 2) as other:
            self.names.silent = True
            wait_until(lambda: "its old addresses stay" in self.log(), what="notice")
            goal = other.count() + RATE // 2
            wait_until(lambda: other.count() > goal, what="more answers")
        self.assertEqual(self.peers(load) | self.peers(other), {FIRST})
        self.say_rate()
