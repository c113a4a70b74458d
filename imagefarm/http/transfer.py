"""Directives of the connection: limits, timeouts and how bytes are moved."""

from __future__ import annotations

from typing import Final

from attrs import frozen

from imagefarm.config import values
from imagefarm.config.ast import Directive
from imagefarm.config.errors import Invalid
from imagefarm.config.table import (
    HSL,
    HSLI,
    HTTP,
    SERVER,
    AnyRow,
    Environment,
    Ignored,
    Row,
    Scope,
)
from imagefarm.config.variables import Template

from .message import TransferSettings
from .parser import Limits
from .tempfiles import TempPath, temp_path

#: Where the head is not read yet only the server can be known.
_HS: Final = frozenset({HTTP, SERVER})


def _keepalive(directive: Directive, env: Environment) -> tuple[float, int | None]:
    timeout = values.parse_time(directive.args[0])
    if len(directive.args) == 1:
        return timeout, None
    return timeout, int(values.parse_time(directive.args[1]))


def buffers(directive: Directive, env: Environment) -> tuple[int, int]:
    """A number of buffers, and the size of one in bytes."""
    number, size = directive.args
    if not number.isdecimal() or int(number) == 0:
        raise Invalid(f'invalid value "{number}" in "{directive.name}" directive')
    return int(number), values.parse_size(size)


def _browsers(directive: Directive, env: Environment) -> frozenset[str]:
    for word in directive.args:
        if word not in ("none", "msie6", "safari"):
            raise Invalid(f'invalid value "{word}"')
    return frozenset(directive.args) - {"none"}


def rate(directive: Directive, env: Environment) -> int | Template:
    """Bytes a second, or so many as variables will say."""
    template = env.template(directive.args[0])
    if template.constant is None:
        return template
    try:
        return values.parse_size(directive.args[0])
    except Invalid:
        raise Invalid(f'"{directive.name}" directive invalid value') from None


def _tokens(directive: Directive, env: Environment) -> bool | bytes | Template:
    text = directive.args[0]
    if text in ("on", "off", "build"):
        return text != "off"
    template = env.template(text)
    return template if template.constant is None else template.constant


