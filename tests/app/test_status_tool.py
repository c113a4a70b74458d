"""``imagefarm status``: what it prints and how it ends, with servers of the test's own."""

from __future__ import annotations

import copy
import io
import json
import socket
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from imagefarm.app.tools import status
from imagefarm.app.tools.screen import Screen, age, duration, percent, size

WORKER = {
    "role": "worker", "number": 1, "state": "serves", "pid": 8, "cpu": 6.0, "resident": 60 << 20,
    "uptime": 60.0, "descriptors": 19,
}  # fmt: skip
STATUS: dict[str, Any] = {
    "time": 1000.0, "uptime": 60.0, "requests": 300, "servers": {},
    "connections": {"active": 4},
    "upstreams": {"slaves": {"peers": [
        {"server": "10.0.0.1:80", "state": "up", "requests": 5, "active": 1, "fails": 0,
         "response_time": 12},
    ]}},
    "caches": {"thumbs": {
        "hit_ratio": 0.5, "entries": 3, "size": 2048, "max_size": None, "stored": 3, "evicted": 0,
        "hits": 1, "stale": 0, "updating": 0, "misses": 1, "expired": 0, "bypass": 0,
    }},
    "processes": [{"role": "farm", "pid": 6}, {"role": "master", "pid": 7}, WORKER],
    "errors": [{"time": "2026-01-01T00:00:00.000Z", "level": "error", "pid": 8,
                "text": "open() \x1b[2J failed"}],
}  # fmt: skip


def counts(n: int, e: int) -> dict[str, Any]:
    return {"n": n, "e": e}


def figures(**more: Any) -> dict[str, Any]:
    history = [{"time": t, "of": {"master": counts(n, e)}}
               for t, n, e in ((900.0, 0, 0), (980.0, 100, 0), (1000.0, 300, 2))]  # fmt: skip
    return {
        "time": 1000.0, "problems": [], "history": history, "sample": history[-1],
        "instances": [{"name": "master", "up": True, "status": copy.deepcopy(STATUS)}], **more,
    }  # fmt: skip


class NumbersTests(SynchronousTestCase):
    def test_sizes(self) -> None:
        found = [size(n) for n in (None, 5, 999, 1024, 5 << 20, 200 << 20, 3 << 30)]
        self.assertEqual(found, ["-", "5 B", "999 B", "1.0 KB", "5.0 MB", "200 MB", "3.0 GB"])

    def test_times(self) -> None:
        found = [age(n) for n in (None, 5.9, 61, 3720, 90000)]
        self.assertEqual(found, ["-", "5 s", "1 min", "1 h 2 min", "1 d 1 h"])
        found = [duration(n) for n in (0.0004, 0.02, 1.25)]
        self.assertEqual(found, ["0.4 ms", "20 ms", "1.2 s"])
        self.assertEqual([percent(None), percent(0.123)], ["-", "12.3 %"])


class ScreenTests(SynchronousTestCase):
    def test_all_of_it(self) -> None:
        down = {"name": "slave", "up": False, "error": "Connection refused"}
        found = figures(problems=[{"level": "bad", "text": "slave does not answer"}])
        found["instances"].append(down)
        lines = Screen().draw(found, "URL").splitlines()
        self.assertIn("!! slave does not answer", lines)
        rows = [line.split() for line in lines]
        self.assertIn(
            ["master", "up", "1", "min", "300", "10.0", "1.0", "%", "4", "60", "MB"], rows
        )
        self.assertIn(["slave", "DOWN", *["-"] * 5, "Connection", "refused"], rows)
        self.assertIn(["master/slaves", "10.0.0.1:80", "up", "5", "1", "0", "12", "ms"], rows)
        self.assertIn(["master/thumbs", "50.0", "%", "3", "2.0", "KB", "-", "3", "0"], rows)
        self.assertIn(
            ["master", "worker", "1", "8", "serves", "10.0", "%", "60", "MB", "19", "1", "min"],
            rows,
        )

    def test_columns(self) -> None:
        """Numbers end in one column."""
        lines = Screen().draw(figures(), "URL").splitlines()
        head = next(line for line in lines if line.startswith("UPSTREAM"))
        row = lines[lines.index(head) + 1]
        self.assertEqual(head.index("REQUESTS") + len("REQUESTS"), row.index(" 5 ") + 2)

    def test_nothing_moves_the_cursor(self) -> None:
        for colour in (False, True):
            text = Screen(colour).draw(figures(), "URL")
            self.assertIn("open() ?[2J failed", text)
        self.assertNotIn("\x1b", Screen().draw(figures(), "URL"))
        told = figures(problems=[{"level": "bad", "text": "gpj.\u202ecod\u2066\udcff"}])
        self.assertIn("gpj.?cod??", Screen().draw(told, "URL"))

    def test_a_server_without_answers(self) -> None:
        found = figures(history=[])
        self.assertRegex(Screen().draw(found, "URL"), r"(?m)^master +up +1 min +300 +- +- ")


