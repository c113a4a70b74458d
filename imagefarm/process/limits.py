"""``worker_rlimit_nofile``: how many descriptors a worker may have open."""

from __future__ import annotations

import resource


def limit_open_files(number: int) -> str | None:
    """Set soft and hard limit to ``number``; return what to log if that isn't permitted.

    As for nginx, failing is no reason not to start. Unlike nginx we then take all that the hard
    limit allows.
    """
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (number, number))
    except (OSError, ValueError) as error:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        return f"setrlimit(RLIMIT_NOFILE, {number}) failed ({error}), limit is {hard}"
    return None


def too_few_files(connections: int, number: int | None) -> str | None:
    """What to say, in nginx's words, if ``connections`` can't all have descriptors.

    ``number`` is ``worker_rlimit_nofile``; without it, what the process has counts.
    """
    if number is None:
        number = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if number == resource.RLIM_INFINITY or connections <= number:
        return None
    return f"{connections} worker_connections exceed open file resource limit: {number}"