KEEPALIVE_TIMEOUT: Final = Row[tuple[float, int | None]](
    name="keepalive_timeout",
    default_text="75s",
    contexts=HSL,
    arity=(1, 2),
    convert=_keepalive,
    default=(75.0, None),
    syntax="timeout [header_timeout]",
    doc="How long an idle connection is kept open; 0 keeps none. The second time is announced "
    "to clients in ``Keep-Alive: timeout=``.",
)
KEEPALIVE_REQUESTS: Final = Row[int](
    name="keepalive_requests",
    contexts=HSL,
    convert=values.number,
    default=1000,
    syntax="number",
    doc="How many requests one connection may carry before it is closed.",
)
KEEPALIVE_TIME: Final = Row[float](
    name="keepalive_time",
    contexts=HSL,
    convert=values.time,
    default=3600.0,
    syntax="time",
    doc="How long one connection may carry requests; the first answer after that closes it.",
)
KEEPALIVE_DISABLE: Final = Row[frozenset[str]](
    name="keepalive_disable",
    contexts=HSL,
    arity=(1, None),
    convert=_browsers,
    default=frozenset({"msie6"}),
    default_text="msie6",
    syntax="none | browser ...",
    doc="Browsers whose connections are not kept: ``msie6`` after a POST, ``safari`` (and the "
    "like on macOS) always.",
)
CLIENT_MAX_BODY_SIZE: Final = Row[int](
    name="client_max_body_size",
    contexts=HSL,
    convert=values.offset,
    default=1 << 20,
    syntax="size",
    doc="The largest request body; a larger one gets 413. 0 means no limit.",
)
CLIENT_BODY_TIMEOUT: Final = Row[float](
    name="client_body_timeout",
    contexts=HSL,
    convert=values.time,
    default=60.0,
    syntax="time",
    doc="The longest pause between two reads of a request body; then 408.",
)
CLIENT_BODY_BUFFER_SIZE: Final = Row[int](
    name="client_body_buffer_size",
    contexts=HSL,
    convert=values.size,
    default=16384,
    default_text="16k",
    syntax="size",
    doc="How much of a request body is kept in memory: before an upstream gets it, what is more "
    "goes to a temporary file; where it streams, the client has to wait.",
)
CLIENT_BODY_TEMP_PATH: Final = Row[TempPath | None](
    name="client_body_temp_path",
    contexts=HSL,
    arity=(1, 4),
    convert=temp_path,
    default=None,
    default_text="client_body_temp",
    syntax="path [level1 [level2 [level3]]]",
    doc="Where request bodies wait for an upstream if they are larger than "
    "``client_body_buffer_size``. The files lose their name at once.",
)
CLIENT_BODY_IN_FILE_ONLY: Final = Row[str](
    name="client_body_in_file_only",
    contexts=HSL,
    convert=values.choice(("on", "clean", "off")),
    default="off",
    syntax="on | clean | off",
    doc="Puts every request body for an upstream into a file, whose name is "
    "$request_body_file; ``clean`` removes it after the request, ``on`` never. Without effect "
    "where bodies stream.",
)
CLIENT_BODY_IN_SINGLE_BUFFER: Final = Row[bool](
    name="client_body_in_single_buffer",
    contexts=HSL,
    convert=values.flag,
    default=False,
    syntax="on | off",
    doc="Whether a request body in memory is one piece. It always is.",
)
SEND_TIMEOUT: Final = Row[float](
    name="send_timeout",
    contexts=HSL,
    convert=values.time,
    default=60.0,
    syntax="time",
    doc="The longest pause between two writes to a client that does not read; then the "
    "connection is closed.",
)
LINGERING_CLOSE: Final = Row[str](
    name="lingering_close",
    contexts=HSL,
    convert=values.choice(("off", "on", "always")),
    default="on",
    syntax="off | on | always",
    doc="Whether to go on reading for a while before closing a connection whose client may "
    "still be sending, so that it gets to see the answer; ``always`` does so after every last "
    "answer.",
)
LINGERING_TIME: Final = Row[float](
    name="lingering_time",
    contexts=HSL,
    convert=values.time,
    default=30.0,
    syntax="time",
    doc="The longest time that a connection lingers in all.",
)
LINGERING_TIMEOUT: Final = Row[float](
    name="lingering_timeout",
    contexts=HSL,
    convert=values.time,
    default=5.0,
    syntax="time",
    doc="The longest time that a lingering connection waits for more from the client.",
)
RESET_TIMEDOUT_CONNECTION: Final = Row[bool](
    name="reset_timedout_connection",
    contexts=HSL,
    convert=values.flag,
    default=False,
    syntax="on | off",
    doc="Whether connections that have timed out, and those closed with 444, are reset, which "
    "frees at once what the kernel holds for them. Idle ones are closed normally.",
)
SENDFILE: Final = Row[bool](
    name="sendfile",
    contexts=HSLI,
    convert=values.flag,
    default=False,
    syntax="on | off",
    doc="Send files from the kernel's cache without copying them through the process.",
)
SENDFILE_MAX_CHUNK: Final = Row[int](
    name="sendfile_max_chunk",
    contexts=HSL,
    convert=values.size,
    default=2 << 20,
    default_text="2m",
    syntax="size",
    doc="The most bytes of a file that are sent before other connections have their turn; 0 is "
    "no limit.",
)
LIMIT_RATE: Final = Row[int | Template](
    name="limit_rate",
    contexts=HSLI,
    convert=rate,
    default=0,
    syntax="rate",
    doc="How many bytes a second of an answer's body are sent to the client; 0 is no limit. May "
    "have variables; ``set $limit_rate`` goes before it.",
)
LIMIT_RATE_AFTER: Final = Row[int | Template](
    name="limit_rate_after",
    contexts=HSLI,
    convert=rate,
    default=0,
    syntax="size",
    doc="How many bytes of a body are sent before ``limit_rate`` applies.",
)
CHUNKED_TRANSFER_ENCODING: Final = Row[bool](
    name="chunked_transfer_encoding",
    contexts=HSL,
    convert=values.flag,
    default=True,
    syntax="on | off",
    doc="Whether answers of unknown length are chunked in HTTP/1.1; otherwise the end of the "
    "connection is their end.",
)
TCP_NOPUSH: Final = Row[bool](
    name="tcp_nopush",
    contexts=HSL,
    convert=values.flag,
    default=False,
    syntax="on | off",
    doc="With ``sendfile``: send the head and the beginning of the file in one packet. They "
    "always are, also where it is off.",
)
SERVER_TOKENS: Final = Row[bool | bytes | Template](
    name="server_tokens",
    contexts=HSL,
    convert=_tokens,
    default=True,
    syntax="on | off | build | string",
    doc="Whether ``Server`` and built-in pages tell the version. A string, which may have "
    "variables, takes the place of the name; an empty one leaves the field out.",
)
TCP_NODELAY: Final = Row[bool](
    name="tcp_nodelay",
    contexts=HSL,
    convert=values.flag,
    default=True,
    syntax="on | off",
    doc="Send small packets at once (TCP_NODELAY). Set on each client's connection as the "
    "default server says.",
)
CLIENT_HEADER_TIMEOUT: Final = Row[float](
    name="client_header_timeout",
    contexts=_HS,
    convert=values.time,
    default=60.0,
    syntax="time",
    doc="How long a client may take to send a request's head; then 408.",
)
CLIENT_HEADER_BUFFER_SIZE: Final = Row[int](
    name="client_header_buffer_size",
    contexts=_HS,
    convert=values.size,
    default=1024,
    syntax="size",
    doc="The size of the buffer in which a request's head is read first.",
)
LARGE_CLIENT_HEADER_BUFFERS: Final = Row[tuple[int, int]](
    name="large_client_header_buffers",
    default_text="4 8k",
    contexts=_HS,
    arity=(2, 2),
    convert=buffers,
    default=(4, 8192),
    syntax="number size",
    doc="No line of a request's head may be longer than ``size`` (414 for the request line, "
    "400 for a field), nor the whole head than ``number`` times that.",
)
MERGE_SLASHES: Final = Row[bool](
    name="merge_slashes",
    contexts=_HS,
    convert=values.flag,
    default=True,
    syntax="on | off",
    doc="Whether several slashes in a URI count as one.",
)
UNDERSCORES_IN_HEADERS: Final = Row[bool](
    name="underscores_in_headers",
    contexts=_HS,
    convert=values.flag,
    default=False,
    syntax="on | off",
    doc="Whether field names with underscores are valid; they are dropped otherwise.",
)
IGNORE_INVALID_HEADERS: Final = Row[bool](
    name="ignore_invalid_headers",
    contexts=_HS,
    convert=values.flag,
    default=True,
    syntax="on | off",
    doc="Whether fields with an invalid name are dropped in silence.",
)

