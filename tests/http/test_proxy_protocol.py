"""The header of the PROXY protocol: whole, byte by byte, and refused as soon as it is wrong."""

from __future__ import annotations

import ipaddress
import struct

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.http.proxy_protocol import (
    MAX_V1,
    MAX_V2,
    BadProxyHeader,
    ProxyHeader,
    ProxyHeaderParser,
    Tlv,
)

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
REST = b"GET / HTTP/1.1\r\n"


def v2(command: int, family: int, block: bytes, version: int = 2) -> bytes:
    return SIGNATURE + struct.pack("!BBH", version << 4 | command, family, len(block)) + block


def tlv(type_: int, value: bytes) -> bytes:
    return struct.pack("!BH", type_, len(value)) + value


IPV4 = ipaddress.IPv4Address("192.0.2.1").packed + ipaddress.IPv4Address("192.0.2.9").packed
IPV6 = ipaddress.IPv6Address("2001:db8::1").packed + ipaddress.IPv6Address("::").packed
PORTS = struct.pack("!HH", 51000, 443)

GOOD = {
    b"PROXY TCP4 192.0.2.1 192.0.2.9 51000 443\r\n": ProxyHeader(
        "192.0.2.1", 51000, "192.0.2.9", 443
    ),
    b"PROXY TCP4 255.255.255.255 0.0.0.0 65535 0\r\n": ProxyHeader(
        "255.255.255.255", 65535, "0.0.0.0", 0
    ),
    b"PROXY TCP6 2001:DB8:0::1 ::ffff:1.2.3.4 1 2\r\n": ProxyHeader(
        "2001:db8::1", 1, "::ffff:1.2.3.4", 2
    ),
    b"PROXY UNKNOWN\r\n": ProxyHeader(),
    b"PROXY UNKNOWN whatever it says\x00\r\n": ProxyHeader(),
    b"PROXY UNKNOWN " + b"f" * (MAX_V1 - 16) + b"\r\n": ProxyHeader(),
    v2(1, 0x11, IPV4 + PORTS): ProxyHeader("192.0.2.1", 51000, "192.0.2.9", 443, 2),
    v2(1, 0x21, IPV6 + PORTS): ProxyHeader("2001:db8::1", 51000, "::", 443, 2),
    v2(1, 0x11, IPV4 + PORTS + tlv(1, b"h2") + tlv(4, b"")): ProxyHeader(
        "192.0.2.1", 51000, "192.0.2.9", 443, 2, (Tlv(1, b"h2"), Tlv(4, b""))
    ),
    v2(1, 0x12, IPV4 + PORTS): ProxyHeader(version=2),  # a datagram's
    v2(1, 0x31, b"/s".ljust(108, b"\0") * 2 + tlv(2, b"a")): ProxyHeader(
        version=2, tlvs=(Tlv(2, b"a"),)
    ),
    v2(1, 0x00, b"anything"): ProxyHeader(version=2),
    v2(0, 0x00, b""): ProxyHeader(version=2),
    # LOCAL: the rest is not looked at.
    v2(0, 0x11, IPV4 + PORTS + b"\xff\xff"): ProxyHeader(version=2),
    v2(0, 0xFF, b"x"): ProxyHeader(version=2),
}

BAD = [
    b"GET / HTTP/1.1\r\n",
    b"\r\nPROXY TCP4 1.1.1.1 2.2.2.2 1 2\r\n",
    b"proxy TCP4 1.1.1.1 2.2.2.2 1 2\r\n",
    b"PROXY\r\n",
    b"PROXY \r\n",
    b"PROXY  TCP4 1.1.1.1 2.2.2.2 1 2\r\n",
    b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2\n",
    b"PROXY TCP4 1.1.1.1 2.2.2.2 1\r2\r\n",
    b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2 \r\n",
    b"PROXY TCP4 1.1.1.1 2.2.2.2 1\r\n",
    b"PROXY TCP4 1.1.1.1  2.2.2.2 1 2\r\n",
    b"PROXY TCP4 1.1.1.1 2.2.2.2 01 2\r\n",
    b"PROXY TCP4 1.1.1.1 2.2.2.2 1 65536\r\n",
    b"PROXY TCP4 1.1.1.1 2.2.2.2 -1 2\r\n",
    b"PROXY TCP4 1.1.1.01 2.2.2.2 1 2\r\n",
    b"PROXY TCP4 1.1.1.256 2.2.2.2 1 2\r\n",
    b"PROXY TCP4 ::1 ::2 1 2\r\n",
    b"PROXY TCP6 1.1.1.1 2.2.2.2 1 2\r\n",
    b"PROXY TCP6 1::2::3 ::1 1 2\r\n",
    b"PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n",
    b"PROXY UDP4 1.1.1.1 2.2.2.2 1 2\r\n",
    b"PROXY UNKNOWNS\r\n",
    b"PROXY UNKNOWN " + b"f" * (MAX_V1 - 15) + b"\r\n",
    b"PROXY UNKNOWN " + b"f" * MAX_V1,
    SIGNATURE[:-1] + b"\r\x21\x11\x00\x0c" + IPV4 + PORTS,
    v2(1, 0x11, IPV4 + PORTS, version=1),
    v2(1, 0x11, IPV4 + PORTS, version=3),
    v2(2, 0x11, IPV4 + PORTS),
    v2(1, 0x41, IPV4 + PORTS),
    v2(1, 0x13, IPV4 + PORTS),
    v2(1, 0x11, (IPV4 + PORTS)[:-1]),
    v2(1, 0x21, IPV6),
    v2(1, 0x31, b"/s".ljust(215, b"\0")),
    v2(1, 0x11, IPV4 + PORTS + b"\x01"),
    v2(1, 0x11, IPV4 + PORTS + b"\x01\x00\x05abcd"),
    v2(1, 0x11, IPV4 + PORTS + bytes(MAX_V2 - 16)),
]


