"""Real processes that fill, purge and are killed, and what they leave behind."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys
import time

from imagefarm.cache.entry import Entry, decode
from imagefarm.cache.groups import Groups, source_group
from imagefarm.cache.store import digest_of

from .support import ZoneCase
from .test_processes import PRELUDE, ROOT

#: Seconds of murder, and between two.
LASTING, PAUSE = 3.0, 0.06
LIMIT = 60 * 4096
KEYS, SOURCES = 200, 10

#: A worker: its own rounds in real time; stores in two halves, reads, purges.
WORKER = """
from imagefarm.cache.settings import Pace
zone = Zone(ZoneSettings(
    name="one", path=sys.argv[1], keys=1000, levels=(1, 2), max_size=int(sys.argv[2]),
    manager=Pace(sleep=0.001),
))
clock = Clock()
zone.start(clock)
ready()
last = time.monotonic()
while True:
    now = time.monotonic()
    clock.advance(now - last)
    last = now
    number = random.randrange(int(sys.argv[3]))
    key, source = b"%d" % number, b"/%d" % (number % int(sys.argv[4]))
    action = random.random()
    if action < 0.5:
        made, data = entry(key), body(key, random.randrange(1, 300))
        made = type(made)(key, 200, (), made.stored, made.expires, len(data),
                          requested=made.stored, source=source)
        writer = zone.writer(made)
        if writer is not None:
            zone.write(writer, data[:100])
            zone.write(writer, data[100:])
            zone.commit(writer, made, digest_of(key))
            writer.close()
    elif action < 0.52:
        zone.purger.source(source, soft=number % 2 == 0)
    else:
        _, found = zone.find(key, Headers())
        if found is not None:
            data = os.pread(found.file.fd, found.entry.body_length, found.body_offset)
            assert data == body(key, len(data) // 32) and len(data) == found.entry.body_length
            found.file.close()
    assert zone.counters.corrupt == zone.counters.errors == 0, zone.counters
"""

#: A disk that takes no more than a few kilobytes.
FULL = """
import resource
from twisted.logger import LogLevel, globalLogPublisher
errors = []
globalLogPublisher.addObserver(
    lambda event: errors.append(event) if event["log_level"] is LogLevel.error else None
)
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, resource.RLIM_INFINITY))
clock = Clock()
zone.start(clock)
ready()
for number in range(50):
    key = b"%d" % number
    assert not zone.store(entry(key), digest_of(key), body(key, 100))
    assert zone.find(key, Headers())[1] is None
    clock.advance(1)
assert len(errors) == 1, errors
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
clock.advance(1)
assert zone.board.joined
assert zone.store(entry(b"k"), digest_of(b"k"), body(b"k", 100))
zone.find(b"k", Headers())[1].file.close()
zone.stop()
"""


class FaultTests(ZoneCase):
    def child(self, script: str, *args: object) -> subprocess.Popen[str]:
        child = subprocess.Popen(
            [sys.executable, "-c", PRELUDE + script, self.path, *map(str, args)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": ROOT},
        )  # fmt: skip
        for pipe in (child.stdout, child.stderr):
            assert pipe is not None
            self.addCleanup(pipe.close)
        self.addCleanup(child.wait)
        self.addCleanup(child.kill)
        assert child.stdout is not None
        self.assertEqual(child.stdout.readline(), "ready\n")
        return child

    def worker(self) -> subprocess.Popen[str]:
        return self.child(WORKER, LIMIT, KEYS, SOURCES)

    def test_killed_at_any_instant(self) -> None:
        self.zone.stop()
        chosen = random.Random(1)
        workers = [self.worker() for _ in range(3)]
        end, deaths = time.monotonic() + LASTING, len(workers)
        while time.monotonic() < end:
            time.sleep(PAUSE)
            place = chosen.randrange(len(workers))
            self.assertIsNone(workers[place].poll(), "died by itself")
            workers[place].kill()
            workers[place].wait()
            workers[place] = self.worker()
            deaths += 1
        for worker in workers:
            self.assertIsNone(worker.poll(), "died by itself")
            worker.kill()
            worker.wait()
        self.check_files()
        self.zone = self.make_zone(max_size=LIMIT)
        self.rounds(400, 0.0125)
        self.assertFalse([name for name in self.files() if name.startswith("tmp")])
        self.assertEqual(len(os.listdir(os.path.join(self.path, "members"))), 1)
        held = sum(self.on_disk(name) for name in self.files())
        self.assertLessEqual(held, LIMIT)
        # Who dies between telling and storing, or removing and telling, leaves a key without a
        # file: one for each death at most.
        self.assertTrue(0 <= self.zone.entries - len(self.files()) <= deaths)
        self.assertTrue(0 <= self.zone.size - held <= deaths * 4 * 4096)

    def on_disk(self, name: str) -> int:
        return -(-os.stat(os.path.join(self.path, name)).st_size // 4096) * 4096

    def check_files(self) -> None:
        """All are whole, hold the hash of their key, and stand in the list of their original."""
        groups = Groups(os.fsencode(self.path))
        found = [name for name in self.files() if not name.startswith(("tmp", "locks"))]
        self.assertTrue(found)
        for name in found:
            with open(os.path.join(self.path, name), "rb") as file:
                data = file.read()
            entry, offset = decode(data)
            body = data[offset:]
            self.assertEqual(len(body), entry.body_length)
            self.assertEqual(body, hashlib.sha256(entry.key).digest() * (len(body) // 32))
            digest = bytes.fromhex(os.path.basename(name))
            self.assertIn(digest, groups.members(source_group(entry.source)))

    def test_full_disk(self) -> None:
        self.zone.stop()
        child = self.child(FULL)
        _, errors = child.communicate(timeout=60)
        self.assertEqual((child.returncode, errors), (0, ""))
        self.assertEqual(len(self.files()), 1)

    def test_the_clock_jumps(self) -> None:
        for jump in (-86400.0, 86400.0, -3600.0):
            self.clock.rightNow += jump
            for number in range(5):
                key = b"%d" % number
                now = self.clock.seconds()
                self.assertTrue(self.store(key, now))
                self.clock.advance(1)
            self.rounds(3)
        self.assertEqual(self.zone.entries, 5)
        self.assertEqual(self.zone.counters.errors, 0)

    def store(self, key: bytes, now: float) -> bool:
        return self.zone.store(Entry(key, 200, (), now, now + 60), digest_of(key), b"x")
