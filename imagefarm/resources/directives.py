"""The directives of virtual hosts and locations (nginx's core, index, access and status)."""

from __future__ import annotations

import ipaddress
import re
from typing import Final

from imagefarm.config.ast import Directive
from imagefarm.config.errors import Invalid
from imagefarm.config.regex import compile_pattern
from imagefarm.config.regex import names as pattern_names
from imagefarm.config.table import (
    HSL,
    HSLI,
    HTTP,
    LOCATION,
    LOCATION_IF,
    MAIN,
    SERVER,
    AnyRow,
    BlockRow,
    Environment,
    Ignored,
    ListRow,
    Row,
)
from imagefarm.config.values import choice, flag
from imagefarm.config.variables import Template, encode

from . import open_file_cache
from .actions import NamedRedirect
from .control import API
from .dashboard import DASHBOARD
from .files import Symlinks
from .listen import Listen, convert_listen
from .location import AccessRule, ErrorPage, TryFiles
from .matching import Modifier, ServerName
from .mounted import RESOURCE
from .purging import CACHE_API


def _nothing(directive: Directive, env: Environment) -> None:
    return None


def rooted(text: str, env: Environment) -> Template:
    """A path with variables, absolute against the prefix."""
    return env.template(text if text.startswith("$") else env.path(text))


def _root(directive: Directive, env: Environment) -> Template:
    return rooted(directive.args[0], env)


def _captures_of_words(directive: Directive) -> list[str]:
    return [name for word in directive.args if word[:1] == "~" for name in pattern_names(word[1:])]


def _server_name(directive: Directive, env: Environment) -> tuple[ServerName, ...]:
    result = []
    for word in directive.args:
        if word.startswith("~"):
            pattern = compile_pattern(word[1:], ignore_case=True)
            result.append(ServerName(encode(word), pattern))
            continue
        text = word.lower()
        if "*" in text and not re.fullmatch(r"\*\.[^*]+|[^*]+\.\*", text):
            raise Invalid(f'invalid server name or wildcard "{word}"')
        result.append(ServerName(encode(text)))
    return tuple(result)


_REGEX_FORM = re.compile(r"(=|\^~|~\*|~)(.+)", re.DOTALL)


def split_location(directive: Directive) -> tuple[Modifier, str]:
    """The modifier and name of a ``location``; they may be written as one word."""
    words = directive.args
    if len(words) == 2:
        try:
            modifier = Modifier(words[0])
        except ValueError:
            modifier = Modifier.NAMED
        if modifier in (Modifier.NAMED, Modifier.PREFIX):
            raise Invalid(f'invalid location modifier "{words[0]}"')
        return modifier, words[1]
    match = _REGEX_FORM.fullmatch(words[0])
    if match is not None:
        return Modifier(match[1]), match[2]
    return (Modifier.NAMED if words[0].startswith("@") else Modifier.PREFIX), words[0]


LocationName = tuple[Modifier, bytes, "re.Pattern[bytes] | None"]


def _location(directive: Directive, env: Environment) -> LocationName:
    modifier, name = split_location(directive)
    if modifier in (Modifier.REGEX, Modifier.REGEX_NO_CASE):
        pattern = compile_pattern(name, ignore_case=modifier is Modifier.REGEX_NO_CASE)
        return modifier, encode(name), pattern
    return modifier, encode(name), None


def _location_captures(directive: Directive) -> list[str]:
    modifier, name = split_location(directive)
    if modifier in (Modifier.REGEX, Modifier.REGEX_NO_CASE):
        return list(pattern_names(name))
    return []


def _index(directive: Directive, env: Environment) -> tuple[Template, ...]:
    for i, word in enumerate(directive.args):
        if word.startswith("/") and i != len(directive.args) - 1:
            env.warn('only the last index in "index" directive should be absolute')
    return tuple(env.template(word) for word in directive.args)


def _try_files(directive: Directive, env: Environment) -> TryFiles:
    *files, last = directive.args
    found = tuple(
        (env.template(word[:-1] if word.endswith("/") else word), word.endswith("/"))
        for word in files
    )
    if last.startswith("="):
        if not re.fullmatch(r"\d{1,3}", last[1:], re.ASCII):
            raise Invalid(f'invalid code "{last[1:]}"')
        return TryFiles(found, int(last[1:]))
    if last.startswith("@"):
        return TryFiles(found, NamedRedirect(encode(last)))
    return TryFiles(found, env.template(last))


