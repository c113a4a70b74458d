"""Values with ``$variables``, compiled once to callables."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from attrs import field, frozen

from .errors import Invalid

#: Reads one variable of a request. An unset variable is the empty value, as in nginx.
Getter = Callable[[Any], bytes]

#: A name in braces, with or without the closing one; a capture; a plain name, maybe empty.
_VARIABLE = re.compile(
    r"\$(?:\{(?P<braced>\w*)(?P<end>\}?)|(?P<digit>[1-9])|(?P<plain>\w*))", re.ASCII
)


def encode(text: str) -> bytes:
    """Configuration text as it stood in the file."""
    return text.encode("utf-8", "surrogateescape")


def _none(name: str) -> None:
    return None


@frozen
class Template:
    """A compiled value. Call it with a request for its bytes; ``constant`` if it needs none."""

    source: str
    parts: tuple[bytes | Getter, ...] = field(repr=False)
    constant: bytes | None
    #: The variable, where the value is one and nothing else, as most of ``fastcgi_param`` are.
    _alone: Getter | None = field(init=False, repr=False, eq=False)

    @_alone.default
    def _only_part(self) -> Getter | None:
        return next(
            (p for p in self.parts if not isinstance(p, bytes) and len(self.parts) == 1), None
        )

    def __call__(self, request: Any) -> bytes:
        """The value for ``request``."""
        if self.constant is not None:
            return self.constant
        if self._alone is not None:
            return self._alone(request)
        return b"".join([p if isinstance(p, bytes) else p(request) for p in self.parts])


@frozen
class VariableTable:
    """Which variables exist.

    ``exact`` maps names to getters; ``prefixes`` maps ``http_`` and its like to a function from
    the rest of the name to a getter; ``defined`` makes the getter of a name that the
    configuration itself defines (``set``, named captures). Digits are captures: ``captures``.
    """

    exact: Mapping[str, Getter]
    prefixes: Mapping[str, Callable[[str], Getter]]
    defined: Callable[[str], Getter]
    capture: Callable[[int], Getter]
    #: Like ``defined``, for what nothing but ``set`` defines: that is empty until then, not unset.
    assigned: Callable[[str], Getter] | None = None
    #: The names that were asked for.
    used: set[str] = field(factory=set, eq=False, repr=False)

    def getter(
        self,
        name: str,
        known: frozenset[str] = frozenset(),
        assigned: frozenset[str] = frozenset(),
        made: Callable[[str], Getter | None] = _none,
    ) -> Getter:
        """The getter of ``name``, in any case. Raises `Invalid` in nginx's words if there is none.

        ``known`` has the names that the configuration defines, in lower case, ``assigned`` those
        of them that nothing but ``set`` does; ``made`` gives the getters of those that it makes
        of others.
        """
        name = name.lower()
        self.used.add(name)
        if len(name) == 1 and name in "123456789":
            return self.capture(int(name))
        if name in self.exact:
            return self.exact[name]
        own = made(name)
        if own is not None:
            return own
        if name in known:
            make = self.assigned if name in assigned else None
            return (make or self.defined)(name)
        for prefix, make in self.prefixes.items():
            if name.startswith(prefix) and len(name) > len(prefix):
                return make(name[len(prefix) :])
        raise Invalid(f'unknown "{name}" variable')

    def compile(
        self,
        text: str,
        known: frozenset[str] = frozenset(),
        assigned: frozenset[str] = frozenset(),
        made: Callable[[str], Getter | None] = _none,
    ) -> Template:
        """Compile ``text``. Raises `Invalid` for an unknown or malformed variable."""
        parts: list[bytes | Getter] = []
        end = 0
        for match in _VARIABLE.finditer(text):
            if match.start() > end:
                parts.append(encode(text[end : match.start()]))
            parts.append(self._part(match, known, assigned, made))
            end = match.end()
        if end < len(text):
            parts.append(encode(text[end:]))
        constant = None
        if all(isinstance(part, bytes) for part in parts):
            constant = b"".join(part for part in parts if isinstance(part, bytes))
        return Template(text, tuple(parts), constant)

    def _part(
        self,
        match: re.Match[str],
        known: frozenset[str],
        assigned: frozenset[str],
        made: Callable[[str], Getter | None],
    ) -> Getter:
        if match["digit"]:
            return self.capture(int(match["digit"]))  # "$10" is $1 and a zero
        name: str = match["plain"] or match["braced"]
        if not name:
            raise Invalid("invalid variable name")
        if match["braced"] and not match["end"]:
            raise Invalid(f'the closing bracket in "{name}" variable is missing')
        if name[0].isdigit():
            raise Invalid(f'unknown "{name}" variable')
        return self.getter(name, known, assigned, made)
