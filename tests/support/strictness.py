"""Writes docs/strictness.md from the vectors: ``python -m tests.support.strictness``."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from tests.http.vector import Vector
from tests.http.vectors import ALL

DOCUMENT = Path(__file__).parents[2] / "docs" / "strictness.md"

_INTRODUCTION = """\
# What malformed requests get

Generated from the table in `tests/http/vectors.py` by `python -m tests.support.strictness`;
don't edit. `tests/interop/test_vectors.py` sends every row of the table to a running daemon and
to real nginx (1.22, with the same configuration) and fails if either answers otherwise.

A request whose framing is in doubt is refused and its connection closed: what follows it in the
same bytes is never taken for a request. "400, closed" is that; "200, open" means that the request
was served and that the next one on the connection was understood as itself.

"""

_SECTIONS: tuple[tuple[str, str, Callable[[Vector], bool]], ...] = (
    (
        "Where we are stricter",
        "nginx serves these; we refuse them.",
        lambda vector: _refuses(vector.expected) and not _refuses(vector.nginx),
    ),
    (
        "Where nginx is stricter",
        "nginx refuses these, or closes the connection; we serve them, because they are "
        "well-formed and their framing is clear.",
        lambda vector: not _refuses(vector.expected) and _limits(vector.nginx),
    ),
    (
        "The same decision, told otherwise",
        "Both refuse or both serve, with another status or another end.",
        lambda vector: True,
    ),
)


def _refuses(outcome: str) -> bool:
    return any(int(word) >= 400 for word in outcome.split()[:-1])


def _limits(outcome: str) -> bool:
    return _refuses(outcome) or outcome == "200 closed"


def _words(outcome: str) -> str:
    *statuses, end = outcome.split()
    return ", ".join([*("HTTP/0.9" if word == "0" else word for word in statuses), end])


def _rows(vectors: Iterable[Vector]) -> list[str]:
    rows = ["| family | request | we | nginx | source |", "|---|---|---|---|---|"]
    rows += [
        f"| {v.family} | {v.name} | {_words(v.expected)} | {_words(v.nginx)} | {v.section} |"
        for v in vectors
    ]
    return rows


def render() -> str:
    """The document."""
    left = [vector for vector in ALL if vector.nginx]
    same = len(ALL) - len(left)
    lines = [f"Of {len(ALL)} requests, nginx answers {same} as we do.", ""]
    for title, text, belongs in _SECTIONS:
        chosen = [vector for vector in left if belongs(vector)]
        left = [vector for vector in left if not belongs(vector)]
        lines += [f"## {title}", "", f"{text} ({len(chosen)})", "", *_rows(chosen), ""]
    lines += ["## Everything that is tested", "", "| family | requests | of these refused |"]
    lines += ["|---|---|---|"]
    for family in dict.fromkeys(vector.family for vector in ALL):
        members = [vector for vector in ALL if vector.family == family]
        refused = sum(_refuses(vector.expected) for vector in members)
        lines.append(f"| {family} | {len(members)} | {refused} |")
    return _INTRODUCTION + "\n".join(lines) + "\n"


if __name__ == "__main__":
    DOCUMENT.write_text(render())
