"""From the configuration's scopes to the Resource tree, once, at start."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final, TypeVar

from attrs import evolve, field, frozen

from imagefarm.cache.handler import CachingHandler
from imagefarm.config.errors import Problem
from imagefarm.config.table import LOCATION_IF, SERVER, Scope
from imagefarm.config.variables import Template
from imagefarm.fastcgi.directives import PASS as FASTCGI_PASS
from imagefarm.fastcgi.directives import FastCGISettings
from imagefarm.http.accesslog import AccessLogs
from imagefarm.http.errorpages import MSIE_PADDING
from imagefarm.http.filters import FilterSettings, headers
from imagefarm.http.filters.streams import Later
from imagefarm.http.lookup import Stability, stabilities_of
from imagefarm.http.realip import PROXY_PROTOCOL, RealIp
from imagefarm.http.requestid import REQUEST_ID_FROM
from imagefarm.http.requestlog import RequestLogs
from imagefarm.http.tls import SSL_ON, VERIFY_CLIENT
from imagefarm.http.tls_verify import ClientCheck
from imagefarm.http.transfer import MERGE_SLASHES, transfer_settings
from imagefarm.http.types import MimeTypes
from imagefarm.proxy.directives import PROXY_PASS
from imagefarm.proxy.handler import ProxyPass

from . import directives as rows
from . import static
from .files import Symlinks
from .listen import Listen, merged
from .location import AccessRule, Content, Location, TryFiles
from .matching import Entry, Locations, Modifier, ServerName, ServerNames
from .open_file_cache import OPEN_FILE_CACHE, OpenFileCache, Rules, Size
from .redirects import add_slash
from .rewrite_directives import DIRECTIVES as STEP_ROWS
from .rewrite_directives import compile_steps
from .server import Farm, LocationLeaf, ServerSettings, VirtualHost

T = TypeVar("T")

#: Gives the content handler that a block's own directives ask for, or None.
ContentFactory = Callable[[Scope], Content | None]

_DEFAULT_INDEX: Final = (Template("index.html", (b"index.html",), b"index.html"),)
_VARIABLE: Final = re.compile(r"\$\{?(\w+)")
_OF_TARGET: Final = {"uri", "document_uri", "request_uri", "args", "query_string", "is_args"}
#: What ``expires`` writes anew each second, and ``add_header`` must not have written.
_TIMED: Final = frozenset({b"expires", b"cache-control"})
#: What ``add_header`` may depend on.
_OF_HEADS: Final = frozenset({Stability.HOST, Stability.CACHE})
#: The name of servers that are given none: they get the requests without Host.
_NAMELESS: Final = (ServerName(b""),)
#: Where servers without ``listen`` are: for root, and for others.
_DEFAULT_LISTENS: Final = (Listen(("", 80)), Listen(("", 8000)))


@frozen(eq=False, kw_only=True)
class Listener:
    """One listening address: how, and for TLS the servers' scopes (the default one first)."""

    listen: Listen
    servers: tuple[Scope, ...] = field(repr=False)


@frozen(eq=False)
class Tree:
    """What `Builder.build` makes. ``locations`` and ``hosts`` say what became of which block."""

    farm: Farm
    listeners: tuple[Listener, ...]
    file_caches: tuple[OpenFileCache, ...] = ()
    #: What an operator should know of.
    warnings: tuple[Problem, ...] = ()
    locations: Mapping[Scope, Location] = field(factory=dict, repr=False)
    hosts: Mapping[Scope, VirtualHost] = field(factory=dict, repr=False)


