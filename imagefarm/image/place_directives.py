"""The directives of dialects, presets and signatures, in ``resizer { }`` and its locations."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from imagefarm.config.ast import Directive
from imagefarm.config.errors import Invalid
from imagefarm.config.table import AnyRow, BlockRow, Environment, ListRow, Row, Scope
from imagefarm.config.values import choice, flag, number

from .errors import BadRecipe
from .limits import Limits
from .places import Confined, Dialect, Keys, Place, Places, Signature, Unsigned
from .query import pairs, recipe_of
from .signing import MIN_SECRET

#: The context of the block, and that of the locations inside it.
RESIZER: Final = "resizer"
LOCATION: Final = "resizer location"
_BOTH = frozenset({RESIZER, LOCATION})
#: A URL is held to the limits; a preset need not know them.
_ANY = Limits(max_width=999_999_999, max_height=999_999_999)
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_SIZE = re.compile(r"([0-9]{1,6})x([0-9]{1,6})")


def _prefix(directive: Directive, env: Environment) -> bytes:
    prefix = directive.args[0]
    if not re.fullmatch(r"/[A-Za-z0-9._~/-]*", prefix) or "//" in prefix or "/." in prefix:
        raise Invalid(f'invalid location "{prefix}": letters, digits and "._~-" after slashes')
    return prefix.encode("ascii")


def _preset(directive: Directive, env: Environment) -> tuple[str, Mapping[str, bytes]]:
    name, query = directive.args
    if not _NAME.fullmatch(name):
        raise Invalid(f'invalid preset name "{name}"')
    try:
        values = pairs(query.encode("utf-8"))
        if "src" in values:
            raise Invalid(f'preset "{name}" must not have a src')
        recipe_of({"src": b"/", **values}, _ANY)
    except BadRecipe as error:
        raise Invalid(f'preset "{name}": {error.reason}') from None
    return name, values


def _pixels(directive: Directive, env: Environment) -> int:
    value = number(directive, env)
    if value < 1:
        raise Invalid(f'"{directive.name}" must be at least 1')
    return value


def _sizes(directive: Directive, env: Environment) -> tuple[tuple[int, int], ...]:
    sizes = []
    for word in directive.args:
        match = _SIZE.fullmatch(word)
        if match is None:
            raise Invalid(f'invalid size "{word}": it must be WxH, 0 for a side that is not given')
        sizes.append((int(match[1]), int(match[2])))
    return tuple(sizes)


def _secret(directive: Directive, env: Environment) -> bytes:
    secret = directive.args[0].encode("utf-8")
    if len(secret) < MIN_SECRET:
        raise Invalid(f'"{directive.name}" must have at least {MIN_SECRET} bytes')
    return secret


def _some(directive: Directive, env: Environment) -> bytes:
    if not directive.args[0]:
        raise Invalid(f'"{directive.name}" must not be empty')
    return directive.args[0].encode("utf-8")


def _hex_pair(directive: Directive, env: Environment) -> tuple[bytes, bytes]:
    try:
        key, salt = (bytes.fromhex(word) for word in directive.args)
    except ValueError:
        raise Invalid(f'"{directive.name}" takes key and salt in hex') from None
    if not key:
        raise Invalid(f'"{directive.name}" must not be empty')
    return key, salt


PLACE: BlockRow[bytes] = BlockRow(
    name="location",
    contexts=frozenset({RESIZER}),
    opens=LOCATION,
    arity=(1, 1),
    convert=_prefix,
    syntax="prefix { ... }",
    doc="Settings for the paths that begin with prefix, which REQUEST_URI must have in front, as "
    "it is. The longest prefix counts. Without any location, the block's own settings are those "
    "of all paths.",
)
DIALECT: Row[Dialect] = Row(
    name="dialect",
    contexts=frozenset({LOCATION}),
    convert=choice({one.value: one for one in Dialect}),
    default=Dialect.QUERY,
    syntax="query | iiif | thumbor | imgproxy",
    doc="The form of the URLs, see [dialects.md](dialects.md).",
    inherits=False,
)
PRESET: ListRow[tuple[str, Mapping[str, bytes]]] = ListRow(
    name="preset",
    contexts=frozenset({RESIZER}),
    arity=(2, 2),
    convert=_preset,
    default=(),
    syntax="name parameters",
    doc='Parameters that URLs name with preset=NAME, as in `preset thumb "w=320&h=240&fit=cover"`.'
    " What a URL says itself counts more.",
)
PRESETS_ONLY: Row[bool] = Row(
    name="presets_only",
    contexts=_BOTH,
    convert=flag,
    default=False,
    syntax="on | off",
    doc="Whether a URL may say nothing but its source and a preset. For the dialects query and "
    "imgproxy.",
)
SIGNATURE: Row[Signature] = Row(
    name="signature",
    contexts=_BOTH,
    convert=choice({one.value: one for one in Signature}),
    default=Signature.OFF,
    syntax="off | optional | required",
    doc="Whether URLs are signed: with required, others get 403; with optional, the limits "
    "without signature bind them. Not for the dialect iiif.",
)
SIGNING_KEY: ListRow[bytes] = ListRow(
    name="signing_key",
    contexts=_BOTH,
    convert=_secret,
    default=(),
    syntax="secret",
    doc="A key for the signatures of the query form, at least 16 bytes. May be repeated: all "
    "count, and `imagefarm sign` takes the first.",
)
THUMBOR_KEY: ListRow[bytes] = ListRow(
    name="thumbor_key",
    contexts=_BOTH,
    convert=_some,
    default=(),
    syntax="key",
    doc="thumbor's SECURITY_KEY. May be repeated.",
)
IMGPROXY_KEY: ListRow[tuple[bytes, bytes]] = ListRow(
    name="imgproxy_key",
    contexts=_BOTH,
    arity=(2, 2),
    convert=_hex_pair,
    default=(),
    syntax="key salt",
    doc="imgproxy's IMGPROXY_KEY and IMGPROXY_SALT, both in hex. May be repeated.",
)
MAX_WIDTH: Row[int | None] = Row(
    name="unsigned_max_width",
    contexts=_BOTH,
    convert=_pixels,
    default=None,
    syntax="pixels",
    doc="The widest picture that is made without a signature; 403 above it. In info.json it is "
    "maxWidth.",
)
MAX_HEIGHT: Row[int | None] = Row(
    name="unsigned_max_height",
    contexts=_BOTH,
    convert=_pixels,
    default=None,
    syntax="pixels",
    doc="The highest, likewise.",
)
SIZES: Row[tuple[tuple[int, int], ...]] = Row(
    name="unsigned_sizes",
    contexts=_BOTH,
    arity=(1, None),
    convert=_sizes,
    default=(),
    syntax="WxH ...",
    doc="The only sizes that may be asked for without a signature, 0 for a side that is not "
    "given: `unsigned_sizes 320x0 640x480;`.",
)
CONFINED: Row[Confined] = Row(
    name="iiif_confined",
    contexts=_BOTH,
    convert=choice({one.value: one for one in Confined}),
    default=Confined.STRICT,
    syntax="strict | fit",
    doc="What IIIF's !w,h gets where the box is larger than the region: 400, as the public "
    "validator wants it, or the region as it is, as the specification says.",
)

PLACE_DIRECTIVES: tuple[AnyRow, ...] = (
    PLACE, DIALECT, PRESET, PRESETS_ONLY, SIGNATURE, SIGNING_KEY, THUMBOR_KEY, IMGPROXY_KEY,
    MAX_WIDTH, MAX_HEIGHT, SIZES, CONFINED,
)  # fmt: skip

_KEY_NAMES = {
    Dialect.QUERY: SIGNING_KEY.name,
    Dialect.THUMBOR: THUMBOR_KEY.name,
    Dialect.IMGPROXY: IMGPROXY_KEY.name,
}


def read_places(inside: Scope) -> Places:
    """The locations of a ``resizer`` block. Raises `Invalid` for what doesn't go together."""
    names: list[Any] = [scope.value for scope in inside.blocks(PLACE)]
    for prefix in names:
        if names.count(prefix) > 1:
            raise Invalid(f'duplicate location "{prefix.decode()}"')
    places = [_place(scope, scope.value) for scope in inside.blocks(PLACE)]
    return Places(_place(inside, b""), places)


