"""``imagefarm`` with nginx's options, and the farm's own init script with ``nginx=`` set to it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SkipTest

from imagefarm import __version__
from imagefarm.command import Line, Usage
from tests.functional.test_commands import STATUS, CommandCase
from tests.support import farm
from tests.support.processes import accepts, descendants, running, wait_until
from tests.support.stages import StagedCase

SCRIPT = """#!{python}
import sys
from imagefarm.command import main
sys.exit(main())
"""

#: What the init script needs of /etc/rc.d/init.d/functions (Red Hat's), by pidof alone.
FUNCTIONS = """
pids_of() {{ pgrep -f "[ /]$1( |$)"; }}
daemon() {{ "$@"; }}
killproc() {{
    pids=$(pids_of $(basename $1))
    [ -n "$pids" ] || return 7
    kill ${{2:--TERM}} $pids
    [ "$2" = -QUIT ] || return 0
    for i in $(seq 100); do
        [ -z "$(pids_of $(basename $1))" ] && return 0
        sleep 0.1
    done
    return 1
}}
status() {{
    pids=$(pids_of $1)
    [ -n "$pids" ] && echo "$1 (pid" $pids") is running..." && return 0
    echo "$1 is stopped"
    return 3
}}
"""


class Parsing(StagedCase):
    def test_letters_and_values(self) -> None:
        line = Line.parse(["-tq", "-cFILE", "-g", "a 1; b 2;", "-Tp", "dir"])
        self.assertEqual(line.flags, {"t", "q", "T"})
        self.assertEqual(line.values, {"c": "FILE", "g": "a 1; b 2;", "p": "dir"})

    def test_wrong(self) -> None:
        """nginx's words."""
        for words, text in (
            (["x"], 'invalid option: "x"'),
            (["-tz"], 'invalid option: "z"'),
            (["-c"], 'option "-c" requires file name'),
            (["-p"], 'option "-p" requires directory name'),
            (["-s", "restart"], 'invalid option: "-s restart"'),
        ):
            self.assertEqual(str(self.assertRaises(Usage, Line.parse, words)), text)

    def test_where_the_configuration_is(self) -> None:
        """Where nginx would be installed; -p and -c as nginx has them."""
        for program, words, prefix, config in (
            ("/s/nginx_image_master/sbin/nginx_master", ["-c", "/x/y.conf"],
             "/s/nginx_image_master", "/x/y.conf"),
            ("/s/m/sbin/nginx", [], "/s/m", "/s/m/conf/nginx.conf"),
            ("/usr/bin/imagefarm", ["-c", "/etc/farm/conf/a.conf"], "/etc/farm",
             "/etc/farm/conf/a.conf"),
            ("/usr/bin/imagefarm", ["-p", "/srv", "-c", "a.conf"], "/srv", "/srv/a.conf"),
        ):  # fmt: skip
            options = Line.parse(words).options(program)
            self.assertEqual((options.prefix, options.config), (prefix, config))


class CommandLineCase(CommandCase):
    """The command in a prefix of its own, with a configuration of one server."""

    def setUp(self) -> None:
        super().setUp()
        self.config = self.prefix.write("nginx.conf", STATUS.format(port=self.port))
        bin_directory = self.prefix.directory / "bin"
        bin_directory.mkdir()
        self.program = bin_directory / "imagefarm"
        self.program.write_text(SCRIPT.format(python=sys.executable))
        self.program.chmod(0o755)
        self.pidfile = self.prefix.logs / "status.pid"
        self.addCleanup(self._end_daemon)

    def _end_daemon(self) -> None:
        pid = self.pid_in(self.pidfile)
        for one in [*descendants(pid), pid] if pid else ():
            if running(one):
                os.kill(one, signal.SIGKILL)

    def call(self, *words: str, program: str = "") -> tuple[int, str, str]:
        done = subprocess.run(
            [program or str(self.program), *words],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=60,
            cwd=self.prefix.directory, env={**os.environ, "PYTHONPATH": str(farm.REPOSITORY)},
        )  # fmt: skip
        return done.returncode, done.stdout, done.stderr

    def launch(self, said: str = "") -> int:
        """Its number. ``said`` is how what it says ends."""
        before = self.pidfile.read_bytes() if self.pidfile.exists() else b""
        status, out, err = self.call("-c", str(self.config))
        self.assertEqual((status, out, err[-len(said) :] if said else err), (0, "", said))

        def written() -> bool:
            return self.pidfile.exists() and self.pidfile.read_bytes() != before

        wait_until(written, 30, "pidfile")
        return self.pid_in(self.pidfile)


