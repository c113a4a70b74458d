"""What a request would meet, and why: the configuration's own tree, walked with a witness.

The dispatcher routes as it does for clients, rewrites and error pages included, and files are
looked at. Content that would come from elsewhere (an upstream, a cache, a resource) is told, not
asked for: nothing is sent, nothing is written, no socket is opened.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from ipaddress import ip_address
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit

from attrs import evolve, field, frozen
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from imagefarm.cache.directives import ROWS as CACHE_ROWS
from imagefarm.cache.directives import CacheSettings, zone_settings
from imagefarm.config.errors import ConfigurationError, Invalid
from imagefarm.config.loader import Loaded
from imagefarm.config.table import LOCATION_IF, Row, Scope
from imagefarm.config.variables import Getter, Template
from imagefarm.fastcgi.directives import PASS as FASTCGI_PASS
from imagefarm.fastcgi.directives import FastCGISettings
from imagefarm.fastcgi.params import build_params
from imagefarm.http.accesslog import AccessLogs
from imagefarm.http.body import EMPTY
from imagefarm.http.message import Peer, Request, Response, discard
from imagefarm.http.parser import BadRequest, Limits, ParsedHead, parse_head
from imagefarm.http.requestlog import Context
from imagefarm.proxy.group import Group
from imagefarm.proxy.groups import Groups
from imagefarm.proxy.settings import ProxySettings
from imagefarm.proxy.variables import name_target
from imagefarm.resources import directives as rows
from imagefarm.resources import static
from imagefarm.resources.actions import InternalRedirect, NamedRedirect, Redirect, Result
from imagefarm.resources.build import Builder, Listener, Tree
from imagefarm.resources.control import API
from imagefarm.resources.dispatch import Dispatcher
from imagefarm.resources.location import Content, Location
from imagefarm.resources.matching import Modifier, ServerName, ServerNames
from imagefarm.resources.purging import CACHE_API
from imagefarm.resources.rewrite import Flow
from imagefarm.resources.server import LocationLeaf, VirtualHost

#: Directives about who may ask for how much, by name, as far as there are such.
LIMITS: Final = frozenset({
    "allow", "deny", "satisfy", "internal", "auth_basic", "auth_basic_user_file", "auth_request",
    "auth_jwt", "limit_except", "limit_req", "limit_conn", "limit_rate", "limit_rate_after",
    "client_max_body_size", "secure_link", "secure_link_md5", "valid_referers",
    "ssl_verify_client", "set_real_ip_from", "request_id_from",
})  # fmt: skip

_WHY: Final = {
    Modifier.EXACT: "it is this URI",
    Modifier.PREFERRED: "the longest prefix; ^~: no regular expression is tried",
    Modifier.PREFIX: "the longest prefix, and no regular expression fits",
    Modifier.REGEX: "the first regular expression that fits",
    Modifier.REGEX_NO_CASE: "the first regular expression that fits",
    Modifier.NAMED: "named by what led here",
}


@frozen
class Step:
    """One thing that happens: ``what`` kind, in words, where it is written, and particulars."""

    what: str
    text: str
    at: str = ""
    details: Mapping[str, Any] = field(factory=dict)


@frozen
class Question:
    """A request that might come. ``client`` is an address."""

    url: str
    method: str = "GET"
    headers: tuple[tuple[str, str], ...] = ()
    client: str = "127.0.0.1"


def _split(text: str) -> SplitResult:
    """The parts of a URL, its port among them. Raises `Invalid`."""
    try:
        url = urlsplit(text)
        if url.scheme in ("http", "https") and url.hostname and url.port != 0:
            return url
    except ValueError as error:
        raise Invalid(f'"{text}" is not a URL: {error}') from None
    raise Invalid(f'"{text}" is not a URL with http:// or https://')


def _read(question: Question, url: SplitResult) -> ParsedHead:
    """The request as the parser reads it. Raises `Invalid` for what it would refuse."""
    try:
        ip_address(question.client)
    except ValueError:
        raise Invalid(f'"{question.client}" is not an address') from None
    fields = [pair for pair in question.headers if pair[0].lower() != "host"]
    hosts = [pair for pair in question.headers if pair[0].lower() == "host"]
    fields = [*(hosts or [("Host", url.netloc.rpartition("@")[2])]), *fields]
    # Not the split path: white space that urlsplit removes would be sent, and refused.
    target = re.sub(r"^[^:]*://[^/?#]*", "", question.url).partition("#")[0]
    target = target if target.startswith("/") else f"/{target}"
    lines = [f"{question.method} {target} HTTP/1.1", *(f"{n}: {v}" for n, v in fields)]
    block = "\r\n".join(lines).encode("utf-8", "surrogateescape")
    try:
        return parse_head(block, Limits())
    except BadRequest as error:
        raise Invalid(
            f'"{question.url}" can\'t be asked for: {error.reason} ({error.status})'
        ) from None


def _text(value: bytes) -> str:
    return value.decode("utf-8", "backslashreplace")


def _names(scope: Scope) -> Sequence[ServerName]:
    return [name for line in scope.all(rows.SERVER_NAME) for name in line]


def _place(scope: Scope | None) -> str:
    directive = None if scope is None else scope.directive
    return "" if directive is None else f"{directive.file}:{directive.line}"


def in_force(scope: Scope, names: frozenset[str]) -> list[tuple[str, str]]:
    """The lines of those directives in force in a block, as written, and where they stand."""
    found: list[tuple[str, str]] = []
    seen: set[str] = set()
    block: Scope | None = scope
    while block is not None:
        lines = [(row, line) for row, _, line in block.items if line.name in names]
        kinds = {line.name for _, line in lines}
        if kinds & {"allow", "deny"}:
            kinds |= {"allow", "deny"}  # one list of rules
        for row, line in lines:
            inherits = block is scope or getattr(row, "inherits", True)
            if line.name not in seen and inherits:
                text = " ".join((line.name, *line.args))
                found.append((text, f"{line.file}:{line.line}"))
        seen |= kinds
        block = block.parent
    return found


class Trace:
    """The steps. It is the error log of all locations (`http.requestlog.RequestLogs`), too."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        #: Who would answer, if not we.
        self.elsewhere = ""

    def add(self, what: str, text: str, at: str = "", **details: Any) -> None:
        """One more step."""
        self.steps.append(Step(what, text, at, details))

    def wants(self, level: str, client: str) -> bool:
        """`RequestLogs`."""
        return True

    def write(self, level: str, message: str, context: Context) -> None:
        """`RequestLogs`."""
        if level == "notice":
            self.add("rewrite", message)
        else:
            self.add("log", message, level=level)

    def fail(self, message: str, failure: Failure, context: Context) -> None:
        """`RequestLogs`."""
        self.add("log", f"{message}: {failure.getErrorMessage()}", level="crit")

    def outline(self, level: str, message: str, context: Context) -> None:
        """`RequestLogs`: nothing is repeated."""

    def again(self, outline: Any, connection: int, name: bytes) -> None:
        """`RequestLogs`: nothing is repeated."""


