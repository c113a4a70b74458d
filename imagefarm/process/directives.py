"""The rows of the main, events and farm contexts, and the settings they become."""

from __future__ import annotations

import ipaddress
import os
import re
from typing import Final

from attrs import frozen

from imagefarm.config import values
from imagefarm.config.ast import Directive
from imagefarm.config.errors import Invalid
from imagefarm.config.table import (
    EVENTS,
    HTTP,
    LOCATION,
    MAIN,
    SERVER,
    AnyRow,
    BlockRow,
    Environment,
    Ignored,
    ListRow,
    Row,
    Scope,
)
from imagefarm.http.realip import Network
from imagefarm.http.syslog import parse_target

from .environment import Affinity
from .errorlog import LEVELS, ErrorLogSetting
from .farm import Member, member, named
from .privileges import UserSetting

FARM: Final = "farm"

_MAIN = frozenset({MAIN})
_EVENTS = frozenset({EVENTS})
_FARM = frozenset({FARM})

_COUNT = re.compile(r"[1-9][0-9]{0,8}")


def _user(directive: Directive, env: Environment) -> UserSetting | None:
    words = directive.args
    return UserSetting(words[0], words[-1], directive.file, directive.line)


def _workers(directive: Directive, env: Environment) -> int:
    if directive.args[0] == "auto":
        return os.cpu_count() or 1
    text = directive.args[0]
    if not _COUNT.fullmatch(text):
        raise Invalid('"worker_processes" directive invalid value')
    return int(text)


def _connections(directive: Directive, env: Environment) -> int:
    text = directive.args[0]
    if not _COUNT.fullmatch(text):
        raise Invalid(f'invalid number "{text}"')
    return int(text)


def _error_log(directive: Directive, env: Environment) -> ErrorLogSetting:
    target, *rest = directive.args
    json = "format=json" in rest
    words = [word for word in rest if word not in ("format=json", "format=text")]
    level = words[0] if words else "error"
    if level not in LEVELS:
        raise Invalid(f'invalid log level "{level}"')
    if len(words) > 1 or len(rest) - len(words) > 1:
        raise Invalid(f'invalid parameter "{rest[-1]}"')
    if target == "stderr":
        return ErrorLogSetting(None, level, json=json)
    if target.startswith("syslog:"):
        syslog = parse_target(target.removeprefix("syslog:"))
        return ErrorLogSetting(None, level, syslog, json)
    if target.startswith("memory:"):
        raise Invalid(f'"error_log {target}" is not supported: use a file, stderr or syslog')
    return ErrorLogSetting(env.path(target), level, json=json)


def _debug_connection(directive: Directive, env: Environment) -> Network | str:
    text = directive.args[0]
    if text == "unix:":
        return text
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise Invalid(f'invalid address "{text}" in "debug_connection"') from None


def _use(directive: Directive, env: Environment) -> str:
    method = directive.args[0]
    if method not in ("epoll", "poll", "select"):
        raise Invalid(f'invalid event type "{method}"')
    if method != "epoll":
        env.warn(f'"use {method}" has no effect, choose it with "twistd --reactor={method}"')
    return method


_MASK = re.compile(r"[01]{1,1024}")


def _affinity(directive: Directive, env: Environment) -> Affinity:
    words = directive.args
    auto = words[0] == "auto"
    if auto and len(words) > 2:
        raise Invalid('invalid number of arguments in "worker_cpu_affinity" directive')
    masks = []
    for word in words[1:] if auto else words:
        if not _MASK.fullmatch(word):
            wrong = next((c for c in word if c not in "01"), word)
            raise Invalid(f'invalid character "{wrong}" in "worker_cpu_affinity"')
        masks.append(frozenset(i for i, bit in enumerate(reversed(word)) if bit == "1"))
    return Affinity(tuple(masks), auto)


def _priority(directive: Directive, env: Environment) -> int:
    text = directive.args[0]
    if not re.fullmatch(r"[-+]?[0-9]{1,3}", text):
        raise Invalid(f'invalid number "{text}"')
    return int(text)


def _env(directive: Directive, env: Environment) -> tuple[str, str | None]:
    name, equals, value = directive.args[0].partition("=")
    return name, value if equals else None


def _nothing(directive: Directive, env: Environment) -> None:
    return None


