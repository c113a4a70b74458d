"""What stands in the way of a start: a clear line for each thing, status 1, nothing bound."""

from __future__ import annotations

import socket

from tests.support import farm
from tests.support.certificates import self_signed
from tests.support.processes import accepts
from tests.support.stages import StagedCase

EVENTS = "error_log logs/error.log;\npid logs/x.pid;\nevents { }\n"


class Refusals(StagedCase):
    """Each case starts a role that must not come up."""

    def setUp(self) -> None:
        self.prefix = farm.temporary_prefix(self.addCleanup)
        self.prefix.images.mkdir()
        self.port = self.prefix.ports.http

    def refuse(self, role: str, *options: str, config: str = "", status: int = 1) -> list[str]:
        """The lines that the command prints, none of them more than one line's worth."""
        done = self.prefix.run(
            "-n", "--pidfile=", "imagefarm", role, "--prefix", str(self.prefix.directory),
            "--config", str(self.prefix.conf(config or f"{role}.conf")), *options,
        )  # fmt: skip
        self.assertEqual(done.returncode, status, done)
        self.assertNotIn("Traceback", done.stdout + done.stderr)
        self.assertFalse(any(map(accepts, vars(self.prefix.ports).values())))
        self.assertEqual(list(self.prefix.directory.rglob("*.pid")), [])
        return [line.removeprefix("imagefarm: [emerg] ") for line in done.stderr.splitlines()]

    def refuse_text(self, text: str, role: str = "master") -> list[str]:
        self.prefix.write("test.conf", text)
        return self.refuse(role, config="test.conf")

    def server(self, *lines: str) -> str:
        inner = "".join(f"{line}\n" for line in lines)
        return f"{EVENTS}http {{\nserver {{\nlisten 127.0.0.1:{self.port};\n{inner}}}\n}}\n"

    def test_all_errors_at_once(self) -> None:
        """Each with its file and line, in nginx's words, from included files too."""
        extra = self.prefix.write("extra.conf", "gzip maybe;\nexpires never;\n")
        lines = self.refuse_text(
            self.server(
                "nonsense on;",
                "location / {",
                "keepalive_timeout 1 2 3;",
                "worker_processes 2;",
                "}",
                "include extra.conf;",
                "location / { }",
                "sendfile on off;",
            )
        )
        path = self.prefix.conf("test.conf")
        for expected in (
            f'unknown directive "nonsense" in {path}:7',
            f'invalid number of arguments in "keepalive_timeout" directive in {path}:9',
            f'"worker_processes" directive is not allowed here in {path}:10',
            f'invalid value "maybe" in "gzip" directive, it must be "on" or "off" in {extra}:1',
            f'"expires" directive invalid value in {extra}:2',
            f'invalid number of arguments in "sendfile" directive in {path}:14',
        ):
            self.assertIn(expected, lines)
        self.assertGreaterEqual(len(lines), 6)

    def test_syntax(self) -> None:
        path = self.prefix.conf("test.conf")
        lines = self.refuse_text("events { }\nhttp {\n")
        self.assertEqual(lines, [f'unexpected end of file, expecting "}}" in {path}:3'])
        lines = self.refuse_text("events { }\n}\n")
        self.assertEqual(lines, [f'unexpected "}}" in {path}:2'])

    def test_missing_files(self) -> None:
        """The configuration itself, and one that is included."""
        path = self.prefix.conf("none.conf")
        lines = self.refuse("slave", config="none.conf")
        self.assertEqual(lines, [f'open() "{path}" failed (2: No such file or directory)'])
        lines = self.refuse_text("include none.conf;\n")
        place = f"{self.prefix.conf('test.conf')}:1"
        expected = f'open() "{path}" failed (2: No such file or directory) in {place}'
        self.assertEqual(lines, [expected])

    def test_a_directory_for_a_configuration(self) -> None:
        (self.prefix.directory / "conf" / "dir.conf").mkdir()
        lines = self.refuse("slave", config="dir.conf")
        self.assertEqual(len(lines), 1)
        self.assertIn("(21: Is a directory)", lines[0])

    def test_binary_configuration(self) -> None:
        self.prefix.conf("test.conf").write_bytes(b"\xff\xfe\x00w\x00o\x00" * 50)
        lines = self.refuse("slave", config="test.conf")
        self.assertEqual(lines[0], f"unexpected NUL in {self.prefix.conf('test.conf')}:1")

    def test_set_with_errors(self) -> None:
        """What is wrong on the command line is told in the same way."""
        lines = self.refuse("slave", "--set", "worker_processes many;", "--set", "nonsense 1")
        self.assertIn('unknown directive "nonsense" in --set:1', lines)
        self.assertEqual(len(lines), 2, lines)

    def test_ports_in_use(self) -> None:
        """Every one that is taken is named."""
        places = [
            f"127.0.0.1:{port}" for port in (self.prefix.ports.http, self.prefix.ports.https)
        ]
        socks = []
        for place in places:
            sock = socket.socket()
            self.addCleanup(sock.close)
            sock.bind(("127.0.0.1", int(place.split(":")[1])))
            socks.append(sock)
        lines = self.refuse("master")
        expected = [f"bind() to {place} failed (98: Address already in use)" for place in places]
        self.assertEqual(lines, expected)

    def test_resizers_port_in_use(self) -> None:
        place = f"127.0.0.1:{self.prefix.ports.fastcgi}"
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", self.prefix.ports.fastcgi))
            lines = self.refuse("resizer")
        self.assertEqual(lines, [f"bind() to {place} failed (98: Address already in use)"])

    def test_missing_root(self) -> None:
        """For the resizer, and for --root of any role."""
        self.prefix.images.rmdir()
        lines = self.refuse("resizer")
        self.assertEqual(len(lines), 1)
        self.assertIn(f'"{self.prefix.images}"', lines[0])
        for role in ("slave", "master", "resizer", "farm"):
            lines = self.refuse(role, "--root", "/nonexistent")
            self.assertEqual(len(lines), 1, lines)
            self.assertIn('--root "/nonexistent" is not a directory', lines[0])

    def test_certificate(self) -> None:
        """Missing, of another key, or no certificate at all."""
        self.prefix.edit("master.conf", ("ssl_self_signed      on;", ""))
        lines = self.refuse("master")
        self.assertEqual(len(lines), 1, lines)
        self.assertIn("No such file or directory", lines[0])
        self.assertIn("imagefarm.pem", lines[0])

        ssl = self.prefix.directory / "ssl"
        ssl.mkdir(exist_ok=True)
        for name in ("imagefarm", "other"):
            self_signed(ssl, name)
        (ssl / "other.key").rename(ssl / "imagefarm.key")
        lines = self.refuse("master")
        self.assertEqual(len(lines), 1, lines)
        self.assertIn("it is not the key of certificate", lines[0])

        (ssl / "imagefarm.pem").write_text("no certificate\n")
        lines = self.refuse("master")
        self.assertEqual(len(lines), 1, lines)
        self.assertIn("imagefarm.pem", lines[0])

    def test_unwritable_logs_and_pidfile(self) -> None:
        """A log or pidfile that can't be made: here because its directory is a file."""
        (self.prefix.directory / "file").write_text("")
        reason = "failed (20: Not a directory)"
        bad = str(self.prefix.directory / "file" / "x")
        for setting in (f"error_log {bad}", f"pid {bad}"):
            lines = self.refuse("slave", "--set", setting)
            self.assertEqual(len(lines), 1, lines)
            self.assertTrue(lines[0].startswith(f'open() "{bad}" {reason}'), lines)
        lines = self.refuse_text(self.server(f"access_log {bad};"))
        place = f"{self.prefix.conf('test.conf')}:7"
        self.assertEqual(lines, [f'open() "{bad}" {reason} in {place}'])

    def test_unusable_root_of_a_farm(self) -> None:
        self.prefix.images.rmdir()
        self.prefix.images.write_text("a file")
        lines = self.refuse("farm")
        self.assertEqual(len(lines), 1, lines)
        self.assertIn(str(self.prefix.images), lines[0])

    def test_wrong_words(self) -> None:
        """The command line itself: usage errors."""
        cases: tuple[tuple[str, ...], ...] = (
            ("slave", "--port", "65536"),
            ("slave", "--port", "x"),
            ("slave", "stray"),
            ("gardener",),
            (),
        )
        for words in cases:
            done = self.prefix.run("-n", "--pidfile=", "imagefarm", *words)
            self.assertNotEqual(done.returncode, 0, words)
            self.assertNotIn("Traceback", done.stdout + done.stderr)

    def test_daemonized(self) -> None:
        """Without -n the command itself says so and fails: nothing has been detached yet."""
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", self.prefix.ports.slave1))
            done = self.prefix.run(
                "--pidfile=twistd.pid", "--logfile=twistd.log", "imagefarm", "slave", "--prefix",
                str(self.prefix.directory), "--config", str(self.prefix.conf("slave.conf")),
            )  # fmt: skip
        self.assertEqual(done.returncode, 1)
        self.assertIn("failed (98: Address already in use)", done.stderr)
        self.assertEqual(done.stderr.count("\n"), 1)
        self.assertFalse((self.prefix.directory / "twistd.pid").exists())
