"""Names of hosts, with or without an asterisk at one end, as `server_name` and `map` have them.

A name is found exactly, else by the longest wildcard that starts with an asterisk, else by the
longest that ends with one (https://nginx.org/en/docs/http/server_names.html).
"""

from __future__ import annotations

from typing import Generic, TypeVar

T = TypeVar("T")


class HostNames(Generic[T]):
    """Things by the names of hosts, all in lower case."""

    def __init__(self) -> None:
        self._exact: dict[bytes, T] = {}
        self._leading: dict[bytes, T] = {}  # b".example.com"
        self._trailing: dict[bytes, T] = {}  # b"mail."

    def add(self, name: bytes, item: T, *, wildcards: bool = True) -> bool:
        """False if the name is taken. Without ``wildcards`` an asterisk is one."""
        if not wildcards:
            places = [(self._exact, name)]
        elif name.startswith(b"*."):
            places = [(self._leading, name[1:])]
        elif name.startswith(b".") and len(name) > 1:
            places = [(self._exact, name[1:]), (self._leading, name)]
        elif name.endswith(b".*"):
            places = [(self._trailing, name[:-1])]
        else:
            places = [(self._exact, name)]
        if any(key in known for known, key in places):
            return False
        for known, key in places:
            known[key] = item
        return True

    def find(self, host: bytes) -> T | None:
        """What there is for ``host``."""
        found = self._exact.get(host)
        if found is not None:
            return found
        if self._leading:
            at = host.find(b".")
            while at >= 0:  # from the longest suffix to the shortest
                if (found := self._leading.get(host[at:])) is not None:
                    return found
                at = host.find(b".", at + 1)
        if self._trailing:
            at = host.rfind(b".")
            while at >= 0:
                if (found := self._trailing.get(host[: at + 1])) is not None:
                    return found
                at = host.rfind(b".", 0, at)
        return None