class _Builder(Builder):
    """Builds the tree with a witness in each place."""

    def __init__(self, trace: Trace, contents: Callable[[Scope], Content | None], html: bytes):
        super().__init__((contents,), lambda scope: AccessLogs(), html)
        self._trace = trace
        self.scopes: dict[Location, Scope] = {}
        self.hosts: dict[VirtualHost, Scope] = {}

    def server(self, scope: Scope) -> VirtualHost:
        """A server that tells its rewrites."""
        host = super().server(scope)
        host.settings = evolve(host.settings, rewrite_log=True)
        self.hosts[host] = scope
        return host

    def location(
        self, scope: Scope, name: str, prefix: bytes = b"", *, named: bool = False
    ) -> Location:
        """A location that tells all."""
        made = super().location(scope, name, prefix, named=named)
        content = self._file if made.content is static.serve else made.content
        made = evolve(
            made, rewrite_log=True, log_not_found=True, error_log=self._trace, content=content,
            plannable=False, relayable=False,
        )  # fmt: skip
        self._built[scope] = made
        self.scopes[made] = scope
        return made

    def _file(self, request: Request) -> Result:
        location: Location = request.location
        path = location.path(request)
        where = "alias" if location.alias is not None else "root"
        state = "found" if os.path.isfile(path) else "not found"
        state = "a directory" if os.path.isdir(path) else state
        self._trace.add(
            "file", f"{_text(path)} is {state}", path=_text(path), by=where, state=state
        )
        return static.serve(request)


