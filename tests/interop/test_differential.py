"""The farm's own two files on real nginx and on imagefarm: same requests, same answers.

Compared are the status, the significant headers, the body, and whether the connection is kept.
`DIFFERENCES` lists what is allowed to differ; docs/differences.md gives the reasons.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagefarm
from tests.support import farmsite, rawhttp, tools
from tests.support.processes import Daemon
from tests.support.processes import imagefarm as start_imagefarm
from tests.support.stages import StagedCase

from .corpus import Case, cases

#: Differ in every answer by their nature.
IGNORED = frozenset({"server", "date", "cache-status", "x-powered-by"})
#: Derived from the clock: compared as the distance between the two.
MOVING = frozenset({"expires"})

View = dict[str, Any]
Difference = Callable[[Case, View, View], None]


def _framing(case: Case, theirs: View, ours: View) -> None:
    """nginx streams what it compresses or gets by FastCGI; we know the length of a small answer.

    With the length come Accept-Ranges, ranges, and gzip_min_length (hence Vary).
    """
    chunked = [view["headers"].get("transfer-encoding") == ["chunked"] for view in (theirs, ours)]
    if chunked == [True, False]:
        _drop(theirs, "transfer-encoding")
        _drop(ours, "content-length", "accept-ranges")
        if b".php" in case.data and "content-encoding" not in theirs["headers"]:
            for view in (theirs, ours):
                values = view["headers"].pop("vary", [])
                view["headers"]["vary"] = [value for value in values if value != "Accept-Encoding"]


def _ranges_of_cached(case: Case, theirs: View, ours: View) -> None:
    """A cached answer has a length for us, so a range can be cut from it."""
    if "cached range" in case.name and theirs["status"] == 200 and ours["status"] == 206:
        assert theirs["body"].startswith(ours["body"])
        theirs.update(ours)


def _reason_of_applications(case: Case, theirs: View, ours: View) -> None:
    """nginx passes an application's reason phrase on; ours is always the standard's."""
    if b".php" in case.data:
        theirs["reason"] = ours["reason"]


def _server_token(case: Case, theirs: View, ours: View) -> None:
    """Built-in pages end with the server's name: of another length."""
    if case.data.startswith(b"HEAD") and theirs["status"] >= 300:
        _drop(theirs, "content-length")
        _drop(ours, "content-length")


def _allow(case: Case, theirs: View, ours: View) -> None:
    """A 405 of ours says what is allowed instead."""
    if theirs["status"] == ours["status"] == 405 and "allow" not in theirs["headers"]:
        assert ours["headers"].get("allow") in (["GET, HEAD"], None), ours
        _drop(ours, "allow")


def _drop(view: View, *names: str) -> None:
    for name in names:
        view["headers"].pop(name, None)


#: What may differ; docs/differences.md has the reasons under the same names.
DIFFERENCES: tuple[Difference, ...] = (
    _framing,
    _ranges_of_cached,
    _reason_of_applications,
    _server_token,
    _allow,
)


class Side:
    """One farm: nginx, or us."""

    def __init__(self, directory: Path) -> None:
        self.site = farmsite.FarmSite(directory, farmsite.Ports.free())
        self.daemons: list[Daemon] = []
        ports = self.site.ports
        self.ports = {"master": ports.http, "tls": ports.https, "slave": ports.slave1}

    def ask(self, case: Case) -> list[rawhttp.Answer | None]:
        port, tls = self.ports[case.side], case.side == "tls"
        return [rawhttp.exchange(port, case.data, tls=tls) for _ in range(case.times)]

    def view(self, answer: rawhttp.Answer | None) -> View | None:
        """What is compared of an answer."""
        if answer is None:
            return None
        headers: dict[str, list[str]] = {}
        for name, value in answer.headers:
            if name.lower() not in IGNORED | MOVING:
                headers.setdefault(name.lower(), []).append(
                    self._neutral(value.encode()).decode("latin-1")
                )
        body = self._neutral(answer.plain)
        if body != answer.body:
            headers.pop("content-length", None)
        boundary = re.search("boundary=(.*)", answer.header("content-type") or "")
        if boundary:
            body = body.replace(boundary[1].encode(), b"BOUNDARY")
            headers["content-type"] = ["multipart/byteranges; boundary=BOUNDARY"]
            headers.pop("content-length", None)
        return {"status": answer.status, "reason": answer.reason, "headers": headers, "body": body}

    def _neutral(self, data: bytes) -> bytes:
        ports = self.site.ports
        for kind, port in {**self.ports, "SLAVE": ports.slave2, "slave": ports.slave1}.items():
            data = data.replace(b":%d" % port, b":" + kind.lower().encode())
        data = re.sub(rb"nginx/[0-9.]+", b"SERVER", data)
        data = data.replace(b"imagefarm/" + imagefarm.__version__.encode(), b"SERVER")
        return data.replace(str(self.site.directory).encode(), b"PREFIX")

    def stop(self) -> None:
        for daemon in reversed(self.daemons):
            daemon.stop()


