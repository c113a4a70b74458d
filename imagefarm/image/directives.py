"""The directives of the ``resizer { }`` block, and the settings they make."""

from __future__ import annotations

import os
from typing import Any

from attrs import field, frozen

from imagefarm.config.ast import Directive
from imagefarm.config.errors import Invalid
from imagefarm.config.table import (
    MAIN,
    AnyRow,
    BlockRow,
    Convert,
    Environment,
    ListRow,
    Row,
    Scope,
)
from imagefarm.config.values import number, offset, parse_size, path, time

from .errors import BadRecipe
from .limits import Limits
from .place_directives import PLACE_DIRECTIVES, RESIZER, read_places
from .places import Places
from .pool import PoolSettings
from .query import source_path

_INSIDE = frozenset({RESIZER})
_DEFAULTS = Limits()


def _nothing(directive: Directive, env: Environment) -> None:
    return None


def _listen(directive: Directive, env: Environment) -> str:
    address = directive.args[0]
    if address.startswith("unix:"):
        if len(address) == len("unix:"):
            raise Invalid(
                f'no path in the unix domain socket "{address}" of the "listen" directive'
            )
        return "unix:" + env.path(address[len("unix:") :])
    host, colon, port = address.rpartition(":")
    if not port.isascii() or not port.isdigit() or not 0 <= int(port) <= 65535:
        raise Invalid(f'invalid port in "{address}" of the "listen" directive')
    if colon and not host:
        raise Invalid(f'no host in "{address}" of the "listen" directive')
    return f"{host or '*'}:{int(port)}"


def _processes(directive: Directive, env: Environment) -> int:
    if directive.args[0] == "auto":
        return len(os.sched_getaffinity(0))
    return _positive(directive, env)


def _positive(directive: Directive, env: Environment) -> int:
    value = number(directive, env)
    if value < 1:
        raise Invalid(f'"{directive.name}" must be at least 1')
    return value


def _pixels(directive: Directive, env: Environment) -> int:
    """``100m`` is a hundred million: megapixels are decimal."""
    text = directive.args[0].lower()
    unit = {"k": 1000, "m": 1_000_000}.get(text[-1:], 1)
    digits = text if unit == 1 else text[:-1]
    if not digits.isascii() or not digits.isdigit() or int(digits) < 1:
        raise Invalid(f'"{directive.name}" directive invalid value "{directive.args[0]}"')
    return int(digits) * unit


def _some_bytes(directive: Directive, env: Environment) -> int:
    value = offset(directive, env)
    if value < 1:
        raise Invalid(f'"{directive.name}" must be at least 1')
    return value


def _below_root(directive: Directive, env: Environment) -> bytes:
    try:
        return source_path(os.fsencode(directive.args[0]), "path")
    except BadRecipe as error:
        raise Invalid(f'"{directive.name}": {error.reason}') from None


def _script_name(directive: Directive, env: Environment) -> bytes:
    value = os.fsencode(directive.args[0])
    if not value.startswith(b"/") or len(value) < 2:
        kind = directive.name.partition("_")[0]
        raise Invalid(f'the {kind} path "{directive.args[0]}" must start with a slash')
    return value


def _text(directive: Directive, env: Environment) -> bytes:
    return os.fsencode(directive.args[0])


def _memory(directive: Directive, env: Environment) -> int:
    value = _some_bytes(directive, env)
    if value < parse_size("128m"):
        raise Invalid('"memory" must be at least 128m')
    return value


def _some_time(directive: Directive, env: Environment) -> float:
    value = time(directive, env)
    if value <= 0:
        raise Invalid(f'"{directive.name}" must be longer than nothing')
    return value


def _limit(name: str, convert: Convert[Any], syntax: str, doc: str) -> Row[Any]:
    """The row of the field ``name`` of `Limits`."""
    return Row(
        name=name,
        contexts=_INSIDE,
        convert=convert,
        default=getattr(_DEFAULTS, name),
        syntax=syntax,
        doc=doc,
        inherits=False,
    )


