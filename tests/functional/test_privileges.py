"""``user``: root opens, somebody else works."""

from __future__ import annotations

import grp
import os
import pwd
import signal
from pathlib import Path

from twisted.trial.unittest import SkipTest

from tests.functional.test_commands import CommandCase
from tests.support.processes import descendants, wait_until

CONFIGURATION = """
user nobody {group};
worker_processes 2;
error_log logs/error.log notice;
pid run/status.pid;
events {{ }}
http {{
    access_log logs/access.log;
    log_format status "$status";
    access_log logs/$status.log status;
    proxy_cache_path cache/zone keys_zone=zone:1m;
    proxy_temp_path temp/proxy 1 2;
    client_body_temp_path temp/body;
    server {{
        listen 127.0.0.1:{port};
        root images;
        location /cached/ {{
            proxy_pass http://127.0.0.1:{port}/;
            proxy_cache zone;
            proxy_cache_valid 1h;
        }}
    }}
}}
"""


class Privileges(CommandCase):
    def setUp(self) -> None:
        super().setUp()
        if os.geteuid() != 0:
            raise SkipTest("only root can change to another user")
        self.user = pwd.getpwnam("nobody")

    def owners(self, *names: str) -> set[int]:
        return {os.stat(self.prefix.directory / name).st_uid for name in names}

    def test_life(self) -> None:
        """Workers give up root for good, and write what they have to: logs, also rotated ones,
        caches, temporary files. The master stays root, and so does what is its alone."""
        group = grp.getgrgid(self.user.pw_gid).gr_name
        self.prefix.write("status.conf", CONFIGURATION.format(group=group, port=self.port))
        daemon = self.start("slave", config="status.conf")
        pidfile = self.prefix.directory / "run" / "status.pid"
        wait_until(lambda: self.pid_in(pidfile) == daemon.pid, 30, "pid")
        workers = descendants(daemon.pid)
        self.assertEqual(len(workers), 2)
        for pid in workers:
            self.assertEqual(_ids(pid, "Uid"), {self.user.pw_uid})
            self.assertEqual(_ids(pid, "Gid"), {self.user.pw_gid})
            groups = os.getgrouplist("nobody", self.user.pw_gid)
            self.assertEqual(_ids(pid, "Groups"), set(groups))
        self.assertEqual(_ids(daemon.pid, "Uid"), {0})
        self.assertEqual(self.get("/cached/a.txt").body, b"a file")
        mine = ("logs/access.log", "logs/error.log", "cache/zone", "temp/proxy", "temp/body")
        self.assertEqual(self.owners(*mine), {self.user.pw_uid})
        self.assertEqual(self.owners("run/status.pid", "logs", "conf/status.conf"), {0})
        zone = self.prefix.directory / "cache" / "zone"
        wait_until(lambda: any(p.is_file() for p in zone.rglob("*")), 30, "cache file")
        cached = {path.stat().st_uid for path in zone.rglob("*")}
        self.assertEqual(cached, {self.user.pw_uid})

        log = self.prefix.logs / "access.log"
        wait_until(lambda: "/cached/a.txt" in log.read_text(), 30, "line")
        log.rename(self.prefix.logs / "access.old")
        (self.prefix.logs / "error.log").rename(self.prefix.logs / "error.old")
        daemon.signal(signal.SIGUSR1)
        errors = self.prefix.logs / "error.log"
        wait_until(
            lambda: errors.exists() and errors.read_text().count("reopened logs") == 3, 30, "logs"
        )
        self.assertEqual(self.owners("logs/access.log", "logs/error.log"), {self.user.pw_uid})
        for _ in range(10):
            self.get("/a.txt?after")
        self.end(daemon)
        self.assertEqual(log.read_text().count("?after"), 10, errors.read_text())
        self.assertNotIn("[emerg]", errors.read_text())
        self.assertFalse(pidfile.exists())


def _ids(pid: int, name: str) -> set[int]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return set(map(int, next(line for line in lines if line.startswith(f"{name}:")).split()[1:]))
