"""What regular expressions have found in a request."""

from __future__ import annotations

import re

from .message import Request


def remember(request: Request, match: re.Match[bytes]) -> None:
    """Make a match's captures the request's from here on: ``$1``... and the named ones."""
    request.captures = match
    for name, value in match.groupdict().items():
        request.variables[name.lower()] = value or b""
