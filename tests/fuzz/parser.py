"""Coverage-guided fuzzing of the request parser: ``python -m tests.fuzz.parser --seconds 180``.

Needs atheris (``pip install 'imagefarm[fuzz]'``). Starts from tests/fuzz/corpus and keeps what it
finds in a directory of its own (``--work``); ``--merge`` adds to the corpus what of that covers
anything new. An input that fails is left in the current directory as ``crash-...``: it belongs
into the corpus when it is mended.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tests.http.vectors import VECTORS

CORPUS = Path(__file__).parent / "corpus"
DICTIONARY = Path(__file__).parent / "http.dict"
MAX_BYTES = 2048


def main() -> None:
    """Run until the time is over or something fails."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--seconds", type=int, default=180)
    options.add_argument("--work", type=Path, default=None)
    options.add_argument("--merge", action="store_true")
    chosen, passed_on = options.parse_known_args()
    try:
        import atheris
    except ImportError:
        sys.exit("atheris is not installed: pip install 'imagefarm[fuzz]'")
    with atheris.instrument_imports(include=["imagefarm.http", "tests.support.pipeline"]):
        from tests.fuzz.target import check_input
    if not passed_on:
        work = chosen.work or Path(tempfile.mkdtemp(prefix="fuzz-parser-"))
        work.mkdir(parents=True, exist_ok=True)
        passed_on = [f"-max_len={MAX_BYTES}", f"-dict={DICTIONARY}"]
        if chosen.merge:
            passed_on += ["-merge=1", str(CORPUS), str(work)]
        else:
            _plant(work)
            passed_on += [f"-max_total_time={chosen.seconds}", str(work), str(CORPUS)]
    # To merge, libFuzzer has the shell start this again with options of its own.
    arguments = [f"{sys.executable} -m tests.fuzz.parser", *passed_on]
    atheris.Setup(arguments, check_input)
    atheris.Fuzz()


def _plant(work: Path) -> None:
    """Start from the known attacks as well, each with loose and with tight limits."""
    for number, vector in enumerate(VECTORS):
        for choice in (0, 1):
            data = bytes((choice, 20, 60)) + vector.data
            if len(data) <= MAX_BYTES:
                (work / f"vector-{number}-{choice}").write_bytes(data)


if __name__ == "__main__":
    main()