class Builder:
    """Compiles ``http`` blocks.

    ``contents`` are asked in order for a block's content handler; where none has one, files are
    served. ``logs`` gives the access logs in force in a block; ``later`` runs a function on the
    next turn of the event loop; ``error_logs`` gives the error logs, ``connections`` how
    many read, are answered and wait.
    """

    def __init__(
        self,
        contents: Sequence[ContentFactory],
        logs: Callable[[Scope], AccessLogs],
        default_root: bytes,
        later: Later | None = None,
        error_logs: Callable[[Scope], RequestLogs | None] = lambda scope: None,
        clock: Callable[[], float] = time.time,
        connections: Callable[[], tuple[int, int, int]] = lambda: (0, 0, 0),
    ) -> None:
        self._contents = tuple(contents)
        self._logs = logs
        self._later = later
        self._error_logs = error_logs
        self._clock = clock
        self._connections = connections
        self._file_caches: dict[Size, OpenFileCache] = {}
        self._built: dict[Scope, Location] = {}
        self._default_root = Template("html", (default_root,), default_root)

    def build(self, http: Iterable[Scope]) -> Tree:
        """The tree for all ``server`` blocks of the ``http`` blocks."""
        servers = [server for block in http for server in block.blocks(rows.SERVER_BLOCK)]
        hosts = [(scope, self.server(scope)) for scope in servers]
        default = _DEFAULT_LISTENS[:1] if os.geteuid() == 0 else _DEFAULT_LISTENS[1:]
        addresses: dict[tuple[str, int], list[tuple[Listen, Scope, VirtualHost]]] = {}
        for scope, host in hosts:
            given = scope.all(rows.LISTEN) or default
            for listen in (listen for ports in given for listen in ports.each()):
                listen = evolve(listen, ssl=listen.ssl or scope[SSL_ON])
                addresses.setdefault(listen.address, []).append((listen, scope, host))
        names, listeners = {}, []
        warnings: list[Problem] = []
        for address, entries in addresses.items():
            first = next((entry for entry in entries if entry[0].default), entries[0])
            names[address] = known = ServerNames(
                [(_names(scope) or _NAMELESS, host) for _, scope, host in entries], first[2]
            )
            scopes = {host: scope for _, scope, host in entries}
            ordered = [first, *(entry for entry in entries if entry is not first)]
            listen = merged([entry[0] for entry in ordered])
            if len(entries) > 1:  # else the name does not matter, nor to nginx
                warnings += [
                    _conflict(name, scopes[host], listen) for name, host in known.conflicts
                ]
            listeners.append(Listener(listen=listen, servers=tuple(e[1] for e in ordered)))
        caches = tuple(self._file_caches.values())
        return Tree(
            Farm(names), tuple(listeners), caches, tuple(warnings), self._built, dict(hosts)
        )

    def server(self, scope: Scope) -> VirtualHost:
        """One ``server`` block."""
        names = _names(scope)
        settings = ServerSettings(
            name=names[0].text.removeprefix(b".") if names else b"",
            steps=compile_steps(scope, None),
            rewrite_log=scope[rows.REWRITE_LOG],
            merge_slashes=scope[MERGE_SLASHES],
            fallback=self.location(scope, "server"),
            client=ClientCheck.from_scope(scope),
        )
        return VirtualHost(settings, self._locations(scope))

    def _locations(self, scope: Scope) -> Locations[LocationLeaf]:
        blocks = scope.blocks(rows.LOCATION_BLOCK)
        entries = [self._entry(inner) for inner in blocks]
        return Locations([*entries, *_slashless(zip(blocks, entries, strict=True))])

    def _entry(self, scope: Scope) -> Entry[LocationLeaf]:
        modifier, name, pattern = scope.value
        inner = self._locations(scope) if scope.blocks(rows.LOCATION_BLOCK) else None
        text = " ".join(scope.directive.args) if scope.directive else ""
        prefix = name if pattern is None and modifier is not Modifier.NAMED else b""
        location = self.location(scope, text, prefix, named=modifier is Modifier.NAMED)
        return Entry(modifier, name, LocationLeaf(location), pattern, inner)

    def location(
        self, scope: Scope, name: str, prefix: bytes = b"", *, named: bool = False
    ) -> Location:
        """The settings of a location (or of a server's fallback, or of an ``if`` block)."""

        def inside_if(inner: Scope) -> Location:
            return self.location(inner, f"if in {name}", prefix, named=named)

        in_server = name == "server"
        content = self._content(scope)
        keeps, told = isinstance(content, CachingHandler), next(_named_fields(scope), b"")
        symlinks, trusted = scope[rows.DISABLE_SYMLINKS]
        self._built[scope] = location = Location(
            name=name,
            prefix=prefix,
            named=named,
            internal=scope[rows.INTERNAL],
            steps=() if in_server else compile_steps(scope, inside_if),
            access=_access_rules(scope),
            try_files=scope[rows.TRY_FILES],
            error_pages=scope.all(rows.ERROR_PAGE),
            recursive_error_pages=scope[rows.RECURSIVE_ERROR_PAGES],
            root=scope[rows.ROOT] or self._default_root,
            alias=self._alias(scope),
            index=_flatten(scope.all(rows.INDEX)) or _DEFAULT_INDEX,
            symlinks=symlinks,
            symlinks_from=trusted,
            file_cache=self._file_cache(scope),
            file_cache_rules=Rules.from_scope(scope),
            gzip_static=scope[rows.GZIP_STATIC],
            types=MimeTypes.from_scope(scope),
            filters=FilterSettings.from_scope(scope, clock=self._clock, later=self._later),
            transfer=transfer_settings(scope),
            logs=self._logs(scope),
            log_not_found=scope[rows.LOG_NOT_FOUND],
            rewrite_log=scope[rows.REWRITE_LOG],
            msie_padding=scope[MSIE_PADDING],
            absolute_redirect=scope[rows.ABSOLUTE_REDIRECT],
            port_in_redirect=scope[rows.PORT_IN_REDIRECT],
            server_name_in_redirect=scope[rows.SERVER_NAME_IN_REDIRECT],
            fastcgi=FastCGISettings.from_scope(scope),
            realip=RealIp.from_scope(scope),
            content=content,
            error_log=self._error_logs(scope),
            connections=self._connections,
            trusted_id=scope[REQUEST_ID_FROM],
            plannable=(content is static.serve or keeps) and _plannable(scope),
            keeps=keeps,
            named_field=told,
            relayable=isinstance(content, ProxyPass) and not told and _plannable(scope),
        )
        return location

    def _file_cache(self, scope: Scope) -> OpenFileCache | None:
        size = scope[OPEN_FILE_CACHE]
        if size is None:
            return None
        if size not in self._file_caches:
            self._file_caches[size] = OpenFileCache(size, self._clock)
        return self._file_caches[size]

    @staticmethod
    def _alias(scope: Scope) -> Template | None:
        if scope.context == LOCATION_IF and scope.parent is not None:
            return scope[rows.ALIAS] or scope.parent[rows.ALIAS]
        return scope[rows.ALIAS]

    def _content(self, scope: Scope) -> Content:
        for factory in self._contents:
            content = factory(scope)
            if content is not None:
                return content
        if scope.context == LOCATION_IF and scope.parent is not None:
            return self._content(scope.parent)  # nginx: `if` takes the outer handler
        return static.serve


