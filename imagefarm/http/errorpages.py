"""nginx's built-in pages for errors and redirects, with our name at the foot.

The wording is nginx's (``ngx_http_special_response.c``): monitoring and clients match on it.
"""

from __future__ import annotations

import re
from typing import Final

from imagefarm import __version__
from imagefarm.config.table import HSL, AnyRow, Ignored, Row
from imagefarm.config.values import flag
from imagefarm.config.variables import Template

from .headers import Headers
from .message import Request, Response

MSIE_PADDING: Final = Row[bool](
    name="msie_padding",
    contexts=HSL,
    convert=flag,
    default=True,
    syntax="on | off",
    doc="Pads the built-in error pages above 512 bytes for MSIE and Chrome, which would "
    "otherwise show pages of their own.",
)
DIRECTIVES: Final[tuple[AnyRow, ...]] = (
    MSIE_PADDING,
    Ignored(
        name="msie_refresh",
        contexts=HSL,
        why="no browser in use needs a refresh page in place of a redirect",
    ),
)

_TITLES: Final = {
    301: b"301 Moved Permanently",
    302: b"302 Found",
    303: b"303 See Other",
    307: b"307 Temporary Redirect",
    308: b"308 Permanent Redirect",
    400: b"400 Bad Request",
    401: b"401 Authorization Required",
    402: b"402 Payment Required",
    403: b"403 Forbidden",
    404: b"404 Not Found",
    405: b"405 Not Allowed",
    406: b"406 Not Acceptable",
    408: b"408 Request Time-out",
    409: b"409 Conflict",
    410: b"410 Gone",
    411: b"411 Length Required",
    412: b"412 Precondition Failed",
    413: b"413 Request Entity Too Large",
    414: b"414 Request-URI Too Large",
    415: b"415 Unsupported Media Type",
    416: b"416 Requested Range Not Satisfiable",
    421: b"421 Misdirected Request",
    429: b"429 Too Many Requests",
    500: b"500 Internal Server Error",
    501: b"501 Not Implemented",
    502: b"502 Bad Gateway",
    503: b"503 Service Temporarily Unavailable",
    504: b"504 Gateway Time-out",
    505: b"505 HTTP Version Not Supported",
    507: b"507 Insufficient Storage",
}
#: nginx's own status for a request that came without TLS where TLS is spoken.
PLAIN_TO_TLS: Final = 497
#: nginx's own codes: 400 for the client, with a page that says why.
_BAD_REQUESTS: Final = {
    494: b"Request Header Or Cookie Too Large",
    495: b"The SSL certificate error",
    496: b"No required SSL certificate was sent",
    PLAIN_TO_TLS: b"The plain HTTP request was sent to HTTPS port",
}
_CONTROL: Final = re.compile(rb"[\0-\x1f\x7f]")
_PADDING: Final = b"<!-- a padding to disable MSIE and Chrome friendly error page -->\r\n" * 6
#: After these nginx closes the connection (``ngx_http_special_response_handler``).
CLOSING: Final = frozenset({400, 413, 414, 494, 495, 496, 497, 500, 501})


def server_token(tokens: bool | bytes) -> bytes:
    """What we call ourselves: with the version if ``server_tokens`` is on, or what it
    says, for a page.
    """
    if isinstance(tokens, bytes):
        return tokens.replace(b"&", b"&amp;").replace(b"<", b"&lt;").replace(b">", b"&gt;")
    return b"imagefarm/" + __version__.encode() if tokens else b"imagefarm"


def tokens_of(request: Request) -> bool | bytes:
    """``server_tokens`` for ``request``; what no field can hold is left out."""
    tokens = request.transfer.server_tokens
    if isinstance(tokens, Template):
        value = tokens(request)
        return b"" if _CONTROL.search(value) else value
    return tokens


def page(status: int, token: bytes, *, padded: bool = False) -> bytes:
    """The built-in page of ``status``; empty for a code that has none.

    ``token`` is the name at its foot. Only pages of errors are padded.
    """
    if status in _BAD_REQUESTS:
        title = b"400 " + _BAD_REQUESTS[status]
        lines = (
            b"<center><h1>400 Bad Request</h1></center>\r\n<center>%b</center>"
            % (_BAD_REQUESTS[status])
        )
    elif status in _TITLES:
        title = _TITLES[status]
        lines = b"<center><h1>%b</h1></center>" % title
    else:
        return b""
    return (
        b"<html>\r\n<head><title>%b</title></head>\r\n<body>\r\n%b\r\n"
        b"<hr><center>%b</center>\r\n</body>\r\n</html>\r\n%b"
    ) % (title, lines, token, _PADDING if padded and status >= 400 else b"")


def wants_padding(headers: Headers) -> bool:
    """Whether the User-Agent is MSIE or Chrome by nginx's reading."""
    agent = headers.first(b"user-agent")
    if agent is None:
        return False
    opera = b"Opera" in agent
    msie = agent.find(b"MSIE ")
    if msie >= 0 and msie + 7 < len(agent) and not opera:
        return True
    return not opera and b"Gecko/" not in agent and b"Chrome/" in agent


def error_response(request: Request, status: int, *, padding: bool = True) -> Response:
    """The built-in answer of ``status``, as nginx gives it where no ``error_page`` applies.

    nginx's own 494 to 497 are 400 to the client. ``padding`` is ``msie_padding``; the name at
    the foot follows ``server_tokens``. Redirects get their ``Location`` from the caller. Codes
    that nginx keeps no connection after close it.
    """
    padded = padding and request.head.version >= (1, 0) and wants_padding(request.head.headers)
    body = page(status, server_token(tokens_of(request)), padded=padded)
    headers = Headers([(b"Content-Type", b"text/html")] if body else [])
    return Response(
        status=400 if status in _BAD_REQUESTS else status,
        headers=headers,
        body=body,
        close=status in CLOSING,
    )
