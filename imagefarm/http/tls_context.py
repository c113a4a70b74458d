"""OpenSSL's contexts for listening sockets, and which of them a client is served by.

One `Secured` a server; SNI chooses among those of an address. All connections of an address begin
with one context, the base, whose ticket key and session cache are the ones that count, whichever
context SNI puts in its place (OpenSSL's ``session_ctx``). So where workers are forks that have the
base in common, a session of one can be resumed by the others, and still can after a certificate
was renewed: the base stays, and the server has another context.
"""

from __future__ import annotations

import hashlib
import ssl
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from attrs import define, field, frozen
from OpenSSL import SSL, crypto

from imagefarm.config.errors import Invalid

from . import libssl, tls_conf
from .tls_files import Files, Pair, load_pair, trust
from .tls_session import server_name_of
from .tls_settings import TlsSettings

_VERSIONS: Final = {"TLSv1.2": SSL.TLS1_2_VERSION, "TLSv1.3": SSL.TLS1_3_VERSION}
#: ``SSL_SESS_CACHE_...``: "none" lets clients believe that sessions are kept, as nginx's does.
_CACHES: Final = {
    "off": SSL.SESS_CACHE_OFF,
    "none": SSL.SESS_CACHE_SERVER
    | SSL.SESS_CACHE_NO_AUTO_CLEAR
    | SSL.SESS_CACHE_NO_INTERNAL_STORE,
    "on": SSL.SESS_CACHE_SERVER,
}
#: Mozilla's groups, and before them the one that no quantum computer is known to break.
_GROUPS: Final = "X25519:prime256v1:secp384r1"
_HYBRID: Final = "X25519MLKEM768"
#: How deep chains are built; `libssl.verifier` knows how deep they may be.
_DEPTH: Final = 100

#: What a server staples: the response for the certificate that is shown, or nothing.
Staple = Callable[[SSL.Connection], bytes]


def make_context(
    settings: TlsSettings,
    files: Files | None = None,
    staple: Staple | None = None,
    identity: bytes = b"imagefarm",
) -> SSL.Context:
    """A server's context. Raises `Invalid` naming the file that can't be used.

    Sessions are resumed only by contexts of the same ``identity``, at most 32 bytes.
    """
    files = Files() if files is None else files
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    versions = sorted(_VERSIONS[name] for name in settings.protocols)
    context.set_min_proto_version(versions[0])
    context.set_max_proto_version(versions[-1])
    context.set_cipher_list(settings.ciphers.encode())
    _set_groups(context, settings.curves)
    if settings.dhparam:
        _use_dh(context, files, settings.dhparam)
    for pair in load_pairs(settings, files):
        pair.use(context)
    options = SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION
    # As in nginx, or a client that half-closes without close_notify would lose its answer.
    options |= ssl.OP_IGNORE_UNEXPECTED_EOF
    if settings.prefer_server_ciphers:
        options |= SSL.OP_CIPHER_SERVER_PREFERENCE
    if not settings.session_tickets:
        options |= SSL.OP_NO_TICKET
    context.set_options(options)
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    context.set_session_cache_mode(_CACHES[settings.session_cache])
    context.set_session_id(identity)
    context.set_timeout(int(settings.session_timeout))
    context.set_alpn_select_callback(_select_http)
    if settings.verify != "off":
        _ask_for_certificate(context, settings, files)
    if staple is not None:
        said = staple
        context.set_ocsp_server_callback(lambda connection, _: said(connection))
    for command in settings.conf:
        tls_conf.apply(context, command)
    return context


def _set_groups(context: SSL.Context, names: str) -> None:
    if names:
        libssl.set_groups(context, names)
        return
    try:
        libssl.set_groups(context, f"{_HYBRID}:{_GROUPS}")
    except libssl.Refused:  # OpenSSL before 3.5
        libssl.set_groups(context, _GROUPS)


def load_pairs(settings: TlsSettings, files: Files) -> tuple[Pair, ...]:
    """The certificates of ``settings``. Raises `Invalid`."""
    return tuple(load_pair(files, *pair, settings.password_file) for pair in settings.pairs)


