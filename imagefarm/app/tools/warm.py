"""``warm``: have pictures of many originals made before anybody asks, through the farm's cache.

All sizes of one original are asked for one after another on one connection, so the resizer still
has the decoded picture for the second and further ones (docs/resize.md, intermediates): it is told
that it may take pixels that it has decoded for a larger size. A journal
has the originals that are done; the next run begins after them.
"""

from __future__ import annotations

import argparse
import http.client
import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TextIO
from urllib.parse import quote, urlsplit

from attrs import define, field

#: Seconds that one picture may take.
TIMEOUT = 60.0
#: Characters of the bar, and seconds between two looks at it.
BAR = 30
_TICK = 0.2
#: Most failures that are named.
MAX_NAMED = 20


@define
class Progress:
    """How far it is."""

    total: int
    done: int = 0
    skipped: int = 0
    failures: list[str] = field(factory=list)
    #: What nobody had thought of: it ends the run.
    fault: Exception | None = None
    lock: threading.Lock = field(factory=threading.Lock)

    def bar(self, seconds: float) -> str:
        """One line; ``seconds`` have gone by."""
        finished = self.done + self.skipped
        share = finished / self.total if self.total else 1.0
        filled = round(BAR * share)
        rest = (self.total - finished) * seconds / self.done if self.done else 0.0
        return (
            f"[{'#' * filled}{'.' * (BAR - filled)}] {finished}/{self.total} originals, "
            f"{len(self.failures)} failed, {int(rest) // 60}:{int(rest) % 60:02} left"
        )


class Journal:
    """The originals that are done, a line each after a line with the sizes. Appends only."""

    def __init__(self, path: str, sizes: Sequence[str]) -> None:
        self.done: set[str] = set()
        head = "sizes " + " ".join(sizes)
        if os.path.exists(path) and os.path.getsize(path):
            with open(path, encoding="utf-8", errors="surrogateescape") as file:
                first, *rest = [line.rstrip("\n") for line in file]
            if first != head:
                raise ValueError(f"{path} is the journal of other sizes: {first[:80]}")
            self.done.update(rest)
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        if os.fstat(self._file).st_size == 0:
            self.add(head)

    def add(self, original: str) -> None:
        """One more."""
        os.write(self._file, original.encode("utf-8", "surrogateescape") + b"\n")

    def close(self) -> None:
        """Nothing more is added."""
        os.close(self._file)


def main(words: Sequence[str], clock: Callable[[], float] = time.monotonic) -> int:
    """0 if all pictures have been made, else 1."""
    given = _parser().parse_args(words)
    listed = sys.stdin if given.original == ["-"] else given.original
    originals = list(dict.fromkeys(line.rstrip("\n") for line in listed if line.strip()))
    try:
        journal = Journal(given.journal, given.size) if given.journal else None
    except (OSError, ValueError) as error:
        sys.stderr.write(f"imagefarm: {error}\n")
        return 1
    started = clock()
    progress = run(given.url, originals, given.size, given.jobs, journal, lambda progress: _show(
        sys.stderr, progress.bar(clock() - started)
    ))  # fmt: skip
    sys.stderr.write("\r" + progress.bar(clock() - started) + "\n")
    for failure in progress.failures[:MAX_NAMED]:
        sys.stderr.write(f"imagefarm: {failure}\n")
    if progress.fault is not None:
        sys.stderr.write(f"imagefarm: {_early(progress, progress.fault)}\n")
    return 1 if progress.failures or progress.fault else 0


def _early(progress: Progress, fault: Exception) -> str:
    left = progress.total - progress.done - progress.skipped
    why = str(fault).partition("\n")[0]
    return f"ended early, {left} originals are not done: {type(fault).__name__}: {why}"


