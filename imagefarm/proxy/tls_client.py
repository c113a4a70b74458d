"""TLS to upstream servers: contexts, verification, resumption (``proxy_ssl_*``).

The handshake is awaited and judged before a connection is handed over, so that a request never
goes to a server that is not whom it should be.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Hashable
from typing import Any, Final

from attrs import field, frozen
from OpenSSL import SSL, crypto
from service_identity import CertificateError, VerificationError
from service_identity.pyopenssl import verify_hostname, verify_ip_address
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from zope.interface import implementer

from imagefarm.config.errors import Invalid
from imagefarm.http import tls_conf

#: For so many peers a session is kept.
MAX_SESSIONS: Final = 1000

_VERSIONS: Final = {"TLSv1.2": SSL.TLS1_2_VERSION, "TLSv1.3": SSL.TLS1_3_VERSION}
#: X509_verify_cert_error_string of what happens (openssl-verification-options(1)).
_VERIFY_ERRORS: Final = {
    2: "unable to get issuer certificate", 3: "unable to get certificate CRL",
    7: "certificate signature failure", 8: "CRL signature failure",
    9: "certificate is not yet valid", 10: "certificate has expired",
    11: "CRL is not yet valid", 12: "CRL has expired", 18: "self-signed certificate",
    19: "self-signed certificate in certificate chain",
    20: "unable to get local issuer certificate", 21: "unable to verify the first certificate",
    22: "certificate chain too long", 23: "certificate revoked", 24: "invalid CA certificate",
    25: "path length constraint exceeded", 26: "unsuitable certificate purpose",
    66: "EE certificate key too weak", 68: "CA signature digest algorithm too weak",
}  # fmt: skip


@frozen
class TlsOptions:
    """The ``proxy_ssl_*`` directives; paths are absolute, empty for none."""

    server_name: bool = False
    verify: bool = False
    verify_depth: int = 1
    trusted: str = ""
    crl: str = ""
    certificate: str = ""
    key: str = ""
    password_file: str = ""
    protocols: tuple[str, ...] = tuple(_VERSIONS)
    ciphers: str = "DEFAULT"
    session_reuse: bool = True
    #: ``proxy_ssl_conf_command``
    conf: tuple[tuple[str, str], ...] = ()


class _Connection(SSL.Connection):
    """A connection that knows what its verification found wrong (OpenSSL's numbers)."""

    def __init__(self, context: SSL.Context) -> None:
        super().__init__(context, None)
        self.errors: list[int] = []


@implementer(IOpenSSLClientConnectionCreator)
class _Opened:
    """Hands Twisted the connection that was made for it."""

    def __init__(self, connection: SSL.Connection) -> None:
        self._connection = connection

    def clientConnectionForTLS(self, tlsProtocol: object) -> SSL.Connection:
        return self._connection


@frozen
class TlsClient:
    """TLS with ``options`` to servers that should be ``name``; equal ones share connections."""

    options: TlsOptions
    name: str
    context: SSL.Context = field(eq=False, repr=False)
    #: The last good connection to each peer, whose session may be resumed.
    _last: dict[Hashable, SSL.Connection] = field(factory=dict, eq=False, repr=False)

    def open(self, peer: Hashable) -> Handshake:
        """A handshake with ``peer``."""
        connection = _Connection(self.context)
        if self.options.server_name and _address(self.name) is None and self.name:
            # RFC 6066 section 3: addresses are no names.
            connection.set_tlsext_host_name(self.name.encode("ascii", "ignore"))
        last = self._last.get(peer)
        session = None if last is None else last.get_session()
        if session is not None:
            connection.set_session(session)
        return Handshake(self, peer, connection)

    def remember(self, peer: Hashable, connection: SSL.Connection) -> None:
        """``connection`` was found good; TLS 1.3 sends its tickets only later."""
        if self.options.session_reuse:
            if len(self._last) >= MAX_SESSIONS:
                self._last.clear()
            self._last[peer] = connection


@frozen(eq=False)
class Handshake:
    """One connection's handshake; ``creator`` is for ``startTLS``."""

    client: TlsClient
    peer: Hashable
    connection: _Connection

    @property
    def creator(self) -> Any:
        """`IOpenSSLClientConnectionCreator`."""
        return _Opened(self.connection)

    def problem(self) -> str | None:
        """What is wrong with the server, in nginx's words; to be asked once it is complete."""
        client, errors = self.client, self.connection.errors
        if client.options.verify:
            if errors:
                words = _VERIFY_ERRORS.get(errors[0], "certificate is not acceptable")
                return f"upstream SSL certificate verify error: ({errors[0]}:{words})"
            if not self._matches(client.name):
                return f'upstream SSL certificate does not match "{client.name}"'
        client.remember(self.peer, self.connection)
        return None

    def _matches(self, name: str) -> bool:
        address = _address(name)
        try:
            if address is None:
                verify_hostname(self.connection, name)
            else:
                verify_ip_address(self.connection, address)
        except (VerificationError, CertificateError, ValueError):
            return False  # another name; none; or one that can't be read
        return True


def _address(name: str) -> str | None:
    """``name`` as an IP address, if it is one."""
    try:
        return str(ipaddress.ip_address(name.removeprefix("[").removesuffix("]")))
    except ValueError:
        return None


def _noted(
    connection: SSL.Connection, certificate: Any, number: int, depth: int, fine: int
) -> bool:
    """Note what is wrong; the handshake goes on, so that the log can name it."""
    if not fine and isinstance(connection, _Connection):
        connection.errors.append(number)
    return True


def make_client_context(options: TlsOptions) -> SSL.Context:
    """The context for ``options``. Raises `Invalid` naming the file that can't be used."""
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    versions = sorted(_VERSIONS[name] for name in options.protocols)
    context.set_min_proto_version(versions[0])
    context.set_max_proto_version(versions[-1])
    context.set_cipher_list(options.ciphers.encode())
    context.set_options(SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION)
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    context.set_verify(SSL.VERIFY_PEER if options.verify else SSL.VERIFY_NONE, _noted)
    context.set_verify_depth(options.verify_depth)
    store = context.get_cert_store()
    assert store is not None
    for what, file in (("trusted certificate", options.trusted), ("CRL", options.crl)):
        if file:
            _readable(what, file)
            try:
                store.load_locations(file)
            except crypto.Error as error:
                raise Invalid(f'cannot load {what} "{file}": {error}') from None
    if options.crl:
        store.set_flags(crypto.X509StoreFlags.CRL_CHECK | crypto.X509StoreFlags.CRL_CHECK_ALL)
    if options.certificate:
        _use_certificate(context, options)
    for command in options.conf:
        tls_conf.apply(context, command)
    return context


def _use_certificate(context: SSL.Context, options: TlsOptions) -> None:
    _readable("certificate", options.certificate)
    try:
        context.use_certificate_chain_file(options.certificate)
    except SSL.Error as error:
        raise Invalid(f'cannot load certificate "{options.certificate}": {error}') from None
    key = _readable("certificate key", options.key)
    for password in _passwords(options.password_file):
        try:
            context.use_privatekey(crypto.load_privatekey(crypto.FILETYPE_PEM, key, password))
            context.check_privatekey()
        except (crypto.Error, SSL.Error) as error:
            failure = error
        else:
            return
    raise Invalid(f'cannot load certificate key "{options.key}": {failure}')


def _passwords(file: str) -> tuple[bytes, ...]:
    """The lines of ``proxy_ssl_password_file``, each to be tried."""
    lines = _readable("password file", file).splitlines() if file else []
    return tuple(lines) or (b"",)


def _readable(what: str, file: str) -> bytes:
    try:
        with open(file, "rb") as opened:
            return opened.read()
    except OSError as error:
        reason = f"({error.errno}: {os.strerror(error.errno or 0)})"
        raise Invalid(f'cannot load {what} "{file}": {reason}') from None
