"""How expired and partial things are asked for: the same configuration on real nginx and on us.

Compared are status, ``$upstream_cache_status``, headers, body, and what the upstream was asked,
step by step. Cases run side by side: all steps of a phase, a pause in which everything expires,
the next.
"""

from __future__ import annotations

import threading
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from attrs import frozen

from tests.support import beside, rawhttp
from tests.support.acceptor import HttpServer
from tests.support.processes import free_ports
from tests.support.stages import StagedCase

#: nginx counts whole seconds: what is valid for one has expired after two.
EXPIRES = 2.1
#: What nginx may still be storing when its client has the answer already.
SETTLES = 0.1
DATE = "Sun, 06 Nov 1994 08:49:37 GMT"

Fields = tuple[tuple[str, str], ...]


@frozen
class Told:
    """One answer of the upstream."""

    status: int = 200
    fields: Fields = ()
    body: bytes = b"old"


@frozen
class Step:
    """One request; those of phase 1 come when what phase 0 has stored has expired."""

    phase: int = 0
    method: str = "GET"
    fields: Fields = ()


@frozen
class Case:
    place: str
    answers: tuple[Told, ...]
    steps: tuple[Step, ...]
    #: Seconds that the upstream takes.
    delay: float = 0.0


def told(*fields: str, status: int = 200, body: bytes = b"old") -> Told:
    pairs = [field.partition(": ")[::2] for field in fields]
    return Told(status, tuple((name, value) for name, value in pairs), body)


def get(phase: int = 0, *fields: str, method: str = "GET") -> Step:
    pairs = [field.partition(": ")[::2] for field in fields]
    return Step(phase, method, tuple((name, value) for name, value in pairs))


SHORT, LONG = "Cache-Control: max-age=1", "Cache-Control: max-age=100"
MARKS = ('ETag: "1"', f"Last-Modified: {DATE}", "Accept-Ranges: bytes")
NEW = told(LONG, body=b"new")
#: What an upstream may do instead of an answer.
BREAKS, JUNK, SLOW = (told(status=-number, body=b"") for number in (1, 2, 3))
STATUSES = (403, 404, 429, 500, 502, 503, 504)
TROUBLES = {"error": BREAKS, "invalid_header": JUNK, "timeout": SLOW} | {
    f"http_{status}": told(status=status, body=b"no") for status in STATUSES
}
#: For how long the upstream says nothing, in seconds: longer than the locations wait.
SILENT = 0.6
#: The headers that are compared.
HEADERS = (
    "Age", "Cache-Control", "Content-Length", "Content-Range", "Content-Type",
    "ETag", "Expires", "Last-Modified", "Location", "Set-Cookie", "Vary", "X-Own",
)  # fmt: skip
TWICE = (get(0), get(1), get(1))
CONDITIONS = (
    'If-None-Match: "1"', 'If-None-Match: "2"', f"If-Modified-Since: {DATE}", "Range: bytes=1-",
    "Range: bytes=0-0,2-2", 'If-Match: "1"',
)  # fmt: skip
POST = get(0, "Content-Length: 0", method="POST")

