"""``try_files``: the first of several files that exists, or else another way to answer."""

from __future__ import annotations

import os
import stat

from imagefarm.config.variables import Template
from imagefarm.http.message import Request, Response

from .actions import Action, InternalRedirect, NamedRedirect
from .location import Location, TryFiles


def _exists(path: bytes, directory: bool) -> bool:
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return False
    return stat.S_ISDIR(mode) if directory else stat.S_ISREG(mode)


def try_files(request: Request, rule: TryFiles) -> Action | None:
    """None if a file was found (the request's URI now names it), else where to go."""
    location: Location = request.location
    for number, (template, directory) in enumerate(rule.files):
        name = template(request)
        if number:
            request.plannable = False  # the one before may come into being
        if _exists(location.path(request, name), directory):
            request.uri = name  # a directory's name has no slash: static adds it by redirect
            return None
    last = rule.last
    if isinstance(last, int):
        return Response(last)
    if isinstance(last, Template):
        uri, _, args = last(request).partition(b"?")
        return InternalRedirect(uri, args)
    assert isinstance(last, NamedRedirect)
    return last
