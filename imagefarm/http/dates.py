"""Dates: HTTP's three forms in, IMF-fixdate out, and the two forms of the access log.

All functions are pure: seconds since the epoch go in as arguments. The formatters remember the
last second they formatted, because a busy server asks for the same one many times.
"""

from __future__ import annotations

import calendar
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

_DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_WEEKDAYS: Final = (
    "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday",
)  # fmt: skip
_MONTHS: Final = (
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
)  # fmt: skip
_MONTH_NUMBER: Final = {name.encode(): number for number, name in enumerate(_MONTHS, 1)}

_MONTH: Final = rb"(?P<month>" + b"|".join(_MONTH_NUMBER) + rb")"
_CLOCK: Final = rb"(?P<hour>\d\d):(?P<minute>\d\d):(?P<second>\d\d)"
#: RFC 9110 section 5.6.7. Like nginx we believe the date and look neither at the weekday nor at
#: what follows the seconds (or the year, in the last form).
_FORMS: Final = tuple(
    re.compile(form)
    for form in (
        rb"[A-Za-z]+, +(?P<day>\d\d) " + _MONTH + rb" (?P<year>\d{4}) " + _CLOCK,
        rb"[A-Za-z]+, +(?P<day>\d\d)-" + _MONTH + rb"-(?P<year>\d\d) " + _CLOCK,
        rb"[A-Za-z]+ " + _MONTH + rb" +(?P<day>\d\d?) " + _CLOCK + rb" (?P<year>\d{4})",
    )
)
#: A two-digit year below this is in the 21st century, as in nginx.
_PIVOT: Final = 70


def format_http(seconds: float) -> bytes:
    """``seconds`` as IMF-fixdate: ``Sun, 06 Nov 1994 08:49:37 GMT``."""
    when = datetime.fromtimestamp(int(seconds), UTC)
    return (
        f"{_DAYS[when.weekday()]}, {when.day:02} {_MONTHS[when.month - 1]} {when.year:04} "
        f"{when.hour:02}:{when.minute:02}:{when.second:02} GMT"
    ).encode()


def parse_http(text: bytes) -> int | None:
    """Seconds since the epoch of a date in any of HTTP's three forms; None if it is none."""
    for form in _FORMS:
        match = form.match(text)
        if match is not None:
            break
    else:
        return None
    year = int(match["year"])
    if len(match["year"]) == 2:
        year += 2000 if year < _PIVOT else 1900
    try:
        when = datetime(
            year,
            _MONTH_NUMBER[match["month"]],
            int(match["day"]),
            int(match["hour"]),
            int(match["minute"]),
            int(match["second"]),
        )
    except ValueError:
        return None
    return calendar.timegm(when.timetuple())


def format_log(seconds: float) -> bytes:
    """``$time_local``: ``28/Sep/1970:12:00:00 +0600``, in the local time zone."""
    when = datetime.fromtimestamp(int(seconds)).astimezone()
    return (
        f"{when.day:02}/{_MONTHS[when.month - 1]}/{when.year}:"
        f"{when.hour:02}:{when.minute:02}:{when.second:02} {when:%z}"
    ).encode()


def format_iso8601(seconds: float) -> bytes:
    """``$time_iso8601``: ``1970-09-28T12:00:00+06:00``, in the local time zone."""
    return datetime.fromtimestamp(int(seconds)).astimezone().isoformat("T", "seconds").encode()


def format_ssi_gmt(seconds: float) -> bytes:
    """``$date_gmt``: ``Monday, 28-Sep-1970 06:00:00 GMT``, the default of SSI's ``timefmt``."""
    return _ssi(datetime.fromtimestamp(int(seconds), UTC), "GMT")


def format_ssi_local(seconds: float) -> bytes:
    """``$date_local``: the same in the local time zone, with its name."""
    when = datetime.fromtimestamp(int(seconds)).astimezone()
    return _ssi(when, f"{when:%Z}")


def _ssi(when: datetime, zone: str) -> bytes:
    day, month = _WEEKDAYS[when.weekday()], _MONTHS[when.month - 1]
    return (
        f"{day}, {when.day:02}-{month}-{when.year} "
        f"{when.hour:02}:{when.minute:02}:{when.second:02} {zone}"
    ).encode()


def next_daily(now: float, seconds: int) -> int:
    """The next moment at which the local clock shows ``seconds`` after midnight."""
    midnight = datetime.fromtimestamp(now).replace(hour=0, minute=0, second=0, microsecond=0)
    when = midnight + timedelta(seconds=seconds)
    if when.timestamp() <= now:
        when += timedelta(days=1)
    return int(when.timestamp())


def cached(form: Callable[[float], bytes]) -> Callable[[float], bytes]:
    """``form``, remembering the last whole second and its text."""
    last = -1
    text = b""

    def formatted(seconds: float) -> bytes:
        nonlocal last, text
        if int(seconds) != last:
            last, text = int(seconds), form(seconds)
        return text

    return formatted
