"""Metrics in Prometheus's text format (version 0.0.4)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from attrs import field, frozen

CONTENT_TYPE: Final = b"text/plain; version=0.0.4; charset=utf-8"

_ESCAPED: Final = {"\\": r"\\", "\n": r"\n", '"': r"\""}
_IN_HELP: Final = re.compile(r"[\\\n]")
_IN_VALUES: Final = re.compile(r'[\\\n"]')


@frozen
class Sample:
    """One value. ``suffix`` is what is added to the name (``_sum``, ``_count``, ``_bucket``)."""

    value: float
    labels: Mapping[str, str] = field(factory=dict)
    suffix: str = ""


@frozen
class Family:
    """The samples of one metric. ``kind`` is counter, gauge, summary or histogram."""

    name: str
    kind: str
    help: str
    samples: tuple[Sample, ...]


def histogram(
    buckets: Sequence[float], bounds: Sequence[float], total: float, labels: Mapping[str, str]
) -> Iterator[Sample]:
    """The samples of a histogram with ``labels``. ``buckets`` hold their own counts, one more than
    there are ``bounds``; ``total`` is the sum of what was observed.
    """
    count = 0.0
    for bound, number in zip((*map(_number, bounds), "+Inf"), buckets, strict=True):
        count += number
        yield Sample(count, {**labels, "le": bound}, "_bucket")
    yield Sample(total, labels, "_sum")
    yield Sample(count, labels, "_count")


def exposition(families: Iterable[Family]) -> bytes:
    """The text of ``families``; those without samples are left out."""
    lines: list[str] = []
    for family in families:
        if not family.samples:
            continue
        lines.append(f"# HELP {family.name} {_escape(family.help, _IN_HELP)}")
        lines.append(f"# TYPE {family.name} {family.kind}")
        for sample in family.samples:
            pairs = ",".join(
                f'{name}="{_escape(value, _IN_VALUES)}"' for name, value in sample.labels.items()
            )
            braces = f"{{{pairs}}}" if pairs else ""
            lines.append(f"{family.name}{sample.suffix}{braces} {_number(sample.value)}")
    return "".join(f"{line}\n" for line in lines).encode("utf-8", "replace")


def _escape(text: str, special: re.Pattern[str]) -> str:
    return special.sub(lambda match: _ESCAPED[match[0]], text)


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(round(value, 6))
