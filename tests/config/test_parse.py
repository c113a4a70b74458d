"""Files and includes."""

from __future__ import annotations

import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from imagefarm.config.errors import ConfigurationError
from imagefarm.config.parse import Parsed, parse_file, parse_text


class Files(SynchronousTestCase):
    def setUp(self) -> None:
        self.dir = Path(self.mktemp()).absolute()
        self.dir.mkdir()

    def write(self, name: str, text: str | bytes) -> str:
        path = self.dir / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(path)

    def shown(self, parsed: Parsed) -> list[str]:
        """The problems, with the directory taken out."""
        return [str(problem).replace(f"{self.dir}/", "") for problem in parsed.problems]

    def test_includes_stand_in_place(self) -> None:
        self.write("b.conf", "b1;\ninclude sub/c.conf;\nb2;")
        self.write("sub/c.conf", "c;")
        parsed = parse_file(self.write("a.conf", "a1;\nx { include b.conf; }\ninclude 'b.conf';"))
        self.assertEqual(parsed.problems, ())
        first, block, *rest = parsed.directives
        self.assertEqual(first.name, "a1")
        self.assertEqual([d.name for d in block.block or ()], ["b1", "c", "b2"])
        self.assertEqual([d.name for d in rest], ["b1", "c", "b2"])
        self.assertEqual((rest[1].file, rest[1].line), (str(self.dir / "sub/c.conf"), 1))
        self.assertEqual((rest[2].file, rest[2].line), (str(self.dir / "b.conf"), 3))
        self.assertEqual(
            [os.path.basename(f) for f in parsed.files], ["a.conf", "b.conf", "c.conf"]
        )

    def test_relative_to_the_main_file_everywhere(self) -> None:
        self.write("sub/b.conf", "include sub/c.conf; include c.conf;")
        self.write("sub/c.conf", "deep;")
        self.write("c.conf", "shallow;")
        parsed = parse_file(self.write("a.conf", "include sub/b.conf;"))
        self.assertEqual([d.name for d in parsed.check()], ["deep", "shallow"])

    def test_absolute(self) -> None:
        other = self.write("b.conf", "b;")
        parsed = parse_file(self.write("x/a.conf", f"include {other};"))
        self.assertEqual([d.name for d in parsed.check()], ["b"])

    def test_patterns(self) -> None:
        for name in ("b", "a", "B", "c.txt", ".hidden"):
            self.write(f"d/{name}", f"in_{name.strip('.')[:1]};")
        main = self.write("a.conf", "include d/[abB]; include d/*.txt; include no/*; include d/*;")
        names = [d.name for d in parse_file(main).check()]
        self.assertEqual(names[:4], ["in_B", "in_a", "in_b", "in_c"])
        self.assertEqual(names[4:], ["in_B", "in_a", "in_b", "in_c"])

    def test_fallback(self) -> None:
        self.write("shipped/mime.types", "types { text/html html; }")
        self.write("shipped/fastcgi_params", "shipped;")
        self.write("conf/fastcgi_params", "own;")
        main = self.write(
            "conf/a.conf", "include mime.types; include fastcgi_params; include nowhere;"
        )
        parsed = parse_file(
            main, fallback_dirs=[str(self.dir / "nothing"), str(self.dir / "shipped")]
        )
        self.assertEqual([d.name for d in parsed.directives], ["types", "own"])
        self.assertEqual(
            self.shown(parsed),
            ['open() "conf/nowhere" failed (2: No such file or directory) in conf/a.conf:1'],
        )

    def test_inside_a_block_of_data(self) -> None:
        self.write("more.types", "image/avif avif;")
        parsed = parse_file(self.write("a.conf", "types { text/html html; include more.types; }"))
        (types,) = parsed.check()
        self.assertEqual([d.name for d in types.block or ()], ["text/html", "image/avif"])

    def test_problems_of_all_files(self) -> None:
        self.write("b.conf", "b;\n;\nb {")
        self.write("c.conf", "c }")
        parsed = parse_file(
            self.write("a.conf", "a;\ninclude b.conf;\ninclude c.conf;\ninclude no.conf;\n}\na;")
        )
        self.assertEqual(
            self.shown(parsed),
            [
                'unexpected "}" in a.conf:5',
                'unexpected ";" in b.conf:2',
                'unexpected end of file, expecting "}" in b.conf:3',
                'unexpected "}" in c.conf:1',
                'open() "no.conf" failed (2: No such file or directory) in a.conf:4',
            ],
        )
        self.assertEqual([d.name for d in parsed.directives], ["a", "b", "b", "a"])
        error = self.assertRaises(ConfigurationError, parsed.check)
        self.assertEqual(error.problems, parsed.problems)

    def test_form_of_include(self) -> None:
        parsed = parse_file(self.write("a.conf", "include;\ninclude a b;\ninclude x { }"))
        self.assertEqual(
            self.shown(parsed),
            [
                'invalid number of arguments in "include" directive in a.conf:1',
                'invalid number of arguments in "include" directive in a.conf:2',
                'directive "include" is not terminated by ";" in a.conf:3',
            ],
        )

    def test_loops(self) -> None:
        self.write("b.conf", "b;\ninclude *.conf;")
        parsed = parse_file(self.write("a.conf", "include b.conf;"))
        self.assertEqual([d.name for d in parsed.directives], ["b"])
        self.assertEqual(
            self.shown(parsed),
            ['"a.conf" includes itself in b.conf:2', '"b.conf" includes itself in b.conf:2'],
        )

    def test_a_loop_through_a_link(self) -> None:
        main = self.write("a.conf", "include link.conf;")
        os.symlink(main, self.dir / "link.conf")
        self.assertEqual(self.shown(parse_file(main)), ['"link.conf" includes itself in a.conf:1'])

    def test_no_main_file(self) -> None:
        parsed = parse_file(str(self.dir / "none.conf"))
        self.assertEqual(
            self.shown(parsed), ['open() "none.conf" failed (2: No such file or directory)']
        )
        self.assertEqual(
            self.shown(parse_file(str(self.dir))),
            [f'read() "{self.dir}" failed (21: Is a directory)'],
        )

    def test_a_name_with_nul(self) -> None:
        parsed = parse_file(self.write("a.conf", b"include x\0y;\ninclude x\0*;"))
        self.assertEqual(
            self.shown(parsed), ["unexpected NUL in a.conf:1", "unexpected NUL in a.conf:2"]
        )

    def test_bytes_that_are_not_utf8(self) -> None:
        parsed = parse_file(self.write("a.conf", b"\xef\xbb\xbfa \xe9\xff \xc3\xa9;"))
        (directive,) = parsed.check()
        self.assertEqual(directive.args, ("\udce9\udcff", "é"))

    def test_lines_end_as_they_are(self) -> None:
        parsed = parse_file(self.write("a.conf", b"a 'x\r\ny\rz';\r\nb;"))
        self.assertEqual([d.line for d in parsed.check()], [1, 3])
        self.assertEqual(parsed.directives[0].args, ("x\r\ny\rz",))


class Texts(SynchronousTestCase):
    def test_text(self) -> None:
        parsed = parse_text("user a; pid b;", "--set")
        self.assertEqual(
            [(d.name, d.file) for d in parsed.check()], [("user", "--set"), ("pid", "--set")]
        )
        self.assertEqual(parsed.files, ("--set",))

    def test_problems(self) -> None:
        parsed = parse_text("user a", "--set")
        self.assertEqual(
            [str(problem) for problem in parsed.problems],
            ['unexpected end of file, expecting ";" or "}" in --set:1'],
        )
