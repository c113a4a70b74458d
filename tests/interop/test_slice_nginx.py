"""``slice``: the same configuration and requests on real nginx and on us.

Compared are status, headers, body, what the upstream was asked, and what the error log says.
"""

from __future__ import annotations

import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.support import beside, rawhttp
from tests.support.processes import free_ports, wait_until
from tests.support.stages import Cleanup, StagedCase, shared

BODY = bytes(number * 7 % 251 for number in range(10_050))
#: What takes its place.
LATER = bytes(number * 11 % 251 for number in range(9_300))
DATE = "Sun, 06 Nov 1994 08:49:37 GMT"
RANGE = re.compile(r"bytes=(\d*)-(\d*)")

#: What is asked of each place, one after another; answers are cached in some of them.
ASKED: tuple[tuple[str, ...], ...] = (
    (),
    ("Range: bytes=1500-2600",),
    ("Range: bytes=0-0",),
    ("Range: bytes=-100",),
    ("Range: bytes=-3000",),
    ("Range: bytes=9000-",),
    ("Range: bytes=10049-20000",),
    ("Range: bytes=10050-",),
    ("Range: bytes= 3000-3001",),
    ("Range: bytes=5-2",),
    ("Range: bytes=2000-1000",),
    ("Range: bytes=0-1,5000-5001",),
    ("Range: lines=3000-",),
    ("Range: bytes=99999999999999999999-",),
    ('If-None-Match: "1"',),
    ('If-None-Match: "2"',),
    (f"If-Modified-Since: {DATE}",),
    ("Range: bytes=4000-4001", 'If-Range: "1"'),
    ("Range: bytes=4000-4001", 'If-Range: "2"'),
    ("Range: bytes=4000-4001", f"If-Range: {DATE}"),
    ("HEAD",),
    ("HEAD", "Range: bytes=4000-4001"),
)
#: What the upstream does wrong: `Origin` knows how.
WRONG = (
    "whole", "missing", "unknown", "shifted", "long", "junk", "none", "etags", "untagged-then",
    "fails-then", "moved-then",
)  # fmt: skip
SAID = re.compile(r"[a-z ]+(?: \d+)? in slice response(?:: \d+-\d+)?")

CONFIGURATION = """
worker_processes 1; pid logs/daemon.pid; error_log logs/error.log;
events {{ }}
http {{
        access_log off;
        proxy_temp_path temp; client_body_temp_path temp;
        proxy_cache_path cache levels=1:2 keys_zone=zone:1m;
        add_header X-Cache $upstream_cache_status always;
        add_header X-Slice $slice_range;
        slice 1000;
        server {{
            listen 127.0.0.1:{port};
            location / {{
                proxy_pass http://127.0.0.1:{origin};
                proxy_set_header Range $slice_range;
            }}
            location /cached/ {{
                proxy_pass http://127.0.0.1:{origin};
                proxy_set_header Range $slice_range;
                proxy_cache zone;
                proxy_cache_key $uri$slice_range;
                proxy_cache_valid 200 206 1h;
            }}
            location /same/ {{
                proxy_pass http://127.0.0.1:{origin};
                proxy_set_header Range $slice_range;
                proxy_cache zone;
                proxy_cache_key $uri;
                proxy_cache_valid 200 206 1h;
            }}
            location /unused/ {{ proxy_pass http://127.0.0.1:{origin}; }}
            location /off/ {{
                slice 0;
                proxy_pass http://127.0.0.1:{origin};
                proxy_set_header Range $slice_range;
            }}
            location /set/ {{
                set $part $slice_range;
                proxy_pass http://127.0.0.1:{origin};
                proxy_set_header Range $part;
            }}
            location /ranges-off/ {{
                max_ranges 0;
                proxy_pass http://127.0.0.1:{origin};
                proxy_set_header Range $slice_range;
            }}
            location /page/ {{
                proxy_pass http://127.0.0.1:{origin};
                proxy_set_header Range $slice_range;
                proxy_intercept_errors on;
                error_page 404 /page.html;
            }}
            location = /page.html {{ return 200 page; }}
        }}
}}
"""
PLACES = ("plain", "cached", "unused", "off")


