"""What is wrong with ``listen`` and ``server_name``: nginx's words and ours."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from twisted.internet.task import Clock

from imagefarm.app.configuration import Options, read
from imagefarm.app.web import WebWork
from imagefarm.config.errors import ConfigurationError
from imagefarm.process.directives import MainSettings
from tests.support import tools
from tests.support.stages import StagedCase

#: The insides of server blocks.
LISTENS = (
    ("listen 18080; listen 18080;",),
    ("listen 18080 backlog=5;", "listen 18080 backlog=6;"),
    ("listen 18080 backlog=5;", "listen 18080;"),
    ("listen 18080 bind;", "listen 18080 backlog=3;"),
    ("listen 18080 reuseport;", "listen 18080 reuseport;"),
    ("listen unix:/x backlog=3;", "listen unix:/x backlog=4;"),
    ("listen [::]:18080; listen [::]:18080 ipv6only=on;",),
    ("listen 18080 default_server;", "listen 18080 default_server;"),
    ("listen 18080 default_server;", "listen 127.0.0.1:18080 default_server;"),
    ("listen 18080 default_server default_server;",),
    ("listen 18080 backlog=3 backlog=4;",),
    ("listen 18080 so_keepalive=on so_keepalive=off;",),
    ("listen 18080 foo;",),
    ("listen 18080 setfib=1;",),
    ("listen 18080 backlog=-1;",),
    ("listen 18080 backlog=0;",),
    ("listen 18080 backlog=;",),
    ("listen 18080 fastopen=-1;",),
    ("listen 18080 rcvbuf=x;",),
    ("listen 18080 sndbuf=x;",),
    ("listen 18080 so_keepalive=;",),
    ("listen 18080 so_keepalive=1:2:3:4;",),
    ("listen 18080 so_keepalive=x;",),
    ("listen 18080 ipv6only=maybe;",),
    ("listen 70000;",),
    ("listen 0;",),
    ("listen 127.0.0.1:;",),
    ("listen 127.0.0.1:x;",),
    ("listen [::1;",),
    ("listen 18080-18082; listen 127.0.0.1:18080-18081; listen [::]:18080-18082;",),
    ("listen 18080-18082; listen 18082;",),
    ("listen 18080-18082 default_server;", "listen 18081 default_server;"),
    ("listen 18080-18082 backlog=3;", "listen 18081 backlog=3;"),
    ("listen 18082-18080;",),
    ("listen 127.0.0.1:18082-18080;",),
    ("listen 18080-70000;",),
    ("listen 0-5;",),
    ("listen 18080-;",),
    ("listen 127.0.0.1:18080-;",),
    ("listen -18080;",),
    ("listen 127.0.0.1:18080-18081-18082;",),
    ("listen 18080-18080;",),
    ("listen unix:;",),
    ("listen 18080; server_name a b a;",),
    ("listen 18080; server_name a b a;", "listen 18080; server_name c;"),
    ("listen 18080; server_name a b;", "listen 18080; server_name b *.c ~x a ~x;"),
    ("listen 18080; server_name a;", "listen 127.0.0.1:18080; server_name a;"),
    ("listen 18080; server_name *.c d.*;", "listen 18080; server_name .c d.* *.c;"),
    ("listen 18080; server_name .c;", "listen 18080; server_name *.c c;"),
    ("listen 18080; server_name c;", "listen 18080; server_name .c;"),
    ("listen 18080;", "listen 18080;", 'listen 18080; server_name "" x;'),
    ("listen 18080; server_name A;", "listen 18080; server_name a;"),
)

_SAID = re.compile(r"\[(emerg|warn)\] \d+#\d+: (.*?)(?: in \S+/x\.conf:\d+)?\n")


class ListenTests(StagedCase):
    def setUp(self) -> None:
        self.nginx = tools.nginx()
        self.prefix = Path(self.mktemp()).absolute()
        (self.prefix / "logs").mkdir(parents=True)
        self.config = self.prefix / "x.conf"

    def theirs(self) -> list[tuple[str, str]]:
        command = [self.nginx, "-t", "-p", str(self.prefix), "-c", str(self.config)]
        done = subprocess.run(command, capture_output=True, check=False)
        return [said for said in _SAID.findall(done.stderr.decode()) if "bind()" not in said[1]]

    def ours(self) -> list[tuple[str, str]]:
        try:
            loaded = read(Options("slave", str(self.config), str(self.prefix)))
            work = WebWork(Clock(), loaded, MainSettings(), str(self.prefix))
        except ConfigurationError as error:
            return [("emerg", problem.message) for problem in error.problems]
        warnings = [*loaded.warnings, *work.warnings]
        work.stop()
        return [("warn", problem.message) for problem in warnings]

    def test_same_words(self) -> None:
        found = []
        for servers in LISTENS:
            blocks = "\n".join(f"server {{ root .; {inside} }}" for inside in servers)
            self.config.write_text(f"events {{ }} http {{ access_log off;\n{blocks}\n}}")
            expected, got = sorted(self.theirs()), sorted(self.ours())
            if expected != got:
                found.append(f"{servers}\n    {expected}\n    {got}")
        self.assertEqual(found, [], "\n" + "\n".join(found))
