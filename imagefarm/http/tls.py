"""TLS for listening sockets: the ``ssl_*`` directives and the contexts made from them.

One context a server; SNI chooses among those of an address. What nginx of 2013 was told to offer
(SSLv2, SSLv3, RC4, export ciphers) loads with a warning and is never offered.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable
from typing import Any, Final

from attrs import frozen
from OpenSSL import SSL

from imagefarm.config.ast import Directive
from imagefarm.config.errors import Invalid
from imagefarm.config.table import HTTP, SERVER, AnyRow, Environment, Row, Scope
from imagefarm.config.values import flag, path, time

_CONTEXTS: Final = frozenset({HTTP, SERVER})
_OFFERED: Final = {"TLSv1.2": SSL.TLS1_2_VERSION, "TLSv1.3": SSL.TLS1_3_VERSION}
_OBSOLETE: Final = ("SSLv2", "SSLv3", "TLSv1", "TLSv1.1")

#: Mozilla's "intermediate" suites for TLS 1.2: forward secrecy and authenticated encryption.
DEFAULT_CIPHERS: Final = (
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:"
    "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:"
    "ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305"
)
#: Added to every list that the configuration gives.
_NEVER: Final = ":!aNULL:!eNULL:!EXPORT:!LOW:!DES:!3DES:!RC4:!RC2:!MD5:!SEED:!IDEA:!PSK:!SRP"
_WEAK_WORDS: Final = ("RC4", "EXP", "LOW", "SSLv2", "DES", "MD5", "NULL", "MEDIUM", "aNULL")


def protocols(directive: Directive, env: Environment) -> tuple[str, ...]:
    """The versions of a ``*_protocols`` line that are offered."""
    offered = []
    for word in directive.args:
        if word in _OFFERED:
            offered.append(word)
        elif word in _OBSOLETE:
            env.warn(f'"{word}" in "{directive.name}" is obsolete and is not offered')
        else:
            raise Invalid(f'invalid value "{word}"')
    if not offered:
        env.warn(f'"{directive.name}" names only obsolete ones: TLSv1.2 and TLSv1.3 are offered')
    return tuple(offered) or tuple(_OFFERED)


def ciphers(directive: Directive, env: Environment) -> str:
    """The list of a ``*_ciphers`` line, with what is never offered taken away."""
    text = directive.args[0]
    weak = [
        word
        for word in text.split(":")
        if not word.startswith(("!", "-")) and any(name in word for name in _WEAK_WORDS)
    ]
    if weak:
        env.warn(f'unsafe ciphers in "{directive.name}" are not offered: {", ".join(weak)}')
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    try:
        context.set_cipher_list((text + _NEVER).encode())
    except SSL.Error:
        raise Invalid(f'SSL_CTX_set_cipher_list("{text}") failed: no cipher match') from None
    return text + _NEVER


def _ssl(directive: Directive, env: Environment) -> bool:
    env.warn('the "ssl" directive is deprecated, use the "listen ... ssl" directive instead')
    return flag(directive, env)


SSL_ON: Final = Row(
    name="ssl", contexts=_CONTEXTS, convert=_ssl, default=False, syntax="on | off",
    doc="Makes every listen of the server TLS. Old form of `listen ... ssl`.",
)  # fmt: skip
CERTIFICATE: Final[Row[str | None]] = Row(
    name="ssl_certificate", contexts=_CONTEXTS, convert=path, default=None, syntax="file",
    doc="The server's certificate and its chain, PEM.",
)  # fmt: skip
CERTIFICATE_KEY: Final[Row[str | None]] = Row(
    name="ssl_certificate_key", contexts=_CONTEXTS, convert=path, default=None,
    syntax="file", doc="The certificate's private key, PEM.",
)  # fmt: skip
PROTOCOLS: Final = Row(
    name="ssl_protocols", contexts=_CONTEXTS, arity=(1, None), convert=protocols,
    default_text="TLSv1.2 TLSv1.3",
    default=tuple(_OFFERED), syntax="[TLSv1.2] [TLSv1.3]",
    doc="Protocol versions offered. Older ones load with a warning and are never offered.",
)  # fmt: skip
CIPHERS: Final = Row(
    name="ssl_ciphers", contexts=_CONTEXTS, convert=ciphers, default=DEFAULT_CIPHERS,
    syntax="ciphers", doc="Cipher suites for TLS 1.2, as OpenSSL lists them.",
)  # fmt: skip
PREFER_SERVER_CIPHERS: Final = Row(
    name="ssl_prefer_server_ciphers", contexts=_CONTEXTS, convert=flag, default=False,
    syntax="on | off", doc="Whether the server's order of ciphers wins over the client's.",
)  # fmt: skip
SESSION_TIMEOUT: Final = Row(
    name="ssl_session_timeout", contexts=_CONTEXTS, convert=time, default=300.0, syntax="time",
    doc="How long a session may be resumed.",
)  # fmt: skip
SELF_SIGNED: Final = Row(
    name="ssl_self_signed", contexts=_CONTEXTS, convert=flag, default=False, syntax="on | off",
    doc="Makes a self-signed certificate and its key at the start where both files are missing.",
)  # fmt: skip

DIRECTIVES: Final[tuple[AnyRow, ...]] = (
    SELF_SIGNED, SSL_ON, CERTIFICATE, CERTIFICATE_KEY, PROTOCOLS, CIPHERS, PREFER_SERVER_CIPHERS,
    SESSION_TIMEOUT,
)  # fmt: skip


@frozen
class TlsSettings:
    """One server's ``ssl_*`` directives; paths are absolute, the timeout is in seconds."""

    certificate: str
    key: str
    protocols: tuple[str, ...] = tuple(_OFFERED)
    ciphers: str = DEFAULT_CIPHERS
    prefer_server_ciphers: bool = False
    session_timeout: float = 300.0

    @classmethod
    def from_scope(cls, scope: Scope) -> TlsSettings | None:
        """The settings of a ``server`` block, or None if it has no certificate.

        Raises `Invalid` for a certificate without its key.
        """
        certificate, key = scope[CERTIFICATE], scope[CERTIFICATE_KEY]
        if certificate is None:
            return None
        if key is None:
            raise Invalid(f'no "ssl_certificate_key" is defined for certificate "{certificate}"')
        return cls(
            certificate, key, scope[PROTOCOLS], scope[CIPHERS], scope[PREFER_SERVER_CIPHERS],
            scope[SESSION_TIMEOUT],
        )  # fmt: skip


