"""``--root`` and ``--port``: what the command line changes in a configuration as written."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from attrs import evolve

from imagefarm.config.ast import Directive, Word

Path = tuple[str, ...]


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
    gets one. The ``root`` of a ``resizer`` block is replaced as well.
    """
    levels: tuple[Path, ...] = (("http",), ("http", "server"), ("resizer",))
    replaced = {
        directive.args[:1]
        for outer, directive in _walk(directives)
        if directive.name == "root" and outer in levels
    }

    def change(outer: Path, directive: Directive) -> Directive:
        if directive.name == "root" and directive.args[:1] in replaced:
            return evolve(directive, words=(Word(root, quoted=True),))
        if outer == () and directive.name == "http" and not replaced:
            added = Directive("root", (Word(root, quoted=True),), "--root", 1)
            return evolve(directive, block=(added, *(directive.block or ())))
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


def _is_tls(outer: Directive, listen: Directive) -> bool:
    old_form = any(d.name == "ssl" and d.args == ("on",) for d in outer.block or ())
    return old_form or "ssl" in listen.args[1:]


def override_port(
    directives: tuple[Directive, ...], port: int | None, tls_port: int | None
) -> tuple[Directive, ...]:
    """Listen on ``port`` instead of every plain port given, on ``tls_port`` for TLS ones."""

    def listen(outer: Directive, directive: Directive) -> Directive:
        if directive.name != "listen" or not directive.words:
            return directive
        wanted = tls_port if _is_tls(outer, directive) else port
        if wanted is None:
            return directive
        first = evolve(directive.words[0], text=_with_port(directive.words[0].text, wanted))
        return evolve(directive, words=(first, *directive.words[1:]))

    def change(outer: Path, directive: Directive) -> Directive:
        if directive.name in ("server", "resizer") and directive.block is not None:
            block = tuple(listen(directive, inner) for inner in directive.block)
            return evolve(directive, block=block)
        return directive

    return _rewrite(directives, change)