class Server:
    """Answers each connection with the next of ``bodies``, then with the last."""

    def __init__(
        self, case: SynchronousTestCase, family: int, address: Any, *bodies: bytes
    ) -> None:
        self.door = socket.socket(family)
        self.door.bind(address)
        self.door.listen()
        self.bodies = list(bodies)
        self.asked: list[bytes] = []
        thread = threading.Thread(target=self.run, daemon=True)
        thread.start()
        case.addCleanup(thread.join, 10)
        case.addCleanup(self.door.close)
        case.addCleanup(self.door.shutdown, socket.SHUT_RDWR)

    def run(self) -> None:
        while True:
            try:
                sock, _ = self.door.accept()
            except OSError:
                return
            with sock:
                self.asked.append(sock.recv(4096).split(b"\r\n")[0])
                sock.sendall(self.bodies[0] if len(self.bodies) == 1 else self.bodies.pop(0))


def answer(value: Any) -> bytes:
    body = json.dumps(value).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


class CommandTests(SynchronousTestCase):
    def run_it(
        self, url: str, *words: str, sleep: Callable[[float], None] | None = None
    ) -> tuple[int, str, str]:
        out, errors = io.StringIO(), io.StringIO()
        self.patch(sys, "stderr", errors)
        ended = status.main(["-u", url, *words], out, sleep or (lambda _: None))
        return ended, out.getvalue(), errors.getvalue()

    def serve(self, *bodies: bytes) -> tuple[Server, str]:
        server = Server(self, socket.AF_INET, ("127.0.0.1", 0), *bodies)
        return server, f"http://127.0.0.1:{server.door.getsockname()[1]}/d"

    def test_exit_status(self) -> None:
        for problems, expected in (
            ([], 0),
            ([{"level": "warn", "text": "w"}], 0),
            ([{"level": "bad", "text": "b"}], 1),
        ):
            server, url = self.serve(answer(figures(problems=problems)))
            ended, _, errors = self.run_it(url)
            self.assertEqual((ended, errors), (expected, ""))
            self.assertEqual(server.asked, [b"GET /d?data=all HTTP/1.1"])

    def test_a_status_over_a_unix_socket(self) -> None:
        with tempfile.TemporaryDirectory() as directory:
            path = str(Path(directory) / "s")
            server = Server(self, socket.AF_UNIX, path, answer(STATUS))
            ended, out, _ = self.run_it(f"http://unix:{path}:/status?x")
        self.assertEqual((ended, server.asked), (0, [b"GET /status?x HTTP/1.1"]))
        self.assertRegex(out, r"(?m)^imagefarm +up ")

    def test_watching(self) -> None:
        """Until it is interrupted, or there is no answer any more."""
        server, url = self.serve(answer(figures()))
        looks: list[float] = []

        def sleep(seconds: float) -> None:
            looks.append(seconds)
            if len(looks) == 3:
                raise KeyboardInterrupt

        ended, out, _ = self.run_it(url, "--watch", sleep=sleep)
        self.assertEqual((ended, out.count("all is well"), len(server.asked)), (0, 3, 3))
        server, url = self.serve(
            answer(figures()), b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n"
        )
        ended, out, errors = self.run_it(url, "--watch")
        self.assertEqual((ended, out.count("all is well")), (3, 1))
        self.assertEqual(errors, f"imagefarm: {url}: it answered with status 503\n")

    def test_rates_while_watching_one_daemon(self) -> None:
        """Its own counts make them, for it has no history."""
        later = {**STATUS, "time": 1002.0}
        _, url = self.serve(answer(STATUS), answer(later))
        seen: list[float] = []

        def sleep(seconds: float) -> None:
            seen.append(seconds)
            if len(seen) == 2:
                raise KeyboardInterrupt

        _, out, _ = self.run_it(url, "--watch", sleep=sleep)
        self.assertRegex(out, r"(?m)^imagefarm +up +1 min +300 +0\.0 +- ")

    def test_json(self) -> None:
        _, url = self.serve(answer(figures()))
        self.assertEqual(json.loads(self.run_it(url, "--json")[1])["problems"], [])

    def test_figures_of_another_kind(self) -> None:
        for odd in ({"connections": "x"}, {"processes": [{**WORKER, "cpu": None}]}):
            found = figures()
            found["instances"][0]["status"].update(odd)
            _, url = self.serve(answer(found))
            ended, out, errors = self.run_it(url)
            self.assertEqual((ended, out), (3, ""))
            self.assertEqual(
                errors, f"imagefarm: {url}: not all instances have figures of this kind\n"
            )

    def test_nonsense(self) -> None:
        for body in (b"nonsense", b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{", answer([1]),
                     answer({"uptime": 1})):  # fmt: skip
            ended, out, errors = self.run_it(self.serve(body)[1])
            self.assertEqual((ended, out), (3, ""), body)
            self.assertEqual(errors.count("\n"), 1)
