"""``proxy_bind``, ``fastcgi_bind``: where nginx's connections and ours come from."""

from __future__ import annotations

import re
import shutil
import socket
import tempfile
from pathlib import Path

from imagefarm.fastcgi import records as fcgi
from tests.support import farmsite, rawhttp, tools
from tests.support.acceptor import Acceptor
from tests.support.certificates import self_signed
from tests.support.processes import Daemon, free_ports
from tests.support.processes import imagefarm as start_imagefarm
from tests.support.stages import StagedCase

SERVERS = """
worker_processes 1; error_log logs/servers.log; pid logs/servers.pid;
events {{ }}
http {{
    access_log off;
    server {{
        listen 127.0.0.1:{plain}; listen [::1]:{plain}; listen unix:{directory}/u.sock;
        listen 127.0.0.1:{secure} ssl;
        ssl_certificate {certificate}; ssl_certificate_key {key};
        location / {{ return 200 "$remote_addr $remote_port $connection_requests"; }}
    }}
}}
"""
MASTER = """
worker_processes 1; error_log logs/{name}.log; pid logs/{name}.pid;
events {{ }}
http {{
    access_log off;
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_bind 127.0.0.9;
    upstream two {{ server 127.0.0.1:{plain}; server 127.0.0.1:{secure} backup; }}
    upstream kept {{ server 127.0.0.1:{plain}; keepalive 4; }}
    server {{
        listen 127.0.0.1:{port};
        add_header X-Tries "$upstream_status/$upstream_addr" always;
        {locations}
    }}
}}
"""
#: A location, its lines, what it passes to; and the line of the error log.
CASES: dict[str, tuple[str, str, str]] = {
    "inherited": ("", "plain", ""),
    "off": ("proxy_bind off;", "plain", ""),
    "address": ("proxy_bind 127.0.0.5;", "plain", ""),
    "port": ("proxy_bind 127.0.0.5:OWN;", "plain", ""),
    "TLS": ("proxy_bind 127.0.0.6;", "secure", ""),
    "IPv6": ("proxy_bind ::1;", "six", ""),
    "kept": ("proxy_bind 127.0.0.7;", "kept", ""),
    "transparent": ("proxy_bind 127.0.0.13 transparent;", "plain", ""),
    "variable": ("proxy_bind $arg_a;", "plain", ""),
    "nobody's": (
        "proxy_bind 198.51.100.1;", "plain",
        "bind(198.51.100.1) failed (99: Cannot assign requested address) while connecting to",
    ),
    "nobody's, in a group": (
        "proxy_bind 198.51.100.2;", "two",
        "bind(198.51.100.2) failed (99: Cannot assign requested address) while connecting to",
    ),
    "nobody's, TLS": (
        "proxy_bind 198.51.100.3;", "secure",
        "bind(198.51.100.3) failed (99: Cannot assign requested address) while connecting to",
    ),
    "IPv4 to IPv6": (
        "proxy_bind 127.0.0.10;", "six",
        "bind(127.0.0.10) failed (22: Invalid argument) while connecting to upstream",
    ),
    "IPv6 to IPv4": (
        "proxy_bind ::2;", "plain",
        "bind(::2) failed (97: Address family not supported by protocol) while connecting to",
    ),
    "to a Unix socket": (
        "proxy_bind 127.0.0.11;", "unix",
        "bind(127.0.0.11) failed (22: Invalid argument) while connecting to upstream",
    ),
    "FastCGI": ("fastcgi_bind 127.0.0.8;", "fastcgi", ""),
    "FastCGI, nobody's": (
        "fastcgi_bind 198.51.100.4;", "fastcgi",
        "bind(198.51.100.4) failed (99: Cannot assign requested address) while connecting to",
    ),
}  # fmt: skip
#: Values of the variable, and the line of the log.
VALUES = {
    "": "", "127.0.0.12": "", "127.0.0.12:0": 'invalid local address "127.0.0.12:0"',
    "nonsense": 'invalid local address "nonsense"',
    "unix:/x": 'invalid local address "unix:/x"',
    "198.51.100.5": "bind(198.51.100.5) failed (99: Cannot assign requested address)",
}  # fmt: skip


