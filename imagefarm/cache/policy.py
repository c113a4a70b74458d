"""What may be stored, for how long, and for whom: nginx's rules, without I/O.

Time is an argument (seconds since the epoch). Sources: nginx's ``*_cache_valid`` and the
header rules of its upstream module, RFC 9111 sections 3 and 4, RFC 5861.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from typing import Final

from attrs import frozen

from imagefarm.http.dates import parse_http
from imagefarm.http.headers import Headers

from .entry import Entry

#: A ``Vary`` longer than this is not understood and the answer not stored (nginx: 128).
MAX_VARY: Final = 128
#: How far in the future an entry may have been stored before we stop believing the clock.
CLOCK_SKEW: Final = 60.0
#: The ``*_cache_valid`` codes when only a time is given (nginx).
DEFAULT_CODES: Final = frozenset({200, 301, 302})
#: 1xx and 304 are no representations; a part must not be served as the whole.
_NEVER: Final = frozenset({206, 304})
_SAFE: Final = frozenset({b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PROPFIND", b"REPORT"})
_DIGITS: Final = re.compile(rb"\d+")

ACCEL_EXPIRES: Final = b"x-accel-expires"
CACHE_CONTROL: Final = b"cache-control"
EXPIRES: Final = b"expires"
SET_COOKIE: Final = b"set-cookie"
VARY: Final = b"vary"
#: What lets an answer to a request with Authorization be stored (RFC 9111 section 3.5).
_FOR_ALL: Final = (b"public", b"s-maxage", b"must-revalidate")
#: What forbids to serve it stale (RFC 9111 section 4.2.4).
_NEVER_STALE: Final = (b"must-revalidate", b"proxy-revalidate", b"s-maxage")
#: What a 304 does not change of what is stored (RFC 9111 section 3.2, RFC 9110 section 8.6).
_OF_THE_BODY: Final = frozenset(
    {b"content-encoding", b"content-length", b"content-range", b"content-type"}
)


@frozen
class ValidTime:
    """One ``*_cache_valid`` line: ``codes`` None is ``any``; ``seconds`` 0 forbids storing."""

    codes: frozenset[int] | None
    seconds: float


@frozen
class Storable:
    """A verdict in favour: until when the answer is fresh, and the grace after that.

    ``expires`` is absolute; the two windows of RFC 5861 are lengths, in seconds. ``vary`` has
    the lower-case names of the request headers that select this answer.
    ``must_revalidate``: it may never be served stale.
    """

    expires: float
    stale_while_revalidate: float = 0.0
    stale_if_error: float = 0.0
    vary: tuple[bytes, ...] = ()
    must_revalidate: bool = False


def truthy(value: bytes) -> bool:
    """nginx's test for ``*_cache_bypass`` and ``*_no_cache``: not empty and not ``0``."""
    return value not in (b"", b"0")


def http_date(value: bytes | None) -> float | None:
    """An HTTP-date (RFC 9110 section 5.6.7) in seconds, None if absent or malformed."""
    seconds = None if value is None else parse_http(value)
    return None if seconds is None else float(seconds)


def _seconds(value: bytes) -> int | None:
    """Delta-seconds (RFC 9111 section 1.2.2), saturated; None if malformed."""
    value = value.strip(b'"')
    if not value.isdigit():
        return None
    return min(int(value[:20]), 1 << 31)


def cache_control(values: Iterable[bytes]) -> dict[bytes, bytes]:
    """The directives of all ``Cache-Control`` lines, names in lower case; the first one wins."""
    found: dict[bytes, bytes] = {}
    for part in b",".join(values).split(b","):
        name, _, value = part.strip().partition(b"=")
        if name:
            found.setdefault(name.strip().lower(), value.strip())
    return found


def _accel_expires(headers: Headers, now: float) -> tuple[bool, float | None]:
    """``X-Accel-Expires``: whether it forbids storing, and the expiry it sets.

    Seconds, or ``@`` and an absolute time; 0 forbids; anything else is as if absent (nginx).
    """
    value = headers.first(ACCEL_EXPIRES)
    if value is None:
        return False, None
    if value.startswith(b"@"):
        moment = _seconds(value[1:])
        return False, None if moment is None else float(moment)
    delay = _seconds(value)
    if delay is None:
        return False, None
    return (True, None) if delay == 0 else (False, now + delay)


