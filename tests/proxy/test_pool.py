"""The idle pool against a plain model, and its rules one by one."""

from __future__ import annotations

from attrs import define
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.proxy.pool import IdlePool, KeepaliveSettings


@define(eq=False)
class Idle:
    key: str
    served: int = 1
    created: float = 0.0


def pool(**settings: float) -> IdlePool[Idle]:
    return IdlePool(KeepaliveSettings(**settings))  # type: ignore[arg-type]


class PoolTests(SynchronousTestCase):
    def test_last_in_first_out_by_key(self) -> None:
        kept = pool()
        a, b, other = Idle("k"), Idle("k"), Idle("other")
        for connection in (a, b, other):
            self.assertTrue(kept.put(connection, 0.0))
        self.assertIs(kept.take("k"), b)
        self.assertIs(kept.take("k"), a)
        self.assertIsNone(kept.take("k"))
        self.assertEqual(repr(kept), "<IdlePool 1 of 32>")

    def test_the_oldest_makes_room(self) -> None:
        kept = pool(connections=2)
        a, b, c = Idle("k"), Idle("l"), Idle("k")
        kept.put(a, 0.0)
        kept.put(b, 1.0)
        self.assertFalse(kept.overfull)
        kept.put(c, 2.0)
        self.assertTrue(kept.overfull)
        self.assertEqual(kept.surplus(), [a])
        self.assertFalse(kept.overfull)
        self.assertIs(kept.take("k"), c)
        self.assertIsNone(kept.take("k"))

    def test_what_is_not_kept(self) -> None:
        worn, old, fresh = Idle("k", served=3), Idle("k"), Idle("k", created=95.0)
        kept = pool(requests=3, time=50.0)
        self.assertFalse(kept.put(worn, 1.0))
        self.assertFalse(kept.put(old, 100.0))
        self.assertTrue(kept.put(fresh, 100.0))
        none = pool(connections=0)
        self.assertFalse(none.put(fresh, 100.0))

    def test_expiry(self) -> None:
        kept = pool(timeout=10.0)
        a, b = Idle("k"), Idle("k")
        self.assertIsNone(kept.next_expiry())
        kept.put(a, 0.0)
        kept.put(b, 5.0)
        self.assertEqual(kept.next_expiry(), 10.0)
        self.assertEqual(kept.expire(9.9), [])
        self.assertEqual(kept.expire(10.0), [a])
        self.assertEqual(kept.next_expiry(), 15.0)
        self.assertEqual(kept.drain(), [b])
        self.assertIsNone(kept.take("k"))

    def test_closed_ones_are_forgotten(self) -> None:
        kept = pool()
        a = Idle("k")
        kept.put(a, 0.0)
        self.assertTrue(kept.remove(a))
        self.assertFalse(kept.remove(a))
        self.assertIsNone(kept.take("k"))

    @given(st.lists(st.tuples(st.sampled_from("ppptrxs"), st.sampled_from("ab")), max_size=40))
    def test_it_behaves_like_a_list(self, actions: list[tuple[str, str]]) -> None:
        kept, model = pool(connections=3, timeout=4.0), list[tuple[float, Idle]]()
        for now, (action, key) in enumerate(actions):
            if action == "p":
                connection = Idle(key)
                model.append((now, connection))
                self.assertTrue(kept.put(connection, now))
            elif action == "s":
                surplus = [model.pop(0)[1] for _ in range(len(model) - 3)]
                self.assertEqual(kept.overfull, bool(surplus))
                self.assertEqual(kept.surplus(), surplus)
            elif action == "t":
                matching = [item for item in model if item[1].key == key]
                if matching:
                    model.remove(matching[-1])
                self.assertIs(kept.take(key), matching[-1][1] if matching else None)
            elif action == "r" and model:
                self.assertTrue(kept.remove(model.pop(0)[1]))
            elif action == "x":
                expired = [item for item in model if now - item[0] >= 4.0]
                model = [item for item in model if item not in expired]
                self.assertEqual(kept.expire(now), [item[1] for item in expired])
            self.assertEqual(len(kept), len(model))
