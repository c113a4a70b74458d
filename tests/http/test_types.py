"""MIME types and the settings of the connection."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from imagefarm.config.errors import ConfigurationError
from imagefarm.http.message import TransferSettings
from imagefarm.http.transfer import HeadSettings, head_settings, transfer_settings
from imagefarm.http.types import MimeTypes, extension

from .samples import http_scope, location_scope, server_scope


class TypesTests(SynchronousTestCase):
    def test_extension(self) -> None:
        for path, expected in {
            b"/a/b.JPG": b"jpg",
            b"/a/b.tar.gz": b"gz",
            b"/a.b/c": b"",
            b"/a.": b"",
            b"/.htaccess": b"htaccess",
            b"/": b"",
        }.items():
            self.assertEqual(extension(path), expected, path)

    def test_built_in(self) -> None:
        types = MimeTypes.from_scope(http_scope(""))
        self.assertEqual(types.lookup(b"/a.HTML"), b"text/html")
        self.assertEqual(types.lookup(b"/a.gif"), b"image/gif")
        self.assertEqual(types.lookup(b"/a.jpg"), b"image/jpeg")
        self.assertEqual(types.lookup(b"/a.png"), b"text/plain")

    def test_block(self) -> None:
        types = MimeTypes.from_scope(
            http_scope(
                "types { image/png png; } types { image/jpeg JPEG jpg; }"
                "default_type application/octet-stream;"
            )
        )
        self.assertEqual(types.lookup(b"/a.png"), b"image/png")
        self.assertEqual(types.lookup(b"/a.jpeg"), b"image/jpeg")
        self.assertEqual(types.lookup(b"/a.html"), b"application/octet-stream")

    def test_an_inner_block_replaces(self) -> None:
        scope = server_scope(
            "types { image/png png; } server { types { text/css css; } default_type a/b; }"
        )
        types = MimeTypes.from_scope(scope)
        self.assertEqual(types.lookup(b"/a.css"), b"text/css")
        self.assertEqual(types.lookup(b"/a.png"), b"a/b")

    def test_an_empty_block_knows_none(self) -> None:
        types = MimeTypes.from_scope(location_scope("location / { types { } default_type x/y; }"))
        self.assertEqual(types.lookup(b"/a.html"), b"x/y")


class TransferTests(SynchronousTestCase):
    def test_defaults(self) -> None:
        self.assertEqual(transfer_settings(http_scope("")), TransferSettings())
        self.assertEqual(head_settings(http_scope("")), HeadSettings())

    def test_the_farms_own(self) -> None:
        settings = transfer_settings(
            http_scope(
                "keepalive_timeout 5 5; keepalive_requests 5; sendfile on; tcp_nopush on;"
                "client_max_body_size 100M; server_tokens off; send_timeout 90;"
                "client_body_timeout 1m; lingering_timeout 2;"
            )
        )
        self.assertEqual(
            settings,
            TransferSettings(
                keepalive_timeout=5.0,
                keepalive_header=5,
                keepalive_requests=5,
                client_max_body_size=100 << 20,
                client_body_timeout=60.0,
                send_timeout=90.0,
                lingering_timeout=2.0,
                sendfile=True,
                tcp_nopush=True,
                server_tokens=False,
            ),
        )

    def test_no_lingering(self) -> None:
        settings = transfer_settings(http_scope("lingering_close off; lingering_timeout 9;"))
        self.assertEqual((settings.lingering_close, settings.lingering_timeout), ("off", 9.0))

    def test_how_answers_are_sent(self) -> None:
        settings = transfer_settings(
            http_scope(
                "limit_rate 10k; limit_rate_after 1m; sendfile_max_chunk 0; keepalive_time 5m;"
                "keepalive_disable none safari; reset_timedout_connection on; lingering_time 9;"
                "chunked_transfer_encoding off; client_body_buffer_size 32k; server_tokens build;"
            )
        )
        self.assertEqual(
            settings,
            TransferSettings(
                limit_rate=10240,
                limit_rate_after=1 << 20,
                sendfile_max_chunk=0,
                keepalive_time=300.0,
                keepalive_disable=frozenset({"safari"}),
                reset_timedout_connection=True,
                lingering_time=9.0,
                chunked_transfer_encoding=False,
                client_body_buffer_size=32768,
                server_tokens=True,
            ),
        )
        self.assertTrue(settings.varies)

    def test_whether_it_varies(self) -> None:
        for text, varies in (
            ("", False),
            ("limit_rate 0; limit_rate_after 5;", False),
            ("limit_rate 1;", True),
            ("limit_rate $arg_rate;", True),
            ("server_tokens ours;", False),
            ("server_tokens $host;", True),
            ("keepalive_disable none;", False),
            ("keepalive_disable safari;", True),
        ):
            self.assertIs(transfer_settings(http_scope(text)).varies, varies, text)

    def test_server_tokens(self) -> None:
        for text, value in (("on", True), ("off", False), ("us", b"us"), ('""', b"")):
            settings = transfer_settings(http_scope(f"server_tokens {text};"))
            self.assertEqual(settings.server_tokens, value, text)

    def test_heads(self) -> None:
        settings = head_settings(
            http_scope(
                "client_header_timeout 10; client_header_buffer_size 2k; merge_slashes off;"
                "large_client_header_buffers 2 16k; underscores_in_headers on; tcp_nodelay off;"
                "ignore_invalid_headers off;"
            )
        )
        self.assertEqual(
            settings,
            HeadSettings(
                client_header_timeout=10.0,
                client_header_buffer_size=2048,
                large_client_header_buffers=(2, 16384),
                merge_slashes=False,
                underscores_in_headers=True,
                ignore_invalid_headers=False,
                tcp_nodelay=False,
            ),
        )

    def test_errors(self) -> None:
        for line in (
            "keepalive_timeout x;",
            "large_client_header_buffers 0 8k;",
            "large_client_header_buffers 4 k;",
            "keepalive_disable opera;",
            "limit_rate fast;",
            "limit_rate 1k$nothing;",
            "client_body_temp_path /t 4;",
            "client_body_in_file_only maybe;",
            "lingering_close never;",
        ):
            with self.assertRaises(ConfigurationError, msg=line):
                http_scope(line)
