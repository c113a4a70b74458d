import datetime
import os
import ssl
import stat

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.process.certificate import CertificateError, ensure_self_signed

NOW = datetime.datetime(2026, 1, 31, 12, tzinfo=datetime.UTC)


class CertificateTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = os.path.join(self.mktemp(), "ssl")
        self.certificate = os.path.join(self.directory, "imagefarm.pem")
        self.key = os.path.join(self.directory, "imagefarm.key")

    def make(self) -> bool:
        return ensure_self_signed(self.certificate, self.key, NOW)

    def load(self) -> x509.Certificate:
        with open(self.certificate, "rb") as file:
            return x509.load_pem_x509_certificate(file.read())

    def test_made_once(self) -> None:
        self.assertTrue(self.make())
        before = self.load()
        self.assertFalse(self.make())
        self.assertEqual(self.load(), before)
        self.assertEqual(sorted(os.listdir(self.directory)), ["imagefarm.key", "imagefarm.pem"])

    def test_only_the_owner_reads_the_key(self) -> None:
        self.make()
        self.assertEqual(stat.S_IMODE(os.stat(self.key).st_mode), 0o600)

    def test_good_for_both_virtual_hosts_and_loopback(self) -> None:
        self.make()
        names = self.load().extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        self.assertEqual(
            names.get_values_for_type(x509.DNSName),
            ["localhost", "stillshot-origin.localhost", "image-origin.localhost"],
        )
        addresses = [str(address) for address in names.get_values_for_type(x509.IPAddress)]
        self.assertEqual(addresses, ["127.0.0.1", "::1"])

    def test_valid_now_and_not_for_ever(self) -> None:
        self.make()
        certificate = self.load()
        self.assertLess(certificate.not_valid_before_utc, NOW)
        self.assertEqual(certificate.not_valid_after_utc, NOW + datetime.timedelta(days=825))

    def test_openssl_takes_it(self) -> None:
        self.make()
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self.certificate, self.key)
        context.load_verify_locations(self.certificate)
        self.assertEqual(len(context.get_ca_certs()), 1)

    def test_a_key_alone_is_used(self) -> None:
        # A crash after the key was written and before the certificate was.
        self.make()
        with open(self.key, "rb") as file:
            before = file.read()
        os.unlink(self.certificate)
        self.assertTrue(self.make())
        with open(self.key, "rb") as file:
            self.assertEqual(file.read(), before)
        public = serialization.load_pem_private_key(before, None).public_key()
        self.assertEqual(self.load().public_key(), public)

    def test_a_certificate_alone_is_never_replaced(self) -> None:
        self.make()
        before = self.load()
        os.unlink(self.key)
        error = self.assertRaises(CertificateError, self.make)
        self.assertIn(f'"{self.key}" is missing', str(error))
        self.assertEqual(self.load(), before)

    def test_unusable_key(self) -> None:
        os.makedirs(self.directory)
        with open(self.key, "wb") as file:
            file.write(b"nonsense")
        error = self.assertRaises(CertificateError, self.make)
        self.assertIn(f'cannot make certificate "{self.certificate}"', str(error))

    def test_directory_that_can_not_be_made(self) -> None:
        with open(os.path.dirname(self.directory), "wb"):
            pass
        self.assertRaises(CertificateError, self.make)
