"""Slaves and the resizer that die, hang and come back, while clients ask the master."""

from __future__ import annotations

import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from tests.support import farm, rawhttp
from tests.support.processes import accepts, wait_until
from tests.support.stages import StagedCase

SMALL = "/photos/grey.jpg"
#: "At once", in seconds, on a machine that is busy: a small part of any time limit but
#: proxy_read_timeout.
AT_ONCE = 5.0


class Failover(StagedCase):
    def setUp(self) -> None:
        self.parts = farm.parts()
        self.prefix = self.parts.prefix
        self.addCleanup(self._restore)

    def _restore(self) -> None:
        """Every part runs again, and the master has seen that."""
        for name, daemon in list(self.parts.running.items()):
            daemon.signal(signal.SIGCONT)
            if daemon.process.poll() is not None:
                self.parts.start(name)
        for _ in range(2):
            self.prefix.await_answer(SMALL)

    @contextmanager
    def clients(self, *targets: str, count: int = 4) -> Iterator[Counter[object]]:
        """So many clients asking again and again; their answers, counted at the end."""
        seen: Counter[object] = Counter()
        expected = {t: (self.prefix.images / t[1:]).read_bytes() for t in targets}
        end = threading.Event()

        def ask(number: int) -> None:
            while not end.is_set():
                for target in targets:
                    try:
                        answer = self.prefix.get(target)
                        good = answer.status == 200 and answer.body == expected[target]
                        seen["good" if good else answer.status] += 1
                    except (OSError, AssertionError) as error:
                        seen[repr(error)] += 1

        threads = [threading.Thread(target=ask, args=(n,)) for n in range(count)]
        for thread in threads:
            thread.start()
        try:
            yield seen
        finally:
            end.set()
            for thread in threads:
                thread.join()

    def await_more(self, seen: Counter[object], count: int) -> None:
        goal = sum(seen.values()) + count
        wait_until(lambda: sum(seen.values()) >= goal, 30, f"{count} more answers")

    def test_a_slave_dies(self) -> None:
        """Killed and started again, each in turn: no client notices."""
        with self.clients(SMALL, "/page.html") as seen:
            for name in ("slave1", "slave2"):
                self.await_more(seen, 20)
                self.parts.kill(name)
                self.await_more(seen, 40)
                self.parts.start(name)
                time.sleep(1.1)  # fail_timeout: it is asked again
        self.assertEqual(set(seen), {"good"}, seen)

    def test_a_slave_hangs(self) -> None:
        """Stopped it accepts connections and never answers: the other one is asked."""
        with self.clients(SMALL) as seen:
            self.await_more(seen, 20)
            self.parts.running["slave2"].signal(signal.SIGSTOP)
            self.await_more(seen, 60)
            time.sleep(1.2)  # it is tried again meanwhile
            self.await_more(seen, 20)
            self.parts.running["slave2"].signal(signal.SIGCONT)
            self.await_more(seen, 20)
        self.assertEqual(set(seen), {"good"}, seen)

    def test_no_slave_left(self) -> None:
        """502 with the error page, then service again without the master being touched."""
        master = self.parts.running["master"].pid
        self.parts.kill("slave1", "slave2")
        for _ in range(4):
            begin = time.monotonic()
            answer = self.prefix.get(SMALL)
            self.assertEqual(answer.status, 502)
            self.assertLess(time.monotonic() - begin, AT_ONCE)
            self.assertIn(b"<html", answer.body)
        path = next((self.prefix.images / "thumbnail").iterdir())
        still = self.prefix.get(f"/thumbnail/{path.name}", host=farm.STILLSHOTS)
        self.assertEqual(still.status, 200)  # the master's own work goes on
        self.parts.start("slave1", "slave2")
        self.prefix.await_answer(SMALL)
        for _ in range(8):
            self.assertEqual(self.prefix.get(SMALL).status, 200)
        self.assertEqual(self.parts.running["master"].pid, master)
        self.assertIsNone(self.parts.running["master"].process.poll())

    def test_no_resizer(self) -> None:
        """502 at once; what is cached is still served; then service again."""
        cached = f"/resize?src={SMALL}&w=77"
        self.assertEqual(self.prefix.get(cached).status, 200)
        self.parts.kill("resizer")
        self.assertFalse(accepts(self.prefix.ports.fastcgi))
        for i in range(3):
            begin = time.monotonic()
            answer = self.prefix.get(f"/resize?src={SMALL}&w={80 + i}")
            self.assertEqual(answer.status, 502)
            self.assertLess(time.monotonic() - begin, AT_ONCE)
        answer = self.prefix.get(cached)
        self.assertEqual((answer.status, answer.header("x-cache-status")), (200, "HIT"))
        self.assertEqual(self.prefix.get(SMALL).status, 200)
        self.parts.start("resizer")
        for i in range(3):
            self.prefix.await_answer(f"/resize?src={SMALL}&w={80 + i}")

    def test_the_resizer_dies_at_work(self) -> None:
        """A request that it was working on gets its 502 at once."""
        self.assertEqual(self.prefix.get(f"/resize?src={SMALL}&w=60").status, 200)
        self.parts.running["resizer"].signal(signal.SIGSTOP)
        with rawhttp.connect(self.prefix.ports.http) as sock:
            sock.sendall(rawhttp.request(f"/resize?src={SMALL}&w=61", "Connection: close"))
            time.sleep(0.3)
            begin = time.monotonic()
            self.parts.kill("resizer")
            answer = rawhttp.Reader(sock).answer()
            assert answer is not None
            self.assertEqual(answer.status, 502)
            self.assertLess(time.monotonic() - begin, AT_ONCE)

    def test_a_peer_that_talks_nonsense(self) -> None:
        """What answers on a slave's port is no HTTP server: 502, which proxy_next_upstream has
        nginx give to the client unless "invalid_header" is there; it is left out for a while."""
        import socket

        self.parts.kill("slave1")
        with socket.socket() as door:
            door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            door.bind(("127.0.0.1", self.prefix.ports.slave1))
            door.listen()
            door.settimeout(0.1)
            served = 0
            with self.clients(SMALL, count=2) as seen:
                begin = time.monotonic()
                while time.monotonic() < begin + 2.5:
                    try:
                        sock, _ = door.accept()
                    except TimeoutError:
                        continue
                    sock.recv(65536)
                    sock.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")
                    sock.close()
                    served += 1
        self.assertEqual(set(seen), {"good", 502}, seen)
        self.assertLessEqual(seen[502], served)  # whoever was served too late asked the other one
        self.assertLess(served, time.monotonic() - begin + 3)  # once a second
