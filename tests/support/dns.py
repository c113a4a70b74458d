"""A nameserver on loopback, UDP and TCP on one port, whose zone tests change at run time.

It runs in a thread of its own, with plain sockets, and makes its packets by hand: it shares
nothing with the code under test.
"""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable

from attrs import define, field

A, CNAME, SOA, AAAA, SRV = 1, 5, 6, 28, 33
TYPES = {"A": A, "CNAME": CNAME, "AAAA": AAAA, "SRV": SRV}


def pack_name(name: str) -> bytes:
    labels = [label.encode("ascii") for label in name.rstrip(".").split(".") if label]
    return b"".join(bytes([len(label)]) + label for label in labels) + b"\0"


def unpack_question(packet: bytes) -> tuple[str, int, bytes]:
    """Name, type and the bytes of a query's only question."""
    at, labels = 12, []
    while packet[at]:
        labels.append(packet[at + 1 : at + 1 + packet[at]].decode("ascii"))
        at += 1 + packet[at]
    (kind,) = struct.unpack_from("!H", packet, at + 1)
    return ".".join(labels).lower(), kind, packet[12 : at + 5]


def pack_record(name: str, kind: int, ttl: int, data: bytes) -> bytes:
    return pack_name(name) + struct.pack("!HHIH", kind, 1, ttl, len(data)) + data


def pack_data(kind: int, value: str) -> bytes:
    if kind == A:
        return socket.inet_aton(value)
    if kind == AAAA:
        return socket.inet_pton(socket.AF_INET6, value)
    if kind == CNAME:
        return pack_name(value)
    priority, weight, port, target = value.split()
    return struct.pack("!3H", int(priority), int(weight), int(port)) + pack_name(target)


def pack_reply(
    query: bytes,
    answers: list[tuple[str, int, int, str]],
    *,
    code: int = 0,
    truncated: bool = False,
    negative_ttl: int | None = None,
) -> bytes:
    """A reply to ``query`` with (name, type, ttl, value) as answers."""
    _, _, question = unpack_question(query)
    authority = b""
    if negative_ttl is not None:
        data = pack_name("ns") + pack_name("root") + struct.pack("!5I", 1, 1, 1, 1, negative_ttl)
        authority = pack_record("", SOA, negative_ttl, data)
    flags = 0x8180 | code | (0x0200 if truncated else 0)
    header = struct.pack("!2s5H", query[:2], flags, 1, len(answers), bool(authority), 0)
    body = b"".join(pack_record(n, k, ttl, pack_data(k, v)) for n, k, ttl, v in answers)
    return header + question + body + authority


@define(eq=False)
class Nameserver:
    """Start it with ``with``; ``port`` is then its own.

    ``zone`` maps (name, type) to (ttl, values). What is not there does not exist, unless the name
    is there with another type. ``code``, ``silent``, ``delay``, ``garble`` and ``truncate`` (UDP
    only) are for all queries from then on; ``queries`` counts them by name and type.
    """

    port: int = 0
    code: int = 0
    silent: bool = False
    delay: float = 0.0
    truncate: bool = False
    negative_ttl: int | None = None
    garble: Callable[[bytes], bytes] | None = None
    zone: dict[tuple[str, int], tuple[int, tuple[str, ...]]] = field(factory=dict)
    queries: Counter[tuple[str, int]] = field(factory=Counter)
    tcp_queries: int = 0
    #: The ports that queries came from, and their identifications.
    sources: list[tuple[int, bytes]] = field(factory=list)
    _sockets: list[socket.socket] = field(factory=list)
    _threads: list[threading.Thread] = field(factory=list)
    _ended: threading.Event = field(factory=threading.Event)

    def set(self, name: str, *values: str, kind: str = "A", ttl: int = 60) -> None:
        """Give ``name`` records; no values take them away."""
        if values:
            self.zone[name, TYPES[kind]] = (ttl, values)
        else:
            self.zone.pop((name, TYPES[kind]), None)

    def __enter__(self) -> Nameserver:
        self.start()
        return self

    def __exit__(self, *reason: object) -> None:
        self.stop()

    def start(self) -> None:
        """Listen on `port`, or on one of the kernel's choice the first time."""
        self._ended = threading.Event()
        for _ in range(20):
            stream = socket.socket()
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            stream.bind(("127.0.0.1", self.port))
            datagram = socket.socket(type=socket.SOCK_DGRAM)
            try:
                datagram.bind(stream.getsockname())
                break
            except OSError:  # somebody has the UDP port of this number
                stream.close()
                datagram.close()
        else:
            raise AssertionError("no port is free for both protocols")
        self.port = stream.getsockname()[1]
        stream.listen()
        self._sockets = [stream, datagram]
        self._threads = [
            threading.Thread(target=self._streams, args=(stream,), daemon=True),
            threading.Thread(target=self._datagrams, args=(datagram,), daemon=True),
        ]
        for sock in self._sockets:
            sock.settimeout(0.05)
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Close; `start` may follow."""
        self._ended.set()
        for thread in self._threads:
            thread.join()
        for sock in self._sockets:
            sock.close()

    def reply(self, query: bytes, *, stream: bool) -> bytes | None:
        """What to send for ``query``."""
        name, kind, _ = unpack_question(query)
        self.queries[name, kind] += 1
        self.tcp_queries += stream
        if self.delay:
            time.sleep(self.delay)
        if self.silent:
            return None
        if self.code:
            packet = pack_reply(query, [], code=self.code)
        elif self.truncate and not stream:
            packet = pack_reply(query, [], truncated=True)
        else:
            packet = self._answer(query, name, kind)
        return packet if self.garble is None else self.garble(packet)

    def _answer(self, query: bytes, name: str, kind: int) -> bytes:
        answers: list[tuple[str, int, int, str]] = []
        while (name, CNAME) in self.zone and len(answers) < 20:
            ttl, values = self.zone[name, CNAME]
            answers.append((name, CNAME, ttl, values[0]))
            name = values[0]
        ttl, values = self.zone.get((name, kind), (0, ()))
        answers += [(name, kind, ttl, value) for value in values]
        known = any(other == name for other, _ in self.zone)
        return pack_reply(
            query,
            answers,
            code=0 if known else 3,
            negative_ttl=None if values else self.negative_ttl,
        )

    def _datagrams(self, sock: socket.socket) -> None:
        while not self._ended.is_set():
            try:
                query, source = sock.recvfrom(65536)
            except OSError:
                continue
            self.sources.append((source[1], query[:2]))
            packet = self.reply(query, stream=False)
            if packet is not None:
                sock.sendto(packet, source)

    def _streams(self, door: socket.socket) -> None:
        while not self._ended.is_set():
            try:
                sock, _ = door.accept()
            except OSError:
                continue
            with sock:
                sock.settimeout(2)
                try:
                    query = sock.recv(65536)[2:]
                    packet = self.reply(query, stream=True)
                    if packet is not None:
                        sock.sendall(len(packet).to_bytes(2, "big") + packet)
                except OSError:
                    continue
