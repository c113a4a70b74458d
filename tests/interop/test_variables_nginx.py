"""Every variable, in an answer and in the access log: nginx and imagefarm say the same.

What must differ (ports, directories, times, versions) is replaced by a word for it first.
"""

from __future__ import annotations

import os
import re
import socket
import time
from pathlib import Path

from tests.support import beside, farmsite, rawhttp
from tests.support.acceptor import Acceptor
from tests.support.processes import free_ports
from tests.support.stages import StagedCase


def _words(text: str) -> list[str]:
    return text.split()


#: In answers and in the log.
EARLY = _words(
    """
    arg_a arg_b arg_none args binary_remote_addr connection_requests connection_time
    content_length
    content_type date_gmt date_local
    cookie_a cookie_b cookie_none document_root document_uri fastcgi_path_info fastcgi_script_name
    host hostname http_cookie http_host http_none http_user_agent http_via http_x_forwarded_for
    http_x_two https is_args limit_rate msec nginx_version pid pipe proxy_add_x_forwarded_for
    proxy_host proxy_port proxy_protocol_addr proxy_protocol_port proxy_protocol_server_addr
    proxy_protocol_server_port query_string realip_remote_addr realip_remote_port realpath_root
    remote_addr remote_port remote_user request request_body request_body_file request_filename
    request_id request_length request_method request_time request_uri scheme server_addr
    server_name server_port server_protocol ssl_cipher ssl_protocol ssl_server_name
    tcpinfo_rcv_space tcpinfo_rtt tcpinfo_rttvar tcpinfo_snd_cwnd time_iso8601 time_local uri
    early late named optional
    """
)
#: In answers alone: when a line is logged, its connection waits for us and is writing for nginx.
ANSWERED = _words("connections_active connections_reading connections_waiting connections_writing")
#: In the log alone.
LATE = _words(
    """
    body_bytes_sent bytes_sent gzip_ratio request_completion sent_http_cache_control
    sent_http_connection sent_http_content_length sent_http_content_type sent_http_etag
    sent_http_keep_alive sent_http_last_modified sent_http_link sent_http_location sent_http_none
    sent_http_transfer_encoding sent_http_x_two sent_trailer_none status upstream_addr
    upstream_bytes_received upstream_bytes_sent upstream_cache_status upstream_connect_time
    upstream_cookie_a upstream_cookie_none upstream_header_time upstream_http_content_length
    upstream_http_none upstream_http_x_up upstream_response_length upstream_response_time
    upstream_status upstream_trailer_none
    """
)

CONFIGURATION = r"""
worker_processes 1;
error_log %(here)s/error.log;
pid %(here)s/pid;
events { worker_connections 64; }
http {
    log_format all '%(log)s';
    access_log %(here)s/access.log all;
    root %(here)s/www;
    types { text/plain txt; text/html html; }
    default_type text/plain;
    keepalive_timeout 20 30;
    upstream pair { server 127.0.0.1:%(raw)d; server 127.0.0.1:%(dead)d backup; }
    upstream broken { server 127.0.0.1:%(dead)d; server 127.0.0.1:%(dead)d; }
    server {
        listen %(any)d;
        listen 127.0.0.1:%(plain)d;
        listen 127.0.0.1:%(proxied)d proxy_protocol;
        listen unix:%(here)s/socket;
        server_name first.test second.test;
        set $early 1;
        set $early "";
        location / { }
        location /all { return 200 '%(answer)s'; }
        location ~ ^/named/(?<named>[a-z]+)(?<optional>-.*)?$ { return 200 '%(answer)s'; }
        location /late { set $late 2; return 200 '%(answer)s'; }
        location /limited { limit_rate 2000000; alias %(here)s/www/; }
        location /told { set $limit_rate 2m; alias %(here)s/www/; }
        location /fields {
            add_header X-Two one; add_header X-Two two; add_header Link a; add_header Link b;
            add_header Cache-Control x; expires 1h; alias %(here)s/www/;
        }
        location /gzip { gzip on; gzip_types *; gzip_comp_level 6; alias %(here)s/www/; }
        location /pair/ { %(proxy)s proxy_pass http://pair/; }
        location /broken/ { %(proxy)s proxy_pass http://broken/; error_page 502 /pair/length; }
        location /to { return 302 /all?b=1; }
        location /page { error_page 404 = /all; root /nowhere; }
        location /alias/ { alias %(here)s/www/../www/; }
        location /link/ { root %(here)s; }
        location /rewritten { rewrite ^/rewritten(.*)$ /all$1?b=2; }
        location /body { client_max_body_size 3; return 200 '%(answer)s'; }
    }
}
"""
PROXY = (
    'proxy_http_version 1.1; proxy_set_header Connection ""; proxy_next_upstream_tries 2;'
    " proxy_next_upstream error timeout;"
)