def _unreadable(path: str) -> str | None:
    try:
        with open(path, "rb"):
            return None
    except OSError as error:
        return f"({error.errno}: {os.strerror(error.errno or 0)})"


def make_context(settings: TlsSettings) -> SSL.Context:
    """A server's context. Raises `Invalid` naming the file that can't be used."""
    for what, file in (("certificate", settings.certificate), ("certificate key", settings.key)):
        why = _unreadable(file)
        if why is not None:
            raise Invalid(f'cannot load {what} "{file}": {why}')
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    try:
        context.use_certificate_chain_file(settings.certificate)
    except SSL.Error as error:
        raise Invalid(f'cannot load certificate "{settings.certificate}": {error}') from None
    try:
        context.use_privatekey_file(settings.key)
        context.check_privatekey()
    except SSL.Error as error:
        raise Invalid(f'cannot load certificate key "{settings.key}": {error}') from None
    versions = sorted(_OFFERED[name] for name in settings.protocols)
    context.set_min_proto_version(versions[0])
    context.set_max_proto_version(versions[-1])
    context.set_cipher_list(settings.ciphers.encode())
    options = SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION
    # As in nginx, or a client that half-closes without close_notify would lose its answer.
    options |= ssl.OP_IGNORE_UNEXPECTED_EOF
    if settings.prefer_server_ciphers:
        options |= SSL.OP_CIPHER_SERVER_PREFERENCE
    context.set_options(options)
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    context.set_session_cache_mode(SSL.SESS_CACHE_SERVER)
    context.set_session_id(b"imagefarm")
    context.set_timeout(int(settings.session_timeout))
    context.set_alpn_select_callback(_select_http)
    return context


def _select_http(connection: SSL.Connection, offered: list[bytes]) -> Any:
    return b"http/1.1" if b"http/1.1" in offered else SSL.NO_OVERLAPPING_PROTOCOLS


class SniContexts:
    """The contexts of one address: ``default``, and the one that ``choose`` finds by name.

    ``choose`` is None where there is nothing to choose from.
    """

    def __init__(
        self, default: SSL.Context, choose: Callable[[bytes], SSL.Context | None] | None
    ) -> None:
        self.default = default
        self._choose = choose
        # Also for one context only: with no callback OpenSSL forgets the name of a session.
        callback = _take_any_name if choose is None else self._server_name
        default.set_tlsext_servername_callback(callback)

    def _server_name(self, connection: SSL.Connection) -> None:
        name = connection.get_servername()
        context = self._choose(name.lower()) if name and self._choose else None
        if context is not None and context is not self.default:
            connection.set_context(context)


def _take_any_name(connection: SSL.Connection) -> None:
    """The only context there is serves all names."""
