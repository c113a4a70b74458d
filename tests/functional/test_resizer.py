"""The resizer as who runs php-fpm knows it: ping, status, slow log, signals; asked by cgi-fcgi."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess

from PIL import Image

from imagefarm.fastcgi import records as fcgi
from tests.support import tools
from tests.support.processes import wait_until

from .test_commands import CommandCase

CONFIGURATION = """
pid        logs/resizer.pid;
error_log  logs/error.log notice;
resizer {{
    listen                   127.0.0.1:{port};
    root                     images;
    processes                1;
    queue                    100;
    ping_path                /ping;
    ping_response            "here I am";
    status_path              /status;
    slowlog                  logs/slow.log;
    request_slowlog_timeout  {slow};
}}
"""


class Habits(CommandCase):
    def setUp(self) -> None:
        super().setUp()
        self.program = tools.tool("cgi-fcgi")
        Image.new("RGB", (300, 200), "navy").save(self.images / "a.png")
        self.write("1ms")
        self.daemon = self.start("resizer", config="habits.conf")

    def write(self, slow: str) -> None:
        self.prefix.write("habits.conf", CONFIGURATION.format(port=self.port, slow=slow))

    def ask(self, script: str, query: str = "", **more: str) -> tuple[str, bytes]:
        """Head and body."""
        done = subprocess.run(
            [self.program, "-bind", "-connect", f"127.0.0.1:{self.port}"],
            env={
                "SCRIPT_NAME": script, "REQUEST_METHOD": "GET", "QUERY_STRING": query,
                "REQUEST_URI": f"{script}?{query}", **more,
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=30,
            check=True,
        )  # fmt: skip
        head, _, body = done.stdout.partition(b"\r\n\r\n")
        return head.decode(), body

    def image(self, name: str) -> None:
        head, _ = self.ask("/resize.php", "src=/a.png&w=100", REQUEST_ID=name)
        self.assertIn("Content-Type: image/png", head)

    def slow(self, file: str = "slow.log") -> list[str]:
        """The ids of those that were slow."""
        return [line.split('"')[1] for line in self.prefix.log(file).splitlines()]

    def test_ping_and_status(self) -> None:
        head, body = self.ask("/ping")
        self.assertIn("Status: 200", head)
        self.assertIn("Content-Type: text/plain", head)
        self.assertEqual(body, b"here I am")
        self.image("one")
        status = json.loads(self.ask("/status")[1])
        self.assertEqual(status["resizer"]["jobs"]["done"], 1)

    def test_a_full_queue(self) -> None:
        """All that it has room for is made; others are told when to come again, also where the
        web server makes a 502 of FCGI_OVERLOADED, as nginx does.
        """
        asked = 140
        query = b"src=/a.png&w=90"
        params = fcgi.encode_pairs([(b"QUERY_STRING", query), (b"SCRIPT_NAME", b"/resize")])
        answers: dict[int, bytes] = {}
        reader = fcgi.RecordReader()
        with socket.create_connection(("127.0.0.1", self.port), 30) as connection:
            connection.sendall(
                b"".join(
                    fcgi.encode_begin(number, fcgi.Role.RESPONDER, keep=True)
                    + fcgi.encode_stream(fcgi.RecordType.PARAMS, number, params)
                    + fcgi.encode_record(fcgi.RecordType.PARAMS, number)
                    + fcgi.encode_record(fcgi.RecordType.STDIN, number)
                    for number in range(1, asked + 1)
                )
            )
            ended: list[fcgi.EndRequest] = []
            while len(ended) < asked:
                for record in reader.feed(connection.recv(1 << 16)):
                    if record.type == fcgi.RecordType.END_REQUEST:
                        ended.append(fcgi.decode_end(record.content))
                    else:
                        before = answers.get(record.request_id, b"")
                        answers[record.request_id] = before + record.content
        self.assertEqual(
            {end.protocol_status for end in ended}, {fcgi.ProtocolStatus.REQUEST_COMPLETE}
        )
        made = [answer for answer in answers.values() if b"Content-Type: image/png" in answer]
        refused = [answer for answer in answers.values() if b"Retry-After: 1" in answer]
        self.assertGreaterEqual(len(made), 100)
        self.assertEqual(len(made) + len(refused), asked)
        self.assertTrue(all(answer.startswith(b"Status: 503 ") for answer in refused))

    def test_slow_log_and_signals(self) -> None:
        self.image("first")
        (line,) = self.prefix.log("slow.log").splitlines()
        self.assertRegex(
            line, r' 200 \d+\.\d{3} "first" "GET /resize\.php\?src=/a\.png&w=100" "w=100'
            r'[^"]*" "queue;dur=[^"]*encode;dur=[^"]*"$',
        )  # fmt: skip
        logs = self.prefix.logs
        (logs / "slow.log").rename(logs / "slow.log.1")
        self.daemon.signal(signal.SIGUSR1)
        wait_until((logs / "slow.log").exists, 10, "new slow log")
        self.image("second")
        self.assertEqual((self.slow("slow.log.1"), self.slow()), (["first"], ["second"]))
        # php-fpm's reload. The old worker goes on to be asked until the new one listens.
        self.write("1m")
        self.daemon.signal(signal.SIGUSR2)
        wait_until(lambda: "reconfigur" in self.prefix.log("error.log"), 10, "reload")
        os.kill(self.daemon.pid, 0)

        def fast() -> bool:
            before = len(self.slow())
            self.image("fast")
            return len(self.slow()) == before

        wait_until(fast, 30, "end of what is slow")
        self.end(self.daemon, signal.SIGQUIT)
        self.assertFalse((logs / "resizer.pid").exists())
