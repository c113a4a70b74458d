import os

from twisted.trial.unittest import SynchronousTestCase

from imagefarm.config.errors import ConfigurationError, Invalid
from imagefarm.config.loader import Loaded, convert
from imagefarm.config.parse import parse_text
from imagefarm.config.table import DirectiveTable
from imagefarm.config.variables import VariableTable
from imagefarm.process.directives import DIRECTIVES, MainSettings, farm_members
from imagefarm.process.errorlog import ErrorLogSetting
from imagefarm.process.farm import Member
from imagefarm.process.privileges import UserSetting

NO_VARIABLES = VariableTable({}, {}, lambda name: lambda request: b"", lambda n: lambda r: b"")


def load(text: str) -> Loaded:
    return convert(
        parse_text(text, "a.conf", conf_dir="/conf"),
        table=DirectiveTable({"Processes": DIRECTIVES}),
        variables=NO_VARIABLES,
        prefix="/prefix",
        conf_dir="/conf",
    )


def main(text: str) -> MainSettings:
    return MainSettings.from_scope(load(text).root)


class MainTests(SynchronousTestCase):
    def test_the_farm_s_own_lines(self) -> None:
        settings = main(
            "user webtob;\nworker_processes 8;\nerror_log logs/error.log;\n"
            "pid logs/nginx_master.pid;\nworker_rlimit_nofile 40960;\n"
            "events { worker_connections 5120; use epoll; }"
        )
        self.assertEqual(
            settings,
            MainSettings(
                user=UserSetting("webtob", "webtob", "a.conf", 1),
                worker_processes=8,
                worker_rlimit_nofile=40960,
                error_logs=(ErrorLogSetting("/prefix/logs/error.log", "error"),),
                pid="/prefix/logs/nginx_master.pid",
                worker_connections=5120,
            ),
        )

    def test_empty(self) -> None:
        self.assertEqual(main(""), MainSettings())

    def test_other_forms(self) -> None:
        settings = main(
            "user a b; worker_processes auto; daemon off; master_process off;"
            "error_log stderr debug; error_log /var/log/x crit; worker_shutdown_timeout 1m;"
        )
        self.assertEqual(settings.user, UserSetting("a", "b", "a.conf", 1))
        self.assertEqual(settings.worker_processes, os.cpu_count())
        self.assertEqual((settings.daemon, settings.master_process), (False, False))
        self.assertEqual(
            settings.error_logs,
            (ErrorLogSetting(None, "debug"), ErrorLogSetting("/var/log/x", "crit")),
        )
        self.assertEqual(settings.worker_shutdown_timeout, 60)

    def test_errors_in_nginx_s_words(self) -> None:
        for text, message in (
            ("worker_processes 0;", '"worker_processes" directive invalid value'),
            ("worker_processes many;", '"worker_processes" directive invalid value'),
            ("events { worker_connections x; }", 'invalid number "x"'),
            ("error_log x loud;", 'invalid log level "loud"'),
            ("events { use kqueue; }", 'invalid event type "kqueue"'),
            ("farm { slave; }", 'invalid number of arguments in "slave" directive'),
            ("farm { slave a port=0; }", 'invalid parameter "port=0"'),
        ):
            error = self.assertRaises(ConfigurationError, load, text)
            self.assertEqual(str(error), f"{message} in a.conf:1")

    def test_harmless_ones_warn(self) -> None:
        for text in (
            "events { use poll; }",
            "events { multi_accept on; }",
            "load_module modules/x.so;",
            "pcre_jit on;",
        ):
            self.assertEqual(len(load(text).warnings), 1, text)

    def test_error_logs(self) -> None:
        (log,) = main("error_log syslog:server=unix:/dev/log,tag=x warn format=json;").error_logs
        self.assertEqual((log.path, log.level, log.json), (None, "warn", True))
        assert log.syslog is not None
        self.assertEqual((log.syslog.address, log.syslog.tag), ("/dev/log", "x"))
        self.assertEqual(
            main("error_log stderr; error_log a format=text info;").error_logs,
            (ErrorLogSetting(None), ErrorLogSetting("/prefix/a", "info")),
        )

    def test_wrong_error_logs(self) -> None:
        for words, message in (
            (
                "memory:32m",
                '"error_log memory:32m" is not supported: use a file, stderr or syslog',
            ),
            ("a loud", 'invalid log level "loud"'),
            ("a warn info", 'invalid parameter "info"'),
            ("a warn format=xml", 'invalid parameter "format=xml"'),
            ("a format=json format=json", 'invalid parameter "format=json"'),
            ("syslog:tag=a", "no syslog server specified"),
        ):
            error = self.assertRaises(ConfigurationError, load, f"error_log {words};")
            self.assertEqual(str(error), f"{message} in a.conf:1")

    def test_debug_connection(self) -> None:
        found = main("events { debug_connection 10.0.0.0/8; debug_connection unix:; }")
        self.assertEqual(list(map(str, found.debug_connection)), ["10.0.0.0/8", "unix:"])
        error = self.assertRaises(ConfigurationError, load, "events { debug_connection x; }")
        self.assertIn('invalid address "x" in "debug_connection"', str(error))


class FarmTests(SynchronousTestCase):
    def test_in_the_order_written(self) -> None:
        root = load(
            "farm { resizer r.conf; slave s.conf port=8081; master m.conf;"
            "slave s.conf port=8082; }"
        ).root
        self.assertEqual(
            farm_members(root),
            (
                Member("resizer", "/conf/r.conf", "resizer"),
                Member("slave", "/conf/s.conf", "slave01", 8081),
                Member("master", "/conf/m.conf", "master"),
                Member("slave", "/conf/s.conf", "slave02", 8082),
            ),
        )

    def test_nothing_to_run(self) -> None:
        for text in ("", "farm { }"):
            self.assertRaises(Invalid, farm_members, load(text).root)
