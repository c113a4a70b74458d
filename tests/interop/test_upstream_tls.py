"""``proxy_ssl_*``: nginx and we talk to the same servers (nginx's own) over TLS."""

from __future__ import annotations

import re
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.support import farmsite, rawhttp, tools
from tests.support.certificates import Authority
from tests.support.processes import Daemon, free_ports, wait_until
from tests.support.processes import imagefarm as start_imagefarm
from tests.support.stages import StagedCase

SERVERS = """
worker_processes 1;
error_log logs/servers.log;
pid logs/servers.pid;
events {{ }}
http {{
    access_log off;
    keepalive_timeout 0;
    ssl_session_cache shared:s:1m;
    {servers}
}}
"""
SERVER = """
    server {{
        listen 127.0.0.1:{port} ssl; {more}
        ssl_certificate {certificate}; ssl_certificate_key {key};
        location / {{ return 200
            "$ssl_protocol $ssl_session_reused name=$ssl_server_name $ssl_client_verify"; }}
    }}
"""
MASTER = """
worker_processes 1;
error_log logs/{name}.log;
pid logs/{name}.pid;
events {{ }}
http {{
    access_log off;
    proxy_ssl_trusted_certificate {ca};
    proxy_ssl_protocols TLSv1.2 TLSv1.3;
    {upstreams}
    server {{
        listen 127.0.0.1:{port};
        {locations}
    }}
}}
"""

VERIFY = "proxy_ssl_verify on;"
#: A location, what it says, the server that it passes to, and the line that its log has.
CASES: dict[str, tuple[str, str, str]] = {
    "plain": ("", "good", ""),
    "server name": ("proxy_ssl_server_name on; proxy_ssl_name a.example;", "good", ""),
    "address is no name": ("proxy_ssl_server_name on; proxy_ssl_name 127.0.0.1;", "good", ""),
    "name from a variable": (
        "proxy_ssl_server_name on; proxy_ssl_name $arg_name:443;", "good", "",
    ),
    "verified": (f"{VERIFY} proxy_ssl_name a.example;", "good", ""),
    "wildcard": (f"{VERIFY} proxy_ssl_name x.wild.example;", "good", ""),
    "another name": (
        f"{VERIFY} proxy_ssl_name b.example;", "good",
        'upstream SSL certificate does not match "b.example" while SSL handshaking to upstream',
    ),
    "expired": (
        f"{VERIFY} proxy_ssl_name a.example;", "expired",
        "upstream SSL certificate verify error: (10:certificate has expired) while SSL "
        "handshaking to upstream",
    ),
    "expired, not verified": ("", "expired", ""),
    "unknown": (
        f"{VERIFY} proxy_ssl_name a.example;", "unknown",
        "upstream SSL certificate verify error: (20:unable to get local issuer certificate) "
        "while SSL handshaking to upstream",
    ),
    "not revoked": (f"{VERIFY} proxy_ssl_name a.example; proxy_ssl_crl CRL;", "good", ""),
    "revoked": (
        f"{VERIFY} proxy_ssl_name a.example; proxy_ssl_crl CRL;", "revoked",
        "upstream SSL certificate verify error: (23:certificate revoked) while SSL handshaking",
    ),
    "depth": (f"{VERIFY} proxy_ssl_name a.example; proxy_ssl_verify_depth 0;", "good", ""),
    "too deep a chain": (
        f"{VERIFY} proxy_ssl_name a.example;", "deep",
        "upstream SSL certificate verify error: (",
    ),
    "a chain as deep as allowed": (
        f"{VERIFY} proxy_ssl_name a.example; proxy_ssl_verify_depth 2;", "deep", "",
    ),
    "TLS 1.2": ("proxy_ssl_protocols TLSv1.2;", "good", ""),
    "TLS 1.3 to a server of 1.2": (
        "proxy_ssl_protocols TLSv1.3;", "old", "SSL_do_handshake() failed (SSL: ",
    ),
    "ciphers": (
        "proxy_ssl_protocols TLSv1.2; proxy_ssl_ciphers ECDHE-ECDSA-AES256-GCM-SHA384;",
        "old", "",
    ),
    "no common cipher": (
        "proxy_ssl_protocols TLSv1.2; proxy_ssl_ciphers ECDHE-ECDSA-AES128-GCM-SHA256;",
        "old", "SSL_do_handshake() failed (SSL: ",
    ),
    "a setting of OpenSSL": (
        "proxy_ssl_conf_command MaxProtocol TLSv1.2; "
        "proxy_ssl_conf_command CipherString ECDHE-ECDSA-AES128-GCM-SHA256;", "good", "",
    ),
    "a setting for TLS 1.3": (
        "proxy_ssl_conf_command Ciphersuites TLS_CHACHA20_POLY1305_SHA256;", "good", "",
    ),
    "no reuse": ("proxy_ssl_session_reuse off; proxy_ssl_protocols TLSv1.2;", "good", ""),
    "client certificate": (
        "proxy_ssl_certificate CLIENT; proxy_ssl_certificate_key KEY; "
        "proxy_ssl_password_file PASSWORDS;", "asking", "",
    ),
    "client certificate from a variable": (
        "proxy_ssl_certificate $arg_file.pem; proxy_ssl_certificate_key $arg_file.key;",
        "asking", "",
    ),
    "no such file": (
        "proxy_ssl_certificate $arg_none.pem; proxy_ssl_certificate_key $arg_none.key;",
        "asking", "cannot load certificate ",
    ),
    "no client certificate": ("", "asking", ""),
    "plain HTTP": ("", "plain", "SSL_do_handshake() failed (SSL: "),
}  # fmt: skip