CASES: dict[str, Case] = {
    "confirmed": Case("revalidate", (told(SHORT, *MARKS), told(LONG, status=304)), TWICE),
    "confirmed by its tag": Case(
        "revalidate", (told(SHORT, MARKS[0]), told(LONG, status=304)), TWICE
    ),
    "confirmed by its date": Case(
        "revalidate", (told(SHORT, MARKS[1]), told(LONG, status=304)), TWICE
    ),
    "confirmed without a time": Case(
        "revalidate", (told(SHORT, *MARKS), told(status=304)), TWICE
    ),
    "changed": Case("revalidate", (told(SHORT, *MARKS), NEW), TWICE),
    "nothing to confirm by": Case("revalidate", (told(SHORT), NEW), TWICE),
    "an error is not confirmed": Case(
        "revalidate", (told(SHORT, *MARKS, status=404), NEW), TWICE
    ),
    "not revalidated": Case("plain", (told(SHORT, *MARKS), NEW), TWICE),
    "updated behind": Case("behind", (told(SHORT), NEW), TWICE),
    "confirmed behind": Case(
        "behind", (told(SHORT, *MARKS), told(LONG, status=304)), TWICE
    ),
    "update behind fails": Case(
        "behind", (told(SHORT), told(status=500, body=b"no"), NEW), (*TWICE, get(1))
    ),
    "updated before": Case("updating", (told(SHORT), NEW), TWICE),
    "stale-while-revalidate": Case(
        "behind-told", (told(f"{SHORT}, stale-while-revalidate=60"), NEW), TWICE
    ),
    "stale-while-revalidate over": Case(
        "behind-told", (told(f"{SHORT}, stale-while-revalidate=0"), NEW), TWICE
    ),
    "stale-while-revalidate before": Case(
        "plain", (told(f"{SHORT}, stale-while-revalidate=60"), NEW), TWICE
    ),
    **{
        f"stale-while-revalidate{more}, then {trouble}": Case(
            "plain", (told(f"{SHORT}, stale-while-revalidate=60{more}"), answer, NEW), TWICE
        )
        for more in ("", ", stale-if-error=0", ", stale-if-error=60")
        for trouble, answer in TROUBLES.items()
        if trouble in ("error", "invalid_header", "http_404")
    },
    "stale-if-error": Case(
        "plain", (told(f"{SHORT}, stale-if-error=60"), told(status=500, body=b"no"), NEW), TWICE
    ),
    "no stale-if-error": Case(
        "plain", (told(SHORT), told(status=500, body=b"no"), NEW), TWICE
    ),
    "use_stale http_503": Case(
        "stale", (told(SHORT), told(status=503, body=b"no"), NEW), TWICE
    ),
    "use_stale http_404": Case(
        "stale", (told(SHORT), told(status=404, body=b"no"), NEW), TWICE
    ),
    "use_stale not for 500": Case(
        "stale", (told(SHORT), told(status=500, body=b"no"), NEW), TWICE
    ),
    "head becomes get": Case(
        "plain", (told(LONG), NEW), (get(method="HEAD"), get(), get(method="HEAD"))
    ),
    "head stays head": Case(
        "head", (told(LONG, body=b""), NEW), (get(method="HEAD"), get(), get())
    ),
    "range beyond": Case(
        "range",
        (told(LONG, "Content-Range: bytes 2-2/3", status=206, body=b"d"), told(LONG, *MARKS)),
        (get(0, "Range: bytes=2-"), get(), get(0, "Range: bytes=2-")),
    ),
    "suffix beyond": Case(
        "range",
        (told(LONG, "Content-Range: bytes 2-2/3", status=206, body=b"d"), told(LONG, *MARKS)),
        (get(0, "Range: bytes=-1"), get()),
    ),
    "range before": Case(
        "range", (told(LONG, *MARKS),), (get(0, "Range: bytes=1-"), get(0, "Range: bytes=2-"))
    ),
    "other unit": Case("range", (told(LONG, *MARKS),), (get(0, "Range: lines=5-"), get())),
    "parts and conditions": Case(
        "plain",
        (told(LONG, *MARKS),),
        (
            get(), get(0, "Range: bytes=0-1"), get(0, "Range: bytes=9-"),
            get(0, 'If-None-Match: "1"'), get(0, 'If-None-Match: "2"'),
            get(0, f"If-Modified-Since: {DATE}"), get(0, 'If-Match: "2"'),
            get(0, "Range: bytes=1-", 'If-Range: "1"'),
            get(0, "Range: bytes=1-", 'If-Range: "2"'), get(method="HEAD"),
        ),
    ),
    "scarce": Case(
        "scarce",
        (told(LONG, "Content-Range: bytes 0-0/3", status=206, body=b"o"), told(LONG)),
        (get(0, "Range: bytes=0-0"), get(), get()),
    ),
    "post": Case(
        "methods", (told(LONG), NEW), (POST, POST, get(), get(method="HEAD"))
    ),
    "post is no get": Case("plain", (told(LONG), NEW), (POST, get(), POST)),
    "not buffered": Case("unbuffered", (told(LONG), NEW), (get(), get())),
    "not to be buffered": Case(
        "plain", (told(LONG, "X-Accel-Buffering: no"), NEW), (get(), get())
    ),
    "to be buffered": Case(
        "unbuffered", (told(LONG, "X-Accel-Buffering: yes"), NEW), (get(), get())
    ),
    "validators that clients don't get": Case(
        "hidden",
        (told(SHORT, *MARKS), told(LONG, status=304)),
        (get(0), get(1), get(1, f"If-Modified-Since: {DATE}"), get(1, 'If-None-Match: "1"')),
    ),
    "confirmed without the client's fields": Case(
        "headless",
        (told(SHORT, *MARKS), told(LONG, status=304)),
        (get(0, "X-A: 1"), get(1, 'If-None-Match: "2"'), get(1)),
    ),
    **{
        f"conditions for what {name}": Case(
            place, (answer,), tuple(get(0, "X-Private: 1", field) for field in CONDITIONS)
        )
        for name, place, answer in (
            ("is not to be kept", "asked", told(LONG, *MARKS)),
            ("has no time", "timeless", told(*MARKS)),
            ("is not divisible", "timeless", told(*MARKS[:2])),
            ("is private", "plain", told("Cache-Control: private", *MARKS)),
        )
    },
    "expires by Last-Modified": Case(
        "expires", (told(*MARKS), told("Cache-Control: private", *MARKS)), (get(), get(), get(1))
    ),
    "redirect under intercept_errors": Case(
        "intercepted", (told("Location: /x", *MARKS, status=301), NEW), (get(), get())
    ),
    "empty under intercept_errors": Case(
        "intercepted", (told("X-Own: 1", *MARKS, status=308, body=b""), NEW), (get(), get())
    ),
    "one line for 404": Case("valid", (told(status=404), NEW), (get(), get(1))),
    "one line for 200": Case("valid", (told(), NEW), (get(), get(1))),
    "a line for any": Case("valid", (told(status=410), NEW), (get(), get(1))),
    "a time of 0": Case("valid", (told("X-Own: 1", status=403), NEW), (get(), get(1))),
    "told better": Case("valid", (told(SHORT, status=404), NEW), (get(), get(1))),
    "redirect": Case("valid", (told("Location: http://a/", status=301), NEW), (get(), get(1))),
    "its own headers": Case(
        "plain",
        (told(LONG, *MARKS, "X-Own: 1", "Age: 7", "Vary: X-A", "Content-Type: image/x-own"),),
        (get(), get()),
    ),
    "bypass": Case(
        "asked", (told(LONG), NEW), (get(), get(0, "X-Bypass: 1"), get(), get(0, "X-Bypass: 0"))
    ),
    "no_cache": Case(
        "asked", (told(LONG), NEW), (get(0, "X-Private: 1"), get(), get(0, "X-Private: 1"))
    ),
    **{
        f"ignored {line}": Case("ignore", (told(line), NEW), (get(), get(1)))
        for line in (
            "X-Accel-Expires: 0", "Expires: 0", "Cache-Control: no-store", "Set-Cookie: a=b",
            "Vary: *", SHORT, f"Expires: {DATE}",
        )
    },
    **{
        f"{trouble} for {word}": Case(f"only-{word}", (told(SHORT), answer, NEW), (get(), get(1)))
        for word in TROUBLES
        for trouble, answer in TROUBLES.items()
        if answer is not SLOW or word in ("error", "timeout", "http_504")
    },
}  # fmt: skip
#: Asked by four clients at once; each answer takes longer than what the location waits for.
LOCKED: dict[str, Case] = {
    "lock": Case("lock", (NEW,), (get(),) * 4, 1.2),
    "lock_timeout": Case("lock-timeout", (NEW,), (get(),) * 4, 1.8),
    "lock_age": Case("lock-age", (NEW,), (get(),) * 4, 1.8),
}
NAMES = [*CASES, *LOCKED]
#: docs/cache.md gives the reasons.
DIFFERENT = {"stale-if-error", "conditions for what is private"}

