"""The cache of a real master with four workers: one filler for all, also when it is killed."""

from __future__ import annotations

import atexit
import functools
import hashlib
import os
import random
import selectors
import signal
import socket
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.support import rawhttp
from tests.support.farm import temporary_prefix
from tests.support.processes import descendants, free_ports, wait_until

WORKERS = 4
CLIENTS = 200
CONF = """
worker_processes 4;
pid logs/master.pid;
error_log logs/error.log notice;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    proxy_cache_path cache levels=1:2 keys_zone=one:1m max_size=4m;
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://127.0.0.1:{origin};
            proxy_cache one;
            proxy_cache_key $uri;
            proxy_cache_valid 200 1s;
            proxy_cache_lock_timeout 30s;
            proxy_cache_lock_age 30s;
            add_header X-Worker $pid;
        }}
        location /long/ {{
            proxy_pass http://127.0.0.1:{origin};
            proxy_cache one;
            proxy_cache_key $uri;
            proxy_cache_valid 200 1h;
            proxy_cache_lock_timeout 30s;
            proxy_cache_lock_age 30s;
            add_header X-Worker $pid;
        }}
        location /dead/ {{
            proxy_pass http://127.0.0.1:{dead};
            proxy_cache one;
            proxy_cache_key $uri;
            location /dead/page/ {{
                proxy_pass http://127.0.0.1:{dead};
                error_page 502 /page.html;
            }}
        }}
        location = /page.html {{ return 404 sorry; }}
    }}
}}
"""


def body_of(path: str) -> bytes:
    """What belongs under a path: its hash, over and over, of a length that depends on it."""
    digest = hashlib.sha256(path.encode()).digest()
    return digest * (100 + digest[0] * 8)


class Origin(ThreadingHTTPServer):
    """Counts, and answers paths with ``held`` in them when it is told to."""

    request_queue_size = 512
    daemon_threads = True

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.release = threading.Event()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                server.asked[self.path] += 1
                if "held" in self.path:
                    server.release.wait(30)
                body = body_of(self.path)
                self.send_response_only(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                half = len(body) // 2
                self.wfile.write(body[:half])
                self.wfile.write(body[half:])

            def log_message(self, format: str, *args: Any) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True)
        self.thread.start()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A killed worker's connection breaks: that is the point."""

    def close(self) -> None:
        self.release.set()
        self.shutdown()
        self.server_close()
        self.thread.join()


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


class Stage:
    """A master before an origin, for all tests of this module."""

    def __init__(self) -> None:
        self.origin = Origin()
        atexit.register(self.origin.close)
        self.prefix = temporary_prefix()
        self.port, dead = free_ports(2)
        conf = CONF.format(port=self.port, origin=self.origin.server_port, dead=dead)
        self.prefix.write("cache.conf", conf)
        self.start()

    def start(self) -> None:
        self.master = self.prefix.start("master", ports=[self.port], config="cache.conf")
        atexit.register(self.master.stop)
        self.master.started()
        wait_until(lambda: len(self.workers()) == WORKERS, what="all workers")

    def workers(self) -> list[int]:
        return descendants(self.master.pid)


@functools.cache
def stage() -> Stage:
    """The stage, set up by the first test that wants it."""
    return Stage()


class CacheTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.stage = stage()
        self.origin, self.prefix, self.port = (
            self.stage.origin, self.stage.prefix, self.stage.port,
        )  # fmt: skip
        self.workers = self.stage.workers
        wait_until(lambda: len(self.workers()) == WORKERS, what="all workers")
        self.origin.release.clear()
        self.held = f"/long/held/{self.id()}"
        self.addCleanup(self.origin.release.set)

    @property
    def cache(self) -> Path:
        return self.prefix.directory / "cache"

    def ask(self, path: str, count: int) -> list[socket.socket]:
        """So many simultaneous requests, on connections of their own."""
        sockets = [rawhttp.connect(self.port) for _ in range(count)]
        for sock in sockets:
            sock.sendall(rawhttp.request(path, "Connection: close"))
        return sockets

    def filler(self) -> int:
        """The process that holds the only lock of a key."""
        (file,) = os.listdir(self.cache / "locks")
        inode = os.stat(self.cache / "locks" / file).st_ino
        for line in Path("/proc/locks").read_text().splitlines():
            words = line.split()
            if "FLOCK" in words and "WRITE" in words and f":{inode} " in line:
                return int(words[words.index("WRITE") + 1])
        raise AssertionError("nobody holds the lock")

    def test_every_answer_that_passed_says_so(self) -> None:
        for path, method, status, said in (
            ("/long/said", "GET", 200, "fwd=miss; stored"),
            ("/long/said", "GET", 200, "hit; ttl=3599"),
            ("/long/said", "OPTIONS", 501, "fwd=method"),
            ("/dead/", "GET", 502, "fwd=miss"),
            ("/dead/page/", "GET", 502, "fwd=miss"),
        ):
            answer = rawhttp.exchange(self.port, rawhttp.request(path, method=method))
            assert answer is not None
            told = (answer.header("cache-status") or "").removeprefix("imagefarm; ")
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
        first = self.filler()
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: self.origin.asked[self.held] == 2, what="the next filler")
        self.assertNotEqual(self.filler(), first)
        self.origin.release.set()
        answers = [answer for answer in read_all(waiting) if answer]  # else the killed one's
        body = body_of(self.held)
        self.assertGreater(len(answers), CLIENTS // WORKERS)
        for answer in answers:
            head, _, got = answer.partition(b"\r\n\r\n")
            self.assertEqual((head[:12], got == body), (b"HTTP/1.1 200", True))
        self.assertEqual(self.origin.asked[self.held], 2)

    def test_killing_in_a_loop(self) -> None:
        """No wrong body ever, and nothing is left of it after the next start."""
        seen: Counter[str] = Counter()
        end = time.monotonic() + 4
        threads = [threading.Thread(target=self.client, args=(end, n, seen)) for n in range(8)]
        for thread in threads:
            thread.start()
        while time.monotonic() < end:
            time.sleep(0.3)
            if found := self.workers():
                os.kill(random.choice(found), signal.SIGKILL)
        for thread in threads:
            thread.join()
        self.assertEqual(seen["wrong"], 0, seen)
        self.assertGreater(seen["good"], 100, seen)
        self.stage.master.stop()
        self.stage.start()
        for folder in ("tmp", "locks"):
            wait_until(lambda folder=folder: not os.listdir(self.cache / folder), what=folder)
        self.assertNotIn("removed", self.prefix.log("error.log").partition("cache file")[2])

    def client(self, end: float, number: int, seen: Counter[str]) -> None:
        rng = random.Random(number)
        while time.monotonic() < end:
            path = f"/{'long/' if rng.random() < 0.5 else ''}{rng.randrange(60)}"
            try:
                answer = rawhttp.exchange(self.port, rawhttp.request(path))
            except (OSError, AssertionError):
                answer = None
            if answer is None or answer.status != 200:
                seen["broken"] += 1
                continue
            whole = len(answer.body) == int(answer.header("content-length") or -1)
            right = answer.body == body_of(path)
            seen["good" if right else "wrong" if whole else "broken"] += 1