def _use_dh(context: SSL.Context, files: Files, path: str) -> None:
    content = files.read("DH parameters", path)
    if b"-----BEGIN DH PARAMETERS-----" not in content:
        raise Invalid(f'cannot load DH parameters "{path}": it is not in PEM form')
    try:
        with libssl.as_file(content) as name:
            context.load_tmp_dh(name)
    except SSL.Error:
        raise Invalid(f'cannot load DH parameters "{path}": OpenSSL does not take them') from None


def _ask_for_certificate(context: SSL.Context, settings: TlsSettings, files: Files) -> None:
    if settings.client_certificate:
        trust(context, files, "client certificates", settings.client_certificate)
        content = files.read("client certificates", settings.client_certificate)
        with libssl.as_file(content) as name:
            libssl.announce_authorities(context, name)
    if settings.trusted:
        trust(context, files, "trusted certificates", settings.trusted)
    if settings.crl:
        trust(context, files, "CRL", settings.crl)
        store = context.get_cert_store()
        assert store is not None
        store.set_flags(crypto.X509StoreFlags.CRL_CHECK | crypto.X509StoreFlags.CRL_CHECK_ALL)
    context.set_verify_depth(_DEPTH)


def _select_http(connection: SSL.Connection, offered: list[bytes]) -> Any:
    return b"http/1.1" if b"http/1.1" in offered else SSL.NO_OVERLAPPING_PROTOCOLS


@define(eq=False)
class Secured:
    """A server's TLS, with the context that is in force; ``made_of`` tells its certificates from
    others.
    """

    settings: TlsSettings
    context: SSL.Context
    made_of: bytes = b""
    _verifier: Any = field(init=False, default=None)

    def __attrs_post_init__(self) -> None:
        if self.settings.verify != "off":
            self._verifier = libssl.verifier(self.settings.verify_depth)

    def serve(self, connection: SSL.Connection, *, base: SSL.Context) -> bool:
        """Be whom ``connection`` meets; False refuses it."""
        if self.settings.reject:
            return False
        if self.context is not base:
            connection.set_context(self.context)
        if self._verifier is not None:
            libssl.ask_for_certificate(connection, self._verifier)
        return True


class SniContexts:
    """The servers of one address: ``first`` is the default; ``choose`` finds one of the
    ``others`` by its name.

    ``choose`` is None where there is nothing to choose from. ``default`` is the base context.
    """

    def __init__(
        self,
        base: SSL.Context,
        first: Secured,
        choose: Callable[[bytes], Secured | None] | None = None,
        others: Iterable[Secured] = (),
    ) -> None:
        self.default = base
        #: All of them, the default first.
        self.servers = (first, *others)
        self._choose = choose
        self._verifies = any(server.settings.verify != "off" for server in self.servers)
        # Also for one server only: with no callback OpenSSL forgets the name of a session.
        libssl.on_server_name(base, self._server_name)

    def _server_name(self, connection: SSL.Connection) -> bool:
        name = connection.get_servername()
        if self._verifies and libssl.is_resumed(connection):
            # OpenSSL resumes before there is a name to choose by: who was verified by another
            # server, or by none, is not known to this one.
            known = server_name_of(libssl.session(connection))
            if known.lower() != (name or b"").lower():
                return False
        server = self._choose(name.lower()) if name and self._choose else None
        return (server or self.servers[0]).serve(connection, base=self.default)


@frozen
class Kinship:
    """What has to be the same for sessions of an address to be resumed: by other workers, and
    after a reload.
    """

    address: tuple[str, int]
    settings: tuple[TlsSettings, ...]
    #: Of the files that say whom to trust.
    digest: bytes

    @classmethod
    def of(
        cls, address: tuple[str, int], settings: Sequence[TlsSettings], files: Files
    ) -> Kinship:
        """Of an address and its servers. Raises `Invalid`."""
        digest = hashlib.sha256()
        for each in settings:
            for what, path in (
                ("client certificates", each.client_certificate),
                ("trusted certificates", each.trusted),
                ("CRL", each.crl),
            ):
                if path and each.verify != "off":
                    digest.update(hashlib.sha256(files.read(what, path)).digest())
        return cls(address, tuple(settings), digest.digest())

    @property
    def identity(self) -> bytes:
        """For `make_context`."""
        return hashlib.sha256(repr((self.address, self.settings, self.digest)).encode()).digest()
