"""TLS connections as clients see them: the same on nginx and on imagefarm."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.support import beside, farmsite, rawhttp, tools
from tests.support.certificates import self_signed
from tests.support.processes import free_ports
from tests.support.stages import StagedCase
from tests.support.tlsclient import Client, trusting

SIZE = 3_000_000
VERSIONS = (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)

CONFIGURATION = """
worker_processes 1;
error_log logs/error.log info;
pid logs/daemon.pid;
events {{ worker_connections 512; }}
http {{
    access_log logs/access.log;
    default_type text/plain;
    root {root};
    ssl_certificate {pem};
    ssl_certificate_key {key};
    ssl_protocols TLSv1.2 TLSv1.3;
    ssl_session_cache shared:SSL:1m;
    client_header_timeout 1s;
    server {{
        listen 127.0.0.1:{port} ssl;
        location /told {{ return 200 "$scheme $https $ssl_protocol $ssl_server_name"; }}
        location /no {{ return 403; }}
    }}
    server {{
        listen 127.0.0.1:{port} ssl;
        server_name elsewhere;
        error_page 497 https://$host$request_uri;
    }}
    server {{
        listen 127.0.0.1:{port} ssl;
        server_name file;
        error_page 497 =200 /said;
        location = /said {{ return 200 "$request_uri $scheme"; }}
    }}
}}
"""


class Site:
    """One side."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        (directory / "logs").mkdir(parents=True)
        pem, key = self_signed(directory, "test")
        farmsite.write_files(directory / "www", {"big.txt": b"b" * SIZE, "small.txt": b"small"})
        (self.port,) = free_ports(1)
        self.config = directory / "server.conf"
        self.config.write_text(
            CONFIGURATION.format(root=directory / "www", port=self.port, pem=pem, key=key)
        )

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), 20)


Scenario = Callable[[Site], Any]


def _request(target: str, *fields: str, method: str = "GET", host: str = "a") -> bytes:
    lines = (f"{method} {target} HTTP/1.1", f"Host: {host}", *fields)
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def _plain(*pieces: bytes) -> Scenario:
    """What HTTP without TLS gets."""

    def play(site: Site) -> Any:
        with site.connect() as sock:
            for piece in pieces:
                sock.sendall(piece)
            answer = rawhttp.Reader(sock).answer(
                "HEAD" if pieces[0].startswith(b"HEAD") else "GET"
            )
            if answer is None:
                return None
            names = ("connection", "content-type", "location", "transfer-encoding")
            first = answer.body.split(b"<hr>")[0]
            return answer.status, answer.reason, [answer.header(n) for n in names], first

    return play


def _told(site: Site) -> Any:
    found = []
    for version in VERSIONS:
        session: ssl.SSLSession | None = None
        context = trusting(version)
        for _ in range(2):
            with site.connect() as sock:
                client = Client(sock, context, session)
                client.handshake()
                sock.sendall(client.send(_request("/told")))
                found.append((client.answer(), client.tls.version(), client.tls.session_reused))
                session = client.tls.session
    return found


def _ending(*requests: bytes, end: Callable[[Client], object] | None = None) -> Scenario:
    """How many bytes come, and whether close_notify ends them.

    To a client that has ended its stream nginx sends none, and we do (RFC 8446 section 6.1).
    """

    def play(site: Site) -> Any:
        found = []
        for version in VERSIONS:
            with site.connect() as sock:
                client = Client(sock, trusting(version))
                client.handshake()
                sock.sendall(b"".join(map(client.send, requests)))
                if end is not None:
                    end(client)
                try:
                    data = client.take()
                    how = "close_notify"
                except (ssl.SSLEOFError, ConnectionResetError):
                    data, how = client.read, "cut"
                bodies = data.count(b"b") > SIZE, data.count(b"small"), data.count(b"HTTP/1.1 ")
                found.append((bodies, how if end is None else None))
        return found

    return play


def _half_close(client: Client) -> None:
    client.sock.shutdown(socket.SHUT_WR)


def _notified_half_close(client: Client) -> None:
    client.sock.sendall(client.flight(client.tls.unwrap))
    client.sock.shutdown(socket.SHUT_WR)


def _silence(data: bytes) -> Scenario:
    """What comes of a beginning that goes no further."""

    def play(site: Site) -> Any:
        with site.connect() as sock:
            sock.sendall(data)
            try:
                return sock.recv(100)
            except ConnectionResetError:
                return b""

    return play