def valid_for(valid: Iterable[ValidTime], status: int) -> float:
    """The seconds that the first matching ``*_cache_valid`` line gives; 0 if none does.

    A server error is only ever valid where a line names its code: ``any`` is not a licence to
    keep a failure in the place of an image.
    """
    for line in valid:
        if line.codes is None:
            if status < 500:
                return line.seconds
        elif status in line.codes:
            return line.seconds
    return 0.0


def _vary(headers: Headers) -> tuple[bytes, ...] | None:
    """The names in ``Vary``, or None if the answer can't be selected again (``*``)."""
    value = headers.get(VARY) or b""
    if len(value) > MAX_VARY:
        return None
    names = {name.strip().lower() for name in value.split(b",")} - {b""}
    return None if b"*" in names else tuple(sorted(names))


def _expiry(
    headers: Headers, control: dict[bytes, bytes], ignored: frozenset[bytes], now: float
) -> tuple[bool, float | None]:
    """What the answer itself says: (forbidden, expiry). None: it does not say.

    X-Accel-Expires goes before Cache-Control, and that before Expires, in whatever order they
    came (nginx 1.23.3 and later).
    """
    if ACCEL_EXPIRES not in ignored:
        forbidden, expires = _accel_expires(headers, now)
        if forbidden or expires is not None:
            return forbidden, expires
    if not control.keys().isdisjoint((b"no-cache", b"no-store", b"private")):
        return True, None
    for name in (b"s-maxage", b"max-age"):
        if name in control:
            # RFC 9111 section 4.2.1: what can't be understood counts as stale.
            age = _seconds(control[name]) or 0
            return age == 0, now + age
    if EXPIRES not in ignored and EXPIRES in headers:
        moment = http_date(headers.first(EXPIRES))
        # RFC 9111 section 5.3: an invalid date, "0" above all, means "already expired".
        return moment is None or moment <= now, moment
    return False, None


def _initial_age(headers: Headers, date: float | None, now: float) -> float:
    """How old an answer that came just now is already (RFC 9111 section 4.2.3)."""
    apparent = 0.0 if date is None else now - date
    return max(0.0, apparent, float(_seconds(headers.first(b"age") or b"") or 0))


def age(entry: Entry, now: float) -> int:
    """The ``Age`` of a stored answer (RFC 9111 section 4.2.3)."""
    return max(0, int(initial_age(entry) + now - entry.stored))


def initial_age(entry: Entry) -> float:
    """How old a stored answer was, in seconds, when it was stored."""
    return _initial_age(Headers(entry.headers), entry.date, entry.stored)


def _aged(headers: Headers, control: dict[bytes, bytes], expires: float, now: float) -> float:
    """An expiry that the answer itself gave, as RFC 9111 counts it: from when it was made."""
    date = http_date(headers.first(b"date"))
    if date is not None and control.keys().isdisjoint((b"s-maxage", b"max-age")):
        # Section 4.2.1: Expires means a time after Date, whatever our clock says.
        expires += now - date
    return expires - _initial_age(headers, date, now)


