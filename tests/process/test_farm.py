import os
import sys

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.config.ast import Directive, Word
from imagefarm.config.errors import Invalid
from imagefarm.config.variables import Template
from imagefarm.process.farm import Member, child_specs, member, named


class FakeEnvironment:
    def __init__(self) -> None:
        self.warnings: list[str] = []

    def template(self, text: str) -> Template:
        return Template(text, (), text.encode())

    def path(self, text: str) -> str:
        return os.path.join("/prefix", text)

    def conf_path(self, text: str) -> str:
        return os.path.join("/conf", text)

    def warn(self, message: str) -> None:
        self.warnings.append(message)


def read(*words: str, role: str = "slave") -> Member:
    directive = Directive(role, tuple(Word(word) for word in words), "farm.conf", 3)
    return member(directive, FakeEnvironment())


class MemberTests(SynchronousTestCase):
    def test_file_is_beside_the_farm_s_own(self) -> None:
        self.assertEqual(read("slave.conf"), Member("slave", "/conf/slave.conf"))
        self.assertEqual(read("/a/b.conf").config, "/a/b.conf")

    def test_options(self) -> None:
        self.assertEqual(
            read("s.conf", "port=8082", "name=left-1"),
            Member("slave", "/conf/s.conf", "left-1", 8082),
        )

    def test_bad_options(self) -> None:
        for word in (
            "port=", "port=0", "port=65536", "port=x", "port=-1", "port=\u0661",
            "name=", "name=a/b", "name=a;b", "weight=1", "port",
        ):  # fmt: skip
            error = self.assertRaises(Invalid, read, "s.conf", word)
            self.assertEqual(str(error), f'invalid parameter "{word}"')

    @given(st.text(max_size=20))
    def test_a_name_is_always_fit_for_a_file_name_and_a_directive(self, text: str) -> None:
        try:
            name = read("s.conf", "name=" + text).name
        except Invalid:
            return
        self.assertRegex(name, r"\A[A-Za-z0-9_-]+\Z")


class NameTests(SynchronousTestCase):
    def names(self, *members: Member) -> list[str]:
        return [one.name for one in named(members)]

    def test_numbered_where_a_role_appears_more_than_once(self) -> None:
        self.assertEqual(
            self.names(Member("resizer", "r"), Member("slave", "s"), Member("slave", "s")),
            ["resizer", "slave01", "slave02"],
        )

    def test_given_names_are_kept(self) -> None:
        self.assertEqual(
            self.names(Member("slave", "s", "left"), Member("slave", "s")), ["left", "slave02"]
        )

    def test_two_of_one_name(self) -> None:
        error = self.assertRaises(
            Invalid, self.names, Member("slave", "s", "a"), Member("master", "m", "a")
        )
        self.assertEqual(str(error), 'duplicate name "a" in "farm"')


class SpecTests(SynchronousTestCase):
    def test_command(self) -> None:
        (spec,) = child_specs(
            named((Member("slave", "/conf/s.conf", port=8082),)),
            "/prefix",
            {"LANG": "C"},
            root="/images",
            settings=("daemon off;",),
        )
        self.assertEqual(spec.name, "slave")
        self.assertEqual(
            spec.command,
            (
                sys.executable, "-m", "imagefarm.process",
                "-n", "--pidfile=", "--logger=imagefarm.process.console.Console",
                "imagefarm", "slave",
                "--config", "/conf/s.conf", "--prefix", "/prefix", "--port", "8082",
                "--root", "/images", "--set", "pid logs/slave.pid;", "--set", "daemon off;",
            ),
        )  # fmt: skip
        self.assertEqual(spec.environment["LANG"], "C")
        self.assertEqual(spec.environment["IMAGEFARM_SUPERVISED"], "1")

    def test_nothing_that_was_not_asked_for(self) -> None:
        (spec,) = child_specs(named((Member("master", "/m.conf"),)), "/p", {})
        self.assertNotIn("--port", spec.command)
        self.assertNotIn("--root", spec.command)
