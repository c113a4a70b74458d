"""The directives that ``proxy_pass`` and ``fastcgi_pass`` have in common, for either prefix."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from attrs import field, frozen

from imagefarm.config import values
from imagefarm.config.ast import Directive
from imagefarm.config.errors import Invalid
from imagefarm.config.table import HSL, AnyRow, Environment, ListRow, Row, Scope
from imagefarm.config.variables import encode

from .binding import Binding, binding
from .filters.charset import known_charsets
from .headers import MAX_HEAD
from .streaming import Streaming, StreamingRows, streaming_of, streaming_rows
from .upstream import ExchangeRules, Timeouts, UpstreamConnection

#: Fields that speak to the server and not to the client; never passed on by default.
ACCEL: Final = frozenset({
    b"x-accel-expires", b"x-accel-redirect", b"x-accel-limit-rate", b"x-accel-buffering",
    b"x-accel-charset",
})  # fmt: skip

#: The fields that ``ignore_headers`` may name.
_IGNORABLE: Final = {
    name.lower(): encode(name.lower())
    for name in (
        "X-Accel-Redirect", "X-Accel-Expires", "X-Accel-Limit-Rate", "X-Accel-Buffering",
        "X-Accel-Charset", "Expires", "Cache-Control", "Set-Cookie", "Vary",
    )
}  # fmt: skip


@frozen(eq=False, kw_only=True)
class UpstreamRows:
    """The rows of one prefix, by nginx's names without it."""

    connect_timeout: Row[float]
    send_timeout: Row[float]
    read_timeout: Row[float]
    next_upstream: Row[frozenset[str]]
    next_upstream_tries: Row[int]
    next_upstream_timeout: Row[float]
    intercept_errors: Row[bool]
    hide_header: ListRow[bytes]
    pass_header: ListRow[bytes]
    ignore_headers: Row[frozenset[bytes]]
    pass_request_headers: Row[bool]
    pass_request_body: Row[bool]
    buffer_size: Row[int]
    force_ranges: Row[bool]
    socket_keepalive: Row[bool]
    bind: Row[Binding | None]
    streaming: StreamingRows

    @property
    def every(self) -> tuple[AnyRow, ...]:
        """All of them."""
        return (
            self.connect_timeout, self.send_timeout, self.read_timeout, self.next_upstream,
            self.next_upstream_tries, self.next_upstream_timeout, self.intercept_errors,
            self.hide_header, self.pass_header, self.ignore_headers, self.pass_request_headers,
            self.pass_request_body, self.buffer_size, self.force_ranges, self.socket_keepalive,
            self.bind,
            *self.streaming.rows,
        )  # fmt: skip


@frozen(kw_only=True)
class UpstreamSettings:
    """What the common directives say in one location; names are theirs, times in seconds.

    ``hidden`` and ``ignore_headers`` have field names in lower case; ``next_upstream`` is empty
    for ``off``.
    """

    timeouts: Timeouts = field(factory=Timeouts)
    next_upstream: frozenset[str] = frozenset({"error", "timeout"})
    next_upstream_tries: int = 0
    next_upstream_timeout: float = 0.0
    intercept_errors: bool = False
    hidden: frozenset[bytes] = ACCEL
    ignore_headers: frozenset[bytes] = frozenset()
    pass_request_headers: bool = True
    pass_request_body: bool = True
    buffer_size: int = MAX_HEAD
    force_ranges: bool = False
    socket_keepalive: bool = False
    bind: Binding | None = None
    #: In lower case, what X-Accel-Charset may name.
    charsets: frozenset[bytes] = frozenset()
    streaming: Streaming = field(factory=Streaming)

    @property
    def obeyed(self) -> frozenset[bytes]:
        """The ``X-Accel-`` fields that are obeyed."""
        return ACCEL - self.ignore_headers


def common_settings(
    rows: UpstreamRows, scope: Scope, hidden: frozenset[bytes] = ACCEL, prefix: str = ""
) -> dict[str, Any]:
    """The fields of `UpstreamSettings` in ``scope``; ``hidden`` is hidden by default.

    Temporary files are in the directory ``prefix`` by default. Raises `ConfigurationError`.
    """
    more: tuple[bytes, ...] = scope.all(rows.hide_header)
    fewer: tuple[bytes, ...] = scope.all(rows.pass_header)
    return {
        "timeouts": Timeouts(
            scope[rows.connect_timeout], scope[rows.send_timeout], scope[rows.read_timeout]
        ),
        "next_upstream": scope[rows.next_upstream],
        "next_upstream_tries": scope[rows.next_upstream_tries],
        "next_upstream_timeout": scope[rows.next_upstream_timeout],
        "intercept_errors": scope[rows.intercept_errors],
        "hidden": hidden.union(more).difference(fewer),
        "ignore_headers": scope[rows.ignore_headers],
        "pass_request_headers": scope[rows.pass_request_headers],
        "pass_request_body": scope[rows.pass_request_body],
        "buffer_size": scope[rows.buffer_size],
        "force_ranges": scope[rows.force_ranges],
        "socket_keepalive": scope[rows.socket_keepalive],
        "bind": scope[rows.bind],
        "charsets": known_charsets(scope),
        "streaming": streaming_of(scope, rows.streaming, prefix, scope[rows.buffer_size]),
    }


def exchange_rules(
    settings: UpstreamSettings,
    connection: Callable[[], UpstreamConnection],
    scheme: str,
    tls: Any = None,
) -> ExchangeRules:
    """How exchanges are done over connections that ``connection`` makes."""
    return ExchangeRules(
        connection,
        settings.timeouts,
        settings.next_upstream,
        settings.next_upstream_tries,
        settings.next_upstream_timeout,
        scheme,
        settings.socket_keepalive,
        settings.streaming.ignore_client_abort,
        settings.bind,
        tls,
    )