def _error_page(directive: Directive, env: Environment) -> ErrorPage:
    *words, target = directive.args
    answer: int | None = None
    if words[-1].startswith("="):
        word = words.pop()
        if word != "=" and not re.fullmatch(r"=\d{1,3}", word, re.ASCII):
            raise Invalid(f'invalid value "{word}"')
        answer = int(word[1:] or "0")
    codes = set()
    for word in words:
        if not re.fullmatch(r"\d+", word, re.ASCII):
            raise Invalid(f'invalid value "{word}"')
        if not 300 <= int(word) <= 599 or int(word) == 499:
            raise Invalid(f'value "{word}" must be between 300 and 599')
        codes.add(int(word))
    if not codes:
        raise Invalid('invalid number of arguments in "error_page" directive')
    if target.startswith("@"):
        return ErrorPage(frozenset(codes), answer, NamedRedirect(encode(target)))
    return ErrorPage(frozenset(codes), answer, env.template(target))


def _access(directive: Directive, env: Environment) -> AccessRule:
    text, allow = directive.args[0], directive.name == "allow"
    if text == "all":
        return AccessRule(allow, None)
    if text == "unix:":
        return AccessRule(allow, text)
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise Invalid(f'invalid parameter "{text}"') from None
    if ipaddress.ip_interface(text).ip != network.network_address:
        env.warn(f"low address bits of {text} are meaningless")
    return AccessRule(allow, network)


def _status(directive: Directive, env: Environment) -> str:
    word = directive.args[0] if directive.args else "json"
    if word not in ("json", "prometheus"):
        raise Invalid(f'invalid parameter "{word}"')
    return word


def _symlinks(directive: Directive, env: Environment) -> tuple[Symlinks, Template | None]:
    kind, trusted = Symlinks.ALLOWED, None
    for word in directive.args:
        if word.startswith("from="):
            trusted = env.template(word[5:])
        elif word in [member.value for member in Symlinks]:
            kind = Symlinks(word)
        else:
            raise Invalid(f'invalid parameter "{word}"')
    return kind, trusted


