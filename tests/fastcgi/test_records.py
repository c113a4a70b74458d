"""The record codec: round trips, any split, limits, broken streams."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.fastcgi import records as fcgi
from imagefarm.fastcgi.records import Record, RecordReader, RecordType

from . import strategies
from .strategies import each_byte, split


def encode(items: list[Record]) -> bytes:
    return b"".join(fcgi.encode_record(r.type, r.request_id, r.content) for r in items)


class EncodeTests(SynchronousTestCase):
    def test_the_specification_s_layout(self) -> None:
        self.assertEqual(
            fcgi.encode_record(RecordType.STDIN, 0x0102, b"hello"),
            b"\x01\x05\x01\x02\x00\x05\x03\x00hello\x00\x00\x00",
        )

    def test_begin_request(self) -> None:
        self.assertEqual(
            fcgi.encode_begin(1, fcgi.Role.RESPONDER, keep=True),
            b"\x01\x01\x00\x01\x00\x08\x00\x00\x00\x01\x01\x00\x00\x00\x00\x00",
        )

    def test_end_request(self) -> None:
        self.assertEqual(
            fcgi.encode_end(1, 0x01020304, fcgi.ProtocolStatus.OVERLOADED),
            b"\x01\x03\x00\x01\x00\x08\x00\x00\x01\x02\x03\x04\x02\x00\x00\x00",
        )

    def test_unknown_type(self) -> None:
        encoded = fcgi.encode_unknown(77)
        self.assertEqual(encoded, b"\x01\x0b\x00\x00\x00\x08\x00\x00\x4d" + bytes(7))
        self.assertEqual(fcgi.decode_unknown(encoded[8:]), 77)

    @settings(deadline=None)
    @given(st.binary(max_size=100))
    def test_records_are_aligned(self, content: bytes) -> None:
        self.assertEqual(len(fcgi.encode_record(RecordType.STDOUT, 1, content)) % 8, 0)

    def test_too_large(self) -> None:
        with self.assertRaises(fcgi.RecordTooLarge):
            fcgi.encode_record(RecordType.STDOUT, 1, bytes(65536))
        self.assertEqual(len(fcgi.encode_record(RecordType.STDOUT, 1, bytes(65535))), 65544)

    def test_a_stream_is_cut_into_records(self) -> None:
        data = bytes(range(256)) * 600
        found = RecordReader().feed(fcgi.encode_stream(RecordType.STDOUT, 7, data))
        self.assertEqual([len(r.content) for r in found], [65528, 65528, 153600 - 2 * 65528])
        self.assertEqual(b"".join(r.content for r in found), data)
        self.assertEqual({(r.type, r.request_id) for r in found}, {(6, 7)})

    def test_no_data_is_no_record(self) -> None:
        # An empty record would end the stream.
        self.assertEqual(fcgi.encode_stream(RecordType.STDOUT, 7, b""), b"")


class ReaderTests(SynchronousTestCase):
    @settings(deadline=None)
    @given(st.lists(strategies.records, max_size=6), st.lists(st.integers(0, 500)))
    def test_any_split_decodes_the_same(self, items: list[Record], cuts: list[int]) -> None:
        reader = RecordReader()
        found = [r for piece in split(encode(items), cuts) for r in reader.feed(piece)]
        self.assertEqual(found, items)
        self.assertEqual(reader.pending, 0)
        reader.eof()

    @settings(deadline=None)
    @given(st.lists(strategies.records, min_size=1, max_size=3))
    def test_byte_by_byte(self, items: list[Record]) -> None:
        reader = RecordReader()
        found = [r for piece in each_byte(encode(items)) for r in reader.feed(piece)]
        self.assertEqual(found, items)

    @settings(deadline=None)
    @given(st.lists(strategies.records, min_size=1, max_size=3), st.data())
    def test_every_truncation_is_told(self, items: list[Record], data: st.DataObject) -> None:
        whole = encode(items)
        last = len(encode(items[-1:]))
        cut = len(whole) - data.draw(st.integers(1, last - 1))
        reader = RecordReader()
        self.assertEqual(reader.feed(whole[:cut]), items[:-1])
        with self.assertRaises(fcgi.Truncated):
            reader.eof()

    @settings(deadline=None)
    @given(st.binary(max_size=200), st.lists(st.integers(0, 200)))
    def test_noise_gives_records_or_a_typed_error(self, noise: bytes, cuts: list[int]) -> None:
        reader = RecordReader(max_content=100)
        found: list[Record] = []
        try:
            for piece in split(noise, cuts):
                found += reader.feed(piece)
        except fcgi.FastCGIError:
            pass
        for record in found:
            self.assertIn(record.content, noise)

    def test_any_padding_is_skipped(self) -> None:
        data = b"\x01\x06\x00\x01\x00\x02\xff\x00ab" + bytes(255)
        for pieces in ([data], each_byte(data)):
            reader = RecordReader()
            found = [r for piece in pieces for r in reader.feed(piece)]
            self.assertEqual(found, [Record(RecordType.STDOUT, 1, b"ab")])

    def test_version(self) -> None:
        with self.assertRaisesRegex(fcgi.VersionError, "version: 2"):
            RecordReader().feed(b"\x02\x06\x00\x01\x00\x00\x00\x00")

    def test_the_limit_is_told_by_the_header_alone(self) -> None:
        header = b"\x01\x06\x00\x01\x00\x65\x00\x00"
        with self.assertRaisesRegex(fcgi.RecordTooLarge, "101"):
            RecordReader(max_content=100).feed(header)
        self.assertEqual(RecordReader(max_content=101).feed(header), [])

    def test_repr(self) -> None:
        reader = RecordReader()
        reader.feed(b"\x01\x06\x00\x01\x00\x65\x00\x00abc")
        self.assertEqual(repr(reader), "<RecordReader 11 of 109 bytes>")


class BodyTests(SynchronousTestCase):
    @settings(deadline=None)
    @given(st.integers(0, 0xFFFF), st.integers(0, 0xFFFF), st.booleans())
    def test_begin(self, request_id: int, role: int, keep: bool) -> None:
        (record,) = RecordReader().feed(fcgi.encode_begin(request_id, role, keep=keep))
        self.assertEqual(record.type, RecordType.BEGIN_REQUEST)
        self.assertEqual(record.request_id, request_id)
        self.assertEqual(fcgi.decode_begin(record.content), fcgi.BeginRequest(role, keep))

    @settings(deadline=None)
    @given(st.integers(0, 0xFFFFFFFF), st.sampled_from(fcgi.ProtocolStatus))
    def test_end(self, app_status: int, status: fcgi.ProtocolStatus) -> None:
        (record,) = RecordReader().feed(fcgi.encode_end(3, app_status, status))
        self.assertEqual(fcgi.decode_end(record.content), fcgi.EndRequest(app_status, status))

    def test_wrong_sizes(self) -> None:
        for decode in (fcgi.decode_begin, fcgi.decode_end, fcgi.decode_unknown):
            for size in (0, 7, 9):
                with self.assertRaises(fcgi.MalformedRecord):
                    decode(bytes(size))


class PairTests(SynchronousTestCase):
    @settings(deadline=None)
    @given(strategies.pairs)
    def test_round_trip(self, pairs: list[tuple[bytes, bytes]]) -> None:
        self.assertEqual(fcgi.decode_pairs(fcgi.encode_pairs(pairs)), pairs)

    def test_lengths_of_one_and_four_bytes(self) -> None:
        self.assertEqual(fcgi.encode_pairs([(b"A", bytes(127))])[:3], b"\x01\x7fA")
        self.assertEqual(fcgi.encode_pairs([(b"A", bytes(128))])[:6], b"\x01\x80\x00\x00\x80A")
        self.assertEqual(fcgi.encode_pairs([(bytes(300), b"B")])[:5], b"\x80\x00\x01\x2c\x01")

    def test_four_bytes_for_a_short_length_are_legal(self) -> None:
        data = b"\x80\x00\x00\x01\x80\x00\x00\x02abc"
        self.assertEqual(fcgi.decode_pairs(data), [(b"a", b"bc")])

    @settings(deadline=None)
    @given(strategies.pairs.filter(bool), st.data())
    def test_truncation(self, pairs: list[tuple[bytes, bytes]], data: st.DataObject) -> None:
        encoded = fcgi.encode_pairs(pairs)
        last = len(fcgi.encode_pairs(pairs[-1:]))
        cut = data.draw(st.integers(1, last - 1))
        with self.assertRaises(fcgi.Truncated):
            fcgi.decode_pairs(encoded[:-cut])

    @settings(deadline=None)
    @given(st.binary(max_size=60))
    def test_noise(self, noise: bytes) -> None:
        try:
            pairs = fcgi.decode_pairs(noise)
        except fcgi.Truncated:
            return
        self.assertLessEqual(sum(len(a) + len(b) + 2 for a, b in pairs), len(noise))