RESIZER_BLOCK: BlockRow[None] = BlockRow(
    name="resizer",
    contexts=frozenset({MAIN}),
    opens=RESIZER,
    convert=_nothing,
    unique=True,
    syntax="{ ... }",
    doc="Configures the resizer, the FastCGI responder that makes images.",
)
LISTEN: ListRow[str] = ListRow(
    name="listen",
    default_text="127.0.0.1:9000",
    contexts=_INSIDE,
    convert=_listen,
    default=("127.0.0.1:9000",),
    syntax="address:port | port | unix:path",
    doc="Where FastCGI connections are taken; may be repeated. Default: 127.0.0.1:9000.",
    inherits=False,
)
ROOT: Row[str] = Row(
    name="root",
    contexts=_INSIDE,
    convert=path,
    default="",
    syntax="path",
    doc="The directory of the sources. Nothing outside it is read, whatever a link says. "
    "Default: the directory given with --root.",
    inherits=False,
)
PROCESSES: Row[int] = Row(
    name="processes",
    contexts=_INSIDE,
    convert=_processes,
    default=len(os.sched_getaffinity(0)),
    syntax="number | auto",
    doc="How many images are worked on at the same time, each in a process of its own. auto, "
    "the default, is one for each core.",
    inherits=False,
)
QUEUE: Row[int] = Row(
    name="queue",
    contexts=_INSIDE,
    convert=number,
    default=64,
    syntax="number",
    doc="How many requests may wait for a process. A request beyond that is answered with 503 "
    "at once.",
    inherits=False,
)
MAX_REQUESTS: Row[int] = Row(
    name="max_requests",
    contexts=_INSIDE,
    convert=number,
    default=10_000,
    syntax="number",
    doc="After how many images a process is replaced by a new one; 0 is never (php-fpm's "
    "pm.max_requests).",
    inherits=False,
)
MAX_RESIDENT: Row[int] = Row(
    name="max_resident",
    contexts=_INSIDE,
    convert=offset,
    default=512 << 20,
    syntax="size",
    doc="A process that has more memory than this resident after an image is replaced by a new "
    "one; 0 is never.",
    inherits=False,
)
RESERVED: Row[int] = Row(
    name="reserved",
    contexts=_INSIDE,
    convert=number,
    default=1,
    syntax="number",
    doc="How many of the processes are kept free of expensive images. One may always work on "
    "them.",
    inherits=False,
)
STATUS_PATH: Row[bytes] = Row(
    name="status_path",
    contexts=_INSIDE,
    convert=_script_name,
    default=b"",
    syntax="path",
    doc="The SCRIPT_NAME that is answered with the resizer's status: as JSON, with the query "
    "`prometheus` as metrics (php-fpm's pm.status_path). The web server in front has to see to "
    "who may ask.",
    inherits=False,
)
PING_PATH: Row[bytes] = Row(
    name="ping_path",
    contexts=_INSIDE,
    convert=_script_name,
    default=b"",
    syntax="path",
    doc="The SCRIPT_NAME that is answered at once, for who wants to know whether the resizer "
    "lives (php-fpm's ping.path).",
    inherits=False,
)
PING_RESPONSE: Row[bytes] = Row(
    name="ping_response",
    contexts=_INSIDE,
    convert=_text,
    default=b"pong",
    syntax="text",
    doc="What the answer to that is (php-fpm's ping.response).",
    inherits=False,
)
SLOWLOG: Row[str] = Row(
    name="slowlog",
    contexts=_INSIDE,
    convert=path,
    default="",
    syntax="path",
    doc="Where slow answers are logged: when, the status, seconds, the URI, the recipe, and what "
    "the time went to (php-fpm's slowlog).",
    inherits=False,
)
REQUEST_SLOWLOG_TIMEOUT: Row[float] = Row(
    name="request_slowlog_timeout",
    contexts=_INSIDE,
    convert=_some_time,
    default=1.0,
    syntax="time",
    doc="What is slow (php-fpm's request_slowlog_timeout).",
    inherits=False,
)
FALLBACK: Row[bytes] = Row(
    name="fallback",
    contexts=_INSIDE,
    convert=_below_root,
    default=b"",
    syntax="path",
    doc="An image below the root that is sent, in the size that was asked for and with the same "
    "status, instead of the line of text of a 404, 415, 422, 500 or 504. Such answers are "
    "never stored.",
    inherits=False,
)
LIMITS: tuple[Row[Any], ...] = (
    _limit("deadline", _some_time, "time", "How long one image may take; then 504, and the "
           "process is ended. A request waits no longer than that for its turn either."),
    _limit("memory", _memory, "size", "The data memory of one process, at least 128m. A source "
           "needs 4 bytes a pixel once decoded; what does not fit is answered with 413."),
    _limit("max_source_bytes", _some_bytes, "size", "The largest source file; 413 above it."),
    _limit("max_pixels", _pixels, "number[k|m]", "The most pixels, width times height, of a "
           "source; 413 above it. k and m are thousands and millions."),
    _limit("max_frames", _positive, "number", "The most frames of an animation; 413 above it."),
    _limit("max_total_pixels", _pixels, "number[k|m]", "The most pixels of an animation in all "
           "its frames together; 413 above it."),
    _limit("max_width", _positive, "pixels", "The largest w that may be asked for; 400 above it, "
           "and 413 for a result that would be wider without being asked for."),
    _limit("max_height", _positive, "pixels", "The largest h that may be asked for, likewise."),
    _limit("intermediates", offset, "size", "How many bytes of decoded pictures each process "
           "keeps, for further sizes of the same originals; 0 is none."),
    _limit("intermediates_path", path, "path", "A directory where decoded pictures are kept for "
           "all processes. Without it there is none."),
    _limit("intermediates_disk", _some_bytes, "size", "How large that directory may grow, more or "
           "less: the process that finds it larger deletes what was not used for longest."),
    _limit("expensive", _some_time, "time", "An image that is estimated to take longer than this, "
           "by its pixels, frames and formats, is expensive: it waits in a queue of its own."),
    _limit("max_output_bytes", _some_bytes, "size", "The largest result; 413 above it."),
)  # fmt: skip

