"""Paths that try to leave the root, or to reach what is no file: never the file's content."""

from __future__ import annotations

import os
import socket

from twisted.trial.unittest import SkipTest

from tests.support import farm, rawhttp
from tests.support.stages import Cleanup, StagedCase, shared

SECRET = b"what nobody may read"

#: One server with a location for each value of disable_symlinks.
CONFIG = """
error_log  logs/error.log notice;
events {{ }}
http {{
    access_log  off;
    root        {root};
    server {{
        listen  127.0.0.1:{port};
        location /on/    {{ disable_symlinks on; }}
        location /owner/ {{ disable_symlinks if_not_owner; }}
        location /from/  {{ disable_symlinks on from={root}/from; }}
        location /off/   {{ disable_symlinks off; }}
        location ^~ /alias/ {{ alias {root}/images/; }}
        location /       {{ }}
    }}
}}
"""

#: Each would be /secret.txt, above the root, if it were believed.
CLIMBING = (
    "/../secret.txt",
    "/images/../../secret.txt",
    "/images/../../../../../../../../../../..{root}/secret.txt",
    "/%2e%2e/secret.txt",
    "/%2E%2E%2Fsecret.txt",
    "/..%2fsecret.txt",
    "/images/..%2f..%2fsecret.txt",
    "/images/%2e%2e/%2e%2e/secret.txt",
    "/.%2e/secret.txt",
    "//../secret.txt",
    "/./../secret.txt",
    "/images/./.././../secret.txt",
    "/..%5csecret.txt",
    "/..\\secret.txt",
    "/%252e%252e/secret.txt",
    "/%c0%ae%c0%ae/secret.txt",
    "/..%00/secret.txt",
    "/....//secret.txt",
    "/..;/secret.txt",
    "/alias/../secret.txt",
    "/alias../secret.txt",
    "/alias/..%2f..%2fsecret.txt",
    "/alias/%2e%2e/%2e%2e/secret.txt",
)
MALFORMED = (
    "/a.jpg%00",
    "/a.jpg%00.txt",
    "/%",
    "/a%2",
    "/a%zz.jpg",
    "/%g0",
    "/a.jpg%",
    "/a\x00.jpg",
    "a.jpg",
    "../a.jpg",
    "",
)


@shared
def served(cleanup: Cleanup) -> farm.Prefix:
    """A slave over a tree of traps."""
    prefix = farm.temporary_prefix(cleanup)
    outer = prefix.directory / "outer"
    root = outer / "root"
    (root / "images").mkdir(parents=True)
    (outer / "secret.txt").write_bytes(SECRET)
    (root / "a.jpg").write_bytes(b"fine")
    (root / "images" / "b.jpg").write_bytes(b"fine too")
    (root / "directory").mkdir()
    os.mkfifo(root / "fifo.jpg")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(root / "socket.jpg"))
    (root / "unreadable.jpg").write_bytes(SECRET)
    (root / "unreadable.jpg").chmod(0)
    for name in ("on", "owner", "off", "from"):
        place = root / name
        (place / "real").mkdir(parents=True)
        (place / "real" / "file.txt").write_bytes(b"fine")
        (place / "out.txt").symlink_to(outer / "secret.txt")
        (place / "in.txt").symlink_to("real/file.txt")
        (place / "dir").symlink_to("real")
        (place / "up").symlink_to(outer)
        (place / "loop").symlink_to("loop")
        (place / "gone").symlink_to("nothing")
    config = CONFIG.format(root=root, port=prefix.ports.slave1)
    prefix.write("paths.conf", config)
    daemon = prefix.start("slave", ports=[prefix.ports.slave1], config="paths.conf")
    cleanup(daemon.stop)
    daemon.started()
    return prefix


