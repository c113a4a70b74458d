"""Reading a configuration: options, and the errors that take the whole of it to see."""

from __future__ import annotations

from pathlib import Path

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.app.configuration import SHIPPED, Options, directive_table, read, variables
from imagefarm.config.errors import ConfigurationError
from imagefarm.process.directives import MainSettings
from imagefarm.resources import directives as rows


class ConfigurationCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir(parents=True)
        self.file = self.directory / "test.conf"
        self.options = Options("slave", str(self.file), str(self.directory))

    def problems(self, text: str) -> list[str]:
        self.file.write_text(text)
        try:
            found = read(self.options).problems
        except ConfigurationError as error:
            found = error.problems
        self.assertNotEqual(found, ())
        return [f"{problem.message} :{problem.line}" for problem in found]

    def in_http(self, text: str) -> list[str]:
        return self.problems(f"events {{ }}\nhttp {{\n{text}\n}}")

    def in_server(self, text: str) -> list[str]:
        return self.in_http(f"server {{ {text} }}")


class ReadTests(ConfigurationCase):
    def test_shipped(self) -> None:
        for role in ("master", "slave", "resizer", "farm"):
            file = f"{SHIPPED}/{role}.conf"
            loaded = read(Options(role, file, str(self.directory)))
            self.assertEqual(loaded.warnings, (), role)

    def test_set_replaces_and_adds(self) -> None:
        self.file.write_text("worker_processes 1;\nevents { }\n")
        options = evolve(
            self.options, settings=("worker_processes 3", "worker_rlimit_nofile 99; ")
        )
        main = MainSettings.from_scope(read(options).root)
        self.assertEqual((main.worker_processes, main.worker_rlimit_nofile), (3, 99))

    def test_an_error_in_set_is_placed_there(self) -> None:
        self.file.write_text("events { }\n")
        options = evolve(self.options, settings=("wrong 1",))
        error = self.assertRaises(ConfigurationError, read, options)
        self.assertEqual(str(error), 'unknown directive "wrong" in --set:1')

    def test_root_and_ports(self) -> None:
        self.file.write_text("events { }\nhttp { server { listen 80; listen 443 ssl; } }")
        options = evolve(self.options, root="/files", port=8080, tls_port=8443)
        (http,) = read(options).root.blocks(rows.HTTP_BLOCK)
        root = http[rows.ROOT]
        assert root is not None
        self.assertEqual(root.constant, b"/files")
        (server,) = http.blocks(rows.SERVER_BLOCK)
        ports = [(listen.address[1], listen.ssl) for listen in server.all(rows.LISTEN)]
        self.assertEqual(ports, [(8080, False), (8443, True)])

    def test_a_missing_file(self) -> None:
        error = self.assertRaises(ConfigurationError, read, self.options)
        self.assertIn(f'open() "{self.file}" failed (2: No such file or directory)', str(error))

    def test_all_errors_at_once(self) -> None:
        found = self.in_server("root;\nlisten x:y;\nunheard of;")
        self.assertEqual(
            found,
            [
                'invalid number of arguments in "root" directive :3',
                'invalid port in "x:y" of the "listen" directive :4',
                'unknown directive "unheard" :5',
            ],
        )

    def test_every_variable_has_a_value_of_its_own_kind(self) -> None:
        table = directive_table()
        self.assertIn("rewrite", table)
        self.assertIn("upstream_cache_status", variables().exact)


class ChecksTests(ConfigurationCase):
    """Blocks that do not go together; the words are nginx's."""

    def test_duplicate_locations(self) -> None:
        same = "location /a { }\nlocation ^~ /a { }\nlocation = /a { }\nlocation = /a { }"
        self.assertEqual(
            self.in_server(same), ['duplicate location "/a" :4', 'duplicate location "/a" :6']
        )

    def test_regular_expressions_may_be_given_twice(self) -> None:
        self.file.write_text("http { server { location ~ a { } location ~ a { } } }")
        self.assertEqual(read(self.options).root.context, "main")

    def test_nesting(self) -> None:
        cases = {
            "location /a/ { location /b { } }": 'location "/b" is outside location "/a/" :3',
            "location ~ ^/a { location /a/b { } }": (
                'location "/a/b" is outside location "^/a" :3'
            ),
            "location = /a { location /a/b { } }": (
                'location "/a/b" cannot be inside the exact location "/a" :3'
            ),
            "location @a { location /b { } }": (
                'location "/b" cannot be inside the named location "@a" :3'
            ),
            "location / { location @b { } }": (
                'named location "@b" can be on the server level only :3'
            ),
            "location @a { alias /x; }": (
                'the "alias" directive cannot be used inside the named location :3'
            ),
        }
        for text, expected in cases.items():
            self.assertEqual(self.in_server(text), [expected], text)

    def test_listens(self) -> None:
        self.assertEqual(
            self.in_server("listen 80; listen *:80;"), ["a duplicate listen 0.0.0.0:80 :3"]
        )
        self.assertEqual(
            self.in_http(
                "server { listen [::]:80 default_server; }\nserver { listen [::]:80 default; }"
            ),
            ["a duplicate default server for [::]:80 :4"],
        )

    def test_set_of_a_variable_of_ours(self) -> None:
        for place in ("{}", "location / {{ {} }}", "location / {{ if ($host) {{ {} }} }}"):
            found = self.in_server(place.format("set $host x;"))
            self.assertEqual(found, ['the duplicate "host" variable :3'])

    def test_set_of_args_and_of_own_ones(self) -> None:
        self.file.write_text("http { server { set $args x; set $mine y; set $http_x z; } }")
        self.assertEqual(read(self.options).root.context, "main")
