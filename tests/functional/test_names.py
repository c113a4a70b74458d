"""Servers whose addresses change in DNS, under a steady load: nobody notices."""

from __future__ import annotations

import shutil
import socket
import tempfile
import threading
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

from tests.support import rawhttp
from tests.support.dns import Nameserver
from tests.support.processes import Daemon, free_ports, imagefarm, wait_until
from tests.support.stages import StagedCase

VALID = 1.0
#: Requests a second, and from how many connections.
RATE, CLIENTS = 600, 6
#: Two of the machine's own addresses, the same port on each.
FIRST, SECOND, THIRD = "127.0.0.1", "127.0.0.2", "127.0.0.3"
MASTER = """
events {{ }}
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
        location /variable {{
            set $slave slaves.example;
            proxy_pass http://$slave:{slave};
        }}
    }}
}}
"""
SLAVE = """
events {{ }}
error_log logs/error.log;
http {{
    access_log off;
    keepalive_requests 1000000;
    server {{ listen {address}:{port}; location / {{ return 200 "{address}"; }} }}
}}
"""


class Load:
    """Clients that ask at a steady rate; ``answers`` has moments, and statuses with bodies."""

    def __init__(self, port: int, target: str) -> None:
        self._port = port
        self._request = rawhttp.request(target)
        self._end = threading.Event()
        self.answers: list[tuple[float, str]] = []
        self._threads = [threading.Thread(target=self._ask, args=(n,)) for n in range(CLIENTS)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *reason: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, number: int) -> None:
        sock = rawhttp.connect(self._port)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        due = time.monotonic() + number / RATE
        with sock:
            while not self._end.is_set():
                time.sleep(max(0.0, due - time.monotonic()))
                due += CLIENTS / RATE
                sock.sendall(self._request)
                data = sock.recv(65536)
                found = data[9:12].decode() + " " + data.rpartition(b"\r\n\r\n")[2].decode()
                self.answers.append((time.monotonic(), found))

    def since(self, moment: float) -> Counter[str]:
        """What was answered after ``moment``."""
        return Counter(found for when, found in self.answers if when > moment)


class Names(StagedCase):
    def setUp(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="names-"))
        self.addCleanup(shutil.rmtree, self.directory, ignore_errors=True)
        self.stack = ExitStack()
        self.addCleanup(self.stack.close)
        self.slave, self.port = free_ports(2)
        self.names = self.stack.enter_context(Nameserver())
        self.slaves: dict[str, Daemon] = {}

    def start(self, role: str, name: str, text: str, port: int) -> Daemon:
        directory = self.directory / name
        (directory / "logs").mkdir(parents=True)
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

    def get(self, target: str = "/") -> rawhttp.Answer:
        answer = rawhttp.exchange(self.port, rawhttp.request(target, "Connection: close"))
        assert answer is not None
        return answer

    def log(self) -> str:
        return (self.directory / "master" / "logs" / "error.log").read_text()

    def assert_moved(self, load: Load, swapped: float, gone: str, here: set[str]) -> None:
        """Every answer good, none from ``gone`` once the time is over, some from the others."""
        self.assertEqual(
            {found for _, found in load.answers if not found.startswith("200 ")}, set()
        )
        # A busy machine may not keep up, but must not have stood still.
        seconds = load.answers[-1][0] - load.answers[0][0]
        self.assertGreater(len(load.answers) / seconds, RATE / 3)
        after = load.since(swapped + VALID + 1)
        self.assertNotIn(f"200 {gone}", after)
        self.assertEqual(set(after), {f"200 {address}" for address in here})

    def test_addresses_are_swapped(self) -> None:
        """One that keeps running, named in both ways; then one of two, which is killed."""
        self.start_slaves(FIRST, SECOND, THIRD)
        self.names.set("slaves.example", FIRST)
        self.start_master()
        for target, before, after in (("/", FIRST, SECOND), ("/variable", SECOND, FIRST)):
            with Load(self.port, target) as load:
                wait_until(lambda load=load: len(load.answers) > 300, what="answers")
                self.assertEqual(set(load.since(0)), {f"200 {before}"})
                self.names.set("slaves.example", after)
                swapped = time.monotonic()
                time.sleep(VALID + 1.3)
            self.assert_moved(load, swapped, before, {after})
        self.assertIn(
            f'addresses of slaves.example:{self.slave} in upstream "slaves": '
            f"{SECOND}:{self.slave}; new: {SECOND}:{self.slave}; gone: {FIRST}:{self.slave}",
            self.log(),
        )
        self.names.set("slaves.example", FIRST, SECOND)
        wait_until(lambda: self.get().body == SECOND.encode(), what="answer of the second")
        with Load(self.port, "/") as load:
            wait_until(lambda: len(load.answers) > 300, what="answers")
            self.assertEqual(set(load.since(0)), {f"200 {FIRST}", f"200 {SECOND}"})
            self.names.set("slaves.example", SECOND, THIRD)
            self.slaves[FIRST].kill()
            swapped = time.monotonic()
            time.sleep(VALID + 1.3)
        self.assert_moved(load, swapped, FIRST, {SECOND, THIRD})

    def test_the_nameserver_is_away(self) -> None:
        """At the start, then it comes; then it goes for good and nobody notices."""
        self.start_slaves(FIRST)
        self.names.stop()
        self.start_master()
        for target in ("/", "/variable"):
            self.assertEqual(self.get(target).status, 502)
        self.names.set("slaves.example", FIRST)
        self.names.start()
        for target in ("/", "/variable"):
            wait_until(lambda target=target: self.get(target).status == 200, 30, "recovery")
        self.names.silent = True
        with Load(self.port, "/") as load, Load(self.port, "/variable") as other:
            time.sleep(VALID + 2.5)
        self.assertEqual(set(load.since(0)) | set(other.since(0)), {f"200 {FIRST}"})
        self.assertIn("its old addresses stay", self.log())
