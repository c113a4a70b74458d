"""The configuration as written: words and directives, with their place in the file."""

from __future__ import annotations

from attrs import frozen


@frozen
class Word:
    """One word of a directive, unescaped.

    ``quoted`` tells ``"if"`` from ``if``: nginx's lexer forgets it, we keep it.
    """

    text: str
    quoted: bool = False


@frozen
class Directive:
    """One directive: its name, its words, where it stands, and its block if it has one."""

    name: str
    words: tuple[Word, ...]
    file: str
    line: int
    block: tuple[Directive, ...] | None = None

    @property
    def args(self) -> tuple[str, ...]:
        """The words' texts."""
        return tuple(word.text for word in self.words)
