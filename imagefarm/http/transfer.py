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

from .message import TransferSettings

#: Where the head is not read yet only the server can be known.
_HS: Final = frozenset({HTTP, SERVER})


def _keepalive(directive: Directive, env: Environment) -> tuple[float, int | None]:
    timeout = values.parse_time(directive.args[0])
    if len(directive.args) == 1:
        return timeout, None
    return timeout, int(values.parse_time(directive.args[1]))


def _buffers(directive: Directive, env: Environment) -> tuple[int, int]:
    number, size = directive.args
    if not number.isdecimal() or int(number) == 0:
        raise Invalid(f'invalid value "{number}" in "{directive.name}" directive')
    return int(number), values.parse_size(size)


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
    "still be sending, so that it gets to see the answer.",
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
SENDFILE: Final = Row[bool](
    name="sendfile",
    contexts=HSLI,
    convert=values.flag,
    default=False,
    syntax="on | off",
    doc="Send files from the kernel's cache without copying them through the process.",
)
TCP_NOPUSH: Final = Row[bool](
    name="tcp_nopush",
    contexts=HSL,
    convert=values.flag,
    default=False,
    syntax="on | off",
    doc="With ``sendfile``: send the head and the beginning of the file in one packet.",
)
SERVER_TOKENS: Final = Row[bool](
    name="server_tokens",
    contexts=HSL,
    convert=values.choice({"on": True, "off": False, "build": True}),
    default=True,
    syntax="on | off | build",
    doc="Whether ``Server`` and built-in pages tell the version.",
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
    convert=_buffers,
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

_STREAMS: Final = "bodies are streamed and never spooled"
_COPIES: Final = "output is not copied through buffers of this kind"

DIRECTIVES: Final[tuple[AnyRow, ...]] = (
    KEEPALIVE_TIMEOUT,
    KEEPALIVE_REQUESTS,
    CLIENT_MAX_BODY_SIZE,
    CLIENT_BODY_TIMEOUT,
    SEND_TIMEOUT,
    LINGERING_CLOSE,
    LINGERING_TIME,
    LINGERING_TIMEOUT,
    SENDFILE,
    TCP_NOPUSH,
    SERVER_TOKENS,
    TCP_NODELAY,
    CLIENT_HEADER_TIMEOUT,
    CLIENT_HEADER_BUFFER_SIZE,
    LARGE_CLIENT_HEADER_BUFFERS,
    MERGE_SLASHES,
    UNDERSCORES_IN_HEADERS,
    IGNORE_INVALID_HEADERS,
    Ignored(name="client_body_buffer_size", contexts=HSL, why=_STREAMS),
    Ignored(name="client_body_temp_path", contexts=HSL, why=_STREAMS),
    Ignored(name="output_buffers", contexts=HSL, why=_COPIES),
    Ignored(name="postpone_output", contexts=HSL, why=_COPIES),
    Ignored(name="sendfile_max_chunk", contexts=HSL, why="writes are bounded already"),
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
    lingering = 0.0 if scope[LINGERING_CLOSE] == "off" else scope[LINGERING_TIMEOUT]
    return TransferSettings(
        keepalive_timeout=timeout,
        keepalive_header=header,
        keepalive_requests=scope[KEEPALIVE_REQUESTS],
        client_max_body_size=scope[CLIENT_MAX_BODY_SIZE],
        client_body_timeout=scope[CLIENT_BODY_TIMEOUT],
        send_timeout=scope[SEND_TIMEOUT],
        lingering_timeout=lingering,
        sendfile=scope[SENDFILE],
        tcp_nopush=scope[TCP_NOPUSH],
        server_tokens=scope[SERVER_TOKENS],
    )
