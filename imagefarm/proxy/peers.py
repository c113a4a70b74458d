"""The servers of a group: what the configuration says of each, and how it has been doing.

Failures are counted as nginx counts them (ngx_http_upstream_module, ``max_fails`` and
``fail_timeout``): ``max_fails`` failures put a peer out for ``fail_timeout``, then it gets one
request as a probe; if that succeeds its failures are forgotten, if it fails the peer is out
again. Times are seconds of any monotonic clock and always an argument.
"""

from __future__ import annotations

from collections.abc import Iterable

from attrs import define, field, frozen

#: What ``checked`` and ``accessed`` hold before anything happened: long ago on every clock.
_NEVER = float("-inf")


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


@define(eq=False)
class Peer:
    """One server of a group. The first group is nginx's parameters of ``server``."""

    address: Address
    weight: int = 1
    max_fails: int = 1
    fail_timeout: float = 10.0
    backup: bool = False
    down: bool = False
    max_conns: int = 0

    name: bytes = field(init=False)
    #: Exchanges in progress.
    conns: int = field(default=0, init=False)
    fails: int = field(default=0, init=False)
    #: When the last failure was, and when a failed peer was last given a chance.
    accessed: float = field(default=_NEVER, init=False)
    checked: float = field(default=_NEVER, init=False)
    #: The state of smooth weighted round robin.
    current_weight: int = field(default=0, init=False)
    effective_weight: int = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.name = self.address.name
        self.effective_weight = self.weight

    def available(self, now: float) -> bool:
        """Whether a request may be given to this peer now."""
        if self.down or self.full:
            return False
        out = self.max_fails and self.fails >= self.max_fails
        return not out or now - self.checked > self.fail_timeout

    @property
    def full(self) -> bool:
        """Whether ``max_conns`` exchanges are in progress."""
        return 0 < self.max_conns <= self.conns

    def take(self, now: float) -> None:
        """A request goes to this peer. Each `take` is followed by one `release`."""
        self.conns += 1
        if now - self.checked > self.fail_timeout:
            # From here on the peer is on probation: others wait until this one is answered.
            self.checked = now

    def release(self) -> None:
        """The exchange is over."""
        self.conns -= 1

    def succeeded(self) -> None:
        """The peer answered: forget failures older than the last check."""
        if self.accessed < self.checked:
            self.fails = 0

    def failed(self, now: float) -> bool:
        """Count a failure; returns whether it put the peer out of service."""
        self.fails += 1
        self.accessed = self.checked = now
        if not self.max_fails:
            return False
        self.effective_weight = max(0, self.effective_weight - self.weight // self.max_fails)
        return self.fails >= self.max_fails

    def __repr__(self) -> str:
        return (
            f"<Peer {self.name.decode('utf-8', 'replace')} weight={self.weight} "
            f"conns={self.conns} fails={self.fails}>"
        )


class Peers:
    """The peers of a group: the ordinary ones, and the ones that only step in for them.

    ``single``: the only peer of a group is never put out, there is nothing better to try.
    """

    __slots__ = ("backup", "primary", "single")

    def __init__(self, peers: Iterable[Peer]) -> None:
        every = tuple(peers)
        self.primary = tuple(peer for peer in every if not peer.backup)
        self.backup = tuple(peer for peer in every if peer.backup)
        self.single = len(every) == 1

    @property
    def tries(self) -> int:
        """How many peers a request may be tried on: all that are not ``down``."""
        return sum(not peer.down for peer in (*self.primary, *self.backup))

    def failed(self, peer: Peer, now: float) -> bool:
        """Count a failure of ``peer``; returns whether it is out of service now."""
        return not self.single and peer.failed(now)
