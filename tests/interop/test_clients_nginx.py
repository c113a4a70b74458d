"""Who the client is, and which server it meets: nginx and imagefarm on the same configuration.

PROXY headers, the realip module, addresses behind one socket, and server names.
"""

from __future__ import annotations

import contextlib
import datetime
import shutil
import socket
import ssl
import struct
import tempfile
import time
from pathlib import Path

from imagefarm.process.certificate import ensure_self_signed
from tests.support import farmsite, rawhttp, tools
from tests.support.processes import Daemon, free_ports
from tests.support.processes import imagefarm as start_imagefarm
from tests.support.stages import StagedCase

CONFIGURATION = r"""
worker_processes 1;
error_log %(here)s/error.log info;
pid %(here)s/pid;
events { worker_connections 64; }
http {
    server_names_hash_bucket_size 128;
    log_format who '$remote_addr|$realip_remote_addr|$proxy_protocol_addr|$status|$request_uri';
    access_log %(here)s/access.log who;
    root %(here)s/www;
    add_header X-Who "$remote_addr|$realip_remote_addr" always;
    add_header X-Proxy "$proxy_protocol_addr|$proxy_protocol_port" always;
    add_header X-Proxy-Server "$proxy_protocol_server_addr|$proxy_protocol_server_port" always;
    add_header X-For "$proxy_add_x_forwarded_for" always;
    add_header X-Server $server_name always;

    set_real_ip_from 127.0.0.0/8;
    set_real_ip_from 10.0.0.0/8;
    set_real_ip_from 2001:db8::/32;
    set_real_ip_from unix:;

    server {
        listen 127.0.0.1:%(plain)d;
        listen unix:%(here)s/socket;
        server_name forwarded;
        real_ip_header X-Forwarded-For;
        location / { }
        location /deny/ { deny 192.0.2.66; allow 192.0.2.0/24; deny all; alias %(here)s/www/; }
        location /port { add_header X-Port $remote_port always; alias %(here)s/www/a.txt; }
    }
    server {
        listen 127.0.0.1:%(plain)d;
        server_name recursive;
        real_ip_header X-Forwarded-For;
        real_ip_recursive on;
    }
    server {
        listen 127.0.0.1:%(plain)d;
        server_name real;
        location /other/ { real_ip_header CF-Connecting-IP; alias %(here)s/www/; }
    }
    server {
        listen 127.0.0.1:%(plain)d;
        server_name by-location;
        set_real_ip_from 192.0.2.1;
        location / { }
        location /trusted/ { set_real_ip_from 127.0.0.1; alias %(here)s/www/; }
        location /proxied/ {
            set_real_ip_from 127.0.0.1;
            real_ip_header proxy_protocol;
            alias %(here)s/www/;
        }
    }
    server {
        listen 127.0.0.1:%(proxied)d proxy_protocol;
        server_name proxied;
        real_ip_header proxy_protocol;
        location / { }
        location /deny/ { deny 192.0.2.66; alias %(here)s/www/; }
        location /port { add_header X-Port $remote_port always; alias %(here)s/www/a.txt; }
    }
    server {
        listen 127.0.0.1:%(proxied)d;
        server_name unchanged;
    }
    server {
        listen 127.0.0.1:%(tls)d ssl proxy_protocol;
        ssl_certificate %(here)s/pem;
        ssl_certificate_key %(here)s/key;
        server_name tls;
        real_ip_header proxy_protocol;
    }
    server { listen %(many)d; server_name any; }
    server { listen 127.0.0.2:%(many)d; server_name two; }
    server { listen 127.0.0.3:%(many)d; server_name three; }
    server { listen 127.0.0.3:%(many)d default_server; server_name three-default; }
    server { listen [::]:%(many)d ipv6only=on; server_name six; }
    server { listen [::1]:%(many)d; server_name loopback-six; }

    server { listen 127.0.0.1:%(names)d; server_name default "" ; }
    server { listen 127.0.0.1:%(names)d; server_name exact.test www.exact.test 127.0.0.9; }
    server { listen 127.0.0.1:%(names)d; server_name *.exact.test; }
    server { listen 127.0.0.1:%(names)d; server_name *.sub.exact.test; }
    server { listen 127.0.0.1:%(names)d; server_name www.*; }
    server { listen 127.0.0.1:%(names)d; server_name www.exact.*; }
    server { listen 127.0.0.1:%(names)d; server_name .dotted.test; }
    server { listen 127.0.0.1:%(names)d; server_name UPPER.test; }
    server {
        listen 127.0.0.1:%(names)d;
        server_name ~^(?<user>[a-z]+)\.(?<zone>users|people)\.test$;
        add_header X-Captures "$user|$zone|$1|$2" always;
    }
    server {
        listen 127.0.0.1:%(names)d;
        server_name ~^(.+)\.users\.test$ ~CASE\.test$;
        add_header X-Captures "$1" always;
    }
    server { listen 127.0.0.1:%(names)d; server_name [2001:db8::1] ~^\[fe80::; }
    server { listen 127.0.0.1:%(names)d; server_name exact.test second.test; }

    server { listen 127.0.0.1:%(nameless)d; server_name first; }
    server { listen 127.0.0.1:%(nameless)d; add_header X-Server nameless; }

%(heads_servers)s
}
"""

