"""The directives of the FastCGI client (ngx_http_fastcgi_module) and what they become."""

from __future__ import annotations

import re
from functools import cached_property
from typing import Final

from attrs import frozen

from imagefarm.config import values
from imagefarm.config.ast import Directive
from imagefarm.config.errors import Invalid
from imagefarm.config.regex import compile_pattern
from imagefarm.config.table import (
    HSL,
    LOCATION,
    LOCATION_IF,
    AnyRow,
    Environment,
    ListRow,
    Row,
    Scope,
)
from imagefarm.config.variables import Template, encode
from imagefarm.http.upstream_rows import (
    ACCEL,
    UpstreamSettings,
    common_settings,
    upstream_rows,
)

#: Fields that are not passed to the client by default.
HIDDEN: Final = ACCEL | {b"status"}

#: The rows that ``proxy_pass`` has as well.
COMMON: Final = upstream_rows(
    "fastcgi",
    ("error", "timeout", "invalid_header", "http_500", "http_503", "http_403", "http_404",
     "http_429", "non_idempotent"),
)  # fmt: skip


@frozen
class Param:
    """One ``fastcgi_param``."""

    name: bytes
    value: Template
    if_not_empty: bool = False


def _param(directive: Directive, env: Environment) -> Param:
    name, value, *flags = directive.args
    if flags and flags != ["if_not_empty"]:
        raise Invalid(f'invalid parameter "{flags[0]}"')
    return Param(encode(name), env.template(value), bool(flags))


def _text(directive: Directive, env: Environment) -> bytes:
    return encode(directive.args[0])


def _pattern(directive: Directive, env: Environment) -> re.Pattern[bytes]:
    text = directive.args[0]
    pattern = compile_pattern(text)
    if pattern.groups < 2:
        raise Invalid(f'pattern "{text}" must have 2 captures')
    return pattern


PASS: Final[Row[Template | None]] = Row(
    name="fastcgi_pass",
    contexts=frozenset({LOCATION, LOCATION_IF}),
    convert=values.template,
    default=None,
    inherits=False,
    syntax="address",
    doc="Passes requests to a FastCGI application: ``host:port``, ``unix:/path`` or the name of "
    "an ``upstream`` block. May contain variables.",
)
INDEX: Final[Row[str]] = Row(
    name="fastcgi_index",
    contexts=HSL,
    convert=values.text,
    default="",
    syntax="name",
    doc="The file name that ``$fastcgi_script_name`` gets where the URI ends with a slash.",
)
PARAM: Final[ListRow[Param]] = ListRow(
    name="fastcgi_param",
    contexts=HSL | {LOCATION_IF},
    arity=(2, 3),
    convert=_param,
    syntax="parameter value [if_not_empty]",
    doc="A parameter for the application. With ``if_not_empty`` it is sent only if its value is "
    "not empty. A name that begins with ``HTTP_`` takes the place of that request header.",
)
SPLIT_PATH_INFO: Final[Row[re.Pattern[bytes] | None]] = Row(
    name="fastcgi_split_path_info",
    contexts=HSL,
    convert=_pattern,
    default=None,
    syntax="regex",
    doc="A regular expression whose first capture becomes ``$fastcgi_script_name`` and whose "
    "second one becomes ``$fastcgi_path_info``.",
)
CATCH_STDERR: Final = ListRow[bytes](
    name="fastcgi_catch_stderr",
    contexts=HSL,
    convert=_text,
    syntax="string",
    doc="A text that makes an answer invalid if it is found in what the application writes to its "
    "standard error output before the answer's header is complete.",
)
KEEP_CONN: Final = Row[bool](
    name="fastcgi_keep_conn",
    contexts=HSL,
    convert=values.flag,
    default=False,
    syntax="on | off",
    doc="Asks the application to leave the connection open, so that ``keepalive`` can use it "
    "again.",
)

DIRECTIVES: Final[tuple[AnyRow, ...]] = (
    PASS,
    INDEX,
    PARAM,
    SPLIT_PATH_INFO,
    CATCH_STDERR,
    KEEP_CONN,
    *COMMON.every,
)


@frozen(eq=False, kw_only=True)
class FastCGISettings(UpstreamSettings):
    """What the directives say in one location; names are theirs.

    ``address`` is None where there is no ``fastcgi_pass``.
    """

    address: Template | None = None
    index: bytes = b""
    split_path_info: re.Pattern[bytes] | None = None
    params: tuple[Param, ...] = ()
    keep_conn: bool = False
    catch_stderr: tuple[bytes, ...] = ()
    hidden: frozenset[bytes] = HIDDEN

    @cached_property
    def taken(self) -> frozenset[bytes]:
        """The names of parameters that no header field may have."""
        return frozenset(param.name.upper() for param in self.params)

    @classmethod
    def from_scope(cls, scope: Scope, prefix: str = "") -> FastCGISettings:
        """The settings in force in ``scope``. Raises `ConfigurationError`.

        Temporary files are in the directory ``prefix`` by default.
        """
        return cls(
            address=scope[PASS],
            index=encode(scope[INDEX]),
            split_path_info=scope[SPLIT_PATH_INFO],
            params=scope.all(PARAM),
            keep_conn=scope[KEEP_CONN],
            catch_stderr=scope.all(CATCH_STDERR),
            **common_settings(COMMON, scope, HIDDEN, prefix),
        )
