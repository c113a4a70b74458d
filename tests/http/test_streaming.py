"""The directives about buffering, as `streaming_of` reads them, and nginx's words for mistakes."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from imagefarm.config.errors import ConfigurationError
from imagefarm.http.streaming import Streaming
from imagefarm.http.tempfiles import TempPath
from imagefarm.proxy.settings import ProxySettings
from tests.proxy.support import load_location


def streaming(inside: str) -> Streaming:
    scope = load_location("/", "proxy_pass http://127.0.0.1:81; " + inside)
    settings = ProxySettings.from_scope(scope, "/prefix")
    assert settings is not None
    return settings.streaming


class StreamingTests(SynchronousTestCase):
    def test_defaults_are_nginxs(self) -> None:
        found = streaming("")
        buffering, spooling = found.buffering, found.spooling
        self.assertTrue(buffering.enabled and spooling.enabled)
        self.assertEqual((buffering.memory, buffering.max_file), (65536, 1 << 30))
        self.assertEqual((buffering.write_size, buffering.rate), (16384, 0))
        self.assertEqual(buffering.temp, TempPath(b"/prefix/proxy_temp"))
        self.assertEqual((spooling.memory, spooling.in_file_only), (16384, "off"))
        self.assertEqual(spooling.temp, TempPath(b"/prefix/client_body_temp"))
        self.assertFalse(found.ignore_client_abort)

    def test_what_is_said(self) -> None:
        found = streaming(
            "proxy_buffering off; proxy_buffers 4 32k; proxy_busy_buffers_size 64k;"
            "proxy_max_temp_file_size 0; proxy_temp_file_write_size 48k; proxy_limit_rate 5k;"
            "proxy_temp_path temp 1 2; proxy_request_buffering off; proxy_ignore_client_abort on;"
            "client_body_buffer_size 1m; client_body_temp_path /bodies 2;"
            "client_body_in_file_only clean;"
        )
        buffering, spooling = found.buffering, found.spooling
        self.assertFalse(buffering.enabled or spooling.enabled)
        self.assertEqual((buffering.memory, buffering.max_file), (131072, 0))
        self.assertEqual((buffering.write_size, buffering.rate), (49152, 5120))
        self.assertEqual(buffering.temp.levels, (1, 2))
        self.assertEqual((spooling.memory, spooling.in_file_only), (1 << 20, "clean"))
        self.assertEqual(spooling.temp, TempPath(b"/bodies", (2,)))
        self.assertTrue(found.ignore_client_abort)

    def test_sizes_that_do_not_fit_together(self) -> None:
        least = "must be equal to or greater than the maximum of the value of"
        for inside, words in (
            ("proxy_buffers 1 8k;", 'there must be at least 2 "proxy_buffers"'),
            ("proxy_busy_buffers_size 4k;", f'"proxy_busy_buffers_size" {least}'),
            ("proxy_temp_file_write_size 4k;", f'"proxy_temp_file_write_size" {least}'),
            (
                "proxy_max_temp_file_size 4k;",
                '"proxy_max_temp_file_size" must be equal to zero to disable temporary files '
                f"usage or {least}",
            ),
            (
                "proxy_busy_buffers_size 64k;",
                '"proxy_busy_buffers_size" must be less than the size of all "proxy_buffers" '
                "minus one buffer",
            ),
            (
                "proxy_buffer_size 64k;",
                '"proxy_busy_buffers_size" must be less than the size of all "proxy_buffers" '
                "minus one buffer",
            ),
            ("proxy_temp_path a 1 2 3 4;", 'invalid number of arguments in "proxy_temp_path"'),
            ("proxy_temp_path a 0;", 'invalid value "0"'),
        ):
            with self.assertRaises(ConfigurationError) as caught:
                streaming(inside)
            self.assertIn(words, str(caught.exception))
