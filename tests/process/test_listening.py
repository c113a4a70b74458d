"""The listening sockets of a daemon through its configurations."""

from __future__ import annotations

import socket
from pathlib import Path

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.process.listening import Listening
from imagefarm.process.sockets import Endpoint, ListenError, open_socket
from tests.support.descriptors import descriptors, keep_garbage

LOOPBACK = Endpoint("127.0.0.1")


class ListeningTests(SynchronousTestCase):
    def setUp(self) -> None:
        keep_garbage(self)
        self.before = descriptors()
        self.listening = Listening()
        self.addCleanup(self.listening.close, unlink=True)

    def free(self, **options: bool) -> Endpoint:
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            return evolve(LOOPBACK, port=sock.getsockname()[1], **options)

    def taken(self) -> Endpoint:
        sock = open_socket(LOOPBACK)
        self.addCleanup(sock.close)
        return evolve(LOOPBACK, port=sock.getsockname()[1])

    def test_what_is_open_stays(self) -> None:
        kept, gone, added = self.free(), self.free(), self.free()
        first = self.listening.prepare([kept, gone], 1)
        self.listening.commit(first)
        second = self.listening.prepare([kept, added, kept], 1)
        self.assertIs(second.sockets[str(kept)], first.sockets[str(kept)])
        self.assertEqual(second.new, (second.sockets[str(added)],))
        self.assertGreater(first.sockets[str(gone)].fileno(), 0)  # until there is no way back
        self.listening.commit(second)
        self.assertEqual(first.sockets[str(gone)].fileno(), -1)
        self.listening.close(unlink=True)
        self.assertEqual(descriptors(), self.before)

    def test_abandoned(self) -> None:
        kept = self.free()
        first = self.listening.prepare([kept], 1)
        self.listening.commit(first)
        open_before = descriptors()
        self.listening.abandon(self.listening.prepare([kept, self.free()], 1))
        self.assertEqual(descriptors(), open_before)
        socket.create_connection(("127.0.0.1", kept.port)).close()

    def test_all_or_none_and_every_failure_named(self) -> None:
        taken, foreign = self.taken(), Endpoint("192.0.2.1", 1)
        before = descriptors()
        error = self.assertRaises(
            ListenError, self.listening.prepare, [self.free(), taken, foreign], 1
        )
        self.assertEqual(
            error.problems,
            (
                f"bind() to {taken} failed (98: Address already in use)",
                "bind() to 192.0.2.1:1 failed (99: Cannot assign requested address)",
            ),
        )
        self.assertEqual(descriptors(), before)

    def test_a_socket_of_its_own_for_each_worker(self) -> None:
        """For ``reuseport``; more workers get more, and those there are keep theirs."""
        shared, plain = self.free(reuseport=True), self.free()
        first = self.listening.prepare([shared, plain], 2)
        self.listening.commit(first)
        second = self.listening.prepare([shared, plain], 3)
        self.listening.commit(second)
        one, two, three = (second.of_worker(number) for number in (1, 2, 3))
        self.assertIs(two[shared], first.of_worker(2)[shared])
        self.assertEqual(len({id(some[shared]) for some in (one, two, three)}), 3)
        self.assertEqual({id(some[plain]) for some in (one, two, three)}, {id(one[plain])})
        third = self.listening.prepare([shared, plain], 1)
        self.listening.commit(third)
        self.assertEqual(two[shared].fileno(), -1)
        self.assertEqual(third.clones, ())

    def test_reuseport_may_come_later(self) -> None:
        plain = self.free()
        self.listening.commit(self.listening.prepare([plain], 2))
        change = self.listening.prepare([evolve(plain, reuseport=True)], 2)
        self.assertEqual(len(change.new), 1)
        self.listening.commit(change)

    def test_clones_all_or_none(self) -> None:
        taken = evolve(self.taken(), reuseport=True)
        error = self.assertRaises(ListenError, self.listening.prepare, [taken], 2)
        self.assertEqual(len(error.problems), 1)

    def test_unix(self) -> None:
        """The path goes with the socket, unless another program goes on with it."""
        path = Path(self.mktemp()).absolute()
        self.listening.commit(self.listening.prepare([Endpoint(path=str(path))], 1))
        self.assertTrue(path.is_socket())
        self.listening.close(unlink=False)
        self.assertTrue(path.is_socket())
        self.listening.commit(self.listening.prepare([Endpoint(path=str(path))], 1))
        self.listening.commit(self.listening.prepare([], 1))
        self.assertFalse(path.exists())

    def test_adopted_clones(self) -> None:
        """Each of an address's sockets has its own queue: none is lost, however many there are."""
        here = evolve(LOOPBACK, reuseport=True)
        first = open_socket(here)
        here = evolve(here, port=first.getsockname()[1])
        others = [open_socket(here) for _ in range(2)]
        self.listening.adopt("".join(f"{here}={s.detach()};" for s in (first, *others)))
        self.assertEqual([name for name, _ in self.listening.inherit()], [str(here)] * 3)
        change = self.listening.prepare([here], 3)
        self.assertEqual(change.new, ())
        self.listening.commit(change)
        change = self.listening.prepare([here], 4)
        self.assertEqual(len(change.new), 1)
        self.listening.commit(change)

    def test_adopted(self) -> None:
        """Another program's sockets are used; what is not wanted is closed."""
        wanted, other = open_socket(LOOPBACK), open_socket(LOOPBACK)
        names = [evolve(LOOPBACK, port=sock.getsockname()[1]) for sock in (wanted, other)]
        self.listening.adopt(
            "".join(f"{n}={s.detach()};" for n, s in zip(names, (wanted, other), strict=True))
        )
        change = self.listening.prepare(names[:1], 1)
        self.assertEqual(change.new, ())
        self.listening.commit(change)
        socket.create_connection(("127.0.0.1", names[0].port)).close()
        with self.assertRaises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", names[1].port))
