"""``try_files``: the first of several files that exists, or else another way to answer."""

from __future__ import annotations

import stat

from attrs import evolve

from imagefarm.config.variables import Template
from imagefarm.http.message import Request, Response

from .actions import Action, InternalRedirect, NamedRedirect
from .location import Location, TryFiles


def _exists(request: Request, path: bytes, directory: bool) -> bool:
    location: Location = request.location
    mode = location.mode(request, path)
    return mode is not None and stat.S_ISDIR(mode) is directory


def _look(
    request: Request, location: Location, template: Template, name: bytes, directory: bool
) -> bool:
    """Whether the file is there; the request's URI then names it.

    A directory's name has no slash: the static handler adds it by a redirect. Under ``alias``
    the name follows the alias itself, so that a prefix got from ``$uri`` is taken off.
    """
    if location.alias is None:
        path, uri = location.path(request, name), name
        found = _exists(request, path, directory)
        if directory or "$" in template.source.replace("$uri", ""):
            request.plannable = False
        elif not found:
            location.witness(request, path, None)
    else:
        request.plannable = False
        alias, prefix = location.alias(request), request.uri[: len(location.prefix)]
        if template.constant is None and name.startswith(prefix):
            name = name[len(prefix) :]
        path = alias + name
        found, uri = _exists(request, path, directory), prefix + name
        if found and not location.prefix and not directory:
            # A regular expression's alias is the whole path: from here on it is this file's.
            request.location = evolve(location, alias=Template("", (path,), path))
    if found:
        request.uri = uri
    return found


def try_files(request: Request, rule: TryFiles) -> Action | None:
    """None if a file was found (the request's URI now names it), else where to go."""
    location: Location = request.location
    for template, directory in rule.files:
        name = template(request)
        if _look(request, location, template, name, directory):
            return None
    last = rule.last
    if isinstance(last, int):
        return Response(last)
    if isinstance(last, Template):
        uri, _, args = last(request).partition(b"?")
        return NamedRedirect(uri) if uri.startswith(b"@") else InternalRedirect(uri, args)
    assert isinstance(last, NamedRedirect)
    return last
