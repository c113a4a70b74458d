"""Header fields: an ordered multimap of bytes (RFC 9110 section 5)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

#: The most bytes of an upstream's answer head, unless ``*_buffer_size`` says otherwise.
MAX_HEAD: Final = 8192


class Headers:
    """Field lines in the order received, looked up by lower-case name.

    Names keep the case they came with, so that a proxy passes them on unchanged. All look-ups
    take the name in lower case.
    """

    __slots__ = ("_fields",)

    def __init__(self, fields: Iterable[tuple[bytes, bytes]] = ()) -> None:
        self._fields: list[tuple[bytes, bytes]] = list(fields)

    def get(self, name: bytes) -> bytes | None:
        """The combined value (RFC 9110 section 5.2: joined with ", ", ``Cookie`` with "; ")."""
        values = [value for key, value in self._fields if key.lower() == name]
        if not values:
            return None
        if len(values) == 1:
            return values[0]
        return (b"; " if name == b"cookie" else b", ").join(values)

    def first(self, name: bytes) -> bytes | None:
        """The value of the first field line of that name."""
        for key, value in self._fields:
            if key.lower() == name:
                return value
        return None

    def getall(self, name: bytes) -> list[bytes]:
        """The values of all field lines of that name."""
        return [value for key, value in self._fields if key.lower() == name]

    def __contains__(self, name: bytes) -> bool:
        return any(key.lower() == name for key, _ in self._fields)

    def __iter__(self) -> Iterator[tuple[bytes, bytes]]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Headers) and self._fields == other._fields

    __hash__ = None  # type: ignore[assignment]

    def add(self, name: bytes, value: bytes) -> None:
        """Append a field line."""
        self._fields.append((name, value))

    def set(self, name: bytes, value: bytes) -> None:
        """Replace all field lines of that name (any case) by one."""
        self.remove(name.lower())
        self._fields.append((name, value))

    def remove(self, name: bytes) -> None:
        """Drop all field lines of that name."""
        self._fields = [field for field in self._fields if field[0].lower() != name]

    def copy(self) -> Headers:
        """An independent copy."""
        return Headers(self._fields)

    def __repr__(self) -> str:
        return f"Headers({self._fields!r})"