class Nginx(Side):
    """Real nginx, master and slaves, and php-fpm."""

    def start(self) -> None:
        site, ports = self.site, self.site.ports
        # No current client can speak what these lines offer; ours offers TLS 1.2 and 1.3 instead.
        text = site.master.read_text().replace("SSLv2 SSLv3 TLSv1;", "TLSv1.2 TLSv1.3;")
        site.master.write_text(text)
        self.daemons.append(farmsite.php_fpm(tools.php_fpm(), site.directory, ports.fastcgi))
        for config, listening in zip(
            [*site.slaves, site.master],
            [[ports.slave1], [ports.slave2], [ports.http, ports.https]],
            strict=True,
        ):
            self.daemons.append(farmsite.nginx(tools.nginx(), site.directory, config, listening))
            self.daemons[-1].started()


class Imagefarm(Side):
    """Our master and slaves with the same files, and php-fpm."""

    def start(self) -> None:
        site, ports = self.site, self.site.ports
        self.daemons.append(farmsite.php_fpm(tools.php_fpm(), site.directory, ports.fastcgi))
        for role, config, listening in zip(
            ["slave", "slave", "master"],
            [*site.slaves, site.master],
            [[ports.slave1], [ports.slave2], [ports.http, ports.https]],
            strict=True,
        ):
            daemon = start_imagefarm(
                role, site.directory, "--config", str(config), "--set", "worker_processes 1;",
                ports=listening,
            )  # fmt: skip
            self.daemons.append(daemon)
        for daemon in self.daemons:
            daemon.started()


class DifferentialTests(StagedCase):
    """One pair of farms for all cases."""

    def setUp(self) -> None:
        tools.nginx()
        tools.php_fpm()
        directory = Path(tempfile.mkdtemp(prefix="differential-"))
        self.addCleanup(shutil.rmtree, directory, ignore_errors=True)
        directory.chmod(0o755)
        self.nginx, self.ours = Nginx(directory / "nginx"), Imagefarm(directory / "imagefarm")
        for side in (self.nginx, self.ours):
            self.addCleanup(side.stop)
            side.start()

    def compare(self, case: Case) -> list[str]:
        """The differences found, a line each."""
        found = []
        pairs = zip(self.nginx.ask(case), self.ours.ask(case), strict=True)
        for number, (theirs, ours) in enumerate(pairs, 1):
            expected, got = self.nginx.view(theirs), self.ours.view(ours)
            if expected is None or got is None:
                if expected != got:
                    both = f"{_short(theirs)} {_short(ours)}"
                    found.append(f"{case.name} #{number}: closed without an answer: {both}")
                continue
            for difference in DIFFERENCES:
                difference(case, expected, got)
            for key in ("status", "reason", "body"):
                if expected[key] != got[key]:
                    values = f"{_short(expected[key])} != {_short(got[key])}"
                    found.append(f"{case.name} #{number}: {key} {values}")
            for name in sorted(expected["headers"].keys() | got["headers"].keys()):
                a, b = expected["headers"].get(name), got["headers"].get(name)
                if a != b:
                    found.append(f"{case.name} #{number}: {name}: {a} != {b}")
        return found

    def test_same_answers(self) -> None:
        """nginx's answer on the left, ours on the right of each difference."""
        everything = cases()
        self.assertGreaterEqual(len(everything), 150)
        found = [line for case in everything for line in self.compare(case)]
        self.assertEqual(found, [], f"{len(found)} differences:\n" + "\n".join(found))


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) < 160 else f"{text[:100]}...{text[-50:]} ({len(text)})"
