"""The command line: what it takes, and what it says to nonsense."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path

from twisted.python import usage
from twisted.trial.unittest import SynchronousTestCase

from imagefarm import __version__, tap
from imagefarm.app.configuration import SHIPPED


class OptionsTests(SynchronousTestCase):
    def parse(self, *words: str) -> tap.RoleSettings:
        options = tap.Options()
        options.parseOptions(list(words))
        return options.subOptions.options

    def refused(self, *words: str) -> str:
        return str(self.assertRaises(usage.UsageError, self.parse, *words))

    def test_defaults(self) -> None:
        for role in ("master", "slave", "resizer", "farm"):
            settings = self.parse(role)
            expected = tap.RoleSettings(role, f"{SHIPPED}/{role}.conf", str(Path.cwd()))
            self.assertEqual(settings, expected)

    def test_all(self) -> None:
        root = self.mktemp()
        Path(root).mkdir()
        settings = self.parse(
            "slave", "--config", "a.conf", "--prefix", "p", "--root", root, "--port", "8082",
            "--tls-port", "8443", "--set", "a 1;", "-s", "b 2",
        )  # fmt: skip
        self.assertEqual(
            settings,
            tap.RoleSettings(
                "slave", str(Path("a.conf").absolute()), str(Path("p").absolute()),
                ("a 1;", "b 2"), str(Path(root).absolute()), 8082, 8443,
            ),
        )  # fmt: skip

    def test_settings_of_one_command_line_do_not_reach_another(self) -> None:
        self.parse("slave", "--set", "a 1;")
        self.assertEqual(self.parse("slave").settings, ())

    def test_bad_ports(self) -> None:
        for text in ("0", "65536", "http", "-1", "8080.0", "", "²", "٣", "999999"):
            for name in ("port", "tls-port"):
                self.assertEqual(
                    self.refused("master", f"--{name}={text}"),
                    f'--{name} takes a port number, not "{text}"',
                )

    def test_a_farm_has_more_than_one_port(self) -> None:
        for name in ("port", "tls-port"):
            self.assertIn(f"--{name} is for one role", self.refused("farm", f"--{name}=8080"))

    def test_an_empty_root(self) -> None:
        self.assertEqual(self.refused("slave", "--root="), "--root takes a directory")

    def test_no_role(self) -> None:
        self.assertEqual(self.refused(), "which role: master, slave, resizer or farm?")

    def test_unknown_role_and_option(self) -> None:
        self.assertIn("slav", self.refused("slav"))
        self.assertIn("--ports", self.refused("slave", "--ports", "1"))
        self.refused("slave", "leftover")

    def test_version(self) -> None:
        out = io.StringIO()
        self.patch(sys, "stdout", out)
        error = self.assertRaises(SystemExit, self.parse, "--version")
        self.assertEqual((error.code, out.getvalue()), (0, f"imagefarm {__version__}\n"))


class MakeServiceTests(SynchronousTestCase):
    def start(self, text: str, *words: str) -> str:
        directory = Path(self.mktemp()).absolute()
        directory.mkdir(parents=True)
        (directory / "a.conf").write_text(text)
        options = tap.Options()
        options.parseOptions(
            ["slave", "--config", f"{directory}/a.conf", "--prefix", str(directory), *words]
        )
        err = io.StringIO()
        self.patch(sys, "stderr", err)
        error = self.assertRaises(SystemExit, tap.makeService, options)
        self.assertEqual(error.code, 1)
        return err.getvalue().replace(str(directory) + os.sep, "")

    def test_every_error_on_a_line_of_its_own(self) -> None:
        self.assertEqual(
            self.start("events { }\nbad 1;\nworse 2;\n"),
            'imagefarm: [emerg] unknown directive "bad" in a.conf:2\n'
            'imagefarm: [emerg] unknown directive "worse" in a.conf:3\n',
        )

    def test_no_server(self) -> None:
        self.assertEqual(
            self.start("events { }\nhttp { }\n"),
            'imagefarm: [emerg] no "server" is defined in a.conf\n',
        )

    def test_unusable_certificate(self) -> None:
        said = self.start(
            "events { }\nhttp { server { listen 127.0.0.1:1 ssl;\n"
            "ssl_certificate none.pem; ssl_certificate_key none.key; } }\n"
        )
        self.assertIn('[emerg] cannot load certificate "none.pem": (2: No such file', said)
        self.assertIn(" in a.conf:3\n", said)

    def test_missing_root(self) -> None:
        for path in ("/nowhere", __file__):
            self.assertEqual(
                self.start("events { }\n", "--root", path),
                f'imagefarm: [emerg] --root "{path}" is not a directory\n',
            )
