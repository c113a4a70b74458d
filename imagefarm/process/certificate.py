"""A self-signed certificate for the first start, so that https works out of the box."""

from __future__ import annotations

import datetime
import ipaddress
import os
import tempfile
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

#: Subject alternative names of the certificate (RFC 5280 section 4.2.1.6).
NAMES: Final = ("localhost", "stillshot-origin.localhost", "image-origin.localhost")
ADDRESSES: Final = ("127.0.0.1", "::1")
#: How long it is valid: Apple's limit for trusting a certificate at all is 825 days.
VALIDITY: Final = datetime.timedelta(days=825)


class CertificateError(Exception):
    """The certificate can't be made; one line that says why."""


def _write(path: str, content: bytes, mode: int) -> None:
    directory = os.path.dirname(path) or "."
    os.makedirs(directory, exist_ok=True)
    fd, temporary = tempfile.mkstemp(prefix=".certificate-", dir=directory)
    try:
        with os.fdopen(fd, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError:
        os.unlink(temporary)
        raise


def _sign(key: ec.EllipticCurvePrivateKey, now: datetime.datetime) -> bytes:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, NAMES[0])])
    alternatives: list[x509.GeneralName] = [x509.DNSName(text) for text in NAMES]
    alternatives += [x509.IPAddress(ipaddress.ip_address(text)) for text in ADDRESSES]
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + VALIDITY)
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def _load_key(path: str) -> ec.EllipticCurvePrivateKey:
    with open(path, "rb") as file:
        key = serialization.load_pem_private_key(file.read(), None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError("not an elliptic curve key")
    return key


def ensure_self_signed(certificate: str, key: str, now: datetime.datetime) -> bool:
    """Make ``certificate`` and ``key`` (EC P-256, mode 0600) unless they are there.

    Returns whether a certificate was made. The key is in place before the certificate: a crash
    between the two leaves a key alone, and the next start signs with it. An existing file is
    never replaced; a certificate whose key is missing raises `CertificateError`.
    """
    if os.path.exists(certificate):
        if not os.path.exists(key):
            raise CertificateError(f'certificate "{certificate}" has no key: "{key}" is missing')
        return False
    try:
        if os.path.exists(key):
            private = _load_key(key)
        else:
            private = ec.generate_private_key(ec.SECP256R1())
            pem = private.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
            _write(key, pem, 0o600)
        _write(certificate, _sign(private, now), 0o644)
    except (OSError, ValueError, TypeError) as error:
        raise CertificateError(f'cannot make certificate "{certificate}": {error}') from error
    return True
