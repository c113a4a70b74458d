"""``imagefarm sign`` and ``imagefarm warm`` against a real farm."""

from __future__ import annotations

import contextlib
import io
import os
import sys

from attrs import frozen

from imagefarm import command
from imagefarm.app.tools import COMMANDS, warm
from tests.functional.test_dialects import SRC, served
from tests.support.stages import StagedCase

SIZES = ("-s", "w=90&fmt=png", "-s", "w=80")


@frozen
class Done:
    returncode: int
    stdout: str
    stderr: str


def run(*words: str, given: str = "") -> Done:
    """Run a command in this process."""
    out, err = io.StringIO(), io.StringIO()
    stdin, sys.stdin = sys.stdin, io.StringIO(given)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = COMMANDS[words[0]](words[1:])
    finally:
        sys.stdin = stdin
    return Done(status, out.getvalue(), err.getvalue())


class Commands(StagedCase):
    def test_they_are_commands_of_imagefarm(self) -> None:
        for name in COMMANDS:
            with contextlib.redirect_stdout(io.StringIO()) as out:
                self.assertRaises(SystemExit, command.main, ["imagefarm", name, "-h"])
            self.assertIn(f"usage: imagefarm {name}", out.getvalue())

    def test_a_terminal_of_few_letters(self) -> None:
        raw = io.BytesIO()
        with contextlib.redirect_stdout(io.TextIOWrapper(raw, "ascii", write_through=True)):
            status = command.main(["imagefarm", "explain", "http://localhost/\xfc"])
            self.assertEqual(status, 0)
            self.assertIn(rb"http://localhost/\xfc", raw.getvalue())


class Sign(StagedCase):
    def sign(self, *words: str) -> Done:
        return run("sign", "-c", str(served().conf("resizer.conf")), *words)

    def test_signed_urls_are_answered(self) -> None:
        done = self.sign(
            "-l", "/resize/signed/", "-e", "600", f"src={SRC}&w=70", f"src={SRC}&preset=thumb"
        )
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        queries = done.stdout.splitlines()
        self.assertEqual(len(queries), 2)
        for query in queries:
            self.assertIn("&expires=", query)
            self.assertEqual(served().get(f"/resize/signed/?{query}").status, 200)

    def test_the_source_in_the_path(self) -> None:
        path = f"/resize/signed/{SRC}"
        query = self.sign("-l", path, "w=71").stdout.strip()
        self.assertEqual(served().get(f"{path}?{query}").status, 200)

    def test_what_cannot_be_signed(self) -> None:
        for words, line in [
            (("-l", "/resize/signed/", "src=a&w=-1"), "w must be a whole number from 1 to 8192"),
            (("src=a",), 'there is no "signing_key" for "/"'),
            (("-c", "nothing.conf", "src=a"), "nothing.conf"),
        ]:
            done = self.sign(*words)
            self.assertEqual((done.returncode, done.stdout), (1, ""))
            self.assertIn(line, done.stderr)


