"""Error logs of a real server: rotated and stopped in a storm of errors, and sent to syslog."""

import re
import shutil
import signal
import socket
import tempfile
import threading
import time
from pathlib import Path

from tests.support import rawhttp
from tests.support.processes import Daemon, free_ports, imagefarm, wait_until
from tests.support.stages import StagedCase

CONFIGURATION = """
worker_processes 1;
error_log logs/error.log notice;
error_log syslog:server=127.0.0.1:{syslog},facility=local3,tag=farm,nohostname error;
events {{ }}
http {{
    root files;
    access_log syslog:server=unix:{unix},tag=access,severity=notice combined;
    server {{
        listen 127.0.0.1:{port};
        location /own/ {{ error_log logs/own.log; }}
    }}
}}
"""


class ErrorLogs(StagedCase):
    def setUp(self) -> None:
        self.base = Path(tempfile.mkdtemp(prefix="errors-"))
        self.addCleanup(shutil.rmtree, self.base, True)
        for name in ("logs", "files"):
            (self.base / name).mkdir()
        self.syslog = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.syslog.bind(("127.0.0.1", 0))
        self.unix = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.unix.bind(str(self.base / "unix"))
        for sock in (self.syslog, self.unix):
            self.addCleanup(sock.close)
            sock.settimeout(20)

    def start(self) -> Daemon:
        (self.port,) = free_ports(1)
        (self.base / "s.conf").write_text(
            CONFIGURATION.format(
                port=self.port, syslog=self.syslog.getsockname()[1], unix=self.base / "unix"
            )
        )
        daemon = imagefarm("slave", self.base, "--config", str(self.base / "s.conf"),
                           ports=[self.port])  # fmt: skip
        self.addCleanup(daemon.stop)
        return daemon.started()

    def get(self, target: str) -> int:
        answer = rawhttp.exchange(self.port, rawhttp.request(target, "Connection: close"))
        assert answer is not None
        return answer.status

    def written(self, name: str) -> int:
        return sum(
            path.read_text().count("[error]") for path in (self.base / "logs").glob(f"{name}*")
        )

    def storm(self, stop: threading.Event) -> int:
        """404s in bunches, on one connection; how many were answered."""
        bunch, answered = 50, 0
        data = rawhttp.request("/own/none")
        with rawhttp.connect(self.port) as sock:
            reader = rawhttp.Reader(sock)
            while not stop.is_set():
                for _ in range(bunch):
                    sock.sendall(data)
                    answer = reader.answer()
                    assert answer is not None
                    answered += answer.status == 404
                    if answer.header("connection") == "close":
                        reader = rawhttp.Reader(sock)
                        return answered
        return answered

    def test_a_storm(self) -> None:
        daemon, stop, counts = self.start(), threading.Event(), [0]

        def storm() -> None:
            while not stop.is_set():
                counts[0] += self.storm(stop)

        thread = threading.Thread(target=storm)
        thread.start()
        try:
            for number in range(3):
                log = self.base / "logs" / "own.log"
                wait_until(
                    lambda log=log: log.exists() and log.stat().st_size > 20000, 30, "lines"
                )
                log.rename(f"{log}.{number}")
                daemon.signal(signal.SIGUSR1)
                wait_until(log.exists, 30, "new file")
        finally:
            stop.set()
            thread.join()
        # Not waited for: what was gathered is written by the stop.
        self.assertEqual(daemon.stop(), 0)
        self.assertEqual(self.written("own.log"), counts[0])
        self.assertEqual(self.written("error.log"), 0)

    def test_syslog(self) -> None:
        self.start()
        before = time.time()
        self.assertEqual(self.get("/none"), 404)
        line = self.syslog.recv(4096).decode()
        match = re.fullmatch(
            r'<155>(\w{3} [ \d]\d [\d:]{8}) farm: \S+ \S+ \[error\] \d+#0: \*\d+ open\(\) "(.*)" '
            r"failed \(2: No such file or directory\), client: 127.0.0.1, .*",
            line,
        )
        assert match is not None, line
        year = time.localtime(before).tm_year
        said = time.mktime(time.strptime(f"{year} {match[1]}", "%Y %b %d %H:%M:%S"))
        self.assertLess(abs(said - before), 60)
        self.assertEqual(match[2], str(self.base / "files" / "none"))
        line = self.unix.recv(4096).decode()
        host = re.escape(socket.gethostname().lower())
        self.assertRegex(
            line, rf'^<189>\w{{3}} [ \d]\d [\d:]{{8}} {host} access: 127\.0\.0\.1 - - \[.*\] "GET '
            r'/none HTTP/1\.1" 404 \d+ "-" "-"$',
        )  # fmt: skip

    def test_nobody_listens_to_syslog(self) -> None:
        self.unix.close()
        (self.base / "unix").unlink()
        self.start()
        self.assertEqual(self.get("/none"), 404)
        errors = self.base / "logs" / "error.log"
        wait_until(lambda: "sending to syslog server" in errors.read_text(), what="complaint")
        self.assertEqual(self.get("/none"), 404)
