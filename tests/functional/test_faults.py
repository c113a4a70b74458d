"""Slaves and applications that fall sick, while 500 requests a second go through the master.

No request fails as long as another peer is well; who is sick is out soon, is probed then, and is
back soon after it is well. An answer that has begun can't be taken back: where a body breaks off,
the client sees that it did.
"""

from __future__ import annotations

import json
import random
import re
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

from tests.support import rawhttp
from tests.support.load import Load, is_body, make_body
from tests.support.processes import Daemon, free_ports, imagefarm, wait_until
from tests.support.sick import Sick
from tests.support.stages import Cleanup, StagedCase, shared

#: Requests a second: what is offered, and what has to be.
RATE, LEAST = 550, 500
FAIL_TIMEOUT = 1.0
#: Less than a dripping peer's pause.
READ_TIMEOUT = 0.8
#: What a busy machine may add to a bound, in seconds.
SLACK = 5.0
#: For how long a peer that is out is watched.
WATCHED = 0.4
#: Small ones are relayed, large ones are streamed.
SIZES = (300, 300, 9000, 9000, 9000, 9000, 30_000, 9000, 300, 150_000)
LARGE = [size for size in SIZES if size > 65536]
NAMES = [f"{size}-{number}.jpg" for number, size in enumerate(SIZES)]
MASTER = """
worker_processes 1;
events {{ worker_connections 4096; }}
error_log logs/error.log info;
http {{
    access_log off;
    keepalive_requests 100000000;
    proxy_connect_timeout 500ms;
    proxy_read_timeout 800ms;
    proxy_next_upstream error timeout invalid_header http_500 http_502 http_503 http_504;
    fastcgi_connect_timeout 500ms;
    fastcgi_read_timeout 800ms;
    fastcgi_next_upstream error timeout invalid_header http_500 http_503;
    fastcgi_keep_conn on;
    fastcgi_param REQUEST_URI $request_uri;
    fastcgi_param REQUEST_METHOD $request_method;
    upstream slaves {{
        server 127.0.0.1:{one} max_fails=3 fail_timeout=1s;
        server 127.0.0.1:{two} max_fails=3 fail_timeout=1s;
        keepalive 64;
    }}
    upstream sick {{
        server 127.0.0.1:{one} max_fails=3 fail_timeout=1s;
        server 127.0.0.1:{sick} max_fails=3 fail_timeout=1s;
        keepalive 64;
    }}
    upstream apps {{
        server 127.0.0.1:{well} max_fails=3 fail_timeout=1s;
        server 127.0.0.1:{app} max_fails=3 fail_timeout=1s;
        keepalive 64;
    }}
    server {{
        listen 127.0.0.1:{port};
        location /slaves/ {{ proxy_pass http://slaves; }}
        location /sick/ {{ proxy_pass http://sick; }}
        location /apps/ {{ fastcgi_pass apps; }}
        location = /status {{ status; }}
    }}
}}
"""
SLAVE = """
events {{ }}
error_log logs/{name}.log;
http {{
    access_log off;
    keepalive_requests 100000;
    types {{ image/jpeg jpg; }}
    server {{
        listen 127.0.0.1:{port};
        add_header X-Slave {name};
        location / {{ root images; }}
    }}
}}
"""


class Stage:
    """A master, two slaves, a sick one, and two applications one of which may be sick."""

    def __init__(self, cleanup: Cleanup) -> None:
        self.cleanup = cleanup
        directory = self.directory = Path(tempfile.mkdtemp(prefix="faults-"))
        self.cleanup(shutil.rmtree, directory, ignore_errors=True)
        (directory / "logs").mkdir()
        for place in ("slaves", "sick"):
            images = directory / "images" / place
            images.mkdir(parents=True)
            for name, size in zip(NAMES, SIZES, strict=True):
                (images / name).write_bytes(make_body(f"/{place}/{name}", size))
        self.port, one, two, sick, well, app = free_ports(6)
        self.ports = {"one": one, "two": two}
        self.sick, self.well, self.app = self._sick(sick), self._app(well), self._app(app)
        self.slaves: dict[str, Daemon] = {}
        for name in self.ports:
            self.start_slave(name)
        text = MASTER.format(port=self.port, one=one, two=two, sick=sick, well=well, app=app)
        (directory / "master.conf").write_text(text)
        config = ("--config", str(directory / "master.conf"))
        self.master = imagefarm("master", directory, *config, ports=[self.port])
        self.cleanup(self.master.stop)
        for slave in self.slaves.values():
            slave.started()
        self.master.started()

    def _sick(self, port: int) -> Sick:
        made = Sick("http", port)
        self.cleanup(made.stop)
        return made

    def restart_app(self) -> None:
        """Start it again after it has been killed."""
        self.app = self._app(self.app.port)

    def _app(self, port: int) -> Sick:
        made = Sick("fastcgi", port)
        self.cleanup(made.stop)
        return made

    def start_slave(self, name: str) -> Daemon:
        path = self.directory / f"{name}.conf"
        path.write_text(SLAVE.format(name=name, port=self.ports[name]))
        made = imagefarm(
            "slave", self.directory, "--config", str(path),
            "--set", f"pid logs/{name}.pid", ports=[self.ports[name]], name=name,
        )  # fmt: skip
        self.cleanup(made.stop)
        self.slaves[name] = made
        return made


