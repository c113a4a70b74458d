"""``twistd imagefarm master | slave | resizer | farm``: the commands and their options."""

from __future__ import annotations

import os
import re
import shlex
import sys
from typing import Any, NoReturn

from twisted.application.service import IService
from twisted.python import usage

from imagefarm import __version__
from imagefarm.app import check, make_service
from imagefarm.app.configuration import SHIPPED
from imagefarm.app.configuration import Options as RoleSettings
from imagefarm.app.errors import CannotStart


class RoleOptions(usage.Options):
    """What every role takes."""

    role = ""
    optParameters = [
        ["config", "c", None, "The configuration, in nginx.conf syntax. Default: our own etc/."],
        ["prefix", "p", ".", "Relative paths in the configuration are taken from here."],
        ["root", "r", None, "Serve files from this directory."],
        ["port", None, None, "Listen on this port instead of the configuration's."],
        ["tls-port", None, None, "The same for TLS."],
        ["program", None, "", "What USR2 starts, quoted as for a shell. Default: this role."],
    ]
    optFlags = [["check", None, "Check the configuration as a start would, and exit."]]
    compData = usage.Completions(
        optActions={"config": usage.CompleteFiles("*.conf"), "prefix": usage.CompleteDirs()}
    )

    def __init__(self) -> None:
        usage.Options.__init__(self)
        self["set"] = []

    def opt_set(self, value: str) -> None:
        """Add or replace a directive of the main context: --set 'worker_processes 2;'."""
        self["set"].append(value)

    opt_s = opt_set

    def _number(self, name: str) -> int | None:
        text = self[name]
        if text is None:
            return None
        if not re.fullmatch("[0-9]{1,5}", text) or not 0 < int(text) < 65536:
            raise usage.UsageError(f'--{name} takes a port number, not "{text}"')
        return int(text)

    def postOptions(self) -> None:
        """Check what the parser could not."""
        if self["root"] == "":
            raise usage.UsageError("--root takes a directory")
        self.options = RoleSettings(
            role=self.role,
            config=os.path.abspath(self["config"] or os.path.join(SHIPPED, f"{self.role}.conf")),
            prefix=os.path.abspath(self["prefix"]),
            settings=tuple(self["set"]),
            root=os.path.abspath(self["root"]) if self["root"] else None,
            port=self._number("port"),
            tls_port=self._number("tls-port"),
            program=tuple(shlex.split(self["program"])),
        )


class MasterOptions(RoleOptions):
    """The master's."""

    role = "master"


class SlaveOptions(RoleOptions):
    """A slave's."""

    role = "slave"


class ResizerOptions(RoleOptions):
    """The resizer's."""

    role = "resizer"


class FarmOptions(RoleOptions):
    """The farm's: master, slaves and resizer, supervised."""

    role = "farm"

    def postOptions(self) -> None:
        """Check what the parser could not."""
        RoleOptions.postOptions(self)
        for name in ("port", "tls-port"):
            if self[name] is not None:
                raise usage.UsageError(
                    f"--{name} is for one role, a farm's ports are in its files"
                )


class Options(usage.Options):
    """``twistd imagefarm``."""

    synopsis = "ROLE [options]"
    subCommands = [
        ["master", None, MasterOptions, "Balance, cache, serve stillshots, speak TLS."],
        ["slave", None, SlaveOptions, "Serve image files."],
        ["resizer", None, ResizerOptions, "Resize images, a FastCGI responder."],
        ["farm", None, FarmOptions, "Run them all, supervised."],
    ]

    def opt_version(self) -> NoReturn:
        """Print the version and exit."""
        sys.stdout.write(f"imagefarm {__version__}\n")
        sys.exit(0)

    def postOptions(self) -> None:
        """A role is needed."""
        if self.subCommand is None:
            raise usage.UsageError("which role: master, slave, resizer or farm?")


def makeService(options: Any) -> IService:
    """Make the service, or say in one line each what is in the way and exit with status 1."""
    from twisted.internet import reactor

    settings = options.subOptions.options
    try:
        if options.subOptions["check"]:
            for problem in check(settings, reactor).warnings:
                sys.stderr.write(f"imagefarm: [warn] {problem}\n")
            sys.stderr.write(f"imagefarm: configuration file {settings.config} is fine\n")
            sys.exit(0)
        return make_service(settings, reactor)
    except CannotStart as error:
        for line in error.lines:
            sys.stderr.write(f"imagefarm: [emerg] {line}\n")
        sys.exit(1)