_PAGES: Final = "files are sent from the kernel's page cache, which O_DIRECT would go past"
_COPIES: Final = "output is not copied through buffers of this kind"

DIRECTIVES: Final[tuple[AnyRow, ...]] = (
    KEEPALIVE_TIMEOUT,
    KEEPALIVE_REQUESTS,
    KEEPALIVE_TIME,
    KEEPALIVE_DISABLE,
    CLIENT_MAX_BODY_SIZE,
    CLIENT_BODY_TIMEOUT,
    CLIENT_BODY_BUFFER_SIZE,
    CLIENT_BODY_TEMP_PATH,
    CLIENT_BODY_IN_FILE_ONLY,
    CLIENT_BODY_IN_SINGLE_BUFFER,
    SEND_TIMEOUT,
    LINGERING_CLOSE,
    LINGERING_TIME,
    LINGERING_TIMEOUT,
    RESET_TIMEDOUT_CONNECTION,
    SENDFILE,
    SENDFILE_MAX_CHUNK,
    LIMIT_RATE,
    LIMIT_RATE_AFTER,
    CHUNKED_TRANSFER_ENCODING,
    TCP_NOPUSH,
    SERVER_TOKENS,
    TCP_NODELAY,
    CLIENT_HEADER_TIMEOUT,
    CLIENT_HEADER_BUFFER_SIZE,
    LARGE_CLIENT_HEADER_BUFFERS,
    MERGE_SLASHES,
    UNDERSCORES_IN_HEADERS,
    IGNORE_INVALID_HEADERS,
    Ignored(name="directio", contexts=HSL, why=_PAGES),
    Ignored(name="directio_alignment", contexts=HSL, why=_PAGES),
    Ignored(name="read_ahead", contexts=HSL, why=_PAGES),
    Ignored(name="output_buffers", contexts=HSL, why=_COPIES),
    Ignored(name="postpone_output", contexts=HSL, why=_COPIES),
    Ignored(name="connection_pool_size", contexts=_HS, why="memory is not kept in pools"),
    Ignored(name="request_pool_size", contexts=_HS, why="memory is not kept in pools"),
)


