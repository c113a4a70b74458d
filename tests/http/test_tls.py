"""TLS: directives, contexts, SNI, and handshakes between memory buffers."""

from __future__ import annotations

import datetime
import shutil
import ssl
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
from OpenSSL import SSL
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.config.ast import Directive
from imagefarm.config.errors import ConfigurationError, Invalid
from imagefarm.config.loader import Loaded, convert
from imagefarm.config.parse import parse_text
from imagefarm.config.table import HTTP, MAIN, SERVER, BlockRow, DirectiveTable, Environment
from imagefarm.config.variables import VariableTable
from imagefarm.http import tls
from imagefarm.http.tls_conf import NEVER
from imagefarm.http.tls_context import Secured, SniContexts, make_context
from imagefarm.http.tls_settings import TlsSettings
from imagefarm.process.certificate import ensure_self_signed


def _nothing(directive: Directive, env: Environment) -> None:
    return None


HTTP_BLOCK = BlockRow(
    name="http", contexts=frozenset({MAIN}), opens=HTTP, convert=_nothing, doc=""
)
SERVER_BLOCK = BlockRow(
    name="server", contexts=frozenset({HTTP}), opens=SERVER, convert=_nothing, doc=""
)
TABLE = DirectiveTable({"blocks": (HTTP_BLOCK, SERVER_BLOCK), "tls": tls.DIRECTIVES})
VARIABLES = VariableTable({}, {}, lambda name: lambda r: b"", lambda n: lambda r: b"")

#: The line of the farm of 2013.
OLD_CIPHERS = "ALL:!ADH:!EXPORT56:RC4+RSA:+HIGH:+MEDIUM:+LOW:+SSLv2:+EXP"


class TlsCase(SynchronousTestCase):
    def load(self, text: str) -> Loaded:
        return convert(
            parse_text(f"http {{ server {{ {text} }} }}", "f"),
            table=TABLE, variables=VARIABLES, prefix="/prefix", conf_dir="/conf",
        )  # fmt: skip

    def settings(self, text: str) -> TlsSettings | None:
        (http,) = self.load(text).root.blocks(HTTP_BLOCK)
        return TlsSettings.from_scope(http.blocks(SERVER_BLOCK)[0])

    def warnings(self, text: str) -> list[str]:
        return [problem.message for problem in self.load(text).warnings]

    def refused(self, text: str) -> str:
        error = self.assertRaises(ConfigurationError, self.load, text)
        return error.problems[0].message


class DirectivesTests(TlsCase):
    def test_all(self) -> None:
        self.assertEqual(
            self.settings(
                "ssl_certificate a.pem; ssl_certificate_key /b.key; ssl_protocols TLSv1.3;"
                "ssl_ciphers HIGH; ssl_prefer_server_ciphers on; ssl_session_timeout 1h;"
            ),
            TlsSettings(
                (("/prefix/a.pem", "/b.key"),), ("TLSv1.3",), "HIGH" + NEVER, True, 3600.0
            ),
        )

    def test_no_certificate(self) -> None:
        self.assertIsNone(self.settings("ssl_protocols TLSv1.2;"))

    def test_a_certificate_without_key(self) -> None:
        error = self.assertRaises(Invalid, self.settings, "ssl_certificate a.pem;")
        self.assertEqual(
            str(error), 'no "ssl_certificate_key" is defined for certificate "/prefix/a.pem"'
        )

    def test_obsolete_protocols(self) -> None:
        self.assertEqual(
            self.warnings("ssl_protocols SSLv3 TLSv1.1 TLSv1.2;"),
            ['"SSLv3" in "ssl_protocols" is obsolete and is not offered',
             '"TLSv1.1" in "ssl_protocols" is obsolete and is not offered'],
        )  # fmt: skip
        text = "ssl_certificate a; ssl_certificate_key b; ssl_protocols SSLv2 SSLv3 TLSv1;"
        found = self.settings(text)
        assert found is not None
        self.assertEqual(found.protocols, ("TLSv1.2", "TLSv1.3"))
        self.assertEqual(
            self.warnings(text)[-1],
            '"ssl_protocols" names only obsolete ones: TLSv1.2 and TLSv1.3 are offered',
        )

    def test_unknown_protocol(self) -> None:
        self.assertEqual(self.refused("ssl_protocols TLSv9;"), 'invalid value "TLSv9"')

    def test_weak_ciphers(self) -> None:
        self.assertEqual(
            self.warnings(f"ssl_ciphers {OLD_CIPHERS};"),
            ['unsafe ciphers in "ssl_ciphers" are not offered: '
             "RC4+RSA, +MEDIUM, +LOW, +SSLv2, +EXP"],
        )  # fmt: skip
        self.assertEqual(self.warnings("ssl_ciphers HIGH:!aNULL:!MD5:-DES;"), [])

    def test_no_usable_cipher(self) -> None:
        for text in ("RC4", "nonsense", "aNULL:EXP"):
            self.assertEqual(
                self.refused(f"ssl_ciphers {text};"),
                f'SSL_CTX_set_cipher_list("{text}") failed: no cipher match',
            )

    def test_old_form(self) -> None:
        self.assertIn("deprecated", self.warnings("ssl on;")[0])


