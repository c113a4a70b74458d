"""The resizer against nginx with php-fpm and GD, thumbor, and sharp: same originals, same run.

.venv/bin/python -m benchmarks.resize --set-up      installs thumbor and sharp
.venv/bin/python -m benchmarks.resize [--rounds N] [--seconds N] [--images DIR] [CASE ...]
"""

from __future__ import annotations

import argparse
import io
import itertools
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from benchmarks import originals
from benchmarks.asking import ask, fetch, for_seconds
from benchmarks.originals import ALPHA, LARGE, PHOTO, WEBP
from benchmarks.pairs import Reading, Result
from benchmarks.report import Outcome, Wanted, busy, cost, line, table
from benchmarks.resizers import PEERS, Resizer, Wish, installed, ours, set_up
from benchmarks.servers import directory
from tests.support.similarity import on_white, ssim

#: Where thumbor and sharp are installed.
INSTALLED = Path(__file__).parents[1] / "var/bench-peers"


@dataclass(frozen=True)
class Case:
    """Pictures that are asked for in turn, and what our rate has to be over that of peers."""

    title: str
    wishes: Sequence[Wish]
    wanted: dict[str, float]
    #: Asked for once before; then decoded pictures may be reused.
    first: Wish | None = None
    notes: Sequence[str] = field(default=())


_WIDTHS = (200, 240, 280, 320, 360, 400, 440, 480)
CASES = {
    "photo": Case(
        "2725 x 2225 JPEG to 320", [Wish(PHOTO, 320)],
        {"php-fpm": 6.0, "thumbor": 7.0, "sharp": 1.1},
    ),
    "further": Case(
        "further sizes of it, 200 to 480", [Wish(PHOTO, width) for width in _WIDTHS],
        {"sharp": 2.5}, first=Wish(PHOTO, 640),
    ),
    "large": Case("4000 x 3000 JPEG to 1600", [Wish(LARGE, 1600)], {"sharp": 0.9}),
    "alpha": Case(
        "1024 x 768 PNG to 400", [Wish(ALPHA, 400, "png")], {"sharp": 0.9},
    ),
    "webp": Case(
        "1024 x 772 WebP to 400, WebP", [Wish(WEBP, 400, "webp")], {"sharp": 0.9},
    ),
    "avif": Case(
        "2725 x 2225 JPEG to 320, AVIF", [Wish(PHOTO, 320, "avif", 55)], {"sharp": 0.9},
        notes=["quality 55, libaom's speed 8, 4:2:0"],
    ),
}  # fmt: skip
QUALITY = ("photo", "large", "alpha", "webp", "avif")


@dataclass(frozen=True)
class Effort:
    """Rounds that count, and the seconds that each resizer is asked in each of them."""

    rounds: int
    seconds: float


class Field:
    """The originals, and where resizers are started."""

    def __init__(self, where: Path, given: Path | None, peers: Path, names: Sequence[str]) -> None:
        self.images = where / "originals"
        self.images.mkdir()
        self.drawn = originals.provide(self.images, given)
        self._where = where
        self._peers = peers
        self._names = names
        self._numbers = itertools.count()

    def start(self, stack: ExitStack, names: Sequence[str], reuse: bool) -> dict[str, Resizer]:
        """Those of ``names`` that are here, ended with ``stack``; ours is the last."""
        started = {}
        for name in (name for name in PEERS if name in names and name in self._names):
            where = self._where / f"{name}-{next(self._numbers)}"
            peer = PEERS[name](where, self.images, self._peers, reuse)
            started[name] = stack.enter_context(peer)
        where = self._where / f"imagefarm-{next(self._numbers)}"
        started["imagefarm"] = stack.enter_context(ours(where, self.images, reuse))
        return started


def compare(case: Case, found: Field, effort: Effort) -> Iterator[Outcome]:
    """An outcome for each peer that the case names."""
    with ExitStack() as stack:
        resizers = found.start(stack, list(case.wanted), reuse=case.first is not None)
        readings: dict[str, list[Reading]] = {name: [] for name in resizers}
        wishes = {name: itertools.cycle(case.wishes) for name in resizers}
        for resizer in resizers.values():
            if case.first is not None:
                fetch(resizer, case.first)
            for wish in case.wishes:
                fetch(resizer, wish)
        for number in range(-1, effort.rounds):  # the first one warms up and does not count
            # Each begins in its turn, so that nobody gains from a machine that gets slower.
            order = list(resizers)
            begin = number % len(order)
            for name in order[begin:] + order[:begin]:
                resizer = resizers[name]
                seconds = effort.seconds if number >= 0 else effort.seconds / 2
                reading = resizer.measure(
                    lambda r=resizer, s=seconds: ask(r, wishes[r.name], for_seconds(s))
                )
                if number >= 0:
                    readings[name].append(reading)
    for name, bound in case.wanted.items():
        if name not in resizers:
            continue
        result = Result(list(zip(readings[name], readings["imagefarm"], strict=True)))
        yield Outcome(
            case.title, Wanted(bound),
            [line("pictures a second", result, lambda r: r.rate), cost(result)],
            [busy(result), *case.notes],
            sum(ours.errors for _, ours in result.pairs), (name, "imagefarm"),
        )  # fmt: skip


