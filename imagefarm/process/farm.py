"""The ``farm`` block: which roles ``twistd imagefarm farm`` runs, and how each is started."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from typing import Final

from attrs import evolve, frozen

from imagefarm.config.ast import Directive
from imagefarm.config.errors import Invalid
from imagefarm.config.table import Environment

from .child import SUPERVISED
from .children import ChildSpec
from .console import FOREGROUND

ROLES: Final = ("master", "slave", "resizer")
_HIGHEST_PORT: Final = 65535
_PORT: Final = re.compile(r"[0-9]{1,5}")
#: Names become file names and stand in a directive: nothing that either would take amiss.
_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")


@frozen
class Member:
    """One process of the farm: its role, configuration file (absolute), name and port.

    ``port`` None leaves the file's own ``listen`` alone. ``name`` "" is given by `named`.
    """

    role: str
    config: str
    name: str = ""
    port: int | None = None

    def arguments(
        self, prefix: str, root: str | None = None, settings: tuple[str, ...] = ()
    ) -> tuple[str, ...]:
        """The ``twistd`` arguments after which this member runs in the foreground.

        Each member has a pidfile of its own name, since two may share a configuration file.
        ``settings`` are further ``--set`` values.
        """
        words = [*FOREGROUND, "imagefarm", self.role]
        words += ["--config", self.config, "--prefix", prefix]
        if self.port is not None:
            words += ["--port", str(self.port)]
        if root is not None:
            words += ["--root", root]
        for setting in (f"pid logs/{self.name}.pid;", *settings):
            words += ["--set", setting]
        return tuple(words)


def member(directive: Directive, env: Environment) -> Member:
    """Convert ``slave FILE [port=N] [name=NAME]``."""
    file, *options = directive.args
    found = Member(directive.name, env.conf_path(file))
    for option in options:
        key, _, value = option.partition("=")
        if key == "port" and _PORT.fullmatch(value) and 0 < int(value) <= _HIGHEST_PORT:
            found = evolve(found, port=int(value))
        elif key == "name" and _NAME.fullmatch(value):
            found = evolve(found, name=value)
        else:
            raise Invalid(f'invalid parameter "{option}"')
    return found


def named(members: tuple[Member, ...]) -> tuple[Member, ...]:
    """Give each nameless member its role's name, numbered where the role has several.

    ``slave01`` and ``slave02``, or just ``master``. Raises `Invalid` if two have one name.
    """
    counts = {role: sum(m.role == role for m in members) for role in ROLES}
    seen = dict.fromkeys(ROLES, 0)
    result: list[Member] = []
    for one in members:
        seen[one.role] += 1
        suffix = f"{seen[one.role]:02d}" if counts[one.role] > 1 else ""
        result.append(one if one.name else evolve(one, name=one.role + suffix))
    names = [one.name for one in result]
    for name in names:
        if names.count(name) > 1:
            raise Invalid(f'duplicate name "{name}" in "farm"')
    return tuple(result)


def child_specs(
    members: tuple[Member, ...],
    prefix: str,
    environment: Mapping[str, str],
    root: str | None = None,
    settings: tuple[str, ...] = (),
) -> tuple[ChildSpec, ...]:
    """What the supervisor runs for ``members``, in their order."""
    entry = (sys.executable, "-m", "imagefarm.process")
    return tuple(
        ChildSpec(
            one.name,
            entry + one.arguments(prefix, root, settings),
            {**environment, SUPERVISED: "1", "PYTHONUNBUFFERED": "1"},
        )
        for one in members
    )
