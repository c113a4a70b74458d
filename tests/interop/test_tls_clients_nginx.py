"""Client certificates, SNI and ``$ssl_*`` as nginx has them."""

from __future__ import annotations

import difflib
import shutil
import socket
import ssl
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from attrs import frozen
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from tests.support import farmsite, rawhttp, tools
from tests.support.certificates import Authority
from tests.support.processes import free_ports, wait_until
from tests.support.processes import imagefarm as start_imagefarm
from tests.support.stages import Cleanup, StagedCase, shared

VARIABLES = (
    "ssl_protocol", "ssl_cipher", "ssl_ciphers", "ssl_curves", "ssl_curve", "ssl_server_name",
    "ssl_session_reused", "ssl_client_verify", "ssl_client_s_dn", "ssl_client_i_dn",
    "ssl_client_s_dn_legacy", "ssl_client_i_dn_legacy", "ssl_client_serial",
    "ssl_client_fingerprint", "ssl_client_v_start", "ssl_client_v_end", "ssl_client_v_remain",
    "ssl_alpn_protocol", "ssl_early_data", "ssl_client_escaped_cert",
)  # fmt: skip

CONFIGURATION = """
worker_processes 1;
error_log logs/error.log info;
pid logs/daemon.pid;
events {{ worker_connections 512; }}
http {{
    log_format tls '$ssl_client_s_dn|$ssl_client_verify|$ssl_client_serial|$ssl_protocol';
    access_log logs/access.log tls;
    root {files};
    ssl_protocols TLSv1.2 TLSv1.3;
    ssl_ciphers ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256;
    ssl_ecdh_curve X25519:prime256v1;
    ssl_session_cache shared:SSL:1m;
    ssl_buffer_size 4k;
    ssl_certificate {ecdsa};
    ssl_certificate_key {ecdsa_key};
    ssl_certificate {rsa};
    ssl_certificate_key {rsa_key};
    ssl_password_file {passwords};
    ssl_client_certificate {ca};
    ssl_trusted_certificate {below};
    add_header X-Verify $ssl_client_verify always;
    server {{
        listen 127.0.0.1:{port} ssl default_server;
        server_name plain;
        {locations}
    }}
    server {{
        listen 127.0.0.1:{port} ssl;
        server_name on;
        ssl_verify_client on;
        ssl_verify_depth 1;
        {locations}
    }}
    server {{
        listen 127.0.0.1:{port} ssl;
        server_name paged;
        ssl_verify_client on;
        error_page 495 496 =403 /refused;
        location = /refused {{ return 200 "no: $ssl_client_verify"; }}
        {locations}
    }}
    server {{
        listen 127.0.0.1:{port} ssl;
        server_name flat;
        ssl_verify_client optional;
        ssl_verify_depth 0;
        {locations}
    }}
    server {{
        listen 127.0.0.1:{port} ssl;
        server_name deep;
        ssl_verify_client optional;
        ssl_verify_depth 3;
        ssl_trusted_certificate {ca};
        {locations}
    }}
    server {{
        listen 127.0.0.1:{port} ssl;
        server_name anybody;
        ssl_verify_client optional_no_ca;
        {locations}
    }}
    server {{
        listen 127.0.0.1:{port} ssl;
        server_name crl;
        ssl_verify_client optional;
        ssl_client_certificate {lone};
        ssl_crl {revoked};
        {locations}
    }}
    server {{
        listen 127.0.0.1:{port} ssl;
        server_name reject;
        ssl_reject_handshake on;
    }}
    server {{
        listen 127.0.0.1:{alone} ssl;
        server_name alone;
        ssl_reject_handshake on;
    }}
    server {{
        listen 127.0.0.1:{closed} ssl;
        ssl_reject_handshake on;
    }}
    server {{
        listen 127.0.0.1:{closed} ssl;
        server_name inside;
        ssl_verify_client optional;
        {locations}
    }}
    server {{
        listen 127.0.0.1:{early} ssl;
        server_name modern;
        ssl_protocols TLSv1.3;
        ssl_conf_command Ciphersuites TLS_CHACHA20_POLY1305_SHA256;
        ssl_conf_command Options PrioritizeChaCha;
        ssl_session_tickets off;
        ssl_session_cache off;
        {locations}
    }}
}}
"""

LOCATIONS = """
        location /all { return 200 "%s"; }
        location /id { return 200 "$ssl_session_id"; }
        location /cert { return 200 "$ssl_client_cert|$ssl_client_raw_cert"; }
        location /file { try_files /small.txt =404; }
"""


