"""Configuration errors in nginx's words and form."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen

from .ast import Directive


class Invalid(ValueError):
    """Raised by a converter: the message only; the loader adds file and line.

    They are those of ``where``, a line inside a free block (``types``), or of the directive.
    ``further`` is what else is wrong inside of it.
    """

    def __init__(
        self, message: str, where: Directive | None = None, further: Sequence[Invalid] = ()
    ) -> None:
        super().__init__(message)
        self.where = where
        self.further = tuple(further)


@frozen
class Problem:
    """One error or warning and its place. ``str()`` is nginx's form: ``MESSAGE in FILE:LINE``.

    What has no place (the main configuration file can't be opened) has an empty ``file``.
    """

    message: str
    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.message} in {self.file}:{self.line}" if self.file else self.message


class ConfigurationError(Exception):
    """Everything that is wrong with a configuration, all of it at once."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems: tuple[Problem, ...] = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))