class Raw(Acceptor):
    """An upstream."""

    answers = {
        b"/length": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Up: yes\r\n"
        b"Set-Cookie: b=1; path=/\r\nSet-Cookie: A=two; path=/x\r\n\r\nhello",
        b"/chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"3\r\nabc\r\n4;x=y\r\ndefg\r\n0\r\n\r\n",
        b"/none": b"HTTP/1.1 204 No Content\r\n\r\n",
        b"/missing": b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno",
        b"/short": b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfour",
    }

    def serve(self, client: socket.socket) -> None:
        data = b""
        while b"\r\n\r\n" not in data:
            data += client.recv(65536)
        client.sendall(self.answers[data.split(b" ")[1]])


class Side:
    """A directory and ports."""

    def __init__(self, here: Path, raw: int) -> None:
        here.mkdir()
        here.chmod(0o755)
        self.here = here
        text = b"".join(b"a line of text, %d\n" % number for number in range(200))
        farmsite.write_files(here / "www", {"a.txt": b"a\n", "b.html": b"b", "big.txt": text})
        os.symlink("www", here / "link")
        names = ("any", "plain", "proxied", "dead")
        self.ports = dict(zip(names, free_ports(len(names)), strict=True))
        self.raw = raw
        self.logged = 0
        values = {
            "here": str(here),
            "raw": raw,
            "log": "|".join(f"{name}=${{{name}}}" for name in EARLY + LATE),
            "answer": "|".join(f"{name}=${{{name}}}" for name in EARLY + ANSWERED),
            "proxy": PROXY,
            **self.ports,
        }
        self.config = here / "server.conf"
        self.config.write_text(CONFIGURATION % values)
        self.listening = [self.ports[name] for name in names[:3]]

    def talk(self, where: str, *pieces: bytes) -> bytes:
        """Everything that comes back."""
        if where == "unix":
            sock = socket.socket(socket.AF_UNIX)
            sock.connect(str(self.here / "socket"))
        else:
            sock = socket.create_connection(("127.0.0.1", self.ports[where]))
        with sock:
            sock.settimeout(rawhttp.TIMEOUT)
            for number, piece in enumerate(pieces):
                if number:
                    time.sleep(0.1)  # apart, for $pipe
                sock.sendall(piece)
            found = b""
            while data := sock.recv(65536):
                found += data
        return found

    def neutral(self, text: str) -> str:
        """Without what must differ."""
        text = text.replace(str(self.here), "HERE").replace(f":{self.raw}", ":RAW")
        for name, port in self.ports.items():
            text = text.replace(f"={port}|", f"={name}|").replace(f":{port}", f":{name}")
        for names, pattern, word in _NEUTRAL:
            text = re.sub(rf"\b({names})=({pattern})(?=\||$)", rf"\1={word}", text, flags=re.M)
        return text

    def log(self, count: int) -> list[str]:
        """The next lines of the access log."""
        lines: list[str] = []
        for _ in range(100):
            lines = (self.here / "access.log").read_text("latin-1").splitlines()
            if len(lines) >= self.logged + count:
                break
            time.sleep(0.05)
        lines, self.logged = lines[self.logged :], len(lines)
        return [self.neutral(line) for line in lines]


