"""``$ssl_*``: what the handshake and the client's certificate say, as nginx prints it."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL, crypto

from . import libssl
from .message import Request
from .tls_session import ciphers_of, groups_of, session_id

Lookup = Callable[[Request], bytes | None]

#: Variables that need the ClientHello.
OF_HELLO: Final = frozenset({"ssl_ciphers", "ssl_curves"})

#: OpenSSL's short names of the groups of RFC 8446 section 4.2.7 and RFC 8422.
_GROUPS: Final = {
    19: "prime192v1", 21: "secp224r1", 22: "secp256k1", 23: "prime256v1", 24: "secp384r1",
    25: "secp521r1", 26: "brainpoolP256r1", 27: "brainpoolP384r1", 28: "brainpoolP512r1",
    29: "X25519", 30: "X448", 256: "ffdhe2048", 257: "ffdhe3072", 258: "ffdhe4096",
    259: "ffdhe6144", 260: "ffdhe8192",
}  # fmt: skip
#: Their names in TLS, where those differ.
_TLS_NAMES: Final = {
    "x25519": "X25519", "x448": "X448", "secp256r1": "prime256v1", "secp192r1": "prime192v1",
}  # fmt: skip
_MONTHS: Final = [
    "Jan",
    "Feb",
    "Mar",
    "Apr",
    "May",
    "Jun",
    "Jul",
    "Aug",
    "Sep",
    "Oct",
    "Nov",
    "Dec",
]
_UNESCAPED: Final = frozenset(
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~"
)


def _encoded(value: str) -> bytes | None:
    return value.encode("latin-1", "replace") or None


def _of_tls(which: int) -> Lookup:
    return lambda request: _encoded(request.peer.tls[which]) if request.peer.tls else None


def _of_handle(read: Callable[[SSL.Connection], bytes | None]) -> Lookup:
    """A variable of the connection; None without TLS, and for what is empty."""

    def lookup(request: Request) -> bytes | None:
        handle = request.peer.handle
        return None if handle is None else read(handle) or None

    return lookup


def _of_certificate(read: Callable[[Any], bytes]) -> Lookup:
    """A variable of the client's certificate, a `cryptography.x509.Certificate`."""

    def of(handle: SSL.Connection) -> bytes | None:
        certificate = handle.get_peer_certificate(as_cryptography=True)
        return None if certificate is None else read(certificate)

    return _of_handle(of)


def _of_names(read: Callable[[Any], tuple[bytes, bytes]], which: int) -> Lookup:
    """A name in the client's certificate."""

    def of(handle: SSL.Connection) -> bytes | None:
        certificate = handle.get_peer_certificate(as_cryptography=True)
        return None if certificate is None else read(_raw(certificate))[which]

    return _of_handle(of)


def _raw(certificate: Any) -> crypto.X509:
    return crypto.X509.from_cryptography(certificate)


def _hello(handle: SSL.Connection) -> bytes:
    kept = handle.get_app_data()
    return kept if isinstance(kept, bytes) else b""


def _ciphers(handle: SSL.Connection) -> bytes:
    return b":".join(
        (libssl.cipher_name(handle, code) or f"0x{code.hex()}").encode()
        for code in ciphers_of(_hello(handle))
    )


def _curves(handle: SSL.Connection) -> bytes:
    if libssl.is_resumed(handle) and handle.get_protocol_version_name() != "TLSv1.3":
        return b""  # as nginx: OpenSSL has not looked at them
    return ":".join(
        _GROUPS.get(number, f"0x{number:04x}") for number in groups_of(_hello(handle))
    ).encode()


def _curve(handle: SSL.Connection) -> bytes:
    name = libssl.group(handle)
    return _TLS_NAMES.get(name, name).encode()


def _verified(handle: SSL.Connection) -> bytes:
    if handle.get_peer_certificate(as_cryptography=True) is None:
        return b"NONE"
    number = libssl.verify_result(handle)
    return b"FAILED:" + libssl.verify_error(number).encode() if number else b"SUCCESS"


def _pem(certificate: Any) -> bytes:
    found: bytes = certificate.public_bytes(Encoding.PEM)
    return found


def _escaped(certificate: Any) -> bytes:
    return b"".join(
        bytes((byte,)) if byte in _UNESCAPED else b"%%%02X" % byte for byte in _pem(certificate)
    )


def _serial(certificate: Any) -> bytes:
    number: int = certificate.serial_number
    text = f"{abs(number):X}"
    return (("-" if number < 0 else "") + "0" * (len(text) % 2) + text).encode()


def _date(moment: datetime.datetime) -> bytes:
    """As ``ASN1_TIME_print`` has it."""
    return (
        f"{_MONTHS[moment.month - 1]} {moment.day:2d} {moment:%H:%M:%S} {moment.year} GMT".encode()
    )


def _days_left(certificate: Any) -> bytes:
    left = certificate.not_valid_after_utc.timestamp() - time.time()
    return b"%d" % (max(int(left), 0) // 86400)


def _fingerprint(certificate: Any) -> bytes:
    found: bytes = certificate.fingerprint(hashes.SHA1())  # nginx's choice
    return found.hex().encode()


LOOKUPS: Final[Mapping[str, Lookup]] = {
    "ssl_alpn_protocol": _of_handle(lambda handle: handle.get_alpn_proto_negotiated()),
    "ssl_cipher": _of_tls(1),
    "ssl_ciphers": _of_handle(_ciphers),
    "ssl_client_cert": _of_certificate(
        lambda found: _pem(found).rstrip(b"\n").replace(b"\n", b"\n\t")
    ),
    "ssl_client_escaped_cert": _of_certificate(_escaped),
    "ssl_client_fingerprint": _of_certificate(_fingerprint),
    "ssl_client_i_dn": _of_names(libssl.names_of, 1),
    "ssl_client_i_dn_legacy": _of_names(libssl.old_names_of, 1),
    "ssl_client_raw_cert": _of_certificate(_pem),
    "ssl_client_s_dn": _of_names(libssl.names_of, 0),
    "ssl_client_s_dn_legacy": _of_names(libssl.old_names_of, 0),
    "ssl_client_serial": _of_certificate(_serial),
    "ssl_client_v_end": _of_certificate(lambda found: _date(found.not_valid_after_utc)),
    "ssl_client_v_remain": _of_certificate(_days_left),
    "ssl_client_v_start": _of_certificate(lambda found: _date(found.not_valid_before_utc)),
    "ssl_client_verify": _of_handle(_verified),
    "ssl_curve": _of_handle(_curve),
    "ssl_curves": _of_handle(_curves),
    "ssl_early_data": lambda request: None,
    "ssl_protocol": _of_tls(0),
    "ssl_server_name": lambda request: request.peer.sni,
    "ssl_session_id": _of_handle(lambda handle: session_id(libssl.session(handle)).hex().encode()),
    "ssl_session_reused": _of_handle(lambda handle: b"r" if libssl.is_resumed(handle) else b"."),
}