def _field_name(directive: Directive, env: Environment) -> bytes:
    return encode(directive.args[0]).lower()


def _ignorable(directive: Directive, env: Environment) -> frozenset[bytes]:
    for word in directive.args:
        if word.lower() not in _IGNORABLE:
            raise Invalid(f'invalid value "{word}"')
    return frozenset(_IGNORABLE[word.lower()] for word in directive.args)


@frozen
class _Maker:
    """Makes the rows of a prefix."""

    prefix: str

    def row(
        self, name: str, convert: Any, default: Any, syntax: str, doc: str, **more: Any
    ) -> Any:
        """One of any kind."""
        return Row(
            name=f"{self.prefix}_{name}", contexts=HSL, convert=convert, default=default,
            syntax=syntax, doc=doc, **more,
        )  # fmt: skip

    def time(self, name: str, default: float, doc: str) -> Row[float]:
        row: Row[float] = self.row(name, values.time, default, "time", doc)
        return row

    def flag(self, name: str, default: bool, doc: str) -> Row[bool]:
        row: Row[bool] = self.row(name, values.flag, default, "on | off", doc)
        return row

    def names(self, name: str, doc: str) -> ListRow[bytes]:
        return ListRow(
            name=f"{self.prefix}_{name}", contexts=HSL, convert=_field_name, syntax="field",
            doc=doc,
        )  # fmt: skip


def upstream_rows(prefix: str, words: tuple[str, ...]) -> UpstreamRows:
    """The rows of ``prefix``; ``words`` are those that its ``next_upstream`` takes."""
    make = _Maker(prefix)
    return UpstreamRows(
        **_connecting(make),
        **_going_on(make, words),
        **_passing(make),
        **_fields(make),
        streaming=streaming_rows(prefix),
    )


def _connecting(make: _Maker) -> dict[str, Any]:
    return {
        "connect_timeout": make.time(
            "connect_timeout", 60.0, "How long connecting to a server may take."
        ),
        "send_timeout": make.time(
            "send_timeout", 60.0,
            "How long a server may take no bytes of a request that waits to be sent.",
        ),
        "read_timeout": make.time(
            "read_timeout", 60.0, "The longest pause between two reads from a server."
        ),
        "socket_keepalive": make.flag(
            "socket_keepalive", False,
            "Whether the kernel probes idle connections to the servers (SO_KEEPALIVE).",
        ),
        "bind": make.row(
            "bind", binding, None, "address[:port] [transparent] | off",
            "The local address that connections to the servers come from; it may contain "
            "variables, and one that comes to nothing leaves it to the system. With "
            "``transparent`` it need not be one of this machine's. Linux lets only root and those "
            "with CAP_NET_RAW do that, and the answers have to be routed here.",
            arity=(1, 2), default_text="off",
        ),
    }  # fmt: skip


def _going_on(make: _Maker, words: tuple[str, ...]) -> dict[str, Any]:
    def next_upstream(directive: Directive, env: Environment) -> frozenset[str]:
        for word in directive.args:
            if word not in words and word != "off":
                raise Invalid(f'invalid value "{word}"')
        return frozenset() if "off" in directive.args else frozenset(directive.args)

    return {
        "next_upstream": make.row(
            "next_upstream", next_upstream, frozenset({"error", "timeout"}),
            " | ".join((*words, "off")) + " ...",
            "When a request goes to the next server of the group. One with a method that is "
            "not idempotent (POST, LOCK, PATCH) goes on only before it was sent, unless "
            "``non_idempotent`` is given.",
            arity=(1, None), default_text="error timeout",
        ),
        "next_upstream_tries": make.row(
            "next_upstream_tries", values.number, 0, "number",
            "The most servers that one request is tried on; 0 is no limit.",
        ),
        "next_upstream_timeout": make.time(
            "next_upstream_timeout", 0.0,
            "How long after its beginning a request may still go to the next server; 0 is no "
            "limit.",
        ),
        "intercept_errors": make.flag(
            "intercept_errors", False,
            "Whether ``error_page`` applies to answers with a status of 300 or more.",
        ),
    }  # fmt: skip


def _passing(make: _Maker) -> dict[str, Any]:
    return {
        "pass_request_headers": make.flag(
            "pass_request_headers", True, "Whether the client's header fields are passed on."
        ),
        "pass_request_body": make.flag(
            "pass_request_body", True, "Whether the client's request body is passed on."
        ),
        "buffer_size": make.row(
            "buffer_size", values.size, MAX_HEAD, "size",
            "The largest header of an answer that is accepted.",
        ),
        "force_ranges": make.flag(
            "force_ranges", False,
            "Whether ranges are cut from answers whatever their Accept-Ranges says.",
        ),
    }  # fmt: skip


def _fields(make: _Maker) -> dict[str, Any]:
    return {
        "hide_header": make.names(
            "hide_header", "A field of the answer that is not passed to the client."
        ),
        "pass_header": make.names(
            "pass_header",
            "A field of the answer that is passed to the client although it is hidden by default.",
        ),
        "ignore_headers": make.row(
            "ignore_headers", _ignorable, frozenset(), "field ...",
            "Fields of the answer that are not obeyed: X-Accel-Redirect, X-Accel-Limit-Rate, "
            "X-Accel-Charset, X-Accel-Buffering, and by the cache X-Accel-Expires, Expires, "
            "Cache-Control, Set-Cookie, Vary.",
            arity=(1, None),
        ),
    }  # fmt: skip
