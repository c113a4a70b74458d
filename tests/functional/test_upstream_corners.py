"""Corners of the way to upstreams, with real processes: clients that leave and are ignored, a
disk that is full, checks of servers whose names move.
"""

from __future__ import annotations

import json
import queue
import resource
import select
import shutil
import socket
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from imagefarm.fastcgi import records as fcgi
from tests.support import rawhttp
from tests.support.acceptor import Acceptor
from tests.support.dns import Nameserver
from tests.support.load import is_body
from tests.support.processes import Daemon, descendants, free_ports, imagefarm, wait_until
from tests.support.sick import good
from tests.support.slave import Slave
from tests.support.stages import Cleanup, StagedCase, shared
from tests.support.streams import Checker, pieces

#: What a file of the master's may have when the disk is full.
DISK = 1 << 20
MEDIUM = 24 << 20
FIRST, SECOND, THIRD = "127.0.0.1", "127.0.0.2", "127.0.0.3"
CONFIGURATION = """
worker_processes 1;
error_log logs/error.log info;
events {{ }}
http {{
    access_log off;
    client_max_body_size 0;
    resolver 127.0.0.1:{nameserver} valid=1s ipv6=off;
    proxy_read_timeout 5s;
    fastcgi_keep_conn on;
    fastcgi_param REQUEST_URI $request_uri;
    fastcgi_param REQUEST_METHOD $request_method;
    upstream patient {{ server 127.0.0.1:{patient}; keepalive 4; }}
    upstream app {{ server 127.0.0.1:{app}; keepalive 4; }}
    upstream named {{ server slaves.example:{slave} resolve max_fails=0; }}
    server {{
        listen 127.0.0.1:{port};
        location /stop/ {{ proxy_pass http://patient; }}
        location /go/ {{ proxy_pass http://patient; proxy_ignore_client_abort on; }}
        location /appstop/ {{ fastcgi_pass app; }}
        location /appgo/ {{ fastcgi_pass app; fastcgi_ignore_client_abort on; }}
        location /full/ {{ proxy_pass http://127.0.0.1:{http}/; }}
        location /unbuffered/ {{
            proxy_pass http://127.0.0.1:{http}/;
            proxy_request_buffering off;
        }}
        location /appfull/ {{
            rewrite ^/appfull(.*)$ $1 break;
            fastcgi_pass 127.0.0.1:{fastcgi};
            fastcgi_param PATH $uri;
        }}
        location /named {{
            proxy_pass http://named;
            proxy_next_upstream off;
            health_check interval=200ms fails=1 passes=1 uri=/health;
        }}
        location /hints {{ proxy_pass http://127.0.0.1:{hinting}; early_hints $arg_wanted; }}
        location = /status {{ status; }}
    }}
}}
"""


class Patient(Acceptor):
    """Answers, but where ``wait`` is asked for looks first whether anybody still wants it."""

    def __init__(self, protocol: str) -> None:
        self._protocol = protocol
        #: How long it waits to be left, in seconds.
        self.patience = 0.0
        #: "connected", "asked", and then "left" or "stayed".
        self.seen: queue.Queue[str] = queue.Queue()

    def serve(self, client: socket.socket) -> None:
        self.seen.put("connected")
        while target := self._read(client):
            if "wait" in target:
                self.seen.put("asked")
                if select.select([client], [], [], self.patience)[0]:
                    self.seen.put("left")
                    return
                self.seen.put("stayed")
            client.sendall(good(self._protocol, target))

    def _read(self, sock: socket.socket) -> str:
        """What is asked for; empty at the end."""
        data, reader, params = b"", fcgi.RecordReader(), b""
        while piece := sock.recv(65536):
            if self._protocol == "http":
                data += piece
                if data.endswith(b"\r\n\r\n"):
                    return data.split(b" ")[1].decode()
                continue
            for record in reader.feed(piece):
                if record.type == fcgi.RecordType.PARAMS:
                    params += record.content
                elif record.type == fcgi.RecordType.STDIN:
                    return dict(fcgi.decode_pairs(params))[b"REQUEST_URI"].decode()
        return ""


class Hinting(Acceptor):
    """Sends early hints, and the answer when they have arrived."""

    def __init__(self) -> None:
        self.arrived = threading.Event()

    def serve(self, client: socket.socket) -> None:
        while client.recv(65536):
            client.sendall(b"HTTP/1.1 103 Early Hints\r\nServer: x\r\nLink: </a.css>\r\n\r\n")
            self.arrived.wait(30)
            client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")


