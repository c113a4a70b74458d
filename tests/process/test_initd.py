"""The init scripts, run by the system's sh with a daemon that only keeps a pidfile."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

ETC = Path(__file__).resolve().parent.parent.parent / "etc"
SCRIPTS = ("master", "slave01", "slave02", "resizer")

#: Stands in for twistd: detaches, writes the pidfile, notes signals, goes away on QUIT.
DAEMON = """#!{python}
import os, signal, sys
words = sys.argv[1:]
setting = words[words.index("--set") + 1]
path = setting.removeprefix("pid ").removesuffix(";")
directory = os.path.dirname(path)
with open(os.path.join(directory, "arguments"), "w") as file:
    file.write(" ".join(words))
if "--refuse" in words:
    sys.exit(1)
if "--check" in words:
    print("--wrong" in words)
    sys.exit("--wrong" in words)
if os.fork():
    os._exit(0)
os.setsid()
null = os.open(os.devnull, os.O_RDWR)
for fd in (0, 1, 2):
    os.dup2(null, fd)
def note(number, frame):
    with open(os.path.join(directory, "signals"), "a") as file:
        file.write(signal.Signals(number).name + " ")
    if number == signal.SIGQUIT:
        os.unlink(path)
        os._exit(0)
for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGQUIT):
    signal.signal(number, note)
with open(path + ".new", "w") as file:
    file.write(str(os.getpid()) + "\\n")
os.rename(path + ".new", path)
signal.alarm(60)
while True:
    signal.pause()
