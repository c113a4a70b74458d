"""``imagefarm``: nginx's own command line, for init scripts, logrotate hooks and monitoring.

``imagefarm [-?hvVtTq] [-s signal] [-p prefix] [-e filename] [-c filename] [-g directives]`` starts
what the configuration describes: a farm, a resizer, or a server (src/core/nginx.c has the options
and their messages). The commands (``imagefarm sign``) are `imagefarm.app.tools`.
"""

from __future__ import annotations

import io
import os
import platform
import shlex
import signal
import ssl
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final, NoReturn

from attrs import evolve, frozen

import twisted
from imagefarm import __version__
from imagefarm.app import CannotStart, Options, check
from imagefarm.app.configuration import read
from imagefarm.app.plan import explained
from imagefarm.app.tools import COMMANDS
from imagefarm.config.loader import Loaded
from imagefarm.config.parse import parse_file
from imagefarm.process import pidfile
from imagefarm.process.console import FOREGROUND
from imagefarm.process.directives import DAEMON, ERROR_LOG, PID
from imagefarm.process.sockets import INHERITED, INHERITED_BY_NGINX

SIGNALS: Final[Mapping[str, signal.Signals]] = {
    "stop": signal.SIGTERM,
    "quit": signal.SIGQUIT,
    "reopen": signal.SIGUSR1,
    "reload": signal.SIGHUP,
}
#: Options with a value, and what nginx calls it.
_VALUES: Final = {
    "p": "directory name", "e": "file name", "c": "file name", "g": "parameter", "s": "parameter",
}  # fmt: skip
_FLAGS: Final = "?hvVtTq"

_HELP: Final = """\
Usage: imagefarm [-?hvVtTq] [-s signal] [-p prefix]
                 [-e filename] [-c filename] [-g directives]
       imagefarm sign|status|warm|purge|explain ...

Options:
  -?,-h         : this help
  -v            : show version and exit
  -V            : show version and configure options then exit
  -t            : test configuration and exit
  -T            : test configuration, dump it and exit
  -q            : suppress non-error messages during configuration testing
  -s signal     : send signal to a master process: stop, quit, reopen, reload
  -p prefix     : set prefix path (default: above sbin/ or conf/, else the current directory)
  -e filename   : set error log file (default: logs/error.log)
  -c filename   : set configuration file (default: conf/nginx.conf)
  -g directives : set global directives out of configuration file

Commands, each with a -h of its own:
  sign          : sign URLs of the resizer
  status        : show what the farm is doing
  warm          : have pictures made before anybody asks for them
  purge         : drop cached responses: by original, key, prefix, URL
  explain       : say which server, location, file or upstream a URL gets, and why
"""


class Usage(Exception):
    """The command line is wrong; the text is nginx's."""


@frozen
class Line:
    """A command line: the letters without value, and the values of the others."""

    flags: frozenset[str] = frozenset()
    values: Mapping[str, str] = {}

    @classmethod
    def parse(cls, words: Sequence[str]) -> Line:
        """Letters may stand together (``-tqc FILE``, ``-cFILE``). Raises `Usage`."""
        flags: set[str] = set()
        values: dict[str, str] = {}
        rest = list(words)
        while rest:
            word = rest.pop(0)
            if not word.startswith("-"):
                raise Usage(f'invalid option: "{word}"')
            letters = word[1:]
            while letters:
                letter, letters = letters[0], letters[1:]
                if letter in _FLAGS:
                    flags.add(letter)
                elif letter in _VALUES:
                    value, letters = letters or (rest.pop(0) if rest else ""), ""
                    if not value:
                        raise Usage(f'option "-{letter}" requires {_VALUES[letter]}')
                    values[letter] = value
                else:
                    raise Usage(f'invalid option: "{letter}"')
        if values.get("s", "stop") not in SIGNALS:
            raise Usage(f'invalid option: "-s {values["s"]}"')
        return cls(frozenset(flags), values)

    def options(self, program: str) -> Options:
        """Where the configuration is; the role is open yet. ``program`` is how we were called."""
        file = self.values.get("c")
        prefix = self.values.get("p")
        if prefix is None:
            above, name = os.path.split(os.path.dirname(os.path.abspath(program)))
            conf, conf_name = os.path.split(os.path.dirname(os.path.abspath(file or "")))
            if name == "sbin":
                prefix = above
            elif file is not None and conf_name == "conf":
                prefix = conf
            else:
                prefix = "."
        prefix = os.path.abspath(prefix)
        config = os.path.join(prefix, file or os.path.join("conf", "nginx.conf"))
        settings = (self.values["g"],) if "g" in self.values else ()
        return Options("master", config, prefix, settings)


def role_of(config: str) -> str:
    """What the file describes: ``farm``, ``resizer``, or ``master`` for any server."""
    blocks = {directive.name for directive in parse_file(config).directives}
    return next((role for role in ("farm", "resizer") if role in blocks), "master")


