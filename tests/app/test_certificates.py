"""Certificates over time: renewed, broken, kept over reloads."""

from __future__ import annotations

import os
import ssl
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from OpenSSL import SSL
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.logger import formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.app.certificates import INTERVAL, MAX_AGE, Bases, Certificates
from imagefarm.app.stapling import Stapler, subjects
from imagefarm.http.tls_context import Kinship, Secured, SniContexts
from imagefarm.http.tls_files import Files
from imagefarm.http.tls_settings import Stapling, TlsSettings
from tests.http.test_ocsp import NOW
from tests.http.test_tls import client_context, handshake
from tests.support.certificates import Authority, self_signed

ADDRESS = ("", 443)


class CertificatesCase(SynchronousTestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory(prefix="certificates-")
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.clock = Clock()
        self.lines: list[str] = []
        globalLogPublisher.addObserver(self.observe)
        self.addCleanup(globalLogPublisher.removeObserver, self.observe)

    def observe(self, event: Any) -> None:
        self.lines.append(formatEvent(event))

    def pair(self, name: str) -> tuple[str, str]:
        return self_signed(self.folder, name)

    def replace(self, old: tuple[str, str], new: tuple[str, str]) -> None:
        for before, after in zip(old, new, strict=True):
            Path(after).rename(before)

    def served(
        self, certificates: Certificates, *all_settings: TlsSettings
    ) -> tuple[SniContexts, Kinship]:
        kinship = Kinship.of(ADDRESS, all_settings, certificates.files)
        servers = [certificates.secured(each, kinship) for each in all_settings]
        base = certificates.base(kinship)
        names = {b"%d.example" % number: server for number, server in enumerate(servers)}
        return SniContexts(base, servers[0], names.get, servers[1:]), kinship

    def shown(self, contexts: SniContexts, name: str = "0.example") -> bytes:
        return handshake(contexts.default, name=name).getpeercert(True) or b""


def der(pair: tuple[str, str]) -> bytes:
    return ssl.PEM_cert_to_DER_cert(Path(pair[0]).read_text())


class RenewalTests(CertificatesCase):
    def setUp(self) -> None:
        super().setUp()
        self.one, self.two = self.pair("one"), self.pair("two")
        self.certificates = Certificates()
        self.contexts, _ = self.served(
            self.certificates,
            TlsSettings((self.one,)),
            TlsSettings((self.one,), session_timeout=60.0),
            TlsSettings((self.two,)),
        )
        self.certificates.follow(self.clock, self.contexts.servers)
        self.certificates.start(self.clock)
        self.addCleanup(self.certificates.stop)

    def pass_time(self, intervals: int = 4) -> None:
        self.clock.pump([INTERVAL] * intervals)

    def all_shown(self) -> list[bytes]:
        return [self.shown(self.contexts, f"{number}.example") for number in range(3)]

    def test_renewed(self) -> None:
        first, second = der(self.one), der(self.two)
        self.assertEqual(self.all_shown(), [first, first, second])
        self.replace(self.one, self.pair("new"))
        third = der(self.one)
        self.assertEqual(self.all_shown(), [first, first, second])
        self.pass_time()
        self.assertEqual(self.all_shown(), [third, third, second])
        self.assertEqual(
            [line for line in self.lines if "renewed" in line],
            [line for line in self.lines if f'"{self.one[0]}" was renewed' in line],
        )

    def test_sessions_outlive_it(self) -> None:
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            client = client_context(version, version)
            session = handshake(self.contexts.default, client, "0.example").session
            self.replace(self.one, self.pair("new"))
            self.pass_time()
            again = handshake(self.contexts.default, client, "0.example", session)
            self.assertTrue(again.session_reused, version)

    def test_both_files_at_leisure(self) -> None:
        """As long as they change, nobody judges them."""
        old, new = der(self.one), self.pair("new")
        Path(new[0]).rename(self.one[0])
        self.pass_time(1)
        Path(new[1]).rename(self.one[1])
        self.pass_time(1)
        self.assertEqual(self.shown(self.contexts), old)
        self.pass_time()
        self.assertEqual(self.shown(self.contexts), der(self.one))
        self.assertEqual([line for line in self.lines if "stays in force" in line], [])

    def test_broken(self) -> None:
        old = der(self.one)
        for number, spoil in enumerate(self.spoilers()):
            self.lines.clear()
            spoil()
            self.pass_time(10)
            self.assertEqual(self.shown(self.contexts), old, number)
            self.assertEqual(
                len([line for line in self.lines if "stays in force" in line]), 1, number
            )
        self.replace(self.one, self.pair("good"))
        self.pass_time()
        self.assertEqual(self.shown(self.contexts), der(self.one))

    def spoilers(self) -> list[Callable[[], object]]:
        certificate, key = map(Path, self.one)
        return [
            lambda: Path(self.pair("other")[0]).rename(certificate),
            lambda: certificate.write_text("rubbish"),
            lambda: certificate.unlink(),
            lambda: os.mkfifo(certificate),  # to open it as it is would wait for a writer
            lambda: key.unlink(),
        ]

    def test_passwords_out_of_a_pipe(self) -> None:
        """As nginx allows; they are not asked for again, nobody would write them."""
        authority, pipe = Authority(self.folder, "ca"), str(self.folder / "pipe")
        old, new = (authority.issue(name, password=b"secret")[:2] for name in ("old", "fresh"))
        os.mkfifo(pipe)
        writer = threading.Thread(target=lambda: Path(pipe).write_text("secret\n"))
        writer.start()
        certificates = Certificates()
        contexts, _ = self.served(certificates, TlsSettings((old,), password_file=pipe))
        writer.join()
        first = x509.load_pem_x509_certificates(Path(new[0]).read_bytes())[0]
        expected = first.public_bytes(serialization.Encoding.DER)
        self.replace(old, new)
        for _ in range(3):
            certificates.look()
        certificates.adopt(contexts.servers)
        self.assertEqual(self.shown(contexts), expected)

    def test_nothing_new(self) -> None:
        for path in self.one:
            Path(path).touch()
        contexts = [server.context for server in self.contexts.servers]
        self.pass_time()
        self.assertEqual([server.context for server in self.contexts.servers], contexts)
        self.assertEqual([line for line in self.lines if "renewed" in line], [])

    def test_another_process(self) -> None:
        """Who only follows need not see the files."""
        follower = Secured(TlsSettings((self.one,)), self.contexts.default)
        self.replace(self.one, self.pair("new"))
        renewed = der(self.one)
        self.pass_time(3)
        for path in self.one:
            Path(path).unlink()
        self.certificates.adopt([follower])
        self.pass_time(1)
        self.assertEqual(self.shown(self.contexts), renewed)


class BasesTests(CertificatesCase):
    def test_reloads(self) -> None:
        now = 0.0
        bases = Bases(lambda: now)
        settings = TlsSettings((self.pair("one"),))
        client = client_context()
        first, _ = self.served(Certificates(bases), settings)
        session = handshake(first.default, client, "0.example").session
        second, _ = self.served(Certificates(bases), settings)
        self.assertIs(second.default, first.default)
        self.assertIs(second.servers[0].context, second.default)
        again = handshake(second.default, client, "0.example", session)
        self.assertTrue(again.session_reused)
        # A certificate that was renewed meanwhile.
        self.replace(settings.pairs[0], self.pair("new"))
        third, _ = self.served(Certificates(bases), settings)
        self.assertIs(third.default, first.default)
        self.assertEqual(self.shown(third), der(settings.pairs[0]))
        # Other settings, or too long a time.
        other, _ = self.served(Certificates(bases), attrs.evolve(settings, verify_depth=2))
        self.assertIsNot(other.default, first.default)
        now = MAX_AGE
        late, _ = self.served(Certificates(bases), settings)
        self.assertIsNot(late.default, first.default)

    def test_a_configuration_keeps_its_own(self) -> None:
        now = 0.0
        certificates = Certificates(Bases(lambda: now))
        settings = TlsSettings((self.pair("one"),))
        first, kinship = self.served(certificates, settings)
        now = MAX_AGE
        self.assertIs(certificates.base(kinship), first.default)


class StaplingTests(CertificatesCase):
    def setUp(self) -> None:
        super().setUp()
        authority = Authority(self.folder, "ca")
        self.ca = authority.certificate
        pem, key, _ = authority.issue("server")
        self.settings = TlsSettings(
            ((pem, key),), trusted=self.ca, stapling=Stapling(responder="http://a.example/")
        )

    def reasons(self, **changes: Any) -> list[str]:
        settings = attrs.evolve(self.settings, **changes)
        return [each for each in subjects(settings, Files()) if isinstance(each, str)]

    def test_subjects(self) -> None:
        path = self.settings.pairs[0][0]
        self.assertEqual(self.reasons(), [])
        for changes, expected in (
            ({"trusted": ""}, f'issuer certificate not found for certificate "{path}"'),
            ({"stapling": Stapling()}, f'no OCSP responder URL in the certificate "{path}"'),
            ({"stapling": None}, None),
            ({"stapling": Stapling(file="x")}, None),
        ):
            words = [] if expected is None else [f'"ssl_stapling" ignored, {expected}']
            self.assertEqual(self.reasons(**changes), words)
        chained = self.folder / "chained.pem"
        chained.write_text(Path(path).read_text() + Path(self.ca).read_text())
        stapling = Stapling(responder="http://a.example/", verify=True)
        pairs = ((str(chained), self.settings.pairs[0][1]),)
        (reason,) = self.reasons(pairs=pairs, trusted="", stapling=stapling)
        self.assertIn('is not in "ssl_trusted_certificate"', reason)

    def test_asking(self) -> None:
        """Once at a time, again after a while, and never without a way to."""
        asked: list[str] = []
        answers: list[Deferred[bytes]] = [fail(OSError("nobody there")), succeed(b"rubbish")]
        waiting: Deferred[bytes] = Deferred()

        def fetch(url: str) -> Deferred[bytes]:
            asked.append(url)
            return answers.pop(0) if answers else waiting

        now = NOW
        ways: list[Any] = [None]
        stapler = Stapler(self.settings, Files(), lambda: ways[0], lambda: now)
        connection = SSL.Connection(
            Certificates().base(Kinship.of(ADDRESS, [self.settings], Files())), None
        )
        self.assertEqual((stapler(connection), asked), (b"", []))
        ways[0] = fetch
        for count in (1, 1):
            self.assertEqual((stapler(connection), len(asked)), (b"", count))
        for count in (2, 3, 3):
            now = now.replace(hour=now.hour + 1)
            self.assertEqual((stapler(connection), len(asked)), (b"", count))
        self.assertTrue(asked[0].startswith("http://a.example/M"), asked[0])
        words = "while requesting certificate status"
        found = [line.partition(words)[0] for line in self.lines if words in line]
        self.assertEqual(
            found,
            [
                "OCSP responder could not be asked (OSError: nobody there) ",
                "it is no OCSP response ",
            ],
        )
