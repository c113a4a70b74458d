"""MIME types: the ``types`` block and ``default_type``."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from attrs import field, frozen

from imagefarm.config.ast import Directive
from imagefarm.config.errors import Invalid
from imagefarm.config.table import HSL, AnyRow, BlockRow, Environment, Ignored, Row, Scope
from imagefarm.config.variables import encode

#: What nginx knows where no ``types`` block is given.
BUILT_IN: Final[Mapping[bytes, bytes]] = MappingProxyType(
    {b"html": b"text/html", b"gif": b"image/gif", b"jpg": b"image/jpeg"}
)


def _types(directive: Directive, env: Environment) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = {}
    for line in directive.block or ():
        if line.block is not None:
            raise Invalid(f'unexpected "{{" after "{line.name}" in "types"')
        for extension in line.args:
            key = encode(extension.lower())
            if key in found:
                env.warn(
                    f'duplicate extension "{extension}", content type: "{line.name}", '
                    f'previous content type: "{found[key].decode("utf-8", "replace")}"'
                )
            found[key] = encode(line.name)
    return found


def _default_type(directive: Directive, env: Environment) -> bytes:
    return encode(directive.args[0])


TYPES: Final = BlockRow[dict[bytes, bytes]](
    name="types",
    contexts=HSL,
    free=True,
    convert=_types,
    syntax="{ type extension ...; ... }",
    doc="Maps file name extensions to MIME types. An inner block replaces the outer ones.",
)
DEFAULT_TYPE: Final = Row[bytes](
    name="default_type",
    default_text="text/plain",
    contexts=HSL,
    convert=_default_type,
    default=b"text/plain",
    syntax="mime-type",
    doc="The MIME type of files whose extension is not in ``types``.",
)
_HASH: Final = "extensions are kept in a dictionary that sizes itself"

DIRECTIVES: Final[tuple[AnyRow, ...]] = (
    TYPES,
    DEFAULT_TYPE,
    Ignored(name="types_hash_max_size", contexts=HSL, why=_HASH),
    Ignored(name="types_hash_bucket_size", contexts=HSL, why=_HASH),
)


@frozen
class MimeTypes:
    """The types in force in a location."""

    by_extension: Mapping[bytes, bytes] = field(default=BUILT_IN, repr=False)
    default: bytes = b"text/plain"

    def lookup(self, path: bytes) -> bytes:
        """The type of the file ``path`` (or URI) by its extension, in any case."""
        return self.by_extension.get(extension(path), self.default)

    @classmethod
    def from_scope(cls, scope: Scope) -> MimeTypes:
        """The types of the nearest block that has any; several in one block add up."""
        default = scope[DEFAULT_TYPE]
        outer: Scope | None = scope
        while outer is not None:
            blocks = outer.blocks(TYPES)
            if blocks:
                merged: dict[bytes, bytes] = {}
                for block in blocks:
                    merged.update(block.value)
                return cls(MappingProxyType(merged), default)
            outer = outer.parent
        return cls(BUILT_IN, default)


def extension(path: bytes) -> bytes:
    """What follows the last "." of the last segment, in lower case; empty without one."""
    _, dot, ending = path.rpartition(b"/")[2].rpartition(b".")
    return ending.lower() if dot else b""
