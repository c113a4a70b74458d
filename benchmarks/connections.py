"""Ten thousand clients that asked once and stay, and full TLS handshakes."""

from __future__ import annotations

import re
import select
import socket
import ssl
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection

from benchmarks.helpers import Helper
from benchmarks.pairs import Reading


def _ask(client: socket.socket, path: str) -> None:
    client.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    answer = b""
    while b"\r\n\r\n" not in answer:
        answer += _some(client)
    head, _, body = answer.partition(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
    assert head.startswith(b"HTTP/1.1 200") and length, head
    left = int(length[1]) - len(body)
    while left > 0:
        left -= len(_some(client))


def _some(client: socket.socket) -> bytes:
    data = client.recv(65536)
    if not data:
        raise ConnectionResetError("the server closed the connection")
    return data


def hold(pipe: Connection, port: int, path: str) -> None:
    """Helper: open as many connections as told, one request each; tell how many still live."""
    clients: list[socket.socket] = []
    while True:
        for _ in range(pipe.recv()):
            client = socket.create_connection(("127.0.0.1", port), 10)
            _ask(client, path)
            clients.append(client)
        poll = select.poll()
        for client in clients:
            poll.register(client, select.POLLIN)
        pipe.send(len(clients) - len(poll.poll(0)))  # readable now means closed


def _trusting() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def shake(pipe: Connection, port: int) -> None:
    """Helper: make full handshakes for as many seconds as told, tell how many.

    Each ends when the server has closed in answer to our end of file, so that it has surely
    read the Finished message: hanging up at once, as ``openssl s_time`` does, may reset the
    connection before that.
    """
    context = _trusting()
    while True:
        end = time.monotonic() + pipe.recv()
        done = 0
        while time.monotonic() < end:
            plain = socket.create_connection(("127.0.0.1", port), 10)
            with context.wrap_socket(plain) as client:
                client.shutdown(socket.SHUT_WR)
                while client.recv(65536):
                    pass
            done += 1
        pipe.send(done)


def handshakes(clients: Sequence[Helper], seconds: int) -> Reading:
    """Let all ``clients`` (`shake`) make handshakes at the same time."""
    start = time.monotonic()
    for client in clients:
        client.send(seconds)
    done = sum(client.receive() for client in clients)
    return Reading(done, time.monotonic() - start)


def agreed(port: int) -> tuple[str, bool]:
    """What a client and the server agree on, and whether a second connection resumes it."""
    context = _trusting()
    session = None
    text, resumed = "", False
    for _ in range(2):
        plain = socket.create_connection(("127.0.0.1", port), 10)
        with context.wrap_socket(plain, server_hostname="localhost", session=session) as client:
            _ask(client, "/a.jpg")  # TLS 1.3 sends its tickets after the handshake
            session = client.session
            cipher = client.cipher()
            text = f"{client.version()} {cipher[0] if cipher else ''}"
            resumed = bool(client.session_reused)
    return text, resumed
