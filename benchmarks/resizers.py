"""The resizers that are compared, each over HTTP with two processes or threads that decode."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.pairs import Reading
from benchmarks.servers import measure
from tests.support.farmsite import nginx as start_nginx
from tests.support.farmsite import php_fpm as start_php_fpm
from tests.support.processes import Daemon, descendants, free_ports, imagefarm, wait_until
from tests.support.tools import nginx, php_fpm

HERE = Path(__file__).parent / "peers"
SHIPPED = Path(__file__).parents[1] / "imagefarm" / "etc"
#: What is set up: one version each, that the figures of two machines can be compared.
SHARP = "sharp@0.35.5"
THUMBOR = ("thumbor==7.8.0", "setuptools<81")
WORKERS = 2


@dataclass(frozen=True)
class Wish:
    """One picture: the original's name, the width of the result, its format and quality."""

    src: str
    width: int
    fmt: str = "jpeg"
    quality: int = 80


@dataclass(frozen=True)
class Resizer:
    """A running one."""

    name: str
    port: int
    daemons: Sequence[Daemon]
    target: Callable[[Wish], str]

    def processes(self) -> list[int]:
        """All of its processes."""
        return [pid for d in self.daemons for pid in (d.pid, *descendants(d.pid))]

    def measure(self, action: Callable[[], Reading]) -> Reading:
        """Do ``action`` and add what the processes spent meanwhile."""
        return measure(self.processes, action)

    def memory(self) -> int:
        """Bytes of memory, what processes share counted once (proc(5), Pss)."""
        return sum(map(_pss, self.processes()))


