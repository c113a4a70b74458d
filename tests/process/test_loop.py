"""The leaner turns of the event loop, on a reactor of their own."""

from __future__ import annotations

import socket
import threading
from typing import Any

from twisted.internet.epollreactor import EPollReactor
from twisted.internet.interfaces import IReadDescriptor
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from imagefarm.process.loop import streamline


@implementer(IReadDescriptor)
class Reader:
    """Reads a byte at each event."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.lean = self.usual = 0
        self.then: Any = lambda: None

    def fileno(self) -> int:
        return self.sock.fileno()

    def logPrefix(self) -> str:
        return "reader"

    def doRead(self) -> None:
        self.sock.recv(1)
        self.usual += 1
        self.then()

    def connectionLost(self, reason: object) -> None:
        """The reactor ends."""


class Lean(Reader):
    """One that the loop knows."""

    def read_ready(self) -> None:
        self.sock.recv(1)
        self.lean += 1
        self.then()


class LoopTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor: Any = EPollReactor()
        self.assertTrue(streamline(self.reactor, (Lean,)))
        self.addCleanup(self.close)

    def close(self) -> None:
        for reader in tuple(self.reactor._internalReaders):  # what wakes it up
            reader.connectionLost(None)
        self.reactor._poller.close()

    def reader(self, kind: type[Reader]) -> tuple[Any, socket.socket]:
        ours, theirs = socket.socketpair()
        self.addCleanup(ours.close)
        self.addCleanup(theirs.close)
        reader = kind(ours)
        self.reactor.addReader(reader)
        return reader, theirs

    def run_loop(self) -> None:
        self.reactor.run(installSignalHandlers=False)

    def test_other_reactors_are_left_alone(self) -> None:
        self.assertFalse(streamline(Clock(), (Lean,)))

    def test_each_in_its_way(self) -> None:
        lean, to_lean = self.reader(Lean)
        usual, to_usual = self.reader(Reader)
        lean.then = lambda: to_usual.send(b"x")
        usual.then = self.reactor.stop
        to_lean.send(b"x")
        self.run_loop()
        self.assertEqual((lean.lean, lean.usual, usual.usual), (1, 0, 1))

    def test_calls_come_while_events_do(self) -> None:
        """Events without end keep no delayed call waiting, nor one from a thread."""
        lean, to_lean = self.reader(Lean)
        lean.then = lambda: to_lean.send(b"x")
        seen: list[str] = []

        def late() -> None:
            seen.append("late")
            self.reactor.callLater(0, at_once)

        def at_once() -> None:
            seen.append("at once")
            threading.Thread(target=self.reactor.callFromThread, args=(last,)).start()

        def last() -> None:
            seen.append("thread")
            self.reactor.stop()

        self.reactor.callLater(0.01, late)
        to_lean.send(b"x")
        self.run_loop()
        self.assertEqual(seen, ["late", "at once", "thread"])
        self.assertGreater(lean.lean, 10)

    def test_a_call_made_in_an_event(self) -> None:
        lean, to_lean = self.reader(Lean)
        lean.then = lambda: self.reactor.callLater(0.01, self.reactor.stop)
        to_lean.send(b"x")
        self.run_loop()
        self.assertEqual(lean.lean, 1)

    def test_gone_since_the_poll(self) -> None:
        """Of two that are ready the first takes the second away."""
        readers = [self.reader(Lean) for _ in range(2)]
        left = [reader for reader, _ in readers]

        def take_away() -> None:
            for reader in left:
                self.reactor.removeReader(reader)
            self.reactor.callLater(0.01, self.reactor.stop)

        for reader, peer in readers:
            reader.then = take_away
            peer.send(b"x")
        self.run_loop()
        self.assertEqual(sum(reader.lean for reader in left), 1)