DIRECTIVES: tuple[AnyRow, ...] = (
    RESIZER_BLOCK, LISTEN, ROOT, PROCESSES, QUEUE, MAX_REQUESTS, MAX_RESIDENT,
    RESERVED, STATUS_PATH, PING_PATH, PING_RESPONSE, SLOWLOG, REQUEST_SLOWLOG_TIMEOUT, FALLBACK,
    *LIMITS, *PLACE_DIRECTIVES,
)  # fmt: skip


@frozen
class ResizerSettings:
    """The ``resizer`` block: ``listen`` in the forms ``host:port`` and ``unix:path``.

    ``root`` is empty where the block names none.
    """

    listen: tuple[str, ...]
    root: str
    pool: PoolSettings
    #: The path of an image below the root, or empty.
    fallback: bytes = b""
    places: Places = field(factory=Places)
    #: The SCRIPT_NAME of the status, or empty.
    status_path: bytes = b""
    #: The SCRIPT_NAME of the ping, or empty, and its answer.
    ping_path: bytes = b""
    ping_response: bytes = b"pong"
    #: The slow log's path, or empty; and what is slow, in seconds.
    slowlog: str = ""
    slow: float = 1.0

    @classmethod
    def from_scope(cls, scope: Scope) -> ResizerSettings:
        """The settings in ``scope``, a ``resizer`` block or the main context around it.

        Without a block everything has its default. Raises `Invalid` for settings that don't go
        together.
        """
        blocks = scope.blocks(RESIZER_BLOCK)
        inside = blocks[0] if blocks else scope
        limits = Limits(**{row.name: inside[row] for row in LIMITS})
        pool = PoolSettings(
            processes=inside[PROCESSES],
            queue=inside[QUEUE],
            max_requests=inside[MAX_REQUESTS],
            limits=limits,
            max_resident=inside[MAX_RESIDENT],
            reserved=inside[RESERVED],
        )
        return cls(
            inside.all(LISTEN), inside[ROOT], pool, inside[FALLBACK], read_places(inside),
            inside[STATUS_PATH], inside[PING_PATH], inside[PING_RESPONSE], inside[SLOWLOG],
            inside[REQUEST_SLOWLOG_TIMEOUT],
        )  # fmt: skip