@frozen
class HeadSettings:
    """How a request's head is read, known from the listening socket's default server.

    Times in seconds, sizes in bytes; names are nginx's directives.
    """

    client_header_timeout: float = 60.0
    client_header_buffer_size: int = 1024
    large_client_header_buffers: tuple[int, int] = (4, 8192)
    merge_slashes: bool = True
    underscores_in_headers: bool = False
    ignore_invalid_headers: bool = True
    tcp_nodelay: bool = True

    @property
    def limits(self) -> Limits:
        """For the parser."""
        return Limits(
            client_header_buffer_size=self.client_header_buffer_size,
            large_client_header_buffers=self.large_client_header_buffers,
            ignore_invalid_headers=self.ignore_invalid_headers,
            underscores_in_headers=self.underscores_in_headers,
        )


def head_settings(scope: Scope) -> HeadSettings:
    """The settings for reading heads in a server."""
    return HeadSettings(
        client_header_timeout=scope[CLIENT_HEADER_TIMEOUT],
        client_header_buffer_size=scope[CLIENT_HEADER_BUFFER_SIZE],
        large_client_header_buffers=scope[LARGE_CLIENT_HEADER_BUFFERS],
        merge_slashes=scope[MERGE_SLASHES],
        underscores_in_headers=scope[UNDERSCORES_IN_HEADERS],
        ignore_invalid_headers=scope[IGNORE_INVALID_HEADERS],
        tcp_nodelay=scope[TCP_NODELAY],
    )


def transfer_settings(scope: Scope) -> TransferSettings:
    """The connection's settings in a location (or a server, or an ``if``)."""
    timeout, header = scope[KEEPALIVE_TIMEOUT]
    return TransferSettings(
        keepalive_timeout=timeout,
        keepalive_header=header,
        keepalive_requests=scope[KEEPALIVE_REQUESTS],
        keepalive_time=scope[KEEPALIVE_TIME],
        keepalive_disable=scope[KEEPALIVE_DISABLE],
        client_max_body_size=scope[CLIENT_MAX_BODY_SIZE],
        client_body_timeout=scope[CLIENT_BODY_TIMEOUT],
        client_body_buffer_size=scope[CLIENT_BODY_BUFFER_SIZE],
        send_timeout=scope[SEND_TIMEOUT],
        lingering_close=scope[LINGERING_CLOSE],
        lingering_time=scope[LINGERING_TIME],
        lingering_timeout=scope[LINGERING_TIMEOUT],
        reset_timedout_connection=scope[RESET_TIMEDOUT_CONNECTION],
        sendfile=scope[SENDFILE],
        sendfile_max_chunk=scope[SENDFILE_MAX_CHUNK],
        tcp_nopush=scope[TCP_NOPUSH],
        chunked_transfer_encoding=scope[CHUNKED_TRANSFER_ENCODING],
        limit_rate=scope[LIMIT_RATE],
        limit_rate_after=scope[LIMIT_RATE_AFTER],
        server_tokens=scope[SERVER_TOKENS],
    )