class Origin(ThreadingHTTPServer):
    """Ranges of `BODY`; the last part of the path says what is wrong with them."""

    daemon_threads = True

    def __init__(self) -> None:
        self.asked: dict[str, list[tuple[str, ...]]] = {}
        #: Whether what is under ``replaced`` has been.
        self.replaced = False
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                seen = server.asked.setdefault(self.path, [])
                names = "Range", "If-Range", "If-None-Match", "If-Modified-Since"
                seen.append((self.command, *(self.headers.get(name) or "-" for name in names)))
                answer = server.answer(self.path.rsplit("/", 1)[1], len(seen), self.headers)
                self.send_response_only(answer[0])
                for name, value in answer[1].items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(answer[2])))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(answer[2])

            do_HEAD = do_GET

            def log_message(self, format: str, *args: Any) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True)
        self.thread.start()

    def answer(self, what: str, number: int, asked: Any) -> tuple[int, dict[str, str], bytes]:
        whole, tag = BODY, number if what == "etags" else 1
        if what == "replaced" and self.replaced:
            whole, tag = LATER, 2
        fields = {
            "Content-Type": "image/x-raw", "Last-Modified": DATE, "ETag": '"1"',
            "Accept-Ranges": "bytes",
        }  # fmt: skip
        match = RANGE.fullmatch(asked.get("Range") or "")
        if what == "whole" or match is None or not match[1]:
            return 200, fields, whole
        if what == "missing":
            return 404, {}, b"none"
        start, end = int(match[1]), int(match[2] or len(whole)) + 1
        if start >= len(whole):
            return 416, {"Content-Range": f"bytes */{len(whole)}"}, b"beyond"
        if number > 1 and what == "fails-then":
            return 500, {}, b"sorry"
        part = whole[start : end + (what == "long")]
        start += what == "shifted" or (number > 1 and what == "moved-then")
        total = "*" if what == "unknown" else len(whole)
        unit = "lines" if what == "junk" else "bytes"
        said = f"{unit} {start}-{start + len(part) - 1}/{total}"
        fields |= {"Content-Range": said, "ETag": f'"{tag}"'}
        if what == "none":
            del fields["Content-Range"]
        if number > 1 and what == "untagged-then":
            del fields["ETag"]
        return 206, fields, part

    def close(self) -> None:
        self.shutdown()
        self.server_close()
        self.thread.join()


class Side:
    """One server, its origin and its error log."""

    def __init__(self, directory: Path) -> None:
        (directory / "logs").mkdir(parents=True)
        self.origin = Origin()
        (self.port,) = free_ports(1)
        self.log = directory / "logs" / "error.log"
        self.config = directory / "slice.conf"
        text = CONFIGURATION.format(port=self.port, origin=self.origin.server_port)
        self.config.write_text(text)

    def said(self) -> list[str]:
        """What the error log says about slices."""
        found = SAID.findall(self.log.read_text()) if self.log.exists() else []
        return [words.strip() for words in found]

    def ask(self, path: str, *fields: str) -> tuple[Any, ...]:
        """The answer, or how far it came, and what the origin was asked for it."""
        method, fields = ("HEAD", fields[1:]) if fields[:1] == ("HEAD",) else ("GET", fields)
        seen = self.origin.asked.setdefault(path, [])
        before = len(seen)
        data = rawhttp.request(path, *fields, "Connection: close", method=method)
        with rawhttp.connect(self.port) as sock:
            sock.sendall(data)
            reader = rawhttp.Reader(sock)
            try:
                answer = reader.answer(method)
            except AssertionError:
                # Cut off in the middle: how much was sent before is the kernel's affair.
                return (reader.raw.partition(b"\r\n")[0], "cut off", seen[before:])
        if answer is None:
            return (None, seen[before:])
        names = (
            "content-type", "content-length", "content-range", "accept-ranges", "etag",
            "last-modified", "x-cache", "x-slice",
        )  # fmt: skip
        told = {name: value for name in names if (value := answer.header(name)) is not None}
        if answer.status == 416:
            # The page has another version; nginx adds what `add_header` says twice.
            told.pop("content-length")
            told = {name: value.partition(", ")[0] for name, value in told.items()}
        body = answer.body if answer.status < 300 else b""
        return (answer.status, told, body, seen[before:])


