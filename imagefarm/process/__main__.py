"""``python -m imagefarm.process ARGUMENTS``: ``twistd ARGUMENTS`` in a session of its own.

A supervised role is started so: Ctrl-C on the terminal then reaches only the supervisor, which
stops its children in order, and no ``twistd`` script needs to be on the path. Twisted is
imported after the new session exists, to keep the moment short in which Ctrl-C would reach both.
"""

import os
import sys


def main() -> None:
    """Run twistd with our own arguments."""
    if os.getsid(0) != os.getpid():
        os.setsid()
    from twisted.scripts.twistd import run

    sys.argv[0] = "twistd"
    run()


if __name__ == "__main__":
    main()
