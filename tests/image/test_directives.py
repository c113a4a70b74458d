"""The resizer block of the configuration."""

from __future__ import annotations

import os

from attrs import fields_dict
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.config.errors import ConfigurationError
from imagefarm.config.loader import convert
from imagefarm.config.parse import parse_text
from imagefarm.config.table import DirectiveTable
from imagefarm.config.variables import VariableTable
from imagefarm.image.directives import DIRECTIVES, LIMITS, ResizerSettings
from imagefarm.image.limits import Limits
from imagefarm.image.pool import PoolSettings

TABLE = DirectiveTable({"resizer": DIRECTIVES})
VARIABLES = VariableTable({}, {}, lambda name: lambda _: b"", lambda number: lambda _: b"")


def load(text: str) -> ResizerSettings:
    loaded = convert(
        parse_text(text, "f"), table=TABLE, variables=VARIABLES, prefix="/farm",
        conf_dir="/farm/conf",
    )  # fmt: skip
    return ResizerSettings.from_scope(loaded.root)


class Settings(SynchronousTestCase):
    def test_defaults(self) -> None:
        cores = len(os.sched_getaffinity(0))
        expected = ResizerSettings(("127.0.0.1:9000",), "", PoolSettings(cores, 64, 10000))
        self.assertEqual(load(""), expected)
        self.assertEqual(load("resizer { }"), expected)
        self.assertEqual(load("resizer { processes auto; }"), expected)

    def test_everything(self) -> None:
        settings = load("""
            resizer {
                listen 127.0.0.1:9001; listen [::1]:9002; listen 9003; listen unix:run/r.sock;
                root images; processes 3; queue 0; max_requests 0;
                deadline 1500ms; memory 2g; max_source_bytes 10m; max_pixels 50M;
                max_frames 100; max_total_pixels 1500k; max_width 4000; max_height 3000;
                max_output_bytes 1m; intermediates 0; expensive 1s; max_resident 100m;
                reserved 2; intermediates_path tmp; intermediates_disk 9m;
                fallback errors/sorry.png;
            }
        """)
        listen = ("127.0.0.1:9001", "[::1]:9002", "*:9003", "unix:/farm/run/r.sock")
        limits = Limits(
            max_source_bytes=10 << 20, max_pixels=50_000_000, max_frames=100,
            max_total_pixels=1_500_000, max_width=4000, max_height=3000,
            max_output_bytes=1 << 20, deadline=1.5, memory=2 << 30,
            intermediates=0, expensive=1.0, intermediates_path="/farm/tmp",
            intermediates_disk=9 << 20,
        )  # fmt: skip
        pool = PoolSettings(3, 0, 0, limits, max_resident=100 << 20, reserved=2)
        fallback = b"/errors/sorry.png"
        self.assertEqual(settings, ResizerSettings(listen, "/farm/images", pool, fallback))

    def test_each_limit_has_a_directive(self) -> None:
        self.assertEqual(sorted(row.name for row in LIMITS), sorted(fields_dict(Limits)))


class Mistakes(SynchronousTestCase):
    def problem(self, text: str) -> str:
        error = self.assertRaises(ConfigurationError, load, "resizer {\n" + text + "\n}")
        (problem,) = error.problems
        self.assertEqual((problem.file, problem.line), ("f", 2))
        return problem.message

    def test_values(self) -> None:
        for text, message in [
            ("listen 1.2.3.4:x;", 'invalid port in "1.2.3.4:x" of the "listen" directive'),
            ("listen 70000;", 'invalid port in "70000" of the "listen" directive'),
            ("listen :80;", 'no host in ":80" of the "listen" directive'),
            (
                "listen unix:;",
                'no path in the unix domain socket "unix:" of the "listen" directive',
            ),
            ("processes 0;", '"processes" must be at least 1'),
            ("processes all;", "invalid number"),
            ("queue -1;", "invalid number"),
            ("deadline 0;", '"deadline" must be longer than nothing'),
            ("memory 1m;", '"memory" must be at least 128m'),
            ("max_pixels 0;", '"max_pixels" directive invalid value "0"'),
            ("max_pixels 1g;", '"max_pixels" directive invalid value "1g"'),
            ("max_source_bytes 0;", '"max_source_bytes" must be at least 1'),
            ("max_width 0;", '"max_width" must be at least 1'),
        ]:
            with self.subTest(text=text):
                # The beginnings are for the package of the configuration to choose.
                self.assertTrue(self.problem(text).endswith(message), self.problem(text))

    def test_twice(self) -> None:
        self.assertEqual(self.problem("queue 1; queue 2;"), '"queue" directive is duplicate')