class _Dispatcher(Dispatcher):
    """Routes, and tells."""

    def __init__(self, tree: Tree, builder: _Builder, trace: Trace) -> None:
        super().__init__(tree.farm)
        self._builder = builder
        self._trace = trace

    def _choose_server(self, request: Request) -> VirtualHost:
        host = super()._choose_server(request)
        scope = self._builder.hosts[host]
        names = [_text(name.text) for name in _names(scope)]
        own = ServerNames([([*_names(scope)], True)], False)
        why = "its server_name fits the Host"
        if not own.find(request.host).item:
            why = "no server_name fits the Host: the default server of this address"
        self._trace.add(
            "server", f"{' '.join(names) or '(without name)'}: {why}", _place(scope), names=names
        )
        return host

    def _visit(self, request: Request, leaf: LocationLeaf) -> Result | Flow:
        location = leaf.location
        scope = self._builder.scopes.get(location)
        if scope is None:
            self._trace.add("location", f"{location.name}: it has a slash at its end")
        elif isinstance(scope.value, tuple):
            modifier, name = scope.value[0], location.name
            self._trace.add(
                "location", f"{name}: {_WHY[modifier]}", _place(scope), name=name,
                uri=_text(request.uri),
            )  # fmt: skip
        else:
            self._trace.add(
                "location", "none fits: what the server itself says holds", _place(scope), name="",
                uri=_text(request.uri),
            )  # fmt: skip
        if scope is not None:
            for text, at in in_force(scope, LIMITS):
                self._trace.add("limit", text, at)
        before, seen = len(self._trace.steps), len(request.witnesses)
        result = super()._visit(request, leaf)
        if location.try_files is not None:
            tried = [_text(path) for path, _, _ in request.witnesses[seen:]]
            found = not isinstance(result, InternalRedirect | NamedRedirect)
            text = f"{', '.join(tried)}: {'found' if found else 'nothing is there'}"
            self._trace.steps.insert(before, Step("try_files", text, _place(scope)))
        elif isinstance(result, Response) and len(self._trace.steps) == before:
            self._trace.add("return", f"{result.status}", _place(scope))
        inner = self._builder.scopes.get(request.location)
        if inner is not None and inner.context == LOCATION_IF:
            self._trace.add("if", f"{request.location.name} holds", _place(inner))
        return result

    def _redirect(self, request: Request, target: Redirect) -> Result:
        if isinstance(target, InternalRedirect):
            query = f"?{_text(target.args)}" if target.args else ""
            self._trace.add("redirect", f"internally to {_text(target.uri)}{query}")
        else:
            self._trace.add("redirect", f"internally to {_text(target.name)}")
        return super()._redirect(request, target)

    def _error_page(self, request: Request, response: Response) -> Any:
        page = super()._error_page(request, response)
        if page is not None:
            self._trace.add("error_page", f"there is one for {response.status}")
        return page


