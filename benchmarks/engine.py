"""The HTTP engine and the master against nginx: same configuration, same run, one worker each.

.venv/bin/python -m benchmarks.engine [--pairs N] [--seconds N] [--list] [CASE ...]
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
import traceback
import unittest
from collections.abc import Callable, Iterator

from benchmarks import cases, report, special, upstream
from benchmarks.cases import Effort
from benchmarks.report import Outcome

CASES: dict[str, Callable[[Effort], Iterator[Outcome]]] = {
    "farm": cases.farm,
    "kept": cases.kept,
    "stillshots": cases.stillshots,
    "many": cases.many,
    "megabyte": cases.megabyte,
    "tls": cases.tls,
    "handshakes": special.full_handshakes,
    "404": cases.errors,
    "304": cases.unmodified,
    "memory": special.memory,
    "latency": special.latency,
    "workers": special.workers,
    "hop": upstream.hop,
    "hop-kept": upstream.kept,
    "hop-megabyte": upstream.megabyte,
    "hop-latency": upstream.latency,
}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.engine", description=__doc__)
    parser.add_argument("cases", nargs="*", metavar="CASE", help="some of: " + ", ".join(CASES))
    parser.add_argument("--pairs", type=int, default=5, help="pairs of runs that count")
    parser.add_argument("--seconds", type=int, default=3, help="seconds a run")
    parser.add_argument("--list", action="store_true", help="name the cases and end")
    options = parser.parse_args()
    unknown = [name for name in options.cases if name not in CASES]
    if unknown or min(options.pairs, options.seconds) < 1:
        parser.error(f"no such case: {', '.join(unknown)}" if unknown else "at least 1")
    return options


def _ended(number: int, _frame: object) -> None:
    """TERM unwinds as Ctrl-C does, so that everything started is ended."""
    raise SystemExit(128 + number)


def main() -> int:
    """Print each case as it is done, then all of them. 1 if an answer of ours was wrong."""
    options = _options()
    if options.list:
        for name, case in CASES.items():
            print(f"{name:<12} {(case.__doc__ or '').splitlines()[0]}")
        return 0
    signal.signal(signal.SIGTERM, _ended)
    effort = Effort(options.pairs, options.seconds)
    outcomes: list[Outcome] = []
    failed: list[str] = []
    for name in options.cases or CASES:
        start = time.monotonic()
        try:
            for outcome in CASES[name](effort):
                outcomes.append(outcome)
                print(f"{outcome}\n  [{name}, {time.monotonic() - start:.0f} s]\n", flush=True)
        except unittest.SkipTest:
            raise
        except Exception:  # hours of other cases are not to be lost for one
            failed.append(name)
            print(f"{name} could not be measured:\n{traceback.format_exc()}", flush=True)
    print(report.table(outcomes), *(f"could not be measured: {name}" for name in failed), sep="\n")
    return 1 if failed or any(outcome.faults for outcome in outcomes) else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except unittest.SkipTest as missing:
        sys.exit(str(missing))
    except KeyboardInterrupt:
        sys.exit(130)
