"""sslyze looks at a server whose configuration says of TLS no more than the shipped one."""

from __future__ import annotations

import datetime
import ipaddress
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from imagefarm.app.configuration import SHIPPED
from tests.support import farmsite, tools
from tests.support.processes import free_ports
from tests.support.processes import imagefarm as start_imagefarm
from tests.support.stages import StagedCase

CONFIGURATION = """
error_log logs/error.log;
pid logs/daemon.pid;
events {{ }}
http {{
    access_log off;
    server {{
        listen 127.0.0.1:{port} ssl;
        ssl_certificate {here}/ecdsa.pem;
        ssl_certificate_key {here}/ecdsa.key;
        ssl_certificate {here}/rsa.pem;
        ssl_certificate_key {here}/rsa.key;
        {more}
        root {here}/www;
        add_header Strict-Transport-Security max-age=63072000;
    }}
}}
"""
MODERN = "ssl_protocols TLSv1.3;"
DAY = datetime.timedelta(days=1)
EXTENSIONS = {
    "digital_signature": True, "content_commitment": False, "key_encipherment": False,
    "data_encipherment": False, "key_agreement": False, "key_cert_sign": False,
    "crl_sign": False, "encipher_only": False, "decipher_only": False,
}  # fmt: skip


def issue(directory: Path) -> str:
    """Make certificates as public authorities do; the path of the authority's."""
    authority = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "authority")])
    identifier = x509.SubjectKeyIdentifier.from_public_key(authority.public_key())

    def write(file: str, subject: x509.Name, key: Any, *extensions: Any) -> None:
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(datetime.datetime.now(datetime.UTC) - DAY)
            .not_valid_after(datetime.datetime.now(datetime.UTC) + 80 * DAY)
        )
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical=critical)
        made = builder.sign(authority, hashes.SHA256())
        (directory / f"{file}.pem").write_bytes(made.public_bytes(Encoding.PEM))
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (directory / f"{file}.key").write_bytes(pem)

    usage = x509.KeyUsage(**{**EXTENSIONS, "key_cert_sign": True, "crl_sign": True})
    constraints = x509.BasicConstraints(ca=True, path_length=None)
    write("ca", name, authority, (constraints, True), (usage, True), (identifier, False))
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    by = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)
    names = x509.SubjectAlternativeName([
        x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
    ])  # fmt: skip
    purpose = x509.ExtendedKeyUsage([x509.ExtendedKeyUsageOID.SERVER_AUTH])
    for file, key in (
        ("ecdsa", ec.generate_private_key(ec.SECP256R1())),
        ("rsa", rsa.generate_private_key(65537, 2048)),
    ):
        write(
            file, subject, key,
            (by, False), (names, False), (purpose, False), (x509.KeyUsage(**EXTENSIONS), True),
        )  # fmt: skip
    return str(directory / "ca.pem")


class SslyzeTests(StagedCase):
    def setUp(self) -> None:
        # It wants another version of cryptography than we do.
        self.sslyze = tools.tool("sslyze", str(Path(sys.prefix) / "judges" / "bin" / "sslyze"))
        self.here = Path(tempfile.mkdtemp(prefix="sslyze-"))
        self.addCleanup(shutil.rmtree, self.here, ignore_errors=True)
        (self.here / "logs").mkdir()
        farmsite.write_files(self.here / "www", {"index.html": b"here"})
        self.authority = issue(self.here)

    def complaints(self, more: str, profile: str) -> tuple[list[str], dict[str, Any]]:
        """What sslyze finds against a profile of Mozilla's, and what it has seen."""
        (port,) = free_ports(1)
        config = self.here / "server.conf"
        config.write_text(CONFIGURATION.format(here=self.here, port=port, more=more))
        daemon = start_imagefarm("slave", self.here, "--config", str(config), ports=[port])
        self.addCleanup(daemon.stop)
        daemon.started()
        report = self.here / "report.json"
        found = subprocess.run(
            [
                self.sslyze, f"127.0.0.1:{port}", f"--json_out={report}", "--slow_connection",
                f"--certinfo_ca_file={self.authority}", f"--mozilla_config={profile}",
            ],
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        daemon.stop()
        said = found.stdout.partition("COMPLIANCE")[2]
        lines = [line.strip() for line in said.splitlines() if line.strip().startswith("*")]
        self.assertIn(f'"{profile}" configuration', said, found.stdout + found.stderr)
        if found.returncode:
            lines.append(f"status {found.returncode}")
        (seen,) = json.loads(report.read_text())["server_scan_results"]
        return lines, seen["scan_result"]

    def test_intermediate(self) -> None:
        shipped = (Path(SHIPPED) / "master.conf").read_text()
        said = re.findall(r"(?m)^ *(ssl_(?!certificate|self_signed).*;)", shipped)
        lines, seen = self.complaints(" ".join(said), "intermediate")
        self.assertEqual(lines, [])
        results = {name: part["result"] for name, part in seen.items() if part["result"]}
        for version in ("ssl_2_0", "ssl_3_0", "tls_1_0", "tls_1_1"):
            self.assertEqual(results[f"{version}_cipher_suites"]["accepted_cipher_suites"], [])
        self.assertEqual(
            (
                results["heartbleed"]["is_vulnerable_to_heartbleed"],
                results["openssl_ccs_injection"]["is_vulnerable_to_ccs_injection"],
                results["robot"]["robot_result"],
                results["tls_compression"]["supports_compression"],
                results["session_renegotiation"]["is_vulnerable_to_client_renegotiation_dos"],
                results["session_renegotiation"]["supports_secure_renegotiation"],
                results["tls_fallback_scsv"]["supports_fallback_scsv"],
                results["tls_extended_master_secret"]["supports_ems_extension"],
                len(results["certificate_info"]["certificate_deployments"]),
            ),
            (False, False, "NOT_VULNERABLE_RSA_NOT_SUPPORTED", False, False, True, True, True, 2),
        )

    def test_modern(self) -> None:
        lines, _ = self.complaints(MODERN, "modern")
        self.assertEqual(lines, [])
