"""``state``: servers that were changed through the API are there after a restart."""

from __future__ import annotations

import json
from typing import Any

from tests.support import rawhttp
from tests.support.farm import temporary_prefix
from tests.support.processes import free_ports
from tests.support.stages import StagedCase

TOKEN = "0123456789abcdefghij"
CONF = """
worker_processes 2;
pid logs/master.pid;
error_log logs/error.log notice;
events {{ }}
http {{
    access_log off;
    upstream back {{ zone back 64k; state state/back.conf; }}
    server {{ listen 127.0.0.1:{http}; location / {{ proxy_pass http://back; }} }}
    server {{ listen 127.0.0.1:{peer}; location / {{ return 200 peer; }} }}
    server {{ listen 127.0.0.1:{control}; location /api {{ api write=on token_file=token; }} }}
}}
"""


class StateTests(StagedCase):
    def setUp(self) -> None:
        self.prefix = temporary_prefix(self.addCleanup)
        self.http, self.peer, self.control = free_ports(3)
        self.prefix.write("token", TOKEN).chmod(0o600)
        self.state = self.prefix.directory / "state" / "back.conf"
        self.state.parent.mkdir()
        self.state.parent.chmod(0o777)
        self.prefix.write(
            "state.conf", CONF.format(http=self.http, peer=self.peer, control=self.control)
        )

    def start(self) -> Any:
        ports = [self.http, self.peer, self.control]
        daemon = self.prefix.start("master", ports=ports, config="state.conf")
        self.addCleanup(daemon.stop)
        daemon.started()
        return daemon

    def api(self, path: str, method: str = "GET", value: object = None) -> Any:
        body = b"" if value is None else json.dumps(value).encode()
        fields = [
            "Connection: close",
            f"Authorization: Bearer {TOKEN}",
            f"Content-Length: {len(body)}",
        ]
        data = rawhttp.request(
            f"/api/9/http/upstreams/back/servers/{path}", *fields, method=method
        )
        answer = rawhttp.exchange(self.control, data + body)
        assert answer is not None
        self.assertLess(answer.status, 300, answer.body)
        return json.loads(answer.body)

    def status(self) -> int:
        answer = rawhttp.exchange(self.http, rawhttp.request("/", "Connection: close"))
        assert answer is not None
        return answer.status

    def test_restart(self) -> None:
        daemon = self.start()
        self.assertEqual((self.api(""), self.status()), ([], 502))
        self.api("", "POST", {"server": f"127.0.0.1:{self.peer}", "weight": 3})
        self.api("", "POST", {"server": "127.0.0.1:1"})
        self.api("1", "PATCH", {"down": True, "fail_timeout": "30s"})
        self.api("", "POST", {"server": "127.0.0.1:2"})
        before = self.api("2", "DELETE")
        self.assertEqual(
            self.state.read_text(),
            f"server 127.0.0.1:{self.peer} weight=3;\n"
            "server 127.0.0.1:1 fail_timeout=30000ms down;\n",
        )
        daemon.stop()
        self.start()
        self.assertEqual(self.api(""), before)
        self.assertEqual({self.status() for _ in range(4)}, {200})

    def test_unwritable(self) -> None:
        self.start()
        self.state.parent.rmdir()
        self.api("", "POST", {"server": f"127.0.0.1:{self.peer}"})
        self.assertEqual(self.api("")[0]["server"], f"127.0.0.1:{self.peer}")
        log = self.prefix.log("error.log")
        self.assertIn('/state/back.conf" of upstream "back" could not be written: ', log)