@shared
def stage(cleanup: Cleanup) -> tuple[Side, Side]:
    """nginx and us."""
    directory = beside.directory(cleanup, "slice")
    sides = Side(directory / "nginx"), Side(directory / "imagefarm")
    for side in sides:
        cleanup(side.origin.close)
    beside.start(cleanup, *((side.config, [side.port]) for side in sides))
    return sides


class SliceTests(StagedCase):
    maxDiff = None

    def setUp(self) -> None:
        self.sides = stage()
        self.before = [len(side.said()) for side in self.sides]

    def said(self) -> list[list[str]]:
        """What the error logs say since the test began."""
        pairs = zip(self.sides, self.before, strict=True)
        return [side.said()[before:] for side, before in pairs]

    def compare(self, path: str, *fields: str) -> tuple[Any, ...]:
        theirs, ours = (side.ask(path, *fields) for side in self.sides)
        if theirs[0] is None and len(theirs[-1]) > 1:
            # The head was held back until there is more, and never sent.
            theirs = (b"HTTP/1.1 200 OK", "cut off", theirs[-1])
        if theirs != ours:
            self.differ.append(
                f"{path} {fields}\n  nginx {_short(theirs)}\n  ours  {_short(ours)}"
            )
        return theirs

    def test_same(self) -> None:
        self.differ: list[str] = []
        for place in (*PLACES, "cached"):
            for fields in (*ASKED, ()):
                self.compare(f"/{place}/good", *fields)
        for place in ("plain", "cached"):
            for what in WRONG:
                self.compare(f"/{place}/{what}")
                self.compare(f"/{place}/{what}", "Range: bytes=3000-3999")
        self.assertEqual(self.compare("/same/good")[1], "cut off")
        self.compare("/set/good")
        self.compare("/set/good", "Range: bytes=1500-1600")
        self.compare("/page/missing")
        self.compare("/ranges-off/good")
        self.assertEqual(self.differ, [], "\n".join(self.differ))
        self.assertGreater(len(self.said()[0]), 10)
        wait_until(lambda: len(set(map(len, self.said()))) == 1, what="the error log")
        theirs, ours = self.said()
        self.assertEqual(ours, theirs)

    def test_a_replaced_original(self) -> None:
        """Old pieces that a new one disagrees with stay in nginx's cache, and leave ours."""
        path = "/cached/replaced"
        for side in self.sides:
            for number in (0, 5, 6):
                asked = side.ask(path, f"Range: bytes={number}000-{number}000")
                self.assertEqual(asked[0], 206)
            side.origin.replaced = True
            self.assertNotEqual(side.ask(path)[0], 200)  # 0 is old, 1 is new
        theirs, ours = self.sides
        for _ in range(2):
            self.assertNotEqual(theirs.ask(path)[0], 200)
        status, _, body, asked = ours.ask(path)
        self.assertEqual((status, body), (200, LATER))
        self.assertEqual(len(asked), 9)  # all ten but 1, which was there: 5 and 6 are, too, old
        self.assertEqual(ours.ask(path)[2:], (LATER, []))
        wait_until(lambda: self.said()[1], what="the error log")
        self.assertEqual(self.said()[1], ["etag mismatch in slice response"])

    def test_never_the_same(self) -> None:
        """Nothing mends an original with another ETag each time: it ends, and is said once."""
        path, ours = "/cached/never/etags", self.sides[1]
        for _ in range(4):
            _, how, asked = ours.ask(path)
            self.assertEqual((how, len(asked)), ("cut off", 2))
        wait_until(lambda: len(self.said()[1]) >= 4, what="the error log")
        self.assertEqual(self.said()[1], ["etag mismatch in slice response"] * 4)


def _short(answer: tuple[Any, ...]) -> str:
    return " ".join(
        f"<{len(part)} bytes {part[:8].hex()}>" if isinstance(part, bytes) else repr(part)
        for part in answer
    )
