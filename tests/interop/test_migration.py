"""From nginx and php-fpm to imagefarm and back, as docs/operations.md says, under load.

The farm is the one being replaced: its own two configurations, real nginx three times, php-fpm.
Each instance is replaced by what the guide says, word by word, and nobody may notice.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from PIL import Image

from tests.interop.test_swaps import RESIZE, RESIZER
from tests.support import farmsite, rawhttp, tools
from tests.support.farm import REPOSITORY, end_farm
from tests.support.load import Load, make_body
from tests.support.processes import Daemon, accepts, descendants, running, wait_until
from tests.support.processes import imagefarm as start_imagefarm
from tests.support.stages import StagedCase

SCRIPT = """#!{python}
import sys
sys.path.insert(0, "{repository}")
from imagefarm.command import main
sys.exit(main())
"""
#: So that the generator of the load knows how long an answer is.
MEASURED = 'ob_start(); imagejpeg($small, null, 85); header("Content-Length: " . ob_get_length());'
IMAGES = [f"/photos/{number}.jpg" for number in range(40)]
#: More than are asked for, so that none is asked for twice: the cache is not what is looked at.
THUMBNAILS = [f"/resize.php?src=/photo.jpg&w={width}" for width in range(20, 1020)]
SECONDS = 30


class Instance:
    """What an init script knows: the program, the configuration, the pidfile."""

    def __init__(self, site: farmsite.FarmSite, name: str, config: Path) -> None:
        self.program = site.directory / "sbin" / f"nginx_{name}"
        self.config = config
        found = config.read_text().partition("\npid")[2].partition(";")[0]
        self.pidfile = site.directory / found.strip()
        self.options = ["-p", str(site.directory), "-c", str(config)]

    @property
    def pid(self) -> int:
        try:
            return int(self.pidfile.read_text())
        except (FileNotFoundError, ValueError):
            return 0


class Migration(StagedCase):
    def setUp(self) -> None:
        self.real = {"nginx": tools.nginx(), "php": tools.php_fpm()}
        top = Path(tempfile.mkdtemp(prefix="migration-"))
        self.addCleanup(shutil.rmtree, top, True)
        top.chmod(0o755)
        self.site = site = farmsite.FarmSite(top / "farm", farmsite.Ports.free())
        self.directory, self.ports = site.directory, site.ports
        self.fill()
        (self.directory / "sbin").mkdir()
        (self.directory / "bin").mkdir()
        self.imagefarm = self.directory / "bin" / "imagefarm"
        self.imagefarm.write_text(SCRIPT.format(python=sys.executable, repository=REPOSITORY))
        self.imagefarm.chmod(0o755)
        for config in (site.master, *site.slaves):
            self.edit(config, "worker_processes  8;", "worker_processes  2;")
        self.edit(site.master, "SSLv2 SSLv3 TLSv1;", "TLSv1.2 TLSv1.3;")
        self.master = Instance(site, "master", site.master)
        self.slaves = [
            Instance(site, f"slave0{number}", config)
            for number, config in enumerate(site.slaves, 1)
        ]
        self.addCleanup(self.end)

    def edit(self, path: Path, old: str, new: str) -> None:
        text = path.read_text()
        self.assertIn(old, text)
        path.write_text(text.replace(old, new))

    def fill(self) -> None:
        images = self.directory / "images"
        Image.new("RGB", (1200, 800), (200, 0, 0)).save(images / "photo.jpg")
        (images / "photos").mkdir()
        for number, target in enumerate(IMAGES):
            (images / target[1:]).write_bytes(make_body(target, 500 + 2000 * number))
        script = RESIZE.replace("imagejpeg($small, null, 85);", MEASURED)
        script = script.replace("IMAGES", str(images))
        (self.directory / "app" / "resize.php").write_text(script)
        (self.directory / "resizer.conf").write_text(
            RESIZER.replace("PORT", str(self.new_port())).replace("IMAGES", str(images))
        )

    def new_port(self) -> int:
        """Where our resizer listens, while php-fpm is still there."""
        if not hasattr(self, "_new_port"):
            self._new_port = farmsite.Ports.free().fastcgi
        return self._new_port

    def end(self) -> None:
        family = []
        for instance in (self.master, *self.slaves):
            for path in (instance.pidfile, Path(f"{instance.pidfile}.oldbin")):
                if path.exists() and path.read_text().strip():
                    pid = int(path.read_text())
                    family += [pid, *descendants(pid)]
        for pid in filter(running, family):
            os.kill(pid, signal.SIGKILL)

    # What the guide has the operator do.

    def link(self, instance: Instance, target: str | Path) -> None:
        instance.program.unlink(missing_ok=True)
        instance.program.symlink_to(target)

    def start_nginx(self, instance: Instance, *ports: int) -> None:
        self.link(instance, self.real["nginx"])
        subprocess.run([instance.program, *instance.options], check=True, capture_output=True)
        wait_until(lambda: all(map(accepts, ports)), SECONDS, "nginx")

    def start_php(self) -> Daemon:
        daemon = farmsite.php_fpm(self.real["php"], self.directory, self.ports.fastcgi, 2)
        self.addCleanup(daemon.stop)
        return daemon

    def start_resizer(self) -> Daemon:
        config = self.directory / "resizer.conf"
        daemon = start_imagefarm(
            "resizer", self.directory, "--config", str(config), ports=[self.new_port()]
        )
        self.addCleanup(end_farm, daemon)
        return daemon.started()

    def check(self, instance: Instance) -> None:
        done = subprocess.run(
            [self.imagefarm, "-t", *instance.options], capture_output=True, text=True, check=False
        )
        self.assertEqual(done.returncode, 0, done.stderr)

    def begin(self, instance: Instance, target: str | Path) -> tuple[int, int]:
        """USR2: the program behind the link is started beside the old one."""
        self.link(instance, target)
        old, oldbin = instance.pid, Path(f"{instance.pidfile}.oldbin")
        os.kill(old, signal.SIGUSR2)
        wait_until(lambda: instance.pid not in (0, old), SECONDS, "new pidfile")
        self.assertEqual(int(oldbin.read_text()), old)
        return old, instance.pid

    def own(self, old: int, new: int) -> set[int]:
        """The workers of the old one: the new one is its child, too."""
        return set(descendants(old)) - {new, *descendants(new)}

    def retire(self, old: int, new: int) -> None:
        """WINCH: only the new one serves."""
        os.kill(old, signal.SIGWINCH)
        wait_until(lambda: not self.own(old, new), SECONDS, "end of the old workers")

    def replace(self, instance: Instance, target: str | Path) -> None:
        """All of it, QUIT at the end."""
        old, new = self.begin(instance, target)
        self.retire(old, new)
        os.kill(old, signal.SIGQUIT)
        wait_until(lambda: not running(old), SECONDS, "end of the old program")
        self.assertEqual(instance.pid, new)
        self.assertFalse(Path(f"{instance.pidfile}.oldbin").exists())

    def turn_back(self, instance: Instance) -> None:
        """Half way: HUP has the old one's workers started again, QUIT ends the new one."""
        old, new = self.begin(instance, self.imagefarm)
        self.retire(old, new)
        os.kill(old, signal.SIGHUP)
        wait_until(lambda: bool(self.own(old, new)), SECONDS, "workers")
        os.kill(new, signal.SIGQUIT)
        wait_until(lambda: instance.pid == old, SECONDS, "pidfile's name")
        self.link(instance, self.real["nginx"])

    def point_at(self, port: int, was: int) -> None:
        """``fastcgi_pass`` in the master's file, and HUP."""
        old = set(descendants(self.master.pid))
        self.edit(self.master.config, f"fastcgi_pass   127.0.0.1:{was}",
                  f"fastcgi_pass   127.0.0.1:{port}")  # fmt: skip
        os.kill(self.master.pid, signal.SIGHUP)
        wait_until(lambda: not old & set(descendants(self.master.pid)), SECONDS, "new workers")

    def server(self, port: int, *, tls: bool = False) -> str:
        answer = rawhttp.exchange(
            port, rawhttp.request("/photo.jpg", "Connection: close"), tls=tls
        )
        assert answer is not None
        self.assertEqual(answer.status, 200)
        return (answer.header("server") or "").partition("/")[0]

    def servers(self) -> list[str]:
        """Who they are: both slaves, the master, the master by TLS."""
        ports = self.ports
        plain = [self.server(port) for port in (ports.slave1, ports.slave2, ports.http)]
        return [*plain, self.server(ports.https, tls=True)]

    def test_there_and_back(self) -> None:
        ports, (one, two), nginx = self.ports, self.slaves, self.real["nginx"]
        php = self.start_php()
        self.start_nginx(one, ports.slave1)
        self.start_nginx(two, ports.slave2)
        self.start_nginx(self.master, ports.http, ports.https)
        images = Load(ports.http, 30, IMAGES, kept=1)
        thumbnails = Load(ports.http, 4, THUMBNAILS, kept=1)
        with images, thumbnails:
            self.check(one)
            self.turn_back(one)
            self.assertEqual(self.servers(), ["nginx"] * 4)
            self.replace(one, self.imagefarm)
            self.replace(two, self.imagefarm)
            resizer = self.start_resizer()
            self.point_at(self.new_port(), ports.fastcgi)
            php.signal(signal.SIGQUIT)
            php.wait()
            self.assertEqual(self.servers(), ["imagefarm"] * 2 + ["nginx"] * 2)
            self.check(self.master)
            self.replace(self.master, self.imagefarm)
            self.assertEqual(self.servers(), ["imagefarm"] * 4)

            self.replace(self.master, nginx)
            self.start_php()
            self.point_at(ports.fastcgi, self.new_port())
            resizer.signal(signal.SIGQUIT)
            resizer.wait()
            self.replace(two, nginx)
            self.replace(one, nginx)
            self.assertEqual(self.servers(), ["nginx"] * 4)
        for load, enough in ((images, len(IMAGES)), (thumbnails, 10)):
            outcomes = Counter(answer.outcome.strip() for answer in load.answers)
            self.assertEqual(set(outcomes), {"good"}, outcomes)
            self.assertGreater(outcomes["good"], enough)