#: Servers that read heads each in its own way; the first is the default.
HEADS = {
    "usual": "",
    "under": "underscores_in_headers on;",
    "invalid": "ignore_invalid_headers off;",
    "both": "underscores_in_headers on; ignore_invalid_headers off;",
    "large": "large_client_header_buffers 8 20k;",
    "slashes": "merge_slashes off;",
}


def heads_servers(listen: str) -> str:
    return "\n".join(
        f"server {{ listen {listen}; server_name {name}; {text}"
        "ssl_certificate pem; ssl_certificate_key key; error_page 400 404 /a.txt; access_log off;"
        "add_header X-Server $server_name; add_header X-Uri $uri always;"
        'add_header X-Fields "$http_x_under|$http_x_dot" always; }'
        for name, text in HEADS.items()
    )


NAMES = (
    "exact.test", "EXACT.Test", "exact.test:80", "exact.test:", "exact.test.", "exact.test.:8080",
    "www.exact.test", "a.exact.test", "a.b.exact.test", "a.sub.exact.test", "sub.exact.test",
    ".exact.test", "www.exact.com", "www.other.com", "www.exact", "www.", "www.a.b.c", "www",
    "dotted.test", "a.dotted.test", "a.b.dotted.test", "xdotted.test", "upper.test", "UPPER.TEST",
    "joe.users.test", "JOE.users.test", "joe.people.test", "j0e.users.test", "joe.users.test:81",
    "joe.users.test.", "my.case.test", "case.test", "second.test", "127.0.0.9", "127.0.0.9:99",
    "[2001:db8::1]", "[2001:DB8::1]:80", "[fe80::1]", "[::1]", "unknown", "a..b", "exact.test..",
    "_", "-", "default", "*.exact.test", "a_b.exact.test",
)  # fmt: skip

FORWARDED = (
    (), ("192.0.2.1",), ("192.0.2.1, 192.0.2.2",), ("192.0.2.1,10.0.0.9",),
    ("192.0.2.1, 10.1.1.1, 10.0.0.9",), ("10.0.0.7, 10.0.0.9",), ("192.0.2.1", "10.0.0.9"),
    ("192.0.2.1", "10.0.0.8, 10.0.0.9"), ("unknown",), ("192.0.2.1, unknown, 10.0.0.9",),
    ("192.0.2.1:5000",), ("[2001:db8::7]:81",), ("2001:db8::7",), ("[2001:db8::7]",),
    ("192.0.2.1, 2001:db8::7, 10.0.0.1:9",), ("192.0.2.1 ,, ",), ("::ffff:192.0.2.5",),
    ("192.0.2.300",), ("192.0.2.1:0",), ("192.0.2.1:70000",), ("2001:DB8:0:0::0001",), ("",),
    ("192.0.2.1", ""), ("192.0.2.66",), ("1::",),
)  # fmt: skip


def v2(command: int, family: int, block: bytes, version: int = 2) -> bytes:
    head = struct.pack("!BBH", version << 4 | command, family, len(block))
    return b"\r\n\r\n\x00\r\nQUIT\n" + head + block


FOUR = bytes([192, 0, 2, 1, 192, 0, 2, 9]) + struct.pack("!HH", 51000, 443)
SIX = socket.inet_pton(socket.AF_INET6, "2001:db8::1") * 2 + struct.pack("!HH", 51000, 443)

HEADERS = (
    b"PROXY TCP4 192.0.2.1 192.0.2.9 51000 443\r\n",
    b"PROXY TCP4 192.0.2.66 192.0.2.9 51000 443\r\n",
    b"PROXY TCP6 2001:db8::1 2001:db8::2 51000 443\r\n",
    b"PROXY UNKNOWN\r\n",
    b"PROXY UNKNOWN 1.1.1.1 2.2.2.2 3 4\r\n",
    v2(1, 0x11, FOUR),
    v2(1, 0x11, FOUR + b"\x01\x00\x02h2"),
    v2(1, 0x21, SIX),
    v2(0, 0x00, b""),
    v2(0, 0x11, FOUR),
    v2(1, 0x00, b""),
    v2(1, 0x12, FOUR),
    v2(1, 0x31, bytes(216)),
    # Refused by both.
    b"",
    b"PROXY\r\n",
    b"PROXY TCP5 1.1.1.1 2.2.2.2 1 2\r\n",
    b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2\n",
    b"PROXY TCP4 1.1.1.1 2.2.2.2 1\r\n",
    b"PROXY TCP4 1.1.1.1 2.2.2.2 1 66000\r\n",
    b"PROXY TCP4 1.1.1.g 2.2.2.2 1 2\r\n",
    v2(1, 0x11, FOUR, version=1),
    v2(1, 0x11, FOUR[:8]),
)


