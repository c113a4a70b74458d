"""What sessions and ClientHellos say: of real ones, of made ones, and of rubbish."""

from __future__ import annotations

import ssl

from hypothesis import given
from hypothesis import strategies as st
from OpenSSL import SSL

from imagefarm.http import libssl
from imagefarm.http.tls_context import Secured, SniContexts, make_context
from imagefarm.http.tls_session import ciphers_of, groups_of, server_name_of, session_id

from .test_tls import ContextCase, client_context, handshake


def element(tag: int, content: bytes) -> bytes:
    """DER, with the shortest length."""
    size = len(content)
    if size < 128:
        return bytes((tag, size)) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(length))) + length + content


def session(identity: bytes, name: bytes) -> bytes:
    fields = element(2, b"\1") + element(2, b"\3\3") + element(4, b"\x13\1")
    fields += element(4, identity) + element(4, b"secret")
    if name:
        fields += element(0xA6, element(4, name))
    return element(0x30, fields)


def hello(ciphers: list[int], groups: list[int], identity: bytes, before: bytes) -> bytes:
    suites = b"".join(each.to_bytes(2, "big") for each in ciphers)
    listed = b"".join(each.to_bytes(2, "big") for each in groups)
    extensions = b"\0\x2b" + len(before).to_bytes(2, "big") + before
    extensions += b"\0\x0a" + (len(listed) + 2).to_bytes(2, "big")
    extensions += len(listed).to_bytes(2, "big") + listed
    body = b"\3\3" + bytes(32) + bytes((len(identity),)) + identity
    body += len(suites).to_bytes(2, "big") + suites + b"\1\0"
    body += len(extensions).to_bytes(2, "big") + extensions
    return b"\1" + len(body).to_bytes(3, "big") + body


NUMBERS = st.lists(st.integers(0, 0xFFFF), max_size=40)


class SessionTests(ContextCase):
    @given(st.binary(max_size=32), st.binary(max_size=300))
    def test_made(self, identity: bytes, name: bytes) -> None:
        made = session(identity, name)
        self.assertEqual((session_id(made), server_name_of(made)), (identity, name))
        for end in range(len(made)):
            session_id(made[:end])
            server_name_of(made[:end])

    @given(NUMBERS, NUMBERS, st.binary(max_size=32), st.binary(max_size=20))
    def test_hello(
        self, ciphers: list[int], groups: list[int], identity: bytes, before: bytes
    ) -> None:
        made = hello(ciphers, groups, identity, before)
        self.assertEqual([int.from_bytes(c, "big") for c in ciphers_of(made)], ciphers)
        self.assertEqual(groups_of(made), groups)
        for end in range(0, len(made), 7):
            ciphers_of(made[:end])
            groups_of(made[:end])

    @given(st.binary(max_size=200))
    def test_rubbish(self, data: bytes) -> None:
        session_id(data)
        server_name_of(data)
        ciphers_of(data)
        groups_of(data)

    def test_real(self) -> None:
        settings = self.pair("a")
        base = make_context(settings)
        libssl.keep_hello(base)
        contexts = SniContexts(base, Secured(settings, base))
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            seen: list[SSL.Connection] = []
            client = client_context(version, version)
            first = handshake(contexts.default, client, "a.example", seen=seen)
            again = handshake(
                contexts.default, client, "a.example", session=first.session, seen=seen
            )
            self.assertTrue(again.session_reused)
            said = libssl.session(seen[1])
            self.assertEqual(server_name_of(said), b"a.example", version)
            assert again.session is not None
            if version is ssl.TLSVersion.TLSv1_2:
                self.assertEqual(session_id(said), again.session.id)
            names = [libssl.cipher_name(seen[0], c) for c in ciphers_of(seen[0].get_app_data())]
            self.assertIn("TLS_EMPTY_RENEGOTIATION_INFO_SCSV", names)
            self.assertIn(29, groups_of(seen[0].get_app_data()))
