"""Certificates for tests, made by our own code: no program needed."""

from __future__ import annotations

import datetime
import ipaddress
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from imagefarm.process.certificate import ensure_self_signed


def self_signed(directory: Path, name: str) -> tuple[str, str]:
    """The paths of a new certificate and its key."""
    pem, key = str(directory / f"{name}.pem"), str(directory / f"{name}.key")
    ensure_self_signed(pem, key, datetime.datetime.now(datetime.UTC))
    return pem, key


class Authority:
    """A certificate authority whose files are in ``directory``; ``above`` vouches for it."""

    def __init__(self, directory: Path, name: str, above: Authority | None = None) -> None:
        self._directory = directory
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        self._serials = 1
        signer = above or self
        builder = signer._builder(self._name, self._key.public_key(), days=1).add_extension(
            x509.BasicConstraints(ca=True, path_length=None), critical=True
        )
        self.certificate = self._write(name, builder.sign(signer._key, hashes.SHA256()))

    def issue(
        self,
        file: str,
        *names: str,
        days: int = 1,
        password: bytes = b"",
        subject: x509.Name | None = None,
        key: Any = None,
    ) -> tuple[str, str, int]:
        """A certificate for names and addresses: its path, its key's, and its serial number."""
        key = key or ec.generate_private_key(ec.SECP256R1())
        subject = subject or x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, file)])
        builder = self._builder(subject, key.public_key(), days=days)
        if names:
            alternatives = x509.SubjectAlternativeName(
                x509.IPAddress(ipaddress.ip_address(name))
                if name.replace(".", "").isdigit()
                else x509.DNSName(name)
                for name in names
            )
            builder = builder.add_extension(alternatives, critical=False)
        path = self._write(file, builder.sign(self._key, hashes.SHA256()))
        serialization = BestAvailableEncryption(password) if password else NoEncryption()
        key_path = self._directory / f"{file}.key"
        key_path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, serialization))
        return path, str(key_path), self._serials

    def write_key(self) -> None:
        """Put the authority's own key beside its certificate."""
        key = self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        Path(self.certificate).with_suffix(".key").write_bytes(key)

    def revoke(self, *serials: int) -> str:
        """The path of a list of revoked certificates."""
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self._name)
            .last_update(now - datetime.timedelta(days=1))
            .next_update(now + datetime.timedelta(days=1))
        )
        for serial in serials:
            builder = builder.add_revoked_certificate(
                x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now).build()
            )
        return self._write("revoked", builder.sign(self._key, hashes.SHA256()))

    def _builder(self, subject: x509.Name, key: Any, *, days: int) -> x509.CertificateBuilder:
        self._serials += 1
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(self._serials)
            .not_valid_before(now - datetime.timedelta(days=3))
            .not_valid_after(now + datetime.timedelta(days=days))
        )

    def _write(self, name: str, signed: Any) -> str:
        path = self._directory / f"{name}.pem"
        path.write_bytes(signed.public_bytes(Encoding.PEM))
        return str(path)