HTTP_BLOCK: Final = BlockRow(
    name="http", contexts=frozenset({MAIN}), opens=HTTP, convert=_nothing, unique=True,
    doc="The HTTP servers.",
)  # fmt: skip
SERVER_BLOCK: Final = BlockRow(
    name="server", contexts=frozenset({HTTP}), opens=SERVER, convert=_nothing,
    doc="A virtual server.",
)  # fmt: skip
LOCATION_BLOCK: Final = BlockRow(
    name="location", contexts=frozenset({SERVER, LOCATION}), opens=LOCATION, arity=(1, 2),
    convert=_location, defines=_location_captures, syntax="[ = | ~ | ~* | ^~ ] uri | @name",
    doc="Settings for requests whose URI matches: exact, prefix, regular expression, or named.",
)  # fmt: skip
LISTEN: Final[ListRow[Listen]] = ListRow(
    name="listen", contexts=frozenset({SERVER}), arity=(1, None), convert=convert_listen,
    default_text="*:80",
    syntax="address[:port[-last]] | port[-last] | unix:path [default_server] [ssl] "
    "[proxy_protocol] [bind] [backlog=n] [rcvbuf=size] [sndbuf=size] [reuseport] [deferred] "
    "[fastopen=n] [ipv6only=on|off] [so_keepalive=on|off|[idle]:[interval]:[count]]",
    doc="Where the server takes connections, at one port or at those of a range. Options of the "
    "socket may be given once for each address. With `proxy_protocol` each connection begins with "
    "a PROXY header (version 1 or 2); with `reuseport` each worker has a socket of its own.",
    inherits=False,
)  # fmt: skip
SERVER_NAME: Final[ListRow[tuple[ServerName, ...]]] = ListRow(
    name="server_name", contexts=frozenset({SERVER}), arity=(1, None), convert=_server_name,
    default_text='""',
    defines=_captures_of_words, syntax="name ...", inherits=False,
    doc="Names of the virtual server: exact, wildcard (*.example.org, mail.*) or ~regex.",
)  # fmt: skip
ROOT: Final[Row[Template | None]] = Row(
    name="root", contexts=HSLI, convert=_root, default=None, syntax="path",
    default_text="html",
    doc="The directory that URIs are looked up under. Default: html, under the prefix.",
)  # fmt: skip
ALIAS: Final[Row[Template | None]] = Row(
    name="alias", contexts=frozenset({LOCATION}), convert=_root, default=None, syntax="path",
    doc="What the location's prefix is replaced by to find the file.", inherits=False,
)  # fmt: skip
INDEX: Final[ListRow[tuple[Template, ...]]] = ListRow(
    name="index", contexts=HSL, arity=(1, None), convert=_index, syntax="file ...",
    default_text="index.html",
    doc='Files looked for where the URI ends in "/". Default: index.html.',
)  # fmt: skip
TRY_FILES: Final[Row[TryFiles | None]] = Row(
    name="try_files", contexts=frozenset({SERVER, LOCATION}), arity=(2, None),
    convert=_try_files, default=None, inherits=False, syntax="file ... uri | =code | @name",
    doc="Serves the first file that exists; the last word says what to do otherwise.",
)  # fmt: skip
ERROR_PAGE: Final[ListRow[ErrorPage]] = ListRow(
    name="error_page", contexts=HSLI, arity=(2, None), convert=_error_page,
    syntax="code ... [=[response]] uri | @name",
    doc="The page shown for the statuses; =response changes the status.",
)  # fmt: skip
RECURSIVE_ERROR_PAGES: Final = Row(
    name="recursive_error_pages", contexts=HSL, convert=flag, default=False, syntax="on | off",
    doc="Whether an error page may itself lead to error pages.",
)  # fmt: skip
INTERNAL: Final = Row(
    name="internal", contexts=frozenset({LOCATION}), arity=(0, 0), default=False,
    convert=lambda directive, env: True, inherits=False,
    doc="Only internal redirects reach the location; others get 404.",
)  # fmt: skip
ALLOW: Final[ListRow[AccessRule]] = ListRow(
    name="allow", contexts=HSL, convert=_access, syntax="address | CIDR | unix: | all",
    doc="Allows clients. Rules are checked in order with deny's, the first that fits decides.",
)  # fmt: skip
DENY: Final[ListRow[AccessRule]] = ListRow(
    name="deny", contexts=HSL, convert=_access, syntax="address | CIDR | unix: | all",
    doc="Denies clients with 403.",
)  # fmt: skip
DISABLE_SYMLINKS: Final[Row[tuple[Symlinks, Template | None]]] = Row(
    name="disable_symlinks", contexts=HSL, arity=(1, 2), convert=_symlinks,
    default_text="off",
    default=(Symlinks.ALLOWED, None), syntax="off | on | if_not_owner [from=part]",
    doc="Whether a file's path may lead through symbolic links.",
)  # fmt: skip
GZIP_STATIC: Final[Row[str]] = Row(
    name="gzip_static", contexts=HSL, convert=choice(("on", "off", "always")), default="off",
    syntax="on | off | always", doc="Serves FILE.gz beside FILE to clients that take gzip.",
)  # fmt: skip
LOG_NOT_FOUND: Final = Row(
    name="log_not_found", contexts=HSL, convert=flag, default=True, syntax="on | off",
    doc="Whether missing files go to the error log.",
)  # fmt: skip
REWRITE_LOG: Final = Row(
    name="rewrite_log", contexts=HSLI | {"if in server"}, convert=flag, default=False,
    syntax="on | off", doc="Logs what rewrite does at the level notice.",
)  # fmt: skip
ABSOLUTE_REDIRECT: Final = Row(
    name="absolute_redirect", contexts=HSL, convert=flag, default=True, syntax="on | off",
    doc="Whether our redirects name scheme, host and port.",
)  # fmt: skip
PORT_IN_REDIRECT: Final = Row(
    name="port_in_redirect", contexts=HSL, convert=flag, default=True, syntax="on | off",
    doc="Whether absolute redirects name the port.",
)  # fmt: skip
SERVER_NAME_IN_REDIRECT: Final = Row(
    name="server_name_in_redirect", contexts=HSL, convert=flag, default=False, syntax="on | off",
    doc="Whether absolute redirects use the first server_name instead of the Host received.",
)  # fmt: skip
STUB_STATUS: Final = Row(
    name="stub_status", contexts=frozenset({SERVER, LOCATION}), arity=(0, 1), default=False,
    convert=lambda directive, env: True, inherits=False,
    doc="Answers with connection counters as nginx's stub_status prints them.",
)  # fmt: skip
STATUS: Final[Row[str]] = Row(
    name="status", contexts=frozenset({SERVER, LOCATION}), arity=(0, 1), default="",
    convert=_status, inherits=False, syntax="[json | prometheus]",
    doc="Answers with the state of the daemon, all its workers together: connections, requests by "
    "virtual server, upstreams, caches, processes, errors; as JSON, or as metrics in Prometheus's "
    "text format.",
)  # fmt: skip

DIRECTIVES: Final[tuple[AnyRow, ...]] = (
    HTTP_BLOCK, SERVER_BLOCK, LOCATION_BLOCK, LISTEN, SERVER_NAME, ROOT, ALIAS, INDEX, TRY_FILES,
    ERROR_PAGE, RECURSIVE_ERROR_PAGES, INTERNAL, ALLOW, DENY, DISABLE_SYMLINKS, GZIP_STATIC,
    LOG_NOT_FOUND, REWRITE_LOG,
    Ignored(name="log_subrequest", contexts=HSL, why="there are no subrequests"),
    ABSOLUTE_REDIRECT, PORT_IN_REDIRECT, SERVER_NAME_IN_REDIRECT,
    RESOURCE, STUB_STATUS, STATUS, DASHBOARD, API, CACHE_API, *open_file_cache.DIRECTIVES,
)  # fmt: skip

__all__ = ["DIRECTIVES", "LOCATION_IF", "RESOURCE"]