def storable(
    status: int,
    headers: Headers,
    valid: Iterable[ValidTime],
    ignored: frozenset[bytes],
    now: float,
    *,
    strict: bool = False,
    authorized: bool = False,
    part: bool = False,
) -> Storable | None:
    """Whether an upstream's answer may be stored, and for how long.

    ``headers`` as the upstream sent them; ``ignored`` has the lower-case names of
    ``*_ignore_headers``. ``strict`` is ``*_cache_rfc9111``; ``authorized``: the request had
    Authorization; ``part``: a part was asked for, and is stored as such (``slice``). None: it
    must not be stored.
    """
    if status < 200 or (status in _NEVER and not (part and status == 206)):
        return None
    if SET_COOKIE not in ignored and SET_COOKIE in headers:
        return None
    vary = () if VARY in ignored else _vary(headers)
    if vary is None:
        return None
    honoured = CACHE_CONTROL not in ignored
    control = cache_control(headers.getall(CACHE_CONTROL)) if honoured else {}
    forbidden, expires = _expiry(headers, control, ignored, now)
    if forbidden:
        return None
    if strict and authorized and control.keys().isdisjoint(_FOR_ALL):
        return None
    valid_seconds = valid_for(valid, status)
    if status >= 500 and not valid_seconds:
        return None
    if expires is None:
        expires = now + valid_seconds
    elif strict and not _accel(headers, ignored, now):
        expires = _aged(headers, control, expires, now)
    if expires <= now:
        return None
    revalidate = _seconds(control.get(b"stale-while-revalidate", b"")) or 0
    # What may be used while it is validated may be, too, when that has failed (nginx).
    on_error = _seconds(control.get(b"stale-if-error", b"%d" % revalidate)) or 0
    never_stale = strict and not control.keys().isdisjoint(_NEVER_STALE)
    return Storable(expires, float(revalidate), float(on_error), vary, never_stale)


def _accel(headers: Headers, ignored: frozenset[bytes], now: float) -> bool:
    """Whether ``X-Accel-Expires`` has set the expiry."""
    return ACCEL_EXPIRES not in ignored and _accel_expires(headers, now)[1] is not None


def freshened(
    stored: Iterable[tuple[bytes, bytes]], headers: Headers
) -> tuple[tuple[bytes, bytes], ...]:
    """Stored fields with those of a 304 in the place of their namesakes (RFC 9111 3.2, 4.3.4)."""
    new = [(name, value) for name, value in headers if name.lower() not in _OF_THE_BODY]
    replaced = {name.lower() for name, _ in new} | {b"age"}
    return (*(field for field in stored if field[0].lower() not in replaced), *new)


def invalidates(method: bytes, status: int) -> bool:
    """Whether an answer says that what is stored may not hold any more (RFC 9111 4.4)."""
    return method not in _SAFE and 200 <= status < 400


def beyond(value: bytes | None, offset: int | None) -> bool:
    """Whether a ``Range`` begins at or after ``*_cache_max_range_offset``, as nginx reads it."""
    if value is None or offset is None:
        return False
    if offset == 0:
        return True
    if len(value) < 7 or value[:6].lower() != b"bytes=":
        return False
    first = value[6:].lstrip(b" ")
    digits = _DIGITS.match(first)
    # nginx takes what is no number for -1.
    return first.startswith(b"-") or (digits is not None and int(digits[0][:20]) >= offset)


def fresh(entry: Entry, now: float) -> bool:
    """Whether ``entry`` may be served without asking (RFC 9111 section 4.2).

    An entry from the future was stored by a clock that has since been set back; its expiry
    says nothing.
    """
    return entry.stored - CLOCK_SKEW <= now < entry.expires


def may_serve_stale(entry: Entry, condition: str, use_stale: frozenset[str], now: float) -> bool:
    """Whether ``*_cache_use_stale`` or RFC 5861 allows an expired entry in this ``condition``.

    ``condition`` is one of the directive's words: ``error``, ``timeout``, ``updating``,
    ``http_500``...
    """
    if entry.must_revalidate:
        return False
    if condition in use_stale:
        return True
    grace = entry.stale_if_error
    if condition == "updating":
        grace = entry.stale_while_revalidate
    elif condition.startswith("http_4"):
        return False  # RFC 5861 section 4: an error is a 500, 502, 503 or 504
    return now < entry.expires + grace


def variant(names: tuple[bytes, ...], headers: Headers) -> bytes:
    """The secondary key (RFC 9111 section 4.1): a digest of the named request headers.

    White space and empty list members don't count, as in nginx. Empty without names.
    """
    if not names:
        return b""
    digest = hashlib.sha256()
    for name in names:
        members = [member.strip() for member in b",".join(headers.getall(name)).split(b",")]
        digest.update(name + b":" + b",".join(member for member in members if member) + b"\n")
    return digest.digest()
