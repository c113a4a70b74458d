"""The kinetic tournament and the turns built on it, against looking at everything."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.proxy.peer import Address, Peer
from imagefarm.proxy.tournament import Line, Tournament
from imagefarm.proxy.turn import Turn

from .nginx_model import Model, ModelPeer

ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(0, 9), st.integers(-50, 50)),
        st.tuples(st.just("remove"), st.integers(0, 99), st.just(0)),
        st.tuples(st.just("change"), st.integers(0, 99), st.integers(-50, 50)),
        st.tuples(st.just("wait"), st.integers(0, 9), st.just(0)),
    ),
    max_size=60,
)


class TournamentTests(SynchronousTestCase):
    @given(ACTIONS)
    def test_the_highest_is_the_highest(self, actions: list[tuple[str, int, int]]) -> None:
        tournament: Tournament[Line] = Tournament()
        lines: list[Line] = []
        now = 0
        for order, (action, number, base) in enumerate(actions):
            if action == "add":
                lines.append(Line(number, base, order))
                tournament.add(lines[-1], now)
            elif action == "wait":
                now += number
            elif lines and action == "remove":
                tournament.remove(lines.pop(number % len(lines)), now)
            elif lines:
                line = lines[number % len(lines)]
                line.base, line.order = base, order
                tournament.changed(line, now)
            expected = max(lines, key=lambda o: (o.base + o.slope * now, -o.order), default=None)
            self.assertIs(tournament.highest(now), expected)


class TurnTests(SynchronousTestCase):
    def test_many_peers_of_many_weights(self) -> None:
        """nginx's sequence through several periods, while peers come and go."""
        dice = random.Random(3)
        weights = [dice.choice((1, 2, 5, dice.randint(1, 60))) for _ in range(70)]
        model = Model([ModelPeer(number, weight) for number, weight in enumerate(weights)])
        peers = [Peer(Address("10.0.0.1", 1 + n), weight=w) for n, w in enumerate(weights)]
        turn = Turn()
        for order, peer in enumerate(peers):
            peer.order = order
            turn.add(peer)
        out: set[int] = set()
        for number in range(5000):
            if number % 7 == 0:
                some = dice.randrange(70)
                if some in out:
                    out.remove(some)
                    turn.add(peers[some])
                else:
                    out.add(some)
                    turn.remove(peers[some])
            chosen = turn.choose(())
            self.assertEqual(model.choose(0.0, out), None if chosen is None else chosen.order)

    def test_nobody(self) -> None:
        turn = Turn()
        self.assertIsNone(turn.choose(()))
        peer = Peer(Address("10.0.0.1", 1))
        turn.add(peer)
        self.assertIsNone(turn.choose([peer]))
        self.assertIs(turn.choose(()), peer)
        turn.remove(peer)
        self.assertIsNone(turn.choose(()))

    def test_what_has_gone_does_not_pile_up(self) -> None:
        """`least_conn` moves peers with every request."""
        turn = Turn()
        peers = [Peer(Address("10.0.0.1", 1 + n)) for n in range(4)]
        for order, peer in enumerate(peers):
            peer.order = order
            turn.add(peer)
        for _ in range(1000):
            chosen = turn.choose(())
            assert chosen is not None
            turn.remove(chosen)
            turn.add(chosen)
        self.assertLess(max(len(lane.heap) for lane in turn._lanes.values()), 20)
