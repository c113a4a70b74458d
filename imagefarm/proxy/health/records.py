"""Active health checks: what the outcomes of checks make of a peer, sans-IO.

Each check of each peer has a `Record`. It changes by one table: so many failures in a row make a
peer unhealthy, so many passes in a row healthy again; a peer that nobody knows anything of yet
("checking", ``mandatory``) is judged by its first check. Where several checks watch a peer, one
of them is enough to put it out (ngx_http_upstream_hc_module).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from attrs import asdict, define, frozen

from imagefarm.proxy.peer import Health

from .match import DEFAULT, Match


@frozen
class CheckSettings:
    """The parameters of ``health_check``; times in seconds.

    ``interval`` is from the end of a check to the beginning of the next, ``jitter`` the most that
    is added to it. ``port`` 0 is the peer's own. ``mandatory`` keeps requests from a peer until
    its first check has passed; ``persistent`` keeps what is known over a reload.
    ``keepalive_time`` 0 opens a connection for each check.
    """

    interval: float = 5.0
    jitter: float = 0.0
    fails: int = 1
    passes: int = 1
    uri: str = "/"
    port: int = 0
    match: str = ""
    mandatory: bool = False
    persistent: bool = False
    keepalive_time: float = 0.0

    @property
    def initial(self) -> Health:
        """What a peer is before its first check."""
        return Health.CHECKING if self.mandatory else Health.HEALTHY


@frozen
class Check:
    """A check with the tests that its ``match`` names. ``name`` is what log lines call it."""

    settings: CheckSettings
    tests: Match = DEFAULT

    @property
    def name(self) -> str:
        """The ``match`` block's name, or the URI where there is none."""
        return self.settings.match or self.settings.uri


# (state, outcome) -> (which setting counts the outcomes in a row, the new state). What is not
# here confirms the state.
_CHANGES: Final[Mapping[tuple[Health, bool], tuple[str, Health]]] = {
    (Health.HEALTHY, False): ("fails", Health.UNHEALTHY),
    (Health.UNHEALTHY, True): ("passes", Health.HEALTHY),
    (Health.CHECKING, False): ("", Health.UNHEALTHY),
    (Health.CHECKING, True): ("", Health.HEALTHY),
}


@define
class Record:
    """One check's view of one peer.

    ``row`` counts the outcomes in a row that speak against ``health``. ``checks``, ``fails`` and
    ``unhealthy`` (how often it became so) are counters since the start.
    """

    health: Health
    row: int = 0
    checks: int = 0
    fails: int = 0
    unhealthy: int = 0
    last_passed: bool | None = None

    def note(self, passed: bool, settings: CheckSettings) -> Health | None:
        """Count one outcome. Returns the new state if it changes."""
        self.checks += 1
        self.fails += not passed
        self.last_passed = passed
        change = _CHANGES.get((self.health, passed))
        if change is None:
            self.row = 0
            return None
        limit, state = change
        self.row += 1
        if limit and self.row < getattr(settings, limit):
            return None
        self.row = 0
        self.health = state
        self.unhealthy += state is Health.UNHEALTHY
        return state

    def dump(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return {**asdict(self), "health": self.health.value}

    @classmethod
    def load(cls, value: Mapping[str, Any]) -> Record:
        """What `dump` gave."""
        return cls(**{**value, "health": Health(value["health"])})


@frozen
class Tally:
    """What all checks of a peer come to (``health_checks`` of the status)."""

    health: Health = Health.HEALTHY
    checks: int = 0
    fails: int = 0
    unhealthy: int = 0
    last_passed: bool | None = None


_WORST: Final = (Health.HEALTHY, Health.CHECKING, Health.UNHEALTHY)


def combine(records: Iterable[Record]) -> Tally:
    """The state of a peer that ``records`` speak of; the worst of theirs."""
    every = tuple(records)
    if not every:
        return Tally()
    known = [record.last_passed for record in every if record.last_passed is not None]
    return Tally(
        max((record.health for record in every), key=_WORST.index),
        sum(record.checks for record in every),
        sum(record.fails for record in every),
        sum(record.unhealthy for record in every),
        all(known) if known else None,
    )
