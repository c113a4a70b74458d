"""The real client's address behind trusted proxies, as nginx's realip module finds it."""

from __future__ import annotations

import ipaddress

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.http.body import EMPTY
from imagefarm.http.headers import Headers
from imagefarm.http.message import ForwardedPeer, Peer, Request, RequestHead
from imagefarm.http.proxy_protocol import ProxyHeader
from imagefarm.http.realip import PROXY_PROTOCOL, X_FORWARDED_FOR, RealIp, parse_address

LISTEN = ("127.0.0.1", 80)
TEN = ipaddress.ip_network("10.0.0.0/8")
SIX = ipaddress.ip_network("2001:db8::/32")


def request(*fields: tuple[str, str], client: Peer | str = "10.0.0.1") -> Request:
    headers = Headers([(name.encode(), value.encode("latin-1")) for name, value in fields])
    peer = Peer(client, 4000, LISTEN, 7) if isinstance(client, str) else client
    return Request(RequestHead(b"GET", b"/", (1, 1), headers), peer, EMPTY, 0.0)


def forwarded(*lines: str, recursive: bool = False, client: str = "10.0.0.1") -> str:
    """The address after X-Forwarded-For."""
    asked = request(*[("x-forwarded-for", line) for line in lines], client=client)
    RealIp((TEN, SIX, "unix:"), X_FORWARDED_FOR, recursive).apply(asked)
    return asked.peer.address


class ParseTests(SynchronousTestCase):
    def test_forms(self) -> None:
        for text, expected in {
            "192.0.2.1": ("192.0.2.1", 0),
            "192.0.2.1:80": ("192.0.2.1", 80),
            "192.0.2.1:65535": ("192.0.2.1", 65535),
            "2001:db8::1": ("2001:db8::1", 0),
            "[2001:db8::1]:80": ("2001:db8::1", 80),
            "::": ("::", 0),
        }.items():
            found = parse_address(text)
            assert found is not None, text
            self.assertEqual((str(found[0]), found[1]), expected)

    def test_none(self) -> None:
        for text in (
            "", "unknown", "192.0.2", "192.0.2.1:", "192.0.2.1:0", "192.0.2.1:65536",
            "192.0.2.1:x", "192.0.2.1:+80", "[2001:db8::1]", "[2001:db8::1]:", "[192.0.2.1]:80",
            "2001:db8::1::",
            "fe80::1%eth0", "192.0.2.01", "192.0.2.1\t", "[::1", "\xb2.1.1.1", "_hidden", ":80",
        ):  # fmt: skip
            self.assertIsNone(parse_address(text), text)

    @given(st.ip_addresses(), st.integers(1, 65535))
    def test_any_address(self, address: object, port: int) -> None:
        self.assertEqual(parse_address(str(address)), (address, 0))
        bracketed = f"[{address}]" if ":" in str(address) else str(address)
        self.assertEqual(parse_address(f"{bracketed}:{port}"), (address, port))

    @given(st.text())
    def test_never_raises(self, text: str) -> None:
        parse_address(text)


