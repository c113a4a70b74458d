"""What a case found, and how it is printed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from benchmarks.pairs import Reading, Result

Figure = Callable[[Reading], float]


@dataclass(frozen=True)
class Wanted:
    """The bound that a ratio has to keep."""

    bound: float
    at_most: bool = False

    def met(self, ratio: float) -> bool:
        """Whether it does."""
        return ratio <= self.bound if self.at_most else ratio >= self.bound

    def __str__(self) -> str:
        return f"{'<=' if self.at_most else '>='} {self.bound:.1f}"


AT_LEAST_EQUAL = Wanted(1.0)


@dataclass(frozen=True)
class Line:
    """One figure of two sides and our ratio; ``low`` and ``high`` are those of the pairs."""

    what: str
    theirs: float
    ours: float
    ratio: float
    low: float
    high: float

    def __str__(self) -> str:
        digits = 1 if self.theirs < 1000 else 0
        return (
            f"  {self.what:<26} {self.theirs:>12,.{digits}f} {self.ours:>12,.{digits}f}"
            f"   ratio {self.ratio:.2f} ({self.low:.2f} to {self.high:.2f})"
        )


@dataclass(frozen=True)
class Outcome:
    """One judged case: its first line counts, the others explain it."""

    title: str
    wanted: Wanted
    lines: Sequence[Line]
    notes: Sequence[str] = ()
    faults: int = 0
    names: tuple[str, str] = field(default=("nginx", "imagefarm"))

    @property
    def met(self) -> bool:
        """Whether the ratio is good enough and nothing was wrong."""
        return self.wanted.met(self.lines[0].ratio) and not self.faults

    @property
    def verdict(self) -> str:
        """In words."""
        if self.faults:
            return f"NOT MET: {self.faults} faults"
        return "met" if self.met else "NOT MET"

    def __str__(self) -> str:
        first, *rest = self.lines
        return "\n".join(
            (
                f"{self.title:<28} {self.names[0]:>12} {self.names[1]:>12}",
                f"{first}   wanted {self.wanted}: {self.verdict}",
                *map(str, rest),
                *(f"  {note}" for note in self.notes),
            )
        )


def line(what: str, result: Result, figure: Figure, ratio: Figure | None = None) -> Line:
    """A line from pairs; ``ratio`` is the figure that is compared, if it is another one."""
    compared = ratio or figure
    ratios = result.ratios(compared)
    return Line(
        what, result.theirs(figure), result.ours(figure), result.ratio(compared),
        min(ratios), max(ratios),
    )  # fmt: skip


def cost(result: Result, what: str = "CPU us a request") -> Line:
    """CPU time for each request; its ratio is that of the requests per CPU second."""
    return line(what, result, lambda reading: reading.cost, lambda reading: 1 / reading.cost)


def busy(result: Result) -> str:
    """How much of a core each server used, and how quiet the machine was meanwhile."""
    theirs, ours = (
        [
            side(lambda reading: reading.busy * 100),
            side(lambda reading: reading.others / reading.seconds * 100),
        ]
        for side in (result.theirs, result.ours)
    )
    errors = [sum(pair[side].errors for pair in result.pairs) for side in (0, 1)]
    text = (
        f"server busy {theirs[0]:.0f}% and {ours[0]:.0f}% of a core,"
        f" the rest of the machine {theirs[1]:.0f}% and {ours[1]:.0f}%"
    )
    return text + (f"; failed requests: {errors[0]} and {errors[1]}" if any(errors) else "")


def throughput(
    title: str, result: Result, wanted: Wanted = AT_LEAST_EQUAL, notes: Sequence[str] = ()
) -> Outcome:
    """The usual outcome: requests per second, CPU time for each, failed ones."""
    return Outcome(
        title, wanted,
        [line("requests a second", result, lambda reading: reading.rate), cost(result)],
        [busy(result), *notes],
        sum(ours.errors for _, ours in result.pairs),
    )  # fmt: skip


def table(outcomes: Sequence[Outcome]) -> str:
    """All of them, short, as Markdown."""
    rows = ["| case | ratio | pairs | wanted | |", "|---|---|---|---|---|"]
    for outcome in outcomes:
        first = outcome.lines[0]
        rows.append(
            f"| {outcome.title} | {first.ratio:.2f} | {first.low:.2f} to {first.high:.2f}"
            f" | {outcome.wanted} | {outcome.verdict} |"
        )
    return "\n".join(rows)
