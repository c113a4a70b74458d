"""What each balancing method promises, over random weights and failures."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable
from fractions import Fraction
from zlib import crc32

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.config.variables import Template
from imagefarm.proxy.peer import Address, Peer
from imagefarm.proxy.peers import Peers
from imagefarm.proxy.policies import ConsistentHash, Hash, LeastConn, Policy, Random, RoundRobin
from imagefarm.proxy.ring import Ring, points

from .support import make_request

WEIGHTS = st.lists(st.integers(1, 9), min_size=2, max_size=7)
KEYS = [b"/photos/%d.jpg" % number for number in range(3000)]
URI = Template("$uri", (lambda request: bytes(request.uri),), None)


def make(weights: Iterable[int]) -> list[Peer]:
    return [
        Peer(Address("10.0.0.1", 1 + n), weight=weight, server=b"server%d.example:80" % n)
        for n, weight in enumerate(weights)
    ]


def choose(policy: Policy, peers: Peers, key: bytes = b"", now: float = 0.0) -> Peer:
    peer = policy.choose(peers, key, now, ())
    assert peer is not None
    return peer


def spread(policy: Policy, peers: Peers) -> dict[bytes, Peer]:
    return {key: choose(policy, peers, key) for key in KEYS}


class RoundRobinTests(SynchronousTestCase):
    @given(WEIGHTS, st.data())
    def test_exact_in_each_period_and_never_far_off(
        self, weights: list[int], data: st.DataObject
    ) -> None:
        """Also among what is left when some are down; a share is never two requests off."""
        every = make(weights)
        peers = Peers(every)
        for peer in data.draw(st.sets(st.sampled_from(every), max_size=len(every) - 1)):
            peer.set_down()
        up = [peer for peer in every if not peer.down]
        total = sum(peer.weight for peer in up)
        counts: Counter[Peer] = Counter()
        for number in range(1, 2 * total + 1):
            counts[choose(RoundRobin(), peers)] += 1
            for peer in up:
                due = Fraction(number * peer.weight, total)
                self.assertLess(abs(counts[peer] - due), 2)
        self.assertEqual(counts, {peer: 2 * peer.weight for peer in up})


class LeastConnTests(SynchronousTestCase):
    @given(WEIGHTS, st.lists(st.tuples(st.integers(0, 9), st.booleans()), max_size=80))
    def test_never_the_busier(self, weights: list[int], events: list[tuple[int, bool]]) -> None:
        every = make(weights)
        peers = Peers(every)
        busy: list[Peer] = []
        for number, begins in events:
            if begins or not busy:
                chosen = choose(LeastConn(), peers)
                least = min(Fraction(peer.conns, peer.weight) for peer in every)
                self.assertEqual(Fraction(chosen.conns, chosen.weight), least)
                chosen.take(0.0)
                busy.append(chosen)
            else:
                busy.pop(number % len(busy)).release()

    def test_backup(self) -> None:
        first, second = make([1, 1])
        second.backup = True
        peers = Peers([first, second])
        self.assertIs(choose(LeastConn(), peers), first)
        first.failed(0.0)
        self.assertIs(choose(LeastConn(), peers), second)
        self.assertIs(choose(LeastConn(), peers, now=10.1), first)


class RandomTests(SynchronousTestCase):
    def test_shares_follow_the_weights(self) -> None:
        peers = Peers(make([1, 2, 5]))
        policy = Random(random.Random(1).randrange)
        counts = Counter(choose(policy, peers).order for _ in range(8000))
        for order, weight in enumerate((1, 2, 5)):
            self.assertLess(abs(counts[order] - 1000 * weight), 120)

    @given(st.integers(0, 2**32), WEIGHTS, st.data())
    def test_two_takes_the_less_busy_of_its_two(
        self, seed: int, weights: list[int], data: st.DataObject
    ) -> None:
        every = make(weights)
        peers = Peers(every)
        for peer in every:
            for _ in range(data.draw(st.integers(0, 5))):
                peer.take(0.0)
        drawn: list[Peer] = []
        dice = random.Random(seed)

        def draw(total: int) -> int:
            point = dice.randrange(total)
            drawn.append(peers.primary.at(point))
            return point

        chosen = choose(Random(draw, two=True), peers)
        if len(set(drawn)) == 2:
            self.assertIs(drawn[-1] in drawn[:-1], False)
            first, second = drawn[0], drawn[-1]
            self.assertLessEqual(
                Fraction(chosen.conns, chosen.weight),
                min(Fraction(p.conns, p.weight) for p in (first, second)),
            )

    @given(st.booleans(), WEIGHTS, st.data())
    def test_only_what_is_available_and_untried(
        self, two: bool, weights: list[int], data: st.DataObject
    ) -> None:
        every = make(weights)
        peers = Peers(every)
        out = data.draw(st.sets(st.sampled_from(every)))
        tried = data.draw(st.sets(st.sampled_from(every)))
        for peer in out:
            peer.drain()
        chosen = Random(random.Random(2).randrange, two=two).choose(peers, b"", 0.0, tried)
        usable = set(every) - out - tried
        self.assertTrue(chosen in usable if usable else chosen is None)


class HashTests(SynchronousTestCase):
    def test_key(self) -> None:
        request = make_request(target=b"/a.jpg?x")
        for policy in (Hash(URI), ConsistentHash(URI)):
            self.assertEqual(policy.key(request), b"/a.jpg")

    def test_shares_follow_the_weights(self) -> None:
        for policy, delta in ((Hash(URI), 0.05), (ConsistentHash(URI), 0.15)):
            counts = Counter(
                peer.order for peer in spread(policy, Peers(make([2, 1, 3]))).values()
            )
            for order, weight in enumerate((2, 1, 3)):
                self.assertLess(abs(counts[order] / len(KEYS) - weight / 6), delta)

    def test_without_a_key_they_take_turns(self) -> None:
        for policy in (Hash(URI), ConsistentHash(URI)):
            peers = Peers(make([1, 1, 1]))
            self.assertEqual([choose(policy, peers).order for _ in range(4)], [0, 1, 2, 0])

    def test_a_server_that_goes_moves_its_own_keys_only(self) -> None:
        every = make([1] * 10)
        policy = ConsistentHash(URI)
        peers = Peers(every)
        before = spread(policy, peers)
        peers.replace(every[1:])
        after = spread(policy, peers)
        moved = {key for key in KEYS if before[key] is not after[key]}
        self.assertEqual(moved, {key for key in KEYS if before[key] is every[0]})
        self.assertLess(len(moved) / len(KEYS), 0.2)
        peers.replace(every)
        self.assertEqual(spread(policy, peers), before)
        # One that is down is passed over; the keys that go to it elsewhere come back with it.
        every[3].set_down()
        away = spread(policy, peers)
        moved = {key for key in KEYS if before[key] is not away[key]}
        self.assertEqual(moved, {key for key in KEYS if before[key] is every[3]})
        every[3].set_up(0.0)
        self.assertEqual(spread(policy, peers), before)

    def test_a_weight_moves_keys_to_that_server_only(self) -> None:
        every = make([1] * 8)
        policy = ConsistentHash(URI)
        peers = Peers(every)
        before = spread(policy, peers)
        every[2].set_weight(2)
        after = spread(policy, peers)
        moved = {key for key in KEYS if before[key] is not after[key]}
        self.assertTrue(moved)
        self.assertEqual({after[key] for key in moved}, {every[2]})

    def test_addresses_of_one_name_share_its_keys(self) -> None:
        every = make([1, 1, 1])
        every[1].server = every[0].server
        policy = ConsistentHash(URI)
        peers = Peers(every)
        before = spread(policy, peers)
        key = next(key for key in KEYS if before[key] is every[1])
        self.assertEqual({choose(policy, peers, key) for _ in range(2)}, set(every[:2]))
        every[1].failed(0.0)
        self.assertEqual({choose(policy, peers, key) for _ in range(3)}, {every[0]})


class RingTests(SynchronousTestCase):
    def test_the_points_of_cache_memcached_fast(self) -> None:
        first = crc32(b"127.0.0.1\x008080" + bytes(4))
        second = crc32(b"127.0.0.1\x008080" + first.to_bytes(4, "little"))
        made = list(points(b"127.0.0.1:8080", 2))
        self.assertEqual((made[:2], len(made)), ([first, second], 320))
        for server, text in (
            (b"backend", b"backend\x00"),
            (b"unix:/run/x", b"/run/x\x00"),
            (b"[::1]:80", b"[::1]\x0080"),
            (b"[::1]", b"[::1]\x00"),
        ):
            self.assertEqual(next(points(server, 1)), crc32(text + bytes(4)))

    @given(
        st.lists(
            st.dictionaries(st.sampled_from([b"a", b"b", b"c", b"d:1"]), st.integers(1, 3)),
            min_size=1, max_size=5,
        ),
        st.binary(),
    )  # fmt: skip
    def test_changed_or_made_anew_is_the_same(
        self, versions: list[dict[bytes, int]], key: bytes
    ) -> None:
        changed, new = Ring(), Ring()
        for version in versions:
            changed.update(version)
        new.update(versions[-1])
        self.assertEqual(len(changed), sum(versions[-1].values()) * 160)
        one, other = changed.servers(key), new.servers(key)
        if versions[-1]:
            self.assertEqual([next(one) for _ in range(30)], [next(other) for _ in range(30)])
        else:
            self.assertEqual((list(one), list(other)), ([], []))