@shared
def stage(cleanup: Cleanup) -> Stage:
    """Set up by the first test that wants it."""
    return Stage(cleanup)


class FaultsTests(StagedCase):
    def setUp(self) -> None:
        self.stage = stage()
        self.addCleanup(self._restore)
        #: What clients got that was not good.
        self.bad: list[str] = []
        #: How often peers that are well had no time to answer.
        self.starved = 0

    def _restore(self) -> None:
        for sick in (self.stage.sick, self.stage.app):
            sick.be("good")

    # -- asking

    def peer(self, upstream: str, port: int) -> dict[str, Any]:
        """What the status page says of a peer."""
        ask = rawhttp.request("/status", "Connection: close")
        answer = rawhttp.exchange(self.stage.port, ask)
        assert answer is not None
        peers = json.loads(answer.body)["upstreams"][upstream]["peers"]
        server = f"127.0.0.1:{port}"
        found: dict[str, Any] = next(peer for peer in peers if peer["server"] == server)
        return found

    def log(self) -> str:
        return (self.stage.directory / "logs" / "error.log").read_text(errors="replace")

    def judge(self, logged: int, sick: int = 0) -> None:
        """From ``logged`` on nothing was wrong with peers but the ``sick`` one, except that they
        were too slow.
        """
        for line in self.log()[logged:].splitlines():
            found = re.search(r'\[error\] .* upstream: "\w+://127\.0\.0\.1:(\d+)', line)
            if found is not None and int(found[1]) != sick:
                self.assertIn("timed out", line)
                self.starved += 1

    def active(self, upstream: str) -> int:
        """Requests that its peers are at."""
        ports = {
            "slaves": tuple(self.stage.ports.values()),
            "sick": (self.stage.ports["one"], self.stage.sick.port),
            "apps": (self.stage.well.port, self.stage.app.port),
        }
        return sum(self.peer(upstream, port)["active"] for port in ports[upstream])

    def await_state(self, upstream: str, port: int, state: str, seconds: float) -> None:
        def reached() -> bool:
            return bool(self.peer(upstream, port)["state"] == state)

        wait_until(reached, seconds + SLACK, f"peer that is {state}")

    def await_requests(self, upstream: str, port: int, seconds: float) -> None:
        """Until the peer has its share again."""
        goal = self.peer(upstream, port)["requests"] + 30

        def reached() -> bool:
            return bool(self.peer(upstream, port)["requests"] >= goal)

        wait_until(reached, seconds + SLACK, "requests to the peer")

    @contextmanager
    def load(self, upstream: str, *, broken: Sequence[int] = ()) -> Iterator[None]:
        """The load goes on, and is answered as it should be: all is good, but that bodies of the
        sizes ``broken`` may break off. At least 500 a second are asked for when there is a
        processor to ask for them.
        """
        with Load(self.stage.port, RATE, [f"/{upstream}/{name}" for name in NAMES]) as load:
            yield
        wait_until(lambda: not self.active(upstream), READ_TIMEOUT + SLACK, "end of requests")
        self.assertNotIn("Traceback", self.log() + self.stage.master.output.read_text())
        excused = {f"/{upstream}/{n}" for n, s in zip(NAMES, SIZES, strict=True) if s in broken}
        for answer in load.answers:
            good = answer.outcome.startswith("good ")
            if not good and not (answer.outcome == "broken" and answer.target in excused):
                self.bad.append(f"{answer.target}: {answer.outcome}")
        if self.starved:
            # A machine that leaves the well ones without a processor makes them sick, too.
            ends = ("status 502", "status 504", "broken")
            self.bad = [bad for bad in self.bad if not bad.endswith(ends)]
        self.assertEqual(self.bad, [], self.log()[-4000:])
        self.assertGreaterEqual(load.offered, LEAST * load.awake)

    # -- what every fault comes to

    def endure(
        self,
        upstream: str,
        port: int,
        sicken: Callable[[], object],
        heal: Callable[[], object],
        *,
        notices: float = 0.0,
    ) -> None:
        """The peer is out within ``notices`` seconds, gets but probes, and comes back."""
        self.await_requests(upstream, port, FAIL_TIMEOUT)
        logged = len(self.log())
        sicken()
        self.await_state(upstream, port, "unavail", notices)
        time.sleep(notices)  # what had been sent there until then comes to its end
        before = self.peer(upstream, port)["requests"]
        begun = time.monotonic()
        time.sleep(WATCHED)
        probes = self.peer(upstream, port)["requests"] - before
        self.assertLessEqual(probes, (time.monotonic() - begun) / FAIL_TIMEOUT + 1)
        heal()
        self.await_requests(upstream, port, FAIL_TIMEOUT + notices)
        self.await_state(upstream, port, "up", FAIL_TIMEOUT)
        self.judge(logged, port)

    def fall_sick(self, upstream: str, sick: Sick, mode: str, notices: float = 0.0) -> None:
        def sicken() -> None:
            sick.be(mode)

        self.endure(upstream, sick.port, sicken, lambda: sick.be("good"), notices=notices)

    # -- the tests

    def test_slaves(self) -> None:
        """One is killed and started again, the other one stopped for a while."""
        stage = self.stage
        one, two = stage.slaves["one"], stage.slaves["two"]
        with self.load("slaves", broken=LARGE):
            self.endure(
                "slaves", stage.ports["one"], one.process.kill,
                lambda: stage.start_slave("one").started(),
            )  # fmt: skip
            self.endure(
                "slaves", stage.ports["two"], lambda: two.signal(signal.SIGSTOP),
                lambda: two.signal(signal.SIGCONT), notices=READ_TIMEOUT,
            )  # fmt: skip

    def test_no_answers(self) -> None:
        """Errors, resets, closes, garbage, and a head that takes for ever: nobody notices."""
        with self.load("sick"):
            for mode in ("error", "reset", "close", "garbage"):
                self.fall_sick("sick", self.stage.sick, mode)
            self.fall_sick("sick", self.stage.sick, "drip", READ_TIMEOUT)

    def test_odd_answers(self) -> None:
        """In pieces, with pauses, or on connections that are closed: good, and so is the peer."""
        sick = self.stage.sick
        with self.load("sick"):
            for mode in ("pieces", "slow", "fickle"):
                self.await_requests("sick", sick.port, FAIL_TIMEOUT)
                logged = len(self.log())
                sick.be(mode)
                for number in range(3):
                    self.pipeline(random.Random(number))
                    self.leave(random.Random(number))
                    self.await_requests("sick", sick.port, 1)
                self.judge(logged)
            sick.be("good")

    def pipeline(self, dice: random.Random) -> None:
        """Many requests in few pieces: each has its answer, in their order."""
        targets = [f"/sick/{dice.choice(NAMES)}" for _ in range(12)]
        data = b"".join(map(rawhttp.request, targets))
        cuts = sorted({0, *(dice.randrange(1, len(data)) for _ in range(3)), len(data)})
        with rawhttp.connect(self.stage.port) as sock:
            for start, end in pairwise(cuts):
                sock.sendall(data[start:end])
                time.sleep(dice.choice((0, 0.003)))
            reader = rawhttp.Reader(sock)
            for target in targets:
                answer = reader.answer()
                assert answer is not None
                if answer.status == 200:
                    self.assertTrue(is_body(answer.body, target), target)
                else:
                    self.bad.append(f"{target}: status {answer.status}")

    def leave(self, dice: random.Random) -> None:
        """Clients that go at any moment, in any way."""
        for _ in range(10):
            with rawhttp.connect(self.stage.port) as sock:
                sock.sendall(rawhttp.request(f"/sick/{dice.choice(NAMES)}"))
                time.sleep(dice.choice((0, 0.001, 0.005, 0.015)))
                if dice.random() < 0.5:
                    sock.shutdown(socket.SHUT_WR)

    def test_broken_bodies(self) -> None:
        """What breaks off has begun, and can't be asked for again; the peer is out as well."""
        with self.load("sick", broken=SIZES):
            self.fall_sick("sick", self.stage.sick, "truncate")
            self.fall_sick("sick", self.stage.sick, "drip body", READ_TIMEOUT)

    def test_applications(self) -> None:
        """The same for fastcgi_pass."""
        stage, app = self.stage, self.stage.app
        with self.load("apps"):
            for mode in ("error", "reset", "garbage"):
                self.fall_sick("apps", app, mode)
            self.endure(
                "apps", app.port, lambda: app.process.send_signal(signal.SIGSTOP),
                lambda: app.process.send_signal(signal.SIGCONT), notices=READ_TIMEOUT,
            )  # fmt: skip
        with self.load("apps", broken=SIZES):
            self.endure("apps", app.port, app.stop, stage.restart_app)
            self.fall_sick("apps", stage.app, "truncate")
