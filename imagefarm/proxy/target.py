"""What ``proxy_pass`` points to, and the request-target that is sent there."""

from __future__ import annotations

import re
from typing import Final

from attrs import field, frozen

from imagefarm.config.errors import Invalid
from imagefarm.config.variables import Template, encode
from imagefarm.http.message import Request
from imagefarm.http.uri import BadTarget, escape_uri, normalise, split_absolute

from .addresses import Authority, parse_authority

_PORTS: Final = {"http": 80, "https": 443}
_URL: Final = re.compile(
    r"(https?)://(unix:[^:]+(?=:|$):?|[^/?#]*)(.*)", re.DOTALL | re.IGNORECASE
)
# What must not stand in a request line, whatever the variables hold (RFC 9112 section 3).
_UNSAFE: Final = re.compile(rb"[\x00-\x20\x7f]")
# What is the same escaped or not, and normalised or not.
_PLAIN: Final = re.compile(rb"(?:/(?!\.)[\w.~-]*)+", re.ASCII)


@frozen
class Target:
    """The parts of a ``proxy_pass`` URL. ``uri`` is empty where it has none.

    ``host_header`` and ``port`` are ``$proxy_host`` and ``$proxy_port``.
    """

    scheme: str
    authority: str
    uri: bytes
    host_header: bytes
    port: bytes

    @property
    def default_port(self) -> int:
        """The scheme's port."""
        return _PORTS[self.scheme]

    @property
    def url(self) -> bytes:
        """Scheme and authority, as redirects of the upstream would begin."""
        return encode(f"{self.scheme}://{self.authority}")


def parse_url(text: str) -> Target:
    """Read ``http://authority[uri]`` or ``http://unix:/path[:uri]``. Raises `Invalid`."""
    match = _URL.fullmatch(text)
    if match is None:
        raise Invalid("invalid URL prefix")
    scheme, authority, uri = match[1].lower(), match[2], match[3]
    if authority.startswith("unix:") and authority != "unix:":
        authority = authority.removesuffix(":")
    rest = text[len(scheme) + 3 :]
    parsed = parse_authority(authority, rest)
    if uri.startswith("?"):
        uri = "/" + uri
    host, port = _names(parsed, authority, _PORTS[scheme])
    return Target(scheme, authority, encode(uri), host, port)


def _names(parsed: Authority, authority: str, default: int) -> tuple[bytes, bytes]:
    if parsed.path:
        return b"localhost", b""
    if parsed.port is None or parsed.port == default:
        host = f"[{parsed.host}]" if ":" in parsed.host else parsed.host
        return encode(host), b"%d" % default
    return encode(authority), b"%d" % parsed.port


@frozen
class Pass:
    """The value of ``proxy_pass``: constant (``target``) or with variables (``template``)."""

    template: Template
    target: Target | None
    file: str = field(repr=False)
    line: int = field(repr=False)

    def __call__(self, request: Request) -> Target:
        """The target for ``request``. Raises `Invalid`."""
        if self.target is not None:
            return self.target
        text = self.template(request).decode("utf-8", "surrogateescape")
        if text.endswith("://"):
            raise Invalid("invalid URL prefix")  # in a line without variables: no host
        return parse_url(text)


def request_target(request: Request, target: Target, *, constant: bool, location: bytes) -> bytes:
    """What to ask the upstream for (``proxy_pass`` with and without a URI).

    ``location`` is the prefix of the location, which the URI replaces; ``constant`` tells that
    ``proxy_pass`` had no variables.
    """
    if target.uri and not constant:
        return _safe(target.uri)
    raw: bytes | None = request.head.target
    if not target.uri and raw == request.uri and not request.args and _PLAIN.fullmatch(raw):
        return raw  # nearly all: the same as below
    raw = _origin_form(request.head.target)
    unchanged = raw is not None and _unchanged(request, raw)
    if unchanged and raw is not None and not target.uri:
        return raw
    path = request.uri
    head = b""
    # A URI that was changed inside the location replaces the whole.
    if target.uri and request.valid_location and path.startswith(location):
        head, path = target.uri, path[len(location) :]
    # nginx escapes what had been escaped, or is of its own making; the rest stays as it came.
    if not unchanged or request.internal or b"%" in request.head.target.partition(b"?")[0]:
        path = escape_uri(path)
    whole = head + path
    if request.args:
        whole += b"?" + request.args
    return _safe(whole)


def _origin_form(target: bytes) -> bytes | None:
    try:
        return split_absolute(target)[1]
    except BadTarget:
        return None


def _unchanged(request: Request, raw: bytes) -> bool:
    """Whether the request still asks for what the client asked for."""
    try:
        return normalise(raw) == (request.uri, request.args)
    except BadTarget:
        return False


def _safe(target: bytes) -> bytes:
    return _UNSAFE.sub(lambda match: b"%%%02X" % ord(match[0]), target)
