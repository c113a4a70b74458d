"""``sign``: signatures for URLs of the query form, with the key of a resizer's configuration."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence

from imagefarm.app.configuration import SHIPPED, Options, read
from imagefarm.config.errors import ConfigurationError, Invalid
from imagefarm.image.asked import Asked, read_signable
from imagefarm.image.directives import ResizerSettings
from imagefarm.image.errors import ImageError
from imagefarm.image.signing import signed_query


def main(words: Sequence[str], clock: Callable[[], float] = time.time) -> int:
    """Print each query with its signature; 0, or 1 with a line that says why not."""
    given = _parser().parse_args(words)
    try:
        for line in _signed(given, clock):
            sys.stdout.write(line + "\n")
    except (ConfigurationError, Invalid, ImageError, OSError) as error:
        sys.stderr.write(f"imagefarm: {error}\n")
        return 1
    return 0


def _signed(given: argparse.Namespace, clock: Callable[[], float]) -> list[str]:
    config = os.path.abspath(given.config)
    loaded = read(Options("resizer", config, os.path.abspath(given.prefix)))
    settings = ResizerSettings.from_scope(loaded.root)
    place, rest = settings.places.find(given.location.encode())
    if not place.keys.own:
        raise Invalid(f'there is no "signing_key" for "{given.location}" in {config}')
    expires = None if given.seconds is None else int(clock()) + given.seconds
    lines = []
    for query in given.query:
        recipe = read_signable(Asked(place, rest, query.encode()), settings.pool.limits)
        lines.append(signed_query(place.keys.own[0], query, recipe, expires))
    return lines


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="imagefarm sign", description="Sign queries of the resizer, src=/a.jpg&w=320."
    )
    parser.add_argument(
        "-c",
        dest="config",
        default=os.path.join(SHIPPED, "resizer.conf"),
        metavar="FILE",
        help="the resizer's configuration",
    )
    parser.add_argument(
        "-p",
        dest="prefix",
        default=".",
        metavar="DIR",
        help="relative paths in the configuration are taken from here",
    )
    parser.add_argument(
        "-l",
        dest="location",
        default="/",
        metavar="PATH",
        help="the path of the URL, which chooses the location and its keys",
    )
    parser.add_argument(
        "-e",
        dest="seconds",
        type=_seconds,
        metavar="SECONDS",
        help="the URL expires after so many seconds",
    )
    parser.add_argument("query", nargs="+", help="the query string of a URL")
    return parser  # fmt: skip


def _seconds(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise argparse.ArgumentTypeError(f'"{text}" is not a number of seconds')
    return int(text)
