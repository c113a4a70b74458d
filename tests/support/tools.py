"""Programs that tests judge us by. A missing one is a named skip; in CI it is a failure."""

from __future__ import annotations

import glob
import os
import shutil
import unittest

#: Set by CI: a missing tool fails the test.
REQUIRED = os.environ.get("IMAGEFARM_REQUIRE_INTEROP") == "1"


def tool(*patterns: str) -> str:
    """The path of the first program found by name or glob; skips the test if there is none."""
    for pattern in patterns:
        found = shutil.which(pattern) or next(iter(sorted(glob.glob(pattern))), None)
        if found:
            return found
    raise missing(patterns[0])


def missing(name: str) -> Exception:
    """What a test raises that can't do without ``name``."""
    message = f"{name} is not installed"
    if REQUIRED:
        return AssertionError(f"{message}, and IMAGEFARM_REQUIRE_INTEROP=1 demands it")
    return unittest.SkipTest(message)


def nginx() -> str:
    """Real nginx."""
    return tool("nginx", "/usr/sbin/nginx")


def php_fpm() -> str:
    """Real php-fpm."""
    return tool("php-fpm", "/usr/sbin/php-fpm*")
