"""A real master with four workers that caches, before an origin that counts what it is asked."""

from __future__ import annotations

import contextlib
import hashlib
import random
import threading
import time
from collections import Counter
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from .acceptor import HttpServer
from .farm import temporary_prefix
from .processes import descendants, free_ports, wait_until

WORKERS = 4
CONF = """
worker_processes 4;
pid logs/master.pid;
error_log logs/error.log notice;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    proxy_cache_path cache levels=1:2 keys_zone=one:1m max_size={max_size};
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


class Origin(HttpServer):
    """Counts, and answers paths with ``held`` in them when it is told to."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        #: How long it may stop in the middle of an answer, in seconds.
        self.pause = 0.0
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
                if server.pause:
                    time.sleep(random.uniform(0, server.pause))
                self.wfile.write(body[half:])

            def log_message(self, format: str, *args: Any) -> None:
                pass

        super().__init__(Handler)

    def close(self) -> None:
        self.release.set()
        super().close()


def holder(file: Path) -> int | None:
    """The process that holds the lock (flock) on a file; None if nobody does."""
    try:
        inode = file.stat().st_ino
    except OSError:
        return None
    for line in Path("/proc/locks").read_text().splitlines():
        words = line.split()
        if "FLOCK" in words and "WRITE" in words and f":{inode} " in line:
            return int(words[words.index("WRITE") + 1])
    return None


class Stage:
    """A master before an origin. To be closed."""

    def __init__(self, max_size: str = "4m") -> None:
        self.origin = Origin()
        self._ends = ExitStack()
        self.prefix = temporary_prefix(self._ends.callback)
        self.port, dead = free_ports(2)
        conf = CONF.format(
            port=self.port, origin=self.origin.server_port, dead=dead, max_size=max_size
        )
        self.prefix.write("cache.conf", conf)
        self.cache = self.prefix.directory / "cache"
        self.start()

    def start(self) -> None:
        self.master = self.prefix.start("master", ports=[self.port], config="cache.conf")
        self.master.started()
        wait_until(lambda: len(self.workers()) == WORKERS, what="all workers")

    def workers(self) -> list[int]:
        return descendants(self.master.pid)

    def filler(self) -> int | None:
        """A process that fills a key."""
        with contextlib.suppress(FileNotFoundError):
            for file in (self.cache / "locks").iterdir():
                if pid := holder(file):
                    return pid
        return None

    def manager(self) -> int | None:
        """The process that is the cache's manager."""
        return holder(self.cache / "manager.lock")

    def close(self) -> None:
        self.master.stop()
        self.origin.close()
        self._ends.close()
