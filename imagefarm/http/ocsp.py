"""OCSP (RFC 6960) for stapling: requests, and what makes a response good enough to be shown.

Sans IO; times are aware datetimes. nginx staples what the responder says as soon as it is about
the certificate. Here its signature is checked, too: it has to be the issuer's, or that of a
delegate whom the issuer has signed for that purpose (section 4.2.2.2).
"""

from __future__ import annotations

import base64
import datetime
import urllib.parse
from collections.abc import Iterable, Sequence
from typing import Any, Final

from attrs import frozen
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509 import ocsp
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID

#: How far clocks may be apart.
SKEW: Final = datetime.timedelta(minutes=5)


class Unusable(Exception):
    """A response that is not stapled; one line that says why."""


@frozen
class Staple:
    """A response that is good ``until`` then; None: as long as nobody knows better."""

    response: bytes
    until: datetime.datetime | None


def find_issuer(
    certificate: x509.Certificate, known: Iterable[x509.Certificate]
) -> x509.Certificate | None:
    """Whoever of the ``known`` has signed ``certificate``."""
    for each in known:
        try:
            certificate.verify_directly_issued_by(each)
        except (ValueError, TypeError, InvalidSignature):
            continue
        return each
    return None


def responder_of(certificate: x509.Certificate) -> str:
    """The address of the responder that the certificate names; empty for none."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.AuthorityInformationAccess)
    except (x509.ExtensionNotFound, ValueError):
        return ""
    for description in found.value:
        where = description.access_location
        if description.access_method == AuthorityInformationAccessOID.OCSP and isinstance(
            where, x509.UniformResourceIdentifier
        ):
            return where.value
    return ""


def address(responder: str, certificate: x509.Certificate, issuer: x509.Certificate) -> str:
    """What is to be fetched to learn about ``certificate`` (RFC 6960 appendix A.1)."""
    builder = ocsp.OCSPRequestBuilder().add_certificate(certificate, issuer, hashes.SHA1())
    request = builder.build().public_bytes(serialization.Encoding.DER)
    path = urllib.parse.quote(base64.b64encode(request), safe="")
    return f"{responder.removesuffix('/')}/{path}"


def check(
    response: bytes,
    certificate: x509.Certificate,
    issuer: x509.Certificate,
    now: datetime.datetime,
) -> Staple:
    """``response`` to be stapled with ``certificate``. Raises `Unusable`."""
    found = parse(response)
    try:
        single = _about(found.responses, certificate)
        _check_signature(found, issuer, now)
        if single.certificate_status is not ocsp.OCSPCertStatus.GOOD:
            status = single.certificate_status.name.lower()
            raise Unusable(f'certificate status "{status}" in the OCSP response')
        until = single.next_update_utc
        if single.this_update_utc > now + SKEW or (until is not None and until <= now):
            raise Unusable("the OCSP response is not valid now")
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise Unusable(f"the OCSP response can't be read: {error}") from None
    return Staple(response, until)


def parse(response: bytes) -> ocsp.OCSPResponse:
    """A response that says something. Raises `Unusable`."""
    try:
        found = ocsp.load_der_ocsp_response(response)
    except ValueError:
        raise Unusable("it is no OCSP response") from None
    if found.response_status is not ocsp.OCSPResponseStatus.SUCCESSFUL:
        raise Unusable(f"OCSP response not successful ({found.response_status.name.lower()})")
    return found


def _about(responses: Iterable[Any], certificate: x509.Certificate) -> Any:
    for single in responses:
        if single.serial_number == certificate.serial_number:
            return single
    raise Unusable("certificate status not found in the OCSP response")


def _check_signature(
    found: ocsp.OCSPResponse, issuer: x509.Certificate, now: datetime.datetime
) -> None:
    for signer in (issuer, *_delegates(found.certificates, issuer, now)):
        if _has_signed(signer, found):
            return
    raise Unusable("the OCSP response is not signed by the certificate's issuer")


def _delegates(
    certificates: Sequence[x509.Certificate], issuer: x509.Certificate, now: datetime.datetime
) -> list[x509.Certificate]:
    return [
        each
        for each in certificates
        if find_issuer(each, [issuer]) is not None
        and _may_sign(each)
        and each.not_valid_before_utc <= now < each.not_valid_after_utc
    ]


def _may_sign(certificate: x509.Certificate) -> bool:
    try:
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage)
    except x509.ExtensionNotFound:
        return False
    return ExtendedKeyUsageOID.OCSP_SIGNING in usage.value


def _has_signed(signer: x509.Certificate, found: ocsp.OCSPResponse) -> bool:
    key: Any = signer.public_key()
    signed = found.signature, found.tbs_response_bytes
    algorithm: Any = found.signature_hash_algorithm
    try:
        if isinstance(key, rsa.RSAPublicKey):
            key.verify(*signed, padding.PKCS1v15(), algorithm)
        elif isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(*signed, ec.ECDSA(algorithm))
        else:
            key.verify(*signed)
    except (InvalidSignature, TypeError, AttributeError):
        return False
    return True