CONFIGURATION = """
worker_processes 1; pid logs/daemon.pid; error_log logs/error.log;
events {{ }}
http {{
        access_log off;
        proxy_temp_path temp; client_body_temp_path temp;
        proxy_cache_path cache levels=1:2 keys_zone=zone:1m;
        proxy_cache zone;
        proxy_cache_key $uri;
        proxy_cache_valid 200 1s;
        add_header X-Cache $upstream_cache_status always;
        server {{
            listen 127.0.0.1:{port};
            location / {{
                proxy_pass http://127.0.0.1:{origin};
                location /revalidate/ {{
                    proxy_pass http://127.0.0.1:{origin}; proxy_cache_revalidate on;
                }}
                location /behind/ {{
                    proxy_pass http://127.0.0.1:{origin}; proxy_cache_revalidate on;
                    proxy_cache_use_stale updating http_500; proxy_cache_background_update on;
                }}
                location /behind-told/ {{
                    proxy_pass http://127.0.0.1:{origin}; proxy_cache_background_update on;
                }}
                location /updating/ {{
                    proxy_pass http://127.0.0.1:{origin}; proxy_cache_use_stale updating;
                }}
                location /stale/ {{
                    proxy_pass http://127.0.0.1:{origin};
                    proxy_cache_use_stale http_503 http_404;
                }}
                location /head/ {{
                    proxy_pass http://127.0.0.1:{origin};
                    proxy_cache_convert_head off; proxy_cache_key $request_method$uri;
                }}
                location /range/ {{
                    proxy_pass http://127.0.0.1:{origin}; proxy_cache_max_range_offset 2;
                }}
                location /unbuffered/ {{
                    proxy_pass http://127.0.0.1:{origin}; proxy_buffering off;
                }}
                location /expires/ {{
                    proxy_pass http://127.0.0.1:{origin}; expires modified 1h;
                }}
                location /intercepted/ {{
                    proxy_pass http://127.0.0.1:{origin}; proxy_intercept_errors on;
                    proxy_cache_valid any 1h; error_page 402 /never;
                }}
                location /timeless/ {{
                    proxy_pass http://127.0.0.1:{origin}; proxy_cache_valid 404 1h;
                }}
                location /hidden/ {{
                    proxy_pass http://127.0.0.1:{origin}; proxy_cache_revalidate on;
                    proxy_hide_header Last-Modified; proxy_hide_header ETag;
                }}
                location /headless/ {{
                    proxy_pass http://127.0.0.1:{origin}; proxy_cache_revalidate on;
                    proxy_pass_request_headers off;
                }}
                location /lock/ {{
                    proxy_pass http://127.0.0.1:{origin}; proxy_cache_lock on;
                }}
                location /lock-timeout/ {{
                    proxy_pass http://127.0.0.1:{origin};
                    proxy_cache_lock on; proxy_cache_lock_timeout 400ms;
                }}
                location /lock-age/ {{
                    proxy_pass http://127.0.0.1:{origin};
                    proxy_cache_lock on; proxy_cache_lock_age 1s;
                }}
                location /methods/ {{
                    proxy_pass http://127.0.0.1:{origin}; proxy_cache_methods POST;
                }}
                location /valid/ {{
                    proxy_pass http://127.0.0.1:{origin};
                    proxy_cache_valid 200 301 1s; proxy_cache_valid 404 1h;
                    proxy_cache_valid 403 0; proxy_cache_valid any 1h;
                }}
                location /asked/ {{
                    proxy_pass http://127.0.0.1:{origin};
                    proxy_cache_bypass $http_x_bypass; proxy_no_cache $http_x_private;
                }}
                location /ignore/ {{
                    proxy_pass http://127.0.0.1:{origin};
                    proxy_cache_valid 200 1h;
                    proxy_ignore_headers X-Accel-Expires Expires Cache-Control Set-Cookie Vary;
                }}
                {only}
                location /scarce/ {{
                    proxy_pass http://127.0.0.1:{origin}; proxy_cache_min_uses 2;
                }}
            }}
        }}
}}
"""
ONLY = """
                location /only-{word}/ {{
                    proxy_pass http://127.0.0.1:{origin};
                    proxy_read_timeout {wait}ms; proxy_cache_use_stale {word};
                }}"""