def _say(text: str) -> None:
    sys.stderr.write(f"imagefarm: {text}\n")


def _complete(line: Line, program: str) -> tuple[Options, Loaded]:
    """The options with their role, and the configuration. Raises `CannotStart`."""
    options = line.options(program)
    with explained():
        options = evolve(options, role=role_of(options.config))
        loaded = read(options)
        if "e" in line.values and not loaded.root.all(ERROR_LOG):
            path = os.path.join(options.prefix, line.values["e"]).replace('"', '\\"')
            options = evolve(options, settings=(*options.settings, f'error_log "{path}"'))
        return options, loaded


def _test(line: Line, program: str) -> int:
    """``-t``: build the configuration, open its files, try its ports."""
    from twisted.internet import reactor

    config = line.options(program).config
    quiet = "q" in line.flags
    try:
        options, _ = _complete(line, program)
        plan = check(options, reactor)
    except CannotStart as error:
        for text in error.lines:
            _say(f"[emerg] {text}")
        _say(f"configuration file {config} test failed")
        return 1
    if not quiet:
        for problem in plan.warnings:
            _say(f"[warn] {problem}")
        _say(f"the configuration file {config} syntax is ok")
        _say(f"configuration file {config} test is successful")
    if "T" in line.flags:
        for name in parse_file(config).files:
            with open(name, encoding="utf-8", errors="surrogateescape") as file:
                sys.stdout.write(f"# configuration file {name}:\n{file.read()}\n")
    return 0


def _signal(line: Line, program: str) -> int:
    """``-s``: tell the process that the pidfile names."""
    name = line.values["s"]
    _, loaded = _complete(line, program)
    path = loaded.root[PID]
    if path is None:
        raise CannotStart(['no "pid" is defined'])
    try:
        with open(path, "rb") as file:
            text = file.read(pidfile.MAX_BYTES).strip().decode("latin-1")
    except OSError as error:
        _say(f'[error] open() "{path}" failed ({error.errno}: {error.strerror})')
        return 1
    pid = pidfile.read(path)
    if pid is None:
        _say(f'[error] invalid PID number "{text}" in "{path}"')
        return 1
    if pidfile.inspect(pid) is pidfile.Life.FOREIGN:
        _say(f'[error] process {pid} in "{path}" is not imagefarm')
        return 1
    try:
        os.kill(pid, SIGNALS[name])
    except OSError as error:
        _say(
            f"[alert] kill({pid}, {SIGNALS[name].value}) failed ({error.errno}: {error.strerror})"
        )
        return 1
    return 0


def _start(line: Line, program: str, given: Sequence[str]) -> NoReturn:
    """Be the daemon. As nginx does it: who was given sockets has been started by one already."""
    from twisted.scripts.twistd import run

    options, loaded = _complete(line, program)
    words = [*FOREGROUND, "--umask=022", "imagefarm", options.role]
    if loaded.root[DAEMON] and not os.environ.keys() & {INHERITED, INHERITED_BY_NGINX}:
        words.remove("-n")
    words += ["--config", options.config, "--prefix", options.prefix]
    for setting in options.settings:
        words += ["--set", setting]
    words += ["--program", shlex.join([os.path.abspath(program), *given])]
    sys.argv = ["twistd", *words]
    run()
    sys.exit(0)


def _version(line: Line, program: str) -> None:
    sys.stderr.write(f"imagefarm version: imagefarm/{__version__}\n")
    if "V" in line.flags:
        options = line.options(program)
        sys.stderr.write(
            f"built with Python {platform.python_version()}, Twisted {twisted.__version__}\n"
            f"built with {ssl.OPENSSL_VERSION}\nTLS SNI support enabled\n"
            f"configure arguments: --prefix={options.prefix} --conf-path={options.config}\n"
        )


def main(arguments: Sequence[str] | None = None) -> Any:
    """The console script; returns its exit status."""
    program, *words = sys.argv if arguments is None else arguments
    if words and words[0] in COMMANDS:
        if isinstance(sys.stdout, io.TextIOWrapper):
            # Names of files can be in any script, terminals not.
            sys.stdout.reconfigure(errors="backslashreplace")
        return COMMANDS[words[0]](words[1:])
    try:
        line = Line.parse(words)
        if line.flags & set("?hvV"):
            _version(line, program)
            if line.flags & set("?h"):
                sys.stderr.write(_HELP)
            return 0
        if line.flags & set("tT"):
            return _test(line, program)
        if "s" in line.values:
            return _signal(line, program)
        _start(line, program, words)
    except Usage as error:
        _say(str(error))
    except CannotStart as error:
        for text in error.lines:
            _say(f"[emerg] {text}")
    return 1
