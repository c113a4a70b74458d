"""The farm being replaced, as a directory: its two nginx.conf with ports and paths rewritten
(nothing else), a tree of files to serve, and PHP scripts for the FastCGI part."""

from __future__ import annotations

import getpass
import os
import random
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from .certificates import self_signed
from .processes import Daemon, free_ports

FARM = Path(__file__).parents[1] / "interop" / "farm"
SHIPPED = Path(__file__).parents[2] / "etc"

#: Old files have a fixed age: both servers derive ETag and Last-Modified from it.
MTIME = 1_700_000_000


def noise(size: int, seed: int) -> bytes:
    """Bytes that no codec can shrink, the same every time."""
    return random.Random(seed).randbytes(size)


def text(size: int, seed: int) -> bytes:
    """Words, the same every time."""
    words = ["still", "shot", "origin", "farm", "slave", "master", "resize", "이미지"]
    generator = random.Random(seed)
    out = " ".join(generator.choice(words) for _ in range(size // 4)).encode()
    return out[:size].decode("utf-8", "ignore").encode()


FILES: dict[str, bytes] = {
    "a.jpg": noise(10_240, 1),
    "b.png": noise(3_000, 2),
    "c.gif": noise(500, 3),
    "d.bmp": noise(70_000, 4),
    "e.webp": noise(9_000, 5),
    "big.jpg": noise(1_500_000, 6),
    "upper.JPG": noise(2_000, 7),
    "zero.jpg": b"",
    "one.jpg": b"x",
    "page.html": b"<html>" + text(4_000, 8) + b"</html>",
    "small.html": b"<html>small</html>",
    "exact1k.html": b"h" * 1024,
    "style.css": text(3_000, 9),
    "app.js": text(5_000, 10),
    "movie.swf": noise(4_000, 11),
    "data.txt": text(6_000, 12),
    "doc.xml": b"<?xml version='1.0'?><a>" + text(2_000, 13) + b"</a>",
    "feed.rss": b"<rss>" + text(2_000, 14) + b"</rss>",
    "noext": text(2_000, 15),
    ".hidden": b"hidden\n",
    "name with space.jpg": noise(800, 16),
    "한글.jpg": noise(900, 17),
    "plus+plus.jpg": noise(700, 18),
    "per%cent.jpg": noise(600, 19),
    "semi;colon.jpg": noise(600, 20),
    "dir/index.html": b"<html>index of dir</html>",
    "dir/inner.jpg": noise(1_000, 21),
    "deep/a/b/c.txt": text(1_500, 22),
    "deep/a/b/c.jpg": noise(1_500, 23),
    "upload/fe/profile/me.gif": noise(1_200, 24),
    "theme/micro/common/img/player/profile_thmb_default.gif": noise(1_300, 25),
    "thumbnail/ch1.jpg": noise(8_000, 26),
    "thumbnail/sub/ch2.jpg": noise(8_100, 27),
    "40x.html": b"<html>forty-x page of the farm</html>",
    "script.php": b"<?php echo 1;",
    "html": b"a file whose path has html in it" * 40,
}

SCRIPTS: dict[str, str] = {
    "index.php": '<?php echo "index of app";',
    "count.php": """<?php
$f = __DIR__ . "/count-" . preg_replace("/[^a-z0-9]/", "", $_GET["k"] ?? "x");
$n = (int)@file_get_contents($f) + 1; file_put_contents($f, $n);
header("X-Count: $n"); echo "count $n " . ($_GET["k"] ?? "");""",
    "status.php": """<?php
$f = __DIR__ . "/status-" . (int)$_GET["c"]; $n = (int)@file_get_contents($f) + 1;
file_put_contents($f, $n);
http_response_code((int)$_GET["c"]); if ($_GET["c"] == 302) header("Location: /elsewhere.jpg");
echo "status " . $_GET["c"] . " number $n";""",
    "header.php": """<?php
foreach ($_GET["h"] ?? [] as $line) header($line);
$f = __DIR__ . "/header-" . md5($_SERVER["QUERY_STRING"]); $n = (int)@file_get_contents($f) + 1;
file_put_contents($f, $n); echo "header number $n";""",
    "params.php": """<?php
header("Content-Type: text/plain");
foreach (["REQUEST_METHOD", "QUERY_STRING", "SCRIPT_NAME", "DOCUMENT_URI", "REQUEST_URI",
  "SERVER_PROTOCOL", "GATEWAY_INTERFACE", "CONTENT_TYPE", "CONTENT_LENGTH", "HTTP_HOST",
  "HTTP_X_FOO", "HTTP_COOKIE", "HTTP_PROXY", "REMOTE_ADDR", "REQUEST_SCHEME", "HTTPS",
  "SERVER_NAME", "REDIRECT_STATUS", "HTTP_IF_NONE_MATCH", "HTTP_RANGE"] as $k)
  echo "$k=" . (isset($_SERVER[$k]) ? $_SERVER[$k] : "(unset)") . "\\n";""",
    "body.php": """<?php $b = file_get_contents("php://input");
header("Content-Type: text/plain"); echo strlen($b) . " " . md5($b);""",
    "big.php": """<?php header("Content-Type: image/x-test");
for ($i = 0; $i < 300; $i++) echo str_repeat(chr(65 + $i % 26), 1000);""",
    "html.php": '<?php echo str_repeat("<p>compressible</p>", 200);',
    "empty.php": "<?php",
    "stderr.php": '<?php error_log("a note for the log"); echo "fine";',
    "sub/index.php": '<?php echo "index of sub";',
}


def write_files(root: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        os.utime(path, (MTIME, MTIME))
    for path in [p for p in root.rglob("*") if p.is_dir()]:
        os.utime(path, (MTIME, MTIME))


@dataclass
class Ports:
    """One farm's ports."""

    http: int
    https: int
    slave1: int
    slave2: int
    fastcgi: int
    dashboard: int

    @classmethod
    def free(cls) -> Ports:
        return cls(*free_ports(6))


class FarmSite:
    """One side's directory: ``conf/``, ``logs/``, ``images/``, ``app/``, ``html/``, ``ssl/``."""

    def __init__(self, directory: Path, ports: Ports, *, shipped_includes: bool = False) -> None:
        self.directory = directory
        self.ports = ports
        for name in ("conf", "logs", "images/emptydir", "app", "html", "ssl", "cache"):
            (directory / name).mkdir(parents=True, exist_ok=True)
        directory.chmod(0o755)
        write_files(directory / "images", FILES)
        write_files(directory / "html", {"50x.html": b"<html>fifty-x page of the farm</html>"})
        write_files(directory / "app", {k: v.encode() for k, v in SCRIPTS.items()})
        (directory / "app").chmod(0o777)
        self._certificate()
        if not shipped_includes:
            for name in ("mime.types", "fastcgi_params", "fastcgi.conf"):
                shutil.copy(SHIPPED / name, directory / "conf" / name)
        self.master = self._rewrite("nginx_master.conf", {"80": ports.http, "443": ports.https})
        self.slaves = [
            self._rewrite("nginx_slave.conf", {"8081": port}, f"slave{number}")
            for number, port in enumerate((ports.slave1, ports.slave2), 1)
        ]

    def _certificate(self) -> None:
        self_signed(self.directory / "ssl", "star")

    def _rewrite(self, name: str, listens: dict[str, int], suffix: str = "") -> Path:
        content = (FARM / name).read_text()
        here = str(self.directory)
        content = content.replace(
            "/home/webtob/server/nginx_image_master/ssl/star.tving.com", f"{here}/ssl/star"
        )
        content = content.replace("/home/webtob/server/nginx_image_master/cache", f"{here}/cache")
        content = content.replace("/home/webtob/app", f"{here}/app")
        content = re.sub(r"(root\s+)/images;", rf"\g<1>{here}/images;", content)
        content = content.replace("webtob", getpass.getuser())
        for old, new in listens.items():
            content = re.sub(rf"(listen\s+){old};", rf"\g<1>{new};", content)
        content = content.replace("127.0.0.1:8081", f"127.0.0.1:{self.ports.slave1}")
        content = content.replace("127.0.0.1:8082", f"127.0.0.1:{self.ports.slave2}")
        content = content.replace("127.0.0.1:9000", f"127.0.0.1:{self.ports.fastcgi}")
        if suffix:
            content = content.replace("nginx_slave01.pid", f"{suffix}.pid")
        path = self.directory / "conf" / (f"{suffix}.conf" if suffix else name)
        path.write_text(content)
        return path


def php_fpm(program: str, directory: Path, port: int, children: int = 4) -> Daemon:
    """Real php-fpm on ``port``."""
    user = getpass.getuser()
    config = directory / "php-fpm.conf"
    config.write_text(
        f"[global]\nerror_log = {directory}/php-fpm.log\ndaemonize = no\n"
        f"[www]\nuser = {user}\ngroup = {user}\nlisten = 127.0.0.1:{port}\npm = static\n"
        f"pm.max_children = {children}\ncatch_workers_output = yes\n"
    )
    root = ["--allow-to-run-as-root"] if os.geteuid() == 0 else []
    command = [program, "-y", str(config), "-F", *root]
    return Daemon(command, directory / "php-fpm.out", [port]).started()


def nginx(program: str, directory: Path, config: Path, ports: list[int], *globals_: str) -> Daemon:
    """Real nginx in the foreground, not yet awaited."""
    settings = "daemon off; " + " ".join(globals_)
    command = [program, "-p", str(directory), "-c", str(config), "-g", settings]
    return Daemon(command, directory / f"{config.stem}.out", ports)
