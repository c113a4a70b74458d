"""What a peer has done since the start, for status pages."""

from __future__ import annotations

from attrs import define, field


@define(eq=False)
class Counters:
    """A peer's figures; they only ever grow.

    ``responses[n]`` counts the answers with a status of ``n`` hundred. ``header_time`` and
    ``response_time`` are sums in seconds over all of ``responses`` and ``completed`` exchanges.
    ``sent`` and ``received`` are bytes on the wire, TLS not counted. ``fails`` are unsuccessful
    attempts, ``unavail`` how often they put the peer out (``max_fails``).
    """

    requests: int = 0
    responses: list[int] = field(factory=lambda: [0] * 6)
    sent: int = 0
    received: int = 0
    fails: int = 0
    unavail: int = 0
    completed: int = 0
    header_time: float = 0.0
    response_time: float = 0.0
    #: When the last request was sent here, and when the last failure was and why.
    selected: float | None = None
    last_failure: float | None = None
    last_reason: str = ""

    def answered(self, status: int, header_time: float) -> None:
        """The head of an answer came ``header_time`` seconds after the attempt began."""
        self.responses[status // 100 if 100 <= status < 600 else 0] += 1
        self.header_time += header_time

    def finished(self, response_time: float) -> None:
        """An answer was read to its end ``response_time`` seconds after the attempt began."""
        self.completed += 1
        self.response_time += response_time