class Origin(HttpServer):
    """Answers ``/PLACE/N`` as the N-th case says, one answer after another, and remembers."""

    def __init__(self) -> None:
        self.asked: dict[str, list[tuple[str, ...]]] = {}
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                seen = server.asked.setdefault(self.path, [])
                case = (CASES | LOCKED)[NAMES[int(self.path.rsplit("/", 1)[1])]]
                answers = case.answers
                answer = answers[min(len(seen), len(answers) - 1)]
                names = "Range", "If-None-Match", "If-Modified-Since"
                seen.append((self.command, *(self.headers.get(name) or "" for name in names)))
                time.sleep(SILENT if answer is SLOW else case.delay)
                if answer.status < 0:
                    self.wfile.write(b"HTTP/1.1 200 OK\r\n\0\r\n\r\n" if answer is JUNK else b"")
                    return
                self.send_response_only(answer.status)
                for name, value in answer.fields:
                    self.send_header(name, value)
                if answer.status != 304:
                    self.send_header("Content-Length", str(len(answer.body)))
                self.end_headers()
                if answer.status != 304 and self.command != "HEAD":
                    self.wfile.write(answer.body)

            do_HEAD = do_POST = do_GET

            def log_message(self, format: str, *args: Any) -> None:
                pass

        super().__init__(Handler)


