"""TLS with several workers: sessions go from one to another, certificates are renewed in all."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import socket
import ssl
import tempfile
from pathlib import Path
from typing import Any

from tests.support import farmsite, rawhttp
from tests.support.certificates import self_signed
from tests.support.processes import descendants, free_ports, wait_until
from tests.support.processes import imagefarm as start_imagefarm
from tests.support.stages import StagedCase
from tests.support.tlsclient import trusting

VERSIONS = (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)
WORKERS = 3

CONFIGURATION = """
{user}
worker_processes {workers};
worker_shutdown_timeout 5s;
error_log logs/error.log notice;
pid logs/daemon.pid;
events {{ }}
http {{
    access_log off;
    root {files};
    ssl_certificate {live}/fullchain.pem;
    ssl_certificate_key {live}/privkey.pem;
    server {{
        listen 127.0.0.1:{port} ssl reuseport;
        location / {{ return 200 "$pid $ssl_session_reused"; }}
    }}
    server {{
        listen 127.0.0.1:{port} ssl;
        server_name other;
        ssl_session_timeout 10m;
        location / {{ return 200 "$pid $ssl_session_reused"; }}
    }}
}}
"""


class WorkersTests(StagedCase):
    def setUp(self) -> None:
        self.here = Path(tempfile.mkdtemp(prefix="tls-workers-"))
        self.addCleanup(shutil.rmtree, self.here, ignore_errors=True)
        self.here.chmod(0o755)
        (self.here / "logs").mkdir()
        farmsite.write_files(self.here / "www", {"a.txt": b"a"})
        # As certbot has it: names that stay, links to files that are numbered.
        self.archive, self.live = self.here / "archive", self.here / "live"
        self.archive.mkdir()
        self.live.mkdir()
        self.fingerprints = [self.issue(number) for number in (1, 2)]
        for name in ("fullchain", "privkey"):
            self.link(name, 1)
        (self.port,) = free_ports(1)
        config = self.here / "server.conf"
        config.write_text(
            CONFIGURATION.format(
                user="user nobody nogroup;" if os.geteuid() == 0 else "",
                workers=WORKERS,
                files=self.here / "www",
                live=self.live,
                port=self.port,
            )
        )
        self.daemon = start_imagefarm(
            "slave", self.here, "--config", str(config), ports=[self.port]
        )
        self.addCleanup(self.daemon.stop)
        self.daemon.started()

    def issue(self, number: int) -> str:
        """Make a certificate; its fingerprint."""
        pem, key = self_signed(self.archive, f"made{number}")
        chain = Path(pem).rename(self.archive / f"fullchain{number}.pem")
        private = Path(key).rename(self.archive / f"privkey{number}.pem")
        private.chmod(0o600)  # root's alone
        der = ssl.PEM_cert_to_DER_cert(chain.read_text())
        return hashlib.sha256(der).hexdigest()

    def link(self, name: str, number: int) -> None:
        """Have a name stand for another file, at once."""
        fresh = self.live / f".{name}"
        fresh.symlink_to(self.archive / f"{name}{number}.pem")
        fresh.rename(self.live / f"{name}.pem")

    def ask(
        self, context: ssl.SSLContext, session: Any = None, name: str = "a.example"
    ) -> tuple[int, str, str, Any]:
        """Who answered, whether it was resumed, the fingerprint, and the session."""
        with (
            socket.create_connection(("127.0.0.1", self.port), 20) as raw,
            context.wrap_socket(raw, server_hostname=name, session=session) as tls,
        ):
            tls.sendall(rawhttp.request("/", host=name))
            answer = rawhttp.Reader(tls).answer("GET")
            assert answer is not None
            pid, reused = answer.body.decode().split()
            fingerprint = hashlib.sha256(tls.getpeercert(True) or b"").hexdigest()
            return int(pid), reused, fingerprint, tls.session

    def everybody(self, session: Any = None, context: ssl.SSLContext | None = None) -> set[Any]:
        """What the workers say, when each has been asked."""
        found: set[Any] = set()
        workers = set(descendants(self.daemon.pid))
        context = context or trusting()

        def all_asked() -> bool:
            pid, reused, fingerprint, _ = self.ask(context, session)
            found.add((pid, reused, fingerprint))
            return {each[0] for each in found} >= workers

        wait_until(all_asked, what="answer of each worker")
        return {each[1:] for each in found}

    def log(self) -> str:
        return (self.here / "logs" / "error.log").read_text()

    def test_sessions_and_renewal(self) -> None:
        old, new = self.fingerprints
        contexts = {version: trusting(version) for version in VERSIONS}
        sessions = {version: self.ask(contexts[version])[3] for version in VERSIONS}
        for version in VERSIONS:
            found = self.everybody(sessions[version], contexts[version])
            self.assertEqual(found, {("r", old)}, version)

        # A certificate without its key: said once, and the former pair goes on to be served.
        self.link("fullchain", 2)
        words = "the former certificate stays in force"
        wait_until(lambda: words in self.log(), what="complaint")
        self.assertIn("it is not the key of certificate", self.log())
        self.assertEqual(self.everybody(), {(".", old)})
        victim = descendants(self.daemon.pid)[0]
        os.kill(victim, signal.SIGKILL)
        wait_until(
            lambda: len(set(descendants(self.daemon.pid)) - {victim}) == WORKERS,
            what="another worker",
        )
        self.assertEqual(self.everybody(), {(".", old)})

        # And now the key.
        self.link("privkey", 2)
        wait_until(lambda: self.everybody() == {(".", new)}, what="renewed certificate")
        self.assertEqual(self.log().count(words), 1)
        self.assertIn("was renewed, it is valid until", self.log())
        for name in ("other", "a.example"):
            self.assertEqual(self.ask(trusting(), name=name)[2], new)
        for version in VERSIONS:
            reused = self.ask(contexts[version], sessions[version])[1]
            self.assertEqual(reused, "r", version)

        # A reload reads the new files; sessions of before are still good.
        before = set(descendants(self.daemon.pid))
        self.daemon.signal(signal.SIGHUP)
        wait_until(lambda: not before & set(descendants(self.daemon.pid)), what="new workers")
        self.assertEqual(self.everybody(), {(".", new)})
        for version in VERSIONS:
            found = self.everybody(sessions[version], contexts[version])
            self.assertEqual({each[0] for each in found}, {"r"}, version)
