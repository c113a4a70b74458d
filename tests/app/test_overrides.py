"""``--root`` and ``--port``: what they change in a configuration, and what they leave."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from imagefarm.app.overrides import override_port, override_root
from imagefarm.config.ast import Directive
from imagefarm.config.parse import parse_text


def parse(text: str) -> tuple[Directive, ...]:
    return parse_text(text, "f").directives


def written(directives: tuple[Directive, ...]) -> str:
    """The configuration on one line."""
    parts = []
    for directive in directives:
        words = " ".join((directive.name, *directive.args))
        block = directive.block
        parts.append(f"{words};" if block is None else f"{words} {{ {written(block)} }}")
    return " ".join(parts)


class RootTests(SynchronousTestCase):
    def check(self, text: str, expected: str) -> None:
        self.assertEqual(written(override_root(parse(text), "/new")), expected)

    def test_of_http_is_replaced(self) -> None:
        self.check("http { root images; }", "http { root /new; }")

    def test_of_a_server_is_replaced(self) -> None:
        self.check("http { server { root /a; } }", "http { server { root /new; } }")

    def test_the_same_path_is_replaced_deeper_others_stay(self) -> None:
        self.check(
            "http { server { root /a; location / { root /a; } location /e { root html; } } }",
            "http { server { root /new; location / { root /new; } location /e { root html; } } }",
        )

    def test_added_where_there_is_none(self) -> None:
        self.check(
            "http { server { location /e { root html; } } }",
            "http { root /new; server { location /e { root html; } } }",
        )

    def test_the_resizers_does_not_count_for_http(self) -> None:
        self.check(
            "resizer { root /i; } http { server { listen 80; } }",
            "resizer { root /new; } http { root /new; server { listen 80; } }",
        )

    def test_a_resizer_without_one_gets_it(self) -> None:
        self.check("resizer { listen 9000; }", "resizer { root /new; listen 9000; }")

    def test_a_malformed_http_stays(self) -> None:
        self.check("http;", "http;")

    def test_the_path_is_one_quoted_word(self) -> None:
        (http,) = override_root(parse("http { root a; }"), "/a path; {")
        assert http.block is not None
        self.assertEqual(http.block[0].words[0].text, "/a path; {")
        self.assertTrue(http.block[0].words[0].quoted)


class PortTests(SynchronousTestCase):
    def check(self, text: str, expected: str, port: int | None = 1, tls: int | None = 2) -> None:
        self.assertEqual(written(override_port(parse(text), port, tls)), expected)

    def listen(self, words: str, expected: str) -> None:
        self.check(
            f"http {{ server {{ listen {words}; }} }}",
            f"http {{ server {{ listen {expected}; }} }}",
        )

    def test_forms(self) -> None:
        self.listen("80", "1")
        self.listen("127.0.0.1:80", "127.0.0.1:1")
        self.listen("127.0.0.1", "127.0.0.1:1")
        self.listen("*:80", "*:1")
        self.listen("localhost", "localhost:1")
        self.listen("[::1]:80", "[::1]:1")
        self.listen("[::]", "[::]:1")
        self.listen("unix:/s", "unix:/s")
        self.listen("80 default_server backlog=5", "1 default_server backlog=5")

    def test_tls(self) -> None:
        self.listen("443 ssl", "2 ssl")
        self.listen("[::]:443 default_server ssl", "[::]:2 default_server ssl")

    def test_tls_in_the_old_form(self) -> None:
        self.check(
            "http { server { ssl on; listen 443; } server { listen 80; } }",
            "http { server { ssl on; listen 2; } server { listen 1; } }",
        )
        self.check(
            "http { ssl on; server { listen 443; } server { ssl off; listen 80; } }",
            "http { ssl on; server { listen 2; } server { ssl off; listen 1; } }",
        )

    def test_only_what_is_asked_for(self) -> None:
        text = "http { server { listen 80; listen 443 ssl; } }"
        self.check(text, text, None, None)
        self.check(text, "http { server { listen 1; listen 443 ssl; } }", tls=None)
        self.check(text, "http { server { listen 80; listen 2 ssl; } }", port=None)

    def test_two_become_one(self) -> None:
        self.check("http { server { listen 80; listen 8080; } }", "http { server { listen 1; } }")

    def test_what_the_file_gives_twice_stays(self) -> None:
        text = "http { server { listen 80; listen 80; } }"
        self.check(text, text, None, None)

    def test_a_server_without_one_gets_it(self) -> None:
        self.check(
            "http { server { return 204; } server { ssl on; } }",
            "http { server { return 204; listen 1; } server { ssl on; listen 2; } }",
        )
        self.check("http { server { return 204; } }", "http { server { return 204; } }", None)

    def test_resizer(self) -> None:
        self.check("resizer { listen 127.0.0.1:9000; }", "resizer { listen 127.0.0.1:1; }")
        self.check("resizer { root /a; }", "resizer { root /a; }")

    def test_peers_of_upstreams_stay(self) -> None:
        text = "http { upstream u { server 127.0.0.1:80; } }"
        self.check(text, text)

    def test_listen_without_words_is_left_for_the_loader(self) -> None:
        self.check(
            "http { server { listen; listen 80; } }", "http { server { listen; listen 1; } }"
        )
