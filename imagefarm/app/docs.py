"""``python -m imagefarm.app.docs FILE``: write the reference of all directives (``make docs``)."""

from __future__ import annotations

import sys
from pathlib import Path

from imagefarm.config.reference import render

from .configuration import directive_table


def reference() -> str:
    """The text of docs/configuration.md."""
    return render(directive_table())


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(reference(), encoding="utf-8")