def _slashless(
    blocks: Iterable[tuple[Scope, Entry[LocationLeaf]]],
) -> Iterator[Entry[LocationLeaf]]:
    """``/app`` for each ``/app/`` that passes requests on, unless there is one (``location``).

    nginx redirects there before the rewrite phase: nothing else of the location applies.
    """
    blocks = tuple(blocks)
    named = {entry.name for _, entry in blocks if entry.pattern is None}
    for scope, entry in blocks:
        name = entry.name.removesuffix(b"/")
        passes = scope.is_set(PROXY_PASS) or scope.is_set(FASTCGI_PASS)
        if passes and entry.pattern is None and name != entry.name and name not in named:
            named.add(name)
            location = evolve(
                entry.item.location, steps=(), access=(), try_files=None, plannable=False,
                keeps=False, content=add_slash,
            )  # fmt: skip
            yield Entry(Modifier.EXACT, name, LocationLeaf(location))


def server_names(listener: Listener, items: Sequence[T]) -> ServerNames[T]:
    """One thing for each of the listener's servers, by their names."""
    named = [_names(scope) or _NAMELESS for scope in listener.servers]
    return ServerNames(list(zip(named, items, strict=True)), items[0])


def _conflict(name: bytes, scope: Scope, listen: Listen) -> Problem:
    lines = (directive for row, _, directive in scope.items if row is rows.SERVER_NAME)
    place = next(lines, None) or scope.directive
    assert place is not None
    text = name.decode("utf-8", "replace")
    message = f'conflicting server name "{text}" on {listen.text}, ignored'
    return Problem(message, place.file, place.line)


