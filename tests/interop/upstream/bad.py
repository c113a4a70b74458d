"""Answers of upstreams that are malformed, ambiguous, or more than was asked for.

Each vector has what the client gets from us, and from nginx 1.22 where that is something else.
``502`` is our own page; ``200 'ok'`` a whole answer; ``cut`` follows where the answer was begun
but does not look complete; nginx's ``raw`` has no status line, since it takes what is none for
an answer of HTTP/0.9. What follows an answer never reaches a client, and the connection that
it came on is not used again: `REUSED` names the vectors after which it is, since nothing is wrong
with them.
"""

from __future__ import annotations

from typing import Final

from attrs import frozen

STATUS: Final = b"HTTP/1.1 200 OK\r\n"
SECRET: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nSECRET"


@frozen
class Vector:
    """``data`` is the whole answer; ``open``: the connection stays open behind it."""

    name: str
    data: bytes
    ours: str = "502"
    nginx: str = ""
    open: bool = False

    @property
    def theirs(self) -> str:
        return self.nginx or self.ours


def _v(name: str, data: bytes, ours: str = "502", nginx: str = "", *, open: bool = True) -> Vector:
    return Vector(name, data, ours, nginx, open)


def _field(line: bytes, rest: bytes = b"Content-Length: 2\r\n\r\nok") -> bytes:
    return STATUS + line + b"\r\n" + rest


def _chunks(body: bytes) -> bytes:
    return STATUS + b"Transfer-Encoding: chunked\r\n\r\n" + body


