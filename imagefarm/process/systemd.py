"""What systemd and a service tell each other.

sd_notify(3), sd_listen_fds(3), sd_watchdog_enabled(3): messages are datagrams, sockets are
descriptors from 3 on, so no library is needed.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Mapping, MutableMapping
from typing import Final

from .sockets import described

FIRST_FD: Final = 3
#: The variables of systemd's that name this very process, or what it was given.
_OWN: Final = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "WATCHDOG_PID")


def first_environment(environment: Mapping[str, str]) -> Mapping[str, str]:
    """What this process was started with (proc(5)); ``environment`` where that can't be read.

    twisted.internet.endpoints takes LISTEN_PID and LISTEN_FDS away as soon as anything imports
    it; twistd does, whenever it may not write its cache of plugins.
    """
    try:
        with open("/proc/self/environ", "rb") as file:
            entries = os.fsdecode(file.read()).split("\0")
    except OSError:
        return environment
    return dict(entry.split("=", 1) for entry in entries if "=" in entry)


def inherited(environment: Mapping[str, str], pid: int, first: int = FIRST_FD) -> str:
    """The sockets that systemd listens on for us, as `sockets.adopt` wants to have them."""
    if environment.get("LISTEN_PID") != str(pid):
        return ""
    return described(range(first, first + int(environment.get("LISTEN_FDS", "0"))))


class Notifier:
    """Tells systemd how we are, if it wants to know.

    Takes out of the environment what is not for another program that takes over from us.
    """

    def __init__(self, environment: MutableMapping[str, str], pid: int) -> None:
        self._path = environment.get("NOTIFY_SOCKET", "")
        usec = environment.get("WATCHDOG_USEC", "")
        mine = environment.get("WATCHDOG_PID", str(pid)) == str(pid)
        #: How often to say `alive`, in seconds: half of what is allowed. 0: never.
        self.interval = int(usec) / 2e6 if usec.isdecimal() and mine and self._path else 0.0
        for name in _OWN if mine else (*_OWN, "WATCHDOG_USEC"):
            environment.pop(name, None)

    def say(self, *lines: str) -> None:
        """Send a message; nobody is there to hear of a failure."""
        if not self._path:
            return
        address = f"\0{self._path[1:]}" if self._path.startswith("@") else self._path
        with (
            contextlib.suppress(OSError),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock,
        ):
            sock.setblocking(False)
            sock.sendto("\n".join(lines).encode(), address)

    def ready(self, pid: int) -> None:
        """We serve; also after a reload, and as the program that takes over from another."""
        self.say("READY=1", f"MAINPID={pid}")

    def reloading(self) -> None:
        """A reload has begun; `ready` ends it."""
        self.say("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """We are about to end."""
        self.say("STOPPING=1")

    def alive(self) -> None:
        """Our loop turns."""
        self.say("WATCHDOG=1")
