"""Who gets which request: nginx and imagefarm in front of the same servers.

Each request is asked of both, and the addresses that were tried (``$upstream_addr``) have to be
the same ones in the same order. ``fail=PORT,...`` makes servers answer with 500.
"""

from __future__ import annotations

import random
import socket
import time
from pathlib import Path

from imagefarm.proxy.group import GRACE
from tests.support import beside, farmsite, rawhttp, tools
from tests.support.processes import Daemon, free_ports
from tests.support.stages import StagedCase

SERVERS = r"""
worker_processes 1;
error_log %(here)s/error.log info;
pid %(here)s/pid;
events { worker_connections 256; }
http {
    access_log off;
    keepalive_requests 100000;
    %(servers)s
}
"""
SERVER = r"""
    server {
        listen 127.0.0.1:%(port)d;
        location / {
            if ($arg_fail ~ "%(port)d") { return 500; }
            return 200 %(port)d;
        }
        location /kept { return 200 $connection_requests; }
        location /least/held {
            limit_rate_after 1k;
            limit_rate 1;
            return 200 %(long)s;
        }
    }
"""
CONFIGURATION = r"""
worker_processes 1;
error_log %(here)s/error.log info;
pid %(here)s/pid;
events { worker_connections 256; }
http {
    access_log off;
    keepalive_requests 100000;
    proxy_http_version 1.1;
    postpone_output 0;
    proxy_set_header Connection "";
    proxy_next_upstream error timeout http_500;
    add_header X-Peers $upstream_addr always;

    upstream plain {
        hash $arg_k;
        server 127.0.0.1:%(a)d max_fails=0;
        server 127.0.0.1:%(b)d max_fails=0 weight=3;
        server 127.0.0.1:%(dead)d max_fails=0 weight=2;
        server 127.0.0.1:%(c)d max_fails=0 down;
        server localhost:%(d)d max_fails=0 weight=2;
        keepalive 8;
    }
    upstream ring {
        hash $arg_k consistent;
        server 127.0.0.1:%(a)d max_fails=0;
        server 127.0.0.1:%(b)d max_fails=0 weight=3;
        server 127.0.0.1:%(dead)d max_fails=0 weight=2;
        server 127.0.0.1:%(c)d max_fails=0 down;
        server localhost:%(d)d max_fails=0 weight=2;
        server unix:%(nobody)s max_fails=0;
        keepalive 8;
    }
    upstream turns {
        server 127.0.0.1:%(a)d weight=5 max_fails=2 fail_timeout=2s;
        server 127.0.0.1:%(b)d fail_timeout=2s;
        server 127.0.0.1:%(c)d weight=2 max_fails=0;
        server 127.0.0.1:%(d)d weight=7 max_fails=3 fail_timeout=2s;
        keepalive 8;
    }
    upstream equals {
        server 127.0.0.1:%(a)d fail_timeout=2s;
        server 127.0.0.1:%(b)d fail_timeout=2s;
        server 127.0.0.1:%(c)d fail_timeout=2s;
        server 127.0.0.1:%(d)d fail_timeout=2s backup;
    }
    upstream least {
        least_conn;
        server 127.0.0.1:%(a)d weight=2;
        server 127.0.0.1:%(b)d;
        server 127.0.0.1:%(c)d weight=3;
        server 127.0.0.1:%(d)d max_conns=1;
    }
    upstream kept-for-requests {
        server 127.0.0.1:%(a)d;
        keepalive 1;
        keepalive_requests 3;
    }
    upstream kept-for-timeout {
        server 127.0.0.1:%(a)d;
        keepalive 1;
        keepalive_timeout 2s;
    }
    upstream kept-for-time {
        server 127.0.0.1:%(a)d;
        keepalive 1;
        keepalive_time 2s;
    }
    upstream kept-for-few {
        least_conn;
        server 127.0.0.1:%(a)d;
        server 127.0.0.1:%(b)d;
        keepalive 1;
    }
    server {
        listen 127.0.0.1:%(listen)d;
        location /kept/requests { proxy_pass http://kept-for-requests; }
        location /kept/timeout { proxy_pass http://kept-for-timeout; }
        location /kept/time { proxy_pass http://kept-for-time; }
        location /kept/few { proxy_pass http://kept-for-few; }
        location /plain { proxy_pass http://plain; }
        location /ring { proxy_pass http://ring; }
        location /turns { proxy_pass http://turns; }
        location /equals { proxy_pass http://equals; }
        location /least/ { proxy_pass http://least; }
    }
}
"""


class Side:
    """A balancer, and a connection to it that is kept."""

    def __init__(self, here: Path, **values: object) -> None:
        here.mkdir()
        here.chmod(0o755)
        self.here = here
        (self.port,) = free_ports(1)
        self.config = here / "balancer.conf"
        values |= {"here": str(here), "listen": self.port}
        self.config.write_text(CONFIGURATION % values)
        self._reader: rawhttp.Reader | None = None

    def connect(self) -> socket.socket:
        sock = socket.create_connection(("127.0.0.1", self.port), rawhttp.TIMEOUT)
        self._sock, self._reader = sock, rawhttp.Reader(sock)
        return sock

    def ask(self, target: str) -> tuple[str | None, bytes]:
        """Which servers were tried for a request, and what the last one said."""
        assert self._reader is not None
        self._sock.sendall(rawhttp.request(target))
        answer = self._reader.answer()
        assert answer is not None, target
        return answer.header("X-Peers"), answer.plain

    def hold(self, target: str) -> str:
        """The same for a request whose answer does not end; the connection stays open."""
        sock = socket.create_connection(("127.0.0.1", self.port), rawhttp.TIMEOUT)
        self.held.append(sock)
        sock.sendall(rawhttp.request(target))
        head = b""
        while b"\r\n\r\n" not in head:
            head += sock.recv(4096)
        (line,) = [line for line in head.split(b"\r\n") if line.startswith(b"X-Peers: ")]
        return line.decode()

    held: list[socket.socket]


