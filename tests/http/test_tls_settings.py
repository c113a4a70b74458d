"""The settings of TLS: what is refused and why, and what each does to a handshake."""

from __future__ import annotations

import datetime
import ssl
from pathlib import Path

import attrs
from OpenSSL import SSL

from imagefarm.config.errors import Invalid
from imagefarm.http import libssl
from imagefarm.http.tls_conf import command
from imagefarm.http.tls_context import Kinship, Secured, SniContexts, load_pairs, make_context
from imagefarm.http.tls_files import Files
from imagefarm.http.tls_settings import Stapling, TlsSettings
from tests.support.certificates import Authority

from .test_tls import ContextCase, TlsCase, client_context, handshake

FILES = "ssl_certificate a; ssl_certificate_key b;"
TLS12, TLS13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3


class DirectivesTests(TlsCase):
    def found(self, text: str) -> TlsSettings:
        found = self.settings(text)
        assert found is not None
        return found

    def test_all(self) -> None:
        self.assertEqual(
            self.found(
                f"{FILES} ssl_certificate c; ssl_certificate_key d; ssl_password_file p;"
                "ssl_ecdh_curve X25519:secp384r1; ssl_dhparam dh; ssl_session_tickets off;"
                "ssl_session_cache builtin:10 shared:a:1m; ssl_conf_command MINPROTOCOL TLSv1.3;"
                "ssl_conf_command Options -SessionTicket,PrioritizeChaCha;"
                "ssl_verify_client optional; ssl_verify_depth 3; ssl_client_certificate ca;"
                "ssl_trusted_certificate more; ssl_crl gone; ssl_buffer_size 4k;"
                "ssl_stapling on; ssl_stapling_verify on; ssl_stapling_file r;"
                "ssl_stapling_responder http://a/;"
            ),
            TlsSettings(
                (("/prefix/a", "/prefix/b"), ("/prefix/c", "/prefix/d")),
                password_file="/prefix/p",
                curves="X25519:secp384r1",
                dhparam="/prefix/dh",
                session_tickets=False,
                session_cache="on",
                conf=(("MinProtocol", "TLSv1.3"), ("Options", "-SessionTicket,PrioritizeChaCha")),
                verify="optional",
                verify_depth=3,
                client_certificate="/prefix/ca",
                trusted="/prefix/more",
                crl="/prefix/gone",
                buffer_size=4096,
                stapling=Stapling("/prefix/r", "http://a/", True),
            ),
        )

    def test_defaults(self) -> None:
        self.assertEqual(self.found(FILES), TlsSettings((("/prefix/a", "/prefix/b"),)))
        self.assertEqual(self.found(f"{FILES} ssl_ecdh_curve auto;").curves, "")
        self.assertEqual(self.found("ssl_reject_handshake on;").pairs, ())
        self.assertEqual(self.found(f"{FILES} ssl_buffer_size 1m;").buffer_size, 16384)

    def test_session_cache(self) -> None:
        for text, expected in (
            ("off", "off"), ("none", "none"), ("builtin", "on"), ("builtin:20", "on"),
            ("shared:a:32k", "on"),
        ):  # fmt: skip
            found = self.found(f"{FILES} ssl_session_cache {text};")
            self.assertEqual(found.session_cache, expected, text)
        for text in ("builtin:x", "shared", "shared:a", "shared::1m", "shared:a:b", "all"):
            self.assertEqual(
                self.refused(f"ssl_session_cache {text};"), f'invalid session cache "{text}"'
            )
        self.assertEqual(
            self.refused("ssl_session_cache shared:a:1k;"),
            'session cache "shared:a:1k" is too small',
        )

    def test_ticket_keys(self) -> None:
        (warning,) = self.warnings("ssl_session_ticket_key a.key;")
        self.assertIn('"ssl_session_ticket_key" has no effect', warning)

    def test_refused(self) -> None:
        for text, why in (
            ("ssl_ecdh_curve nonsense;", 'SSL_CTX_set1_curves_list("nonsense") failed'),
            ("ssl_conf_command Ciphersuites nonsense;",
             'SSL_CONF_cmd("Ciphersuites", "nonsense") failed'),
            ("ssl_conf_command MinProtocol TLSv1;", 'SSL_CONF_cmd("MinProtocol", "TLSv1") failed'),
            ("ssl_conf_command Options Compression;",
             'SSL_CONF_cmd("Options", "Compression") failed'),
            ("ssl_stapling_responder https://a/;",
             'invalid URL prefix in OCSP responder "https://a/"'),
        ):  # fmt: skip
            self.assertEqual(self.refused(text), why)
        self.assertIn("is not supported, only", self.refused("ssl_conf_command NumTickets 3;"))
        for mode in ("on", "optional"):
            text = f"{FILES} ssl_verify_client {mode};"
            error = self.assertRaises(Invalid, self.settings, text)
            self.assertEqual(str(error), "no ssl_client_certificate for ssl_verify_client")
        self.assertEqual(
            self.found(f"{FILES} ssl_verify_client optional_no_ca;").verify, "optional_no_ca"
        )