class Side:
    """A directory, ports, and the configuration with them."""

    def __init__(self, here: Path) -> None:
        here.mkdir()
        here.chmod(0o755)
        self.here = here
        (here / "www").mkdir()
        (here / "www" / "a.txt").write_text("a\n")
        now = datetime.datetime.now(datetime.UTC)
        ensure_self_signed(str(here / "pem"), str(here / "key"), now)
        names = ("plain", "proxied", "tls", "many", "names", "nameless", "heads", "secure")
        self.ports = dict(zip(names, free_ports(len(names)), strict=True))
        self.config = here / "server.conf"
        servers = heads_servers(f"127.0.0.1:{self.ports['heads']}")
        servers += heads_servers(f"127.0.0.1:{self.ports['secure']} ssl")
        servers = servers.replace("pem;", f"{here}/pem;").replace("key key", f"key {here}/key")
        self.config.write_text(
            CONFIGURATION % {"here": str(here), "heads_servers": servers, **self.ports}
        )
        listening = [self.ports[name] for name in names]
        self._listening = listening

    def nginx(self) -> Daemon:
        return farmsite.nginx(tools.nginx(), self.here, self.config, self._listening)

    def imagefarm(self) -> Daemon:
        words = ["--config", str(self.config)]
        return start_imagefarm("slave", self.here, *words, ports=self._listening)

    def ask(
        self,
        data: bytes,
        where: str = "plain",
        host: str = "127.0.0.1",
        proxy: bytes = b"",
        times: int = 1,
        sni: str | None = "localhost",
    ) -> list[object]:
        """What the answers say of the client and the server; None where there is none."""
        if where == "unix":
            sock = socket.socket(socket.AF_UNIX)
            sock.settimeout(rawhttp.TIMEOUT)
            sock.connect(str(self.here / "socket"))
        else:
            sock = socket.create_connection((host, self.ports[where]), rawhttp.TIMEOUT)
        with sock:
            if where in ("tls", "secure"):
                sock.sendall(proxy)
                try:
                    sock = tls(sock, sni)
                except OSError:
                    return [None]
                proxy = b""
            reader = rawhttp.Reader(sock)
            answers: list[object] = []
            for number in range(times):
                with contextlib.suppress(OSError):
                    sock.sendall(data if number else proxy + data)
                answers.append(self._seen(reader))
            sock.close()
        return answers

    @staticmethod
    def _seen(reader: rawhttp.Reader) -> object:
        answer = reader.answer()
        if answer is None:
            return None
        wanted = {k.lower(): v for k, v in answer.headers if k.lower().startswith("x-")}
        return answer.status, wanted


def tls(sock: socket.socket, sni: str | None) -> ssl.SSLSocket:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context.wrap_socket(sock, server_hostname=sni)


