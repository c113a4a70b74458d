"""``proxy_pass``: a request of ours becomes a request to an upstream, its answer ours."""

from __future__ import annotations

import re
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from imagefarm.config.errors import ConfigurationError, Invalid, Problem
from imagefarm.config.variables import Template
from imagefarm.http.headers import Headers
from imagefarm.http.lookup import OF_BYTES, Stability, stability_of
from imagefarm.http.message import BodyStream, Request, RequestHead, Response
from imagefarm.http.relays import Route
from imagefarm.http.requestid import REQUEST_ID
from imagefarm.http.requestlog import printable, report
from imagefarm.http.spool import SpooledBody, spool
from imagefarm.http.upstream import (
    ExchangeRules,
    Outgoing,
    UnknownHost,
    UpstreamGroup,
)
from imagefarm.http.upstream_answer import Presenter, Rewrite, failure_response
from imagefarm.http.upstream_rows import exchange_rules

from .connection import HttpConnector
from .group import Group
from .groups import Groups
from .hints import EarlyHints
from .redirect import rewrite_location, rewrite_refresh
from .request_writer import request_head
from .settings import ProxySettings
from .target import Target
from .tls import MAX_CLIENTS, TlsClients
from .tls_client import TlsClient
from .variables import name_target

#: Fields of the client's request that are never passed on: those that speak of its connection
#: (RFC 9110 section 7.6.1), and those that we derive.
_NOT_PASSED: Final = frozenset({
    b"connection", b"content-length", b"expect", b"host", b"keep-alive", b"proxy-connection",
    b"te", b"trailer", b"transfer-encoding", b"upgrade",
})  # fmt: skip
#: Fields that ``proxy_set_header`` cannot set: the framing is the connection's business.
_NOT_SET: Final = frozenset({b"content-length", b"keep-alive", b"transfer-encoding"})
# A value with one of these would end the field (RFC 9110 section 5.5): variables hold what
# clients sent, decoded.
_BREAKS: Final = re.compile(rb"[\x00\r\n]")
_TOKEN: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")


class BadValue(ValueError):
    """A configured value came to something that must not stand in a request: 400."""


def _relayable(settings: ProxySettings) -> bool:
    """Whether requests go out alike but for their target, for one client and header block."""
    target = settings.target.target
    stable = {*OF_BYTES, Stability.ANSWER, Stability.CACHE, Stability.NAME} - {
        Stability.LINE, Stability.TARGET, Stability.PATH,
    }  # fmt: skip
    return (
        target is not None
        and target.scheme == "http"
        and not target.uri
        and settings.version == (1, 1)
        and settings.method is None
        and settings.set_body is None
        and not settings.early_hints
        and not settings.streaming.buffering.rate
        and (settings.bind is None or settings.bind.local is not None)
        and not any(_ends(name, template) for name, template in settings.set_headers)
        and all(
            isinstance(part, bytes) or stability_of(part) in stable
            for _, template in settings.set_headers
            for part in template.parts
        )
    )


def _ends(name: bytes, template: Template) -> bool:
    """Whether a field of ``proxy_set_header`` may end the connection."""
    value = template.constant
    return name.lower() == b"connection" and (value is None or b"close" in value.lower())