def _place(scope: Scope, prefix: bytes) -> Place:
    place = Place(
        prefix=prefix,
        dialect=scope[DIALECT],
        signature=scope[SIGNATURE],
        keys=Keys(scope.all(SIGNING_KEY), scope.all(THUMBOR_KEY), scope.all(IMGPROXY_KEY)),
        unsigned=Unsigned(scope[MAX_WIDTH], scope[MAX_HEIGHT], scope[SIZES]),
        presets=dict(scope.all(PRESET)),
        presets_only=scope[PRESETS_ONLY],
        confined=scope[CONFINED],
    )
    word, where = place.dialect.value, prefix.decode() or "/"
    if place.dialect is Dialect.IIIF and place.signature is not Signature.OFF:
        raise Invalid(f'"signature" is not for the dialect iiif, in location "{where}"')
    if place.signature is not Signature.OFF and not place.keys.of(place.dialect):
        raise Invalid(f'"signature" needs a "{_KEY_NAMES[place.dialect]}" in location "{where}"')
    if place.presets_only and place.dialect in (Dialect.IIIF, Dialect.THUMBOR):
        raise Invalid(f'"presets_only" is not for the dialect {word}, in location "{where}"')
    if place.presets_only and not place.presets:
        raise Invalid(f'"presets_only" needs a "preset", in location "{where}"')
    return place