class Stage:
    def __init__(self, cleanup: Cleanup) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="corners-"))
        cleanup(shutil.rmtree, self.directory, True)
        (self.directory / "logs").mkdir()
        self.patient, self.app = Patient("http"), Patient("fastcgi")
        for patient in (self.patient, self.app):
            patient.open()
            cleanup(patient.close)
        self.hinting = Hinting()
        self.hinting.open()
        cleanup(self.hinting.close)
        self.names = Nameserver()
        self.names.set("slaves.example", FIRST, SECOND)
        self.names.start()
        cleanup(self.names.stop)
        self.port, http, fastcgi, slave = free_ports(4)
        self.slaves = {
            address: Slave(address, cleanup, (address, slave))
            for address in (FIRST, SECOND, THIRD)
        }
        self.slave = slave
        origin = Daemon(
            [sys.executable, "-m", "tests.support.streams", str(http), str(fastcgi)],
            self.directory / "origin.out",
            [http, fastcgi],
            {"PYTHONPATH": str(Path(__file__).parents[2])},
        )
        cleanup(origin.stop)
        config = self.directory / "master.conf"
        config.write_text(
            CONFIGURATION.format(
                port=self.port, http=http, fastcgi=fastcgi, slave=slave,
                patient=self.patient.port, app=self.app.port, nameserver=self.names.port,
                hinting=self.hinting.port,
            )
        )  # fmt: skip
        words = ("--config", str(config))
        self.master = imagefarm("master", self.directory, *words, ports=[self.port])
        cleanup(self.master.stop)
        origin.started()
        self.master.started()

    def get(self, target: str, *fields: str) -> rawhttp.Answer:
        answer = rawhttp.exchange(self.port, rawhttp.request(target, "Connection: close", *fields))
        assert answer is not None
        return answer

    def active(self) -> int:
        """Requests that are at patient servers."""
        groups = json.loads(self.get("/status").body)["upstreams"]
        return sum(peer["active"] for n in ("patient", "app") for peer in groups[n]["peers"])

    def log(self) -> str:
        return (self.directory / "logs" / "error.log").read_text()


@shared
def stage(cleanup: Cleanup) -> Stage:
    """Set up by the first test that wants it."""
    return Stage(cleanup)


class GoneTests(StagedCase):
    def play(self, place: str, patient: Patient, expected: str, *, half: bool) -> None:
        """Leave while an answer is made. What is like it has been learnt before."""
        made = stage()
        patient.patience = 30 if expected == "left" else 0.4
        with rawhttp.connect(made.port) as sock:
            reader = rawhttp.Reader(sock)
            for _ in range(3):
                sock.sendall(rawhttp.request(f"/{place}/100-before.jpg"))
                answer = reader.answer()
                assert answer is not None
                self.assertTrue(is_body(answer.body, f"/{place}/100-before.jpg"))
            while not patient.seen.empty():
                patient.seen.get()
            sock.sendall(rawhttp.request(f"/{place}/100-wait.jpg"))
            self.assertEqual(patient.seen.get(timeout=30), "asked")
            if half:
                sock.shutdown(socket.SHUT_WR)
                time.sleep(0.1)
        self.assertEqual(patient.seen.get(timeout=30), expected)
        wait_until(lambda: not made.active(), 30, "end of the request")
        answer = made.get(f"/{place}/100-after.jpg")
        self.assertTrue(is_body(answer.body, f"/{place}/100-after.jpg"))
        # A connection whose answer was read to its end is used again.
        self.assertEqual(patient.seen.empty(), expected == "stayed")

    def test_the_upstream_is_told(self) -> None:
        for half in (False, True):
            self.play("stop", stage().patient, "left", half=half)
            self.play("appstop", stage().app, "left", half=half)

    def test_ignored(self) -> None:
        for half in (False, True):
            self.play("go", stage().patient, "stayed", half=half)
            self.play("appgo", stage().app, "stayed", half=half)


class EarlyHintsTests(StagedCase):
    def test_passed_on(self) -> None:
        """They are with the client before there is an answer; nobody else gets them."""
        made = stage()
        with rawhttp.connect(made.port) as sock:
            reader = rawhttp.Reader(sock)
            for wanted in ("1", "0", "1"):
                made.hinting.arrived.clear()
                sock.sendall(rawhttp.request(f"/hints?wanted={wanted}"))
                if wanted == "1":
                    head = b""
                    while not head.endswith(b"\r\n\r\n"):
                        head += sock.recv(1)
                    expected = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n"
                    self.assertEqual(head, expected)
                made.hinting.arrived.set()
                answer = reader.answer()
                assert answer is not None
                self.assertEqual((answer.status, answer.body), (200, b"ok"))


