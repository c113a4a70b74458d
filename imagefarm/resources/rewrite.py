"""The rewrite module: ``rewrite``, ``return``, ``set``, ``break`` and ``if``, in order.

The directives of a server or location are compiled into a tuple of steps; `run` goes through
them as nginx's script engine does.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import Enum
from typing import Any, Final

from attrs import field, frozen

from imagefarm.config.variables import Template
from imagefarm.http.captures import remember
from imagefarm.http.headers import Headers
from imagefarm.http.message import Request, Response
from imagefarm.http.pacing import is_rate
from imagefarm.http.requestlog import printable, report
from imagefarm.http.uri import escape_args

from .actions import Action
from .conditions import Condition

#: The variables of ours that ``set`` may change.
CHANGEABLE: Final = frozenset({"args", "limit_rate"})

Note = Callable[[str, Request], None]


class Flow(Enum):
    """How the steps ended when they made no answer."""

    GO_ON = "go on with this location"
    SEARCH = "search for the location of the changed URI"


class Flag(Enum):
    """The last word of ``rewrite``."""

    NONE = ""
    LAST = "last"
    BREAK = "break"
    REDIRECT = "redirect"
    PERMANENT = "permanent"


@frozen
class Set:
    """``set $name value``."""

    name: str
    value: Template


@frozen
class Break:
    """``break``."""


@frozen
class Return:
    """``return code [text]``, ``return code URL``, ``return URL``."""

    status: int
    text: Template | None
    location: bool


@frozen
class Rewrite:
    """``rewrite regex replacement [flag]``.

    ``args`` is the part of the replacement after "?"; ``keep_args`` tells whether the request's
    own are appended. ``redirect`` is the status of an external redirect, or None.
    """

    pattern: re.Pattern[bytes]
    uri: Template
    args: Template | None
    keep_args: bool
    flag: Flag
    redirect: int | None


@frozen(eq=False)
class If:
    """``if (condition) { ... }``: ``location`` holds the settings inside, if in a location."""

    condition: Condition
    steps: Steps = field(repr=False)
    location: Any = None


Step = Set | Break | Return | Rewrite | If
Steps = tuple[Step, ...]


class _Escaped:
    """A match whose captures come percent-encoded: for the arguments of a replacement."""

    def __init__(self, match: re.Match[bytes]) -> None:
        self.re = match.re
        self._match = match

    def group(self, index: int | str) -> bytes | None:
        value = self._match.group(index)
        return None if value is None else escape_args(value)

    __getitem__ = group


class _Run:
    """One pass through a server's or location's steps."""

    def __init__(self, request: Request, note: Note | None) -> None:
        self.request = request
        self.note = note
        self.changed = False
        self.stopped = False

    def steps(self, steps: Steps) -> Action | None:
        for step in steps:
            answer = self.step(step)
            if answer is not None or self.stopped:
                return answer
        return None

    def step(self, step: Step) -> Action | None:
        request = self.request
        if isinstance(step, Rewrite):
            return self.rewrite(step)
        if isinstance(step, Return):
            return _returned(step, request)
        if isinstance(step, If):
            if step.condition(request):
                if step.location is not None:
                    request.location = step.location
                return self.steps(step.steps)
        elif isinstance(step, Set):
            _assign(request, step.name, step.value(request))
        else:
            self.stopped, self.changed = True, False
        return None

    def say(self, text: str) -> None:
        if self.note:
            self.note(text, self.request)

    def rewrite(self, step: Rewrite) -> Response | None:
        request = self.request
        match = step.pattern.search(request.uri)
        if match is None:
            request.captures = None  # as in nginx: $1 is empty after a failure
            self.say(f'"{_text(step)}" does not match "{printable(request.uri)}"')
            return None
        self.say(f'"{_text(step)}" matches "{printable(request.uri)}"')
        remember(request, match)
        escaped = _escaping(request)
        if step.redirect is not None:
            return _redirect(step, request, escaped)
        uri = step.uri(request)
        if step.args is not None:
            args = _with_captures(step.args, request, escaped)
            if step.keep_args and request.args:
                args += b"&" + request.args
            request.args = args
        elif not step.keep_args:
            request.args = b""
        if not uri:
            return Response(500)  # nginx: the rewritten URI has a zero length
        request.uri = uri
        self.say(f'rewritten data: "{printable(uri)}", args: "{printable(request.args)}"')
        self.changed = step.flag is not Flag.BREAK
        request.valid_location = self.changed
        self.stopped = step.flag in (Flag.BREAK, Flag.LAST)
        return None


def _text(step: Rewrite) -> str:
    return printable(step.pattern.pattern)


def _escaping(request: Request) -> bool:
    """Whether captures need encoding: the path came encoded (``quoted_uri``, ``plus_in_uri``)."""
    path = request.head.target.partition(b"?")[0]
    return b"%" in path or b"+" in path


def _assign(request: Request, name: str, value: bytes) -> None:
    """``set``. Of the engine's variables `CHANGEABLE` may be set."""
    if name == "args":
        request.args = value
    elif name == "limit_rate" and not is_rate(value):
        report(request, "error", f'invalid $limit_rate "{printable(value)}"')
    else:
        request.variables[name] = value


