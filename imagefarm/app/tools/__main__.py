"""``python -m imagefarm.app.tools sign|warm ...``."""

from __future__ import annotations

import sys

from . import COMMANDS

if __name__ == "__main__":
    if sys.argv[1:2] and sys.argv[1] in COMMANDS:
        sys.exit(COMMANDS[sys.argv[1]](sys.argv[2:]))
    sys.stderr.write(f"usage: python -m imagefarm.app.tools {'|'.join(COMMANDS)} ...\n")
    sys.exit(2)
