"""``proxy_bind``: addresses, and what variables make of them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.config.variables import Template
from imagefarm.http.binding import Binding, Local, parse_local
from tests.proxy.support import make_request
from tests.support.errorlines import ErrorLines

PORTS = st.integers(1, 65535)


class AddressTests(SynchronousTestCase):
    @given(st.ip_addresses(), st.none() | PORTS, st.booleans())
    def test_addresses(self, address: object, port: int | None, transparent: bool) -> None:
        host = str(address)
        text = host
        if port is not None:
            text = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        local = parse_local(text, transparent=transparent)
        self.assertEqual(local, Local(host, port or 0, transparent))
        assert local is not None
        self.assertEqual((local.v6, local.name), (":" in host, text))

    @given(st.text("0123456789.:[]axy-", max_size=20))
    def test_nonsense(self, text: str) -> None:
        local = parse_local(text)
        if local is not None:
            ports = "" if not local.port else f":{local.port}"
            self.assertEqual(
                parse_local(
                    f"[{local.host}]{ports}" if ports and local.v6 else local.host + ports
                ),
                local,
            )

    def test_wrong(self) -> None:
        for text in ("", "a", "[::1]", "1.2.3.4:0", "1.2.3.4:65536", "1.2.3.4:", ":80", "unix:/x"):
            self.assertIsNone(parse_local(text), text)


class BindingTests(SynchronousTestCase):
    def bound(self, value: bytes) -> Local | None:
        template = Template("$x", (lambda _: value,), None)
        self.request = make_request()
        self.request.location = self
        self.error_log = ErrorLines()
        return Binding(template, True, None).of(self.request)

    @property
    def lines(self) -> list[tuple[str, str]]:
        lines = self.error_log.lines
        return [(level, line.partition(" ")[2].partition(",")[0]) for level, line in lines]

    def test_variable(self) -> None:
        self.assertEqual(self.bound(b"192.0.2.1:99"), Local("192.0.2.1", 99, True))
        self.assertEqual(self.lines, [])

    def test_nothing(self) -> None:
        self.assertIsNone(self.bound(b""))
        self.assertEqual(self.lines, [])

    def test_no_address(self) -> None:
        self.assertIsNone(self.bound(b"a\nb"))
        self.assertEqual(self.lines, [("error", 'invalid local address "a\\nb"')])
