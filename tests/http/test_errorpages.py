"""The built-in pages, compared with what nginx 1.22 sent."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from imagefarm import __version__
from imagefarm.http.errorpages import (
    error_response,
    page,
    server_token,
    wants_padding,
)
from imagefarm.http.headers import Headers
from imagefarm.http.message import TransferSettings

from .samples import request

#: The lengths of nginx 1.22.1's pages; 0: no page.
LENGTHS = {
    301: 169, 302: 145, 303: 153, 307: 171, 308: 171,
    400: 157, 401: 179, 402: 167, 403: 153, 404: 153, 405: 157, 406: 163, 407: 0, 409: 151,
    410: 143, 411: 165, 412: 173, 413: 183, 414: 177, 415: 179, 416: 197, 417: 0, 418: 0,
    421: 173, 422: 0, 426: 0, 428: 0, 429: 169, 431: 0, 451: 0, 494: 233, 495: 215, 496: 237,
    497: 255, 500: 177, 501: 165, 502: 157, 503: 197, 504: 167, 505: 187, 506: 0, 507: 175,
    508: 0, 511: 0, 204: 0, 300: 0,
}  # fmt: skip


class PageTests(SynchronousTestCase):
    def test_lengths(self) -> None:
        found = {status: len(page(status, b"nginx/1.22.1")) for status in LENGTHS}
        self.assertEqual(found, LENGTHS)

    def test_bytes(self) -> None:
        self.assertEqual(
            page(404, b"nginx"),
            b"<html>\r\n<head><title>404 Not Found</title></head>\r\n<body>\r\n"
            b"<center><h1>404 Not Found</h1></center>\r\n<hr><center>nginx</center>\r\n"
            b"</body>\r\n</html>\r\n",
        )
        self.assertEqual(
            page(494, b"nginx"),
            b"<html>\r\n<head><title>400 Request Header Or Cookie Too Large</title></head>\r\n"
            b"<body>\r\n<center><h1>400 Bad Request</h1></center>\r\n"
            b"<center>Request Header Or Cookie Too Large</center>\r\n"
            b"<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n",
        )

    def test_padding(self) -> None:
        """402 bytes more, for errors only."""
        self.assertEqual(len(page(404, b"nginx/1.22.1", padded=True)), 555)
        self.assertEqual(len(page(301, b"nginx/1.22.1", padded=True)), 169)
        self.assertEqual(page(418, b"x", padded=True), b"")

    def test_who_gets_padding(self) -> None:
        for agent, expected in {
            b"Mozilla/5.0 (X11) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/99 Safari/5": True,
            b"Mozilla/4.0 (compatible; MSIE 6.0; Windows NT 5.1)": True,
            b"Mozilla/4.0 (compatible; MSIE 6.0; Windows) Opera 9": False,
            b"Mozilla/5.0 (X11) Gecko/2010 Firefox/9 Chrome/1": False,
            b"Chrome/9 Opera/9": False,
            b"MSIE 6": False,
            b"curl/7": False,
        }.items():
            self.assertIs(wants_padding(Headers([(b"User-Agent", agent)])), expected, agent)
        self.assertFalse(wants_padding(Headers()))

    def test_token(self) -> None:
        self.assertEqual(server_token(True), b"imagefarm/" + __version__.encode())
        self.assertEqual(server_token(False), b"imagefarm")


class ResponseTests(SynchronousTestCase):
    def test_error(self) -> None:
        response = error_response(request(), 404)
        self.assertEqual(response.status, 404)
        self.assertEqual(list(response.headers), [(b"Content-Type", b"text/html")])
        self.assertEqual(response.body, page(404, server_token(True)))
        self.assertFalse(response.close)

    def test_closing(self) -> None:
        self.assertTrue(error_response(request(), 400).close)
        self.assertFalse(error_response(request(), 502).close)

    def test_own_codes_are_400_to_the_client(self) -> None:
        response = error_response(request(), 497)
        self.assertEqual(response.status, 400)
        self.assertIn(b"plain HTTP request", response.body)  # type: ignore[arg-type]

    def test_no_page_no_type(self) -> None:
        response = error_response(request(), 418)
        self.assertEqual((response.body, len(response.headers)), (b"", 0))

    def test_padding_follows_agent_version_and_setting(self) -> None:
        chrome = [(b"User-Agent", b"Chrome/99")]
        plain = len(page(404, server_token(True)))

        def extra(version: tuple[int, int] = (1, 1), padding: bool = True) -> int:
            asked = request(fields=chrome, version=version)
            return len(error_response(asked, 404, padding=padding).body) - plain  # type: ignore[arg-type]

        self.assertEqual((extra(), extra((0, 9)), extra(padding=False)), (402, 0, 0))

    def test_server_tokens(self) -> None:
        asked = request()
        asked.transfer = TransferSettings(server_tokens=False)
        self.assertEqual(error_response(asked, 404).body, page(404, b"imagefarm"))
