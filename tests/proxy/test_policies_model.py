"""Our choices, which look at few peers, are those of nginx, which looks at all of them."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.config.variables import Template
from imagefarm.proxy.peer import Address, Peer
from imagefarm.proxy.peers import Peers
from imagefarm.proxy.policies import Hash, LeastConn, Policy, RoundRobin

from .nginx_model import Model, ModelPeer

PARAMETERS = st.fixed_dictionaries(
    {
        "weight": st.one_of(st.just(1), st.integers(1, 12)),
        "max_fails": st.one_of(st.just(1), st.integers(0, 4)),
        "fail_timeout": st.sampled_from([0.0, 2.0, 10.0]),
        "max_conns": st.sampled_from([0, 0, 1, 3]),
        "down": st.sampled_from([False, False, False, True]),
    }
)
#: What happens: requests begin, with up to so many tries; end well or badly; time passes.
EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("choose"), st.integers(1, 3)),
        st.tuples(st.sampled_from(["good", "good", "bad"]), st.integers(0, 9)),
        st.tuples(st.just("wait"), st.integers(1, 7)),
    ),
    max_size=120,
)


class Both:
    """The model and the real thing, fed the same."""

    def __init__(self, parameters: list[dict[str, Any]], method: str, policy: Policy) -> None:
        single = len(parameters) == 1
        self.model = Model(
            [ModelPeer(number, **some) for number, some in enumerate(parameters)], method, single
        )
        self.every = [Peer(Address("10.0.0.1", 1 + n), **s) for n, s in enumerate(parameters)]
        self.peers = Peers(self.every)
        self.policy = policy
        self.now = 0.0
        self.busy: list[int] = []

    def choose(self, tries: int, key: bytes = b"") -> list[tuple[int | None, int | None]]:
        """A request and its retries, all in progress at once; pairs of what both chose."""
        tried: list[int] = []
        seen = []
        for _ in range(tries):
            expected = self.model.choose(self.now, tried, key)
            peer = self.policy.choose(
                self.peers, key, self.now, [self.every[number] for number in tried]
            )
            number = None if peer is None else self.every.index(peer)
            seen.append((expected, number))
            if expected is None or expected != number or peer is None:
                break
            peer.take(self.now)
            tried.append(expected)
            self.busy.append(expected)
        return seen

    def end(self, which: int, failed: bool) -> None:
        """One of the requests in progress ends."""
        if self.busy:
            number = self.busy.pop(which % len(self.busy))
            peer = self.every[number]
            self.model.free(number, self.now, failed=failed)
            if failed:
                peer.failed(self.now)
            else:
                peer.succeeded(self.now)
            peer.release()

    def play(self, events: list[tuple[str, int]], key: bytes = b"") -> None:
        """Raises AssertionError where they part."""
        for kind, number in events:
            if kind == "choose":
                for expected, actual in self.choose(number, key):
                    assert expected == actual, (expected, actual)
            elif kind == "wait":
                self.now += number
            else:
                self.end(number, failed=kind == "bad")
            assert [p.conns for p in self.every] == [p.conns for p in self.model.peers]
            assert [p.fails for p in self.every] == [p.fails for p in self.model.peers]


class ModelTests(SynchronousTestCase):
    @settings(max_examples=150)
    @given(st.lists(PARAMETERS, min_size=1, max_size=6), EVENTS)
    def test_round_robin(self, parameters: list[dict[str, Any]], events: Any) -> None:
        Both(parameters, "round_robin", RoundRobin()).play(events)

    @settings(max_examples=150)
    @given(st.lists(PARAMETERS, min_size=1, max_size=6), EVENTS)
    def test_least_conn(self, parameters: list[dict[str, Any]], events: Any) -> None:
        Both(parameters, "least_conn", LeastConn()).play(events)

    @settings(max_examples=150)
    @given(st.lists(PARAMETERS, min_size=2, max_size=6), EVENTS, st.binary(min_size=1, max_size=9))
    def test_hash(self, parameters: list[dict[str, Any]], events: Any, key: bytes) -> None:
        Both(parameters, "hash", Hash(Template("", (), None))).play(events, key)

    def test_hash_among_many_that_are_down(self) -> None:
        """After twenty misses it is a matter of turns."""
        parameters = [{"down": number % 15 != 7} for number in range(60)]
        both = Both(parameters, "hash", Hash(Template("", (), None)))
        for number in range(400):
            both.play([("choose", 2), ("good", 0), ("good", 0)], b"%d" % number)

    def test_a_probe_that_is_never_answered(self) -> None:
        """The client left: after ``fail_timeout`` the next request is a probe."""
        for method, policy in (("round_robin", RoundRobin()), ("least_conn", LeastConn())):
            both = Both([{}, {}], method, policy)
            both.play([("choose", 1), ("bad", 0), ("wait", 11), ("choose", 2)])
            self.assertFalse(both.every[0].listed)
            both.play([("choose", 1), ("wait", 11), ("choose", 2)])
            self.assertIn(0, both.busy[-2:])

    def test_who_is_least_busy_alone_regains_no_weight(self) -> None:
        first, second = [Peer(Address("10.0.0.1", n), weight=4, max_fails=2) for n in (1, 2)]
        peers = Peers([first, second])
        second.take(0.0)
        first.failed(0.0)
        for _ in range(3):
            self.assertIs(LeastConn().choose(peers, b"", 0.0, ()), first)
        self.assertEqual(first.effective_weight, 2)
        second.release()
        for _ in range(3):
            LeastConn().choose(peers, b"", 0.0, ())
        self.assertEqual(first.effective_weight, 4)