class BalancingTests(StagedCase):
    maxDiff = None

    def setUp(self) -> None:
        directory = beside.directory(self.addCleanup, "balancing")
        names = ("a", "b", "c", "d", "dead")
        self.ports = dict(zip(names, free_ports(len(names)), strict=True))
        values = {**self.ports, "nobody": directory / "nobody"}
        self.theirs = Side(directory / "nginx", **values)
        self.ours = Side(directory / "imagefarm", **values)
        servers = self._servers(directory / "servers")
        self.addCleanup(servers.stop)
        servers.started()
        theirs, ours = ((side.config, [side.port]) for side in (self.theirs, self.ours))
        beside.start(self.addCleanup, theirs, ours)
        for side in (self.theirs, self.ours):
            side.held = []
            self.addCleanup(side.connect().close)
            self.addCleanup(lambda side=side: [sock.close() for sock in side.held])

    def _servers(self, here: Path) -> Daemon:
        here.mkdir()
        here.chmod(0o755)
        ports = [self.ports[name] for name in "abcd"]
        servers = "".join(SERVER % {"port": port, "long": "x" * 1500} for port in ports)
        config = here / "servers.conf"
        config.write_text(SERVERS % {"here": str(here), "servers": servers})
        return farmsite.nginx(tools.nginx(), here, config, ports)

    def compare(self, *targets: str) -> list[tuple[str | None, bytes]]:
        """Ask both in turn; returns what they agree on."""
        seen = []
        for number, target in enumerate(targets):
            theirs, ours = self.theirs.ask(target), self.ours.ask(target)
            self.assertEqual(theirs, ours, f"{number}: {target}, after {seen[-9:]}")
            seen.append(ours)
        return seen

    def test_everyone_gets_what_nginx_gives_them(self) -> None:
        """One test, so that the daemons start once."""
        self.hashes()
        self.kept()
        self.turns()
        self.least()

    def hashes(self) -> None:
        """Thousands of keys, some of which meet a server that is not there."""
        keys = [f"/photos/{number}.jpg" for number in range(2000)]
        for name in ("plain", "ring"):
            seen = self.compare(*(f"/{name}?k={key}" for key in keys))
            self.assertEqual(len({str(peers).rpartition(" ")[2] for peers, _ in seen}), 3)
            self.assertTrue(any(", " in str(peers) for peers, _ in seen))
            # Several failures for one request; and no key, which is round robin.
            fail = f"fail={self.ports['b']}"
            self.compare(*(f"/{name}?{fail}&k={key}" for key in keys[:150]))
            self.compare(*[f"/{name}?k="] * 30)

    def kept(self) -> None:
        """How often a connection to a server is used."""
        seen = self.compare(*["/kept/requests"] * 7)
        self.assertEqual([said for _, said in seen], [b"1", b"2", b"3", b"1", b"2", b"3", b"1"])
        # Two servers in turn, and room for one connection: it never is the one that is wanted,
        # once what is too much here for a moment has been closed.
        for _ in range(6):
            ((_, said),) = self.compare("/kept/few")
            self.assertEqual(said, b"1")
            time.sleep(2 * GRACE)

    def turns(self) -> None:
        """Weights, while servers fail and come back; one of them never fails.

        (Where all have failed nginx answers 502 at the next attempt; we pass on the last answer.)
        """
        port = {name: str(self.ports[name]) for name in "abcd"}
        dice = random.Random(4)
        failable = {"turns": "abd", "equals": "abc"}
        # Round after round: how often the connections were used before the wait.
        for before, after in (((1, 2, 1, 2), (1, 3, 1)), ((2, 3, 2, 3), (1, 4, 1))):
            for name, servers in failable.items():
                failing = [
                    ",".join(port[server] for server in servers if dice.random() < 0.2)
                    for _ in range(30)
                ]
                self.compare(*[f"/{name}"] * 40)
                self.compare(*(f"/{name}?fail={some}" for some in failing), *[f"/{name}"] * 20)
            kept = self.compare(*["/kept/timeout"] * 2, *["/kept/time"] * 2)
            self.assertEqual(tuple(int(said) for _, said in kept), before)
            time.sleep(3.1)  # fail_timeout, keepalive_timeout, keepalive_time
            # The one was closed meanwhile; the other is used once more, then it is too old.
            kept = self.compare("/kept/timeout", *["/kept/time"] * 2)
            self.assertEqual(tuple(int(said) for _, said in kept), after)
        for name in failable:
            self.compare(*[f"/{name}"] * 40)

    def least(self) -> None:
        """Some servers are busy."""
        self.compare(*["/least/"] * 20)
        for _ in range(9):
            self.assertEqual(self.theirs.hold("/least/held"), self.ours.hold("/least/held"))
            self.compare(*["/least/"] * 5)