class ContextCase(TlsCase):
    def setUp(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="tls-"))
        self.addCleanup(shutil.rmtree, self.directory, True)

    def pair(self, name: str) -> TlsSettings:
        """A certificate of its own."""
        pem, key = (str(self.directory / f"{name}.{end}") for end in ("pem", "key"))
        now = datetime.datetime.now(datetime.UTC)
        ensure_self_signed(pem, key, now)
        return TlsSettings(((pem, key),))


def client_context(
    least: ssl.TLSVersion = ssl.TLSVersion.MINIMUM_SUPPORTED,
    most: ssl.TLSVersion = ssl.TLSVersion.MAXIMUM_SUPPORTED,
) -> ssl.SSLContext:
    """A client that speaks everything that OpenSSL still can, and trusts everybody."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version, context.maximum_version = least, most
    return context


def pump(
    step: Callable[[], object], outgoing: Callable[[], bytes], to: Callable[[bytes], Any]
) -> None:
    """One step of one end, and what it wants to send to the other."""
    try:
        step()
    except (ssl.SSLWantReadError, SSL.WantReadError):
        pass
    try:
        data = outgoing()
    except SSL.WantReadError:
        return
    if data:
        to(data)


def handshake(
    server: SSL.Context,
    context: ssl.SSLContext | None = None,
    name: str | None = None,
    session: ssl.SSLSession | None = None,
    seen: list[SSL.Connection] | None = None,
) -> ssl.SSLObject:
    """The client's end after a handshake in memory; the server's is added to ``seen``.

    Raises `ssl.SSLError` or `SSL.Error`.
    """
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = (context or client_context()).wrap_bio(
        incoming, outgoing, server_hostname=name, session=session
    )
    answering = SSL.Connection(server, None)
    answering.set_accept_state()
    if seen is not None:
        seen.append(answering)
    for _ in range(4):
        pump(client.do_handshake, outgoing.read, answering.bio_write)
        pump(answering.do_handshake, lambda: answering.bio_read(65536), incoming.write)
    pump(lambda: client.read(1), outgoing.read, answering.bio_write)  # TLS 1.3's tickets
    return client


class ContextTests(ContextCase):
    def protocol(self, settings: TlsSettings, version: ssl.TLSVersion) -> str | None:
        """What is negotiated with a client that has this one version; None if nothing is."""
        try:
            client = handshake(make_context(settings), client_context(version, version))
        except (ssl.SSLError, SSL.Error):
            return None
        return client.version()

    def offered(self, settings: TlsSettings) -> list[str | None]:
        versions = (
            ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1, ssl.TLSVersion.TLSv1_2,
            ssl.TLSVersion.TLSv1_3,
        )  # fmt: skip
        return [self.protocol(settings, version) for version in versions]

    def test_protocols(self) -> None:
        settings = self.pair("a")
        self.assertEqual(self.offered(settings), [None, None, "TLSv1.2", "TLSv1.3"])
        only = attrs.evolve(settings, protocols=("TLSv1.2",))
        self.assertEqual(self.offered(only), [None, None, "TLSv1.2", None])
        only = attrs.evolve(settings, protocols=("TLSv1.3",))
        self.assertEqual(self.offered(only), [None, None, None, "TLSv1.3"])

    def test_ciphers_of_2013_offer_nothing_weak(self) -> None:
        files = "ssl_certificate a; ssl_certificate_key b;"
        scope = self.settings(f"{files} ssl_ciphers {OLD_CIPHERS};")
        assert scope is not None
        settings = attrs.evolve(self.pair("a"), ciphers=scope.ciphers)
        connection = SSL.Connection(make_context(settings), None)
        names = connection.get_cipher_list()
        self.assertIn("ECDHE-RSA-AES256-GCM-SHA384", names)
        weak = ("RC4", "DES", "NULL", "EXP", "MD5", "ADH", "AECDH", "SEED", "IDEA", "PSK", "SRP")
        self.assertEqual([n for n in names if any(word in n for word in weak)], [])

    def test_alpn(self) -> None:
        server = make_context(self.pair("a"))
        for offered, expected in ((["h2", "http/1.1"], "http/1.1"), (["h2"], None), ([], None)):
            context = client_context()
            if offered:
                context.set_alpn_protocols(offered)
            found = handshake(server, context).selected_alpn_protocol()
            self.assertEqual(found, expected, offered)

    def test_resumption(self) -> None:
        server = make_context(self.pair("a"))
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            context = client_context(version, version)
            first = handshake(server, context)
            again = handshake(server, context, session=first.session)
            self.assertEqual((first.session_reused, again.session_reused), (False, True))

    def test_missing_files(self) -> None:
        settings = self.pair("a")
        ((certificate, key),) = settings.pairs
        (self.directory / "a.key").unlink()
        error = self.assertRaises(Invalid, make_context, settings)
        self.assertEqual(
            str(error),
            f'cannot load certificate key "{key}": (2: No such file or directory)',
        )
        (self.directory / "a.pem").unlink()
        error = self.assertRaises(Invalid, make_context, settings)
        self.assertIn(f'cannot load certificate "{certificate}": (2:', str(error))

    def test_rubbish(self) -> None:
        settings = self.pair("a")
        ((certificate, key),) = settings.pairs
        (self.directory / "a.key").write_text("no key")
        error = self.assertRaises(Invalid, make_context, settings)
        self.assertTrue(str(error).startswith(f'cannot load certificate key "{key}"'))
        (self.directory / "a.pem").write_text("no certificate")
        error = self.assertRaises(Invalid, make_context, settings)
        self.assertTrue(str(error).startswith(f'cannot load certificate "{certificate}"'))
        self.assertNotIn("\n", str(error))

    def test_the_key_of_another_certificate(self) -> None:
        one, two = self.pair("one"), self.pair("two")
        key = two.pairs[0][1]
        mixed = TlsSettings(((one.pairs[0][0], key),))
        error = self.assertRaises(Invalid, make_context, mixed)
        self.assertTrue(str(error).startswith(f'cannot load certificate key "{key}"'))
        self.assertIn("is not the key of", str(error))


class SniTests(ContextCase):
    def setUp(self) -> None:
        super().setUp()
        settings = {name: self.pair(name) for name in ("default", "other")}
        servers = {name: Secured(each, make_context(each)) for name, each in settings.items()}
        self.names = {
            ssl.PEM_cert_to_DER_cert(Path(each.pairs[0][0]).read_text()): name
            for name, each in settings.items()
        }
        self.asked: list[bytes] = []

        def choose(name: bytes) -> Secured | None:
            self.asked.append(name)
            return servers["other"] if name == b"other.example" else None

        self.contexts = SniContexts(
            servers["default"].context, servers["default"], choose, [servers["other"]]
        )

    def certificate(self, name: str | None = None) -> str:
        client = handshake(self.contexts.default, name=name)
        return self.names[client.getpeercert(True) or b""]

    def test_choice(self) -> None:
        self.assertEqual(self.certificate(name="other.example"), "other")
        self.assertEqual(self.certificate(name="OTHER.example"), "other")
        self.assertEqual(self.certificate(name="unknown.example"), "default")
        self.assertEqual(self.asked, [b"other.example", b"other.example", b"unknown.example"])

    def test_no_name(self) -> None:
        self.assertEqual(self.certificate(), "default")
        self.assertEqual(self.asked, [])

    def test_nothing_to_choose_from(self) -> None:
        """The name is still known, also of a TLS 1.2 session that is resumed."""
        version = ssl.TLSVersion.TLSv1_2
        settings = self.pair("only")
        base = make_context(settings)
        self.contexts = SniContexts(base, Secured(settings, base))
        asking = client_context(version, version)
        seen: list[SSL.Connection] = []
        first = handshake(self.contexts.default, asking, name="one.example", seen=seen)
        second = handshake(
            self.contexts.default, asking, name="one.example", session=first.session, seen=seen
        )
        self.assertTrue(second.session_reused)
        self.assertEqual([each.get_servername() for each in seen], [b"one.example"] * 2)
