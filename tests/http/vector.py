"""One row of the table of malformed and ambiguous requests, and short ways to write it."""

from __future__ import annotations

from typing import Final

from attrs import evolve, frozen

REFUSED: Final = "400 closed"
SERVED: Final = "200 open"
#: What follows an attack in the same bytes: whoever answers it was fooled.
HIDDEN: Final = b"GET /hidden HTTP/1.1\r\nHost: a\r\n\r\n"


@frozen
class Vector:
    """``nginx`` is nginx's outcome where it is another."""

    name: str
    data: bytes
    expected: str = REFUSED
    nginx: str = ""
    family: str = ""
    section: str = ""


def family(name: str, section: str, *vectors: Vector) -> tuple[Vector, ...]:
    return tuple(
        evolve(vector, family=name, section=vector.section or section) for vector in vectors
    )


def line(name: str, line: bytes, expected: str = REFUSED, nginx: str = "") -> Vector:
    """A request line (or two lines) before Host."""
    return Vector(name, line + b"\r\nHost: a\r\n\r\n", expected, nginx)


def get(name: str, fields: bytes, expected: str = REFUSED, nginx: str = "") -> Vector:
    """Field lines after Host."""
    data = b"GET / HTTP/1.1\r\nHost: a\r\n" + fields + b"\r\n\r\n"
    return Vector(name, data, expected, nginx)


def host(name: str, fields: bytes, expected: str = REFUSED, nginx: str = "") -> Vector:
    """Field lines in place of Host."""
    return Vector(name, b"GET / HTTP/1.1\r\n" + fields + b"\r\n\r\n", expected, nginx)


def post(
    name: str, fields: bytes, body: bytes = b"", expected: str = REFUSED, nginx: str = ""
) -> Vector:
    """Framing fields and a body."""
    data = b"POST /up HTTP/1.1\r\nHost: a\r\n" + fields + b"\r\n\r\n" + body
    return Vector(name, data, expected, nginx)


def unread(
    name: str, fields: bytes, body: bytes = b"", expected: str = REFUSED, nginx: str = ""
) -> Vector:
    """The same for a target that is answered without it."""
    data = b"POST / HTTP/1.1\r\nHost: a\r\n" + fields + b"\r\n\r\n" + body
    return Vector(name, data, expected, nginx)


def chunked(name: str, body: bytes, expected: str = REFUSED, nginx: str = "") -> Vector:
    """A chunked body."""
    return post(name, b"Transfer-Encoding: chunked", body, expected, nginx)


def coding(name: str, value: bytes, expected: str = REFUSED, nginx: str = "") -> Vector:
    """An odd Transfer-Encoding before a chunked body that would hide a request from a reader
    who takes it for no Transfer-Encoding."""
    body = b"0\r\n\r\n" + HIDDEN
    return post(name, b"Transfer-Encoding:" + value, body, expected, nginx)
