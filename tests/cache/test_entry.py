from __future__ import annotations

import attrs
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.cache.entry import (
    MAX_BLOCK,
    MAX_KEY,
    PREFIX_LENGTH,
    CorruptEntry,
    Entry,
    EntryError,
    TruncatedEntry,
    decode,
    encode,
    lengths,
)

TEXT = st.binary(max_size=40).map(lambda data: data.replace(b"\n", b" "))
NAME = st.from_regex(rb"\A[a-z-]{1,12}\Z")
MOMENT = st.floats(min_value=0, max_value=2.0**40)
ENTRIES = st.builds(
    Entry,
    key=st.binary(max_size=200),
    status=st.integers(200, 599),
    headers=st.lists(st.tuples(TEXT, TEXT), max_size=8).map(tuple),
    stored=MOMENT,
    expires=MOMENT,
    body_length=st.integers(0, 2**63),
    date=st.none() | MOMENT,
    last_modified=st.none() | MOMENT,
    etag=TEXT,
    stale_while_revalidate=MOMENT,
    stale_if_error=MOMENT,
    vary=st.lists(NAME, max_size=3).map(tuple),
    variant=st.just(b"") | st.binary(min_size=32, max_size=32),
    final=st.booleans(),
    requested=MOMENT,
    source=TEXT,
    identity=st.binary(max_size=32),
)
PLAIN = Entry(b"key", 200, ((b"Content-Type", b"image/png"),), 1000.0, 1060.0, 5, etag=b'"e"')


class EntryTests(SynchronousTestCase):
    @given(ENTRIES, st.binary(max_size=20))
    def test_round_trip(self, entry: Entry, body: bytes) -> None:
        block = encode(entry)
        self.assertEqual(decode(block + body), (entry, len(block)))
        self.assertEqual(lengths(block[:PREFIX_LENGTH]), (len(block), entry.body_length))

    @given(ENTRIES, st.integers(0, 2**63))
    def test_block_length_does_not_depend_on_body_length(self, entry: Entry, size: int) -> None:
        self.assertEqual(len(encode(entry)), len(encode(attrs.evolve(entry, body_length=size))))

    @given(ENTRIES, st.data())
    def test_any_flipped_bit_is_noticed(self, entry: Entry, data: st.DataObject) -> None:
        block = bytearray(encode(entry))
        place = data.draw(st.integers(0, len(block) - 1))
        block[place] ^= data.draw(st.integers(1, 255))
        # A flip in the length may make the block look longer than it is: that is noticed too.
        self.assertRaises(CorruptEntry, decode, bytes(block))

    def test_every_truncation_says_how_much_is_needed(self) -> None:
        block = encode(PLAIN)
        for size in range(len(block)):
            error = self.assertRaises(TruncatedEntry, decode, block[:size])
            self.assertEqual(error.needed, PREFIX_LENGTH if size < PREFIX_LENGTH else len(block))

    @given(st.binary(max_size=300))
    def test_noise_is_never_an_entry(self, noise: bytes) -> None:
        self.assertRaises(CorruptEntry, decode, noise)
        self.assertRaises(CorruptEntry, decode, b"imfC" + noise)

    def test_another_version_is_not_ours(self) -> None:
        block = bytearray(encode(PLAIN))
        block[9] ^= 3
        self.assertRaises(CorruptEntry, lengths, bytes(block))

    def test_limits(self) -> None:
        self.assertRaises(EntryError, encode, attrs.evolve(PLAIN, key=b"k" * (MAX_KEY + 1)))
        fields = ((b"X", b"v" * MAX_BLOCK),)
        self.assertRaises(EntryError, encode, attrs.evolve(PLAIN, headers=fields))
        self.assertRaises(EntryError, encode, attrs.evolve(PLAIN, headers=((b"X", b"a\nb"),)))
