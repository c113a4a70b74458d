"""OCSP: which responses are good enough to be stapled."""

from __future__ import annotations

import base64
import datetime
import urllib.parse
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp as library
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.http import ocsp

NOW = datetime.datetime(2026, 6, 1, 12, tzinfo=datetime.UTC)
DAY = datetime.timedelta(days=1)


class Party:
    """A key and a certificate that ``above`` has signed."""

    def __init__(
        self, name: str, above: Party | None = None, *extensions: Any, key: Any = None
    ) -> None:
        self.key = key or ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        signer = above or self
        builder = (
            x509.CertificateBuilder()
            .subject_name(self.name)
            .issuer_name(signer.name)
            .public_key(self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(NOW - 10 * DAY)
            .not_valid_after(NOW + 10 * DAY)
        )
        for extension in extensions:
            builder = builder.add_extension(extension, critical=False)
        self.certificate = builder.sign(signer.key, hashes.SHA256())


DELEGATED = x509.ExtendedKeyUsage([x509.ExtendedKeyUsageOID.OCSP_SIGNING])
CA = Party("ca")
SERVER = Party(
    "server", CA,
    x509.AuthorityInformationAccess([
        x509.AccessDescription(
            x509.AuthorityInformationAccessOID.CA_ISSUERS,
            x509.UniformResourceIdentifier("http://a.example/ca"),
        ),
        x509.AccessDescription(
            x509.AuthorityInformationAccessOID.OCSP,
            x509.UniformResourceIdentifier("http://a.example/ocsp"),
        ),
    ]),
)  # fmt: skip


def response(
    signer: Party = CA,
    about: Party = SERVER,
    status: library.OCSPCertStatus = library.OCSPCertStatus.GOOD,
    begin: datetime.datetime = NOW - DAY,
    end: datetime.datetime | None = NOW + DAY,
    certificates: tuple[Party, ...] = (),
) -> bytes:
    revoked = NOW - 2 * DAY if status is library.OCSPCertStatus.REVOKED else None
    builder = library.OCSPResponseBuilder().add_response(
        about.certificate, CA.certificate, hashes.SHA1(), status, begin, end, revoked, None
    )
    builder = builder.responder_id(library.OCSPResponderEncoding.HASH, signer.certificate)
    if certificates:
        builder = builder.certificates([each.certificate for each in certificates])
    made = builder.sign(signer.key, hashes.SHA256())
    return made.public_bytes(Encoding.DER)


RESPONSE = response()


def check(said: bytes) -> ocsp.Staple:
    return ocsp.check(said, SERVER.certificate, CA.certificate, NOW)


class CheckTests(SynchronousTestCase):
    def refused(self, said: bytes) -> str:
        return str(self.assertRaises(ocsp.Unusable, check, said))

    def test_good(self) -> None:
        said = response()
        self.assertEqual(check(said), ocsp.Staple(said, NOW + DAY))
        self.assertIsNone(check(response(end=None)).until)

    def test_status(self) -> None:
        for status in (library.OCSPCertStatus.REVOKED, library.OCSPCertStatus.UNKNOWN):
            self.assertEqual(
                self.refused(response(status=status)),
                f'certificate status "{status.name.lower()}" in the OCSP response',
            )

    def test_another_certificate(self) -> None:
        self.assertIn("not found", self.refused(response(about=Party("other", CA))))

    def test_time(self) -> None:
        late = response(begin=NOW - 2 * DAY, end=NOW)
        early = response(begin=NOW + DAY, end=NOW + 2 * DAY)
        for said in (late, early):
            self.assertIn("not valid now", self.refused(said))
        self.assertIsNotNone(check(response(begin=NOW + ocsp.SKEW)))

    def test_unsuccessful(self) -> None:
        made = library.OCSPResponseBuilder.build_unsuccessful(library.OCSPResponseStatus.TRY_LATER)
        self.assertEqual(
            self.refused(made.public_bytes(Encoding.DER)),
            "OCSP response not successful (try_later)",
        )

    def test_signatures(self) -> None:
        delegate = Party("delegate", CA, DELEGATED)
        by_rsa = Party("by rsa", CA, DELEGATED, key=rsa.generate_private_key(65537, 2048))
        for signer in (delegate, by_rsa):
            self.assertIsNotNone(check(response(signer, certificates=(signer,))))
            self.assertIn("not signed", self.refused(response(signer)))
        undelegated, stranger = Party("plain", CA), Party("stranger", None, DELEGATED)
        for signer in (undelegated, stranger):
            said = response(signer, certificates=(signer,))
            self.assertIn("not signed", self.refused(said))
        self.assertIn("not signed", self.refused(response(stranger)))

    @given(st.binary(max_size=200))
    def test_rubbish(self, said: bytes) -> None:
        self.refused(said)

    @given(st.data())
    def test_damage(self, data: st.DataObject) -> None:
        """Whatever bit is turned, it is not taken for something else."""
        said = bytearray(RESPONSE)
        at = data.draw(st.integers(0, len(said) * 8 - 1))
        said[at // 8] ^= 1 << at % 8
        try:
            found = check(bytes(said))
        except ocsp.Unusable:
            return
        # What is not signed: the parameters of algorithms, at most.
        self.assertEqual(found.until, NOW + DAY)


class AddressTests(SynchronousTestCase):
    def test_responder(self) -> None:
        self.assertEqual(ocsp.responder_of(SERVER.certificate), "http://a.example/ocsp")
        self.assertEqual(ocsp.responder_of(CA.certificate), "")

    def test_issuer(self) -> None:
        other = Party("ca").certificate  # the name alone is not enough
        find = ocsp.find_issuer
        self.assertEqual(find(SERVER.certificate, [other, CA.certificate]), CA.certificate)
        self.assertIsNone(find(SERVER.certificate, [other]))

    def test_address(self) -> None:
        for responder in ("http://a.example/ocsp", "http://a.example/ocsp/"):
            url = ocsp.address(responder, SERVER.certificate, CA.certificate)
            start, _, path = url.rpartition("/")
            self.assertEqual(start, "http://a.example/ocsp")
            asked = library.load_der_ocsp_request(base64.b64decode(urllib.parse.unquote(path)))
            self.assertEqual(asked.serial_number, SERVER.certificate.serial_number)
