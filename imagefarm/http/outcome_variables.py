"""The variables that tell what became of a request: its answer, and who made it.

Times are in seconds with milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from imagefarm.config.variables import Getter, encode

from .lookup import Lookup, Stability, Variable, field
from .message import Attempt, Request, Response, body_length
from .pacing import own_rate, rate_of


def seconds(value: float) -> bytes:
    """Cut off, as nginx does, so that ``$msec`` is never ahead of ``$time_local``."""
    return b"%d.%03d" % divmod(max(round(value * 1e6), 0) // 1000, 1000)


def _status(request: Request) -> bytes:
    """What was sent or is about to be; in a page of ``error_page``, what that is sent with."""
    drafted = request.outcome.drafted
    status = request.outcome.status if drafted is None else drafted.status
    return b"%03d" % (status or request.error_status or 0)


def _told(request: Request) -> Response | None:
    """The response that ``$sent_http_*`` speak of: sent, or about to be."""
    return request.outcome.response or request.outcome.drafted


def _limit_rate(request: Request) -> bytes:
    """Only what was ``set``, until the answer begins."""
    answered = request.outcome.response is not None
    return b"%d" % (rate_of(request) if answered else own_rate(request) or 0)


def _gzip_ratio(request: Request) -> bytes | None:
    before, after = request.outcome.compressed
    # Rounded as nginx does: half up, by the third digit alone.
    return b"%d.%02d" % divmod((before * 1000 // after + 5) // 10, 100) if after else None


def _attempts(show: Callable[[Attempt], bytes]) -> Lookup:
    """One value a try, as nginx joins them: with colons between those of different handlers."""

    def lookup(request: Request) -> bytes | None:
        found = b""
        for number, attempt in enumerate(request.outcome.attempts):
            found += (b"", b", ", b" : ")[bool(number) + bool(number and attempt.first)]
            found += show(attempt)
        return found or None

    return lookup


def _time(value: float | None) -> bytes:
    return b"-" if value is None else seconds(value)


def _upstream_http(name: str) -> Variable:
    wanted = encode(name.lower())

    def lookup(request: Request) -> bytes | None:
        headers = request.outcome.upstream_headers
        return None if headers is None else field(headers, wanted)

    def length(request: Request) -> bytes | None:
        found = request.outcome.upstream_length
        return None if found is None else b"%d" % found

    return Variable(length if wanted == b"content_length" else lookup)


def _upstream_cookie(name: str) -> Variable:
    wanted = encode(name.lower()) + b"="

    def lookup(request: Request) -> bytes | None:
        headers = request.outcome.upstream_headers
        for value in () if headers is None else headers.getall(b"set-cookie"):
            if value[: len(wanted)].lower() == wanted:
                return value[len(wanted) :].partition(b";")[0].rstrip(b" ")
        return None

    return Variable(lookup)


def _sent_http(name: str) -> Variable:
    wanted = encode(name.lower())

    def lookup(request: Request) -> bytes | None:
        response = _told(request)
        if response is None:
            return None
        return field(response.headers, wanted)

    derived = _DERIVED.get(name.lower())
    return Variable(lookup if derived is None else derived)


# What the connection has added to the head.


def _sent_length(request: Request) -> bytes | None:
    response = _told(request)
    if response is None or response.status < 200 or response.status in (204, 304):
        return None
    length = body_length(response.body) if response.length is None else response.length
    return None if length is None else b"%d" % length


def _sent_connection(request: Request) -> bytes | None:
    if request.outcome.response is None:
        return None
    return b"keep-alive" if request.outcome.keep else b"close"


def _sent_keep_alive(request: Request) -> bytes | None:
    seconds = request.transfer.keepalive_header
    return b"timeout=%d" % seconds if seconds and request.outcome.keep else None


_DERIVED: Final[Mapping[str, Lookup]] = {
    "connection": _sent_connection,
    "content_length": _sent_length,
    "keep_alive": _sent_keep_alive,
    "transfer_encoding": lambda request: b"chunked" if request.outcome.chunked else None,
}


#: Of fixed names.
OUTCOME: Final[Mapping[str, Lookup]] = {
    "body_bytes_sent": lambda request: b"%d" % request.outcome.body_bytes_sent,
    "bytes_sent": lambda request: b"%d" % request.outcome.bytes_sent,
    "gzip_ratio": _gzip_ratio,
    "limit_rate": _limit_rate,
    "request_completion": lambda request: b"OK" if request.outcome.complete else b"",
    "status": _status,
    "upstream_addr": _attempts(lambda attempt: attempt.address),
    "upstream_bytes_received": _attempts(lambda attempt: b"%d" % attempt.traffic.received),
    "upstream_bytes_sent": _attempts(lambda attempt: b"%d" % attempt.traffic.sent),
    "upstream_cache_status": lambda request: request.outcome.cache_status or None,
    "upstream_connect_time": _attempts(lambda attempt: _time(attempt.connect_time)),
    "upstream_header_time": _attempts(lambda attempt: _time(attempt.header_time)),
    "upstream_response_length": _attempts(lambda attempt: b"%d" % attempt.traffic.body),
    "upstream_response_time": _attempts(lambda attempt: _time(attempt.response_time)),
    "upstream_status": _attempts(
        lambda attempt: b"%d" % attempt.status if attempt.status else b"-"
    ),
}

_NEVER: Final = Variable(lambda request: None, Stability.ANSWER)

#: By what their names begin with.
OUTCOME_PREFIXES: Final[Mapping[str, Callable[[str], Getter]]] = {
    "sent_http_": _sent_http,
    # No answer of ours has trailers, and those of upstreams are not passed on.
    "sent_trailer_": lambda name: _NEVER,
    "upstream_cookie_": _upstream_cookie,
    "upstream_http_": _upstream_http,
    "upstream_trailer_": lambda name: _NEVER,
}
