"""``fastcgi_pass`` and its kin: what applications are sent and clients get, on nginx and here."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from attrs import frozen

from tests.support import beside, rawhttp
from tests.support.processes import free_ports, wait_until
from tests.support.stages import StagedCase

from .upstream.application import END, STDERR, STDOUT, Application, record, whole

CONFIGURATION = """
worker_processes 1;
error_log logs/{name}.log;
pid logs/{name}.pid;
events {{ }}
http {{
    access_log off;
    default_type text/plain;
    client_body_temp_path {directory}/temp;
    fastcgi_temp_path {directory}/temp;
    fastcgi_read_timeout 1s;
    upstream app {{ server APP; }}
    server {{
        listen 127.0.0.1:{port};
        root {directory}/www;
        location /internal/ {{ internal; alias {directory}/www/; }}
        location = /page {{ return 200 "page"; }}
        {locations}
    }}
}}
"""
FINE: Final = whole(b"Content-Type: text/x\r\n\r\nok")
FIELDS: Final = (
    "X-Custom: one", "X-Custom: two", "Cookie: a=1", "Cookie: b=2", "Proxy: evil", "Accept: a/b",
    "X-Empty:", "Authorization: Basic eA==", "Content-Type: text/sent", "If-None-Match: \"e\"",
)  # fmt: skip
ASKED: Final = "fastcgi_pass APP; fastcgi_param URI $uri; "


@frozen
class Case:
    """A location's inside, what is asked below it, and what the application answers."""

    inside: str
    answer: bytes = FINE
    path: str = ""
    method: str = "GET"
    body: bytes = b""
    fields: tuple[str, ...] = ()
    words: str = ""


def _says(*lines: str, body: bytes = b"ok", inside: str = ASKED, **more: Any) -> Case:
    head = "".join(f"{line}\r\n" for line in lines).encode()
    return Case(inside, whole(head + b"\r\n" + body), **more)


