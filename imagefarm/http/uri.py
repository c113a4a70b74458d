"""Request targets: normalising as nginx does, escaping, and the forms of RFC 9112 section 3.2.

The strategy: nearly every target is plain, so a few searches decide that nothing has to be
done. The rest goes through the state table of nginx's ``ngx_http_parse_complex_uri``, whose
results this reproduces byte for byte: percent-decoding happens before "/" and "." are looked
at, so ``%2e%2e%2f`` climbs like ``../`` does and is refused at the root like it.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import Final


class BadTarget(ValueError):
    """The request-target is malformed or climbs above the root: 400."""


_ABSOLUTE: Final = re.compile(
    rb"[A-Za-z][A-Za-z0-9+.\-]*://(?P<authority>(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.\-_~]+)(?::\d*)?)"
    rb"(?P<rest>[/?#].*)?",
    re.DOTALL,
)
_PERCENT: Final = re.compile(rb"%([0-9A-Fa-f]{2})")
_HEX: Final = re.compile(rb"[0-9A-Fa-f]{2}")

#: nginx's NGX_ESCAPE_URI: what may not stand in a path that is sent on.
_URI_ESCAPES: Final = frozenset(b' "#%<>?\\^`{|}') | frozenset(range(0x20)) | frozenset(
    range(0x7F, 0x100)
)  # fmt: skip
#: nginx's NGX_ESCAPE_ARGS: the same in a query string that captures go into.
_ARGS_ESCAPES: Final = _URI_ESCAPES | frozenset(b"&+;")


def _table(escapes: frozenset[int]) -> tuple[bytes, ...]:
    return tuple(b"%%%02X" % c if c in escapes else bytes((c,)) for c in range(256))


_URI_TABLE: Final = _table(_URI_ESCAPES)
_ARGS_TABLE: Final = _table(_ARGS_ESCAPES)


def escape_uri(path: bytes) -> bytes:
    """Escape a decoded path for a request-target or ``Location`` (NGX_ESCAPE_URI)."""
    return b"".join([_URI_TABLE[c] for c in path])


def escape_args(text: bytes) -> bytes:
    """Escape text that goes into a query string (NGX_ESCAPE_ARGS)."""
    return b"".join([_ARGS_TABLE[c] for c in text])


def split_absolute(target: bytes) -> tuple[bytes | None, bytes]:
    """Split the absolute-form into its authority and an origin-form.

    ``http://a:80/x?y`` gives ``(b"a:80", b"/x?y")``; the origin-form comes back with None.
    Raises `BadTarget` for anything else (the authority-form and "*" have no path).
    """
    if target.startswith(b"/"):
        return None, target
    match = _ABSOLUTE.fullmatch(target)
    if match is None:
        raise BadTarget("invalid request target")
    rest = match["rest"] or b"/"
    return match["authority"], rest if rest.startswith(b"/") else b"/" + rest


def normalise(target: bytes, merge_slashes: bool = True) -> tuple[bytes, bytes]:
    """The decoded, normalised path (nginx's ``$uri``) and the query string without "?".

    A fragment is dropped. The absolute-form is accepted. Raises `BadTarget` for bad
    percent-encoding, ``%00`` and a path that climbs above the root.
    """
    _, target = split_absolute(target)
    target = target.partition(b"#")[0] if b"#" in target else target
    path, _, args = target.partition(b"?")
    if b"%" not in path and b"/." not in path and (b"//" not in path or not merge_slashes):
        return path, args
    return _complex(path, merge_slashes), args


def split_unsafe(target: bytes) -> tuple[bytes, bytes]:
    """The decoded path and the query string of a URI that an upstream names.

    As in nginx nothing is normalised. Raises `BadTarget` where a segment is ".." or a byte NUL,
    before or after decoding, and for what does not begin with "/".
    """
    path, _, args = target.partition(b"?")
    decoded = _PERCENT.sub(lambda match: bytes.fromhex(match[1].decode()), path)
    if not path.startswith(b"/") or b"\0" in decoded:
        raise BadTarget("unsafe URI")
    if b".." in path.split(b"/") or b".." in decoded.split(b"/"):
        raise BadTarget("unsafe URI")
    return decoded, args


class _State(Enum):
    """Where in a path segment we are."""

    USUAL = "inside a segment"
    SLASH = 'after "/"'
    DOT = 'after "/."'
    DOT_DOT = 'after "/.."'


def _climb(out: bytearray) -> None:
    """Take "/.." and the segment before it off ``out``, up to and with its "/"."""
    del out[-3:]
    slash = out.rfind(b"/")
    if slash < 0:
        raise BadTarget("the path climbs above the root")
    del out[slash + 1 :]


def _decode(path: bytes, at: int) -> int:
    """The byte that the percent-encoding at ``at`` stands for."""
    match = _HEX.match(path, at + 1)
    if match is None:
        raise BadTarget("invalid percent-encoding")
    byte = int(match[0], 16)
    if byte == 0:
        raise BadTarget("NUL in the path")
    return byte


def _complex(path: bytes, merge_slashes: bool) -> bytes:
    out = bytearray()
    state = _State.USUAL
    at = 0
    while at < len(path):
        byte = path[at]
        if byte == 0x25:
            byte = _decode(path, at)
            at += 2
            if byte in b"%#?":  # literally: these never delimit once they are decoded
                state = _State.USUAL
                out.append(byte)
                at += 1
                continue
        at += 1
        state = _step(state, byte, out, merge_slashes)
    if state is _State.DOT:
        del out[-1:]
    elif state is _State.DOT_DOT:
        _climb(out)
    return bytes(out)


def _step(state: _State, byte: int, out: bytearray, merge_slashes: bool) -> _State:
    """One decoded byte through the table; writes to ``out``, returns the next state."""
    if byte == 0x2F:
        if state is _State.DOT:
            del out[-1:]
        elif state is _State.DOT_DOT:
            _climb(out)
        elif state is _State.USUAL or not merge_slashes:
            out.append(byte)
        return _State.SLASH
    out.append(byte)
    if byte == 0x2E:
        if state is _State.SLASH:
            return _State.DOT
        if state is _State.DOT:
            return _State.DOT_DOT
    return _State.USUAL
