r"""nginx.conf text to directives. Sans-IO: the caller reads the files.

The strategy: one regular expression finds the next token, a stack holds the open blocks. The
grammar is that of nginx's ``ngx_conf_read_token``:

* a word in quotes begins where a word may begin; what follows it is white space, ``;``, ``{`` or
  ``)``, which begins the next word (``if ($a = "b")``);
* any other word ends at white space, ``;`` or ``{``, so ``location ~^/x/{`` needs no space, but
  the braces after a ``$`` belong to the word (``${name}``), and ``}``, ``#`` and quotes inside a
  word are ordinary characters;
* a backslash takes the next character along, and ``\" \' \\ \t \r \n`` are replaced by what
  they mean, in quotes and out of them; before any other character the backslash stays, which is
  what regular expressions need (``\.``, ``\d``, ``\ ``).

Beyond nginx: a byte order mark is skipped, a long comment is no error, and reading goes on after
an error so that several can be reported.
"""

from __future__ import annotations

import re
from typing import Final

from attrs import Factory, define, frozen

from .ast import Directive, Word
from .errors import ConfigurationError, Problem

#: The longest word, in bytes as written (nginx's ``NGX_CONF_BUFFER`` less one).
MAX_WORD: Final = 4095
#: How deep blocks may nest, so that recursive readers of the tree are safe.
MAX_DEPTH: Final = 64

_SPACE = r"[ \t\r\n]"
_TOKEN = re.compile(
    rf"""
      (?P<skip>  {_SPACE}+ | \#[^\n]* )
    | (?P<mark>  [;{{}}] )
    | (?P<quote> ["'] )
    | (?P<word>  (?: \\. | \$\{{* | [^ \t\r\n;{{\\$] )+ )
    """,
    re.VERBOSE | re.DOTALL,
)
_QUOTED = {
    '"': re.compile(r'((?:[^"\\]|\\.)*)"', re.DOTALL),
    "'": re.compile(r"((?:[^'\\]|\\.)*)'", re.DOTALL),
}
_ESCAPE = re.compile(r"""\\(["'\\trn])""")
_ESCAPES = {"t": "\t", "r": "\r", "n": "\n"}

_END_OF_WORDS = 'unexpected end of file, expecting ";" or "}"'
_END_OF_BLOCK = 'unexpected end of file, expecting "}"'


@frozen
class Lexed:
    """What could be read of a text, and what is wrong with it, in the order of the lines."""

    directives: tuple[Directive, ...]
    problems: tuple[Problem, ...]


def lex(text: str, file: str) -> tuple[Directive, ...]:
    """The directives of ``text``, which came from ``file``. Raises `ConfigurationError`."""
    lexed = lex_all(text, file)
    if lexed.problems:
        raise ConfigurationError(lexed.problems)
    return lexed.directives


def lex_all(text: str, file: str) -> Lexed:
    """Like `lex`, but returns the problems beside whatever could be read."""
    return _Lexer(text.removeprefix("\ufeff"), file).run()


def unescape(raw: str) -> str:
    """A word as nginx means it, from the word as it stands in the file without its quotes."""
    return _ESCAPE.sub(lambda match: _ESCAPES.get(match[1], match[1]), raw)


@define
class _Block:
    """An open block: the directive that opened it and what it holds so far."""

    name: str
    words: tuple[Word, ...]
    line: int
    inner: list[Directive] = Factory(list)
    #: Opened by a stray "{": read for its errors, then dropped.
    stray: bool = False


@define
class _Lexer:
    text: str
    file: str
    position: int = 0
    line: int = 1
    #: The words since the last ";", "{" or "}", and the line of the first.
    words: list[Word] = Factory(list)
    started: int = 0
    stack: list[_Block] = Factory(list)
    problems: list[Problem] = Factory(list)
    #: Nothing after this would make sense.
    given_up: bool = False

    def run(self) -> Lexed:
        top = _Block("", (), 0)
        self.stack.append(top)
        while self.position < len(self.text) and not self.given_up:
            match = _TOKEN.match(self.text, self.position)
            if match is None:  # a backslash at the very end
                self._start()
                self.words.append(Word("\\"))
                break
            if match["quote"]:
                if not self._quoted(match["quote"]):
                    break
                continue
            if match["word"]:
                self._word(match["word"], quoted=False)
            elif match["mark"]:
                self._mark(match["mark"])
            self._advance(match.end())
        if not self.given_up:
            self._end()
        while len(self.stack) > 1:
            self._close()
        return Lexed(tuple(top.inner), tuple(self.problems))

    def _end(self) -> None:
        self.line += self.text.count("\n", self.position)
        if self.words:
            self._problem(_END_OF_WORDS)
        elif len(self.stack) > 1:
            self._problem(_END_OF_BLOCK)

    def _advance(self, end: int) -> None:
        self.line += self.text.count("\n", self.position, end)
        self.position = end

    def _problem(self, message: str) -> None:
        self.problems.append(Problem(message, self.file, self.line))

    def _start(self) -> None:
        if not self.words:
            self.started = self.line

    def _word(self, raw: str, *, quoted: bool, quote: str = "") -> None:
        self._start()
        if len(raw) > MAX_WORD // 4 and len(_bytes(raw)) > MAX_WORD:
            self._problem(
                f"too long parameter, probably missing terminating {_shown(quote)} character"
                if quoted
                else f'too long parameter "{raw[:10]}..." started'
            )
        if "\0" in raw:  # no word of ours may hold one, least of all a path
            self._problem("unexpected NUL")
        self.words.append(Word(unescape(raw), quoted))

    def _quoted(self, quote: str) -> bool:
        """Read a word in quotes; False if it has no end."""
        match = _QUOTED[quote].match(self.text, self.position + 1)
        if match is None:
            rest = self.text[self.position + 1 :]
            self._word(rest, quoted=True, quote=quote)
            return False
        self._word(match[1], quoted=True, quote=quote)
        self._advance(match.end())
        following = self.text[self.position : self.position + 1]
        if following and following not in " \t\r\n;{)":
            self._problem(f"unexpected {_shown(following)}")
        return True

    def _mark(self, mark: str) -> None:
        if mark == "}":
            # nginx stops at either; we take the block as closed.
            if self.words or len(self.stack) == 1:
                self._problem('unexpected "}"')
                self.words.clear()
            if len(self.stack) > 1:
                self._close()
            return
        stray = not self.words
        if stray:
            self._problem(f"unexpected {_shown(mark)}")
        if mark == "{":
            self._open(stray)
        elif not stray:
            name, *rest = self.words
            self._add(Directive(name.text, tuple(rest), self.file, self.started))
        self.words.clear()

    def _open(self, stray: bool) -> None:
        name = "" if stray else self.words[0].text
        line = self.line if stray else self.started
        self.stack.append(_Block(name, tuple(self.words[1:]), line, stray=stray))
        if len(self.stack) > MAX_DEPTH + 1:
            self._problem(f"blocks are nested deeper than {MAX_DEPTH}")
            self.given_up = True

    def _close(self) -> None:
        block = self.stack.pop()
        if not block.stray:
            inner = tuple(block.inner)
            self._add(Directive(block.name, block.words, self.file, block.line, inner))

    def _add(self, directive: Directive) -> None:
        self.stack[-1].inner.append(directive)


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _shown(character: str) -> str:
    return f'"{character}"'
