"""Configuration files to directives, with every ``include`` expanded in its place.

As in nginx, ``include`` may stand in any block, also in those whose lines are data (``types``);
a relative name is relative to the directory of the main configuration file, wherever the
``include`` stands; a pattern takes its files in the order of their names, and may match none.
A file that is not there is looked for among the shipped ones (``mime.types``,
``fastcgi_params``). This is the only module of the package that reads files.
"""

from __future__ import annotations

import errno
import glob
import os
from collections.abc import Iterable, Sequence
from typing import Final

from attrs import Factory, define, evolve, frozen

from .ast import Directive
from .errors import ConfigurationError, Problem
from .lexer import lex_all

#: How many files one configuration may read, counting each time one is included.
MAX_FILES: Final = 10_000


@frozen
class Parsed:
    """A configuration as written, includes expanded, and the syntax errors met on the way.

    The errors are kept, not raised, so that the loader can add its own and report them together.
    ``files`` has the names of the files in the order in which they were first read.
    """

    directives: tuple[Directive, ...]
    problems: tuple[Problem, ...] = ()
    files: tuple[str, ...] = ()

    def check(self) -> tuple[Directive, ...]:
        """The directives. Raises `ConfigurationError` if there were errors."""
        if self.problems:
            raise ConfigurationError(self.problems)
        return self.directives


def parse_file(path: str, *, fallback_dirs: Sequence[str] = ()) -> Parsed:
    """Read the main configuration file. Never raises for what the files hold or lack."""
    path = os.path.abspath(path)
    reader = _Reader(os.path.dirname(path), tuple(fallback_dirs))
    directives = reader.read(path, None)
    return reader.parsed(directives)


def parse_text(
    text: str, name: str, *, conf_dir: str = ".", fallback_dirs: Sequence[str] = ()
) -> Parsed:
    """Read a text that is no file, such as ``--set``; ``name`` takes the place of a file name."""
    reader = _Reader(os.path.abspath(conf_dir), tuple(fallback_dirs))
    return reader.parsed(reader.text(text, name))


@define
class _Reader:
    conf_dir: str
    fallback_dirs: tuple[str, ...]
    problems: list[Problem] = Factory(list)
    #: Name to how often it was read; its order is that of first reading.
    files: dict[str, int] = Factory(dict)
    #: The real paths of the files being read, from the main one inwards.
    trail: list[str] = Factory(list)

    def parsed(self, directives: tuple[Directive, ...]) -> Parsed:
        return Parsed(directives, tuple(self.problems), tuple(self.files))

    def read(self, path: str, include: Directive | None) -> tuple[Directive, ...]:
        """The directives of a file that ``include`` names, or of the main file."""
        real = os.path.realpath(path)
        if real in self.trail:
            self._problem(f'"{path}" includes itself', include)
            return ()
        if sum(self.files.values()) >= MAX_FILES:
            if include is not None:
                self._problem(f"more than {MAX_FILES} files included", include)
            return ()
        try:
            with open(path, encoding="utf-8", errors="surrogateescape", newline="") as file:
                content = file.read()
        except OSError as error:
            self._problem(_failed(path, error), include)
            return ()
        self.trail.append(real)
        try:
            return self.text(content, path)
        finally:
            self.trail.pop()

    def text(self, content: str, name: str) -> tuple[Directive, ...]:
        self.files[name] = self.files.get(name, 0) + 1
        lexed = lex_all(content, name)
        self.problems.extend(lexed.problems)
        return self._expand(lexed.directives)

    def _expand(self, directives: Iterable[Directive]) -> tuple[Directive, ...]:
        expanded: list[Directive] = []
        for directive in directives:
            if directive.name == "include":
                expanded.extend(self._include(directive))
            elif directive.block is not None:
                expanded.append(evolve(directive, block=self._expand(directive.block)))
            else:
                expanded.append(directive)
        return tuple(expanded)

    def _include(self, directive: Directive) -> list[Directive]:
        if directive.block is not None:
            self._problem('directive "include" is not terminated by ";"', directive)
            return []
        if len(directive.words) != 1:
            self._problem('invalid number of arguments in "include" directive', directive)
            return []
        wanted = directive.words[0].text
        if "\0" in wanted:
            return []  # the lexer has said so
        path = os.path.join(self.conf_dir, wanted)
        if any(character in path for character in "*?["):
            found = sorted(glob.glob(path), key=os.fsencode)
        else:
            found = [self._shipped(wanted, path)]
        return [inner for name in found for inner in self.read(name, directive)]

    def _shipped(self, wanted: str, path: str) -> str:
        """``path``, or where it does not exist and we ship one of that name, that one."""
        if not os.path.isabs(wanted) and not os.path.lexists(path):
            for directory in self.fallback_dirs:
                candidate = os.path.join(directory, wanted)
                if os.path.isfile(candidate):
                    return candidate
        return path

    def _problem(self, message: str, directive: Directive | None) -> None:
        file, line = (directive.file, directive.line) if directive is not None else ("", 0)
        self.problems.append(Problem(message, file, line))


def _failed(path: str, error: OSError) -> str:
    """``open() "FILE" failed (2: No such file or directory)``."""
    call = "read()" if error.errno == errno.EISDIR else "open()"
    return f'{call} "{path}" failed ({error.errno}: {error.strerror})'