def one_by_one(data: bytes) -> tuple[ProxyHeader, int]:
    """The header and the number of bytes that it took."""
    parser = ProxyHeaderParser()
    for number in range(len(data)):
        result = parser.feed(data[number : number + 1])
        if result is not None:
            assert result[1] == b""
            return result[0], number + 1
    raise AssertionError(f"{parser} waits for more")


class GoodTests(SynchronousTestCase):
    def test_whole(self) -> None:
        for data, expected in GOOD.items():
            self.assertEqual(ProxyHeaderParser().feed(data + REST), (expected, REST), data)

    def test_byte_by_byte(self) -> None:
        for data, expected in GOOD.items():
            self.assertEqual(one_by_one(data + REST), (expected, len(data)), data)

    def test_the_longest_lines_and_blocks(self) -> None:
        self.assertEqual(max(map(len, [d for d in GOOD if d.startswith(b"P")])), MAX_V1)
        full = v2(1, 0x11, IPV4 + PORTS + tlv(4, bytes(MAX_V2 - 16 - 12 - 3)))
        self.assertEqual(len(full), MAX_V2)
        result = ProxyHeaderParser().feed(full)
        assert result is not None
        self.assertEqual(result[0].source, "192.0.2.1")

    @given(
        st.ip_addresses(),
        st.data(),
        st.integers(0, 65535),
        st.integers(0, 65535),
        st.lists(st.builds(Tlv, st.integers(0, 255), st.binary(max_size=60)), max_size=5),
        st.integers(0, 300),
    )
    def test_what_is_written_is_read(self, source, data, port, other, tlvs, cut) -> None:
        destination = data.draw(st.ip_addresses(v=source.version))
        six = source.version == 6
        line = f"PROXY TCP{source.version} {source} {destination} {port} {other}\r\n".encode()
        block = source.packed + destination.packed + struct.pack("!HH", port, other)
        block += b"".join(tlv(t.type, t.value) for t in tlvs)
        for header, version in (line, 1), (v2(1, 0x21 if six else 0x11, block), 2):
            parser = ProxyHeaderParser()
            whole = header + REST
            result = parser.feed(whole[:cut]) if cut < len(header) else None
            got = result or parser.feed(whole[cut:] if cut < len(header) else whole)
            assert got is not None
            self.assertEqual(ipaddress.ip_address(got[0].source), source)
            self.assertEqual(ipaddress.ip_address(got[0].destination), destination)
            self.assertEqual((got[0].source_port, got[0].destination_port), (port, other))
            self.assertEqual((got[0].version, got[1]), (version, REST))
            self.assertEqual(got[0].tlvs, tuple(tlvs) if version == 2 else ())


class BadTests(SynchronousTestCase):
    def test_refused(self) -> None:
        for data in BAD:
            with self.assertRaises(BadProxyHeader, msg=repr(data)):
                ProxyHeaderParser().feed(data + REST)
            with self.assertRaises(BadProxyHeader, msg=repr(data)):
                one_by_one(data + REST)

    def test_refused_at_the_first_wrong_byte(self) -> None:
        for data, count in (
            (b"G", 1), (b"PROXX", 5), (b"PROXY TCP4\n", 11), (b"PROXY TCP4\rx", 12),
            (SIGNATURE + b"\x11", 13), (SIGNATURE + b"\x21\x11\xff\xff", 16),
        ):  # fmt: skip
            parser = ProxyHeaderParser()
            for number in range(count - 1):
                self.assertIsNone(parser.feed(data[number : number + 1]), data)
            with self.assertRaises(BadProxyHeader):
                parser.feed(data[count - 1 : count])

    def test_the_log_gets_one_printable_line(self) -> None:
        with self.assertRaises(BadProxyHeader) as caught:
            ProxyHeaderParser().feed(b'GET "\x00\n\xff' + b"a" * 5000 + b"\r\nHost: a\r\n")
        text = str(caught.exception)
        self.assertTrue(text.startswith(r'broken header: "GET "\x00\n\xffaaa'), text)
        self.assertTrue(text.isprintable() and text.isascii())
        self.assertLess(len(text), 200)

    @given(
        st.one_of(st.just(b""), st.just(b"PROXY "), st.just(b"PROXY TCP4 1."), st.just(SIGNATURE)),
        st.binary(max_size=400),
    )
    @example(b"PROXY TCP4 1.", b"1.1.1 2.2.2.2 1 2\r\n")
    def test_pieces_do_not_matter(self, start: bytes, data: bytes) -> None:
        """Whatever comes: whole and byte by byte end alike, and neither keeps on collecting."""

        def outcome(pieces: list[bytes]) -> object:
            parser, taken = ProxyHeaderParser(), 0
            for piece in pieces:
                taken += len(piece)
                try:
                    result = parser.feed(piece)
                except BadProxyHeader:
                    return "refused"
                if result is not None:
                    return result[0], taken - len(result[1])
            return "waits"

        whole = start + data
        self.assertEqual(outcome([whole]), outcome([whole[i : i + 1] for i in range(len(whole))]))

    def test_never_waits_beyond_its_limits(self) -> None:
        for start in b"PROXY UNKNOWN ", v2(1, 0x11, bytes(MAX_V2 - 16))[:16]:
            parser = ProxyHeaderParser()
            data = start + b"\x01" * MAX_V2
            with self.assertRaises(BadProxyHeader):
                for number in range(len(data)):
                    if parser.feed(data[number : number + 1]) is not None:
                        self.fail("accepted")
