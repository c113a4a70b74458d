"""OCSP stapling between OpenSSL's responder and OpenSSL's client."""

from __future__ import annotations

import datetime
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.support import farmsite, tools
from tests.support.certificates import Authority
from tests.support.processes import Daemon, free_ports, wait_until
from tests.support.processes import imagefarm as start_imagefarm
from tests.support.stages import StagedCase

CONFIGURATION = """
worker_processes 1;
error_log logs/error.log warn;
pid logs/daemon.pid;
events {{ }}
http {{
    access_log off;
    root {here}/www;
    ssl_trusted_certificate {here}/ca.pem;
    ssl_stapling on;
    ssl_stapling_verify on;
    ssl_stapling_responder http://127.0.0.1:{responder}/;
    server {{
        listen 127.0.0.1:{port} ssl;
        server_name nothing;
        ssl_stapling off;
        ssl_certificate {here}/good.pem;
        ssl_certificate_key {here}/good.key;
    }}
    server {{
        listen 127.0.0.1:{port} ssl;
        server_name good;
        ssl_certificate {here}/good.pem;
        ssl_certificate_key {here}/good.key;
    }}
    server {{
        listen 127.0.0.1:{port} ssl;
        server_name revoked;
        ssl_certificate {here}/revoked.pem;
        ssl_certificate_key {here}/revoked.key;
    }}
    server {{
        listen 127.0.0.1:{port} ssl;
        server_name file;
        ssl_certificate {here}/good.pem;
        ssl_certificate_key {here}/good.key;
        ssl_stapling_file {here}/response.der;
    }}
    server {{
        listen 127.0.0.1:{port} ssl;
        server_name stranger;
        ssl_certificate {here}/stranger.pem;
        ssl_certificate_key {here}/stranger.key;
    }}
}}
"""


class StaplingTests(StagedCase):
    def setUp(self) -> None:
        self.openssl = tools.tool("openssl")
        self.here = Path(tempfile.mkdtemp(prefix="stapling-"))
        self.addCleanup(shutil.rmtree, self.here, ignore_errors=True)
        (self.here / "logs").mkdir()
        farmsite.write_files(self.here / "www", {"a.txt": b"a"})
        authority = Authority(self.here, "ca")
        authority.write_key()
        lines = []
        for name, kind in (("good", "V"), ("revoked", "R")):
            serial = authority.issue(name, name)[2]
            then = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=1)
            revoked = f"{then - datetime.timedelta(days=2):%y%m%d%H%M%SZ}" if kind == "R" else ""
            end = f"{then:%y%m%d%H%M%SZ}"
            lines.append(f"{kind}\t{end}\t{revoked}\t{serial:02X}\tunknown\t/CN={name}\n")
        Authority(self.here, "elsewhere").issue("stranger", "stranger")
        (self.here / "index.txt").write_text("".join(lines))
        self.port, self.responder = free_ports(2)
        command = [self.openssl, "ocsp", "-index", "index.txt", "-CA", "ca.pem"]
        command += ["-rsigner", "ca.pem", "-rkey", "ca.key", "-ndays", "1"]
        subprocess.run(
            [*command, "-issuer", "ca.pem", "-cert", "good.pem", "-respout", "response.der"],
            cwd=self.here, check=True, capture_output=True,
        )  # fmt: skip
        output = self.here / "logs" / "responder.log"
        command += ["-port", str(self.responder)]
        responder = Daemon(command, output, cwd=self.here)
        self.addCleanup(responder.stop)
        # Not by connecting: it takes one connection at a time, and waits for its request.
        wait_until(lambda: "waiting for" in output.read_text(), what="responder")
        config = self.here / "server.conf"
        config.write_text(
            CONFIGURATION.format(here=self.here, port=self.port, responder=self.responder)
        )
        daemon = start_imagefarm("slave", self.here, "--config", str(config), ports=[self.port])
        self.addCleanup(daemon.stop)
        daemon.started()

    def stapled(self, name: str) -> str:
        """What s_client says of the response that the server has stapled."""
        done = subprocess.run(
            [
                self.openssl, "s_client", "-connect", f"127.0.0.1:{self.port}", "-status",
                "-servername", name, "-CAfile", str(self.here / "ca.pem"),
            ],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        status = re.search(r"Cert Status: (\w+)", done.stdout)
        if status is None:
            self.assertIn("OCSP response: no response sent", done.stdout)
        return "" if status is None else status[1]

    def log(self) -> str:
        return (self.here / "logs" / "error.log").read_text()

    def test_stapling(self) -> None:
        self.assertEqual(self.stapled("nothing"), "")
        self.assertEqual(self.stapled("file"), "good")
        wait_until(lambda: self.stapled("good") == "good", what="staple")
        self.assertEqual(self.stapled("revoked"), "")
        wait_until(lambda: 'certificate status "revoked"' in self.log(), what="complaint")
        self.assertEqual(self.stapled("revoked"), "")
        self.assertEqual(self.log().count('certificate status "revoked"'), 1)
        self.assertEqual(self.stapled("stranger"), "")
        self.assertIn(
            '"ssl_stapling" ignored, issuer certificate not found for certificate '
            f'"{self.here}/stranger.pem"',
            self.log(),
        )  # fmt: skip
