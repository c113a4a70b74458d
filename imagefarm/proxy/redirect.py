"""``proxy_redirect``: the upstream's ``Location`` and ``Refresh`` in terms of our own URLs."""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import Enum
from typing import Final

from attrs import frozen

from imagefarm.config.ast import Directive
from imagefarm.config.errors import Invalid
from imagefarm.config.regex import compile_pattern, names
from imagefarm.config.table import Environment
from imagefarm.config.variables import Template
from imagefarm.http.captures import remember
from imagefarm.http.message import Request

_REFRESH: Final = re.compile(rb"(.*?url=)(.*)", re.IGNORECASE | re.DOTALL)


class Special(Enum):
    """The words that ``proxy_redirect`` takes instead of a pair."""

    OFF = "off"
    DEFAULT = "default"


@frozen
class PrefixRedirect:
    """A text that begins with ``prefix`` gets ``replacement`` in its place."""

    prefix: Template
    replacement: Template

    def rewrite(self, request: Request, value: bytes) -> bytes | None:
        """The new value, or None if this rule does not apply."""
        prefix = self.prefix(request)
        if not value.startswith(prefix):
            return None
        return self.replacement(request) + value[len(prefix) :]


@frozen
class RegexRedirect:
    """A text that matches ``pattern`` is replaced whole; captures are for ``replacement``."""

    pattern: re.Pattern[bytes]
    replacement: Template

    def rewrite(self, request: Request, value: bytes) -> bytes | None:
        """The new value, or None if this rule does not apply."""
        match = self.pattern.search(value)
        if match is None:
            return None
        remember(request, match)
        return self.replacement(request)


Redirect = PrefixRedirect | RegexRedirect


def convert_rewrite(directive: Directive, env: Environment) -> Redirect:
    """A line with a prefix or a regular expression and its replacement."""
    text, replacement = directive.args
    pattern = regex_of(text)
    if pattern is None:
        return PrefixRedirect(env.template(text), env.template(replacement))
    text, ignore_case = pattern
    return RegexRedirect(compile_pattern(text, ignore_case=ignore_case), env.template(replacement))


def convert_redirect(directive: Directive, env: Environment) -> Special | Redirect:
    """One ``proxy_redirect`` line."""
    args = directive.args
    if len(args) == 1:
        try:
            return Special(args[0])
        except ValueError:
            raise Invalid(f'invalid parameter "{args[0]}"') from None
    return convert_rewrite(directive, env)


def regex_of(text: str) -> tuple[str, bool] | None:
    """The pattern after "~" or "~*", and whether case is ignored."""
    if not text.startswith("~"):
        return None
    return (text[2:], True) if text.startswith("~*") else (text[1:], False)


def captures(directive: Directive) -> Iterable[str]:
    """The variables that a regular expression in the line defines."""
    pattern = regex_of(directive.args[0])
    return names(pattern[0]) if pattern is not None else ()


def rewrite_location(
    redirects: tuple[Redirect, ...], request: Request, value: bytes
) -> bytes | None:
    """``Location`` after the first rule that applies, or None if none does."""
    for redirect in redirects:
        new = redirect.rewrite(request, value)
        if new is not None:
            return absolute(request, new) if new.startswith(b"/") else new
    return None


def rewrite_refresh(
    redirects: tuple[Redirect, ...], request: Request, value: bytes
) -> bytes | None:
    """``Refresh: 5; url=...`` after the first rule that applies, or None if none does."""
    match = _REFRESH.fullmatch(value)
    if match is None:
        return None
    for redirect in redirects:
        new = redirect.rewrite(request, match[2])
        if new is not None:
            return match[1] + new
    return None


def absolute(request: Request, path: bytes) -> bytes:
    """``path`` with the scheme, host and port that the client used."""
    tls = request.peer.tls is not None
    address, port = request.peer.server
    host = request.host or address.encode("ascii", "replace")
    if port and port != (443 if tls else 80):
        host += b":%d" % port
    return (b"https://" if tls else b"http://") + host + path