class CommandTests(ContextCase):
    def test_commands(self) -> None:
        """What each is for, seen by a client."""
        for said, cipher, version in (
            (("Ciphersuites", "TLS_CHACHA20_POLY1305_SHA256"), "TLS_CHACHA20_POLY1305_SHA256",
             TLS13),
            (("CipherString", "ECDHE-ECDSA-AES256-GCM-SHA384"), "ECDHE-ECDSA-AES256-GCM-SHA384",
             TLS12),
            (("CipherString", "ALL"), "ECDHE-ECDSA-AES256-GCM-SHA384", TLS12),
        ):  # fmt: skip
            settings = attrs.evolve(self.pair("a"), conf=(command(*said),))
            client = handshake(make_context(settings), client_context(version, version))
            self.assertEqual((client.cipher() or ("",))[0], cipher)
        settings = attrs.evolve(self.pair("a"), conf=(command("maxprotocol", "TLSv1.2"),))
        self.assertEqual(handshake(make_context(settings), client_context()).version(), "TLSv1.2")
        settings = attrs.evolve(self.pair("a"), conf=(command("Options", "-SessionTicket"),))
        client = handshake(make_context(settings), client_context(TLS12, TLS12))
        assert client.session is not None
        self.assertFalse(client.session.has_ticket)

    def test_nothing_weak_by_way_of_commands(self) -> None:
        said = command("CipherString", "ALL:COMPLEMENTOFALL")
        context = make_context(attrs.evolve(self.pair("a"), conf=(said,)))
        names = SSL.Connection(context, None).get_cipher_list()
        self.assertEqual([n for n in names if "NULL" in n or "PSK" in n or "ADH" in n], [])

    def test_groups(self) -> None:
        for curves, expected in (("secp384r1", "secp384r1"), ("", "x25519")):
            seen: list[SSL.Connection] = []
            context = make_context(attrs.evolve(self.pair("a"), curves=curves))
            handshake(context, client_context(TLS13, TLS13), seen=seen)
            self.assertEqual(libssl.group(seen[0]), expected)


