"""Peers, and what the policies promise about distribution."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.proxy.peer import Address, Peer
from imagefarm.proxy.peers import Peers
from imagefarm.proxy.policies import IpHash, Policy, RoundRobin
from imagefarm.proxy.policies.ip_hash import address_key

from .support import make_request


def make(*weights: int, **parameters: float) -> list[Peer]:
    return [
        Peer(Address("127.0.0.1", 1 + index), weight=weight, **parameters)  # type: ignore[arg-type]
        for index, weight in enumerate(weights)
    ]


def choose(policy: Policy, peers: Peers, now: float = 0.0, key: bytes = b"") -> Peer:
    peer = policy.choose(peers, key, now, ())
    assert peer is not None
    peer.take(now)
    peer.release()
    peer.succeeded(now)
    return peer


class PeerTests(SynchronousTestCase):
    def test_names(self) -> None:
        self.assertEqual(Address("127.0.0.1", 80).name, b"127.0.0.1:80")
        self.assertEqual(Address("::1", 80).name, b"[::1]:80")
        self.assertEqual(Address(path="/run/a").name, b"unix:/run/a")
        self.assertEqual(repr(make(2)[0]), "<Peer 127.0.0.1:1 weight=2 conns=0 fails=0>")

    def test_out_after_max_fails_for_fail_timeout_then_one_probe(self) -> None:
        (peer,) = make(1, max_fails=2, fail_timeout=10)
        self.assertFalse(peer.failed(100.0))
        self.assertTrue(peer.available(100.0))
        self.assertTrue(peer.failed(101.0))
        self.assertFalse(peer.available(101.0))
        self.assertFalse(peer.available(111.0))
        self.assertTrue(peer.available(111.1))
        peer.take(111.1)
        self.assertFalse(peer.available(111.2), "one probe at a time")
        peer.succeeded(111.1)
        self.assertTrue(peer.available(111.2))
        self.assertEqual(peer.fails, 0)

    def test_a_failed_probe_puts_out_again(self) -> None:
        (peer,) = make(1)
        peer.failed(0.0)
        peer.take(10.5)
        self.assertTrue(peer.failed(10.6))
        self.assertFalse(peer.available(20.0))
        self.assertTrue(peer.available(20.7))

    def test_success_within_the_window_does_not_forgive(self) -> None:
        (peer,) = make(1, max_fails=2)
        peer.take(0.0)
        peer.failed(1.0)
        peer.take(2.0)
        peer.succeeded(2.0)
        self.assertEqual(peer.fails, 1)
        peer.take(12.0)
        peer.succeeded(12.0)
        self.assertEqual(peer.fails, 0)

    def test_max_fails_zero_never_puts_out(self) -> None:
        (peer,) = make(1, max_fails=0)
        for _ in range(5):
            self.assertFalse(peer.failed(0.0))
        self.assertTrue(peer.available(0.0))

    def test_max_conns(self) -> None:
        (peer,) = make(1, max_conns=2)
        peer.take(0.0)
        self.assertTrue(peer.available(0.0))
        peer.take(0.0)
        self.assertFalse(peer.available(0.0))
        peer.release()
        self.assertTrue(peer.available(0.0))

    def test_a_single_peer_is_never_put_out(self) -> None:
        peers = Peers(make(1))
        for _ in range(3):
            self.assertFalse(peers.primary[0].failed(0.0))
        self.assertIs(RoundRobin().choose(peers, b"", 0.0, ()), peers.primary[0])

    def test_a_single_peer_may_be_down_or_full(self) -> None:
        for only in (make(1, down=True), make(1, max_conns=1)):
            peers = Peers(only)
            only[0].take(0.0)
            self.assertIsNone(RoundRobin().choose(peers, b"", 0.0, ()))


class RoundRobinTests(SynchronousTestCase):
    def test_it_is_smooth(self) -> None:
        peers = Peers(make(5, 1, 1))
        order = [choose(RoundRobin(), peers).address.port for _ in range(7)]
        self.assertEqual(order, [1, 1, 2, 1, 3, 1, 1])

    @given(st.lists(st.integers(1, 20), min_size=1, max_size=8), st.integers(1, 3))
    def test_each_cycle_gives_each_peer_its_weight(self, weights: list[int], cycles: int) -> None:
        peers = Peers(make(*weights))
        counts = Counter(
            choose(RoundRobin(), peers).address.port for _ in range(sum(weights) * cycles)
        )
        self.assertEqual(
            [counts[1 + index] for index in range(len(weights))], [w * cycles for w in weights]
        )

    @given(st.lists(st.integers(1, 9), min_size=2, max_size=6), st.data())
    def test_only_what_is_available_and_untried(
        self, weights: list[int], data: st.DataObject
    ) -> None:
        every = make(*weights)
        out = data.draw(st.sets(st.sampled_from(every)))
        tried = data.draw(st.sets(st.sampled_from(every)))
        for peer in out:
            peer.failed(0.0)
        chosen = RoundRobin().choose(Peers(every), b"", 1.0, tried)
        usable = set(every) - out - tried
        if usable:
            self.assertIn(chosen, usable)
        else:
            self.assertIsNone(chosen)

    def test_backup_only_when_nothing_else_is_left(self) -> None:
        primary, backup = make(1, 1)
        backup = Peer(backup.address, backup=True)
        peers = Peers([backup, primary])
        self.assertEqual({choose(RoundRobin(), peers) for _ in range(4)}, {primary})
        self.assertTrue(primary.failed(0.0))
        self.assertIs(choose(RoundRobin(), peers), backup)
        self.assertIs(choose(RoundRobin(), peers, now=11.0), primary)

    def test_a_peer_that_failed_comes_back_slowly(self) -> None:
        peers = Peers(make(10, 10))
        peers.primary[0].failed(0.0)
        first = [choose(RoundRobin(), peers, now=11.0) for _ in range(8)]
        self.assertLess(first.count(peers.primary[0]), 4)
        for _ in range(20):
            choose(RoundRobin(), peers, now=11.0)
        later = [choose(RoundRobin(), peers, now=11.0) for _ in range(20)]
        self.assertEqual(later.count(peers.primary[0]), 10)

    def test_tries_are_the_peers_that_are_not_down(self) -> None:
        peers = Peers([*make(1, 1), *make(1, down=True)])
        self.assertEqual(peers.tries, 2)


class IpHashTests(SynchronousTestCase):
    def test_key(self) -> None:
        self.assertEqual(address_key("192.0.2.77"), bytes([192, 0, 2]))
        self.assertEqual(address_key("::1"), b"\0" * 15 + b"\1")
        self.assertEqual(address_key("unix:"), b"\0\0\0")
        request = make_request(client="10.1.2.3")
        self.assertEqual(IpHash().key(request), bytes([10, 1, 2]))
        self.assertEqual(RoundRobin().key(request), b"")

    def test_the_same_choice_as_nginx(self) -> None:
        # Observed: nginx 1.22.1, four servers with these weights, clients set by real_ip_header.
        peers = Peers(make(1, 2, 1, 3))
        for client, port in (
            ("127.0.0.1", 2), ("10.0.0.1", 3), ("192.0.2.77", 4), ("203.0.113.9", 2),
            ("8.8.8.8", 4), ("172.16.5.4", 4), ("::1", 2), ("2001:db8::1", 3),
            ("2001:db8:1:2:3:4:5:6", 4), ("fe80::1", 4),
        ):  # fmt: skip
            chosen = choose(IpHash(), peers, key=address_key(client))
            self.assertEqual(chosen.address.port, port, client)

    @given(st.binary(min_size=3, max_size=3), st.integers(2, 6))
    def test_one_address_one_peer(self, key: bytes, count: int) -> None:
        peers = Peers(make(*[1] * count))
        self.assertEqual(len({choose(IpHash(), peers, key=key) for _ in range(4)}), 1)

    def test_the_share_follows_the_weight(self) -> None:
        peers = Peers(make(3, 1))
        counts = Counter(
            choose(IpHash(), peers, key=bytes([a, b, 0])).address.port
            for a in range(0, 250, 5)
            for b in range(0, 250, 5)
        )
        share = counts[1] / counts.total()
        self.assertTrue(0.72 < share < 0.78, share)

    @given(st.binary(min_size=3, max_size=3))
    def test_another_peer_while_it_is_out_and_then_it_again(self, key: bytes) -> None:
        peers = Peers(make(1, 1, 1))
        home = choose(IpHash(), peers, key=key)
        home.failed(0.0)
        away = choose(IpHash(), peers, now=1.0, key=key)
        self.assertIsNot(away, home)
        self.assertIs(choose(IpHash(), peers, now=20.0, key=key), home)

    @given(st.binary(min_size=3, max_size=3))
    def test_none_when_all_were_tried(self, key: bytes) -> None:
        peers = Peers(make(1, 1))
        self.assertIsNone(IpHash().choose(peers, key, 0.0, peers.primary))
