"""Certificates for tests, made by our own code: no program needed."""

from __future__ import annotations

import datetime
from pathlib import Path

from imagefarm.process.certificate import ensure_self_signed


def self_signed(directory: Path, name: str) -> tuple[str, str]:
    """The paths of a new certificate and its key."""
    pem, key = str(directory / f"{name}.pem"), str(directory / f"{name}.key")
    ensure_self_signed(pem, key, datetime.datetime.now(datetime.UTC))
    return pem, key