class Paths(StagedCase):
    def setUp(self) -> None:
        self.prefix = served()
        self.root = self.prefix.directory / "outer" / "root"

    def send(self, target: str, method: str = "GET") -> rawhttp.Answer:
        data = rawhttp.request(target, "Connection: close", method=method)
        answer = rawhttp.exchange(self.prefix.ports.slave1, data)
        assert answer is not None, target
        return answer

    def refused(self, target: str, *statuses: int) -> None:
        answer = self.send(target)
        self.assertIn(answer.status, statuses, f"{answer.status} {target}")
        self.assertNotIn(SECRET, answer.raw)

    def test_climbing(self) -> None:
        for target in CLIMBING:
            self.refused(target.format(root=self.root.parent), 400, 403, 404)

    def test_above_the_root(self) -> None:
        """Dots that would climb out are the client's error, as in nginx."""
        for target in ("/../secret.txt", "/%2e%2e/secret.txt", "/images/../../secret.txt"):
            self.refused(target, 400)

    def test_dots_within(self) -> None:
        for target in ("/images/../a.jpg", "/./a.jpg", "//a.jpg", "/images/%2e%2e/a.jpg"):
            self.assertEqual(self.send(target).body, b"fine", target)

    def test_malformed(self) -> None:
        for target in MALFORMED:
            self.refused(target, 400)

    def test_no_files(self) -> None:
        """Answered at once: a FIFO that nobody writes to doesn't hold the server up."""
        for target in ("/fifo.jpg", "/socket.jpg"):
            self.refused(target, 403, 404)
        self.refused("/directory/", 403)
        self.refused("/a.jpg/", 404)
        self.refused("/a.jpg/more", 404)
        self.refused("/" + "x" * 300 + ".jpg", 404)
        answer = self.send("/directory")
        self.assertEqual(answer.status, 301)
        self.assertTrue(str(answer.header("location")).endswith("/directory/"))

    def test_unreadable(self) -> None:
        if os.geteuid() == 0:
            raise SkipTest("root can read everything")
        self.refused("/unreadable.jpg", 403)

    def test_symlinks_forbidden(self) -> None:
        """``on``: no link anywhere in the path below the server's root directory."""
        self.assertEqual(self.send("/on/real/file.txt").body, b"fine")
        for name in ("out.txt", "in.txt"):
            self.refused(f"/on/{name}", 403)
        for name in ("dir/file.txt", "up/secret.txt"):  # as in nginx
            self.refused(f"/on/{name}", 404)
        self.refused("/on/loop", 403)
        self.refused("/on/gone", 403)
        self.refused("/on/none", 404)
        self.refused("/from/in.txt", 403)
        self.assertEqual(self.send("/from/real/file.txt").body, b"fine")

    def test_symlinks_of_the_same_owner(self) -> None:
        """``if_not_owner``: a link and what it points at must have one owner."""
        for name in ("in.txt", "dir/file.txt"):
            self.assertEqual(self.send(f"/owner/{name}").body, b"fine")
        self.assertEqual(self.send("/owner/out.txt").body, SECRET)
        if os.geteuid() != 0:
            raise SkipTest("only root can give a file away")
        for name in ("foreign.txt", "foreign"):
            link = self.root / "owner" / name
            if not link.is_symlink():
                link.symlink_to("real/file.txt" if name.endswith("txt") else "real")
                os.chown(link, 65534, 65534, follow_symlinks=False)
        self.refused("/owner/foreign.txt", 403)
        self.refused("/owner/foreign/file.txt", 403)

    def test_symlinks_allowed(self) -> None:
        """``off``, nginx's default: the tree's owner decides."""
        for location in ("/off/",):
            self.assertEqual(self.send(f"{location}in.txt").body, b"fine")
            self.assertEqual(self.send(f"{location}dir/file.txt").body, b"fine")
            self.assertEqual(self.send(f"{location}out.txt").body, SECRET)
            self.refused(f"{location}gone", 404)
            self.refused(f"{location}loop", 403, 404, 500)

    def test_head_tells_no_more(self) -> None:
        for target in ("/../secret.txt", "/on/out.txt", "/fifo.jpg"):
            answer = self.send(target, "HEAD")
            self.assertEqual(answer.status, self.send(target).status)
            self.assertEqual(answer.body, b"")


class ThroughTheFarm(StagedCase):
    """The same on the whole way: master, slave, resizer."""

    def setUp(self) -> None:
        self.parts = farm.parts()
        self.prefix = self.parts.prefix
        (self.prefix.directory / "secret.txt").write_bytes(SECRET)
        link = self.prefix.images / "link.jpg"
        if not link.is_symlink():
            link.symlink_to(self.prefix.directory / "secret.txt")

    def test_proxied(self) -> None:
        for target in (*CLIMBING, *MALFORMED):
            data = rawhttp.request(target.format(root=self.prefix.directory), "Connection: close")
            answer = rawhttp.exchange(self.prefix.ports.http, data)
            assert answer is not None, target
            self.assertIn(answer.status, (400, 403, 404), target)
            self.assertNotIn(SECRET, answer.raw)

    def test_source_of_a_thumbnail(self) -> None:
        """The resizer stays below its root, and follows no link out of it."""
        for source in (
            "/../secret.txt",
            "/photos/../../secret.txt",
            "/%2e%2e/secret.txt",
            "/%252e%252e/secret.txt",
            "/link.jpg",
            "//etc/passwd",
            "/photos%00.jpg",
            "/photos",
            "file:///etc/passwd",
        ):
            answer = self.prefix.get(f"/resize?src={source}&w=10")
            self.assertIn(answer.status, (400, 403, 404), source)
            self.assertNotIn(SECRET, answer.raw)
            self.assertNotIn(b"root:", answer.raw)
            self.assertEqual(answer.body.count(b"\n"), 1, answer.body)