@frozen
class Ask:
    """A connection: its name, the Host, the certificate, and how often it is made."""

    name: str | None
    host: str = ""
    certificate: str = ""
    target: str = "/all"
    version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3
    ciphers: str = ""
    times: int = 1
    port: str = "port"
    alpn: tuple[str, ...] = ()
    #: The name of the second connection, which resumes the session of the first.
    then: str | None = None


TLS12 = ssl.TLSVersion.TLSv1_2
SERVERS = ("on", "paged", "flat", "deep", "anybody", "crl", "plain")
CLIENTS = ("", "good", "below", "chained", "expired", "unknown", "strange", "revoked")
ASKS = [
    *(Ask(name, certificate=client) for name in SERVERS for client in CLIENTS),
    *(Ask(name, certificate="good", version=TLS12) for name in SERVERS),
    Ask("on", certificate="good", target="/cert"),
    Ask("on", certificate="good", target="/file"),
    Ask("on", target="/file"),
    Ask("on", certificate="good", target="/none"),
    # Asked for under another name.
    Ask("on", "paged", "good"),
    Ask("plain", "on", "good"),
    Ask("plain", "on"),
    Ask("on", "plain", "good"),
    Ask("nobody", "on", "good"),
    Ask(None, "on", "good"),
    Ask(None, "plain", "good"),
    Ask("ON", "on", "good"),
    # Resumed: what was found wrong still is.
    *(
        Ask(name, certificate=client, version=version, times=3)
        for name in ("on", "anybody", "plain")
        for client in ("", "good", "unknown")
        for version in (TLS12, ssl.TLSVersion.TLSv1_3)
    ),
    *(
        Ask(name, target="/id", version=version, times=3, port=port)
        for name, port in (("plain", "port"), ("modern", "early"))
        for version in (TLS12, ssl.TLSVersion.TLSv1_3)
    ),
    # One certificate for each kind of key.
    Ask("plain", version=TLS12, ciphers="ECDHE-RSA-AES128-GCM-SHA256"),
    Ask("plain", version=TLS12, ciphers="ECDHE-ECDSA-AES128-GCM-SHA256"),
    Ask("plain", version=TLS12, ciphers="ECDHE-RSA-AES256-GCM-SHA384"),
    # Nothing to talk about.
    Ask("reject"),
    Ask("reject", version=TLS12),
    Ask("alone", port="alone"),
    Ask(None, port="alone"),
    *(
        Ask(name, certificate="good", port="closed", version=version, times=2)
        for name in ("inside", "outside", None)
        for version in (TLS12, ssl.TLSVersion.TLSv1_3)
    ),
    Ask("modern", port="early", times=3),
    Ask("modern", port="early", version=TLS12),
    Ask("plain", alpn=("h2", "http/1.1")),
    Ask("plain", alpn=("http/1.1",), version=TLS12),
]  # fmt: skip


class Site:
    """One side."""

    def __init__(self, directory: Path, words: dict[str, str]) -> None:
        self.directory = directory
        (directory / "logs").mkdir(parents=True)
        farmsite.write_files(directory / "www", {"small.txt": b"small"})
        names = ("port", "alone", "early", "closed")
        self.ports = dict(zip(names, free_ports(len(names)), strict=True))
        locations = LOCATIONS % "\n".join(f"{name}=${name}" for name in VARIABLES)
        self.config = directory / "server.conf"
        self.config.write_text(
            CONFIGURATION.format(
                files=directory / "www", locations=locations, **self.ports, **words
            )
        )


class Certificates:
    """Everybody's."""

    def __init__(self, directory: Path) -> None:
        ca, other, lone = (Authority(directory, name) for name in ("ca", "other", "lone"))
        below = Authority(directory, "sub", above=ca)
        strange = x509.Name([
            x509.NameAttribute(NameOID.COUNTRY_NAME, "DE"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, 'Größe, "A+B" <#1>\\'),
            x509.NameAttribute(NameOID.EMAIL_ADDRESS, "a@example.org"),
            x509.NameAttribute(NameOID.COMMON_NAME, " strange "),
        ])  # fmt: skip
        issued = {
            "good": ca.issue("good"), "below": below.issue("below"),
            "expired": ca.issue("expired", days=-1), "unknown": other.issue("unknown"),
            "strange": ca.issue("strange", subject=strange), "revoked": lone.issue("gone"),
        }  # fmt: skip
        self.clients = {name: pair[:2] for name, pair in issued.items()}
        chained = directory / "chained.pem"
        pem, key = self.clients["below"]
        chained.write_text(Path(pem).read_text() + Path(below.certificate).read_text())
        self.clients["chained"] = str(chained), key
        ecdsa = ca.issue("ecdsa", "plain", password=b"secret")
        key = rsa.generate_private_key(65537, 2048)
        by_rsa = ca.issue("rsa", "plain", key=key)
        passwords = directory / "passwords"
        passwords.write_text("wrong\nsecret\n")
        self.words = {
            "ca": ca.certificate, "below": below.certificate, "lone": lone.certificate,
            "revoked": lone.revoke(issued["revoked"][2]), "passwords": str(passwords),
            "ecdsa": ecdsa[0], "ecdsa_key": ecdsa[1], "rsa": by_rsa[0], "rsa_key": by_rsa[1],
        }  # fmt: skip


