"""Peers that are told what they are at run time: by operators, active checks, the resolver."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.proxy.peer import Address, Peer
from imagefarm.proxy.peers import Peers
from imagefarm.proxy.policies import ConsistentHash, Hash, IpHash, LeastConn, Random, RoundRobin

from .test_policies import URI, choose, make


class StateTests(SynchronousTestCase):
    def test_out_under_every_method(self) -> None:
        """Down, draining, unhealthy, unchecked: no new request, whatever the key."""
        for take_out in (Peer.set_down, Peer.drain, Peer.unhealthy, Peer.checking):
            for policy in (
                RoundRobin(), LeastConn(), Hash(URI), ConsistentHash(URI), IpHash(),
                Random(lambda total: 0), Random(lambda total: 0, two=True),
            ):  # fmt: skip
                every = make([1, 1, 1])
                peers = Peers(every)
                choose(policy, peers)
                take_out(every[0])
                for number in range(20):
                    self.assertIsNot(choose(policy, peers, b"%d" % number), every[0])
                self.assertEqual(peers.tries, 2)
                every[0].set_up(1.0)
                every[0].healthy(1.0)
                self.assertEqual(peers.tries, 3)
                seen = {choose(policy, peers, b"%d" % number) for number in range(40)}
                self.assertIn(every[0], seen)

    def test_words(self) -> None:
        peer, _ = every = make([1, 1])
        Peers(every)
        seen = [peer.state(0.0)]
        for change in (
            peer.set_down, peer.drain, lambda: peer.set_up(0.0), peer.checking, peer.unhealthy,
            lambda: peer.healthy(0.0), lambda: peer.failed(0.0),
        ):  # fmt: skip
            change()
            seen.append(peer.state(0.0))
        self.assertEqual(
            seen,
            ["up", "down", "draining", "up", "checking", "unhealthy", "up", "unavail"],
        )
        self.assertEqual(peer.state(10.1), "up")
        peer.set_up(1.0)
        self.assertEqual((peer.state(1.0), peer.fails), ("up", 0))

    def test_what_runs_goes_on(self) -> None:
        peer, _ = every = make([1, 1])
        Peers(every)
        peer.take(0.0)
        peer.drain()
        self.assertEqual(peer.conns, 1)
        peer.succeeded(0.0)
        peer.release()
        self.assertEqual((peer.conns, peer.state(0.0)), (0, "draining"))

    def test_weight(self) -> None:
        every = make([1, 1])
        peers = Peers(every)
        choose(RoundRobin(), peers)
        every[1].set_weight(3)
        counts = Counter(choose(RoundRobin(), peers).order for _ in range(40))
        self.assertEqual(counts, {0: 10, 1: 30})
        self.assertEqual(list(peers.primary.sums), [1, 4])
        with self.assertRaises(ValueError):
            every[0].set_weight(0)

    def test_counters(self) -> None:
        peer, _ = every = make([1, 1])
        Peers(every)
        peer.take(5.0)
        peer.counters.answered(204, 0.5)
        peer.counters.answered(999, 0.5)
        peer.counters.finished(0.75)
        self.assertTrue(peer.failed(7.0, "refused"))
        counters = peer.counters
        self.assertEqual((counters.requests, counters.responses), (1, [1, 0, 1, 0, 0, 0]))
        self.assertEqual((counters.header_time, counters.response_time), (1.0, 0.75))
        self.assertEqual((counters.fails, counters.unavail, counters.selected), (1, 1, 5.0))
        self.assertEqual((counters.last_failure, counters.last_reason), (7.0, "refused"))


class SlowStartTests(SynchronousTestCase):
    def shares(self, peers: Peers, now: float, count: int = 400) -> float:
        """What part of the requests the first peer gets at ``now``."""
        chosen = [choose(RoundRobin(), peers, now=now) for _ in range(count)]
        return chosen.count(peers.primary[0]) / count

    @given(st.sampled_from(["healthy", "up", "probe"]), st.integers(1, 5))
    def test_the_share_grows_in_a_straight_line(self, how: str, weight: int) -> None:
        every = [
            Peer(Address("10.0.0.1", 1), weight=weight, slow_start=20.0),
            Peer(Address("10.0.0.1", 2), weight=weight),
        ]
        peers = Peers(every)
        peer = every[0]
        now = 0.0
        self.assertEqual(self.shares(peers, now), 0.5)
        if how == "healthy":
            peer.unhealthy()
            peer.healthy(now)
        elif how == "up":
            peer.drain()
            peer.set_up(now)
        else:
            peer.failed(now)
            now = 11.0
            while choose(RoundRobin(), peers, now=now) is not peer:
                pass
            peer.take(now)
            peer.succeeded(now)
            peer.release()
        for part in (0.1, 0.25, 0.5, 0.75, 0.9):
            expected = part / (1 + part)
            self.assertLess(abs(self.shares(peers, now + 20 * part) - expected), 0.03)
        self.assertLess(abs(self.shares(peers, now + 20.1) - 0.5), 0.01)
        self.assertEqual(peer.ramp, 100)

    def test_all_at_once_share_at_once(self) -> None:
        every = [Peer(Address("10.0.0.1", n), slow_start=20.0) for n in (1, 2, 3)]
        peers = Peers(every)
        for peer in every:
            peer.unhealthy()
        self.assertIsNone(RoundRobin().choose(peers, b"", 0.0, ()))
        for peer in every:
            peer.healthy(0.0)
        self.assertEqual(
            Counter(choose(RoundRobin(), peers).order for _ in range(30)), {0: 10, 1: 10, 2: 10}
        )

    def test_only_what_was_out_starts_slowly(self) -> None:
        every = [Peer(Address("10.0.0.1", n), slow_start=20.0) for n in (1, 2)]
        Peers(every)
        every[0].healthy(0.0)
        every[0].set_up(0.0)
        self.assertEqual(every[0].ramp, 100)
        (alone,) = [Peer(Address("10.0.0.1", 1), slow_start=20.0)]
        Peers([alone])
        alone.unhealthy()
        alone.healthy(0.0)
        self.assertEqual(alone.ramp, 100)

    def test_least_conn(self) -> None:
        """A peer at a tenth of its weight is as busy with one request as others with ten."""
        every = [Peer(Address("10.0.0.1", n), slow_start=10.0) for n in (1, 2)]
        peers = Peers(every)
        every[0].unhealthy()
        every[0].healthy(0.0)
        now = 0.95
        for _ in range(22):
            choose(LeastConn(), peers, now=now).take(now)
        self.assertEqual((every[0].conns, every[1].conns), (2, 20))


class ReplaceTests(SynchronousTestCase):
    def test_those_that_stay_keep_all_they_have(self) -> None:
        every = make([1, 2, 3])
        peers = Peers(every)
        every[0].take(0.0)
        every[1].failed(0.0)
        every[2].drain()
        same = make([1, 2, 3, 4])
        gone = peers.replace(same[1:])
        self.assertEqual(gone, (every[0],))
        self.assertEqual(list(peers.primary), [every[1], every[2], same[3]])
        self.assertEqual([peer.id for peer in peers.primary], [1, 2, 3])
        self.assertIs(peers.find(2), every[2])
        self.assertIsNone(peers.find(0))
        self.assertIs(choose(RoundRobin(), peers), same[3])
        every[0].release()
        self.assertFalse(every[0].failed(1.0) and every[0].listed)
        self.assertEqual({choose(RoundRobin(), peers, now=11.0) for _ in range(9)},
                         {every[1], same[3]})  # fmt: skip

    def test_none_and_some_again(self) -> None:
        every = make([1, 1])
        peers = Peers(every)
        self.assertEqual(peers.replace(()), tuple(every))
        for policy in (RoundRobin(), LeastConn(), Hash(URI), ConsistentHash(URI), IpHash(),
                       Random(lambda total: 0)):  # fmt: skip
            self.assertIsNone(policy.choose(peers, b"k", 0.0, ()))
        self.assertEqual((len(peers), peers.tries), (0, 0))
        peers.replace(every[:1])
        self.assertTrue(peers.single)
        self.assertIs(choose(RoundRobin(), peers), every[0])

    def test_the_same_line_twice_is_two_peers(self) -> None:
        def lines() -> list[Peer]:
            return [Peer(Address("10.0.0.1", 1)), Peer(Address("10.0.0.1", 1))]

        every = lines()
        peers = Peers(every)
        self.assertEqual(len(peers), 2)
        self.assertEqual(peers.replace(lines()), ())
        self.assertEqual(list(peers), every)
        self.assertEqual(peers.replace(lines()[:1]), (every[1],))

    @given(st.lists(st.sets(st.integers(0, 7)), min_size=1, max_size=8), st.data())
    def test_only_members_are_chosen(self, sets: list[set[int]], data: st.DataObject) -> None:
        policy = data.draw(
            st.sampled_from([RoundRobin(), LeastConn(), Hash(URI), ConsistentHash(URI)])
        )
        peers = Peers(())
        for number, members in enumerate(sets):
            peers.replace([Peer(Address("10.0.0.1", 1 + port)) for port in sorted(members)])
            seen = set()
            for turn in range(2 * len(members)):
                peer = policy.choose(peers, b"%d" % turn, float(number), ())
                assert peer is not None
                seen.add(peer.address.port - 1)
                peer.take(float(number))
            self.assertLessEqual(seen, members)
            if isinstance(policy, RoundRobin):
                self.assertEqual(seen, members)