class Certificates:
    """All files, and the text of the servers that have them."""

    def __init__(self, directory: Path) -> None:
        ca, other = Authority(directory, "ca"), Authority(directory, "other")
        self.ca = ca.certificate
        names = ("a.example", "*.wild.example", "127.0.0.1")
        made = {
            "good": ca.issue("good", *names), "expired": ca.issue("expired", *names, days=-1),
            "unknown": other.issue("unknown", *names), "revoked": ca.issue("revoked-one", *names),
        }  # fmt: skip
        one = Authority(directory, "one", ca)
        two = Authority(directory, "two", one)
        made["deep"] = two.issue("deep", *names)
        with open(made["deep"][0], "ab") as chain:
            for authority in (two, one):
                chain.write(Path(authority.certificate).read_bytes())
        client, key, _ = ca.issue("client", password=b"secret")
        ca.issue("free")
        passwords = directory / "passwords"
        passwords.write_text("wrong\nsecret\n")
        self.words = {
            "CRL": ca.revoke(made["revoked"][2]), "CLIENT": client, "KEY": key,
            "PASSWORDS": str(passwords),
        }  # fmt: skip
        self.free = str(directory / "free")
        more = {
            "good": "ssl_protocols TLSv1.2 TLSv1.3;",
            "old": "ssl_protocols TLSv1.2; ssl_ciphers ECDHE-ECDSA-AES256-GCM-SHA384;",
            "asking": f"ssl_verify_client on; ssl_client_certificate {ca.certificate};",
        }
        kinds = tuple(dict.fromkeys((*made, *more, "plain")))
        self.ports = dict(zip(kinds, free_ports(len(kinds)), strict=True))
        self.servers = f"server {{ listen 127.0.0.1:{self.ports['plain']}; return 200 plain; }}"
        for kind in kinds[:-1]:
            certificate, key, _ = made.get(kind, made["good"])
            self.servers += SERVER.format(
                port=self.ports[kind], more=more.get(kind, ""), certificate=certificate, key=key
            )

    def locations(self) -> str:
        text = ""
        for number, (inside, _, _) in enumerate(CASES.values()):
            for word, value in self.words.items():
                inside = re.sub(rf"\b{word}\b", value, inside)
            text += f"location /{number} {{ proxy_pass https://up{number}; {inside} }}\n"
        return text

    def upstreams(self) -> str:
        """One for each location: nginx resumes any session with an upstream, whatever for."""
        return "\n".join(
            f"upstream up{number} {{ server 127.0.0.1:{self.ports[kind]}; }}"
            for number, (_, kind, _) in enumerate(CASES.values())
        )

    @property
    def query(self) -> str:
        return f"?name=a.example&file={self.free}"


class TlsTests(StagedCase):
    def setUp(self) -> None:
        program = tools.nginx()
        self.directory = Path(tempfile.mkdtemp(prefix="upstream-tls-"))
        self.addCleanup(shutil.rmtree, self.directory, ignore_errors=True)
        self.directory.chmod(0o755)
        (self.directory / "logs").mkdir()
        self.files = files = Certificates(self.directory)
        servers = self.directory / "servers.conf"
        servers.write_text(SERVERS.format(servers=files.servers))
        self.ports = dict(zip(("nginx", "imagefarm"), free_ports(2), strict=True))
        for name, port in self.ports.items():
            (self.directory / f"{name}.conf").write_text(
                MASTER.format(
                    name=name,
                    port=port,
                    ca=files.ca,
                    upstreams=files.upstreams(),
                    locations=files.locations(),
                )
            )
        theirs, ours = (self.directory / f"{name}.conf" for name in self.ports)
        daemons: list[Daemon] = [
            farmsite.nginx(program, self.directory, servers, list(files.ports.values())),
            farmsite.nginx(program, self.directory, theirs, [self.ports["nginx"]]),
            start_imagefarm(
                "master", self.directory, "--config", str(ours), ports=[self.ports["imagefarm"]]
            ),
        ]
        for daemon in daemons:
            self.addCleanup(daemon.stop)
        for daemon in daemons:
            daemon.started()

    def play(self, port: int) -> list[list[tuple[int, bytes]]]:
        """Each location asked twice."""
        found = []
        for number in range(len(CASES)):
            answers = [
                rawhttp.exchange(port, rawhttp.request(f"/{number}{self.files.query}"))
                for _ in range(2)
            ]
            found.append([
                (a.status, b"built-in" if b"<center>" in a.body else a.body)
                for a in answers if a is not None
            ])  # fmt: skip
        return found

    def test_same(self) -> None:
        with ThreadPoolExecutor(2) as pool:
            theirs, ours = pool.map(self.play, self.ports.values())
        path = self.directory / "logs" / "imagefarm.log"
        said = [f'"GET /{number}?' for number, case in enumerate(CASES.values()) if case[2]]
        # Of many at once some come a moment later.
        wait_until(lambda: all(text in path.read_text() for text in said), 30, "reasons")
        log = path.read_text()
        found = []
        for number, (name, (_, _, line)) in enumerate(CASES.items()):
            if theirs[number] != ours[number]:
                found.append(f"{name}\n    {theirs[number]}\n    {ours[number]}")
            lines = [text for text in log.splitlines() if f'"GET /{number}?' in text]
            if not all(line in text for text in lines) or bool(line) != bool(lines):
                found.append(f"{name}: no {line!r} in {lines}")
        self.assertEqual(found, [], "\n" + "\n".join(found))
