"""Browsers of long ago, told by User-Agent as nginx tells them."""

from __future__ import annotations

from .headers import Headers
from .message import RequestHead


def disables_keepalive(browsers: frozenset[str], head: RequestHead) -> bool:
    """Whether ``keepalive_disable`` of these browsers forbids to keep this one's connection.

    Old MSIE may wait for a while for the answer to a POST on a kept connection; Safari may send
    one on a connection that has been closed.
    """
    if "msie6" in browsers and head.method == b"POST" and is_old_msie(head.headers):
        return True
    return "safari" in browsers and is_safari(head.headers)


def is_old_msie(headers: Headers) -> bool:
    """MSIE 4, 5, and 6 before the second service pack of Windows XP."""
    agent = headers.first(b"user-agent") or b""
    at = agent.find(b"MSIE ")
    if at < 0 or at + 7 >= len(agent) or agent[at + 6 : at + 7] != b"." or b"Opera" in agent:
        return False
    version = agent[at + 5 : at + 6]
    return version in (b"4", b"5") or (version == b"6" and b"SV1" not in agent[at + 8 :])


def is_safari(headers: Headers) -> bool:
    """Safari on macOS, and what can't be told from it."""
    agent = headers.first(b"user-agent") or b""
    at = agent.find(b"MSIE ")
    if (at >= 0 and at + 7 < len(agent)) or b"Opera" in agent:
        return False
    if b"Gecko/" in agent or b"Chrome/" in agent:
        return False
    return b"Safari/" in agent and b"Mac OS X" in agent