def reference(path: Path, width: int) -> Image.Image:
    """The long way round: all decoded, laid on white, resampled once with Lanczos.

    In floating point. With bytes between columns and rows, the library that takes them in the
    reference's order would round alike, which counts for more in flat places than a kernel does.
    """
    with Image.open(path) as image:
        image.load()
    size = width, round(image.height * width / image.width)
    bands = (
        band.convert("F").resize(size, Image.Resampling.LANCZOS)
        for band in on_white(image).split()
    )
    rounded = (band.point(lambda value: value * 1 + 0.5).convert("L") for band in bands)
    return Image.merge("RGB", list(rounded))


def quality(found: Field) -> Iterator[str]:
    """A line for each case: what each resizer made of it, compared with the reference."""
    with ExitStack() as stack:
        resizers = found.start(stack, list(PEERS), reuse=False)
        for case in (CASES[name] for name in QUALITY):
            wish = case.wishes[0]
            wanted = reference(found.images / wish.src, wish.width)
            cells = []
            for name, resizer in resizers.items():
                try:
                    body = fetch(resizer, wish)
                except AssertionError:
                    cells.append(f"{name} none")
                    continue
                with Image.open(io.BytesIO(body)) as made:
                    similar = ssim(wanted, on_white(made).resize(wanted.size))
                cells.append(f"{name} {similar:.5f} ({len(body):,} bytes)")
            yield f"{case.title:<34} " + "  ".join(cells)


def memory(found: Field, jobs: int) -> str:
    """Memory of our resizer's processes after a tenth of ``jobs`` mixed ones, and after all."""
    mixed = itertools.cycle(
        [
            *(Wish(PHOTO, width) for width in _WIDTHS),
            *(Wish(PHOTO, width, "webp") for width in _WIDTHS),
            Wish(LARGE, 1600), Wish(ALPHA, 400, "png"), Wish(WEBP, 400, "webp"),
            Wish(PHOTO, 320, "avif", 55), Wish(LARGE, 240), Wish(ALPHA, 300, "webp"),
        ]
    )  # fmt: skip
    with ExitStack() as stack:
        resizer = found.start(stack, [], reuse=True)["imagefarm"]
        responder = Resizer(resizer.name, resizer.port, resizer.daemons[:1], resizer.target)
        held = []
        for count in (jobs // 10, jobs - jobs // 10):
            reading = ask(responder, mixed, lambda asked, count=count: asked < count)
            assert not reading.errors, f"{reading.errors} failed"
            held.append(responder.memory())
    early, late = held
    verdict = "met" if late <= 1.2 * early else "NOT MET"
    return (
        f"memory of the resizer: {early / 2**20:.1f} MiB after {jobs // 10:,} jobs, "
        f"{late / 2**20:.1f} MiB after {jobs:,}: {late / early:.2f}, wanted <= 1.2: {verdict}"
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.resize", description=__doc__)
    every = [*CASES, "memory", "quality"]
    parser.add_argument("cases", nargs="*", metavar="CASE", help="some of: " + ", ".join(every))
    parser.add_argument("--set-up", action="store_true", help="install thumbor and sharp, and end")
    parser.add_argument("--peers", type=Path, default=INSTALLED, help="where they are installed")
    parser.add_argument("--images", type=Path, help="a directory with originals; else drawn")
    parser.add_argument("--without", action="append", default=[], help="a peer to leave out")
    parser.add_argument("--rounds", type=int, default=5, help="rounds that count")
    parser.add_argument("--seconds", type=float, default=5, help="seconds for each in a round")
    parser.add_argument("--jobs", type=int, default=10_000, help="jobs of the case memory")
    options = parser.parse_args()
    unknown = [name for name in options.cases if name not in every]
    if unknown:
        parser.error(f"no such case: {', '.join(unknown)}")
    options.cases = options.cases or every
    return options


def _ended(number: int, _frame: object) -> None:
    """TERM unwinds as Ctrl-C does, so that everything started is ended."""
    raise SystemExit(128 + number)


def main() -> int:
    """Print each case as it is done, then all of them. 1 if an answer of ours was wrong."""
    options = _options()
    peers = options.peers.absolute()
    if options.set_up:
        set_up(peers)
    here = installed(peers)
    for name in (name for name, there in here.items() if not there):
        print(f"{name} is not here and left out: see --set-up")
    if options.set_up:
        return 0 if all(here.values()) else 1
    names = [name for name, there in here.items() if there and name not in options.without]
    signal.signal(signal.SIGTERM, _ended)
    outcomes: list[Outcome] = []
    with directory() as where:
        found = Field(where, options.images, peers, names)
        print(f"drawn, as no others were given: {', '.join(found.drawn) or 'none'}\n", flush=True)
        for name in options.cases:
            if name in CASES:
                for outcome in compare(
                    CASES[name], found, Effort(options.rounds, options.seconds)
                ):
                    outcomes.append(outcome)
                    print(f"{outcome}\n", flush=True)
            elif name == "memory":
                print(memory(found, options.jobs), "\n", flush=True)
            else:
                print("SSIM of what they make", *quality(found), "", sep="\n", flush=True)
    print(table(outcomes))
    return 1 if any(outcome.faults for outcome in outcomes) else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