class FilesTests(ContextCase):
    def test_passwords(self) -> None:
        authority = Authority(self.directory, "ca")
        pem, key, _ = authority.issue("locked", password=b"secret")
        passwords = self.directory / "passwords"
        passwords.write_text("wrong\nsecret\n")
        settings = TlsSettings(((pem, key),), password_file=str(passwords))
        handshake(make_context(settings))
        for text, why in (("wrong\n", "none of the passwords fits"), ("", "it has a password")):
            passwords.write_text(text)
            error = self.assertRaises(Invalid, make_context, settings)
            self.assertEqual(str(error), f'cannot load certificate key "{key}": {why}')

    def test_a_password_that_is_not_needed(self) -> None:
        passwords = self.directory / "passwords"
        passwords.write_text("secret\n")
        handshake(make_context(attrs.evolve(self.pair("a"), password_file=str(passwords))))

    def test_dates(self) -> None:
        authority = Authority(self.directory, "ca")
        pem, key, _ = authority.issue("old", days=-1)
        (pair,) = load_pairs(TlsSettings(((pem, key),)), Files())
        now = datetime.datetime.now(datetime.UTC)
        yesterday = now - datetime.timedelta(days=1)
        self.assertEqual(
            list(pair.warnings(now)), [f'certificate "{pem}" has expired on {yesterday:%F}']
        )
        early = now - datetime.timedelta(days=9)
        (warning,) = pair.warnings(early)
        self.assertIn(f'certificate "{pem}" is not valid before', warning)
        self.assertEqual(list(pair.warnings(now - datetime.timedelta(days=2))), [])

    def test_other_files(self) -> None:
        rubbish = self.directory / "rubbish"
        rubbish.write_text("nothing")
        for settings, what in (
            ({"dhparam": str(rubbish)}, "DH parameters"),
            ({"verify": "on", "client_certificate": str(rubbish)}, "client certificates"),
            ({"verify": "on", "trusted": str(rubbish)}, "trusted certificates"),
            ({"verify": "on", "trusted": self.pair("a").pairs[0][0], "crl": str(rubbish)}, "CRL"),
        ):
            made = attrs.evolve(self.pair("a"), **settings)
            error = self.assertRaises(Invalid, make_context, made)
            self.assertEqual(str(error), f'cannot load {what} "{rubbish}": it is not in PEM form')

    def test_what_was_read_stays(self) -> None:
        settings, files = self.pair("a"), Files()
        make_context(settings, files)
        for path in settings.pairs[0]:
            Path(path).unlink()
        handshake(make_context(settings, files))


class OthersSessionsTests(ContextCase):
    """A session that another server has begun is none for one that verifies its clients."""

    def setUp(self) -> None:
        super().setUp()
        self.mine, other = (Authority(self.directory, name) for name in ("mine", "other"))
        settings = self.pair("a")
        self.open = settings
        self.closed = attrs.evolve(settings, verify="on", client_certificate=self.mine.certificate)
        self.others = attrs.evolve(settings, verify="on", client_certificate=other.certificate)
        self.client = client_context(TLS13, TLS13)
        self.client.load_cert_chain(*self.mine.issue("client")[:2])
        servers = {
            name: Secured(each, make_context(each))
            for name, each in (
                (b"open", self.open), (b"closed", self.closed), (b"others", self.others)
            )
        }  # fmt: skip
        self.base = servers[b"open"].context
        self.contexts = SniContexts(
            self.base, servers[b"open"], servers.get, list(servers.values())[1:]
        )

    def result(self, name: str | None, session: ssl.SSLSession | None = None) -> tuple[bool, int]:
        seen: list[SSL.Connection] = []
        client = handshake(self.base, self.client, name, session, seen)
        self.session = client.session
        return bool(client.session_reused), libssl.verify_result(seen[0])

    def test_own(self) -> None:
        self.assertEqual(self.result("closed"), (False, 0))
        self.assertEqual(self.result("closed", self.session), (True, 0))
        self.assertEqual(self.result("others")[0], False)
        self.assertNotEqual(self.result("others", self.session)[1], 0)  # known to be wrong

    def test_anothers(self) -> None:
        for first in ("closed", "open"):
            self.result(first)
            session = self.session
            for second in ("others", None):
                with self.assertRaises((ssl.SSLError, SSL.Error)):
                    self.result(second, session)

    def test_where_nobody_verifies(self) -> None:
        """Sessions are anybody's, as in nginx."""
        other = Secured(attrs.evolve(self.open, session_timeout=60.0), self.base)
        self.contexts = SniContexts(self.base, Secured(self.open, self.base), None, [other])
        self.result("open")
        self.assertEqual(self.result("other", self.session)[0], True)

    def test_kinship(self) -> None:
        """Where others are trusted, sessions are not resumed."""
        address = ("", 443)
        files = Files()
        kin = Kinship.of(address, [self.open, self.closed], files)
        self.assertEqual(kin, Kinship.of(address, [self.open, self.closed], files))
        self.assertEqual(len(kin.identity), 32)
        for other in (
            Kinship.of(("", 444), [self.open, self.closed], files),
            Kinship.of(address, [self.open, self.others], files),
            Kinship.of(
                address, [self.open, self.closed], Files({self.mine.certificate: b"changed"})
            ),
        ):
            self.assertNotEqual(kin.identity, other.identity)
