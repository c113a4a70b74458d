"""Slow senders and slow readers are cut off at their timeouts; nobody else feels them."""

from __future__ import annotations

import shutil
import socket
import statistics
import tempfile
import time
from pathlib import Path

from tests.support import rawhttp
from tests.support.processes import Daemon, free_ports, imagefarm, wait_until
from tests.support.slow import Stalled, connect
from tests.support.stages import Cleanup, StagedCase, shared

#: Every timeout in the configuration below, in seconds.
TIMEOUT = 1.0
#: A deadline is met up to one tick of the wheel late.
TICK = 0.5
#: What a busy machine may add.
SLACK = 2.0
CONNECTIONS = 700
BIG = 64 << 20
SMALL = b"picture" * 1500

#: A client that reads nothing only notices a reset: an orderly end waits behind what it left.
CONFIGURATION = """
worker_processes 1;
error_log logs/error.log;
pid logs/daemon.pid;
events {{ worker_connections {connections}; }}
http {{
    log_format short "$request_uri $status";
    access_log logs/access.log short;
    client_header_timeout 1s;
    client_body_timeout 1s;
    send_timeout 1s;
    lingering_timeout 1s;
    reset_timedout_connection on;
    keepalive_requests 1000000;
    keepalive_timeout 60s;
    server {{
        listen 127.0.0.1:{port};
        location / {{ root files; }}
        location = /up {{ proxy_pass http://127.0.0.1:{inner}; }}
        location = /hole {{ proxy_pass http://127.0.0.1:{hole}; }}
    }}
    server {{
        listen 127.0.0.1:{inner};
        location / {{ return 200 "received"; }}
    }}
}}
"""

HEAD = b"GET /small.jpg HTTP/1.1\r\nHost: a\r\nA: "
BODY = b"POST /hole HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nx"
CHUNKS = b"POST /hole HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab"
READER = b"GET /big.bin HTTP/1.1\r\nHost: a\r\n\r\n"
PIPELINE = b"GET /small.jpg HTTP/1.1\r\nHost: a\r\n\r\n" * 2000


class Server:
    """A slave with short timeouts. Behind ``/hole`` is a peer that takes everything and answers
    nothing, so that the body is waited for."""

    def __init__(self, connections: int) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="slow-clients-"))
        self.directory.chmod(0o755)
        for name in ("conf", "logs", "files"):
            (self.directory / name).mkdir()
        (self.directory / "files/small.jpg").write_bytes(SMALL)
        with (self.directory / "files/big.bin").open("wb") as file:
            file.truncate(BIG)
        self.port, inner = free_ports(2)
        self._hole = socket.create_server(("127.0.0.1", 0), backlog=1024)
        config = self.directory / "conf/slow.conf"
        config.write_text(
            CONFIGURATION.format(
                port=self.port,
                inner=inner,
                hole=self._hole.getsockname()[1],
                connections=connections,
            )
        )
        self.daemon: Daemon = imagefarm(
            "slave", self.directory, "--config", str(config), ports=[self.port, inner]
        ).started()

    def statuses(self, target: str) -> list[str]:
        """What the access log says of a target."""
        lines = (self.directory / "logs/access.log").read_text().splitlines()
        return [line.split()[1] for line in lines if line.startswith(f"{target} ")]

    def stop(self) -> None:
        self.daemon.stop()
        self._hole.close()
        shutil.rmtree(self.directory, ignore_errors=True)


@shared
def server(cleanup: Cleanup, connections: int) -> Server:
    """Started by the first test that wants it."""
    made = Server(connections)
    cleanup(made.stop)
    return made


class Client:
    """Asks for the small file on one kept-alive connection, and keeps the times."""

    def __init__(self, port: int) -> None:
        self._sock = rawhttp.connect(port)
        self._reader = rawhttp.Reader(self._sock)
        self.seconds: list[float] = []

    def get(self) -> None:
        start = time.perf_counter()
        self._sock.sendall(rawhttp.request("/small.jpg"))
        answer = self._reader.answer()
        self.seconds.append(time.perf_counter() - start)
        assert answer is not None and answer.status == 200, answer
        assert answer.body == SMALL

    def close(self) -> None:
        self._sock.close()


