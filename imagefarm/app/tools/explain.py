"""``explain``: which server, location, file or upstream a URL would get, and why."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from imagefarm.app.configuration import SHIPPED, Options, read
from imagefarm.app.explaining import Explainer, Question
from imagefarm.config.errors import ConfigurationError, Invalid

#: How wide the column of kinds is, in characters.
_WIDTH = 12


def main(words: Sequence[str]) -> int:
    """Explain each URL; 0, or 1 with a line that says why not."""
    given = _parser().parse_args(words)
    try:
        explainer = open_explainer(given.config, given.prefix)
        for url in given.url:
            told = explainer.explain(
                Question(url, given.method, tuple(given.header), given.client)
            )
            sys.stdout.write(json.dumps(told) + "\n" if given.json else text_of(told))
    except (ConfigurationError, Invalid, OSError) as error:
        sys.stderr.write(f"imagefarm: {error}\n")
        return 1
    return 0


def open_explainer(config: str, prefix: str) -> Explainer:
    """The explainer of a file. Raises as `main` catches."""
    prefix = os.path.abspath(prefix)
    return Explainer(read(Options("master", os.path.abspath(config), prefix)), prefix)


def text_of(told: Mapping[str, Any]) -> str:
    """For people: a line for each step, and where it is written."""
    lines = [told["url"]]
    for step in told["steps"]:
        at = f"  ({_short(step['at'])})" if "at" in step else ""
        lines.append(f"  {step['step']:{_WIDTH}} {step['text']}{at}")
        if step.get("servers"):
            lines.append(f"  {'':{_WIDTH}} servers: {', '.join(step['servers'])}")
        for name in ("headers", "params"):
            lines += [f"  {'':{_WIDTH}} {key}: {value}" for key, value in step.get(name, ())]
    answer = told["answer"]
    said = f"status {answer['status']}" if "status" in answer else f"from {answer['from']}"
    lines.append(f"  {'answer':{_WIDTH}} {said}")
    lines += [f"  {'':{_WIDTH}} {key}: {value}" for key, value in answer.get("headers", ())]
    return "\n".join(lines) + "\n"


def _short(place: str) -> str:
    near = os.path.relpath(place)
    return place if near.startswith("..") else near


def header(text: str) -> tuple[str, str]:
    """``Name: value``, for argparse."""
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise argparse.ArgumentTypeError(f'"{text}" is not "Header: value"')
    return name.strip(), value.strip()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="imagefarm explain",
        description="Say what a URL would get under a configuration, and why. Nothing is sent.",
    )
    add_configuration(parser)
    parser.add_argument(
        "-H", dest="header", metavar="HEADER", action="append", type=header, default=[],
        help='a field of the request, "Name: value"; may be repeated',
    )  # fmt: skip
    parser.add_argument("-m", dest="method", default="GET", metavar="METHOD", help="GET")
    parser.add_argument(
        "-a", dest="client", default="127.0.0.1", metavar="ADDRESS",
        help="the client's address; 127.0.0.1",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="an object a line")
    parser.add_argument("url", nargs="+", help="http://HOST[:PORT]/PATH")
    return parser


def add_configuration(parser: argparse.ArgumentParser) -> None:
    """``-c`` and ``-p``."""
    parser.add_argument(
        "-c", dest="config", default=os.path.join(SHIPPED, "master.conf"), metavar="FILE",
        help="the configuration of a master or slave",
    )  # fmt: skip
    parser.add_argument(
        "-p", dest="prefix", default=".", metavar="DIR",
        help="relative paths in the configuration are taken from here",
    )  # fmt: skip
