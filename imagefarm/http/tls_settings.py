"""One server's ``ssl_*`` directives, as values."""

from __future__ import annotations

from attrs import frozen

from imagefarm.config.errors import Invalid
from imagefarm.config.table import Scope

from . import tls


@frozen
class Stapling:
    """``ssl_stapling*``; empty for what is not said."""

    file: str = ""
    responder: str = ""
    verify: bool = False


@frozen
class TlsSettings:
    """Paths are absolute, and empty for none; the timeout is in seconds, the buffer in bytes.

    ``pairs`` are certificates and their keys; ``verify`` is ``ssl_verify_client``; ``reject``
    refuses handshakes, and needs no certificate.
    """

    pairs: tuple[tuple[str, str], ...]
    protocols: tuple[str, ...] = tls.PROTOCOLS.default
    ciphers: str = tls.DEFAULT_CIPHERS
    prefer_server_ciphers: bool = False
    session_timeout: float = 300.0
    session_cache: str = "none"
    session_tickets: bool = True
    curves: str = ""
    dhparam: str = ""
    conf: tuple[tuple[str, str], ...] = ()
    password_file: str = ""
    verify: str = "off"
    verify_depth: int = 1
    client_certificate: str = ""
    trusted: str = ""
    crl: str = ""
    reject: bool = False
    buffer_size: int = 16384
    stapling: Stapling | None = None

    @classmethod
    def from_scope(cls, scope: Scope) -> TlsSettings | None:
        """The settings of a ``server`` block, or None if it has no certificate.

        Raises `Invalid` for a certificate without its key, and for clients that could never be
        verified.
        """
        certificates, keys = scope.all(tls.CERTIFICATE), scope.all(tls.CERTIFICATE_KEY)
        if not certificates and not scope[tls.REJECT_HANDSHAKE]:
            return None
        if len(keys) < len(certificates):
            raise Invalid(
                f'no "ssl_certificate_key" is defined for certificate "{certificates[len(keys)]}"'
            )
        verify = scope[tls.VERIFY_CLIENT]
        known = scope[tls.CLIENT_CERTIFICATE], scope[tls.TRUSTED_CERTIFICATE]
        if verify in ("on", "optional") and not any(known):
            raise Invalid("no ssl_client_certificate for ssl_verify_client")
        stapling = None
        if scope[tls.STAPLING]:
            stapling = Stapling(
                scope[tls.STAPLING_FILE] or "", scope[tls.STAPLING_RESPONDER],
                scope[tls.STAPLING_VERIFY],
            )  # fmt: skip
        return cls(
            pairs=tuple(zip(certificates, keys, strict=False)),
            protocols=scope[tls.PROTOCOLS],
            ciphers=scope[tls.CIPHERS],
            prefer_server_ciphers=scope[tls.PREFER_SERVER_CIPHERS],
            session_timeout=scope[tls.SESSION_TIMEOUT],
            session_cache=scope[tls.SESSION_CACHE],
            session_tickets=scope[tls.SESSION_TICKETS],
            curves=scope[tls.CURVES],
            dhparam=scope[tls.DHPARAM] or "",
            conf=scope.all(tls.CONF_COMMAND),
            password_file=scope[tls.PASSWORD_FILE] or "",
            verify=verify,
            verify_depth=scope[tls.VERIFY_DEPTH],
            client_certificate=known[0] or "",
            trusted=known[1] or "",
            crl=scope[tls.CRL] or "",
            reject=scope[tls.REJECT_HANDSHAKE],
            buffer_size=min(scope[tls.BUFFER_SIZE] or 16384, 16384),
            stapling=stapling,
        )
