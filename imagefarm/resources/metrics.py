"""Metrics in Prometheus's text format (version 0.0.4)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

from attrs import field, frozen

CONTENT_TYPE: Final = b"text/plain; version=0.0.4; charset=utf-8"

_ESCAPED: Final = {"\\": r"\\", "\n": r"\n", '"': r"\""}
_IN_HELP: Final = re.compile(r"[\\\n]")
_IN_VALUES: Final = re.compile(r'[\\\n"]')


@frozen
class Sample:
    """One value. ``suffix`` is what a summary adds to its name (``_sum``, ``_count``)."""

    value: float
    labels: Mapping[str, str] = field(factory=dict)
    suffix: str = ""


@frozen
class Family:
    """The samples of one metric. ``kind`` is counter, gauge or summary."""

    name: str
    kind: str
    help: str
    samples: tuple[Sample, ...]


def exposition(families: Iterable[Family], labels: Mapping[str, str]) -> bytes:
    """The text of ``families``; all samples have ``labels`` beside their own."""
    lines: list[str] = []
    for family in families:
        lines.append(f"# HELP {family.name} {_escape(family.help, _IN_HELP)}")
        lines.append(f"# TYPE {family.name} {family.kind}")
        for sample in family.samples:
            pairs = ",".join(
                f'{name}="{_escape(value, _IN_VALUES)}"'
                for name, value in {**sample.labels, **labels}.items()
            )
            braces = f"{{{pairs}}}" if pairs else ""
            lines.append(f"{family.name}{sample.suffix}{braces} {_number(sample.value)}")
    return "".join(f"{line}\n" for line in lines).encode("utf-8", "replace")


def _escape(text: str, special: re.Pattern[str]) -> str:
    return special.sub(lambda match: _ESCAPED[match[0]], text)


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(round(value, 6))
