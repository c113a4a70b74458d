r"""PCRE patterns, as nginx's configuration has them, as Python patterns over bytes.

The two dialects agree on most; what differs is translated: ``(?<name>...)``, ``(?'name'...)``,
``\k<name>``, POSIX classes, ``\Q...\E``, ``\h \v \H \V \R \z \Z \e \x{..} \g{..}``, and options
in the middle of a pattern (``a(?i)b``). What Python's engine can't do (recursion, ``\K``, branch
reset, verbs, look-behind of varying length) is an error when the configuration is read.

PCRE matches bytes unless told otherwise, and so does this: a character outside ASCII is the
bytes of its UTF-8.
"""

from __future__ import annotations

import re
import string
import warnings
from typing import Final

from attrs import Factory, define

from .errors import Invalid
from .variables import encode

_ESCAPES: Final = {
    "z": r"\Z",
    "Z": r"(?=\n?\Z)",
    "e": r"\x1b",
    "h": r"[\t \xa0]",
    "H": r"[^\t \xa0]",
    "v": r"[\n\x0b\x0c\r\x85]",
    "V": r"[^\n\x0b\x0c\r\x85]",
    "R": r"(?>\r\n|[\n\x0b\x0c\r\x85])",
    "N": r"[^\n]",
}
_CLASS_ESCAPES: Final = {"e": r"\x1b", "h": r"\t \xa0", "v": r"\n\x0b\x0c\r\x85"}

_POSIX: Final = {
    "alnum": string.digits + string.ascii_letters,
    "alpha": string.ascii_letters,
    "ascii": "".join(map(chr, range(128))),
    "blank": "\t ",
    "cntrl": "".join(map(chr, range(32))) + "\x7f",
    "digit": string.digits,
    "graph": string.digits + string.ascii_letters + string.punctuation,
    "lower": string.ascii_lowercase,
    "print": string.digits + string.ascii_letters + string.punctuation + " ",
    "punct": string.punctuation,
    "space": "\t\n\x0b\x0c\r ",
    "upper": string.ascii_uppercase,
    "word": string.digits + string.ascii_letters + "_",
    "xdigit": string.hexdigits,
}

_NAME = r"[A-Za-z_][A-Za-z0-9_]*"
_GROUP = re.compile(rf"\(\?(?:P?<({_NAME})>|'({_NAME})')")
_OPTIONS = re.compile(r"\(\?([imsx]*)(?:-([imsx]+))?\)")
_NAMED_BACK = re.compile(rf"\\(?:k<({_NAME})>|k'({_NAME})'|[kg]\{{({_NAME})\}})")
_NUMBERED_BACK = re.compile(r"\\g(?:(\d+)|\{(\d+)\})")
_HEX = re.compile(r"\\x(?:\{([0-9A-Fa-f]{1,2})\}|([0-9A-Fa-f]{0,2}))")
_LITERAL = re.compile(r"\\Q(.*?)(?:\\E|$)", re.DOTALL)
_POSIX_CLASS = re.compile(r"\[:(\^?)([a-z]+):\]")


def compile_pattern(pattern: str, *, ignore_case: bool = False) -> re.Pattern[bytes]:
    """Compile a PCRE ``pattern``; ``ignore_case`` as for ``location ~*``. Raises `Invalid`."""
    source = encode(_Translation(pattern).run())
    try:
        with warnings.catch_warnings():
            # "Possible nested set": PCRE has no set operations either, so "[[" is a plain one.
            warnings.simplefilter("ignore", FutureWarning)
            return re.compile(source, re.IGNORECASE if ignore_case else 0)
    except (re.error, OverflowError, RecursionError) as error:
        reason = error.msg if isinstance(error, re.error) else "regular expression is too large"
        raise _invalid(reason, pattern) from None


def names(pattern: str) -> tuple[str, ...]:
    """The named captures of ``pattern``, in order. Raises `Invalid`."""
    return tuple(compile_pattern(pattern).groupindex)


def _invalid(reason: str, pattern: str) -> Invalid:
    return Invalid(f'pcre2_compile() failed: {reason} in "{pattern}"')


