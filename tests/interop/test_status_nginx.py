"""``stub_status``: the same numbers in the same bytes as nginx's, after the same requests."""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path

from tests.support import farmsite, rawhttp, tools
from tests.support.processes import Daemon, free_ports, wait_until
from tests.support.processes import imagefarm as start_imagefarm
from tests.support.stages import StagedCase

CONFIGURATION = """
worker_processes 2;
error_log logs/error.log;
pid logs/daemon.pid;
events {{ worker_connections 512; }}
http {{
    access_log off;
    root {root};
    server {{
        listen 127.0.0.1:{port};
        location = /stub {{ stub_status; }}
        location / {{ }}
    }}
}}
"""
STUB = rawhttp.request("/stub")
PAGE = re.compile(
    rb"Active connections: \d+ \nserver accepts handled requests\n (\d+) (\d+) (\d+) \n"
    rb"Reading: \d+ Writing: \d+ Waiting: \d+ \n"
)


class StubStatusTests(StagedCase):
    def setUp(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="imagefarm-status-"))
        self.addCleanup(shutil.rmtree, self.directory, True)
        (self.directory / "a.txt").write_text("a")

    def start(self, side: str) -> tuple[Daemon, int]:
        directory = self.directory / side
        (directory / "logs").mkdir(parents=True)
        (port,) = free_ports(1)
        config = directory / "side.conf"
        config.write_text(CONFIGURATION.format(root=self.directory, port=port))
        if side == "nginx":
            daemon = farmsite.nginx(tools.nginx(), directory, config, [port])
        else:
            daemon = start_imagefarm("master", directory, "--config", str(config), ports=[port])
        self.addCleanup(daemon.stop)
        daemon.started()
        return daemon, port

    def play(self, port: int) -> list[list[int]]:
        """Connections, handled connections and requests at each moment of one story.

        Counted from its beginning, without the requests for the page itself. Each moment is
        when the others are done with: nginx answers before it takes note of that.
        """
        asked = 0
        words: list[int] = []

        def ask(reader: rawhttp.Reader, active: int) -> bool:
            nonlocal asked, words
            asked += 1
            reader.sock.sendall(STUB)
            answer = reader.answer()
            assert answer is not None
            match = PAGE.fullmatch(answer.body)
            assert match is not None, answer.body
            words = [int(match[1]), int(match[2]), int(match[3]) - asked]
            return answer.body.endswith(
                b"Reading: 0 Writing: 1 Waiting: %d \n" % (active - 1)
            ) and answer.body.startswith(b"Active connections: %d \n" % active)

        def moment(reader: rawhttp.Reader, active: int) -> list[int]:
            wait_until(lambda: ask(reader, active), 10, f"{active} connections, one at work")
            return words

        with rawhttp.connect(port) as one:
            first = rawhttp.Reader(one)
            told = [moment(first, 1)]
            with rawhttp.connect(port) as other:
                second = rawhttp.Reader(other)
                told.append(moment(first, 2))
                for target in ("/a.txt", "/none"):
                    other.sendall(rawhttp.request(target))
                    second.answer()
                    told.append(moment(first, 2))
                told.append(moment(second, 2))
            told.append(moment(first, 1))
        base = told[0]
        return [[a - b for a, b in zip(now, base, strict=True)] for now in told]

    def test_a_story(self) -> None:
        ours = self.play(self.start("imagefarm")[1])
        self.assertEqual(ours, self.play(self.start("nginx")[1]))
        self.assertEqual(ours[-1], [1, 1, 2])
