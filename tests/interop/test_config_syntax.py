"""Our lexer against nginx's: the same texts, the same words or the same error in the same line."""

from __future__ import annotations

import random
import re
import subprocess
from pathlib import Path

from imagefarm.config.lexer import lex_all
from tests.support.stages import StagedCase
from tests.support.tools import nginx

TEXTS = 250
PIECES = (
    "a", "b", " ", "\n", "\t", "\r", ";", "{", "}", '"', "'", "\\", "$", "#", "(", ")", "${",
    "\\n", '\\"', "\\\\", " 'x' ", '"y"', "a;",
)  # fmt: skip
_EMERG = re.compile(r"\[emerg\] [^:]*: (.*?) in [^\n]*/x\.conf:(\d+)\n", re.DOTALL)
_WORD = re.compile(r'invalid event type "(.*)"', re.DOTALL)


class Syntax(StagedCase):
    """``use`` is the directive because nginx's error repeats the word that it has read."""

    def setUp(self) -> None:
        self.nginx = nginx()
        self.dir = Path(self.mktemp()).absolute()
        self.dir.mkdir()

    def judge(self, text: str) -> tuple[str, int]:
        """nginx's error and its line."""
        file = self.dir / "x.conf"
        file.write_bytes(text.encode())
        done = subprocess.run(
            [self.nginx, "-t", "-p", str(self.dir), "-e", "stderr", "-c", str(file)],
            capture_output=True,
            check=False,
        )
        match = _EMERG.search(done.stderr.decode())
        assert match is not None, (text, done.stderr)
        return match[1], int(match[2])

    def test_random_texts(self) -> None:
        chance = random.Random(1)
        words = errors = 0
        for _ in range(TEXTS):
            soup = "".join(chance.choices(PIECES, k=chance.randint(1, 10)))
            text = f"events {{\nuse {soup};\nuse;\n}}\n"
            message, line = self.judge(text)
            lexed = lex_all(text, "f")
            if message.startswith("unexpected"):
                first = lexed.problems[0]
                self.assertEqual((first.message, first.line), (message, line), text)
                errors += 1
            elif word := _WORD.fullmatch(message):
                first_use = (lexed.directives[0].block or ())[0]
                self.assertEqual((first_use.name, first_use.args), ("use", (word[1],)), text)
                words += 1
        # Had the texts been dull, there would have been nothing to compare.
        self.assertGreater(words, TEXTS // 10)
        self.assertGreater(errors, TEXTS // 10)
