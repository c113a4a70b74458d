"""The cache of a real master with four workers: one filler for all, also when it is killed."""

from __future__ import annotations

import os
import selectors
import signal
import socket
import time

from tests.support import killing, rawhttp
from tests.support.cachestage import WORKERS, Stage, body_of
from tests.support.processes import wait_until
from tests.support.stages import Cleanup, StagedCase, shared

CLIENTS = 200
#: How long workers are killed.
SECONDS = 6.0


def read_all(waiting: list[socket.socket]) -> list[bytes]:
    """What each connection brings until it ends."""
    found = {sock: bytearray() for sock in waiting}
    with selectors.DefaultSelector() as selector:
        for sock in waiting:
            selector.register(sock, selectors.EVENT_READ)
        deadline = time.monotonic() + 30
        while selector.get_map() and time.monotonic() < deadline:
            for key, _ in selector.select(1):
                sock = key.fileobj
                assert isinstance(sock, socket.socket)
                try:
                    chunk = sock.recv(1 << 20)
                except ConnectionError:
                    chunk = b""
                found[sock] += chunk
                if not chunk:
                    selector.unregister(sock)
                    sock.close()
    return [bytes(found[sock]) for sock in waiting]


def worker_of(answer: bytes) -> bytes:
    return answer.partition(b"X-Worker: ")[2].partition(b"\r\n")[0]


@shared
def stage(cleanup: Cleanup) -> Stage:
    """The stage, set up by the first test that wants it."""
    found = Stage()
    cleanup(found.close)
    return found


class CacheTests(StagedCase):
    def setUp(self) -> None:
        self.stage = stage()
        self.origin, self.prefix, self.port = (
            self.stage.origin, self.stage.prefix, self.stage.port,
        )  # fmt: skip
        self.cache = self.stage.cache
        wait_until(lambda: len(self.stage.workers()) == WORKERS, what="all workers")
        self.origin.release.clear()
        self.held = f"/long/held/{self.id()}"
        self.addCleanup(self.origin.release.set)

    def ask(self, path: str, count: int) -> list[socket.socket]:
        """So many simultaneous requests, on connections of their own."""
        sockets = [rawhttp.connect(self.port) for _ in range(count)]
        for sock in sockets:
            sock.sendall(rawhttp.request(path, "Connection: close"))
        return sockets

    def test_every_answer_that_passed_says_so(self) -> None:
        for path, method, status, said, *fields in (
            ("/long/said", "GET", 200, "fwd=miss; stored"),
            ("/long/said", "GET", 200, "hit"),
            ("/long/said", "HEAD", 200, "hit"),
            ("/long/said", "GET", 206, "hit", "Range: bytes=0-1"),
            ("/long/said", "GET", 416, "hit", "Range: bytes=99999999-"),
            ("/long/said", "GET", 412, "hit", 'If-Match: "x"'),
            ("/long/said", "OPTIONS", 501, "fwd=method"),
            ("/dead/", "GET", 502, "fwd=miss"),
            ("/dead/page/", "GET", 502, "fwd=miss"),
        ):
            data = rawhttp.request(path, *fields, method=method)
            with rawhttp.connect(self.port) as sock:
                sock.sendall(data)
                answer = rawhttp.Reader(sock).answer(method)
            assert answer is not None
            told = (answer.header("cache-status") or "").removeprefix("imagefarm; ")
            told = told.partition("; ttl=")[0]
            self.assertEqual((answer.status, told), (status, said), path)
            wait_until(lambda: not os.listdir(self.cache / "locks"), what="the lock's end")

    def test_one_fill_for_all(self) -> None:
        waiting = self.ask(self.held, CLIENTS)
        wait_until(lambda: self.origin.asked[self.held], what="the filler")
        self.origin.release.set()
        answers = read_all(waiting)
        body = body_of(self.held)
        self.assertEqual({answer.partition(b"\r\n\r\n")[2] == body for answer in answers}, {True})
        self.assertGreater(len({worker_of(answer) for answer in answers}), 1)
        self.assertEqual(self.origin.asked[self.held], 1)
        wait_until(lambda: not os.listdir(self.cache / "locks"), what="the lock's end")

    def test_the_filler_is_killed(self) -> None:
        waiting = self.ask(self.held, CLIENTS)
        wait_until(lambda: self.origin.asked[self.held] == 1, what="the filler")
        first = self.stage.filler()
        assert first is not None
        os.kill(first, signal.SIGSTOP)  # it may have taken all: who comes now is for the others
        for _ in range(4):
            sock = rawhttp.connect(self.port)
            sock.sendall(rawhttp.request("/quick"))
            rawhttp.Reader(sock).answer()
            sock.sendall(rawhttp.request(self.held, "Connection: close"))
            waiting.append(sock)
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: self.origin.asked[self.held] == 2, what="the next filler")
        self.assertNotEqual(self.stage.filler(), first)
        self.origin.release.set()
        answers = [answer for answer in read_all(waiting) if answer]  # else the killed one's
        body = body_of(self.held)
        self.assertGreater(len(answers), 0)
        for answer in answers:
            head, _, got = answer.partition(b"\r\n\r\n")
            self.assertEqual((head[:12], got == body), (b"HTTP/1.1 200", True))
        self.assertEqual(self.origin.asked[self.held], 2)


class KillingTests(StagedCase):
    def test_killing_under_load(self) -> None:
        """No wrong body, no limit broken, nothing left: ``python -m tests.support.killing``."""
        stage = Stage(max_size=str(killing.MAX_SIZE))
        self.addCleanup(stage.close)
        report = killing.Killing(stage).run(SECONDS)
        self.assertEqual(report.faults, [], str(report))
        self.assertGreater(report.answers["good"], 100, str(report))
        self.assertEqual(len(report.killed), 3, str(report))