def _with_captures(template: Template, request: Request, escaped: bool) -> bytes:
    match = request.captures
    if not escaped or match is None:
        return template(request)
    request.captures = _Escaped(match)  # type: ignore[assignment]
    try:
        return template(request)
    finally:
        request.captures = match


_QUOTED = re.compile(rb"%([0-9A-Fa-f]{2})")


def _unquote_printable(match: re.Match[bytes]) -> bytes:
    code = int(match[1], 16)
    return bytes([code]) if 0x25 < code < 0x7F else match[0]


def _unquoted(target: bytes) -> bytes:
    """nginx's NGX_UNESCAPE_REDIRECT: what needs no quoting in a Location, up to a "?"."""
    end = min((at for at in map(target.find, (b"?", b"%3F", b"%3f")) if at >= 0), default=-1)
    if end < 0:
        return _QUOTED.sub(_unquote_printable, target)
    path, rest = target[:end], target[end:]
    rest = rest if rest.startswith(b"?") else b"?" + rest[3:]
    return _QUOTED.sub(_unquote_printable, path) + rest


def _redirect(step: Rewrite, request: Request, escaped: bool) -> Response:
    assert step.redirect is not None
    target = _with_captures(step.uri, request, escaped)
    target = _unquoted(target)
    if step.args is not None:
        target += b"?" + _with_captures(step.args, request, escaped)
    if step.keep_args and request.args:
        target += (b"?" if step.args is None else b"&") + request.args
    return Response(step.redirect, Headers([(b"Location", target)]))


_REDIRECTS = frozenset({301, 302, 303, 307, 308})


def _rendered(status: int, text: Template, request: Request) -> bytes:
    """The text of a ``return``, in which $status is the one it is sent with."""
    if text.constant is not None:
        return text.constant
    request.outcome.drafted = Response(request.error_status or status)
    try:
        return text(request)
    finally:
        request.outcome.drafted = None


def _returned(step: Return, request: Request) -> Response:
    value = b"" if step.text is None else _rendered(step.status, step.text, request)
    if step.location:
        return Response(step.status, Headers([(b"Location", value)]))
    if step.status >= 400 and (step.text is None or step.text.constant == b""):
        return Response(step.status)
    headers = Headers()
    if step.status != 204:
        headers.add(b"Content-Type", request.location.types.lookup(request.uri))
    return Response(step.status, headers, value, final=True)


def is_redirect(status: int) -> bool:
    """Whether ``return`` takes its text for a URL with this status."""
    return status in _REDIRECTS


def run(steps: Steps, request: Request, note: Note | None = None) -> Action | Flow:
    """Run ``steps``: an answer, or how to go on. ``note`` gets ``rewrite_log``'s notices."""
    if not steps:
        return Flow.GO_ON
    state = _Run(request, note)
    answer = state.steps(steps)
    if answer is not None:
        return answer
    return Flow.SEARCH if state.changed else Flow.GO_ON
