"""TLS for listening sockets: the ``ssl_*`` directives. What nginx of 2013 was told to offer
(SSLv2, SSLv3, RC4, export ciphers) loads with a warning and is never offered.
"""

from __future__ import annotations

import re
from typing import Final

from OpenSSL import SSL

from imagefarm.config.ast import Directive
from imagefarm.config.errors import Invalid
from imagefarm.config.table import HTTP, SERVER, AnyRow, Environment, ListRow, Row
from imagefarm.config.values import choice, flag, number, parse_size, path, size, time

from . import libssl
from .tls_conf import NEVER, command

_CONTEXTS: Final = frozenset({HTTP, SERVER})
_OFFERED: Final = {"TLSv1.2": SSL.TLS1_2_VERSION, "TLSv1.3": SSL.TLS1_3_VERSION}
_OBSOLETE: Final = ("SSLv2", "SSLv3", "TLSv1", "TLSv1.1")

#: Mozilla's "intermediate" suites for TLS 1.2: forward secrecy and authenticated encryption.
DEFAULT_CIPHERS: Final = (
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:"
    "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:"
    "ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305"
)
#: A shared cache of nginx has at least eight pages.
_LEAST_CACHE: Final = 32768
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
        context.set_cipher_list((text + NEVER).encode())
    except SSL.Error:
        raise Invalid(f'SSL_CTX_set_cipher_list("{text}") failed: no cipher match') from None
    return text + NEVER


def _ssl(directive: Directive, env: Environment) -> bool:
    env.warn('the "ssl" directive is deprecated, use the "listen ... ssl" directive instead')
    return flag(directive, env)


def curves(directive: Directive, env: Environment) -> str:
    """The list of an ``*_ecdh_curve`` line; empty for OpenSSL's own ("auto")."""
    names = directive.args[0]
    if names == "auto":
        return ""
    try:
        libssl.set_groups(SSL.Context(SSL.TLS_SERVER_METHOD), names)
    except libssl.Refused:
        raise Invalid(f'SSL_CTX_set1_curves_list("{names}") failed') from None
    return names


def _session_cache(directive: Directive, env: Environment) -> str:
    """``off``, ``none`` or ``on``."""
    found = ""
    for word in directive.args:
        kind, _, rest = word.partition(":")
        if word in ("off", "none"):
            found = found or word
            continue
        if kind == "builtin" and re.fullmatch(r"builtin(:[0-9]+)?", word):
            found = "on"
            continue
        name, colon, text = rest.partition(":")
        if kind != "shared" or not name or not colon:
            raise Invalid(f'invalid session cache "{word}"')
        try:
            size = parse_size(text)
        except Invalid:
            raise Invalid(f'invalid session cache "{word}"') from None
        if size < _LEAST_CACHE:
            raise Invalid(f'session cache "{word}" is too small')
        found = "on"
    return found


def _ticket_key(directive: Directive, env: Environment) -> str:
    env.warn(
        f'"{directive.name}" has no effect: the workers share a key of their own, which outlives '
        "reloads; sessions of other machines are not resumed"
    )
    return env.path(directive.args[0])


def _conf_command(directive: Directive, env: Environment) -> tuple[str, str]:
    return command(*directive.args)


def _responder(directive: Directive, env: Environment) -> str:
    url = directive.args[0]
    if not url.startswith("http://"):
        raise Invalid(f'invalid URL prefix in OCSP responder "{url}"')
    return url


def _on_off(name: str, doc: str, *, default: bool = False) -> Row[bool]:
    return Row(
        name=name, contexts=_CONTEXTS, convert=flag, default=default, syntax="on | off", doc=doc
    )


def _file(name: str, doc: str) -> Row[str | None]:
    return Row(name=name, contexts=_CONTEXTS, convert=path, default=None, syntax="file", doc=doc)