USER: Row[UserSetting | None] = Row(
    name="user",
    contexts=_MAIN,
    arity=(1, 2),
    convert=_user,
    default=None,
    syntax="user [group]",
    doc="The user and group that the process becomes once its sockets are bound. Without "
    "super-user privileges it is ignored with a warning.",
)
WORKER_PROCESSES: Row[int] = Row(
    name="worker_processes",
    contexts=_MAIN,
    convert=_workers,
    default=1,
    syntax="number | auto",
    doc="How many worker processes there are; auto is one for each processor.",
)
WORKER_RLIMIT_NOFILE: Row[int | None] = Row(
    name="worker_rlimit_nofile",
    contexts=_MAIN,
    convert=values.number,
    default=None,
    syntax="number",
    doc="The most files (connections included) that a process may have open.",
)
WORKER_SHUTDOWN_TIMEOUT: Row[float | None] = Row(
    name="worker_shutdown_timeout",
    contexts=_MAIN,
    convert=values.time,
    default=None,
    syntax="time",
    doc="How long a process may take to finish its requests when it is told to stop "
    "gracefully. In farm.conf: how long each child may take to stop before it is killed.",
)
WORKER_CPU_AFFINITY: Row[Affinity | None] = Row(
    name="worker_cpu_affinity",
    contexts=_MAIN,
    arity=(1, None),
    convert=_affinity,
    default=None,
    syntax="cpumask ... | auto [cpumask]",
    doc="Binds workers to processors, the last mask those that are left; auto gives each one.",
)
WORKER_PRIORITY: Row[int | None] = Row(
    name="worker_priority",
    contexts=_MAIN,
    convert=_priority,
    default=None,
    syntax="number",
    doc="The scheduling priority of workers, as nice(1) has it.",
)
WORKING_DIRECTORY: Row[str | None] = Row(
    name="working_directory",
    contexts=_MAIN,
    convert=values.path,
    default=None,
    syntax="directory",
    doc="The current directory of workers, where core files go.",
)
ENV: ListRow[tuple[str, str | None]] = ListRow(
    name="env",
    contexts=_MAIN,
    convert=_env,
    syntax="variable[=value]",
    doc="Environment variables that workers keep, or are given. Others are removed, but for TZ "
    "and what Python itself needs.",
)
ERROR_LOG: ListRow[ErrorLogSetting] = ListRow(
    name="error_log",
    contexts=frozenset({MAIN, HTTP, SERVER, LOCATION}),
    arity=(1, 3),
    convert=_error_log,
    default_text="logs/error.log error",
    syntax="file | stderr | syslog:server=address[,parameter=value] "
    "[debug | info | notice | warn | error | crit | alert | emerg] [format=json]",
    doc="Where messages of at least this level go; may be given several times. A block that has "
    "some of its own writes what belongs to its requests there, and nowhere else. Each line "
    "about a request has its `$request_id`. `format=json` makes a JSON object of each line; "
    "nginx lacks it.",
)
DEBUG_CONNECTION: ListRow[Network | str] = ListRow(
    name="debug_connection",
    contexts=_EVENTS,
    convert=_debug_connection,
    syntax="address | CIDR | unix:",
    doc="Clients whose requests are logged at all levels, whatever `error_log` says.",
)
PID: Row[str | None] = Row(
    name="pid",
    contexts=_MAIN,
    convert=values.path,
    default=None,
    syntax="file",
    doc="The file that holds the process number while the daemon runs.",
)
DAEMON: Row[bool] = Row(
    name="daemon",
    contexts=_MAIN,
    convert=values.flag,
    default=True,
    syntax="on | off",
    doc="Whether to go into the background. twistd -n says no as well.",
)
MASTER_PROCESS: Row[bool] = Row(
    name="master_process",
    contexts=_MAIN,
    convert=values.flag,
    default=True,
    syntax="on | off",
    doc="Whether a parent process looks after workers, or one process does all.",
)
EVENTS_BLOCK: BlockRow[None] = BlockRow(
    name="events",
    contexts=_MAIN,
    opens=EVENTS,
    convert=_nothing,
    unique=True,
    syntax="{ ... }",
    doc="Holds the directives about connection processing.",
)
WORKER_CONNECTIONS: Row[int] = Row(
    name="worker_connections",
    contexts=_EVENTS,
    convert=_connections,
    default=512,
    syntax="number",
    doc="The most connections that a process serves at a time, those to upstreams included.",
)
USE: Row[str] = Row(
    name="use",
    contexts=_EVENTS,
    convert=_use,
    default="epoll",
    syntax="method",
    doc="How the kernel is asked for events. epoll is used wherever it exists.",
)
FARM_BLOCK: BlockRow[None] = BlockRow(
    name="farm",
    contexts=_MAIN,
    opens=FARM,
    convert=_nothing,
    unique=True,
    syntax="{ ... }",
    doc="Lists the processes that twistd imagefarm farm runs. They start in the order written, "
    "each when the one before it is ready, and stop in the reverse order.",
)