class ProxyPass:
    """The handler of a location with ``proxy_pass``. Raises `ConfigurationError`.

    ``groups`` are the configuration's; its reactor drives the connections.
    """

    def __init__(self, settings: ProxySettings, groups: Groups) -> None:
        self._settings = settings
        self._groups = groups
        self._http = self._rules("http")
        self._https: dict[TlsClient, ExchangeRules] = {}
        self._relayable = _relayable(settings)
        self._set_names = frozenset(name.lower() for name, _ in settings.set_headers)
        rewrites: dict[bytes, Rewrite] = {}
        if settings.redirects:
            rewrites = dict.fromkeys((b"location", b"refresh"), self._redirected)
        if settings.cookies:
            rewrites[b"set-cookie"] = self._cookie
        self._presenter = Presenter(settings, groups.reactor, rewrites)
        self._group: Group | None = None
        target = settings.target.target
        self._tls: TlsClients | None = None
        try:
            if target is None or target.scheme == "https":
                self._tls = TlsClients(settings.tls)
            if target is not None:
                self._group = groups.find(target.authority, target.default_port)
        except Invalid as error:
            place = settings.target
            raise ConfigurationError([Problem(str(error), place.file, place.line)]) from None

    @property
    def group(self) -> Group | None:
        """Where requests go; None where variables say it for each."""
        return self._group

    @property
    def steady(self) -> bool:
        """Whether all requests go to one place."""
        return self._group is not None

    def again(self, response: Response, request: Request) -> None:
        """`Presenter.again`."""
        self._presenter.again(response, request)

    def announce(self, request: Request) -> None:
        """Set ``$proxy_host`` and ``$proxy_port``, for the key of a cache before us."""
        try:
            name_target(request, self._settings.target(request))
        except Invalid:
            pass  # for the request itself to meet, if it is passed on

    def __call__(self, request: Request) -> Response | Deferred[Response]:
        """`http.message.Handler`."""
        settings = self._settings
        request.outcome.patient = settings.streaming.ignore_client_abort
        body = self._body(request)
        if body is None or not self._spools(body):
            return self._ask(body, request)
        asking: Deferred[Response] = spool(body, request, settings.streaming.spooling).addCallback(
            self._ask, request
        )
        return asking.addErrback(failure_response, request)

    def _ask(self, body: BodyStream | None, request: Request) -> Response | Deferred[Response]:
        settings = self._settings
        if settings.set_body is not None:
            body = SpooledBody(settings.set_body(request))
        try:
            target = settings.target(request)
            group: UpstreamGroup | Deferred[Group] | None = self._group
            if group is None:
                group = self._groups.dynamic(
                    target.authority, target.default_port, settings.resolver
                )
        except (Invalid, UnknownHost):
            return failure_response(Failure(), request)
        if isinstance(group, Deferred):
            if not settings.streaming.ignore_client_abort:
                request.on_gone.append(group.cancel)
            passing: Deferred[Response] = group.addCallback(self._pass, request, target, body)
            return passing.addErrback(failure_response, request)
        return self._pass(group, request, target, body)

    def _pass(
        self, group: UpstreamGroup, request: Request, target: Target, body: BodyStream | None
    ) -> Response | Deferred[Response]:
        name_target(request, target)
        try:
            outgoing = self._outgoing(request, target, body)
            rules = self._http if target.scheme == "http" else self._secure(request, target)
        except BadValue as error:
            report(request, "error", str(error))
            return Response(400)
        except Invalid as error:
            report(request, "error", str(error))
            return Response(500)
        if request.relayable and self._relayable and outgoing.body is None:
            request.route = self._route(group, request, outgoing, rules)
        answering = group.exchange(request, outgoing, rules)
        return answering.addCallbacks(
            self._presenter.present,
            failure_response,
            callbackArgs=(request,),
            errbackArgs=(request,),
        )

    def probe(self, request: Request) -> tuple[Outgoing, ExchangeRules]:
        """`http.upstream.Probeable`: asks for what ``request`` asks, as it is."""
        target = self._settings.target(request)
        name_target(request, target)
        head = request.head
        headers = self._headers(request, target, upgrade=False)
        outgoing = Outgoing(head.method, head.target, headers, version=self._settings.version)
        secure = target.scheme == "https"
        return outgoing, self._secure(request, target) if secure else self._http

    @staticmethod
    def _route(
        group: UpstreamGroup, request: Request, outgoing: Outgoing, rules: ExchangeRules
    ) -> Route | None:
        """How the next request like this may be sent on (`http.relays`)."""
        if not isinstance(group, Group) or group.policy.keyed or outgoing.upgrade:
            return None
        if outgoing.method != b"GET" or outgoing.target != request.head.target:
            return None
        head = request_head(outgoing)
        connector: Any = rules.connection
        head = head[head.index(b"\r\n") :]
        name = request.variables.get(REQUEST_ID)
        if name is not None and name in b" ".join(value for _, value in request.head.headers):
            return None  # what the client has said is not ours to cut
        cut = (head,) if name is None else tuple(head.split(name))
        return Route(group, rules, cut, connector.max_head)

    # -- the request to the upstream -----------------------------------------------------------

    def _rules(self, scheme: str, tls: TlsClient | None = None) -> ExchangeRules:
        settings = self._settings
        connector = HttpConnector(self._groups.reactor, settings.buffer_size, tls)
        return exchange_rules(settings, connector, scheme, tls)

    def _secure(self, request: Request, target: Target) -> ExchangeRules:
        """The rules for ``https://``. Raises `Invalid` for files that can't be used."""
        assert self._tls is not None
        client = self._tls.find(request, target.host_header)
        rules = self._https.get(client)
        if rules is None:
            if len(self._https) >= MAX_CLIENTS:
                self._https.clear()
            rules = self._https[client] = self._rules("https", client)
        return rules

    def _outgoing(self, request: Request, target: Target, body: BodyStream | None) -> Outgoing:
        settings = self._settings
        method = request.head.method
        if settings.method is not None:
            method = settings.method(request)
            if not _TOKEN.fullmatch(method):
                raise BadValue(f'invalid method "{printable(method)}"')
        path = settings.uri(request, target)
        upgrade = settings.version >= (1, 1) and asks_for_upgrade(request.head)
        headers = self._headers(request, target, upgrade)
        return Outgoing(
            method,
            path,
            headers,
            body=body,
            upgrade=upgrade and b"upgrade" in headers,
            trailers=settings.pass_trailers and takes_trailers(request.head),
            hinted=EarlyHints.of(request, settings),
            version=settings.version,
        )

    def _headers(self, request: Request, target: Target, upgrade: bool) -> Headers:
        fields: list[tuple[bytes, bytes]] = []
        host = b"host" in self._set_names
        for name, template in self._settings.set_headers:
            value = template(request)
            lower = name.lower()
            if not value and lower == b"host":
                # RFC 9112 section 3.2: HTTP/1.1 has to have one, and $host may well be empty.
                host = self._settings.version < (1, 1)
            if not value or lower in _NOT_SET:
                continue
            if not upgrade and (
                lower == b"upgrade" or (lower == b"connection" and b"upgrade" in value.lower())
            ):
                continue  # the client could not follow a change of protocol
            if template.constant is None and _BREAKS.search(value):
                raise BadValue(f'invalid value of "{printable(name)}"')
            fields.append((name, value))
        if not host:
            fields.insert(0, (b"Host", target.host_header))
        if self._settings.pass_request_headers:
            dropped = _NOT_PASSED | self._set_names
            headers = request.head.headers
            connection = headers.get(b"connection")
            if connection is not None:
                dropped |= {option.strip(b" \t") for option in connection.lower().split(b",")}
            fields += [field for field in headers if field[0].lower() not in dropped]
        else:
            own = request.validators
            fields += [field for field in own if field[0].lower() not in self._set_names]
        return Headers(fields)

    def _body(self, request: Request) -> BodyStream | None:
        """What the client has sent, if it is to be passed on, or may be named ($request_body)."""
        settings = self._settings
        if settings.set_body is None:
            wanted = settings.pass_request_body
        else:
            wanted = settings.set_body.constant is None
        if not wanted:
            return None
        headers = request.head.headers
        if b"content-length" in headers or b"transfer-encoding" in headers:
            return request.body
        return None

    def _spools(self, body: BodyStream) -> bool:
        """Whether the body is read whole first: asked for, or HTTP/1.0 needs its length, or
        another one is made of it.
        """
        if isinstance(body, SpooledBody):
            return False
        if self._settings.set_body is not None:
            return True
        chunked = body.length is None
        enabled = self._settings.streaming.spooling.enabled
        return enabled or (chunked and self._settings.version < (1, 1))

    # -- its answer ----------------------------------------------------------------------------

    def _redirected(self, request: Request, name: bytes, value: bytes) -> bytes:
        rewrite = rewrite_location if name == b"location" else rewrite_refresh
        new = rewrite(self._settings.redirects, request, value)
        return value if new is None or _BREAKS.search(new) else new

    def _cookie(self, request: Request, name: bytes, value: bytes) -> bytes:
        new = self._settings.cookies.rewrite(request, value)
        return value if _BREAKS.search(new) else new

    def __repr__(self) -> str:
        return f"<ProxyPass {self._settings.target.template.source}>"


def asks_for_upgrade(head: RequestHead) -> bool:
    """Whether the client would change the protocol (RFC 9110 section 7.8)."""
    return (
        b"upgrade" in head.headers
        and head.version >= (1, 1)
        and (b"upgrade" in _options(head, b"connection"))
    )


def takes_trailers(head: RequestHead) -> bool:
    """Whether the client wants trailer fields (RFC 9110 section 10.1.4)."""
    return b"trailers" in _options(head, b"te")


def _options(head: RequestHead, name: bytes) -> list[bytes]:
    value = head.headers.get(name)
    return [] if value is None else [option.strip(b" \t") for option in value.lower().split(b",")]