VECTORS: Final = (
    _v("nothing", b"", open=False),
    _v("half a status line", b"HTTP/1.1 20", open=False),
    _v("half a head", b"HTTP/1.1 200 OK\r\nContent-Le", open=False),
    _v("head without its end", STATUS + b"Content-Length: 2\r\n", open=False),
    _v("HTTP/0.9", b"<html>hello", open=False, nginx="raw"),
    _v("no status line", b"Content-Length: 2\r\n\r\nok", nginx="raw"),
    _v("FastCGI", bytes((1, 6, 0, 1, 0, 2, 0, 0)) + b"ok", nginx="raw"),
    _v("version 2.0", b"HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\nok", nginx="200 b'ok'"),
    _v("version 1.2", b"HTTP/1.2 200 OK\r\nContent-Length: 2\r\n\r\nok", "200 b'ok'"),
    _v("version in small letters", b"http/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", nginx="raw"),
    _v("status of two digits", b"HTTP/1.1 20 OK\r\nContent-Length: 2\r\n\r\nok", nginx="raw"),
    _v("status of four digits", b"HTTP/1.1 2000 OK\r\nContent-Length: 2\r\n\r\nok", nginx="raw"),
    _v("status 099", b"HTTP/1.1 099 OK\r\nContent-Length: 2\r\n\r\nok", nginx="099 b'ok'"),
    _v("status of letters", b"HTTP/1.1 abc OK\r\nContent-Length: 2\r\n\r\nok", nginx="raw"),
    _v("NUL in the reason", b"HTTP/1.1 200 O\0K\r\nContent-Length: 2\r\n\r\nok",
       nginx="200 b'ok'"),
    _v("status line with LF", b"HTTP/1.1 200 OK\nContent-Length: 2\r\n\r\nok", nginx="200 b'ok'"),
    _v("all with LF", b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok", open=False, nginx="200 b'ok'"),
    _v("empty line first", b"\r\n" + STATUS + b"Content-Length: 2\r\n\r\nok", nginx="raw"),
    _v("NUL in a value", _field(b"X-A: b\0c")),
    _v("CR in a value", _field(b"X-A: b\rSet-Cookie: c")),
    _v("LF ends a field", STATUS + b"X-A: b\nContent-Length: 2\r\n\r\nok", nginx="200 b'ok'"),
    _v("control character in a value", _field(b"X-A: b\x01c"), nginx="200 b'ok'"),
    _v("folded field", _field(b"X-A: b\r\n c: d")),
    _v("space before the colon", _field(b"X-A : b")),
    _v("space in a name", _field(b"X A: b")),
    _v("no colon", _field(b"nothing"), nginx="200 b'ok'"),
    _v("empty name", _field(b": b")),
    _v("field that starts with a space", _field(b" X-A: b")),
    _v("name with NUL", _field(b"X\0A: b")),
    _v("huge field", _field(b"X-A: " + b"b" * 20000)),
    _v("many fields", _field(b"\r\n".join(b"X-%d: y" % n for n in range(2000)))),
    _v("endless line", b"HTTP/1.1 200 " + b"O" * 20000, open=False),
    _v("length of letters", STATUS + b"Content-Length: two\r\n\r\nok", nginx="200 b'' cut"),
    _v("negative length", STATUS + b"Content-Length: -2\r\n\r\nok", nginx="200 b'' cut"),
    _v("length with plus", STATUS + b"Content-Length: +2\r\n\r\nok", nginx="200 b'' cut"),
    _v("length in hexadecimal", STATUS + b"Content-Length: 0x2\r\n\r\nok", nginx="200 b'' cut"),
    _v("empty length", STATUS + b"Content-Length:\r\n\r\nok", nginx="200 b'' cut"),
    _v("huge length", STATUS + b"Content-Length: 99999999999999999999\r\n\r\nok",
       nginx="200 b'' cut"),
    _v("two lengths", STATUS + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\nokk",
       nginx="200 b'okk'"),
    _v("the same length twice", STATUS + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\nok",
       "200 b'ok'"),
    _v("list of lengths", STATUS + b"Content-Length: 2, 3\r\n\r\nokk", nginx="200 b'' cut"),
    _v("length and chunks", _field(b"Content-Length: 3", b"Transfer-Encoding: chunked\r\n\r\n"
       b"2\r\nok\r\n0\r\n\r\n"), nginx="200 b'ok'"),
    _v("chunks and length", _field(b"Transfer-Encoding: chunked", b"Content-Length: 3\r\n\r\n"
       b"2\r\nok\r\n0\r\n\r\n"), nginx="200 b'ok'"),
    _v("unknown coding", _field(b"Transfer-Encoding: gzip", b"\r\nok"), open=False,
       nginx="200 b'ok'"),
    _v("chunked twice", _field(b"Transfer-Encoding: chunked, chunked",
       b"\r\n2\r\nok\r\n0\r\n\r\n"), nginx="200 b'ok'"),
    _v("two codings", _field(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
       b"\r\n2\r\nok\r\n0\r\n\r\n"), nginx="200 b'ok'"),
    _v("chunks of HTTP/1.0", b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
       b"2\r\nok\r\n0\r\n\r\n", open=False, nginx="200 b'ok'"),
    _v("size of letters", _chunks(b"zz\r\nok\r\n0\r\n\r\n"), nginx="raw"),
    _v("size with 0x", _chunks(b"0x2\r\nok\r\n0\r\n\r\n"), nginx="raw"),
    _v("negative size", _chunks(b"-2\r\nok\r\n0\r\n\r\n"), nginx="raw"),
    _v("huge size", _chunks(b"fffffffffffffffff\r\nok\r\n0\r\n\r\n"), nginx="raw"),
    _v("empty size", _chunks(b"\r\nok\r\n0\r\n\r\n"), nginx="raw"),
    _v("size with LF", _chunks(b"2\nok\r\n0\r\n\r\n"), nginx="200 b'ok'"),
    _v("chunk longer than its size", _chunks(b"2\r\nokk\r\n0\r\n\r\n"), nginx="raw"),
    _v("control character in an extension", _chunks(b"2;a=\x01\r\nok\r\n0\r\n\r\n"),
       nginx="200 b'ok'"),
    _v("malformed trailer", _chunks(b"2\r\nok\r\n0\r\nno colon\r\n\r\n"), nginx="200 b'ok'"),
    _v("chunks without their end", _chunks(b"2\r\nok\r\n"), "200 b'ok' cut", open=False),
    _v("chunk without its end", _chunks(b"5\r\nok"), "200 b'ok' cut", open=False),
    _v("short body", STATUS + b"Content-Length: 5\r\n\r\nok", "200 b'ok' cut", open=False),
    _v("long body", STATUS + b"Content-Length: 2\r\n\r\nok" + SECRET, "200 b'ok'"),
    _v("bytes behind chunks", _chunks(b"2\r\nok\r\n0\r\n\r\n") + SECRET, "200 b'ok'"),
    _v("body of a 204", b"HTTP/1.1 204 No\r\n\r\n" + SECRET, "204 b''"),
    _v("body of a 304", b"HTTP/1.1 304 No\r\nContent-Length: 2\r\n\r\n" + SECRET, "304 b''"),
    _v("flood of 100", b"HTTP/1.1 100 Continue\r\n\r\n" * 100, nginx="100 b''"),
    _v("100 without end", b"HTTP/1.1 100 Continue\r\nX: y\r\n", open=False),
    _v("103 and an answer", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + STATUS
       + b"Content-Length: 2\r\n\r\nok", "200 b'ok'", nginx="103 b''"),
    _v("101 unasked", b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n" + SECRET, nginx="101 b''"),
    _v("good", STATUS + b"Content-Length: 2\r\n\r\nok", "200 b'ok'"),
    _v("good chunks", _chunks(b"2;a=b\r\nok\r\n0\r\nX: y\r\n\r\n"), "200 b'ok'"),
)  # fmt: skip

#: The connection is used again after these.
REUSED: Final = frozenset(
    {"good", "good chunks", "103 and an answer", "version 1.2", "the same length twice"}
)