def _names(scope: Scope) -> tuple[ServerName, ...]:
    return tuple(name for names in scope.all(rows.SERVER_NAME) for name in names)


def _flatten(lines: tuple[tuple[Template, ...], ...]) -> tuple[Template, ...]:
    return tuple(template for line in lines for template in line)


def _named_fields(scope: Scope) -> Iterator[bytes]:
    for rule in scope.all(headers.ADD_HEADER):
        if Stability.NAME in stabilities_of(rule.value):
            yield rule.name.lower()


def _fixed_heads(scope: Scope) -> bool:
    """Whether ``add_header`` adds the same each time, but for the request id.

    That has to be a field of its own, and ours: not what a client says.
    """
    named = 0
    for rule in scope.all(headers.ADD_HEADER):
        needs = stabilities_of(rule.value)
        if needs == {Stability.NAME} and len(rule.value.parts) == 1:
            named += 1
        elif not needs <= _OF_HEADS:
            return False
    return not named or (named == 1 and scope[REQUEST_ID_FROM] is None)


def _plannable(scope: Scope) -> bool:
    """Whether answers here may be remembered by their target (`http.plans`).

    Nothing may depend on the client, on variables, on other files or on the time, but for
    ``expires``. try_files is judged request by request, gzip by the type of the answer.
    """
    expires = scope[headers.EXPIRES]
    templates = [scope[rows.ROOT], scope[rows.ALIAS], expires.template]
    added = {rule.name.lower() for rule in scope.all(headers.ADD_HEADER)}
    dated = expires.kind is headers.Kind.MODIFIED and b"last-modified" in added
    return (
        all(template is None or template.constant is not None for template in templates)
        and _fixed_heads(scope)
        and expires.template is None
        and _TIMED.isdisjoint(added)
        and not dated  # from the date before that: it would be counted from the one added
        and not _access_rules(scope)
        and not any(row in STEP_ROWS for row, _, _ in scope.items)
        and scope[rows.GZIP_STATIC] == "off"
        and scope[rows.DISABLE_SYMLINKS][0] is Symlinks.ALLOWED
        and _tries_by_target(scope[rows.TRY_FILES])
        and _one_client(scope)
        and scope[VERIFY_CLIENT] == "off"
    )


def _one_client(scope: Scope) -> bool:
    """Whether who the client is depends on its address and header block only.

    A PROXY header is neither of them; and what holds for a part of a server only may have been
    changed in another part, on the way here.
    """
    here = RealIp.from_scope(scope)
    server: Scope | None = scope
    while server is not None and server.context != SERVER:
        server = server.parent
    same = server is None or RealIp.from_scope(server) == here
    return same and (here is None or here.header != PROXY_PROTOCOL)


def _tries_by_target(rule: TryFiles | None) -> bool:
    """Whether the names in ``try_files`` depend on the request's target only."""
    names = [template.source for template, _ in rule.files] if rule else []
    return all(set(_VARIABLE.findall(name)) <= _OF_TARGET for name in names)


def _access_rules(scope: Scope) -> tuple[AccessRule, ...]:
    """``allow`` and ``deny`` of the innermost block that has any, in the order written."""
    inner: Scope | None = scope
    while inner is not None:
        found = tuple(
            value for row, value, _ in inner.items if row is rows.ALLOW or row is rows.DENY
        )
        if found:
            return found
        inner = inner.parent
    return ()
