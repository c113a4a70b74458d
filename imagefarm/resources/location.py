"""A compiled location: everything that a request which lands there needs, frozen."""

from __future__ import annotations

import ipaddress
import os
import stat
from collections.abc import Callable

from attrs import field, frozen

from imagefarm.config.variables import Template
from imagefarm.fastcgi.directives import FastCGISettings
from imagefarm.http.accesslog import AccessLogs
from imagefarm.http.filters import FilterSettings
from imagefarm.http.message import Identity, OpenFile, Request, TransferSettings
from imagefarm.http.realip import RealIp
from imagefarm.http.requestid import TrustedId
from imagefarm.http.requestlog import RequestLogs
from imagefarm.http.types import MimeTypes

from .actions import NamedRedirect, Result
from .files import Directory, Forbidden, NotFound, Symlinks, open_file
from .open_file_cache import OpenFileCache, Rules
from .rewrite import Steps

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

#: The content of a location; like `http.message.Handler`, but may also redirect internally.
Content = Callable[[Request], Result]


@frozen
class AccessRule:
    """``allow`` or ``deny``; ``network`` None is ``all``, the text "unix:" for local sockets."""

    allow: bool
    network: Network | str | None

    def covers(self, address: str) -> bool:
        """Whether the rule speaks of this client address; IPv4 mapped into IPv6 is IPv4."""
        if self.network is None:
            return True
        if isinstance(self.network, str):
            return address == self.network
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            return False
        return (getattr(parsed, "ipv4_mapped", None) or parsed) in self.network


@frozen
class TryFiles:
    """``try_files``: the files to look for, then what to do where there is none of them."""

    files: tuple[tuple[Template, bool], ...]  # (path, must be a directory)
    last: Template | NamedRedirect | int


@frozen
class ErrorPage:
    """``error_page``: where the codes lead; ``answer`` is the new status.

    ``answer`` None keeps the code, 0 takes what the page answers (``=`` alone).
    """

    codes: frozenset[int]
    answer: int | None
    target: Template | NamedRedirect


@frozen(eq=False, kw_only=True)
class Location:
    """The settings in force in a location, and the handler of its content.

    ``prefix`` is the matched literal prefix (for ``alias``), empty for a regular expression.
    """

    name: str
    prefix: bytes = b""
    named: bool = False
    internal: bool = False
    steps: Steps = field(default=(), repr=False)
    access: tuple[AccessRule, ...] = ()
    try_files: TryFiles | None = None
    error_pages: tuple[ErrorPage, ...] = ()
    recursive_error_pages: bool = False
    root: Template | None = None
    alias: Template | None = None
    index: tuple[Template, ...] = ()
    symlinks: Symlinks = Symlinks.ALLOWED
    symlinks_from: Template | None = None
    file_cache: OpenFileCache | None = None
    file_cache_rules: Rules = field(factory=Rules)
    gzip_static: str = "off"
    types: MimeTypes
    filters: FilterSettings
    transfer: TransferSettings
    logs: AccessLogs
    log_not_found: bool = True
    rewrite_log: bool = False
    msie_padding: bool = True
    absolute_redirect: bool = True
    port_in_redirect: bool = True
    server_name_in_redirect: bool = False
    fastcgi: FastCGISettings | None = None
    realip: RealIp | None = None
    content: Content = field(repr=False)
    error_log: RequestLogs | None = field(default=None, repr=False)
    #: How many connections of this process read a request, are answered, wait: ``$connections_*``.
    connections: Callable[[], tuple[int, int, int]] | None = field(default=None, repr=False)
    #: Whose word on ``$request_id`` is taken.
    trusted_id: TrustedId | None = None
    #: Whether the answer to a target can depend on nothing but the target and a file: see
    #: `resources.build`.
    plannable: bool = False
    #: Whether how a request is passed on depends on nothing but its bytes and the client.
    relayable: bool = False
    #: Whether the content may come from a cache, which knows what decides: ``plannable`` is
    #: then about all that comes before.
    keeps: bool = False
    #: The field in which ``add_header`` tells the request id, in lower case.
    named_field: bytes = b""

    def witness(self, request: Request, path: bytes, found: Identity | None) -> None:
        """Note that a file had a say in the answer to ``request``, and what it was."""
        cache, rules = self.file_cache, self.file_cache_rules
        look = None if cache is None else lambda path, found: cache.look(path, found, rules)
        request.witnesses.append((path, found, look))

    def open(self, request: Request, path: bytes) -> OpenFile:
        """Open a file under the rules in force here. Raises as `files.open_file`."""
        trusted = self.symlinks_from
        way = self.symlinks, trusted(request) if trusted else b""
        if self.file_cache is not None:
            return self.file_cache.open(path, self.file_cache_rules, way)
        return open_file(path, *way)

    def mode(self, request: Request, path: bytes) -> int | None:
        """``st_mode`` of what is there under the rules in force here; None if that is nothing."""
        try:
            if self.file_cache is None and self.symlinks is Symlinks.ALLOWED:
                return os.stat(path).st_mode
            file = self.open(request, path)
            try:
                return os.fstat(file.fd).st_mode
            finally:
                file.close()
        except Directory:
            return stat.S_IFDIR | stat.S_IXUSR
        except Forbidden:
            # What may not be opened is there all the same, but a forbidden link is not.
            return _mode(path) if self.symlinks is Symlinks.ALLOWED else None
        except (NotFound, OSError, ValueError):
            return None

    def path(self, request: Request, uri: bytes | None = None) -> bytes:
        """The file that ``uri`` (the request's own unless given) names under root or alias."""
        uri = request.uri if uri is None else uri
        if self.alias is not None:
            alias = self.alias(request)
            return alias + uri[len(self.prefix) :] if self.prefix else alias
        root = self.root(request) if self.root is not None else b"html"
        return root.rstrip(b"/") + uri


def _mode(path: bytes) -> int | None:
    try:
        return os.stat(path).st_mode
    except (OSError, ValueError):
        return None
