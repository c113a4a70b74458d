"""What must hold for any bytes that a client sends; fuzzers and property tests call it."""

from __future__ import annotations

import re
from collections.abc import Sequence

from attrs import evolve

from imagefarm.http.parser import Limits
from tests.support.pipeline import TIGHT, Message, Reading, cut, judge, read, single

#: An input's first byte chooses limits and flags, the second and third where it is cut.
HEADER_BYTES = 3
#: Longer ones would take too long byte by byte.
BY_BYTE = 1500
_EMPTY_LINES = re.compile(rb"\A(?:\r\n)+")
_ROOMY = (4, 1 << 20)


def check(data: bytes, limits: Limits, places: Sequence[int] = ()) -> Reading:
    """Raises AssertionError, or whatever the parser lets escape; returns what was read.

    Nothing but a refusal comes out; the outcome does not depend on how the bytes were cut; what
    was accepted is unambiguous (`judge`), and means the same after it is written anew.
    """
    whole = read([data], limits)
    if whole.status:
        assert 400 <= whole.status < 600, whole
    assert read(cut(data, places), limits) == whole, f"cut at {places}: {data!r}"
    if len(data) <= BY_BYTE:
        assert read(single(data), limits) == whole, f"byte by byte: {data!r}"
    plain = limits.ignore_invalid_headers and not limits.underscores_in_headers
    end = judge(data, _judged(whole), names=plain)
    if not whole.status and all(message.complete for message in whole.messages):
        left = _EMPTY_LINES.sub(b"", data[end:])
        assert _EMPTY_LINES.sub(b"", whole.rest) == left, whole
    for message in whole.messages:
        _check_rewritten(message, limits)
    return whole


def _judged(whole: Reading) -> tuple[Message, ...]:
    """Without a message whose body was refused: it was not accepted."""
    return tuple(m for m in whole.messages if m.complete or not whole.status)


def _check_rewritten(message: Message, limits: Limits) -> None:
    if message.complete:
        roomy = evolve(limits, large_client_header_buffers=_ROOMY)
        again = read([message.encoded], roomy)
        assert again.messages == (message,), f"{message} became {again}"
        assert not again.status and not again.rest, again


def check_input(data: bytes) -> None:
    """`check` for one input of a fuzzer."""
    choice, *places = data[:HEADER_BYTES].ljust(HEADER_BYTES, b"\0")
    limits = evolve(
        TIGHT if choice & 1 else Limits(),
        ignore_invalid_headers=not choice & 2,
        underscores_in_headers=bool(choice & 4),
    )
    check(data[HEADER_BYTES:], limits, places)