def run(
    url: str,
    originals: Sequence[str],
    sizes: Sequence[str],
    jobs: int,
    journal: Journal | None,
    show: Callable[[Progress], None],
) -> Progress:
    """Ask for all ``sizes`` of all ``originals``, ``jobs`` originals at a time.

    Ends early where something fails that is no picture's own failure: `Progress.fault`.
    """
    progress = Progress(len(originals))
    todo: queue.SimpleQueue[str] = queue.SimpleQueue()
    for original in originals:
        if journal is not None and original in journal.done:
            progress.skipped += 1
        else:
            todo.put(original)
    stop = threading.Event()

    def work() -> None:
        try:
            _work(url, todo, sizes, progress, journal, stop)
        except Exception as error:  # a full disk below the journal, a host that is no name
            stop.set()
            with progress.lock:
                progress.fault = progress.fault or error

    threads = [threading.Thread(target=work) for _ in range(jobs)]
    for thread in threads:
        thread.start()
    try:
        while any(thread.is_alive() for thread in threads):
            threads[-1].join(_TICK)
            threads[0].join(_TICK)
            show(progress)
    except KeyboardInterrupt:  # what is asked for already is waited for and written down
        progress.fault = InterruptedError("by the keyboard")
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        if journal is not None:
            journal.close()
    return progress


def _work(
    url: str,
    todo: queue.SimpleQueue[str],
    sizes: Iterable[str],
    progress: Progress,
    journal: Journal | None,
    stop: threading.Event,
) -> None:
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=TIMEOUT)
    while not stop.is_set():
        try:
            original = todo.get_nowait()
        except queue.Empty:
            break
        src = quote(_source(original).encode("utf-8", "surrogateescape"))
        failures = [
            f"{original} {size}: {why}"
            for size in sizes
            if (why := _ask(connection, f"{parts.path or '/'}?src={src}&{size}"))
        ]
        with progress.lock:
            progress.done += 1
            progress.failures += failures
            if journal is not None and not failures:
                journal.add(original)
    connection.close()


def _source(original: str) -> str:
    """As URLs have it, and cache keys with them: find(1) says photos/a.jpg or ./photos/a.jpg."""
    return "/" + original.removeprefix("./").removeprefix("/")


def _ask(connection: http.client.HTTPConnection, target: str) -> str:
    """What went wrong, or nothing."""
    try:
        connection.request("GET", target, headers={"X-Imagefarm-Warm": "1"})
        answer = connection.getresponse()
        body = answer.read()
    except (OSError, http.client.HTTPException) as error:
        connection.close()
        return str(error) or type(error).__name__
    line = body[:200].decode("ascii", "replace").partition("\n")[0]
    return "" if answer.status == 200 else f"{answer.status} {line}"


def _show(out: TextIO, line: str) -> None:
    if out.isatty():
        out.write("\r" + line)
        out.flush()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="imagefarm warm", description="Have pictures made before anybody asks for them."
    )
    parser.add_argument(
        "-u",
        dest="url",
        type=_url,
        default="http://127.0.0.1:8080/resize",
        metavar="URL",
        help="where the master makes thumbnails, with the host that clients will ask for; "
        "http://127.0.0.1:8080/resize",
    )
    parser.add_argument(
        "-s",
        dest="size",
        type=_size,
        action="append",
        required=True,
        metavar="PARAMETERS",
        help="a size, as in w=320&fmt=webp; may be repeated, the largest first",
    )
    parser.add_argument(
        "-j",
        dest="jobs",
        type=_jobs,
        default=2,
        metavar="NUMBER",
        help="so many originals at a time; 2",
    )
    parser.add_argument(
        "-r", dest="journal", metavar="FILE", help="what is done is kept here, and not done again"
    )
    parser.add_argument(
        "original",
        nargs="+",
        help="the path of an original below the root; - reads them, a line each",
    )
    return parser  # fmt: skip


def _url(text: str) -> str:
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise argparse.ArgumentTypeError(f'"{text}" is not a URL: {error}') from None
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise argparse.ArgumentTypeError(f'"{text}" is not a URL with http:// or https://')
    return text


def _size(text: str) -> str:
    if not text.isascii() or not text.isprintable() or " " in text or "#" in text:
        raise argparse.ArgumentTypeError(f'"{text}" is no query: encode it with %')
    return text


def _jobs(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 256:
        raise argparse.ArgumentTypeError(f'"{text}" is not a number from 1 to 256')
    return int(text)