CASES: Final = {
    "fields": Case(ASKED, fields=FIELDS),
    "no fields": Case(ASKED + "fastcgi_pass_request_headers off;", fields=FIELDS),
    "field overridden": Case(ASKED + "fastcgi_param HTTP_X_CUSTOM mine;", fields=FIELDS),
    "field taken away": Case(
        ASKED + 'fastcgi_param HTTP_ACCEPT "" if_not_empty;', fields=FIELDS
    ),
    "empty or not": Case(
        ASKED + 'fastcgi_param A $arg_a; fastcgi_param B $arg_b if_not_empty; '
        "fastcgi_param C $arg_c if_not_empty;", path="?c=1",
    ),
    "twice": Case(ASKED + "fastcgi_param A 1; fastcgi_param A 2;"),
    "long value": Case(ASKED + f"fastcgi_param LONG {'x' * 300};"),
    "body": Case(ASKED + "fastcgi_param L $content_length; fastcgi_param T $content_type;",
                 method="POST", body=b"hello", fields=("Content-Type: a/b",)),
    "no body": Case(ASKED + "fastcgi_pass_request_body off;", method="POST", body=b"hello"),
    "keep": Case(ASKED + "fastcgi_keep_conn on;"),
    "unix": Case("fastcgi_pass unix:SOCKET;"),
    "group": Case("fastcgi_pass app;"),
    "group in a variable": Case("set $a app; fastcgi_pass $a;"),
    "address in a variable": Case("set $a APP; fastcgi_pass $a;"),
    "index": Case(ASKED + "fastcgi_index i.php; fastcgi_param N $fastcgi_script_name;", path="a/"),
    "index, not for a file": Case(
        ASKED + "fastcgi_index i.php; fastcgi_param N $fastcgi_script_name;", path="a"
    ),
    "split": Case(
        ASKED + r"fastcgi_split_path_info ^(.+?\.php)(/.*)$; fastcgi_param P $fastcgi_path_info; "
        "fastcgi_param N $fastcgi_script_name;", path="a.php/b/c%20d?e",
    ),
    "split, no match": Case(
        ASKED + r"fastcgi_split_path_info ^(.+?\.php)(/.*)$; fastcgi_param P $fastcgi_path_info; "
        "fastcgi_param N $fastcgi_script_name;", path="a.txt",
    ),
    "status": _says("Status: 404 None", "Content-Type: a/b"),
    "status alone": _says("Status: 201"),
    "location": _says("Location: /there"),
    "location of a host": _says("Location: http://a/there"),
    "location and status": _says("Status: 301 Moved", "Location: http://a/b"),
    "status with its page": _says("Status: 404 None", inside=ASKED
                                  + "fastcgi_intercept_errors on; error_page 404 = /page;"),
    "fields of the answer": _says(
        "X-Powered-By: p", "Set-Cookie: a=1", "Set-Cookie: b=2", "X-Accel-Expires: 1",
        "X-Accel-Buffering: no", "Cache-Control: no-store", "ETag: \"e\"", "Vary: Accept",
        "Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT", "Content-Disposition: inline",
    ),
    "hidden": _says("X-Powered-By: p", "X-B: c", inside=ASKED
                    + "fastcgi_hide_header X-Powered-By;"),
    "passed": _says("X-Accel-Expires: 1", inside=ASKED
                    + "fastcgi_pass_header X-Accel-Expires;"),
    "LF alone": Case(ASKED, whole(b"Content-Type: a/b\nX-A: b\n\nok")),
    "length": _says("Content-Length: 2"),
    "more than the length": _says("Content-Length: 1"),
    "head": _says("Content-Length: 2", method="HEAD"),
    "ranges forced": _says("Content-Length: 2", inside=ASKED + "fastcgi_force_ranges on;",
                           fields=("Range: bytes=1-",)),
    "elsewhere": _says("X-Accel-Redirect: /internal/file.txt", "Content-Type: a/b",
                       "Set-Cookie: a=1", "X-Gone: 1"),
    "elsewhere, a range": _says("X-Accel-Redirect: /internal/file.txt",
                                fields=("Range: bytes=2-3",)),
    "elsewhere, ignored": _says("X-Accel-Redirect: /internal/file.txt", inside=ASKED
                                + "fastcgi_ignore_headers X-Accel-Redirect;"),
    "complaint": Case(ASKED, whole(b"Content-Type: a/b\r\n\r\nok", b"PHP Warning: oh")),
    "complaint caught": Case(ASKED + 'fastcgi_catch_stderr "PHP Fatal";',
                             whole(b"Content-Type: a/b\r\n\r\nok", b"PHP Fatal error: oh")),
    "complaint not caught": Case(ASKED + 'fastcgi_catch_stderr "PHP Fatal";',
                                 whole(b"Content-Type: a/b\r\n\r\nok", b"PHP Warning: oh")),
    # Bad answers.
    "nothing": Case(ASKED, b""),
    "HTTP": Case(ASKED, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"),
    "version 2": Case(ASKED, record(STDOUT, b"A: b\r\n\r\nok", version=2)),
    "another request": Case(ASKED, record(STDOUT, b"A: b\r\n\r\nok", request_id=2)),
    "unknown type": Case(ASKED, record(99, b"A: b\r\n\r\nok")),
    "half a record": Case(ASKED, record(STDOUT, b"A: b\r\n\r\nok")[:10]),
    "head without its end": Case(ASKED, whole(b"A: b\r\n")),
    "no head": Case(ASKED, whole(b"")),
    "complaint alone": Case(ASKED, record(STDERR, b"oh") + record(END, bytes(8))),
    "huge head": Case(ASKED, whole(b"A: " + b"b" * 40000 + b"\r\n\r\nok")),
    "NUL in a value": _says("X-A: b\0c"),
    "no colon": _says("nothing"),
    "space in a name": _says("X A: b"),
    "two statuses": _says("Status: 200", "Status: 404"),
    "status of letters": _says("Status: fine"),
    "length of letters": _says("Content-Length: two"),
    "two lengths": _says("Content-Length: 2", "Content-Length: 3"),
    "short": _says("Content-Length: 9"),
    "without its end": Case(ASKED, record(STDOUT, b"A: b\r\n\r\nok")),
}  # fmt: skip

_FIXED: Final = ('"e"', "Sun, 06 Nov 1994 08:49:37 GMT")
#: Where we differ, and why (docs/differences.md).
DIFFERENT: Final = {
    "fields": "fields of one name are joined, HTTP_PROXY is never sent",
    "field overridden": "the same",
    "field taken away": "the same",
    "no colon": "refused",
    "two statuses": "refused",
    "length of letters": "refused",
    "two lengths": "refused before anything is sent, where nginx breaks off",
    "short": "refused before anything is sent, where nginx breaks off",
    "without its end": "broken off: without FCGI_END_REQUEST it may not be whole",
}


class Side:
    """One server with applications of its own."""

    def __init__(self, directory: Path, name: str) -> None:
        self.directory = directory
        for place in ("logs", "temp", "www"):
            (directory / place).mkdir(parents=True)
        directory.chmod(0o755)
        (directory / "www" / "file.txt").write_text("a file's text")
        (self.port,) = free_ports(1)
        path = str(directory / "app.sock")
        self.applications = Application(), Application(path)
        Path(path).chmod(0o777)
        locations = "\n".join(
            f"location /{number}/ {{ {case.inside} }}"
            for number, case in enumerate(CASES.values())
        )
        text = CONFIGURATION.format(
            name=name, directory=directory, port=self.port, locations=locations
        )
        text = re.sub(r"\bAPP\b", f"127.0.0.1:{self.applications[0].port}", text)
        self.config = directory / "server.conf"
        self.config.write_text(re.sub(r"\bSOCKET\b", path, text))

    def close(self) -> None:
        for application in self.applications:
            application.close()

    def play(self, number: int, case: Case) -> Any:
        """What the applications saw, and the client got."""
        for application in self.applications:
            application.answer = case.answer
        data = rawhttp.request(
            f"/{number}/{case.path}", *case.fields, "Connection: close", method=case.method,
            body=case.body,
        )  # fmt: skip
        try:
            got = self._got(rawhttp.exchange(self.port, data))
        except (AssertionError, ValueError):
            got = "cut"
        return [seen for application in self.applications for seen in application.take()], got

    def _got(self, answer: rawhttp.Answer | None) -> Any:
        assert answer is not None
        if b"<center>" in answer.body:
            return answer.status
        made = {"server", "date", "connection", "transfer-encoding"}
        if answer.header("content-range") is None and answer.body:
            made |= {"content-length", "accept-ranges"}  # see "framing" in docs/differences.md
        pairs = [
            (name.lower(), value.replace(f":{self.port}", ""))
            for name, value in answer.headers
            # Those of a file of ours tell when it was made.
            if name.lower() not in ("etag", "last-modified") or value in _FIXED
        ]
        return answer.status, sorted(pair for pair in pairs if pair[0] not in made), answer.body


class ApplicationTests(StagedCase):
    def test_same(self) -> None:
        directory = beside.directory(self.addCleanup, "applications")
        theirs, ours = (Side(directory / name, name) for name in ("nginx", "imagefarm"))
        self.addCleanup(theirs.close)
        self.addCleanup(ours.close)
        beside.start(self.addCleanup, (theirs.config, [theirs.port]), (ours.config, [ours.port]))

        def play(side: Side) -> list[Any]:
            return [side.play(number, case) for number, case in enumerate(CASES.values())]

        with ThreadPoolExecutor(2) as pool:
            expected, got = pool.map(play, (theirs, ours))
        found = [
            f"{name}\n    {one}\n    {other}"
            for name, one, other in zip(CASES, expected, got, strict=True)
            if one != other and name not in DIFFERENT
        ]
        wait_until(lambda: not self._untold(ours, got), 30, "reasons and peers in the log")
        self.assertEqual(found, [], "\n" + "\n".join(found))

    @staticmethod
    def _untold(side: Side, got: list[Any]) -> list[str]:
        """The failures whose reason and peer the error log does not have."""
        lines = (side.directory / "logs" / "imagefarm.log").read_text().splitlines()
        peer = f'upstream: "fastcgi://127.0.0.1:{side.applications[0].port}"'
        failed = [n for n, (_, answer) in enumerate(got) if answer in (502, 504, "cut")]
        return [
            name
            for number, name in enumerate(CASES)
            if number in failed
            and not any(f'"GET /{number}/' in line and peer in line for line in lines)
        ]
