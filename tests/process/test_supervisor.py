"""The supervisor's decisions, with a clock and scripted processes. Real ones: test_real.py."""

from __future__ import annotations

from signal import Signals
from typing import Any

from twisted.internet.error import ProcessDone, ProcessExitedAlready, ProcessTerminated
from twisted.internet.task import Clock
from twisted.logger import LogEvent, formatEvent, globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.process.backoff import Backoff
from imagefarm.process.children import (
    LINGER,
    MAX_LAST_WORDS,
    MAX_LINE,
    READY_FD,
    ChildFailed,
    ChildSpec,
    Patience,
    State,
)
from imagefarm.process.supervisor import Supervisor


class FakeProcess:
    """A process that does nothing by itself."""

    def __init__(self, protocol: Any, pid: int, fds: dict[int, int | str]) -> None:
        self.protocol, self.pid, self.fds = protocol, pid, fds
        self.signals: list[str] = []
        self.dead = False
        self.held_open = False

    def signalProcess(self, number: int) -> None:
        if self.dead:
            raise ProcessExitedAlready()
        self.signals.append(Signals(number).name.removeprefix("SIG"))

    def closeChildFD(self, fd: int) -> None:
        pass

    def loseConnection(self) -> None:
        self.protocol.processEnded(self.reason)

    def ready(self) -> None:
        self.protocol.childDataReceived(READY_FD, b"\n")

    def end(self, status: int | None = 0, signal: int | None = None) -> None:
        self.dead = True
        done = status == 0 and signal is None
        self.reason = Failure(ProcessDone(0) if done else ProcessTerminated(status, signal))
        self.protocol.processExited(self.reason)
        if not self.held_open:
            self.protocol.processEnded(self.reason)


class FakeReactor(Clock):
    """A clock that also spawns, or can't."""

    def __init__(self) -> None:
        super().__init__()
        self.spawned: list[FakeProcess] = []
        self.error: OSError | None = None

    def spawnProcess(
        self,
        protocol: Any,
        executable: str,
        arguments: Any,
        environment: Any,
        directory: str | None,
        childFDs: dict[int, int | str],
    ) -> FakeProcess:
        if self.error is not None:
            raise self.error
        process = FakeProcess(protocol, 1000 + len(self.spawned), childFDs)
        protocol.makeConnection(process)
        self.spawned.append(process)
        return process


class SupervisorTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = FakeReactor()
        self.lines: list[tuple[str, bytes]] = []
        self.supervisor = self.make("resizer", "slave", "master")
        self.logged: list[str] = []

        def observe(event: LogEvent) -> None:
            self.logged.append(formatEvent(event))

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)

    def make(self, *names: str) -> Supervisor:
        return Supervisor(
            [ChildSpec(name, ("run", name), fds={4: 9}) for name in names],
            self.reactor,
            lambda name, line: self.lines.append((name, line)),
            Backoff(first=1, factor=2, limit=4, stable=10),
            Patience(ready=5, stop=(("QUIT", 3), ("TERM", 2))),
        )

    def start_all(self) -> list[FakeProcess]:
        self.supervisor.startService()
        for index in range(3):
            self.reactor.spawned[index].ready()
        self.successResultOf(self.supervisor.ready)
        return self.reactor.spawned[:3]

    def states(self) -> list[State]:
        return [child.state for child in self.supervisor.children]

    def test_each_starts_when_the_one_before_is_ready(self) -> None:
        self.supervisor.startService()
        self.assertEqual(self.states(), [State.STARTING, State.STOPPED, State.STOPPED])
        self.reactor.spawned[0].ready()
        self.assertEqual(self.states(), [State.RUNNING, State.STARTING, State.STOPPED])
        self.reactor.spawned[1].ready()
        self.assertNoResult(self.supervisor.ready)
        self.reactor.spawned[2].ready()
        self.successResultOf(self.supervisor.ready)
        self.assertEqual(
            repr(self.supervisor),
            "<Supervisor <Child resizer running pid=1000> <Child slave running pid=1001> "
            "<Child master running pid=1002>>",
        )

    def test_descriptors(self) -> None:
        self.supervisor.startService()
        self.assertEqual(self.reactor.spawned[0].fds, {0: "w", 1: "r", 2: "r", 3: "r", 4: 9})

    def test_the_last_stops_first_and_each_waits_for_the_one_before(self) -> None:
        resizer, slave, master = self.start_all()
        stopped = self.supervisor.stopService()
        self.assertEqual((master.signals, slave.signals, resizer.signals), (["QUIT"], [], []))
        master.end()
        self.assertEqual((slave.signals, resizer.signals), (["QUIT"], []))
        slave.end()
        self.assertNoResult(stopped)
        resizer.end()
        self.successResultOf(stopped)
        self.assertEqual(self.states(), [State.STOPPED] * 3)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_all_stop_together(self) -> None:
        self.supervisor._together = True
        resizer, slave, master = self.start_all()
        stopped = self.supervisor.stopService()
        self.assertEqual((master.signals, slave.signals, resizer.signals), (["QUIT"],) * 3)
        for process in (slave, master):
            process.end()
        self.assertNoResult(stopped)
        resizer.end()
        self.successResultOf(stopped)

    def test_one_that_does_not_stop_is_killed(self) -> None:
        master = self.start_all()[2]
        self.supervisor.stopService()
        self.reactor.advance(3)
        self.assertEqual(master.signals, ["QUIT", "TERM"])
        self.reactor.advance(2)
        self.assertEqual(master.signals, ["QUIT", "TERM", "KILL"])

    def test_patience_may_change(self) -> None:
        master = self.start_all()[2]
        self.supervisor.patience = Patience(stop=(("TERM", 1),))
        self.assertEqual(self.supervisor.patience.stop, (("TERM", 1),))
        self.supervisor.stopService()
        self.reactor.advance(1)
        self.assertEqual(master.signals, ["TERM", "KILL"])

    def test_hurry_cuts_a_gentle_stop_short(self) -> None:
        _, slave, master = self.start_all()
        self.supervisor.stopService()
        self.supervisor.patience = Patience(stop=(("TERM", 2),))
        for child in self.supervisor.children:
            child.hurry()
        self.assertEqual((master.signals, slave.signals), (["QUIT", "TERM"], []))
        self.reactor.advance(2)
        self.assertEqual(master.signals, ["QUIT", "TERM", "KILL"])

    def test_output_that_a_grandchild_holds_open_is_given_up(self) -> None:
        master = self.start_all()[2]
        master.held_open = True
        self.supervisor.stopService()
        master.end()
        self.assertIs(self.supervisor.children[2].state, State.STOPPING)
        self.reactor.advance(LINGER)
        self.assertIs(self.supervisor.children[2].state, State.STOPPED)

    def test_stopping_twice_sends_no_second_signal(self) -> None:
        master = self.start_all()[2]
        first, second = self.supervisor.stopService(), self.supervisor.stopService()
        self.assertEqual(master.signals, ["QUIT"])
        for process in reversed(self.reactor.spawned):
            process.end()
        self.successResultOf(first)
        self.successResultOf(second)

    def test_the_dead_is_started_again(self) -> None:
        slave = self.start_all()[1]
        self.reactor.advance(20)
        slave.end(1)
        child = self.supervisor.children[1]
        self.assertIs(child.state, State.WAITING)
        self.assertEqual(repr(child), "<Child slave waiting to be restarted pid=->")
        self.reactor.advance(1)
        self.reactor.spawned[3].ready()
        self.assertIs(child.state, State.RUNNING)
        self.assertEqual((child.restarts, child.pid), (1, 1003))

    def test_the_wait_grows_and_a_long_life_resets_it(self) -> None:
        self.start_all()
        process, waits = self.reactor.spawned[1], []
        for lived in (0, 0, 0, 0, 15, 0):
            self.reactor.advance(lived)
            process.end(None, 9)
            (call,) = self.reactor.getDelayedCalls()
            waits.append(call.getTime() - self.reactor.seconds())
            self.reactor.advance(waits[-1])
            process = self.reactor.spawned[-1]
            process.ready()
        self.assertEqual(waits, [1, 2, 4, 4, 1, 2])

    def test_dead_before_the_first_readiness_fails_the_start(self) -> None:
        self.supervisor.startService()
        self.reactor.spawned[0].ready()
        self.reactor.spawned[1].end(1)
        error = self.failureResultOf(self.supervisor.ready, ChildFailed).value
        self.assertEqual(str(error), "slave exited with status 1 before it was ready")
        self.assertEqual(self.states(), [State.RUNNING, State.STOPPED, State.STOPPED])
        stopped = self.supervisor.stopService()
        self.reactor.spawned[0].end()
        self.successResultOf(stopped)

    def test_last_words(self) -> None:
        """Why it can't start is told with its death, and not twice."""
        master = self.start_all()[2]
        master.protocol.childDataReceived(2, b"imagefarm: [emerg] no reason yet\n")
        master.end(1)
        self.reactor.advance(1)
        again = self.reactor.spawned[-1]
        again.protocol.childDataReceived(2, b"imagefarm: [emerg] one\nimagefarm: [warn] x\n")
        again.protocol.childDataReceived(2, b"imagefarm: [emerg] two\n" * MAX_LAST_WORDS)
        again.end(1)
        self.assertEqual(
            self.lines,
            [("master", b"imagefarm: [emerg] no reason yet"), ("master", b"imagefarm: [warn] x")],
        )
        why = "; ".join(["one", *["two"] * (MAX_LAST_WORDS - 1)])
        self.assertIn(f"master exited with status 1 ({why}), restarting in 2 s", self.logged)
        other = self.make("slave")
        other.startService()
        self.reactor.spawned[-1].protocol.childDataReceived(1, b"imagefarm: [emerg] port taken\n")
        self.reactor.spawned[-1].end(1)
        error = self.failureResultOf(other.ready, ChildFailed).value
        self.assertEqual(str(error), "slave exited with status 1 before it was ready: port taken")

    def test_how_it_ended_is_told(self) -> None:
        for status, signal, text in (
            (0, None, "exited with status 0"),
            (3, None, "exited with status 3"),
            (None, 11, "was killed by signal 11"),
        ):
            supervisor = self.make("slave")
            supervisor.startService()
            self.reactor.spawned[-1].end(status, signal)
            error = self.failureResultOf(supervisor.ready, ChildFailed).value
            self.assertEqual(error.how, text)

    def test_one_that_is_never_ready_is_killed(self) -> None:
        self.supervisor.startService()
        self.reactor.advance(5)
        self.assertEqual(self.reactor.spawned[0].signals, ["KILL"])
        self.reactor.spawned[0].end(None, 9)
        self.failureResultOf(self.supervisor.ready, ChildFailed)

    def test_can_not_be_spawned(self) -> None:
        self.reactor.error = OSError(11, "Resource temporarily unavailable")
        self.supervisor.startService()
        error = self.failureResultOf(self.supervisor.ready, ChildFailed).value
        self.assertIn("could not be started", str(error))

    def test_can_not_be_spawned_again_for_now(self) -> None:
        slave = self.start_all()[1]
        slave.end(1)
        self.reactor.error = OSError(24, "Too many open files")
        self.reactor.advance(1)
        self.assertIs(self.supervisor.children[1].state, State.WAITING)
        self.reactor.error = None
        self.reactor.advance(2)
        self.assertIs(self.supervisor.children[1].state, State.STARTING)

    def test_stop_while_starting(self) -> None:
        self.supervisor.startService()
        stopped = self.supervisor.stopService()
        (process,) = self.reactor.spawned
        self.assertEqual(process.signals, ["QUIT"])
        process.ready()
        process.end()
        self.successResultOf(stopped)
        self.assertEqual(len(self.reactor.spawned), 1)
        self.assertNoResult(self.supervisor.ready)

    def test_stop_while_waiting_to_restart(self) -> None:
        resizer, slave, master = self.start_all()
        slave.end(1)
        stopped = self.supervisor.stopService()
        master.end()
        resizer.end()
        self.successResultOf(stopped)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_signals_reach_all_that_live(self) -> None:
        resizer, slave, master = self.start_all()
        slave.end(1)
        self.supervisor.signal("HUP")
        self.assertEqual((resizer.signals, slave.signals, master.signals), (["HUP"], [], ["HUP"]))

    def test_signal_to_one_that_has_just_died(self) -> None:
        master = self.start_all()[2]
        master.dead = True
        self.assertFalse(self.supervisor.children[2].signal("HUP"))

    def test_output_comes_in_lines_with_the_name(self) -> None:
        protocol = self.start_all()[1].protocol
        protocol.childDataReceived(1, b"one\ntw")
        protocol.childDataReceived(2, b"error\n")
        protocol.childDataReceived(1, b"o\nthree")
        self.assertEqual(self.lines, [("slave", b"one"), ("slave", b"error"), ("slave", b"two")])
        protocol.childConnectionLost(1)
        self.assertEqual(self.lines[3:], [("slave", b"three")])

    def test_a_line_without_end_is_not_kept_for_ever(self) -> None:
        protocol = self.start_all()[1].protocol
        protocol.childDataReceived(1, b"x" * (2 * MAX_LINE + 1))
        self.assertEqual([len(line) for _, line in self.lines], [MAX_LINE, MAX_LINE])
