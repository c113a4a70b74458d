"""Rewriting, matching, error pages and files: the same configuration on nginx and on imagefarm."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

import imagefarm
from tests.support import farmsite, rawhttp, tools
from tests.support.processes import Daemon, free_ports
from tests.support.processes import imagefarm as start_imagefarm
from tests.support.stages import StagedCase

from .routing.section import FILES
from .routing.table import DIFFERENT, configuration, requests

IGNORED = frozenset({"server", "date", "expires", "allow"})


class Site:
    """One side: files, a configuration on ports of its own, and who serves them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port, self.backend = free_ports(2)
        www = directory / "www"
        (www / "empty-dir").mkdir(parents=True)
        directory.chmod(0o755)
        files = {name: text.encode() for name, text in FILES.items()}
        farmsite.write_files(www, files)
        (www / "link.txt").symlink_to("a.txt")
        (www / "linkdir").symlink_to("dir")
        (www / "foreign.txt").symlink_to("/etc/passwd")
        (www / "broken.txt").symlink_to("nowhere")
        os.mkfifo(www / "fifo")
        text = configuration(str(directory), self.port, self.backend)
        self.config = directory / "server.conf"
        self.config.write_text(text)

    def nginx(self) -> Daemon:
        ports = [self.port, self.backend]
        return farmsite.nginx(tools.nginx(), self.directory, self.config, ports)

    def imagefarm(self) -> Daemon:
        words = ["--config", str(self.config)]
        ports = [self.port, self.backend]
        return start_imagefarm("slave", self.directory, *words, ports=ports)

    def ask(self, data: bytes) -> dict[str, Any] | None:
        """What is compared of the answer; None if there was none."""
        try:
            answer = rawhttp.exchange(self.port, data)
        except TimeoutError:
            return {"status": "no answer in time"}
        if answer is None:
            return None
        headers = sorted(
            (name.lower(), self._neutral(value))
            for name, value in answer.headers
            if name.lower() not in IGNORED
        )
        if data.startswith(b"HEAD") and answer.status >= 300:
            headers = [field for field in headers if field[0] != "content-length"]
        body = self._neutral(answer.body.decode("latin-1"))
        if "multipart" in (answer.header("content-type") or ""):
            body = re.sub(r"--\d+", "--BOUNDARY", body)
        if body != answer.body.decode("latin-1"):
            headers = [field for field in headers if field[0] != "content-length"]
        return {"status": answer.status, "reason": answer.reason, "headers": headers, "body": body}

    def _neutral(self, text: str) -> str:
        """Without what differs between two sides by nature."""
        text = text.replace(f":{self.port}", ":PORT").replace(str(self.directory), "SITE")
        text = re.sub(r"boundary=\w+", "boundary=BOUNDARY", text)
        text = re.sub(r"<center>nginx(/[0-9.]+)?</center>", "<center>SERVER</center>", text)
        own = f"<center>imagefarm/{imagefarm.__version__}</center>"
        return text.replace(own, "<center>SERVER</center>").replace(
            "<center>imagefarm</center>", "<center>SERVER</center>"
        )


class RewriteTests(StagedCase):
    """One nginx, one imagefarm, all requests."""

    def setUp(self) -> None:
        tools.nginx()
        directory = Path(tempfile.mkdtemp(prefix="rewrite-"))
        self.addCleanup(shutil.rmtree, directory, ignore_errors=True)
        directory.chmod(0o755)
        self.theirs, self.ours = Site(directory / "nginx"), Site(directory / "imagefarm")
        for daemon in (self.theirs.nginx(), self.ours.imagefarm()):
            self.addCleanup(daemon.stop)
            daemon.started()

    def test_same_answers(self) -> None:
        """nginx's answer first, then ours, in each difference."""
        everything = requests()
        self.assertGreaterEqual(len(everything), 150)
        found = []
        for name, data in everything:
            expected, got = self.theirs.ask(data), self.ours.ask(data)
            if name in DIFFERENT:
                self.assertNotEqual(expected, got, f"{name} differs no longer")
            elif expected != got:
                found.append(f"{name}\n    {expected}\n    {got}")
        if found:
            self.fail(f"{len(found)} of {len(everything)} differ:\n" + "\n".join(found))
