"""Packets: what the test nameserver packs by hand is understood, and nothing else."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.proxy.names.codec import decode, encode
from imagefarm.proxy.names.reply import CNAME, Kind, Question, Record, Reply, Service
from tests.support.dns import pack_reply, unpack_question

ASKED = Question("www.example", Kind.A)
QUERY = encode(ASKED, 0x1234)
GOOD = pack_reply(
    QUERY, [("www.example", 5, 9, "a.example"), ("a.example", 1, 60, "192.0.2.1")]
)  # fmt: skip


class CodecTests(SynchronousTestCase):
    def test_a_query(self) -> None:
        self.assertEqual(unpack_question(QUERY)[:2], ("www.example", 1))
        ident, flags, *counts = struct.unpack_from("!6H", QUERY)
        self.assertEqual((ident, flags, counts), (0x1234, 0x0100, [1, 0, 0, 0]))

    def test_a_reply(self) -> None:
        self.assertEqual(
            decode(GOOD, ASKED, 0x1234),
            Reply(
                0,
                (
                    Record("www.example", CNAME, 9, "a.example"),
                    Record("a.example", 1, 60, "192.0.2.1"),
                ),
            ),
        )

    def test_other_types(self) -> None:
        for kind, value, expected in (
            (Kind.AAAA, "2001:db8::1", "2001:db8::1"),
            (Kind.SRV, "10 5 8080 s.example", Service(10, 5, 8080, "s.example")),
        ):
            asked = Question("x.example", kind)
            packet = pack_reply(encode(asked, 1), [("x.example", kind.value, 60, value)])
            reply = decode(packet, asked, 1)
            assert reply is not None
            self.assertEqual([record.value for record in reply.records], [expected])

    def test_no_such_service(self) -> None:
        """RFC 2782: the target is the root."""
        asked = Question("x.example", Kind.SRV)
        packet = pack_reply(encode(asked, 1), [("x.example", 33, 60, "0 0 0 .")])
        self.assertEqual(decode(packet, asked, 1), Reply(0))

    def test_negative_and_truncated(self) -> None:
        packet = pack_reply(QUERY, [], code=3, negative_ttl=17)
        self.assertEqual(decode(packet, ASKED, 0x1234), Reply(3, (), negative_ttl=17))
        packet = pack_reply(QUERY, [], truncated=True)
        self.assertEqual(decode(packet, ASKED, 0x1234), Reply(0, truncated=True))

    def test_case_of_the_question(self) -> None:
        loud = GOOD.replace(b"\x03www\x07example", b"\x03WwW\x07EXAMPLE", 1)
        self.assertIsNotNone(decode(loud, ASKED, 0x1234))

    def test_not_an_answer_to_this(self) -> None:
        for packet in (
            b"",
            QUERY,  # a query
            b"\x12\x35" + GOOD[2:],  # another identification
            GOOD[:2] + b"\x91" + GOOD[3:],  # another operation
            pack_reply(encode(Question("other.example", Kind.A), 0x1234), []),
            pack_reply(encode(Question("www.example", Kind.AAAA), 0x1234), []),
            GOOD[:4] + b"\0\0" + GOOD[6:],  # without the question
            GOOD[:6] + b"\0\3" + GOOD[8:],  # an answer less than it says
        ):
            self.assertIsNone(decode(packet, ASKED, 0x1234), packet)

    def test_every_cut_is_refused(self) -> None:
        for end in range(len(GOOD)):
            self.assertIsNone(decode(GOOD[:end], ASKED, 0x1234), end)

    def test_a_compression_loop(self) -> None:
        packet = GOOD[: len(QUERY)] + b"\xc0" + bytes([len(QUERY)]) + b"\0\1\0\1" + bytes(6)
        self.assertIsNone(decode(packet, ASKED, 0x1234))

    @given(st.data())
    def test_garbage(self, data: st.DataObject) -> None:
        """Bytes changed anywhere: something or nothing comes of it, never an exception."""
        packet = bytearray(GOOD)
        for _ in range(data.draw(st.integers(1, 6))):
            packet[data.draw(st.integers(0, len(packet) - 1))] = data.draw(st.integers(0, 255))
        reply = decode(bytes(packet), ASKED, 0x1234)
        if reply is not None:
            self.assertEqual(bytes(packet[:2]), b"\x12\x34")

    @given(st.binary(max_size=200))
    def test_noise_behind_a_good_header(self, noise: bytes) -> None:
        decode(GOOD[: len(QUERY)] + noise, ASKED, 0x1234)