class SlowClients(StagedCase):
    def setUp(self) -> None:
        self.server = server(CONNECTIONS)

    def stall(self, *requests: bytes) -> Stalled:
        stalled = Stalled(self.server.port, requests)
        self.addCleanup(stalled.close)
        return stalled

    def assert_cut_off(self, stalled: Stalled, least: float, most: float) -> None:
        self.assertEqual(stalled.left, 0)
        self.assertGreaterEqual(min(stalled.ended), least)
        self.assertLess(max(stalled.ended), most + TICK + SLACK)

    def test_no_request(self) -> None:
        stalled = self.stall(b"")
        stalled.wait(10)
        self.assert_cut_off(stalled, TIMEOUT, TIMEOUT)

    def test_head_in_drops(self) -> None:
        """Bytes that trickle in don't renew the time for the head."""
        stalled = self.stall(HEAD)

        def drip() -> None:
            stalled.send(b"a")
            time.sleep(0.1)

        stalled.wait(10, drip)
        self.assert_cut_off(stalled, TIMEOUT, TIMEOUT)

    def test_next_head_in_drops(self) -> None:
        """Nor do they when an answer came before, whatever keepalive_timeout is."""
        sock = connect(self.server.port)
        self.addCleanup(sock.close)
        sock.sendall(rawhttp.request("/small.jpg"))
        rawhttp.Reader(sock).answer()
        time.sleep(2 * (TIMEOUT + TICK))  # at rest, only keepalive_timeout counts
        start = time.monotonic()
        sock.sendall(HEAD)
        self.assertRaises(ConnectionResetError, sock.recv, 1)  # reset_timedout_connection
        self.assertGreaterEqual(time.monotonic() - start, TIMEOUT)
        self.assertLess(time.monotonic() - start, TIMEOUT + TICK + SLACK)

    def test_body_that_stops(self) -> None:
        before = len(self.server.statuses("/hole"))
        stalled = self.stall(BODY, CHUNKS)
        stalled.wait(10)
        self.assert_cut_off(stalled, TIMEOUT, TIMEOUT)
        wait_until(lambda: len(self.server.statuses("/hole")) == before + 2, 30, "log lines")
        self.assertEqual(self.server.statuses("/hole")[before:], ["408", "408"])

    def test_body_in_drops(self) -> None:
        """client_body_timeout is between two reads: a slow client is served if it goes on."""
        with rawhttp.connect(self.server.port) as sock:
            sock.sendall(rawhttp.request("/up", "Content-Length: 5", method="POST"))
            for _ in range(5):
                time.sleep(TIMEOUT / 2)
                sock.sendall(b"x")
            answer = rawhttp.Reader(sock).answer()
        assert answer is not None
        self.assertEqual((answer.status, answer.body), (200, b"received"))

    def test_reader_that_stops(self) -> None:
        """The time for sending begins anew when something was sent: at most two of them."""
        stalled = self.stall(READER)
        stalled.wait(10)
        self.assert_cut_off(stalled, TIMEOUT, 2 * (TIMEOUT + TICK))

    def test_pipeline_without_reading(self) -> None:
        """Answers to a pipeline are not collected for a client that reads none of them."""
        stalled = self.stall(PIPELINE)
        stalled.wait(10)
        self.assert_cut_off(stalled, TIMEOUT, 2 * (TIMEOUT + TICK))

    def test_reader_in_drops(self) -> None:
        """A slow reader is not cut off for as long as it reads.

        It empties the kernel's buffers quickly enough for the server to write once a second.
        """
        sock = rawhttp.connect(self.server.port)
        self.addCleanup(sock.close)
        sock.sendall(READER)
        got = 0
        end = time.monotonic() + 4 * TIMEOUT
        while time.monotonic() < end:
            got += len(sock.recv(1 << 18))
            time.sleep(0.05)
        self.assertLess(got, BIG)
        sock.settimeout(30)
        while got < BIG and (data := sock.recv(1 << 20)):
            got += len(data)
        self.assertGreater(got, BIG)

    def test_five_hundred(self) -> None:
        """Others are served meanwhile, correctly and nearly as fast as before."""
        client = Client(self.server.port)
        self.addCleanup(client.close)
        for _ in range(300):
            client.get()
        alone, client.seconds = statistics.median(client.seconds), []
        stalled = self.stall(*[HEAD] * 200, *[BODY] * 100, *[CHUNKS] * 50, *[READER] * 150)
        fresh = 0

        def others() -> None:
            nonlocal fresh
            for _ in range(5):
                client.get()
            answer = rawhttp.exchange(self.server.port, rawhttp.request("/small.jpg"))
            assert answer is not None
            fresh += answer.body == SMALL

        stalled.wait(20, others)
        self.assert_cut_off(stalled, TIMEOUT, 2 * (TIMEOUT + TICK))
        self.assertEqual(len(stalled.ended), 500)
        self.assertGreater(fresh, 20)
        # Far less than what the stalled ones wait for, even where others take the processor.
        self.assertLess(statistics.median(client.seconds), 10 * alone + 0.05)
