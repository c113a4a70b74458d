"""A client for resizers: a few connections that ask, read all of the answer, and ask again."""

from __future__ import annotations

import http.client
import itertools
import threading
import time
from collections.abc import Callable, Iterator

from benchmarks.pairs import Reading
from benchmarks.resizers import Resizer, Wish

#: Requests under way at a time: more than there are processes to work on them.
CONNECTIONS = 4
TIMEOUT = 60.0


def fetch(resizer: Resizer, wish: Wish) -> bytes:
    """One picture. Raises AssertionError where the answer is none."""
    connection = http.client.HTTPConnection("127.0.0.1", resizer.port, timeout=TIMEOUT)
    connection.request("GET", resizer.target(wish))
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    kind = answer.getheader("Content-Type", "")
    assert answer.status == 200 and kind == f"image/{wish.fmt}", (
        f"{resizer.name} answers {answer.status} {kind} to {wish}: {body[:100]!r}"
    )
    return body


def ask(resizer: Resizer, wishes: Iterator[Wish], more: Callable[[int], bool]) -> Reading:
    """Ask while ``more`` of the number asked so far; the time ends with the last answer."""
    lock, numbers = threading.Lock(), itertools.count()
    done: list[float] = []
    failed: list[str] = []
    began = time.monotonic()

    def work() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", resizer.port, timeout=TIMEOUT)
        while True:
            with lock:
                if not more(next(numbers)):
                    break
                target = resizer.target(next(wishes))
            asked = time.monotonic()
            try:
                connection.request("GET", target)
                answer = connection.getresponse()
                answer.read()
                why = "" if answer.status == 200 else f"{answer.status} to {target}"
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                why = f"{error!r} to {target}"
            failed.append(why) if why else done.append(time.monotonic() - asked)
        connection.close()

    threads = [threading.Thread(target=work, daemon=True) for _ in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.monotonic() - began
    assert done, f"{resizer.name} answers nothing: {failed[:3]}"
    done.sort()
    return Reading(
        len(done), seconds, p50=done[len(done) // 2] * 1000,
        p99=done[min(len(done) - 1, len(done) * 99 // 100)] * 1000, errors=len(failed),
    )  # fmt: skip


def for_seconds(seconds: float) -> Callable[[int], bool]:
    """Goes on for so long."""
    end = time.monotonic() + seconds
    return lambda asked: time.monotonic() < end
