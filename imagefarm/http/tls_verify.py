"""Clients and their certificates (``ssl_verify_client``): who may ask a server for anything."""

from __future__ import annotations

from typing import Any, Final

from attrs import frozen

from imagefarm.config.table import Row, Scope

from . import libssl
from .message import Request
from .tls import CLIENT_CERTIFICATE, CRL, TRUSTED_CERTIFICATE, VERIFY_CLIENT, VERIFY_DEPTH

#: nginx's own codes; the client gets 400.
CERTIFICATE_ERROR: Final = 495
NO_CERTIFICATE: Final = 496

_TRUST: Final[tuple[Row[Any], ...]] = (CLIENT_CERTIFICATE, TRUSTED_CERTIFICATE, CRL, VERIFY_DEPTH)
#: What ``optional_no_ca`` does not mind: nobody is there to vouch for the certificate.
_NO_AUTHORITY: Final = frozenset({18, 19, 20, 21, 27})


@frozen
class ClientCheck:
    """A server's ``ssl_verify_client``: "on", "optional" or "optional_no_ca".

    ``trust`` is what says whom it trusts.
    """

    mode: str
    trust: tuple[object, ...] = ()

    @classmethod
    def from_scope(cls, scope: Scope) -> ClientCheck | None:
        """None where clients are not verified."""
        mode = scope[VERIFY_CLIENT]
        return None if mode == "off" else cls(mode, tuple(scope[row] for row in _TRUST))

    def trusts_like(self, other: ClientCheck | None) -> bool:
        """Whether who is verified here may be taken for verified by ``other``."""
        return other is not None and self.trust == other.trust

    def problem(self, request: Request) -> tuple[int, str] | None:
        """Status and reason, if the request's client is not to be served."""
        handle = request.peer.handle
        if handle is None:
            return None
        number = libssl.verify_result(handle)
        if number and not (self.mode == "optional_no_ca" and number in _NO_AUTHORITY):
            words = libssl.verify_error(number)
            return (
                CERTIFICATE_ERROR,
                f"client SSL certificate verify error: ({number}:{words})",
            )
        if self.mode == "on" and handle.get_peer_certificate(as_cryptography=True) is None:
            return NO_CERTIFICATE, "client sent no required SSL certificate"
        return None