"""


class InitScriptTests(SynchronousTestCase):
    def setUp(self) -> None:
        if not (ETC / "init.d").is_dir():
            raise SkipTest("not a source tree")
        top = Path(self.mktemp()).resolve()
        self.run_directory = top / "run"
        conf = top / "conf"
        conf.mkdir(parents=True)
        for name in ("master.conf", "slave.conf", "resizer.conf"):
            (conf / name).touch()
        self.daemon = top / "twistd"
        self.daemon.write_text(DAEMON.format(python=sys.executable))
        self.daemon.chmod(0o755)
        self.defaults = top / "defaults"
        self.settings = {
            "TWISTD": str(self.daemon),
            "CONFIG_DIR": str(conf),
            "PREFIX": str(top / "prefix"),
            "PID_DIR": str(self.run_directory),
            "START_TIMEOUT": "5",
            "STOP_TIMEOUT": "5",
        }
        self.addCleanup(self.kill)

    def kill(self) -> None:
        for path in self.run_directory.glob("*.pid"):
            if "dead" not in path.name and path.read_text().strip().isdigit():
                try:
                    os.kill(int(path.read_text()), signal.SIGKILL)
                except ProcessLookupError:
                    continue

    def call(self, name: str, action: str) -> tuple[int, str]:
        self.defaults.write_text("".join(f"{k}='{v}'\n" for k, v in self.settings.items()))
        done = subprocess.run(
            ["sh", str(ETC / "init.d" / f"imagefarm-{name}"), action],
            env={
                **os.environ,
                "IMAGEFARM_DEFAULTS": str(self.defaults),
                "IMAGEFARM_INIT_DIR": str(ETC / "init.d"),
                "IMAGEFARM_FUNCTIONS": str(ETC / "init.d" / "imagefarm-functions"),
            },
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        return done.returncode, (done.stdout + done.stderr).strip()

    def pidfile(self, name: str) -> Path:
        return self.run_directory / f"{name}.pid"

    def signals(self) -> str:
        return (self.run_directory / "signals").read_text()

    def test_syntax(self) -> None:
        for name in (
            *(f"imagefarm-{name}" for name in SCRIPTS),
            "imagefarm-farm",
            "imagefarm-functions",
        ):
            done = subprocess.run(["sh", "-n", str(ETC / "init.d" / name)], check=False)
            self.assertEqual(done.returncode, 0, name)

    def test_a_life(self) -> None:
        self.assertEqual(self.call("master", "status"), (3, "imagefarm master: stopped"))
        code, text = self.call("master", "start")
        pid = int(self.pidfile("master").read_text())
        self.assertEqual((code, text), (0, f"imagefarm master: started (pid {pid})"))
        self.assertEqual(
            self.call("master", "start"), (0, f"imagefarm master: already running (pid {pid})")
        )
        self.assertEqual(
            self.call("master", "status"), (0, f"imagefarm master: running (pid {pid})")
        )
        self.assertEqual(self.call("master", "reload")[0], 0)
        self.assertEqual(self.call("master", "reopen")[0], 0)
        self.assertEqual(self.call("master", "stop"), (0, "imagefarm master: stopped"))
        self.assertEqual(self.signals(), "SIGHUP SIGUSR1 SIGQUIT ")
        self.assertEqual(self.call("master", "stop"), (0, "imagefarm master: not running"))
        self.assertFalse(self.pidfile("master").exists())

    def test_restart(self) -> None:
        self.call("slave01", "start")
        before = self.pidfile("slave01").read_text()
        self.assertEqual(self.call("slave01", "restart")[0], 0)
        self.assertNotEqual(self.pidfile("slave01").read_text(), before)

    def test_restart_only_what_runs(self) -> None:
        self.assertEqual(self.call("slave01", "condrestart"), (0, ""))
        self.assertFalse(self.pidfile("slave01").exists())

    def test_wrong_configuration(self) -> None:
        """Nothing is stopped or told for its sake; 6: not configured."""
        self.call("master", "start")
        pid = self.pidfile("master").read_text()
        self.assertEqual(self.call("master", "configtest")[0], 0)
        self.settings["master_OPTIONS"] = "--wrong"
        for action in ("configtest", "reload", "restart", "condrestart"):
            self.assertEqual(self.call("master", action)[0], 6, action)
        self.assertEqual(self.pidfile("master").read_text(), pid)
        self.assertFalse((self.run_directory / "signals").exists())

    def test_the_farm(self) -> None:
        """Slaves and resizer before the master, and after it when they stop."""
        names = ["slave01", "slave02", "resizer", "master"]

        def said(action: str, word: str) -> list[str]:
            code, text = self.call("farm", action)
            self.assertEqual(code, 0, text)
            return [line.split()[1].rstrip(":") for line in text.splitlines() if word in line]

        self.assertEqual(self.call("farm", "status")[0], 3)
        self.assertEqual(said("start", "started"), names)
        self.assertEqual(said("status", "running"), names)
        self.assertEqual(said("reload", "reloading"), names)
        self.assertEqual(said("restart", "started"), names)
        self.assertEqual(said("stop", "stopped"), ["master", "slave01", "slave02", "resizer"])
        self.settings["slave02_OPTIONS"] = "--refuse"
        self.assertEqual(self.call("farm", "start")[0], 1)
        self.assertFalse(self.pidfile("master").exists())
        self.assertEqual(self.call("farm", "dance")[0], 2)

    def test_arguments_of_each(self) -> None:
        prefix, conf = self.settings["PREFIX"], self.settings["CONFIG_DIR"]
        self.settings["slave02_OPTIONS"] = "--root /images"
        for name, role, more in (
            ("master", "master", ""),
            ("slave01", "slave", " --port 8081"),
            ("slave02", "slave", " --port 8082 --root /images"),
            ("resizer", "resizer", ""),
        ):
            self.assertEqual(self.call(name, "start")[0], 0)
            self.assertEqual(
                (self.run_directory / "arguments").read_text(),
                f"--pidfile= imagefarm {role} --config {conf}/{role}.conf --prefix {prefix} "
                f"--set pid {self.run_directory}/{name}.pid;{more}",
            )

    def test_pidfile_of_the_dead_and_of_strangers(self) -> None:
        self.run_directory.mkdir(parents=True)
        with subprocess.Popen(["sleep", "30"]) as stranger:
            for content in ("", "nonsense", "999999999", str(stranger.pid)):
                self.pidfile("master").write_text(content + "\n")
                code, text = self.call("master", "status")
                self.assertEqual(code, 1)
                self.assertIn("dead, but", text)
                self.assertEqual(self.call("master", "stop")[0], 0)
                self.assertEqual(self.call("master", "reopen")[0], 7)
            self.assertIsNone(stranger.poll())
            self.assertEqual(self.call("master", "start")[0], 0)
            stranger.kill()

    def test_what_is_missing(self) -> None:
        self.assertEqual(self.call("master", "reopen")[0], 7)
        self.assertEqual(self.call("master", "dance")[0], 2)
        self.settings["CONFIG_DIR"] = "/no/such"
        self.assertEqual(self.call("master", "start")[0], 6)
        self.settings["TWISTD"] = "/no/such/twistd"
        self.assertEqual(self.call("master", "start")[0], 5)

    def test_refused_start(self) -> None:
        self.settings["master_OPTIONS"] = "--refuse"
        self.assertEqual(self.call("master", "start"), (1, "imagefarm master: did not start"))