_TIME = r"\d+\.\d{3}"
_NEUTRAL = (
    ("msec|request_time|connection_time", _TIME, "TIME"),
    ("upstream_(?:connect|header|response)_time", rf"{_TIME}|[-:, ]*{_TIME}[-:, \d.]*", "TIMES"),
    ("time_iso8601", r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d", "TIME"),
    ("time_local", r"\d\d/\w{3}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}", "TIME"),
    ("date_gmt", r"\w+day, \d\d-\w{3}-\d{4} \d\d:\d\d:\d\d GMT", "TIME"),
    ("date_local", r"\w+day, \d\d-\w{3}-\d{4} \d\d:\d\d:\d\d [A-Z]+", "TIME"),
    ("pid|remote_port|realip_remote_port|tcpinfo_\\w+", r"\d+", "N"),
    ("nginx_version", r"[\d.]+(?:\w+)?", "V"),
    ("request_id", "[0-9a-f]{32}", "ID"),
    ("bytes_sent", r"\d{2,}", "N"),  # the head names the server
    # Texts of variables, and built-in pages, which name the server.
    ("body_bytes_sent|sent_http_content_length", r"\d{3,}", "N"),
)

GET = "GET {} HTTP/1.1\r\nHost: Second.test:80\r\nConnection: close\r\n{}\r\n"


def get(target: str, *fields: str) -> bytes:
    return GET.format(target, "".join(f"{field}\r\n" for field in fields)).encode("latin-1")


def post(target: str, body: bytes) -> bytes:
    return get(target, f"Content-Length: {len(body)}").replace(b"GET", b"POST") + body


LATER = "Fri, 01 Jan 2100 00:00:00 GMT"
OLD = b"GET /a.txt HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
KEPT = b"GET /all?n=%d HTTP/1.1\r\nHost: a\r\n\r\n"
MANY = (
    "Cookie: a=1; b=x y ;none", "Cookie: c=3", "Authorization: Basic dXNlcjpwYXNz", "X-Two: 1",
    "X-Two: 2", "X-Forwarded-For: 192.0.2.1", "X-Forwarded-For: 192.0.2.2", "Via: 1.1 x",
    'User-Agent: "q\\', "Content-Type: text/x", "Accept-Encoding: gzip",
)  # fmt: skip
#: Where, and what is sent.
REQUESTS: dict[str, tuple[str, tuple[bytes, ...]]] = {
    "simple": ("plain", (get("/all"),)),
    "many fields": ("plain", (get("/all?a=1&B=2&a=3&x", *MANY),)),
    "bad authorization": ("plain", (get("/all", "Authorization: Basic !"),)),
    "authorization without colon": ("plain", (get("/all", "Authorization: Basic dXNlcg=="),)),
    "any address": ("any", (get("/all"),)),
    "unix": ("unix", (get("/all"),)),
    "PROXY": ("proxied", (b"PROXY TCP4 192.0.2.1 192.0.2.9 51000 443\r\n" + get("/all"),)),
    "absolute": ("plain", (get("http://other.test:99/all?q"),)),
    "encoded": ("plain", (get("/a%6Cl/%20x//y?%20"),)),
    "named": ("plain", (get("/named/abc"),)),
    "optional": ("plain", (get("/named/abc-d"),)),
    "late": ("plain", (get("/late"),)),
    "file": ("plain", (get("/a.txt", *MANY),)),
    "file in part": ("plain", (get("/big.txt", "Range: bytes=1-9"),)),
    "not modified": ("plain", (get("/a.txt", f"If-Modified-Since: {LATER}"),)),
    "missing": ("plain", (get("/none"),)),
    "empty arguments": ("plain", (get("/all?"),)),
    "old": ("plain", (b"GET /all HTTP/1.0\r\n\r\n",)),
    "old kept": ("plain", (OLD + get("/all"),)),
    "HEAD": ("plain", (b"HEAD /a.txt HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",)),
    "POST": ("plain", (post("/all", b"ab"),)),
    "large body": ("plain", (post("/body", b"abcd"),)),
    "one after another": ("plain", (KEPT % 1, KEPT % 2, get("/all"))),
    "at once": ("plain", (KEPT % 1 + KEPT % 2 + get("/all"),)),
    "limited": ("plain", (get("/limited/a.txt"),)),
    "told": ("plain", (get("/told/a.txt"),)),
    "fields": ("plain", (get("/fields/a.txt"),)),
    "gzip": ("plain", (get("/gzip/big.txt", "Accept-Encoding: gzip"),)),
    "not gzip": ("plain", (get("/gzip/big.txt"),)),
    "redirect": ("plain", (get("/to"),)),
    "error page": ("plain", (get("/page", "Accept: *"),)),
    "alias": ("plain", (get("/alias/a.txt"),)),
    "link": ("plain", (get("/link/a.txt"),)),
    "rewritten": ("plain", (get("/rewritten/x?a=1"),)),
    "upstream": ("plain", (get("/pair/length"),)),
    "chunked upstream": ("plain", (get("/pair/chunked"),)),
    "empty upstream": ("plain", (get("/pair/none"),)),
    "upstream's 404": ("plain", (get("/pair/missing"),)),
    "HEAD upstream": ("plain", (get("/pair/none").replace(b"GET", b"HEAD"),)),
    "dead upstream": ("plain", (get("/broken/x"),)),
    "no request": ("plain", (b"GET\r\n\r\n",)),
    "bad host": ("plain", (b"GET /all HTTP/1.1\r\nHost: a/b\r\n\r\n",)),
}  # fmt: skip


#: What is told otherwise, by request and variable, and why (docs/differences.md).
DIFFERENT = {
    # The length of what is compressed, or was chunked, is known where all of it is there.
    *((name, variable) for name in ("gzip", "chunked upstream") for variable in (
        "body_bytes_sent", "sent_http_content_length", "sent_http_transfer_encoding",
    )),
    # nginx counts what frames the chunks.
    ("chunked upstream", "upstream_response_length"),
    # nginx has forgotten that the connection is kept when it writes the log.
    *((name, variable) for name in ("old kept", "one after another", "at once") for variable in (
        "sent_http_connection", "sent_http_keep_alive",
    )),
    # nginx joins them since 1.23.
    ("fields", "sent_http_x_two"), ("many fields", "http_x_two"), ("file", "http_x_two"),
    # nginx has stopped in the middle of the head.
    ("bad host", "request_length"),
    ("large body", "request_length"),
    ("no request", "request_length"),
}  # fmt: skip


class VariablesTests(StagedCase):
    """One nginx, one imagefarm."""

    maxDiff = None

    def test_same(self) -> None:
        directory = beside.directory(self.addCleanup, "variables")
        raw = Raw()
        raw.open()
        self.addCleanup(raw.close)
        theirs, ours = (Side(directory / name, raw.port) for name in ("nginx", "imagefarm"))
        beside.start(
            self.addCleanup, (theirs.config, theirs.listening), (ours.config, ours.listening),
            "slave",
        )  # fmt: skip
        found: list[str] = []
        for name, (where, pieces) in REQUESTS.items():
            bodies, lines = [], []
            count = sum(piece.count(b" HTTP/") or 1 for piece in pieces)
            for side in (theirs, ours):
                text = side.talk(where, *pieces).decode("latin-1")
                bodies.append([side.neutral(b) for b in re.findall("^arg_a=.*", text, re.M)])
                lines.append(side.log(count))
            found += _differences(name, "answer", *bodies)
            found += _differences(name, "log", *lines)
        self.assertEqual(found, [], "\n" + "\n".join(found))


def _differences(name: str, what: str, expected: list[str], got: list[str]) -> list[str]:
    if len(expected) != len(got):
        return [f"{name}, {what}: {len(expected)} and {len(got)}"]
    found = []
    for theirs, ours in zip(expected, got, strict=True):
        for one, other in zip(theirs.split("|"), ours.split("|"), strict=True):
            if one != other and (name, one.partition("=")[0]) not in DIFFERENT:
                found.append(f"{name}, {what}: {one!r} and {other!r}")
    return found