def _member_row(role: str, what: str) -> ListRow[Member]:
    return ListRow(
        name=role,
        contexts=_FARM,
        arity=(1, 3),
        convert=member,
        syntax="file [port=number] [name=string]",
        doc=f"Runs {what} with this configuration file. port overrides the port in it; name "
        "marks the process in logs and names its pidfile.",
    )


MASTER = _member_row("master", "a master, the process that clients talk to,")
SLAVE = _member_row("slave", "a slave, a server of static files,")
RESIZER = _member_row("resizer", "a resizer, the FastCGI responder that makes thumbnails,")

DIRECTIVES: tuple[AnyRow, ...] = (
    USER,
    WORKER_PROCESSES,
    WORKER_RLIMIT_NOFILE,
    WORKER_SHUTDOWN_TIMEOUT,
    WORKER_CPU_AFFINITY,
    WORKER_PRIORITY,
    WORKING_DIRECTORY,
    ENV,
    ERROR_LOG,
    PID,
    DAEMON,
    MASTER_PROCESS,
    EVENTS_BLOCK,
    DEBUG_CONNECTION,
    WORKER_CONNECTIONS,
    USE,
    FARM_BLOCK,
    MASTER,
    SLAVE,
    RESIZER,
    Ignored(name="multi_accept", contexts=_EVENTS, why="the reactor accepts in batches already"),
    Ignored(name="accept_mutex", contexts=_EVENTS, why="sockets are shared without a lock"),
    Ignored(name="accept_mutex_delay", contexts=_EVENTS, why="sockets are shared without a lock"),
    Ignored(name="worker_aio_requests", contexts=_EVENTS, why="asynchronous I/O is not used"),
    Ignored(name="lock_file", contexts=_MAIN, why="sockets are shared without a lock"),
    Ignored(name="pcre_jit", contexts=_MAIN, why="regular expressions are Python's"),
    Ignored(name="timer_resolution", contexts=_MAIN, why="the clock is read at need"),
    Ignored(name="thread_pool", contexts=_MAIN, why="files are read in the event loop"),
    Ignored(name="load_module", contexts=_MAIN, why="there are no dynamic modules"),
)


@frozen
class MainSettings:
    """The main and events contexts of a configuration."""

    user: UserSetting | None = None
    worker_processes: int = 1
    worker_rlimit_nofile: int | None = None
    worker_shutdown_timeout: float | None = None
    error_logs: tuple[ErrorLogSetting, ...] = ()
    debug_connection: tuple[Network | str, ...] = ()
    pid: str | None = None
    daemon: bool = True
    master_process: bool = True
    worker_connections: int = 512
    cpu_affinity: Affinity | None = None
    worker_priority: int | None = None
    working_directory: str | None = None
    env: tuple[tuple[str, str | None], ...] = ()

    @classmethod
    def from_scope(cls, scope: Scope) -> MainSettings:
        """Read them from the main scope."""
        events = scope.blocks(EVENTS_BLOCK)
        return cls(
            user=scope[USER],
            worker_processes=scope[WORKER_PROCESSES],
            worker_rlimit_nofile=scope[WORKER_RLIMIT_NOFILE],
            worker_shutdown_timeout=scope[WORKER_SHUTDOWN_TIMEOUT],
            error_logs=scope.all(ERROR_LOG),
            debug_connection=(events[0] if events else scope).all(DEBUG_CONNECTION),
            pid=scope[PID],
            daemon=scope[DAEMON],
            master_process=scope[MASTER_PROCESS],
            cpu_affinity=scope[WORKER_CPU_AFFINITY],
            worker_priority=scope[WORKER_PRIORITY],
            working_directory=scope[WORKING_DIRECTORY],
            env=tuple(scope.all(ENV)),
            worker_connections=(events[0] if events else scope)[WORKER_CONNECTIONS],
        )


def farm_members(scope: Scope) -> tuple[Member, ...]:
    """The members of the main scope's ``farm`` block in the order written, each with a name.

    Raises `Invalid` if there is no block or none in it, or if two have the same name.
    """
    rows = (MASTER, SLAVE, RESIZER)
    members: list[Member] = []
    for block in scope.blocks(FARM_BLOCK):
        members += [value for row, value, _ in block.items if row in rows]
    if not members:
        raise Invalid('no processes in "farm"')
    return named(tuple(members))
