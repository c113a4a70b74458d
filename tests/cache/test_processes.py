"""The directory shared by real processes, some of which are killed."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys

import imagefarm
from imagefarm.cache.entry import Entry
from imagefarm.cache.store import digest_of
from imagefarm.http.headers import Headers

from .support import ZoneCase

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(imagefarm.__file__)))

PRELUDE = """
import hashlib, os, random, sys, time
from twisted.internet.task import Clock
from imagefarm.cache.entry import Entry
from imagefarm.cache.settings import ZoneSettings
from imagefarm.cache.store import digest_of
from imagefarm.cache.zone import Zone
from imagefarm.http.headers import Headers

zone = Zone(ZoneSettings(name="one", path=sys.argv[1], keys=1000, levels=(1, 2)))

def entry(key):
    return Entry(key, 200, (), time.time(), time.time() + 60)

def body(key, size):
    return hashlib.sha256(key).digest() * size

def ready():
    print("ready", flush=True)
"""

HALF = """
writer = zone.writer(entry(b"k"))
zone.write(writer, b"half of the body")
ready()
time.sleep(60)
"""

MANAGER = """
clock = Clock()
zone.start(clock)
clock.advance(0)
assert zone.manager
ready()
time.sleep(60)
"""

CHURN = """
ready()
random.seed(sys.argv[2])
for _ in range(400):
    key = b"%d" % random.randrange(8)
    action = random.random()
    if action < 0.3:
        zone.store(entry(key), digest_of(key), body(key, random.randrange(1, 300)))
    elif action < 0.35:
        zone.directory.remove(digest_of(key))
    else:
        _, found = zone.find(key, Headers())
        if found is not None:
            data = os.pread(found.file.fd, found.entry.body_length, found.body_offset)
            assert len(data) == found.entry.body_length
            assert data == body(key, len(data) // 32)
            found.file.close()
assert zone.counters.corrupt == zone.counters.errors == 0, zone.counters
"""


class ProcessTests(ZoneCase):
    def child(self, script: str, *args: str) -> subprocess.Popen[str]:
        """Another process with a zone in the same directory; returns when it is ready."""
        child = subprocess.Popen(
            [sys.executable, "-c", PRELUDE + script, self.path, *args],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": ROOT},
        )
        self.addCleanup(child.wait)
        self.addCleanup(child.kill)
        assert child.stdout is not None
        self.addCleanup(child.stdout.close)
        self.assertEqual(child.stdout.readline(), "ready\n")
        return child

    def test_killed_while_writing(self) -> None:
        child = self.child(HALF)
        self.assertEqual(self.zone.directory.remove_strays(), 0)
        self.assertEqual(len(self.files()), 1)
        child.kill()
        child.wait()
        self.assertIsNone(self.zone.find(b"k", Headers())[1])
        self.assertEqual([name.split("/")[0] for name in self.files()], ["tmp"])
        self.zone.stop()
        self.make_zone()
        self.assertEqual(self.files(), [])

    def test_killed_manager_is_succeeded(self) -> None:
        self.zone.stop()
        child = self.child(MANAGER)
        self.zone = self.make_zone()
        self.rounds(3)
        self.assertFalse(self.zone.manager)
        child.kill()
        child.wait()
        self.rounds(2)
        self.assertTrue(self.zone.manager)

    def test_no_reader_ever_sees_a_wrong_or_partial_body(self) -> None:
        children = [self.child(CHURN, str(number)) for number in range(3)]
        while any(child.poll() is None for child in children):
            self.rounds(1)
            for key in (b"1", b"2"):
                now = self.clock.seconds()
                body = hashlib.sha256(key).digest() * 5
                self.zone.store(Entry(key, 200, (), now, now + 60), digest_of(key), body)
        self.assertEqual([child.returncode for child in children], [0, 0, 0])
        self.assertEqual(self.zone.counters.corrupt, 0)
        self.assertFalse([name for name in self.files() if name.startswith("tmp")])
