"""The child process: jobs on standard input, answers on standard output, one at a time.

The pool may send a job in advance, while another one is worked on, and take it back until it is
begun. Each job is answered, in the order in which they came.

Started by the pool as ``python -m imagefarm.image.worker LIMITS`` with the limits in JSON. It
ends when its standard input does, and puts an end to itself where even that is not read any
more, because a decoder hangs.
"""

from __future__ import annotations

import gc
import logging
import math
import os
import resource
import select
import signal
import sys
import time
import warnings
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from PIL import Image

from .disk import DiskStore
from .errors import Failed, ImageError, Withdrawn
from .intermediates import Intermediates
from .job import (
    MAX_HEAD,
    Decoder,
    Job,
    Message,
    Rendered,
    error_message,
    read_job,
)
from .limits import Limits
from .measure import measure
from .pipeline import Clock, Surroundings, render
from .source import open_source

#: A worker whose job is this many times over its deadline has lost its parent: it would have
#: been killed long ago.
_ORPHANED = 2.0


def main(argument: str) -> int:
    """Serve until standard input ends."""
    limits = Limits.from_argument(argument)
    # Whatever a library prints goes to the log, not between the answers.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    protect(limits)
    gc.freeze()  # all of the program: there is nothing in it to be found later
    with answers:
        serve(sys.stdin.buffer, answers, limits, time.monotonic)
    return 0


def protect(limits: Limits) -> None:
    """Bound this process, and leave Ctrl-C and hang-ups of the terminal to the parent."""
    resource.setrlimit(resource.RLIMIT_DATA, (limits.memory, limits.memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    Image.MAX_IMAGE_PIXELS = limits.max_pixels
    warnings.simplefilter("ignore")  # hostile files would fill the log
    logging.getLogger("PIL").addHandler(logging.NullHandler())
    warnings.simplefilter("error", Image.DecompressionBombWarning)


def serve(jobs: BinaryIO, answers: BinaryIO, limits: Limits, clock: Clock) -> None:
    """Answer jobs until ``jobs`` ends. The first message, ``ready``, answers none."""
    store = intermediates(limits)
    _write(answers, Message({"ready": os.getpid()}))
    for message in in_turn(jobs.fileno()):
        if message is None:
            _write(answers, error_message(Withdrawn("the job was taken back")))
            continue
        signal.setitimer(signal.ITIMER_REAL, limits.deadline * _ORPHANED + 1)
        done = answer(read_job(message, limits), limits, clock, store)
        done.head["resident"] = resident()
        _write(answers, done)
        signal.setitimer(signal.ITIMER_REAL, 0)


def in_turn(descriptor: int) -> Iterator[Message | None]:
    """Jobs in the order of their sending, None for one that was withdrawn before its turn."""
    decoder = Decoder(max_body=0)
    sent: deque[Message | None] = deque()
    more = True
    while more or sent:
        # Also where there are jobs: what has come meanwhile may take the next one back.
        if more and (not sent or select.select([descriptor], [], [], 0)[0]):
            data = os.read(descriptor, MAX_HEAD)
            more = bool(data)
            for message in decoder.feed(data):
                if "withdraw" not in message.head:
                    sent.append(message)
                elif sent:
                    sent[-1] = None
        elif sent:
            yield sent.popleft()


def intermediates(limits: Limits) -> Intermediates:
    """The store that ``limits`` describe."""
    disk = None
    if limits.intermediates_path:
        disk = DiskStore(Path(limits.intermediates_path), limits.intermediates_disk)
    return Intermediates(limits.intermediates, disk)


def answer(job: Job, limits: Limits, clock: Clock, store: Intermediates | None = None) -> Message:
    """Do one job. Never raises: hostile files make Pillow raise whatever they like."""
    try:
        return perform(job, limits, clock, Intermediates(0) if store is None else store).message()
    except ImageError as error:
        return error_message(error)
    except Exception as error:
        sys.stderr.write(f"{type(error).__name__} for {job.recipe.canonical()}\n")
        return error_message(Failed("the image could not be made"))


def perform(job: Job, limits: Limits, clock: Clock, store: Intermediates) -> Rendered:
    """Open the source and make the picture, or measure it. Raises `ImageError`."""

    def opened(src: bytes) -> BinaryIO:
        return os.fdopen(open_source(job.root, src), "rb")

    with opened(job.recipe.src) as file:
        if job.measure:
            return measure(file, limits)
        most = math.inf if job.expensive else limits.expensive
        around = Surroundings(
            limits, clock, opened, job.root, most, store, job.derive, job.unsigned
        )
        return render(file, job.recipe, job.offer, around)


def resident() -> int:
    """Bytes of memory that this process has resident (proc(5), statm)."""
    file = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return int(os.read(file, 200).split()[1]) * resource.getpagesize()
    finally:
        os.close(file)


def _write(answers: BinaryIO, message: Message) -> None:
    answers.write(message.encode())
    answers.flush()


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1]))
    except BrokenPipeError:  # the parent has gone while we worked
        sys.exit(1)
