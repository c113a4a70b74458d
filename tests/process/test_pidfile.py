import os
import stat
import subprocess
import sys

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.process import pidfile
from imagefarm.process.pidfile import AlreadyRunning, Life, PidFile, PidFileError


class PidFileTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = self.mktemp()
        os.mkdir(self.directory)
        self.path = os.path.join(self.directory, "logs", "master.pid")
        self.warnings: list[str] = []
        self.lives: dict[int, Life] = {}
        self.pid = 100

    def make(self) -> PidFile:
        return PidFile(
            self.path,
            self.warnings.append,
            lambda: self.pid,
            lambda pid: self.lives.get(pid, Life.DEAD),
        )

    def content(self) -> bytes:
        with open(self.path, "rb") as file:
            return file.read()

    def put(self, content: bytes) -> None:
        os.makedirs(os.path.dirname(self.path), exist_ok=True)
        with open(self.path, "wb") as file:
            file.write(content)

    def test_written_whole_and_readable_by_all(self) -> None:
        self.make().write()
        self.assertEqual(self.content(), b"100\n")
        self.assertEqual(stat.S_IMODE(os.stat(self.path).st_mode), 0o644)
        self.assertEqual(os.listdir(os.path.dirname(self.path)), ["master.pid"])
        self.assertEqual(self.warnings, [])

    def test_removed_at_the_end(self) -> None:
        ours = self.make()
        ours.write()
        ours.remove()
        self.assertFalse(os.path.exists(self.path))
        ours.remove()

    def test_not_removed_when_another_process_owns_it_by_now(self) -> None:
        ours = self.make()
        ours.write()
        self.put(b"200\n")
        ours.remove()
        self.assertEqual(self.content(), b"200\n")

    def test_not_removed_by_a_forked_child(self) -> None:
        ours = self.make()
        ours.write()
        self.pid = 101
        ours.remove()
        self.assertEqual(self.content(), b"100\n")

    def test_not_removed_when_it_was_never_written(self) -> None:
        self.put(b"100\n")
        self.make().remove()
        self.assertEqual(self.content(), b"100\n")

    def test_live_process_of_ours(self) -> None:
        self.put(b"200\n")
        self.lives[200] = Life.OURS
        error = self.assertRaises(AlreadyRunning, self.make().write)
        self.assertEqual(error.pid, 200)
        self.assertEqual(str(error), f'already running as process 200 (pidfile "{self.path}")')
        self.assertEqual(self.content(), b"200\n")

    def test_dead_process(self) -> None:
        self.put(b"200\n")
        ours = self.make()
        ours.check()
        ours.write()
        self.assertEqual(self.content(), b"100\n")
        self.assertEqual(
            self.warnings, [f'pidfile "{self.path}" is stale: process 200 is dead, replaced']
        )

    def test_number_reused_by_a_stranger(self) -> None:
        self.put(b"200\n")
        self.lives[200] = Life.FOREIGN
        self.make().write()
        self.assertEqual(self.content(), b"100\n")
        self.assertIn("process 200 is not imagefarm", self.warnings[0])

    def test_our_own_number_from_an_earlier_boot(self) -> None:
        self.put(b"100\n")
        self.lives[100] = Life.OURS
        self.make().write()
        self.assertEqual(self.content(), b"100\n")

    def test_garbage(self) -> None:
        for garbage in (b"", b"-1\n", b"0\n", b"what\n", b"\xff" * 100, b"1 2\n"):
            self.put(garbage)
            self.warnings.clear()
            self.make().write()
            self.assertEqual(self.content(), b"100\n")
            self.assertEqual(
                self.warnings, [f'pidfile "{self.path}" holds no process number, replaced']
            )

    def test_directory_that_can_not_be_made(self) -> None:
        with open(os.path.join(self.directory, "logs"), "wb"):
            pass
        error = self.assertRaises(PidFileError, self.make().write)
        self.assertIn(f'open() "{self.path}" failed (', str(error))

    @given(st.binary(max_size=80))
    def test_any_content_is_read_or_refused(self, content: bytes) -> None:
        self.put(content)
        pid = pidfile.read(self.path)
        if pid is not None:
            self.assertGreater(pid, 0)
            digits = content[: pidfile.MAX_BYTES].strip()
            self.assertEqual(digits.lstrip(b"0"), b"%d" % pid)


class InspectTests(SynchronousTestCase):
    def run_until_read(self, *words: str) -> Life:
        code = "import sys; print('up', flush=True); sys.stdin.read()"
        with subprocess.Popen(
            [sys.executable, "-c", code, *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as child:
            assert child.stdout is not None
            child.stdout.readline()
            life = pidfile.inspect(child.pid)
            child.communicate(b"")
        self.gone = child.pid
        return life

    def test_ours(self) -> None:
        self.assertIs(self.run_until_read("imagefarm", "master"), Life.OURS)

    def test_foreign(self) -> None:
        self.assertIs(self.run_until_read("/srv/imagefarm/var"), Life.FOREIGN)

    def test_dead(self) -> None:
        self.run_until_read("imagefarm")
        self.assertIs(pidfile.inspect(self.gone), Life.DEAD)

    def test_no_such_number(self) -> None:
        self.assertIs(pidfile.inspect(2**40), Life.FOREIGN)