def play(site: Site, clients: dict[str, Any], ask: Ask) -> Any:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = context.maximum_version = ask.version
    if ask.ciphers:
        context.set_ciphers(ask.ciphers)
    if ask.alpn:
        context.set_alpn_protocols(list(ask.alpn))
    if ask.certificate:
        context.load_cert_chain(*clients[ask.certificate])
    found: list[Any] = []
    session = None
    for _ in range(ask.times):
        with socket.create_connection(("127.0.0.1", site.ports[ask.port]), 20) as raw:
            try:
                with context.wrap_socket(raw, server_hostname=ask.name, session=session) as tls:
                    host = ask.host or ask.name or "plain"
                    tls.sendall(f"GET {ask.target} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
                    answer = rawhttp.Reader(tls).answer("GET")
                    assert answer is not None
                    session = tls.session
                    body = answer.body.split(b"<hr>")[0].decode()
                    if ask.target == "/id":
                        known = session is not None and session.id.hex() == body
                        body = f"{len(body)}, the client's: {known}"
                    found.append((answer.status, answer.reason, body))
                    found.append((answer.header("connection"), answer.header("x-verify")))
                    found.append((tls.session_reused, tls.cipher(), tls.selected_alpn_protocol()))
            except ssl.SSLError as error:
                found.append(error.reason)
    return found


def _lines(found: list[Any]) -> list[str]:
    return [line for each in found for line in str(each).split("\\n")]


@frozen
class Stage:
    """nginx and imagefarm by the same configuration, and clients of both."""

    theirs: Site
    ours: Site
    clients: dict[str, Any]


@shared
def stage(cleanup: Cleanup) -> Stage:
    here = Path(tempfile.mkdtemp(prefix="tls-clients-"))
    cleanup(shutil.rmtree, here, ignore_errors=True)
    here.chmod(0o755)
    (here / "files").mkdir()
    files = Certificates(here / "files")
    made = Stage(
        Site(here / "nginx", files.words), Site(here / "imagefarm", files.words), files.clients
    )
    nginx = farmsite.nginx(
        tools.nginx(), made.theirs.directory, made.theirs.config,
        list(made.theirs.ports.values()),
    )  # fmt: skip
    cleanup(nginx.stop)
    ours = start_imagefarm(
        "slave", made.ours.directory, "--config", str(made.ours.config),
        ports=list(made.ours.ports.values()),
    )  # fmt: skip
    cleanup(ours.stop)
    for daemon in (nginx, ours):
        daemon.started()
    return made


class ClientTests(StagedCase):
    def setUp(self) -> None:
        self.stage = stage()
        self.theirs, self.ours = self.stage.theirs, self.stage.ours

    def test_the_same(self) -> None:
        different = []
        for ask in ASKS:
            theirs, ours = (play(site, self.stage.clients, ask) for site in self.sites)
            if theirs != ours:
                lines = difflib.unified_diff(_lines(theirs), _lines(ours), n=0, lineterm="")
                different.append("\n".join((str(ask), *lines)))
        self.assertEqual(len(different), 0, "\n".join(different))
        wait_until(lambda: self.logged(self.ours) == self.logged(self.theirs), what="same log")

    def authorities(self, site: Site, name: str) -> list[str]:
        """Whose certificates a server asks for, in the words of s_client."""
        done = subprocess.run(
            [
                tools.tool("openssl"), "s_client", "-connect",
                f"127.0.0.1:{site.ports['port']}", "-servername", name,
            ],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        found = done.stdout.partition("Acceptable client certificate CA names\n")[2]
        return [line for line in found.split("Requested")[0].splitlines() if line]

    def test_authorities(self) -> None:
        """A client is told the authorities of the server that it names."""
        for name, expected in (("on", ["CN = ca"]), ("crl", ["CN = lone"]), ("plain", [])):
            found = [self.authorities(site, name) for site in self.sites]
            self.assertEqual(found, [expected, expected], name)

    @staticmethod
    def logged(site: Site) -> str:
        return (site.directory / "logs" / "access.log").read_text()

    @property
    def sites(self) -> tuple[Site, Site]:
        return self.theirs, self.ours
