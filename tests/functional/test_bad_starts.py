"""What stands in the way of a start: one clear line each, and the right exit status."""

from __future__ import annotations

import os
import signal
import socket
import subprocess

from tests.functional.test_command_line import CommandLineCase
from tests.functional.test_commands import STATUS
from tests.support.processes import wait_until


class BadStarts(CommandLineCase):
    """In the background, as init scripts start it: they see stderr and the exit status."""

    def refuse(self, *settings: str) -> str:
        """The line on stderr, without its prefix."""
        words = ["-g", " ".join(settings)] if settings else []
        status, out, err = self.call("-c", str(self.config), *words)
        self.assertEqual((status, out), (1, ""), err)
        prefix, word, line = err.partition("imagefarm: [emerg] ")
        self.assertEqual((prefix, word, line[-1:], line.count("\n")), ("", word, "\n", 1), err)
        self.assertFalse(self.pidfile.exists() and self.pid_in(self.pidfile) == 0)
        return line.rstrip("\n")

    def test_directories_and_files(self) -> None:
        """Those that can't be written to; not even by root, in /proc and below a file."""
        directory = self.prefix.directory
        (directory / "file").write_text("")
        for old, new, line in (
            ("logs/error.log", "file/e.log",
             f'open() "{directory}/file/e.log" failed (20: Not a directory)'),
            ("logs/status.pid", "/proc/none/a.pid",
             'open() "/proc/none/a.pid" failed (2: No such file or directory)'),
            ("logs/status.pid", "images",
             f'open() "{directory}/images" failed (21: Is a directory)'),
            ("logs/access.log", "/proc/none/a.log",
             'open() "/proc/none/a.log" failed (2: No such file or directory) '
             f"in {self.config}:6"),
        ):  # fmt: skip
            self.config.write_text(STATUS.format(port=self.port).replace(old, new))
            self.assertEqual(self.refuse(), line)

    def test_port_taken(self) -> None:
        """The line is in the error log, too; it is the only one there."""
        with socket.create_server(("127.0.0.1", self.port)):
            line = f"bind() to 127.0.0.1:{self.port} failed (98: Address already in use)"
            self.assertEqual(self.refuse(), line)
        self.assertFalse(self.pidfile.exists())

    def test_users(self) -> None:
        if os.geteuid() == 0:
            self.assertEqual(self.refuse("user nobody2;"), 'getpwnam("nobody2") failed in --set:1')

    def test_pidfiles(self) -> None:
        """Of a foreign process, or without a number: replaced, which is said here and in the
        error log. (Of a dead one, and one of ours: test_commands, test_command_line.)"""
        self.prefix.logs.mkdir()
        stranger = subprocess.Popen(["/bin/sleep", "60"])
        self.addCleanup(stranger.wait)
        self.addCleanup(stranger.kill)
        for content, text in (
            (f"{stranger.pid}\n", f"is stale: process {stranger.pid} is not imagefarm, replaced"),
            ("nobody\n", "holds no process number, replaced"),
        ):
            self.pidfile.write_text(content)
            line = f'pidfile "{self.pidfile}" {text}\n'
            pid = self.launch(line)
            self.assertIn(line, self.prefix.log("error.log"))
            self.assertIsNone(stranger.poll())
            os.kill(pid, signal.SIGTERM)
            wait_until(lambda: not self.pidfile.exists(), 30, "end")
