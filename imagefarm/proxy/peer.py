"""One server of a group: what the configuration says of it, and how it has been doing.

Failures are counted as nginx counts them (ngx_http_upstream_module, ``max_fails`` and
``fail_timeout``): ``max_fails`` failures put a peer out for ``fail_timeout``, then it gets one
request as a probe; if that succeeds its failures are forgotten, if it fails the peer is out
again. Times are seconds of the group's clock and always an argument.

A peer can also be told what it is, at run time and at once: `set_down`, `drain`, `set_up` and
`set_weight` by the operator, `unhealthy`, `healthy` and `checking` by active checks. What is
under way is finished in any case. A peer that comes back grows into its weight over
``slow_start``.
"""

from __future__ import annotations

from enum import Enum
from typing import Final, Protocol

from attrs import define, field, frozen

from .counters import Counters

#: What ``checked`` and ``accessed`` hold before anything happened: long ago on every clock.
_NEVER: Final = float("-inf")
#: `Peer.ramp` of a peer that has its whole weight; ``slow_start`` goes there in steps of 1.
FULL: Final = 100


@frozen
class Address:
    """Where a peer listens: ``host`` is a numeric address, or ``path`` names a Unix socket."""

    host: str = ""
    port: int = 0
    path: str = ""

    @property
    def name(self) -> bytes:
        """As ``$upstream_addr`` shows it: ``127.0.0.1:8081``, ``[::1]:80``, ``unix:/run/x``."""
        if self.path:
            return b"unix:" + self.path.encode("utf-8", "surrogateescape")
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}".encode("ascii")


class Health(Enum):
    """What active checks say of a peer; without them all are HEALTHY."""

    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"
    #: The first check has not answered yet, and nothing may be sent before (``mandatory``).
    CHECKING = "checking"


class Keeper(Protocol):
    """Who has to know when a peer's readiness changes: its tier."""

    now: float

    def review(self, peer: Peer, now: float) -> None:
        """Whether ``peer`` is available may have changed."""

    def loaded(self, peer: Peer) -> None:
        """``peer.conns`` changed."""

    def reshared(self, peer: Peer, *, weight: bool = False) -> None:
        """Its part of the requests changed; ``weight``: for good."""

    def wake(self, peer: Peer, at: float) -> None:
        """Call `Peer.tick` at the first moment after ``at``."""


class Crowd(Protocol):
    """The exchanges of several processes with one server."""

    def mine(self, conns: int) -> None:
        """So many are ours."""

    def all(self) -> int:
        """All of them."""


class Rumour(Protocol):
    """The failures of one server that several processes have seen."""

    def failed(self, now: float, window: float, *, first: bool) -> int:
        """We have seen one at ``now``, the ``first`` since ours were forgotten; how many all have
        seen in the last ``window`` seconds."""


