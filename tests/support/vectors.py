"""A running server with nginx's syntax for its configuration, and what it does with raw bytes."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from . import rawhttp

ANSWER_SECONDS = 10.0
#: After this much silence a server is taken to wait for more.
QUIET_SECONDS = 0.5
#: Connections at a time.
PARALLEL = 8

SENTINEL = b"GET /sentinel HTTP/1.1\r\nHost: a\r\n\r\n"
#: ``/`` never looks at a body; ``/up`` has it read and sent on before there is an answer.
CONFIGURATION = """
worker_processes 1;
error_log logs/error.log;
pid logs/daemon.pid;
events {{ worker_connections 512; }}
http {{
    access_log off;
    server {{
        listen 127.0.0.1:{port};
        client_max_body_size 1m;
        lingering_timeout 1s;
        location / {{ return 200 "root"; }}
        location = /sentinel {{ return 200 "sentinel"; }}
        location = /up {{ proxy_pass http://127.0.0.1:{inner}; }}
    }}
    server {{
        listen 127.0.0.1:{inner};
        location / {{ return 200 "upstream"; }}
    }}
}}
"""


def write_configuration(directory: Path, port: int, inner: int) -> Path:
    """A prefix with ``conf/`` and ``logs/``."""
    for name in ("conf", "logs"):
        (directory / name).mkdir(parents=True)
    path = directory / "conf" / "vectors.conf"
    path.write_text(CONFIGURATION.format(port=port, inner=inner))
    return path


class _Reader(rawhttp.Reader):
    def status(self) -> int | None:
        """The next answer's; 0 without a status line (HTTP/0.9), None at the end."""
        while not self.buffer:
            if not self._more():
                return None
        if not self.buffer.startswith(b"HTTP"):
            while self._more():
                pass
            self.buffer = b""
            return 0
        answer = self.answer()
        assert answer is not None
        self.last = answer.body
        return answer.status

    last = b""


def observe(port: int, data: bytes, expected: str) -> str:
    """Send ``data`` and tell the outcome in the words of the vectors.

    ``expected`` only decides how long is waited for what.
    """
    *words, end = expected.split()
    seen: list[str] = []
    probed = False
    with rawhttp.connect(port) as sock:
        reader = _Reader(sock)
        _send(sock, data)
        while True:
            if len(seen) == len(words) and end == "open" and not probed:
                probed = True
                _send(sock, SENTINEL)
            patient = end != "waits" or len(seen) < len(words)
            sock.settimeout(ANSWER_SECONDS if patient else QUIET_SECONDS)
            try:
                status = reader.status()
            except TimeoutError:
                if probed:
                    return " ".join([*seen, "waits"])
                probed = True
                _send(sock, SENTINEL)
                continue
            if status is None:
                return " ".join([*seen, "closed"])
            if probed and reader.last == b"sentinel" and not reader.buffer:
                return " ".join([*seen, "open"])
            seen.append(str(status))


def _send(sock: socket.socket, data: bytes) -> None:
    try:
        sock.sendall(data)
    except OSError:
        pass  # closed already: what has been answered is still to be read


def observe_all(port: int, cases: Sequence[tuple[bytes, str]]) -> list[str]:
    """The outcomes of (data, expected), some at a time."""
    with ThreadPoolExecutor(PARALLEL) as pool:
        return list(pool.map(lambda case: observe(port, *case), cases))
