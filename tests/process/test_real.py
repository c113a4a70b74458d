"""The supervisor and its children as real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from imagefarm.process.backoff import Backoff
from imagefarm.process.child import SUPERVISED
from imagefarm.process.children import ChildFailed, ChildSpec, Patience, State
from imagefarm.process.supervisor import Supervisor

CHILD = """
import os, sys
from twisted.internet import reactor
from imagefarm.process.child import supervision
ours = supervision(os.environ)
assert supervision(os.environ) is None
ours.watch(reactor, reactor.stop)
reactor.callWhenRunning(print, *sys.argv[1:], flush=True)
reactor.callWhenRunning(ours.say_ready)
reactor.callWhenRunning(ours.say_ready)
reactor.run()
print("bye", flush=True)
"""

STUBBORN = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
os.write(3, b"x")
time.sleep(60)
"""

PARENT = """
import os, sys
from twisted.internet import reactor
from imagefarm.process.children import ChildSpec
from imagefarm.process.supervisor import Supervisor
code, environment = sys.argv[1], {**os.environ, "IMAGEFARM_SUPERVISED": "1"}
children = [ChildSpec(name, (sys.executable, "-c", code), environment) for name in "ab"]
supervisor = Supervisor(children, reactor, lambda name, line: None)
supervisor.ready.addCallback(lambda _: print(*[c.pid for c in supervisor.children], flush=True))
reactor.callWhenRunning(supervisor.startService)
reactor.run()
"""


def spec(name: str, code: str, *arguments: str) -> ChildSpec:
    return ChildSpec(
        name, (sys.executable, "-c", code, *arguments), {**os.environ, SUPERVISED: "1"}
    )


def alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


class RealTests(TestCase):
    timeout = 20

    def start(self, *specs: ChildSpec, grace: float = 5) -> Supervisor:
        self.lines: list[tuple[str, bytes]] = []
        supervisor = Supervisor(
            specs,
            reactor,
            lambda name, line: self.lines.append((name, line)),
            Backoff(first=0.05),
            Patience(ready=10, stop=(("TERM", grace),)),
        )
        supervisor.startService()
        self.addCleanup(supervisor.stopService)
        return supervisor

    def until(self, condition: Any) -> Deferred[None]:
        if condition():
            return deferLater(reactor, 0, lambda: None)
        return deferLater(reactor, 0.02, self.until, condition)

    async def test_lives_speaks_and_stops(self) -> None:
        supervisor = self.start(spec("a", CHILD, "hello"), spec("b", CHILD, "there"))
        await supervisor.ready
        await supervisor.stopService()
        self.assertEqual(sorted(self.lines[:2]), [("a", b"hello"), ("b", b"there")])
        self.assertEqual(self.lines[2:], [("b", b"bye"), ("a", b"bye")])

    async def test_killed_and_started_again(self) -> None:
        supervisor = self.start(spec("a", CHILD))
        await supervisor.ready
        child = supervisor.children[0]
        first = child.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        await self.until(lambda: child.restarts == 1 and child.state is State.RUNNING)
        self.assertNotEqual(child.pid, first)

    async def test_killed_when_it_does_not_stop(self) -> None:
        supervisor = self.start(spec("a", STUBBORN), grace=0.1)
        await supervisor.ready
        pid = supervisor.children[0].pid
        assert pid is not None
        await supervisor.stopService()
        self.assertFalse(alive(pid))

    async def test_last_words_are_heard(self) -> None:
        code = "import sys; sys.stderr.write('[emerg] no\\n' * 1000 + 'end'); sys.exit(1)"
        supervisor = self.start(spec("a", code))
        with self.assertRaises(ChildFailed):
            await supervisor.ready
        self.assertEqual(len(self.lines), 1001)
        self.assertEqual(self.lines[-1], ("a", b"end"))

    async def test_a_grandchild_does_not_keep_the_dead_alive(self) -> None:
        code = "import os, time; os.fork() or (time.sleep(4), os._exit(0)); os._exit(1)"
        supervisor = self.start(spec("a", code))
        before = time.monotonic()
        with self.assertRaises(ChildFailed):
            await supervisor.ready
        self.assertLess(time.monotonic() - before, 3)

    async def test_program_that_is_not_there(self) -> None:
        supervisor = self.start(ChildSpec("a", ("/no/such/program",)))
        with self.assertRaises(ChildFailed):
            await supervisor.ready

    def test_no_orphan_outlives_a_killed_supervisor(self) -> None:
        with subprocess.Popen(
            [sys.executable, "-c", PARENT, CHILD], stdout=subprocess.PIPE, text=True
        ) as parent:
            assert parent.stdout is not None
            pids = [int(word) for word in parent.stdout.readline().split()]
            self.assertEqual([alive(pid) for pid in pids], [True, True])
            parent.kill()
            parent.wait()
        deadline = time.monotonic() + 5
        while any(map(alive, pids)) and time.monotonic() < deadline:
            time.sleep(0.02)
        self.assertEqual([alive(pid) for pid in pids], [False, False])

    def test_entry_runs_twistd_in_a_session_of_its_own(self) -> None:
        code = (
            "import os, sys; sys.argv = ['x', '--version']; before = os.getsid(0);"
            "from imagefarm.process.__main__ import main\n"
            "try: main()\n"
            "except SystemExit: pass\n"
            "print(os.getsid(0) == os.getpid() != before)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        self.assertIn("Twisted", done.stdout)
        self.assertTrue(done.stdout.endswith("True\n"))
