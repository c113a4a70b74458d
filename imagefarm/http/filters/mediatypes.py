"""Sets of MIME types as directives take them (``gzip_types``, ``charset_types``)."""

from __future__ import annotations

from imagefarm.config.ast import Directive
from imagefarm.config.table import Convert, Environment
from imagefarm.config.variables import encode

MediaTypes = frozenset[bytes]


def media_types(*always: bytes) -> Convert[MediaTypes]:
    """A converter for lists of types, to which ``always`` are added. ``*`` stands for any."""

    def convert(directive: Directive, env: Environment) -> MediaTypes:
        found = set(always)
        for word in directive.args:
            name = encode(word.lower())
            if name in found:
                env.warn(f'duplicate MIME type "{word}"')
            found.add(name)
        return frozenset(found)

    return convert


def media_type(content_type: bytes) -> bytes:
    """The type in a Content-Type, without parameters, in lower case."""
    return content_type.partition(b";")[0].rstrip(b" \t").lower()
