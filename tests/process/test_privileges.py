import grp
import os
import pwd
import subprocess
import sys

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from imagefarm.process.privileges import Credentials, PrivilegeError, UserSetting, resolve

ME = pwd.getpwuid(os.getuid())
MY_GROUP = grp.getgrgid(ME.pw_gid)

DROP = """
import os, pwd
from imagefarm.process.privileges import Credentials, drop
nobody = pwd.getpwnam("nobody")
drop(Credentials("nobody", nobody.pw_uid, nobody.pw_gid))
print(os.getresuid() == (nobody.pw_uid,) * 3, os.getresgid() == (nobody.pw_gid,) * 3,
      0 in os.getgroups())
"""


class ResolveTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.warnings: list[str] = []

    def resolve(self, user: str, group: str, euid: int = 0) -> Credentials | None:
        return resolve(UserSetting(user, group, "a.conf", 3), self.warnings.append, euid)

    def test_no_directive(self) -> None:
        self.assertIsNone(resolve(None, self.warnings.append, 0))
        self.assertEqual(self.warnings, [])

    def test_known(self) -> None:
        self.assertEqual(
            self.resolve(ME.pw_name, MY_GROUP.gr_name),
            Credentials(ME.pw_name, ME.pw_uid, MY_GROUP.gr_gid),
        )

    def test_unknown_user(self) -> None:
        error = self.assertRaises(PrivilegeError, self.resolve, "no such", "no such")
        self.assertEqual(str(error), 'getpwnam("no such") failed in a.conf:3')

    def test_unknown_group(self) -> None:
        error = self.assertRaises(PrivilegeError, self.resolve, ME.pw_name, "no such")
        self.assertEqual(str(error), 'getgrnam("no such") failed in a.conf:3')

    def test_ignored_without_privileges(self) -> None:
        self.assertIsNone(self.resolve("no such", "no such", euid=1000))
        self.assertEqual(
            self.warnings,
            [
                'the "user" directive makes sense only if the master process runs with '
                "super-user privileges, ignored in a.conf:3"
            ],
        )


class DropTests(SynchronousTestCase):
    def test_for_good(self) -> None:
        if os.geteuid() != 0:
            raise SkipTest("only root can give up root's privileges")
        done = subprocess.run(
            [sys.executable, "-c", DROP], capture_output=True, text=True, check=False
        )
        self.assertEqual((done.stdout, done.stderr), ("True True False\n", ""))
