"""What a client may ask of a file: ranges, conditions, HEAD, compression, at its own pace."""

from __future__ import annotations

import json
import re
import time

from tests.support import farm, rawhttp
from tests.support.processes import descendants, resident
from tests.support.stages import StagedCase

PHOTO = "/photos/landscape.jpg"
THUMBNAIL = f"/resize?src={PHOTO}&w=200"
HUGE = 200_000_000
#: How much a process may grow while it passes a huge file on.
FLAT = 12_000_000


class Delivery(StagedCase):
    """Each promise holds for a file of the master's, a slave's, and the cache's."""

    def setUp(self) -> None:
        self.parts = farm.parts()
        self.prefix = self.parts.prefix
        still = next((self.prefix.images / "thumbnail").glob("*.jpg")).name
        #: Target and host of one of each kind.
        self.kinds = (
            (f"/thumbnail/{still}", farm.STILLSHOTS),
            (PHOTO, "localhost"),
            (THUMBNAIL, "localhost"),
        )
        self.prefix.get(THUMBNAIL)  # from here on it is a hit

    def each(self) -> list[tuple[str, str, rawhttp.Answer]]:
        return [(target, host, self.prefix.get(target, host=host)) for target, host in self.kinds]

    def test_head(self) -> None:
        for target, host, whole in self.each():
            head = self.prefix.get(target, host=host, method="HEAD")
            self.assertEqual((head.status, head.body, head.rest), (200, b"", b""))
            for name in ("content-length", "content-type", "etag", "last-modified"):
                self.assertEqual(head.header(name), whole.header(name), target)
            self.assertEqual(head.header("content-length"), str(len(whole.body)))

    def test_single_ranges(self) -> None:
        for target, host, whole in self.each():
            size = len(whole.body)
            for text, first, last in (
                ("0-0", 0, 0),
                ("100-199", 100, 199),
                ("-10", size - 10, size - 1),
                (f"{size - 5}-", size - 5, size - 1),
                (f"0-{size * 9}", 0, size - 1),
            ):
                part = self.prefix.get(target, f"Range: bytes={text}", host=host)
                self.assertEqual(part.status, 206, (target, text))
                self.assertEqual(part.header("content-range"), f"bytes {first}-{last}/{size}")
                self.assertEqual(part.body, whole.body[first : last + 1])
            beyond = self.prefix.get(target, f"Range: bytes={size}-", host=host)
            self.assertEqual(beyond.status, 416, target)
            self.assertEqual(beyond.header("content-range"), f"bytes */{size}")
            nonsense = self.prefix.get(target, "Range: lines=1-2", host=host)
            self.assertEqual((nonsense.status, nonsense.body), (200, whole.body))

    def test_multiple_ranges(self) -> None:
        for target, host, whole in self.each():
            size = len(whole.body)
            answer = self.prefix.get(target, "Range: bytes=0-4,50-59,-3", host=host)
            self.assertEqual(answer.status, 206)
            kind = str(answer.header("content-type"))
            found = re.fullmatch(r"multipart/byteranges; boundary=(\S+)", kind)
            assert found is not None, kind
            boundary = b"--" + found[1].encode()
            self.assertTrue(answer.body.endswith(boundary + b"--\r\n"))
            pieces = answer.body.split(boundary)[1:-1]
            expected = ((0, 4), (50, 59), (size - 3, size - 1))
            self.assertEqual(len(pieces), len(expected))
            for piece, (first, last) in zip(pieces, expected, strict=True):
                head, _, body = piece.partition(b"\r\n\r\n")
                self.assertIn(b"Content-Type: image/jpeg", head)
                self.assertIn(b"Content-Range: bytes %d-%d/%d" % (first, last, size), head)
                self.assertEqual(body, whole.body[first : last + 1] + b"\r\n")

    def test_conditions(self) -> None:
        for target, host, whole in self.each():
            etag, modified = whole.header("etag"), whole.header("last-modified")
            for field in (
                f"If-None-Match: {etag}",
                f'If-None-Match: "other", W/{etag}',
                "If-None-Match: *",
                f"If-Modified-Since: {modified}",
            ):
                answer = self.prefix.get(target, field, host=host)
                self.assertEqual((answer.status, answer.body), (304, b""), (target, field))
                self.assertEqual(answer.header("etag"), etag)
            for field in (
                'If-None-Match: "other"',
                "If-Modified-Since: Sat, 01 Jan 2000 00:00:00 GMT",
                f"If-Match: {etag}",
            ):
                answer = self.prefix.get(target, field, host=host)
                self.assertEqual((answer.status, answer.body), (200, whole.body), field)
            answer = self.prefix.get(target, 'If-Match: "other"', host=host)
            self.assertEqual(answer.status, 412, target)
            part = self.prefix.get(target, "Range: bytes=0-9", f"If-Range: {etag}", host=host)
            self.assertEqual(part.status, 206, target)
            stale = self.prefix.get(target, "Range: bytes=0-9", 'If-Range: "other"', host=host)
            self.assertEqual((stale.status, stale.body), (200, whole.body))

    def test_gzip(self) -> None:
        """Text is compressed once, by whoever serves it; images never are."""
        text = (self.prefix.images / "style.css").read_bytes()
        (self.prefix.images / "thumbnail" / "style.css").write_bytes(text)
        for target, host in (
            ("/style.css", "localhost"),
            ("/thumbnail/style.css", farm.STILLSHOTS),
        ):
            plain = self.prefix.get(target, host=host)
            self.assertEqual((plain.status, plain.body), (200, text))
            self.assertEqual(plain.header("content-encoding"), None)
            self.assertEqual(plain.header("vary"), "Accept-Encoding")
            packed = self.prefix.get(target, "Accept-Encoding: gzip", host=host)
            self.assertEqual(packed.header("content-encoding"), "gzip")
            self.assertEqual(packed.header("vary"), "Accept-Encoding")
            self.assertLess(len(packed.body), len(text))
            self.assertEqual(packed.plain, text)
            head = self.prefix.get(target, "Accept-Encoding: gzip", host=host, method="HEAD")
            self.assertEqual((head.status, head.body), (200, b""))
        small = self.prefix.get("/small.html", "Accept-Encoding: gzip")
        self.assertEqual(small.header("content-encoding"), None)
        for target, host, whole in self.each():
            answer = self.prefix.get(target, "Accept-Encoding: gzip, br", host=host)
            self.assertEqual(answer.header("content-encoding"), None)
            self.assertEqual(answer.body, whole.body)

    def test_one_connection(self) -> None:
        """All kinds of answers one after another, and pipelined, on a connection that is kept."""
        wholes = self.each()
        requests = [rawhttp.request(target, host=host) for target, host, _ in wholes]
        requests += [
            rawhttp.request("/none.jpg"),
            rawhttp.request(PHOTO, method="HEAD"),
            rawhttp.request(PHOTO, "Range: bytes=5-9"),
            rawhttp.request("/favicon.ico"),
        ]
        expected = [200, 200, 200, 404, 200, 206, 204]
        for pipelined in (False, True):
            with rawhttp.connect(self.prefix.ports.http) as sock:
                reader = rawhttp.Reader(sock)
                if pipelined:
                    sock.sendall(b"".join(requests))
                found = []
                for i, data in enumerate(requests):
                    if not pipelined:
                        sock.sendall(data)
                    answer = reader.answer(data.split(b" ")[0].decode())
                    assert answer is not None
                    found.append(answer.status)
                    if i < len(wholes):
                        self.assertEqual(answer.body, wholes[i][2].body)
                self.assertEqual(found, expected)
                self.assertEqual(reader.buffer, b"")

    def test_slow_client(self) -> None:
        """A huge file streams through master and slave: memory stays flat, all bytes arrive."""
        with (self.prefix.images / "huge.bin").open("wb") as file:
            file.truncate(HUGE)
        self.addCleanup((self.prefix.images / "huge.bin").unlink)
        masters = [daemon.pid for daemon in self.parts.running.values()]
        pids = [pid for master in masters for pid in (master, *descendants(master))]
        before = {pid: resident(pid) for pid in pids}
        growth = 0

        def measure() -> None:
            nonlocal growth
            growth = max(growth, *(resident(pid) - before[pid] for pid in pids))

        with rawhttp.connect(self.prefix.ports.http) as sock:
            sock.sendall(rawhttp.request("/huge.bin", "Connection: close"))
            received = 0
            for _ in range(8):  # at a pace that leaves everything waiting
                received += len(sock.recv(65536))
                time.sleep(0.1)
                measure()
            pieces = 0
            while piece := sock.recv(1 << 20):
                received += len(piece)
                pieces += 1
                if pieces % 50 == 0:
                    measure()
        head = received - HUGE
        self.assertTrue(100 < head < 1000, received)
        self.assertLess(growth, FLAT)

    def test_client_that_leaves(self) -> None:
        """A client that goes away in the middle costs nothing afterwards."""
        with (self.prefix.images / "left.bin").open("wb") as file:
            file.truncate(HUGE)
        self.addCleanup((self.prefix.images / "left.bin").unlink)
        for _ in range(10):
            with rawhttp.connect(self.prefix.ports.http) as sock:
                sock.sendall(rawhttp.request("/left.bin"))
                sock.recv(65536)
        time.sleep(0.2)
        report = json.loads(self.prefix.get("/status").body)
        self.assertEqual(report["connections"]["active"], 1)
        self.assertEqual(
            [peer["active"] for peer in report["upstreams"]["slaves"]["peers"]], [0, 0]
        )