class FullDiskTests(StagedCase):
    def setUp(self) -> None:
        self.stage = stage()
        (pid,) = descendants(self.stage.master.pid)
        _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (DISK, hard))
        self.addCleanup(resource.prlimit, pid, resource.RLIMIT_FSIZE, (hard, hard))
        self.logged = len(self.stage.log())

    def test_answers(self) -> None:
        """A slow client's answer can't be kept: the upstream waits, and all of it comes."""
        for place in ("full", "appfull"):
            with rawhttp.connect(self.stage.port) as sock:
                sock.sendall(rawhttp.request(f"/{place}/bytes/{MEDIUM}", "Connection: close"))
                wait_until(lambda: "(27: File too large)" in self.news(), 30, "complaint")
                self.logged = len(self.stage.log())
                data = b""
                while b"\r\n\r\n" not in data:
                    data += sock.recv(65536)
                checker = Checker()
                checker.feed(data.partition(b"\r\n\r\n")[2])
                while piece := sock.recv(1 << 18):
                    checker.feed(piece)
            self.assertEqual((checker.count, checker.good), (MEDIUM, True), place)

    def test_requests(self) -> None:
        """A body that has to be read first is 500, others go through."""
        for place, expected in (("full", 500), ("appfull", 500), ("unbuffered", 200)):
            self.assertEqual(self.upload(place, 4 * DISK), expected, place)
            self.assertEqual(self.upload(place, 10_000), 200, place)
        self.assertIn("(27: File too large) while reading client request body", self.news())

    def upload(self, place: str, size: int) -> int:
        with rawhttp.connect(self.stage.port) as sock:
            head = rawhttp.request(
                f"/{place}/upload", f"Content-Length: {size}", "Connection: close", method="POST"
            )
            try:
                sock.sendall(head)
                for piece in pieces(size):
                    sock.sendall(piece)
            except ConnectionError:
                pass  # it has answered and closed
            answer = rawhttp.Reader(sock).answer()
        assert answer is not None
        if answer.status == 200:
            self.assertIn(f"{size} good".encode(), answer.body)
        return answer.status

    def news(self) -> str:
        return self.stage.log()[self.logged :]


class CheckedNamesTests(StagedCase):
    def setUp(self) -> None:
        self.stage = stage()
        self.slaves = self.stage.slaves

    def states(self) -> dict[str, str]:
        peers: list[dict[str, Any]] = json.loads(self.stage.get("/status").body)["upstreams"][
            "named"
        ]["peers"]
        return {peer["server"].rpartition(":")[0]: peer["state"] for peer in peers}

    def await_states(self, **states: str) -> None:
        named = {"first": FIRST, "second": SECOND, "third": THIRD}
        expected = {named[name]: state for name, state in states.items()}
        wait_until(lambda: self.states() == expected, 30, f"{expected}")

    def answers(self) -> set[str]:
        answers = [self.stage.get("/named") for _ in range(12)]
        self.assertEqual({answer.status for answer in answers}, {200})
        return {answer.body.decode() for answer in answers}

    def test_checks_follow_the_addresses(self) -> None:
        """What stays keeps its state, what comes is checked, what goes is not any more."""
        self.await_states(first="up", second="up")
        self.assertEqual(self.answers(), {FIRST, SECOND})
        self.slaves[SECOND].mode = "error"
        self.await_states(first="up", second="unhealthy")
        self.assertEqual(self.answers(), {FIRST})
        asked = self.slaves[SECOND].asked
        self.stage.names.set("slaves.example", SECOND, THIRD)
        self.await_states(second="unhealthy", third="up")
        self.assertEqual(self.answers(), {THIRD})
        self.assertEqual(self.slaves[SECOND].asked, asked)
        wait_until(lambda: self.slaves[THIRD].checked > 2, 30, "checks of the new one")
        checked = self.slaves[FIRST].checked
        self.slaves[SECOND].mode, self.slaves[THIRD].mode = "good", "error"
        self.await_states(second="up", third="unhealthy")
        self.assertEqual(self.answers(), {SECOND})
        self.assertLessEqual(self.slaves[FIRST].checked, checked + 1)  # one may have been out
        self.stage.names.set("slaves.example", FIRST, THIRD)
        self.await_states(first="up", third="unhealthy")
        self.assertEqual(self.answers(), {FIRST})