@define(eq=False)
class Peer:
    """One server of a group. The first fields are nginx's parameters of ``server``.

    ``server`` is the server's name as it was configured (``backend.example:8080``), from which
    consistent hashing derives its points; several addresses may share one. ``down`` and
    ``draining`` are read, and changed by `set_down`, `drain` and `set_up`; ``weight`` by
    `set_weight`.
    """

    address: Address
    weight: int = 1
    max_fails: int = 1
    fail_timeout: float = 10.0
    backup: bool = False
    down: bool = False
    draining: bool = False
    max_conns: int = 0
    slow_start: float = 0.0
    server: bytes = b""

    name: bytes = field(init=False)
    #: Of the group, never used twice: what a control API calls the peer.
    id: int = field(default=-1, init=False)
    health: Health = field(default=Health.HEALTHY, init=False)
    counters: Counters = field(factory=Counters, init=False)
    #: Exchanges in progress.
    conns: int = field(default=0, init=False)
    #: Failures that count against ``max_fails``.
    fails: int = field(default=0, init=False)
    #: When the last failure was, and when a failed peer was last given a chance.
    accessed: float = field(default=_NEVER, init=False)
    checked: float = field(default=_NEVER, init=False)
    #: The state of smooth weighted round robin, in parts of weight times `FULL`; kept by the
    #: peer's arrangement while it is in one.
    current_weight: int = field(default=0, init=False)
    effective_weight: int = field(init=False)
    #: How much of its weight the peer has regained under ``slow_start``, of `FULL`.
    ramp: int = field(default=FULL, init=False)
    _back_since: float = field(default=_NEVER, init=False)
    #: The tier's: the place there, whether it counts as in service, whether it is among the
    #: available, when it is to be woken.
    order: int = field(default=0, init=False)
    serving: bool = field(default=False, init=False)
    listed: bool = field(default=False, init=False)
    waking: float = field(default=float("inf"), init=False)
    keeper: Keeper | None = field(default=None, init=False)
    #: Where the processes count together, if they do.
    crowd: Crowd | None = field(default=None, init=False)
    rumour: Rumour | None = field(default=None, init=False)
    #: The only peer of a group is never put out by failures: there is nothing better to try.
    alone: bool = field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self.name = self.address.name
        self.effective_weight = self.weight
        if not self.server:
            self.server = self.name

    # -- what policies ask ---------------------------------------------------------------------

    def available(self, now: float) -> bool:
        """Whether a request may be given to this peer now."""
        if not self.in_service or self.full:
            return False
        return not self.failed_out or now > self.checked + self.fail_timeout

    @property
    def in_service(self) -> bool:
        """Whether neither the operator nor an active check has taken it out."""
        return not (self.down or self.draining) and self.health is Health.HEALTHY

    @property
    def full(self) -> bool:
        """Whether ``max_conns`` exchanges are in progress."""
        return 0 < self.max_conns <= self.conns

    def admits(self) -> bool:
        """Whether ``max_conns`` has a place left among all processes. It is ours then, and `take`
        has to follow."""
        crowd = self.crowd
        if crowd is None or not self.max_conns:
            return True
        # Ours first: of two that see the last place at once, neither may overlook the other.
        crowd.mine(self.conns + 1)
        if crowd.all() <= self.max_conns:
            return True
        crowd.mine(self.conns)
        return False

    def join(self, crowd: Crowd) -> None:
        """Count together with others from now on."""
        self.crowd = crowd
        crowd.mine(self.conns)

    @property
    def failed_out(self) -> bool:
        """Whether ``max_fails`` failures were counted and no success since."""
        return 0 < self.max_fails <= self.fails and not self.alone

    @property
    def share(self) -> int:
        """What it gains in a round of round robin: its effective weight, ramped, times `FULL`."""
        return self.effective_weight * self.ramp

    @property
    def load(self) -> float:
        """Exchanges in progress for each unit of weight."""
        return self.conns * FULL / (self.weight * self.ramp)

    def state(self, now: float) -> str:
        """nginx's word: up, draining, down, unavail, checking or unhealthy."""
        if self.down:
            return "down"
        if self.draining:
            return "draining"
        if self.health is not Health.HEALTHY:
            return "checking" if self.health is Health.CHECKING else "unhealthy"
        return "up" if not self.failed_out or now > self.checked + self.fail_timeout else "unavail"

    # -- what exchanges tell -------------------------------------------------------------------

    def take(self, now: float) -> None:
        """A request goes to this peer. Each `take` is followed by one `release`."""
        self.conns += 1
        if self.crowd is not None:
            self.crowd.mine(self.conns)
        counters = self.counters
        counters.requests += 1
        counters.selected = now
        keeper = self.keeper
        if now > self.checked + self.fail_timeout:
            # From here on the peer is on probation: others wait until this one is answered.
            self.checked = now
            if keeper is not None and self.failed_out:
                keeper.review(self, now)
                keeper.wake(self, now + self.fail_timeout)
        if keeper is not None:
            keeper.loaded(self)

    def release(self) -> None:
        """The exchange is over."""
        self.conns -= 1
        if self.crowd is not None:
            self.crowd.mine(self.conns)
        if self.keeper is not None:
            self.keeper.loaded(self)

    def succeeded(self, now: float) -> None:
        """The peer answered: forget failures older than the last check."""
        if self.fails and self.accessed < self.checked:
            was_out = self.failed_out
            self.fails = 0
            if was_out:
                self._come_back(now)

    def failed(self, now: float, reason: str = "") -> bool:
        """Count a failure; returns whether it put the peer out of service."""
        counters = self.counters
        counters.fails += 1
        counters.last_failure = now
        counters.last_reason = reason
        if self.alone:
            return False
        first = not self.fails
        self.fails += 1
        if self.rumour is not None:
            seen = self.rumour.failed(now, self.fail_timeout, first=first)
            self.fails = max(self.fails, seen)
        self.accessed = self.checked = now
        if not self.max_fails:
            return False
        left = self.effective_weight - self.weight // self.max_fails
        self.effective_weight = max(0, left)
        out = self.failed_out
        if out:
            counters.unavail += 1
        if self.keeper is not None:
            self.keeper.reshared(self)
            if out:
                self.keeper.review(self, now)
                self.keeper.wake(self, now + self.fail_timeout)
        return out

    def failed_elsewhere(self, at: float, now: float) -> None:
        """Another process's failures have put it out at ``at``: here it is out as long."""
        if self.alone or not self.max_fails or now > at + self.fail_timeout or at <= self.checked:
            return
        self.fails = max(self.fails, self.max_fails)
        self.accessed = self.checked = at
        if self.keeper is not None:
            self.keeper.review(self, now)
            self.keeper.wake(self, at + self.fail_timeout)

    # -- what operators and active checks tell ---------------------------------------------------

    def set_down(self) -> None:
        """Give it no more requests: ``down``."""
        self.down, self.draining = True, False
        self._changed()

    def drain(self) -> None:
        """Give it no new requests, as long as it is not set up again (nginx Plus ``drain``)."""
        self.down, self.draining = False, True
        self._changed()

    def set_up(self, now: float) -> None:
        """Neither down nor draining any more; failures are forgotten. Starts slowly."""
        was_out = self.down or self.draining or self.failed_out
        self.down = self.draining = False
        self.fails = 0
        if was_out:
            self._come_back(now)

    def unhealthy(self) -> None:
        """An active check has found it so."""
        self.health = Health.UNHEALTHY
        self._changed()

    def checking(self) -> None:
        """It waits for its first active check (``health_check mandatory``)."""
        self.health = Health.CHECKING
        self._changed()

    def healthy(self, now: float) -> None:
        """Active checks find it well, and its failures are forgotten. Starts slowly."""
        was_out = self.health is not Health.HEALTHY or self.failed_out
        self.health = Health.HEALTHY
        self.fails = 0
        if was_out:
            self._come_back(now)

    def set_weight(self, weight: int) -> None:
        """Change the weight, at least 1. Hashed keys move as after a reload."""
        if weight < 1:
            raise ValueError(f"weight {weight}")
        self.weight = self.effective_weight = weight
        if self.keeper is not None:
            self.keeper.reshared(self, weight=True)

    def set_limits(
        self,
        now: float,
        *,
        max_conns: int | None = None,
        max_fails: int | None = None,
        fail_timeout: float | None = None,
        slow_start: float | None = None,
    ) -> None:
        """Change what is given."""
        self.max_conns = self.max_conns if max_conns is None else max_conns
        self.max_fails = self.max_fails if max_fails is None else max_fails
        self.fail_timeout = self.fail_timeout if fail_timeout is None else fail_timeout
        self.slow_start = self.slow_start if slow_start is None else slow_start
        if self.keeper is not None:
            self.keeper.review(self, now)

    # -- time ------------------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        """A moment that the keeper was asked for has passed."""
        keeper = self.keeper
        assert keeper is not None
        keeper.review(self, now)
        if self.failed_out and now <= self.checked + self.fail_timeout:
            keeper.wake(self, self.checked + self.fail_timeout)
        if self.ramp < FULL:
            while self.ramp < FULL and now > self._next_step():
                self.ramp += 1
            keeper.reshared(self)
            if self.ramp < FULL:
                keeper.wake(self, self._next_step())

    def _next_step(self) -> float:
        return self._back_since + self.slow_start * self.ramp / FULL

    def _come_back(self, now: float) -> None:
        if self.slow_start and not self.alone and self.in_service:
            # Not from nothing: if all come back at once they must share the requests.
            self.ramp = 1
            self.effective_weight = self.weight
            self._back_since = now
            if self.keeper is not None:
                self.keeper.reshared(self)
                self.keeper.wake(self, self._next_step())
        if self.keeper is not None:
            self.keeper.review(self, now)

    def _changed(self) -> None:
        if self.keeper is not None:
            self.keeper.review(self, self.keeper.now)

    def __repr__(self) -> str:
        return (
            f"<Peer {self.name.decode('utf-8', 'replace')} weight={self.weight} "
            f"conns={self.conns} fails={self.fails}>"
        )