class Explainer:
    """Explains URLs under one configuration. Raises `ConfigurationError`, `Invalid`."""

    def __init__(self, loaded: Loaded, prefix: str) -> None:
        self._loaded, self._prefix = loaded, prefix
        self._trace = Trace()
        http = loaded.root.blocks(rows.HTTP_BLOCK)
        if not any(block.blocks(rows.SERVER_BLOCK) for block in http):
            raise Invalid(
                'no "server" is defined: the configuration of a master or slave is needed'
            )
        self._groups = [Groups.from_scope(block, Clock()) for block in http]
        self._zones = {name: z for block in http for name, z in zone_settings(block).items()}
        html = os.path.join(prefix, "html").encode("utf-8", "surrogateescape")
        self._builder = _Builder(self._trace, self._content, html)
        self._tree = self._builder.build(http)
        self._dispatcher = _Dispatcher(self._tree, self._builder, self._trace)

    def explain(self, question: Question) -> Mapping[str, Any]:
        """All steps, and the answer as far as it is ours. Raises `Invalid` for what is no URL."""
        self._trace.steps, self._trace.elsewhere = [], ""
        request = self._request(question)
        answer = self._dispatcher.respond(request)
        told: dict[str, Any] = {"from": self._trace.elsewhere or "imagefarm"}
        if isinstance(answer, Deferred):
            answer.addErrback(lambda _: None).cancel()
        elif not self._trace.elsewhere:
            told["status"] = answer.status
            told["headers"] = [[_text(name), _text(value)] for name, value in answer.headers]
            discard(answer.body)
        steps = [
            {"step": step.what, "text": step.text, **({"at": step.at} if step.at else {}),
             **step.details}
            for step in self._trace.steps
        ]  # fmt: skip
        return {"url": question.url, "steps": steps, "answer": told}

    def _request(self, question: Question) -> Request:
        url = _split(question.url)
        secure = url.scheme == "https"
        name = (url.hostname or "").encode()
        parsed = _read(question, url)
        listener = self._listener(name.decode(), url.port or (443 if secure else 80), secure)
        peer = Peer(
            question.client, 0, listener.listen.address, 1,
            ("TLSv1.3", "TLS_AES_256_GCM_SHA384") if secure else None,
            name if secure else None, opened=time.time(),
        )  # fmt: skip
        return Request(parsed.head, peer, EMPTY, time.time(), parsed.host)

    def _listener(self, host: str, port: int, secure: bool) -> Listener:
        """Where such a connection would arrive; the first of its kind if nobody listens there."""
        listeners = self._tree.listeners
        alike = [one for one in listeners if one.listen.ssl is secure] or list(listeners)
        there = [one for one in alike if one.listen.address[1] == port]
        exact = [one for one in there if one.listen.address[0] == host]
        found = (exact or there or alike)[0]
        text = f"on {found.listen.text}"
        if not there:
            text += f", for nobody listens on port {port}"
        self._trace.add("listen", text)
        return found

    # Content

    def _content(self, scope: Scope) -> Content | None:
        for factory in (self._proxy, self._fastcgi, self._own):
            content = factory(scope)
            if content is not None:
                return content
        return None

    def _away(self, who: str) -> Response:
        self._trace.elsewhere = who
        return Response(200, final=True)

    def _upstream(self, group: Group | None, name: str) -> Mapping[str, Any]:
        peers = [] if group is None else [_text(peer.name) for peer in group.peers]
        return {"upstream": name, "servers": peers}

    def _find(self, name: str) -> Group | None:
        return next((groups.named[name] for groups in self._groups if name in groups.named), None)

    def _proxy(self, scope: Scope) -> Content | None:
        settings = ProxySettings.from_scope(scope, self._prefix)
        if settings is None:
            return None

        def content(request: Request) -> Result:
            target = settings.target(request)
            name_target(request, target)
            self._cache("proxy", scope, request, settings.url)
            path = _text(settings.uri(request, target))
            fields = [[_text(n), _text(template(request))] for n, template in settings.set_headers]
            upstream = self._upstream(self._find(target.authority), target.authority)
            url = f"{target.scheme}://{target.authority}{path}"
            self._trace.add("proxy_pass", url, target=path, headers=fields, **upstream)
            return self._away(f"{target.scheme}://{target.authority}")

        return content

    def _fastcgi(self, scope: Scope) -> Content | None:
        settings = FastCGISettings.from_scope(scope, self._prefix)
        address = settings.address
        if address is None or scope[FASTCGI_PASS] is None:
            return None

        def content(request: Request) -> Result:
            self._cache("fastcgi", scope, request)
            name = _text(address(request))
            params = [[_text(n), _text(value)] for n, value in build_params(settings, request)]
            upstream = self._upstream(self._find(name), name)
            self._trace.add("fastcgi_pass", name, params=params, **upstream)
            return self._away(f"fastcgi://{name}")

        return content

    def _cache(
        self, prefix: str, scope: Scope, request: Request, default_key: Getter | None = None
    ) -> None:
        settings = CacheSettings.from_scope(prefix, scope, default_key=default_key)
        if settings is None:
            why = "no cache key" if scope[CACHE_ROWS[prefix].zone] else f"no {prefix}_cache"
            self._trace.add("cache", f"not used: {why}")
            return
        name = settings.zone if settings.choice is None else _text(settings.choice(request))
        zone, key = self._zones.get(name), _text(settings.key(request))
        if zone is None:
            self._trace.add("cache", f'not used: {prefix}_cache is "{name}"')
            return
        text = f'zone {name}, key "{key}"'
        if request.head.method.decode() not in {_name(method) for method in settings.methods}:
            text += f", not for {_text(request.head.method)}"
        bypass = _first(settings.bypass, request)
        if bypass:
            text += f", not asked: {bypass} is set"
        self._trace.add("cache", text, zone=name, key=key, path=zone.path)

    def _own(self, scope: Scope) -> Content | None:
        named = scope[rows.RESOURCE]
        pages: tuple[Row[Any], ...] = (rows.STUB_STATUS, rows.STATUS, CACHE_API, API)
        what = f"resource {named.name}" if named is not None else ""
        what = what or next((row.name for row in pages if scope[row]), "")
        if not what:
            return None

        def content(request: Request) -> Result:
            self._trace.add("content", what)
            return self._away(what)

        return content


def _name(method: Any) -> str:
    return method.decode() if isinstance(method, bytes) else str(method)


def _first(templates: Sequence[Callable[[Any], bytes]], request: Request) -> str:
    found = next((t for t in templates if t(request) not in (b"", b"0")), None)
    return found.source if isinstance(found, Template) else ""


__all__ = ["ConfigurationError", "Explainer", "Question", "Step"]
