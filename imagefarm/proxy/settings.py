"""What ``proxy_pass`` and its relatives come to in one location."""

from __future__ import annotations

from typing import Final

from attrs import field, frozen

from imagefarm.config.ast import Directive
from imagefarm.config.errors import ConfigurationError, Invalid, Problem
from imagefarm.config.table import LOCATION_IF, Scope
from imagefarm.config.variables import Template, encode
from imagefarm.http.lookup import Stability, Variable
from imagefarm.http.message import Request
from imagefarm.http.upstream_rows import ACCEL, UpstreamSettings, common_settings

from . import directives as d
from .cookies import CookieRules
from .names.directives import ResolverSettings
from .redirect import PrefixRedirect, Redirect, Special
from .target import Pass, Target, request_target
from .tls import TlsSettings

#: Fields of an upstream's answer that nginx never passes on by itself.
HIDDEN: Final = ACCEL | {b"date", b"server", b"x-pad"}
_NO_URI_HERE: Final = (
    '"proxy_pass" cannot have URI part in location given by regular expression, or inside named '
    'location, or inside "if" statement, or inside "limit_except" block'
)


@frozen(kw_only=True)
class ProxySettings(UpstreamSettings):
    """Everything that `ProxyPass` needs to know of a location.

    ``location`` is the prefix that ``proxy_pass``'s URI replaces.
    """

    target: Pass
    location: bytes = b""
    redirects: tuple[Redirect, ...] = ()
    set_headers: tuple[tuple[bytes, Template], ...] = field(default=(), repr=False)
    hidden: frozenset[bytes] = HIDDEN
    version: tuple[int, int] = (1, 1)
    method: Template | None = None
    set_body: Template | None = None
    pass_trailers: bool = False
    early_hints: tuple[Template, ...] = ()
    cookies: CookieRules = field(factory=CookieRules)
    resolver: ResolverSettings | None = None
    tls: TlsSettings = field(factory=TlsSettings)

    @classmethod
    def from_scope(cls, scope: Scope, prefix: str = "") -> ProxySettings | None:
        """The settings of a location or an ``if`` in one; None without ``proxy_pass``.

        Temporary files are in the directory ``prefix`` by default. Raises `ConfigurationError`.
        """
        target = scope[d.PROXY_PASS]
        location = None if scope.context == LOCATION_IF else location_prefix(scope.directive)
        if target is None and scope.context == LOCATION_IF and scope.parent is not None:
            # An "if" without a handler of its own has its location's.
            target = scope.parent[d.PROXY_PASS]
            location = location_prefix(scope.parent.directive)
        if target is None:
            return None
        if location is None and target.target is not None and target.target.uri:
            raise _problem(_NO_URI_HERE, target)
        return cls(
            target=target,
            location=location or b"",
            redirects=_redirects(scope, target, location or b""),
            set_headers=tuple((encode(n), value) for n, value in scope.all(d.PROXY_SET_HEADER)),
            version=scope[d.PROXY_HTTP_VERSION],
            method=scope[d.PROXY_METHOD],
            cookies=CookieRules.from_scope(scope),
            tls=TlsSettings.from_scope(scope),
            set_body=scope[d.PROXY_SET_BODY],
            pass_trailers=scope[d.PROXY_PASS_TRAILERS],
            early_hints=scope[d.EARLY_HINTS],
            **common_settings(d.COMMON, scope, HIDDEN, prefix),
            resolver=ResolverSettings.from_scope(scope),
        )

    def uri(self, request: Request, target: Target) -> bytes:
        """What is asked for at ``target``."""
        constant = self.target.target is not None
        return request_target(request, target, constant=constant, location=self.location)

    @property
    def url(self) -> Variable:
        """The URL that is asked for: under it an answer is cached, unless there is another key."""
        return Variable(self._url, Stability.TARGET)

    def _url(self, request: Request) -> bytes:
        try:
            target = self.target(request)
        except Invalid:
            return request.head.target  # it will not be passed on
        scheme = target.scheme.encode("ascii")
        return scheme + b"://" + target.host_header + self.uri(request, target)


def location_prefix(directive: Directive | None) -> bytes | None:
    """The literal prefix of a ``location`` line; None if it is named or a regular expression."""
    if directive is None or not directive.args:
        return None
    text = "".join(directive.args[:2])
    if text.startswith(("@", "~")):
        return None
    return encode(text.removeprefix("=").removeprefix("^~"))


def _problem(message: str, target: Pass) -> ConfigurationError:
    return ConfigurationError([Problem(message, target.file, target.line)])


def _redirects(scope: Scope, target: Pass, location: bytes) -> tuple[Redirect, ...]:
    rules = scope.all(d.PROXY_REDIRECT)
    if not rules:
        return () if target.target is None else (_default(target, location),)
    if Special.OFF in rules:
        return ()
    result: list[Redirect] = []
    for rule in rules:
        if not isinstance(rule, Special):
            result.append(rule)
        elif target.target is None:
            raise _problem(
                '"proxy_redirect default" cannot be used with "proxy_pass" directive '
                "with variables",
                target,
            )
        else:
            result.append(_default(target, location))
    return tuple(result)


def _default(target: Pass, location: bytes) -> PrefixRedirect:
    """``proxy_redirect default``: the URL of ``proxy_pass`` becomes the location."""
    known = target.target
    assert known is not None
    if known.uri:
        return PrefixRedirect(_constant(known.url + known.uri), _constant(location))
    return PrefixRedirect(_constant(known.url + b"/"), _constant(b"/"))


def _constant(text: bytes) -> Template:
    return Template(text.decode("utf-8", "surrogateescape"), (text,), text)