class Warm(StagedCase):
    def test_what_cannot_be_asked_for(self) -> None:
        for words, why in (
            (("-u", "http://h:99999/", "-s", "w=9"), "is not a URL: Port out of range"),
            (("-u", "http://[::1", "-s", "w=9"), "is not a URL: Invalid IPv6 URL"),
            (("-u", "h/resize", "-s", "w=9"), "is not a URL with http:// or https://"),
            (("-s", "w=9 9"), "is no query"),
            (("-s", "wm=\xfc"), "is no query"),
        ):
            err = io.StringIO()
            with contextlib.redirect_stderr(err):
                self.assertRaises(SystemExit, COMMANDS["warm"], [*words, "/a.jpg"])
            self.assertIn(why, err.getvalue())

    def test_what_was_not_foreseen(self) -> None:
        """Such as a host that is no name: the resolver raises what is no OSError."""
        originals = [f"/{number}.jpg" for number in range(9)]
        done = run("warm", "-u", "http://a..b/", "-s", "w=9", *originals)
        self.assertEqual(done.returncode, 1, done.stderr)
        (line,) = (line for line in done.stderr.splitlines() if line.startswith("imagefarm: "))
        self.assertIn("ended early, 9 originals are not done: UnicodeError: ", line)
        self.assertNotIn("Traceback", done.stderr)

    def warm(self, *words: str, given: str = "") -> Done:
        url = f"http://127.0.0.1:{served().ports.http}/resize"
        return run("warm", "-u", url, *SIZES, *words, given=given)

    def test_all_sizes_are_in_the_cache(self) -> None:
        originals = ("/photos/grey.jpg", "/graphics/testcard.png")
        journal = self.mktemp()
        done = self.warm("-r", os.path.abspath(journal), "-", given="\n".join(originals))
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("2/2 originals, 0 failed", done.stderr)
        with open(journal) as file:
            head, *rest = file.read().splitlines()
        self.assertEqual(head, "sizes w=90&fmt=png w=80")
        self.assertEqual(sorted(rest), sorted(originals))
        host = f"127.0.0.1:{served().ports.http}"
        for original in originals:
            for size in SIZES[1::2]:
                answer = served().get(f"/resize?src={original}&{size}", host=host)
                self.assertEqual((answer.status, answer.header("x-cache-status")), (200, "HIT"))

    def test_as_find_names_them(self) -> None:
        """They are asked for as clients ask: with a slash in front."""
        done = self.warm("-", given="photos/cmyk.jpg\n./photos/dawn.webp\n")
        self.assertEqual(done.returncode, 0, done.stderr)
        host = f"127.0.0.1:{served().ports.http}"
        for original in ("/photos/cmyk.jpg", "/photos/dawn.webp"):
            answer = served().get(f"/resize?src={original}&w=80", host=host)
            self.assertEqual((answer.status, answer.header("x-cache-status")), (200, "HIT"))

    def test_it_goes_on_where_it_stopped(self) -> None:
        journal = os.path.abspath(self.mktemp())
        with open(journal, "w") as file:
            file.write("sizes w=90&fmt=png w=80\n/gone.jpg\n")
        done = self.warm("-r", journal, "/gone.jpg", "/photos/grey.jpg")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("2/2 originals, 0 failed", done.stderr)

    def test_the_keyboard(self) -> None:
        """Ctrl-C: what is under way is finished, and the next run makes the rest."""

        def interrupt(*_: object) -> None:
            raise KeyboardInterrupt

        journal = os.path.abspath(self.mktemp())
        originals = [f"/{'./' * number}photos/grey.jpg" for number in range(300)]
        self.patch(warm, "_show", interrupt)
        done = self.warm("-r", journal, *originals)
        self.assertEqual(done.returncode, 1)
        *_, line = done.stderr.splitlines()
        self.assertRegex(
            line, r"ended early, \d+ originals are not done: InterruptedError: by the keyboard$"
        )
        with open(journal) as file:
            written = len(file.read().splitlines()) - 1
        self.assertIn(f"ended early, {300 - written} originals", line)
        self.assertLess(written, 300)

    def test_the_journal_of_other_sizes(self) -> None:
        journal = os.path.abspath(self.mktemp())
        with open(journal, "w") as file:
            file.write("sizes w=1\n")
        done = self.warm("-r", journal, "/photos/grey.jpg")
        self.assertEqual(done.returncode, 1)
        self.assertIn("is the journal of other sizes: sizes w=1", done.stderr)

    def test_failures(self) -> None:
        journal = os.path.abspath(self.mktemp())
        done = self.warm("-r", journal, "/nobody.jpg", "/photos/grey.jpg")
        self.assertEqual(done.returncode, 1)
        self.assertIn("/nobody.jpg w=80: 404 there is no such source", done.stderr)
        with open(journal) as file:
            self.assertNotIn("/nobody.jpg", file.read())
