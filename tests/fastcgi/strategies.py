"""What the tests of this package share: inputs for hypothesis and small fakes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

from hypothesis import strategies as st

from imagefarm.fastcgi.records import Record

records = st.builds(
    Record,
    type=st.integers(0, 255),
    request_id=st.integers(0, 0xFFFF),
    content=st.binary(max_size=60),
)
pairs = st.lists(
    st.tuples(
        st.one_of(st.binary(max_size=20), st.integers(120, 300).map(bytes)),
        st.one_of(st.binary(max_size=20), st.integers(120, 300).map(bytes)),
    ),
    max_size=8,
)


def split(data: bytes, cuts: Sequence[int]) -> Iterator[bytes]:
    """``data`` cut at ``cuts`` (taken modulo its length); no piece is empty."""
    places = sorted({cut % (len(data) + 1) for cut in cuts} | {0, len(data)})
    for start, end in pairwise(places):
        yield data[start:end]


def each_byte(data: bytes) -> Iterator[bytes]:
    """``data`` byte by byte."""
    for index in range(len(data)):
        yield data[index : index + 1]