def _pss(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


def _query(path: str) -> Callable[[Wish], str]:
    return lambda wish: f"{path}?src=/{wish.src}&w={wish.width}&q={wish.quality}&fmt={wish.fmt}"


def _thumbor(wish: Wish) -> str:
    filters = f"filters:quality({wish.quality}):format({wish.fmt})"
    return f"/unsafe/{wish.width}x0/{filters}/{wish.src}"


_MASTER = """
pid logs/master.pid;
error_log logs/master_error.log warn;
worker_processes 1;
events {{ worker_connections 512; }}
http {{
    access_log off;
    upstream responder {{ server 127.0.0.1:{backend}; {kept} }}
    server {{
        listen 127.0.0.1:{port};
        location / {{ fastcgi_pass responder; {more} }}
    }}
}}
"""
_RESIZER = """
pid logs/resizer.pid;
error_log logs/resizer_error.log warn;
resizer {{
    listen 127.0.0.1:{port};
    root {images};
    processes {workers};
    {more}
}}
"""


def _site(where: Path) -> None:
    for name in ("conf", "logs"):
        (where / name).mkdir(parents=True)
    for name in ("fastcgi.conf", "fastcgi_params"):
        shutil.copy(SHIPPED / name, where / "conf" / name)


@contextmanager
def ours(where: Path, images: Path, reuse: bool) -> Iterator[Resizer]:
    """Our master before our resizer; ``reuse`` keeps decoded pictures, as is the default."""
    _site(where)
    port, backend = free_ports(2)
    include = f"include {where}/conf/fastcgi.conf; fastcgi_keep_conn on;"
    master = where / "conf/master.conf"
    master.write_text(
        _MASTER.format(port=port, backend=backend, kept="keepalive 8;", more=include)
    )
    resizer = where / "conf/resizer.conf"
    more = "" if reuse else "intermediates 0;"
    resizer.write_text(_RESIZER.format(port=backend, images=images, workers=WORKERS, more=more))
    with ExitStack() as stack:
        daemons = []
        for role, config, listens in (("resizer", resizer, backend), ("master", master, port)):
            daemon = imagefarm(role, where, "--config", str(config), ports=[listens])
            stack.callback(daemon.stop)
            daemons.append(daemon.started())
        workers = "imagefarm.image.worker"
        wait_until(lambda: _named(daemons[0].pid, workers) == WORKERS, what="workers")
        yield Resizer("imagefarm", port, daemons, _query("/resize"))


def _named(pid: int, module: str) -> int:
    """How many descendants of ``pid`` run a Python module."""
    lines = (Path(f"/proc/{child}/cmdline").read_bytes() for child in descendants(pid))
    return sum(module.encode() in line for line in lines)


@contextmanager
def gd(where: Path, images: Path, peers: Path, reuse: bool) -> Iterator[Resizer]:
    """nginx before php-fpm with two children, which run the farm's script."""
    _site(where)
    (where / "images").symlink_to(images)
    shutil.copy(HERE / "resize.php", where / "resize.php")
    port, backend = free_ports(2)
    more = (
        f"root {images}; include {where}/conf/fastcgi.conf;"
        f" fastcgi_param SCRIPT_FILENAME {where}/resize.php;"
    )
    config = where / "conf/nginx.conf"
    # No connection is kept: it would hold a child of php-fpm, and others would wait for it.
    config.write_text(_MASTER.format(port=port, backend=backend, kept="", more=more))
    with ExitStack() as stack:
        fpm = start_php_fpm(php_fpm(), where, backend, WORKERS)
        stack.callback(fpm.stop)
        front = start_nginx(nginx(), where, config, [port])
        stack.callback(front.stop)
        yield Resizer("php-fpm", port, [fpm, front.started()], _query("/resize.php"))


@contextmanager
def thumbor(where: Path, images: Path, peers: Path, reuse: bool) -> Iterator[Resizer]:
    """thumbor with two processes."""
    where.mkdir()
    (port,) = free_ports(1)
    config = where / "thumbor.conf"
    config.write_text(
        (HERE / "thumbor.conf").read_text() + f"FILE_LOADER_ROOT_PATH = '{images}'\n"
    )
    command = [
        str(peers / "thumbor/bin/thumbor"), "-p", str(port), "-i", "127.0.0.1", "-c", str(config),
        "--processes", str(WORKERS), "-l", "error",
    ]  # fmt: skip
    daemon = Daemon(command, where / "thumbor.out", [port], cwd=where)
    try:
        yield Resizer("thumbor", port, [daemon.started()], _thumbor)
    finally:
        daemon.kill()  # asked to end, it would leave its processes behind


@contextmanager
def sharp(where: Path, images: Path, peers: Path, reuse: bool) -> Iterator[Resizer]:
    """sharp behind a small node server; ``reuse`` leaves its caches on, as is the default."""
    where.mkdir()
    (port,) = free_ports(1)
    words = [str(HERE / "sharp.cjs"), str(images), str(port), "on" if reuse else "off"]
    daemon = Daemon(["node", *words], where / "sharp.out", [port], cwd=peers / "sharp")
    try:
        yield Resizer("sharp", port, [daemon.started()], _query("/"))
    finally:
        daemon.stop()


PEERS = {"php-fpm": gd, "thumbor": thumbor, "sharp": sharp}


def installed(peers: Path) -> dict[str, bool]:
    """Which peers are here."""
    fpm = shutil.which("nginx") or Path("/usr/sbin/nginx").exists()
    return {
        "php-fpm": bool(fpm) and any(Path("/usr/sbin").glob("php-fpm*")),
        "thumbor": (peers / "thumbor/bin/thumbor").exists(),
        "sharp": (peers / "sharp/node_modules/sharp").exists() and bool(shutil.which("node")),
    }


def set_up(peers: Path) -> None:
    """Install thumbor (PyPI) and sharp (npm) below ``peers``. Each may fail without the other."""
    place = peers / "thumbor"
    _run([sys.executable, "-m", "venv", str(place)], peers)
    _run([str(place / "bin/python"), "-m", "pip", "install", "-q", *THUMBOR], peers)
    place = peers / "sharp"
    place.mkdir(parents=True, exist_ok=True)
    (place / "package.json").write_text('{"private": true}\n')
    # Without scripts: the library comes as a package of its own, nothing else is fetched.
    _run(["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", SHARP], place)


def _run(command: list[str], where: Path) -> None:
    where.mkdir(parents=True, exist_ok=True)
    print("$", " ".join(command), flush=True)
    try:
        subprocess.run(command, cwd=where, check=True, env={**os.environ, "NO_COLOR": "1"})
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"  {error}", flush=True)