class ClientTests(StagedCase):
    """One nginx, one imagefarm; nginx's answer first in each difference."""

    maxDiff = None

    def setUp(self) -> None:
        tools.nginx()
        directory = Path(tempfile.mkdtemp(prefix="clients-"))
        self.addCleanup(shutil.rmtree, directory, ignore_errors=True)
        directory.chmod(0o755)
        self.theirs, self.ours = Side(directory / "nginx"), Side(directory / "imagefarm")
        for daemon in (self.theirs.nginx(), self.ours.imagefarm()):
            self.addCleanup(daemon.stop)
            daemon.started()
        self.differences: list[str] = []
        self.asked = 0

    def compare(self, name: str, data: bytes, **where: object) -> list[object]:
        theirs = self.theirs.ask(data, **where)  # type: ignore[arg-type]
        ours = self.ours.ask(data, **where)  # type: ignore[arg-type]
        self.asked += 1
        if theirs != ours:
            self.differences.append(f"{name}\n    {theirs}\n    {ours}")
        return ours

    def test_same_answers(self) -> None:
        self.forwarded()
        self.proxied()
        self.addresses()
        self.names()
        self.heads()
        self.assertGreaterEqual(self.asked, 200)
        if self.differences:
            self.fail(f"{len(self.differences)} of {self.asked}:\n" + "\n".join(self.differences))
        self.logs()

    def forwarded(self) -> None:
        for host in ("forwarded", "recursive", "real", "by-location"):
            for lines in FORWARDED:
                fields = [f"X-Forwarded-For: {line}" for line in lines]
                for name in ("X-Real-IP", "CF-Connecting-IP"):
                    fields += [f"{name}: {line}" for line in lines]
                for path in ("/a.txt", "/missing"):
                    # Twice on a connection, then again: the fast path, if it is taken.
                    data = rawhttp.request(path, *fields, host=host)
                    self.compare(f"{host} {path} {lines}", data, times=2)
        for path in ("/deny/a.txt", "/port"):
            for lines in FORWARDED:
                fields = [f"X-Forwarded-For: {line}" for line in lines]
                data = rawhttp.request(path, *fields, host="forwarded")
                if path != "/port" or (lines and ":5000" in lines[0]):
                    self.compare(f"{path} {lines}", data)
        for host, path in (("real", "/other/a.txt"), ("by-location", "/trusted/a.txt")):
            data = rawhttp.request(
                path, "X-Real-IP: 192.0.2.7", "CF-Connecting-IP: 192.0.2.8", host=host
            )
            self.compare(f"{host} {path}", data, times=2)
        data = rawhttp.request("/a.txt", "X-Forwarded-For: 192.0.2.7", host="forwarded")
        self.compare("over a Unix socket", data, where="unix", times=2)

    def proxied(self) -> None:
        for header in HEADERS:
            for host, path in (
                ("proxied", "/a.txt"), ("proxied", "/deny/a.txt"), ("unchanged", "/a.txt"),
            ):  # fmt: skip
                data = rawhttp.request(path, "X-Real-IP: 192.0.2.8", host=host)
                name = f"{header!r} {host} {path}"
                self.compare(name, data, where="proxied", proxy=header, times=2)
            data = rawhttp.request("/a.txt", host="tls")
            # nginx waits for more of a short one, and knows none longer than 107 bytes there.
            if 8 <= len(header) <= 107:
                self.compare(f"{header!r} tls", data, where="tls", proxy=header)
        data = rawhttp.request("/port", host="proxied")
        got = self.compare("port", data, where="proxied", proxy=HEADERS[0])
        self.assertEqual(got[0][1]["x-port"], "51000")  # type: ignore[index]
        data = rawhttp.request("/proxied/a.txt", host="by-location")
        self.compare("no PROXY header where one is looked for", data)

    def addresses(self) -> None:
        for local in ("127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.4", "::1"):
            for host in ("any", "two", "three", "six", "loopback-six", "nobody"):
                data = rawhttp.request("/a.txt", host=host)
                self.compare(f"{local} {host}", data, where="many", host=local, times=2)

    def names(self) -> None:
        for name in NAMES:
            self.compare(f"Host: {name}", rawhttp.request("/a.txt", host=name), where="names")
            if not set(name) & set("_*"):  # nginx is stricter in an absolute target
                target = rawhttp.request(f"http://{name}/a.txt", host=name)
                self.compare(f"http://{name}", target, where="names")
        self.compare("no Host", b"GET /a.txt HTTP/1.0\r\n\r\n", where="names")
        self.compare("empty Host", b"GET /a.txt HTTP/1.0\r\nHost:\r\n\r\n", where="names")
        self.compare("to the nameless", b"GET /a.txt HTTP/1.0\r\n\r\n", where="nameless")
        for name in ("first", "other"):
            self.compare(name, rawhttp.request("/a.txt", host=name), where="nameless")

    def heads(self) -> None:
        fields = ("X_Under: 1", "X.Dot: 2", "X-Long: " + "x" * 10_000)
        for name in (*HEADS, "nobody"):
            for sni in (*HEADS, "nobody", None):
                data = rawhttp.request("//a.txt", *fields[name == "invalid" : 2], host=name)
                what = f"SNI {sni} Host {name}"
                self.compare(what, data, where="secure", sni=sni, times=2)
                data = rawhttp.request("/%zz", host=name)
                self.compare(f"{what} malformed", data, where="secure", sni=sni)
            for line in fields:
                host = f"Host: {name}"
                asked = [
                    rawhttp.request("/a.txt", host, line, host=None),
                    rawhttp.request("/a.txt", line, host, host=None),
                    rawhttp.request(f"http://{name}/a.txt", line, host="under"),
                ]
                for number, data in enumerate(asked):
                    if line.startswith("X_") and name == "invalid" and number != 1:
                        continue  # only "underscores_in_headers" lets us keep it
                    what = f"{name} {line[:12]} {number}"
                    self.compare(what, data, where="heads", times=2)
            self.compare(name, rawhttp.request("//a.txt", host=name), where="heads", times=2)

    def logs(self) -> None:
        """The same clients in the access logs, line by line."""
        logs = []
        for side in self.theirs, self.ours:
            path = side.here / "access.log"
            logs.append([])
            for _ in range(100):
                logs[-1] = path.read_text().splitlines()
                if len(logs[-1]) >= len(logs[0]):
                    break
                time.sleep(0.05)
        self.assertEqual(logs[0], logs[1])