class Application(Acceptor):
    """FastCGI; says who asks."""

    def serve(self, client: socket.socket) -> None:
        client.recv(65536)
        host, port = client.getpeername()
        text = f"Content-Type: text/plain\r\n\r\n{host} {port} 1".encode()
        client.sendall(
            fcgi.encode_stream(fcgi.RecordType.STDOUT, 1, text)
            + fcgi.encode_record(fcgi.RecordType.STDOUT, 1)
            + fcgi.encode_end(1, 0, fcgi.ProtocolStatus.REQUEST_COMPLETE)
        )


class BindTests(StagedCase):
    def setUp(self) -> None:
        self.program = tools.nginx()
        self.directory = Path(tempfile.mkdtemp(prefix="bind-"))
        self.addCleanup(shutil.rmtree, self.directory, ignore_errors=True)
        self.directory.chmod(0o755)
        (self.directory / "logs").mkdir()

    def start(self, name: str, text: str, port: int) -> Daemon:
        config = self.directory / f"{name}.conf"
        config.write_text(text)
        if name == "imagefarm":
            words = ("--config", str(config))
            daemon = start_imagefarm("master", self.directory, *words, ports=[port])
        else:
            daemon = farmsite.nginx(self.program, self.directory, config, [port])
        self.addCleanup(daemon.stop)
        return daemon

    def test_same(self) -> None:
        certificate, key = self_signed(self.directory, "server")
        plain, secure, *ports = free_ports(4)
        servers = SERVERS.format(
            plain=plain, secure=secure, directory=self.directory, certificate=certificate, key=key
        )
        application = Application()
        application.open()
        self.addCleanup(application.close)
        passing = {
            "plain": f"proxy_pass http://127.0.0.1:{plain};",
            "secure": f"proxy_pass https://127.0.0.1:{secure};",
            "six": f"proxy_pass http://[::1]:{plain};",
            "unix": f"proxy_pass http://unix:{self.directory}/u.sock:/;",
            "two": "proxy_pass http://two;",
            "kept": "proxy_pass http://kept;",
            "fastcgi": f"fastcgi_pass 127.0.0.1:{application.port};",
        }
        daemons = [self.start("servers", servers, plain)]
        own = free_ports(2)
        for name, port, mine in zip(("nginx", "imagefarm"), ports, own, strict=True):
            locations = "\n".join(
                f"location /{number}/ {{ {lines.replace('OWN', str(mine))} {passing[to]} }}"
                for number, (lines, to, _) in enumerate(CASES.values())
            )
            text = MASTER.format(
                name=name, port=port, plain=plain, secure=secure, locations=locations
            )
            daemons.append(self.start(name, text, port))
        for daemon in daemons:
            daemon.started()
        numbers = {name: number for number, name in enumerate(CASES)}
        paths = {name: f"/{number}/" for name, number in numbers.items()}
        paths["kept, again"] = paths["kept"]
        paths["nobody's, in a group, again"] = paths["nobody's, in a group"]
        paths |= {f"={value}": f"{paths['variable']}?a={value}" for value in VALUES}
        expected = [line for *_, line in CASES.values()] + list(VALUES.values())
        for name, path in paths.items():
            theirs, ours = (
                self.ask(port, path, mine) for port, mine in zip(ports, own, strict=True)
            )
            self.assertEqual(ours, theirs, name)
        for server in ("nginx", "imagefarm"):
            log = (self.directory / "logs" / f"{server}.log").read_text()
            for line in filter(None, expected):
                self.assertIn(line, log, server)
            self.assertEqual(
                len(re.findall(r"\[crit\].* bind\(", log)), log.count("bind("), server
            )

    def ask(self, port: int, path: str, own: int) -> object:
        answer = rawhttp.exchange(port, rawhttp.request(path, "Connection: close"))
        assert answer is not None
        body = answer.body.decode() if answer.status == 200 else ""
        # Of the ports only the one that we asked for is no chance.
        body = re.sub(r"^(\S+) (\d+)", lambda m: f"{m[1]} {int(m[2]) == own}", body)
        return answer.status, answer.header("x-tries"), body