SSL_ON: Final = Row(
    name="ssl", contexts=_CONTEXTS, convert=_ssl, default=False, syntax="on | off",
    doc="Makes every listen of the server TLS. Old form of `listen ... ssl`.",
)  # fmt: skip
CERTIFICATE: Final = ListRow[str](
    name="ssl_certificate", contexts=_CONTEXTS, convert=path, syntax="file",
    doc="The server's certificate and its chain, PEM. May be given again, for another kind of "
    "key. Read anew when it is renewed.",
)  # fmt: skip
CERTIFICATE_KEY: Final = ListRow[str](
    name="ssl_certificate_key", contexts=_CONTEXTS, convert=path, syntax="file",
    doc="The certificate's private key, PEM; as many as certificates, in the same order.",
)  # fmt: skip
PASSWORD_FILE: Final = _file(
    "ssl_password_file", "Passwords for the keys, one a line; each is tried."
)
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
PREFER_SERVER_CIPHERS: Final = _on_off(
    "ssl_prefer_server_ciphers", "Whether the server's order of ciphers wins over the client's."
)
CURVES: Final = Row[str](
    name="ssl_ecdh_curve", contexts=_CONTEXTS, convert=curves, default="", default_text="auto",
    syntax="curves", doc="The groups that keys are exchanged in, as OpenSSL lists them.",
)  # fmt: skip
DHPARAM: Final = _file(
    "ssl_dhparam", "Parameters for DHE ciphers, PEM; without it there are none."
)
CONF_COMMAND: Final = ListRow[tuple[str, str]](
    name="ssl_conf_command", contexts=_CONTEXTS, arity=(2, 2), convert=_conf_command,
    syntax="name value",
    doc="A setting of OpenSSL (SSL_CONF_cmd): `Ciphersuites`, `CipherString`, `Groups` (or "
    "`Curves`), `SignatureAlgorithms`, `MinProtocol`, `MaxProtocol`, `Options`.",
)  # fmt: skip
SESSION_CACHE: Final = Row[str](
    name="ssl_session_cache", contexts=_CONTEXTS, arity=(1, 2), convert=_session_cache,
    default="none", syntax="off | none | [builtin[:size]] [shared:name:size]",
    doc="Whether sessions of clients without tickets are kept: by each worker.",
)  # fmt: skip
SESSION_TICKETS: Final = _on_off(
    "ssl_session_tickets",
    "Whether clients get tickets, with which any worker resumes their sessions.", default=True,
)  # fmt: skip
SESSION_TICKET_KEY: Final = ListRow[str](
    name="ssl_session_ticket_key", contexts=_CONTEXTS, convert=_ticket_key, syntax="file",
    doc="Has no effect: workers share a key of their own.",
)  # fmt: skip
SESSION_TIMEOUT: Final = Row(
    name="ssl_session_timeout", contexts=_CONTEXTS, convert=time, default=300.0, syntax="time",
    doc="How long a session may be resumed.",
)  # fmt: skip
VERIFY_CLIENT: Final = Row[str](
    name="ssl_verify_client", contexts=_CONTEXTS,
    convert=choice(("off", "on", "optional", "optional_no_ca")), default="off",
    syntax="on | off | optional | optional_no_ca",
    doc="Whether clients are asked for a certificate, and whether it is verified. What fails is "
    "495 (a bad certificate) and 496 (none).",
)  # fmt: skip
VERIFY_DEPTH: Final = Row[int](
    name="ssl_verify_depth", contexts=_CONTEXTS, convert=number, default=1, syntax="number",
    doc="How many certificates may stand between the client's and a trusted one.",
)  # fmt: skip
CLIENT_CERTIFICATE: Final = _file(
    "ssl_client_certificate",
    "The authorities whose client certificates are trusted, PEM. Clients are told their names.",
)  # fmt: skip
TRUSTED_CERTIFICATE: Final = _file(
    "ssl_trusted_certificate",
    "More authorities for client certificates and OCSP responses, PEM. Clients are not told.",
)  # fmt: skip
CRL: Final = _file("ssl_crl", "The client certificates that are revoked, PEM.")
REJECT_HANDSHAKE: Final = _on_off(
    "ssl_reject_handshake", "Whether handshakes are refused (alert unrecognized_name)."
)
BUFFER_SIZE: Final = Row[int](
    name="ssl_buffer_size", contexts=_CONTEXTS, convert=size, default=16384, default_text="16k",
    syntax="size", doc="The most that is sent in one record, at most 16k. Of the address's "
    "default server.",
)  # fmt: skip
STAPLING: Final = _on_off(
    "ssl_stapling", "Whether the handshake tells that the certificate is not revoked (OCSP)."
)
STAPLING_FILE: Final = _file("ssl_stapling_file", "An OCSP response to staple, DER.")
STAPLING_RESPONDER: Final = Row[str](
    name="ssl_stapling_responder", contexts=_CONTEXTS, convert=_responder, default="",
    syntax="url", doc="The OCSP responder that is asked, instead of the certificate's.",
)  # fmt: skip
STAPLING_VERIFY: Final = _on_off(
    "ssl_stapling_verify",
    "Whether the issuer of an OCSP response must be in ``ssl_trusted_certificate``.",
)
SELF_SIGNED: Final = _on_off(
    "ssl_self_signed",
    "Makes a self-signed certificate and its key at the start where both files are missing.",
)

DIRECTIVES: Final[tuple[AnyRow, ...]] = (
    SELF_SIGNED, SSL_ON, CERTIFICATE, CERTIFICATE_KEY, PASSWORD_FILE, PROTOCOLS, CIPHERS,
    PREFER_SERVER_CIPHERS, CURVES, DHPARAM, CONF_COMMAND, SESSION_CACHE, SESSION_TICKETS,
    SESSION_TICKET_KEY, SESSION_TIMEOUT, VERIFY_CLIENT, VERIFY_DEPTH, CLIENT_CERTIFICATE,
    TRUSTED_CERTIFICATE, CRL, REJECT_HANDSHAKE, BUFFER_SIZE, STAPLING, STAPLING_FILE,
    STAPLING_RESPONDER, STAPLING_VERIFY,
)  # fmt: skip
