"""Listening sockets: opened with clear errors, handed to other processes by number."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from collections.abc import Iterable, Mapping, MutableMapping
from typing import Any, Final

from attrs import frozen

#: The environment variable that names inherited sockets: ``ADDRESS=FD;ADDRESS=FD;``.
INHERITED: Final = "IMAGEFARM_SOCKETS"
#: nginx's own, ``FD;FD;``: which socket is which is seen from its address.
INHERITED_BY_NGINX: Final = "NGINX"
#: nginx's default on Linux.
DEFAULT_BACKLOG: Final = 511


@frozen
class Endpoint:
    """An address to listen on: ``host`` and ``port``, or ``path`` of a Unix domain socket.

    ``host`` is numeric, ``::`` and its like without brackets; "" is ``0.0.0.0``. ``keepalive``
    may be (idle, interval, count), in seconds, 0 for the system's own; None, and 0 elsewhere,
    leaves all to the system.
    """

    host: str = "0.0.0.0"
    port: int = 0
    path: str | None = None
    backlog: int = DEFAULT_BACKLOG
    reuseport: bool = False
    ipv6only: bool = True
    deferred: bool = False
    keepalive: bool | tuple[int, int, int] | None = None
    fastopen: int = 0
    rcvbuf: int = 0
    sndbuf: int = 0

    @classmethod
    def from_address(
        cls,
        address: tuple[str, int],
        *,
        backlog: int | None = None,
        reuseport: bool = False,
        rcvbuf: int | None = None,
        sndbuf: int | None = None,
    ) -> Endpoint:
        """From ``(host, port)`` or ``("unix:/path", 0)``; None leaves the default."""
        host, port = address
        unix = host.startswith("unix:")
        return cls(
            host="" if unix else host or "0.0.0.0",
            port=port,
            path=host.removeprefix("unix:") if unix else None,
            backlog=DEFAULT_BACKLOG if backlog is None else backlog,
            reuseport=reuseport,
            rcvbuf=rcvbuf or 0,
            sndbuf=sndbuf or 0,
        )

    def __str__(self) -> str:
        if self.path is not None:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class ListenError(Exception):
    """Sockets can't be opened: ``problems`` has one line for each, in nginx's words."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


def _failed(call: str, error: OSError) -> ListenError:
    number = error.errno or 0
    return ListenError([f"{call} failed ({number}: {os.strerror(number)})"])


def _remove_dead(path: str) -> None:
    """Unlink a Unix socket that no one listens on any more (after a crash)."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            return
    except OSError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            with contextlib.suppress(OSError):
                os.unlink(path)
        except OSError:
            return


def _set_options(sock: socket.socket, endpoint: Endpoint) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if endpoint.reuseport and endpoint.path is None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(endpoint.ipv6only))
    if endpoint.rcvbuf:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, endpoint.rcvbuf)
    if endpoint.sndbuf:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, endpoint.sndbuf)
    if endpoint.keepalive is not None:
        _keep_alive(sock, endpoint.keepalive)
    if endpoint.path is not None:
        return
    if endpoint.deferred:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 1)
    if endpoint.fastopen:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_FASTOPEN, endpoint.fastopen)


def _keep_alive(sock: socket.socket, wanted: bool | tuple[int, int, int]) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 0 if wanted is False else 1)
    if isinstance(wanted, tuple) and sock.family != socket.AF_UNIX:
        names = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
        for name, value in zip(names, wanted, strict=True):
            if value:
                sock.setsockopt(socket.IPPROTO_TCP, name, value)


def open_socket(endpoint: Endpoint) -> socket.socket:
    """A listening, non-blocking socket. Raises `ListenError` with one line."""
    address: str | tuple[str, int]
    if endpoint.path is not None:
        family, address = socket.AF_UNIX, endpoint.path
        _remove_dead(endpoint.path)
    else:
        family = socket.AF_INET6 if ":" in endpoint.host else socket.AF_INET
        address = (endpoint.host or "0.0.0.0", endpoint.port)
    try:
        sock = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise _failed(f"socket() {endpoint}", error) from error
    call = "setsockopt()"
    try:
        sock.setblocking(False)
        _set_options(sock, endpoint)
        call = "bind()"
        sock.bind(address)
        call = "listen()"
        sock.listen(endpoint.backlog)
    except OSError as error:
        sock.close()
        raise _failed(f"{call} to {endpoint}", error) from error
    return sock


@frozen
class Inheritance:
    """What a child needs to find our sockets: ``environment`` to add, ``fds`` child -> ours."""

    environment: Mapping[str, str]
    fds: Mapping[int, int]


def hand_over(
    sockets: Iterable[tuple[Endpoint | str, socket.socket]], first: int = 4
) -> Inheritance:
    """Number ``sockets`` from ``first`` on for a child (0 to 3 are the supervisor's)."""
    fds: dict[int, int] = {}
    names: list[str] = []
    for number, (endpoint, sock) in enumerate(sockets, first):
        fds[number] = sock.fileno()
        names.append(f"{endpoint}={number};")
    return Inheritance({INHERITED: "".join(names)}, fds)


def endpoint_name(sock: socket.socket) -> str:
    """What `Endpoint` calls a listening socket's address."""
    address: Any = sock.getsockname()
    if sock.family == socket.AF_UNIX:
        return f"unix:{address}"
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def described(numbers: Iterable[int]) -> str:
    """Sockets that somebody else has opened for us, as `adopt` wants to have them.

    What is no stream socket is left alone.
    """
    found = []
    for fd in numbers:
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(fd)) as sock:
            if sock.type == socket.SOCK_STREAM:
                found.append(f"{endpoint_name(sock)}={fd};")
    return "".join(found)


def inherited_from_nginx(environment: MutableMapping[str, str]) -> str:
    """The sockets of an nginx that was told by USR2 to start us (``ngx_exec_new_binary``)."""
    text = environment.pop(INHERITED_BY_NGINX, "").replace(":", ";")
    return described(int(word) for word in text.split(";") if word.isdecimal())


def adopt(text: str) -> list[tuple[str, socket.socket]]:
    """The sockets that `hand_over` described in ``text``, with the endpoint's string form.

    With ``reuseport`` an endpoint has several. Raises `ListenError` for a malformed entry or a
    number that is no listening socket; then none is kept.
    """
    adopted: list[tuple[str, socket.socket]] = []
    try:
        for entry in filter(None, text.split(";")):
            name, _, number = entry.rpartition("=")
            if not name or not (number.isascii() and number.isdigit()):
                raise ListenError([f'invalid inherited socket "{entry}"'])
            try:
                sock = socket.socket(fileno=int(number))
                adopted.append((name, sock))
                listening = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
            except OSError as error:
                raise _failed(f'inherited socket "{entry}"', error) from error
            if not listening:
                raise ListenError([f'inherited socket "{entry}" is not listening'])
            sock.setblocking(False)
            sock.set_inheritable(False)
    except ListenError:
        for _, sock in adopted:
            sock.close()
        raise
    return adopted
