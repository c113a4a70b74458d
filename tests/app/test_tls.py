"""TLS of a whole configuration: what is wrong, what is worth a warning, who is served."""

from __future__ import annotations

import datetime
import tempfile
from pathlib import Path

from OpenSSL import SSL
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.app.configuration import Options, read
from imagefarm.app.web import WebWork
from imagefarm.config.errors import ConfigurationError
from imagefarm.process.directives import MainSettings
from tests.http.test_tls import handshake
from tests.support.certificates import Authority


class ConfigurationTests(SynchronousTestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory(prefix="tls-")
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        (self.folder / "logs").mkdir()
        (self.folder / "html").mkdir()
        authority = Authority(self.folder, "ca")
        authority.issue("good")
        authority.issue("old", days=-1)
        (self.folder / "rubbish.pem").write_text("nothing")

    def work(self, *servers: str) -> WebWork:
        """The work of servers of one address; ``FILE=NAME`` stands for a certificate and key."""
        blocks = ""
        for number, inside in enumerate(servers):
            for name in ("good", "old", "rubbish", "none"):
                pair = f"ssl_certificate {name}.pem; ssl_certificate_key {name}.key;"
                inside = inside.replace(f"FILE={name}", pair)
            blocks += f"server {{ listen 8443 ssl; server_name {number}.example; {inside} }}\n"
        config = self.folder / "x.conf"
        config.write_text(f"events {{ }}\nhttp {{ access_log off;\n{blocks}}}")
        loaded = read(Options("slave", str(config), str(self.folder)))
        work = WebWork(Clock(), loaded, MainSettings(), str(self.folder))
        self.addCleanup(work.stop)
        return work

    def refused(self, *servers: str) -> list[str]:
        error = self.assertRaises(ConfigurationError, self.work, *servers)
        return [
            f"{problem.message.replace(str(self.folder), '')} :{problem.line}"
            for problem in error.problems
        ]

    def test_errors_are_told_together(self) -> None:
        found = self.refused("FILE=none", "FILE=rubbish", "FILE=good", "")
        missing = 'cannot load certificate "/none.pem": (2: No such file or directory) :3'
        self.assertEqual(
            found,
            [
                missing,
                'cannot load certificate "/rubbish.pem": it is not in PEM form :4',
                'no "ssl_certificate" is defined for the "listen ... ssl" directive :6',
            ],
        )

    def test_errors(self) -> None:
        for text, expected in (
            (
                "ssl_certificate good.pem; ssl_certificate_key old.key;",
                'cannot load certificate key "/old.key": it is not the key of certificate '
                '"/good.pem"',
            ),
            (
                "FILE=good ssl_certificate old.pem;",
                'no "ssl_certificate_key" is defined for certificate "/old.pem"',
            ),
            (
                "FILE=good ssl_verify_client on; ssl_client_certificate none;",
                'cannot load client certificates "/none": (2: No such file or directory)',
            ),
            (
                "FILE=good ssl_verify_client on; ssl_client_certificate rubbish.pem;",
                'cannot load client certificates "/rubbish.pem": it is not in PEM form',
            ),
            (
                "FILE=good ssl_stapling on; ssl_stapling_file rubbish.pem;",
                'cannot load OCSP response "/rubbish.pem": it is no OCSP response',
            ),
        ):
            self.assertEqual(self.refused(text), [f"{expected} :3"])

    def test_warnings(self) -> None:
        yesterday = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
        work = self.work("FILE=old", "FILE=good", "FILE=good ssl_stapling on;")
        self.assertEqual(
            [f"{w.message.replace(str(self.folder), '')} :{w.line}" for w in work.warnings],
            [
                f'certificate "/old.pem" has expired on {yesterday:%F} :3',
                '"ssl_stapling" ignored, issuer certificate not found for certificate '
                '"/good.pem" :5',
            ],
        )

    def test_the_default_may_reject(self) -> None:
        work = self.work("ssl_reject_handshake on;", "FILE=good")
        contexts = work.doors[0].contexts
        assert contexts is not None
        client = handshake(contexts.default, name="1.example")
        self.assertTrue(client.getpeercert(True))
        for name in ("0.example", None):
            with self.assertRaises(Exception) as caught:
                handshake(contexts.default, name=name)
            self.assertIn("Error", type(caught.exception).__name__)

    def test_who_asks_for_hellos(self) -> None:
        """Only a configuration that has a variable of them."""
        for text, expected in (("", False), ('return 200 "$ssl_curves";', True)):
            contexts = self.work(f"FILE=good {text}").doors[0].contexts
            assert contexts is not None
            seen: list[SSL.Connection] = []
            handshake(contexts.default, seen=seen)
            kept = seen[0].get_app_data()
            self.assertEqual(isinstance(kept, bytes), expected)
