"""Workers, fillers and the manager of a cache are killed under load; what is left is examined.

.venv/bin/python -m tests.support.killing [SECONDS]

Each body carries its key's hash. Prints what was seen; 1 if anything was wrong.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from imagefarm.cache.entry import CorruptEntry
from imagefarm.cache.store import Directory

from . import rawhttp
from .cachestage import WORKERS, Stage, body_of
from .processes import wait_until

CLIENTS = 8
#: More than fits: entries of 36 KB on the average.
KEYS = 1500
MAX_SIZE = 16 << 20
LARGEST = 72 << 10
#: What may be held: the limit, 5 %, and what each worker is just moving into place.
MOST = MAX_SIZE * 105 // 100 + WORKERS * LARGEST
#: Seconds between two killings.
BETWEEN = (0.1, 0.4)
#: Seconds between two reloads: new workers are not held back for the deaths of the old ones.
RELOAD = 2.5
#: Seconds in which a new start has cleaned up, and is below the limit.
SOON = 10.0


@dataclass
class Report:
    """What was seen. ``answers``: good, broken off (the worker died), wrong."""

    answers: Counter[str] = field(default_factory=Counter)
    killed: Counter[str] = field(default_factory=Counter)
    most: int = 0
    faults: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        seen = ", ".join(f"{count:,} {what}" for what, count in sorted(self.answers.items()))
        killed = ", ".join(f"{count} {who}" for who, count in sorted(self.killed.items()))
        return "\n".join(
            (
                f"answers: {seen}",
                f"killed: {killed}",
                f"held at most {self.most:,} of {MAX_SIZE:,} bytes",
                *self.faults,
            )
        )


class Killing:
    """The clients, the killer and the examiner of one stage."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.report = Report()
        self._end = 0.0

    def run(self, seconds: float) -> Report:
        """Kill for so long, start anew, and examine."""
        self.stage.origin.pause = 0.05
        self._end = time.monotonic() + seconds
        threads = [threading.Thread(target=self._client, args=(n,)) for n in range(CLIENTS)]
        for thread in threads:
            thread.start()
        self._kill()
        for thread in threads:
            thread.join()
        self.stage.origin.pause = 0.0
        self.stage.master.kill()  # all at once, in the middle of what they do
        self.stage.start()
        self._examine()
        if self.report.answers["wrong"]:
            self.report.faults.append("wrong bodies")
        return self.report

    def _client(self, number: int) -> None:
        rng = random.Random(number)
        while time.monotonic() < self._end:
            path = f"/{'long/' if rng.random() < 0.7 else ''}{int(KEYS * rng.random() ** 2)}"
            self.report.answers[ask(self.stage.port, path)] += 1

    def _kill(self) -> None:
        victims = {
            "workers": lambda: random.choice(self.stage.workers() or [None]),
            "fillers": self.stage.filler,
            "managers": self.stage.manager,
        }
        rounds, reload = itertools.cycle(victims.items()), time.monotonic() + RELOAD
        while time.monotonic() < self._end:
            time.sleep(random.uniform(*BETWEEN))
            who, find = next(rounds)
            pid = find()
            if pid is not None and pid in self.stage.workers():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                    self.report.killed[who] += 1
            if time.monotonic() > reload:
                self.stage.master.signal(signal.SIGHUP)
                reload += RELOAD
            held = sum(size for _, size in self._files())
            self.report.most = max(self.report.most, held)
        if self.report.most > MOST:
            self.report.faults.append(f"more than {MOST:,} bytes")

    def _examine(self) -> None:
        """After a start: nothing of the dead is left, all files are whole, limits are kept."""
        cache, faults = self.stage.cache, self.report.faults
        for folder in ("tmp", "locks"):
            try:
                wait_until(lambda folder=folder: not os.listdir(cache / folder), SOON, folder)
            except AssertionError:
                faults.append(f"left in {folder}: {os.listdir(cache / folder)}")
        try:
            wait_until(lambda: sum(s for _, s in self._files()) <= MAX_SIZE, SOON, "room")
        except AssertionError:
            faults.append("over the limit")
        directory = Directory(str(cache), (1, 2))
        for name, _ in self._files():
            if trouble := examined(directory, bytes.fromhex(name)):
                faults.append(f"{name}: {trouble}")
        for number in range(0, KEYS, 50):
            if (said := ask(self.stage.port, f"/long/{number}")) != "good":
                faults.append(f"/long/{number} is {said}")
        if "cache file" in self.stage.prefix.log("error.log"):
            faults.append("a file that had to be removed")

    def _files(self) -> Iterator[tuple[str, int]]:
        """The names of the cache files, and what they take on the disk."""
        for where, _, names in os.walk(self.stage.cache):
            if where.endswith(("/tmp", "/locks", "/groups", "/members")):
                continue
            for name in names:
                if len(name) == 32:
                    with contextlib.suppress(OSError):
                        yield name, os.stat(os.path.join(where, name)).st_blocks * 512


def ask(port: int, path: str) -> str:
    """Whether the answer is good, wrong, or broken off."""
    try:
        answer = rawhttp.exchange(port, rawhttp.request(path))
    except (OSError, AssertionError):
        return "broken"
    if answer is None or answer.status != 200:
        return "broken"
    if answer.body == body_of(path):
        return "good"
    whole = len(answer.body) == int(answer.header("content-length") or -1)
    return "wrong" if whole else "broken"


def examined(directory: Directory, digest: bytes) -> str:
    """What is wrong with a file, if anything is; it may have been evicted meanwhile."""
    try:
        found = directory.open(digest)
    except CorruptEntry as reason:
        return str(reason)
    if found is None:
        return ""
    body = os.pread(found.file.fd, found.entry.body_length, found.body_offset)
    found.file.close()
    return "" if body == body_of(found.entry.key.decode()) else "another key's body"


def main() -> int:
    """For a minute, or as long as is said."""
    stage = Stage(max_size=str(MAX_SIZE))
    try:
        report = Killing(stage).run(float(sys.argv[1]) if sys.argv[1:] else 60.0)
    finally:
        stage.close()
    sys.stdout.write(f"{report}\n")
    return 1 if report.faults else 0


if __name__ == "__main__":
    sys.exit(main())
