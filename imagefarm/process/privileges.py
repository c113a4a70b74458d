"""``user``: give up root's privileges once the sockets are bound."""

from __future__ import annotations

import grp
import os
import pwd
from collections.abc import Callable

from attrs import frozen


class PrivilegeError(Exception):
    """The user or group doesn't exist, or the change failed; the text is nginx's."""


@frozen
class UserSetting:
    """The words of ``user USER [GROUP]`` and their place, for the error message."""

    user: str
    group: str
    file: str = ""
    line: int = 0


@frozen
class Credentials:
    """A resolved user and group."""

    user: str
    uid: int
    gid: int


NOT_ROOT = (
    'the "user" directive makes sense only if the master process runs with super-user '
    "privileges, ignored"
)


def resolve(
    setting: UserSetting | None, warn: Callable[[str], None], euid: int
) -> Credentials | None:
    """Look up ``setting``; None when there is nothing to change.

    Without super-user privileges (``euid`` not 0) it warns as nginx does. Raises
    `PrivilegeError` for an unknown user or group.
    """
    if setting is None:
        return None
    place = f" in {setting.file}:{setting.line}" if setting.file else ""
    if euid != 0:
        warn(NOT_ROOT + place)
        return None
    try:
        uid = pwd.getpwnam(setting.user).pw_uid
    except KeyError:
        raise PrivilegeError(f'getpwnam("{setting.user}") failed{place}') from None
    try:
        gid = grp.getgrnam(setting.group).gr_gid
    except KeyError:
        raise PrivilegeError(f'getgrnam("{setting.group}") failed{place}') from None
    return Credentials(setting.user, uid, gid)


@frozen
class Belongings:
    """What a daemon writes to, as absolute paths: log files, and directories."""

    logs: tuple[str, ...] = ()
    directories: tuple[str, ...] = ()


def hand_to(credentials: Credentials, belongings: Belongings) -> list[str]:
    """Give ``belongings`` to the user that the process becomes; make what is missing.

    Log files are opened by root, but opened anew by the user after rotation, in a directory
    that may be root's alone. Returns what went wrong, a line each.
    """
    failures = []
    for directories, paths in ((False, belongings.logs), (True, belongings.directories)):
        for path in paths:
            try:
                if directories:
                    os.makedirs(path, 0o700, exist_ok=True)
                else:
                    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644))
                if os.stat(path).st_uid != credentials.uid:
                    os.chown(path, credentials.uid, -1)
            except OSError as error:
                failures.append(f'chown("{path}") failed ({error.errno}: {error.strerror})')
    return failures


def drop(credentials: Credentials) -> None:
    """Become ``credentials`` for good: groups, then group, then user, real, effective and saved.

    Raises `PrivilegeError`, also when root's privileges could be had back afterwards.
    """
    try:
        os.initgroups(credentials.user, credentials.gid)
        os.setresgid(credentials.gid, credentials.gid, credentials.gid)
        os.setresuid(credentials.uid, credentials.uid, credentials.uid)
    except OSError as error:
        raise PrivilegeError(
            f"changing to user {credentials.user} ({credentials.uid}:{credentials.gid}) failed "
            f"({error.errno}: {error.strerror})"
        ) from error
    if credentials.uid != 0:
        try:
            os.setuid(0)
        except OSError:
            return
        raise PrivilegeError(f"still root after changing to user {credentials.user}")
