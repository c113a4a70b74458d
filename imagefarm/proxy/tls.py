"""``proxy_ssl_*``: TLS to upstream servers, as a location wants it."""

from __future__ import annotations

from typing import Final

from attrs import evolve, field, frozen

from imagefarm.config import values
from imagefarm.config.ast import Directive
from imagefarm.config.errors import Invalid
from imagefarm.config.table import HSL, Environment, ListRow, Row, Scope
from imagefarm.config.variables import Template
from imagefarm.http import tls
from imagefarm.http.message import Request

from .tls_client import TlsClient, TlsOptions, make_client_context

#: For so many names and certificates that variables make, contexts are kept.
MAX_CLIENTS: Final = 1000


def _file(directive: Directive, env: Environment) -> Template | None:
    name = directive.args[0]
    if not name:
        return None
    # What begins with a variable has to come to an absolute path.
    return env.template(name if name.startswith("$") else env.path(name))


def _flag(name: str, default: bool, doc: str) -> Row[bool]:
    return Row(
        name=name, contexts=HSL, convert=values.flag, default=default, syntax="on | off", doc=doc
    )


def _path(name: str, doc: str) -> Row[str | None]:
    return Row(name=name, contexts=HSL, convert=values.path, default=None, syntax="file", doc=doc)


SERVER_NAME: Final = _flag(
    "proxy_ssl_server_name", False, "Whether the server is told the name (SNI)."
)
NAME: Final = Row[Template | None](
    name="proxy_ssl_name",
    default_text="$proxy_host",
    contexts=HSL,
    convert=values.template,
    default=None,
    syntax="name",
    doc="The name for SNI and verification; may be an IP address, and have variables.",
)
VERIFY: Final = _flag(
    "proxy_ssl_verify", False,
    "Whether the server's certificate and name are verified. Needs "
    "``proxy_ssl_trusted_certificate``.",
)  # fmt: skip
VERIFY_DEPTH: Final = Row[int](
    name="proxy_ssl_verify_depth",
    contexts=HSL,
    convert=values.number,
    default=1,
    syntax="number",
    doc="How many certificates may stand between the server's and a trusted one.",
)
TRUSTED_CERTIFICATE: Final = _path(
    "proxy_ssl_trusted_certificate", "The certificates that are trusted, PEM."
)
CRL: Final = _path("proxy_ssl_crl", "The certificates that are revoked, PEM.")
CERTIFICATE: Final = Row[Template | None](
    name="proxy_ssl_certificate",
    contexts=HSL,
    convert=_file,
    default=None,
    syntax="file",
    doc="Our certificate for the server, and its chain, PEM; may have variables.",
)
CERTIFICATE_KEY: Final = Row[Template | None](
    name="proxy_ssl_certificate_key",
    contexts=HSL,
    convert=_file,
    default=None,
    syntax="file",
    doc="The key of ``proxy_ssl_certificate``, PEM; may have variables.",
)
PASSWORD_FILE: Final = _path(
    "proxy_ssl_password_file", "Passwords for the key, one a line; each is tried."
)
PROTOCOLS: Final = Row[tuple[str, ...]](
    name="proxy_ssl_protocols",
    default_text="TLSv1.2 TLSv1.3",
    contexts=HSL,
    arity=(1, None),
    convert=tls.protocols,
    default=tls.PROTOCOLS.default,
    syntax="[TLSv1.2] [TLSv1.3]",
    doc="The versions offered. Older ones load with a warning and are never offered.",
)
CIPHERS: Final = Row[str](
    name="proxy_ssl_ciphers",
    contexts=HSL,
    convert=tls.ciphers,
    default="DEFAULT",
    syntax="ciphers",
    doc="Cipher suites for TLS 1.2, as OpenSSL lists them.",
)
SESSION_REUSE: Final = _flag(
    "proxy_ssl_session_reuse", True, "Whether sessions with a server are resumed."
)

CONF_COMMAND: Final = ListRow[tuple[str, str]](
    name="proxy_ssl_conf_command", contexts=HSL, arity=(2, 2), convert=tls.CONF_COMMAND.convert,
    syntax="name value", doc="A setting of OpenSSL, as with ``ssl_conf_command``.",
)  # fmt: skip

TLS_DIRECTIVES: Final = (
    SERVER_NAME, NAME, VERIFY, VERIFY_DEPTH, TRUSTED_CERTIFICATE, CRL, CERTIFICATE,
    CERTIFICATE_KEY, PASSWORD_FILE, PROTOCOLS, CIPHERS, SESSION_REUSE,
    CONF_COMMAND,
)  # fmt: skip


@frozen
class TlsSettings:
    """What the directives say in one location; ``options`` has no certificate yet."""

    options: TlsOptions = field(factory=TlsOptions)
    name: Template | None = None
    certificate: Template | None = None
    key: Template | None = None

    @classmethod
    def from_scope(cls, scope: Scope) -> TlsSettings:
        """The settings in force in ``scope``."""
        options = TlsOptions(
            server_name=scope[SERVER_NAME],
            verify=scope[VERIFY],
            verify_depth=scope[VERIFY_DEPTH],
            trusted=scope[TRUSTED_CERTIFICATE] or "",
            crl=scope[CRL] or "",
            password_file=scope[PASSWORD_FILE] or "",
            protocols=scope[PROTOCOLS],
            ciphers=scope[CIPHERS],
            session_reuse=scope[SESSION_REUSE],
            conf=scope.all(CONF_COMMAND),
        )
        return cls(options, scope[NAME], scope[CERTIFICATE], scope[CERTIFICATE_KEY])


class TlsClients:
    """The TLS of a location with ``https://``. Raises `Invalid` for files that can't be used.

    Files whose names have variables are read when a request first names them.
    """

    def __init__(self, settings: TlsSettings) -> None:
        self._settings = settings
        self._made: dict[tuple[str, str, str], TlsClient] = {}
        if settings.options.verify and not settings.options.trusted:
            raise Invalid("no proxy_ssl_trusted_certificate for proxy_ssl_verify")
        if settings.certificate is not None and settings.key is None:
            raise Invalid(
                'no "proxy_ssl_certificate_key" is defined for certificate '
                f'"{settings.certificate.source}"'
            )
        files = (settings.certificate, settings.key)
        self._context = None
        if all(file is None or file.constant is not None for file in files):
            self._context = make_client_context(self._options(None))

    def find(self, request: Request, host: bytes) -> TlsClient:
        """The client for ``request``; ``host`` is $proxy_host. Raises `Invalid`."""
        template = self._settings.name
        name = host if template is None else template(request)
        text = _without_port(name.decode("latin-1"))
        options = self._options(request)
        key = (text, options.certificate, options.key)
        client = self._made.get(key)
        if client is None:
            if len(self._made) >= MAX_CLIENTS:
                self._made.clear()
            context = self._context or make_client_context(options)
            client = self._made[key] = TlsClient(options, text, context)
        return client

    def _options(self, request: Request | None) -> TlsOptions:
        settings = self._settings
        if settings.certificate is None or settings.key is None:
            return settings.options
        certificate, key = (
            template(request).decode("utf-8", "surrogateescape")
            for template in (settings.certificate, settings.key)
        )
        return evolve(settings.options, certificate=certificate, key=key)


def _without_port(name: str) -> str:
    """``name`` without ":port" behind it."""
    if name.startswith("["):
        return name[1:].partition("]")[0]
    return name.partition(":")[0] if name.count(":") == 1 else name