@define
class _Translation:
    """One walk over a pattern. ``open`` has, for each open group, the options set inside it.

    Python takes options only for a whole group, so those in the middle become a group that
    reaches to the end of the enclosing one; at each ``|`` there it is closed and opened again,
    since in PCRE they hold for the following branches too.
    """

    pattern: str
    position: int = 0
    out: list[str] = Factory(list)
    open: list[list[str]] = Factory(lambda: [[]])

    def run(self) -> str:
        while self.position < len(self.pattern):
            character = self.pattern[self.position]
            if character == "\\":
                self._escape()
            elif character == "[":
                self._character_class()
            elif character == "(":
                self._group()
            elif character == ")":
                self._emit(")" * len(self.open[-1]) + ")")
                if len(self.open) > 1:
                    self.open.pop()
            elif character == "|":
                options = self.open[-1]
                self._emit(")" * len(options) + "|" + "".join(options))
            elif self.pattern.startswith("{,", self.position):
                self._emit(r"\{")  # Python reads "{,3}" as "{0,3}", PCRE literally
            else:
                self._emit(character)
        self.out.append(")" * len(self.open[-1]))
        return "".join(self.out)

    def _emit(self, text: str, length: int = 1) -> None:
        self.out.append(text)
        self.position += length

    def _match(self, expression: re.Pattern[str]) -> re.Match[str] | None:
        return expression.match(self.pattern, self.position)

    def _group(self) -> None:
        options = self._match(_OPTIONS)
        if options is not None:
            opened = f"(?{options[1]}{'-' + options[2] if options[2] else ''}:"
            self.open[-1].append(opened)
            self._emit(opened, len(options[0]))
            return
        self.open.append([])
        named = self._match(_GROUP)
        if named is not None:
            self._emit(f"(?P<{named[1] or named[2]}>", len(named[0]))
        elif self.pattern.startswith("(?#", self.position):
            end = self.pattern.find(")", self.position)
            end = len(self.pattern) if end < 0 else end
            self._emit(self.pattern[self.position : end], end - self.position)
        else:
            self._emit("(")

    def _escape(self) -> None:
        following = self.pattern[self.position + 1 : self.position + 2]
        if following == "Q":
            literal = self._match(_LITERAL)
            assert literal is not None
            self._emit(re.escape(literal[1]), len(literal[0]))
        elif named := self._match(_NAMED_BACK):
            self._emit(f"(?P={named[1] or named[2] or named[3]})", len(named[0]))
        elif numbered := self._match(_NUMBERED_BACK):
            # In a group, so that a digit after it is not taken for a part of the number.
            self._emit(f"(?:\\{numbered[1] or numbered[2]})", len(numbered[0]))
        elif following == "x":
            self._hexadecimal()
        elif following in _ESCAPES:
            self._emit(_ESCAPES[following], 2)
        else:
            self._emit("\\" + following, 2)

    def _hexadecimal(self) -> None:
        match = self._match(_HEX)
        assert match is not None
        self._emit(f"\\x{int(match[1] or match[2] or '0', 16):02x}", len(match[0]))

    def _character_class(self) -> None:
        """``[...]``: a "]" that comes first is an ordinary member."""
        self._emit("[")
        if self.pattern.startswith("^", self.position):
            self._emit("^")
        if self.pattern.startswith("]", self.position):
            self._emit(r"\]")
        while self.position < len(self.pattern):
            character = self.pattern[self.position]
            if character == "]":
                self._emit("]")
                return
            posix = self._match(_POSIX_CLASS)
            if posix is not None:
                self._posix(posix)
            elif character == "\\":
                self._class_escape()
            else:
                self._emit(character)

    def _posix(self, match: re.Match[str]) -> None:
        members = _POSIX.get(match[2])
        if members is None:
            raise _invalid("unknown POSIX class name", self.pattern)
        if match[1]:
            members = "".join(chr(n) for n in range(256) if chr(n) not in members)
        self._emit("".join(f"\\x{ord(member):02x}" for member in members), len(match[0]))

    def _class_escape(self) -> None:
        following = self.pattern[self.position + 1 : self.position + 2]
        if following == "x":
            self._hexadecimal()
        elif following in ("Q", "E"):
            raise _invalid("\\Q...\\E in a class is not supported", self.pattern)
        else:
            self._emit(_CLASS_ESCAPES.get(following, "\\" + following), 2)