class ForwardedForTests(SynchronousTestCase):
    def test_the_last_address(self) -> None:
        self.assertEqual(forwarded("192.0.2.1, 192.0.2.2"), "192.0.2.2")
        self.assertEqual(forwarded("192.0.2.1,192.0.2.2 , "), "192.0.2.2")
        self.assertEqual(forwarded("192.0.2.1", "192.0.2.2"), "192.0.2.2")
        self.assertEqual(forwarded("192.0.2.1, 10.0.0.9"), "10.0.0.9")

    def test_the_last_that_is_not_trusted(self) -> None:
        for lines, expected in {
            ("192.0.2.1, 192.0.2.2",): "192.0.2.2",
            ("192.0.2.1, 10.0.0.9",): "192.0.2.1",
            ("192.0.2.1, 2001:db8::5, 10.0.0.9",): "192.0.2.1",
            ("10.0.0.7, 10.0.0.9",): "10.0.0.7",
            ("192.0.2.1", "10.0.0.9"): "192.0.2.1",
            ("192.0.2.1, 192.0.2.2", "10.0.0.8, 10.0.0.9"): "192.0.2.2",
            ("192.0.2.1, junk, 10.0.0.9",): "10.0.0.9",
            ("192.0.2.1", "junk", "10.0.0.9"): "10.0.0.9",
        }.items():
            self.assertEqual(forwarded(*lines, recursive=True), expected, lines)

    def test_who_is_not_trusted_says_nothing(self) -> None:
        self.assertEqual(forwarded("192.0.2.1", client="192.0.2.99"), "192.0.2.99")
        self.assertEqual(forwarded("192.0.2.1", client="::ffff:192.0.2.99"), "::ffff:192.0.2.99")

    def test_who_is_trusted(self) -> None:
        for client in ("unix:", "10.255.255.255", "::ffff:10.0.0.1", "2001:db8::1"):
            self.assertEqual(forwarded("192.0.2.1", client=client), "192.0.2.1", client)

    def test_junk_changes_nothing(self) -> None:
        for line in ("", " ", ",", "unknown", "192.0.2.1, unknown", "192.0.2.1;"):
            self.assertEqual(forwarded(line), "10.0.0.1", line)

    @given(
        st.lists(
            st.lists(st.sampled_from(["192.0.2.1", "10.1.1.1", "2001:db8::2", "x"]), max_size=4),
            max_size=3,
        )
    )
    def test_recursion_by_definition(self, lines: list[list[str]]) -> None:
        """Walk the addresses from the right while the one before is trusted."""
        expected = "10.0.0.1"
        for word in [word for line in lines for word in line or [""]][::-1]:
            if expected == "192.0.2.1" or word in ("x", ""):
                break
            expected = word
        self.assertEqual(forwarded(*map(", ".join, lines), recursive=True), expected)


class OtherFieldTests(SynchronousTestCase):
    def test_the_first_line_of_any_other_field(self) -> None:
        asked = request(("X-Real-Ip", "192.0.2.1:55"), ("X-Real-IP", "192.0.2.2"))
        peer = asked.peer
        RealIp((TEN,)).apply(asked)
        self.assertEqual((asked.peer.address, asked.peer.port), ("192.0.2.1", 55))
        self.assertEqual((asked.peer.server, asked.peer.serial), (LISTEN, 7))
        assert isinstance(asked.peer, ForwardedPeer)
        self.assertIs(asked.peer.original, peer)

    def test_without_the_field(self) -> None:
        asked = request(("X-Forwarded-For", "192.0.2.1"))
        peer = asked.peer
        RealIp((TEN,)).apply(asked)
        self.assertIs(asked.peer, peer)

    def test_once(self) -> None:
        """What a later phase has to say comes too late, as in nginx."""
        asked = request(("X-Real-IP", "10.0.0.2"), ("CF-Connecting-IP", "192.0.2.3"))
        RealIp((TEN,)).apply(asked)
        RealIp((TEN,), "CF-Connecting-IP").apply(asked)
        self.assertEqual(asked.peer.address, "10.0.0.2")

    def test_mapped_addresses_are_printed_with_dots(self) -> None:
        asked = request(("X-Real-IP", "::FFFF:1.2.3.4"))
        RealIp((TEN,)).apply(asked)
        self.assertEqual(asked.peer.address, "::ffff:1.2.3.4")


class ProxyProtocolTests(SynchronousTestCase):
    def test_the_header_of_the_connection(self) -> None:
        header = ProxyHeader("192.0.2.1", 51000, "192.0.2.9", 443)
        peer = ForwardedPeer("10.0.0.1", 4000, LISTEN, 7, proxy=header)
        asked = request(client=peer)
        RealIp((TEN,), PROXY_PROTOCOL).apply(asked)
        assert isinstance(asked.peer, ForwardedPeer)
        self.assertEqual((asked.peer.address, asked.peer.port), ("192.0.2.1", 51000))
        self.assertIs(asked.peer.original, peer)
        self.assertIs(asked.peer.proxy, header)

    def test_no_header_or_no_address_in_it(self) -> None:
        local = ForwardedPeer("10.0.0.1", 4000, LISTEN, 7, proxy=ProxyHeader(version=2))
        for peer in Peer("10.0.0.1", 4000, LISTEN, 7), local:
            asked = request(("proxy_protocol", "192.0.2.5"), client=peer)
            RealIp((TEN,), PROXY_PROTOCOL).apply(asked)
            self.assertIs(asked.peer, peer)