class CommandLine(CommandLineCase):
    def test_life(self) -> None:
        """Start in the background, test, reload, reopen, quit; each refusal in nginx's words."""
        where = ("-c", str(self.config))
        code, _, text = self.call("-s", "reload", *where)
        self.assertEqual(
            (code, text),
            (1, f'imagefarm: [error] open() "{self.pidfile}" failed '
                "(2: No such file or directory)\n"),
        )  # fmt: skip
        pid = self.launch()
        self.assertEqual(self.get().body, b"a file")
        self.assertFalse((self.prefix.directory / "twistd.log").exists())
        self.assertEqual((self.prefix.logs / "access.log").stat().st_mode & 0o777, 0o644)
        fine = (
            f"imagefarm: the configuration file {self.config} syntax is ok\n"
            f"imagefarm: configuration file {self.config} test is successful\n"
        )
        self.assertEqual(self.call("-t", *where), (0, "", fine))
        dump = f"# configuration file {self.config}:\n{self.config.read_text()}\n"
        self.assertEqual(self.call("-T", "-q", *where), (0, dump, ""))
        code, _, text = self.call(*where)
        self.assertEqual(code, 1)
        self.assertEqual(
            text,
            f'imagefarm: [emerg] already running as process {pid} (pidfile "{self.pidfile}")\n',
        )
        self.assertEqual(self.call("-s", "reload", *where), (0, "", ""))
        wait_until(lambda: "reconfigured" in self.prefix.log("error.log"), 30, "reload")
        self.assertEqual(self.call("-s", "reopen", *where)[0], 0)
        wait_until(lambda: "reopened logs" in self.prefix.log("error.log"), 30, "reopening")
        os.kill(pid, signal.SIGUSR2)  # what is started is what was called
        wait_until(lambda: self.pid_in(self.pidfile) not in (0, pid), 30, "new pidfile")
        new = self.pid_in(self.pidfile)
        command = Path(f"/proc/{new}/cmdline").read_bytes().split(b"\0")
        self.assertEqual(list(map(os.fsencode, (self.program, *where))), command[1:-1])
        os.kill(pid, signal.SIGQUIT)
        wait_until(lambda: not running(pid), 30, "end of the old one")
        self.assertEqual(self.get().body, b"a file")
        self.assertEqual(self.call("-s", "quit", *where)[0], 0)
        wait_until(lambda: not running(new), 30, "end")
        self.assertFalse(self.pidfile.exists())

    def test_what_is_wrong(self) -> None:
        child = os.posix_spawn("/bin/sleep", ["sleep", "60"], {})
        self.addCleanup(os.waitpid, child, 0)
        self.addCleanup(os.kill, child, signal.SIGKILL)
        self.prefix.logs.mkdir()
        self.pidfile.write_text(f"{child}\n")
        code, _, text = self.call("-s", "stop", "-c", str(self.config))
        self.assertEqual(
            (code, text),
            (1, f'imagefarm: [error] process {child} in "{self.pidfile}" is not imagefarm\n'),
        )
        self.assertTrue(running(child))
        self.config.write_text("wrong 1;\n")
        code, _, text = self.call("-t", "-q", "-c", str(self.config))
        self.assertEqual(
            (code, text.splitlines()),
            (1, [f'imagefarm: [emerg] unknown directive "wrong" in {self.config}:1',
                 f"imagefarm: configuration file {self.config} test failed"]),
        )  # fmt: skip
        self.assertEqual(self.call("-x")[2], 'imagefarm: invalid option: "x"\n')

    def test_version(self) -> None:
        self.assertEqual(self.call("-v"), (0, "", f"imagefarm version: imagefarm/{__version__}\n"))
        lines = self.call("-V", "-p", "/srv/x")[2].splitlines()
        self.assertEqual(
            lines[-1], "configure arguments: --prefix=/srv/x --conf-path=/srv/x/conf/nginx.conf"
        )
        self.assertIn("-s signal", self.call("-h")[2])

    def test_the_farms_init_script(self) -> None:
        """Nothing of it is changed but the path of nginx and where this test lives."""
        if not Path("/bin/bash").exists() or shutil.which("pgrep") is None:
            raise SkipTest("needs bash, which is /bin/sh on the farm, and pgrep")
        top = self.prefix.directory
        sbin = top / "sbin"
        sbin.mkdir()
        program = sbin / f"nginx_master{os.getpid()}"
        program.symlink_to(self.program)
        (top / "functions").write_text(FUNCTIONS.format())
        (top / "network").write_text("NETWORKING=yes\n")
        text = (Path(__file__).parents[1] / "interop/farm/init-nginx_master.sh").read_text()
        for old, new in (
            ("/etc/rc.d/init.d/functions", f"{top}/functions"),
            ("/etc/sysconfig/network", f"{top}/network"),
            ("/home/webtob/server/nginx_image_master/sbin/nginx_master", str(program)),
            ("/home/webtob/server/nginx_image_master/conf/nginx.conf", str(self.config)),
            ("/var/lock/subsys/nginx_master", f"{top}/lock"),
        ):
            self.assertIn(old, text)
            text = text.replace(old, new)
        script = top / "init"
        script.write_text(text)

        def service(action: str) -> int:
            return self.call(str(script), action, program="/bin/bash")[0]

        self.assertEqual([service("status"), service("stop"), service("reload")], [3, 0, 7])
        self.assertEqual(service("start"), 0)
        wait_until(lambda: self.pid_in(self.pidfile) > 0, 30, "pidfile")
        pid = self.pid_in(self.pidfile)
        self.assertEqual([service("start"), service("status"), service("configtest")], [0, 0, 0])
        self.assertTrue((top / "lock").exists())
        self.assertEqual(service("reload"), 0)
        wait_until(lambda: "reconfigured" in self.prefix.log("error.log"), 30, "reload")
        self.assertEqual(self.pid_in(self.pidfile), pid)
        good = self.config.read_text()
        self.config.write_text("wrong 1;\n")
        self.assertEqual([service("configtest"), service("restart")], [1, 1])
        self.assertEqual(self.get().body, b"a file")
        self.config.write_text(good)
        self.assertEqual(service("restart"), 0)
        wait_until(lambda: self.pid_in(self.pidfile) not in (0, pid), 30, "another pid")
        self.assertEqual(self.get().body, b"a file")
        self.assertEqual(service("stop"), 0)
        self.assertFalse(accepts(self.port))
        self.assertFalse(self.pidfile.exists() or (top / "lock").exists())