Side = tuple[Origin, int]


def _written(directory: Path, port: int, origin: Origin) -> Path:
    """A side's directory with its configuration."""
    (directory / "logs").mkdir(parents=True)
    file = directory / "cache.conf"
    number = origin.server_port
    only = [ONLY.format(word=word, origin=number, wait=int(SILENT * 500)) for word in TROUBLES]
    file.write_text(CONFIGURATION.format(port=port, origin=number, only="".join(only)))
    return file


class ConductTests(StagedCase):
    def test_same_conduct(self) -> None:
        directory = beside.directory(self.addCleanup, "conduct")
        sides: list[Side] = []
        servers = []
        for name, port in zip(("nginx", "imagefarm"), free_ports(2), strict=True):
            origin = Origin()
            self.addCleanup(origin.close)
            sides.append((origin, port))
            servers.append((_written(directory / name, port, origin), [port]))
        beside.start(self.addCleanup, *servers)
        self.locks_are_the_same(sides)
        found: list[dict[str, list[Any]]] = [{name: [] for name in CASES} for _ in sides]
        for phase in (0, 1):
            if phase:
                time.sleep(EXPIRES)
            self.run_phase(phase, sides, found)
        theirs, ours = found
        for number, name in enumerate(CASES):
            target = f"/{CASES[name].place}/{number}"
            for (origin, _), seen in zip(sides, found, strict=True):
                seen[name].append(origin.asked.get(target))
        differ = {name: (theirs[name], ours[name]) for name in CASES if theirs[name] != ours[name]}
        lines = [f"{name}\n  nginx {a}\n  ours  {b}" for name, (a, b) in differ.items()]
        self.assertEqual(set(differ), DIFFERENT, "\n".join(lines))

    def locks_are_the_same(self, sides: list[Side]) -> None:
        """Four at once for each case: how many were asked, and what the clients were told."""
        told: dict[tuple[int, str], list[Any]] = {}

        def ask(port: int, name: str) -> None:
            target = f"/{LOCKED[name].place}/{NAMES.index(name)}"
            answer = rawhttp.exchange(port, rawhttp.request(target, "Connection: close"))
            assert answer is not None
            told.setdefault((port, name), []).append(
                (answer.status, answer.header("x-cache"), answer.body)
            )

        threads = [
            threading.Thread(target=ask, args=(port, name))
            for _, port in sides
            for name in LOCKED
            for _ in LOCKED[name].steps
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        theirs, ours = (
            {
                name: (
                    sorted(told[port, name]),
                    len(origin.asked[f"/{LOCKED[name].place}/{NAMES.index(name)}"]),
                )
                for name in LOCKED
            }
            for origin, port in sides
        )
        self.assertEqual(theirs, ours)
        self.assertEqual([asked for _, asked in ours.values()], [1, 4, 2])

    def run_phase(
        self,
        phase: int,
        sides: list[Side],
        found: list[dict[str, list[Any]]],
    ) -> None:
        """The steps of a phase, the first of every case, then the second ones..."""
        steps = {name: [s for s in CASES[name].steps if s.phase == phase] for name in CASES}
        for turn in range(max(map(len, steps.values()))):
            for number, name in enumerate(CASES):
                if turn >= len(steps[name]):
                    continue
                step = steps[name][turn]
                target = f"/{CASES[name].place}/{number}"
                fields = [f"{field}: {value}" for field, value in step.fields]
                request = rawhttp.request(target, "Connection: close", *fields, method=step.method)
                for (_, port), seen in zip(sides, found, strict=True):
                    answer = rawhttp.exchange(port, request)
                    assert answer is not None
                    body = answer.body if answer.status < 300 else b""
                    cache = (answer.header("x-cache") or "").partition(",")[0]
                    # nginx has two in a 416; the pages are not of one version.
                    own = answer.status < 400 or name.startswith("http_")
                    told = [answer.header(name) for name in HEADERS if own]
                    seen[name].append((answer.status, cache, body, told))
            time.sleep(SETTLES)
