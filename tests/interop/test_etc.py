"""Our own etc/ as real nginx reads it."""

import datetime
import re
import shutil
import subprocess
from pathlib import Path

from imagefarm.process.certificate import ensure_self_signed
from tests.support.stages import StagedCase
from tests.support.tools import nginx

ETC = Path(__file__).resolve().parent.parent.parent / "imagefarm" / "etc"


class EtcTests(StagedCase):
    def setUp(self) -> None:
        self.nginx = nginx()
        self.prefix = Path(self.mktemp()).resolve()
        for name in ("logs", "cache", "html", "images"):
            (self.prefix / name).mkdir(parents=True)
        shutil.copytree(ETC, self.prefix / "conf")
        # nginx looks for certificates beside the configuration.
        ssl = self.prefix / "conf" / "ssl"
        now = datetime.datetime.now(datetime.UTC)
        ensure_self_signed(str(ssl / "imagefarm.pem"), str(ssl / "imagefarm.key"), now)

    def check(self, name: str, text: str) -> None:
        (self.prefix / "conf" / name).write_text(text)
        done = subprocess.run(
            [self.nginx, "-t", "-p", str(self.prefix), "-e", "stderr", "-c", f"conf/{name}"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_slave_is_nginx_s_but_for_the_two_that_nginx_lacks(self) -> None:
        text, count = re.subn(
            r"(?m)^ *(request_id_from +X-Request-ID.*|status);\n",
            "",
            (ETC / "slave.conf").read_text(),
        )
        self.assertEqual(count, 2)
        self.check("slave.conf", text)

    def test_master_is_but_for_the_five_that_nginx_lacks(self) -> None:
        words = (
            "status( +prometheus)?",
            r"dashboard[^;]*",
            "ssl_self_signed +on",
            "fastcgi_cache_(rfc9111 +on|follow_source +images)",
        )
        ours = rf"(?m)^ *({'|'.join(words)});\n"
        text, count = re.subn(ours, "", (ETC / "master.conf").read_text())
        self.assertEqual(count, 7)
        self.check("master.conf", text)
