"""``--root`` and ``--port``: what the command line changes in a configuration as written."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Final

from attrs import evolve

from imagefarm.config.ast import Directive, Word

Path = tuple[str, ...]

#: How addresses begin that only this machine reaches.
_LOOPBACK: Final = ("127.", "localhost:", "[::1]", "unix:")

#: The blocks that listen, and where they stand.
_LISTENING: Final = ((("http",), "server"), ((), "resizer"))


def _walk(directives: tuple[Directive, ...], outer: Path = ()) -> Iterator[tuple[Path, Directive]]:
    for directive in directives:
        yield outer, directive
        if directive.block is not None:
            yield from _walk(directive.block, (*outer, directive.name))


def _rewrite(
    directives: tuple[Directive, ...],
    change: Callable[[Path, Directive], Directive],
    outer: Path = (),
) -> tuple[Directive, ...]:
    result = []
    for directive in directives:
        directive = change(outer, directive)
        if directive.block is not None:
            inner = _rewrite(directive.block, change, (*outer, directive.name))
            directive = evolve(directive, block=inner)
        result.append(directive)
    return tuple(result)


def override_root(directives: tuple[Directive, ...], root: str) -> tuple[Directive, ...]:
    """Serve files from ``root``.

    Every ``root`` whose path is one given at http or server level is replaced, wherever it
    stands; others (of error pages, of scripts) stay. Where there is none at these levels, http
    gets one. The ``root`` of a ``resizer`` block is replaced as well, or added.
    """
    levels: tuple[Path, ...] = (("http",), ("http", "server"))
    given = [(outer, inner) for outer, inner in _walk(directives) if inner.name == "root"]
    replaced = {directive.args[:1] for outer, directive in given if outer in levels}
    lacking = {
        name
        for name, places in (("http", levels), ("resizer", (("resizer",),)))
        if not any(outer in places for outer, _ in given)
    }

    def change(outer: Path, directive: Directive) -> Directive:
        if directive.name == "root" and (directive.args[:1] in replaced or outer == ("resizer",)):
            return evolve(directive, words=(Word(root, quoted=True),))
        if outer == () and directive.name in lacking and directive.block is not None:
            added = Directive("root", (Word(root, quoted=True),), "--root", 1)
            return evolve(directive, block=(added, *directive.block))
        return directive

    return _rewrite(directives, change)


def _with_port(text: str, port: int) -> str:
    if text.startswith("unix:"):
        return text
    if re.fullmatch(r"\d+", text, re.ASCII):
        return str(port)
    if text.startswith("["):
        return f"{text.partition(']')[0]}]:{port}"
    return f"{text.partition(':')[0]}:{port}"


def _ssl(block: tuple[Directive, ...], outer: bool) -> bool:
    """The old form: ``ssl on;`` in the block, or else around it."""
    words = [d.args for d in block if d.name == "ssl"]
    return words[-1] == ("on",) if words else outer


def override_port(
    directives: tuple[Directive, ...], port: int | None, tls_port: int | None
) -> tuple[Directive, ...]:
    """Listen on ``port`` instead of every plain port given, on ``tls_port`` for TLS ones.

    A virtual server that gives none gets one. What would be given twice then is given once. Where
    others listen for everybody, those on a loopback address (a dashboard) stay where they are.
    """
    texts = [
        inner.words[0].text
        for outer, inner in _walk(directives)
        if inner.name == "listen" and inner.words and outer == ("http", "server")
    ]
    loopback = {text for text in texts if text.startswith(_LOOPBACK)}
    kept = loopback if len(loopback) < len(set(texts)) else set()
    http = [d.block or () for d in directives if d.name == "http" and d.block is not None]
    outside = any(_ssl(block, False) for block in http)

    def listen(directive: Directive, tls: bool) -> Directive:
        if directive.words[0].text in kept:
            return directive
        wanted = tls_port if tls or "ssl" in directive.args[1:] else port
        if wanted is None:
            return directive
        first = evolve(directive.words[0], text=_with_port(directive.words[0].text, wanted))
        return evolve(directive, words=(first, *directive.words[1:]))

    def change(outer: Path, directive: Directive) -> Directive:
        if directive.block is None or (outer, directive.name) not in _LISTENING:
            return directive
        tls = _ssl(directive.block, outside)
        block: list[Directive] = []
        seen: set[str] = set()
        for inner in directive.block:
            if inner.name == "listen" and inner.words:
                inner = listen(inner, tls)
                if inner.args[0] in seen and inner not in directive.block:
                    continue
                seen.add(inner.args[0])
            block.append(inner)
        wanted = tls_port if tls else port
        if not seen and wanted is not None and outer == ("http",):
            block.append(Directive("listen", (Word(str(wanted)),), "--port", 1))
        return evolve(directive, block=tuple(block))

    return _rewrite(directives, change)