def _hello_and_silence(site: Site) -> Any:
    with site.connect() as sock:
        hello = Client(sock).flight()
        sock.sendall(hello[: len(hello) // 2])
        return sock.recv(100)


def _upload_and_refusal(site: Site) -> Any:
    with site.connect() as sock:
        client = Client(sock)
        client.handshake()
        sock.sendall(client.send(_request("/no", "Content-Length: 3000000", method="POST")))
        sock.sendall(client.send(bytes(300_000)))
        return client.take(12)


def _until(pipe: int, words: bytes) -> bytes:
    """What comes up to ``words``, or to the end."""
    output = b""
    while words not in output and (piece := os.read(pipe, 65536)):
        output += piece
    return output


def _openssl(site: Site) -> Any:
    """s_client: handshake, one answer, resumption, renegotiation and key update as it has them."""
    found = []
    for version, command in (("-tls1_2", b"R\n"), ("-tls1_3", b"K\n"), ("-tls1_3", b"")):
        arguments = [tools.tool("openssl"), "s_client", "-connect", f"127.0.0.1:{site.port}"]
        process = subprocess.Popen(
            [*arguments, version, "-servername", "localhost", "-crlf"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        with process:
            assert process.stdin and process.stdout
            out = process.stdout.fileno()
            output = _until(out, b"Verify return code")
            process.stdin.write(command)
            process.stdin.flush()
            if command == b"K\n":
                output += _until(out, b"KEYUPDATE")
            if command == b"R\n":
                output += _until(out, b"no renegotiation")
            else:
                process.stdin.write(b"GET /told HTTP/1.0\nConnection: close\n\n")
                process.stdin.flush()
                output += _until(out, b"https on")
            process.stdin.close()
            process.stdout.read()
        text = b"https on" in output, b"no renegotiation" in output
        found.append((version, command, text))
    return found


SCENARIOS: dict[str, Scenario] = {
    "plain": _plain(_request("/small.txt")),
    "plain, kept": _plain(_request("/small.txt", "Connection: keep-alive")),
    "plain, byte by byte": _plain(*(bytes([c]) for c in _request("/small.txt"))),
    "plain, with a body": _plain(_request("/a", "Content-Length: 3", method="POST"), b"abc"),
    "plain, HEAD": _plain(_request("/a", "Connection: close", method="HEAD")),
    "plain, HTTP/1.0": _plain(b"GET / HTTP/1.0\r\n\r\n"),
    "plain, malformed": _plain(b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
    "plain, no HTTP": _plain(b"hello\r\n\r\n"),
    "plain, sent on": _plain(_request("/some/path?and=args", host="elsewhere")),
    "plain, a page inside": _plain(_request("/some/path?and=args", host="file")),
    "variables and resumption": _told,
    "the last answer": _ending(_request("/small.txt", "Connection: close")),
    "a large last answer": _ending(_request("/big.txt", "Connection: close")),
    "pipelined": _ending(
        *[_request("/small.txt")] * 5, _request("/small.txt", "Connection: close")
    ),
    "half-close": _ending(_request("/big.txt"), end=_half_close),
    "half-close, notified": _ending(_request("/big.txt"), end=_notified_half_close),
    "kept-alive, then closed": _ending(_request("/small.txt"), end=_half_close),
    "garbage in a record": _silence(b"\x16\x03\x01\x00\x05" + bytes(600)),
    "nothing": _silence(b""),
    "half a ClientHello": _hello_and_silence,
    "a refused upload": _upload_and_refusal,
    "openssl s_client": _openssl,
}


class TlsTests(StagedCase):
    def setUp(self) -> None:
        here = beside.directory(self.addCleanup, "tls")
        self.theirs, self.ours = Site(here / "nginx"), Site(here / "imagefarm")
        theirs, ours = ((site.config, [site.port]) for site in (self.theirs, self.ours))
        beside.start(self.addCleanup, theirs, ours, "slave")

    def test_the_same(self) -> None:
        different = []
        for name, play in SCENARIOS.items():
            theirs, ours = play(self.theirs), play(self.ours)
            if theirs != ours:
                different.append(f"{name}:\n  nginx     {theirs}\n  imagefarm {ours}")
        self.assertEqual(different, [], "\n".join(different))
