from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from itertools import pairwise
from unittest import skipIf

from twisted.logger import LogLevel, capturedLogs

from imagefarm.cache.entry import Entry
from imagefarm.cache.members import RING, Board, Note
from imagefarm.cache.settings import Pace
from imagefarm.cache.store import Writer, digest_of
from imagefarm.cache.upkeep import MANAGER_ROUND, STEPS
from imagefarm.cache.zone import TOUCH_INTERVALS, Zone
from imagefarm.http.headers import Headers

from .support import Upstream, ZoneCase, image, read, request

PACE = Pace(files=64)


class ZoneTests(ZoneCase):
    def put(
        self,
        key: bytes,
        body: bytes = b"x",
        zone: Zone | None = None,
        *,
        stored: bool | None = True,
    ) -> str:
        """Store ``body`` under ``key``; the path of the file. Fails if that is not ``stored``.

        None: it may be stored or not.
        """
        zone = zone or self.zone
        entry = Entry(key, 200, (), self.clock.seconds(), self.clock.seconds() + 60)
        done = zone.store(entry, digest_of(key), body)
        self.assertIn(done, (stored,) if stored is not None else (True, False))
        return os.fsdecode(zone.directory.file(digest_of(key)))

    def get(self, key: bytes, zone: Zone | None = None) -> bytes | None:
        _, found = (zone or self.zone).find(key, Headers())
        if found is None:
            return None
        with open(found.file.fd, "rb") as file:
            file.seek(found.body_offset)
            return file.read()

    def keys(self) -> list[bytes]:
        names = [b"%d" % number for number in range(200)]
        return [key for key in names if self.zone.directory.used_at(digest_of(key))]


class SharingTests(ZoneTests):
    def test_another_process_s_fill_is_a_hit(self) -> None:
        other = self.make_zone()
        self.assertEqual((self.zone.manager, other.manager), (True, False))
        self.put(b"k", b"theirs", other)
        self.assertEqual(self.get(b"k"), b"theirs")
        self.rounds(2, MANAGER_ROUND)
        for zone in (self.zone, other):
            self.assertEqual((zone.entries, zone.size), (1, 4096))

    def test_another_process_s_removal_is_a_miss(self) -> None:
        other = self.make_zone()
        self.put(b"k")
        self.assertEqual(self.get(b"k", other), b"x")
        self.assertTrue(other.remove(digest_of(b"k")))
        self.assertIsNone(self.get(b"k"))
        self.rounds(2, MANAGER_ROUND)
        self.assertEqual((self.zone.entries, self.zone.size), (0, 0))

    def test_the_manager_meets_what_others_stored(self) -> None:
        other = self.make_zone()
        for number in range(5):
            self.put(b"%d" % number, b"x", other)
        self.assertEqual((self.zone.entries, other.size), (0, 5 * 4096))
        self.rounds(2, MANAGER_ROUND)
        self.assertEqual((self.zone.entries, self.zone.size), (5, 5 * 4096))

    def test_the_manager_finds_out_when_it_was_not_told_all(self) -> None:
        other = self.make_zone()
        self.rounds(2)
        for number in range(RING + 1):
            other.board.tell(Note(digest_of(b"no%d" % number), 4096, 0.0))
        with open(os.path.join(self.path, "0" * 32), "wb") as file:
            file.write(bytes(5000))
        levels = os.path.join(self.path, "f", "ff")
        os.makedirs(levels)
        os.rename(os.path.join(self.path, "0" * 32), os.path.join(levels, "0" * 29 + "fff"))
        self.rounds(4, MANAGER_ROUND)
        self.assertEqual((self.zone.entries, self.zone.size, other.size), (1, 8192, 8192))

    def test_a_new_manager_when_the_old_one_goes(self) -> None:
        other = self.make_zone()
        self.put(b"k")
        self.zone.stop()
        self.rounds(3)
        self.assertEqual((self.zone.manager, other.manager, other.entries), (False, True, 1))

    def test_wrong_key_in_the_file(self) -> None:
        path = self.put(b"other", b"not yours")
        target = os.fsdecode(self.zone.directory.file(digest_of(b"k")))
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.rename(path, target)
        self.assertIsNone(self.get(b"k"))
        self.put(b"k", b"mine")
        self.assertEqual(self.get(b"k"), b"mine")

    def test_corrupt_is_a_miss_and_removed(self) -> None:
        path = self.put(b"k")
        os.truncate(path, os.stat(path).st_size - 1)
        with capturedLogs() as logs:
            self.assertIsNone(self.get(b"k"))
        self.assertFalse(os.path.exists(path))
        self.assertEqual(self.zone.counters.corrupt, 1)
        self.assertEqual([log["path"] for log in logs if "path" in log], [path])

    def test_a_named_pipe_is_waited_for_by_nobody(self) -> None:
        path = self.put(b"k")
        os.unlink(path)
        os.mkfifo(path)
        with capturedLogs():
            self.assertIsNone(self.get(b"k"))
        self.assertFalse(os.path.exists(path))


class LimitTests(ZoneTests):
    def test_how_often_a_use_is_marked(self) -> None:
        least, most = TOUCH_INTERVALS
        for inactive, expected in ((1.0, least), (400.0, 20.0), (600.0, most), (1e6, most)):
            for limit in ({"max_size": 1 << 20}, {"min_free": 1}):
                zone = self.make_zone(inactive=inactive, **limit)
                self.assertEqual(zone.touch_interval, expected)
        for inactive, expected in ((1.0, least), (400.0, 20.0), (2000.0, 100.0), (1e6, 300.0)):
            self.assertEqual(self.make_zone(inactive=inactive).touch_interval, expected)
        path = self.put(b"k")
        marked = os.stat(path).st_mtime
        self.clock.advance(self.zone.touch_interval - 1)
        self.get(b"k")
        self.assertEqual(os.stat(path).st_mtime, marked)
        self.clock.advance(2)
        self.get(b"k")
        self.assertEqual(os.stat(path).st_mtime, self.clock.seconds())

    def test_max_size_evicts_the_least_recently_used(self) -> None:
        self.zone.stop()
        self.zone = self.make_zone(max_size=10 * 4096)
        for number in range(15):
            self.clock.advance(self.zone.touch_interval + 1)
            self.put(b"%d" % number)
            self.get(b"0")
        kept = {b"0", *(b"%d" % number for number in range(6, 15))}
        self.assertEqual(set(self.keys()), kept)
        self.assertEqual((self.zone.size, self.zone.counters.evicted), (10 * 4096, 5))

    def test_max_size_counts_what_others_store(self) -> None:
        self.zone.stop()
        self.zone = self.make_zone(max_size=10 * 4096)
        other = self.make_zone(max_size=10 * 4096)
        for number in range(100):
            self.put(b"%d" % number, b"x", other, stored=number < 11)
        self.assertEqual((len(self.keys()), other.counters.full), (11, 89))
        self.rounds(2, MANAGER_ROUND)
        self.put(b"100")
        self.assertEqual(len(self.keys()), 10)
        self.assertIsNotNone(self.get(b"100"))

    def test_members_make_use_of_the_slack(self) -> None:
        self.zone.stop()
        self.zone = self.make_zone(max_size=100 * 4096)
        other = self.make_zone(max_size=100 * 4096)
        for number in range(200):
            self.put(b"%d" % number, b"x", other, stored=number < 104)
        self.rounds(10, MANAGER_ROUND)
        self.assertEqual((self.zone.size, other.size), (100 * 4096, 100 * 4096))

    def test_nothing_is_missing_while_the_manager_reads_notes(self) -> None:
        other, board = self.make_zone(), self.zone.board
        self.rounds(2)
        for number in range(20):
            self.put(b"%d" % number, b"x", other)
        seen: list[int] = []

        def notes() -> Iterator[Note | None]:
            for note in Board.notes(board):
                seen.append(other.size)
                yield note
            seen.append(other.size)

        self.patch(board, "notes", notes)
        self.rounds(1, MANAGER_ROUND)
        self.assertEqual((len(seen), min(seen), other.size), (21, 20 * 4096, 20 * 4096))

    def test_a_new_manager_knows_no_less_while_it_loads(self) -> None:
        """What it remembers may have been evicted by the manager before it."""
        self.zone.stop()
        changes = {"max_size": 20 * 4096, "loader": Pace(files=1, sleep=0.2)}
        first, second = self.make_zone(**changes), self.make_zone(**changes)
        for number in range(20):
            self.clock.advance(1)
            self.put(b"%d" % number, b"x", second)
        self.rounds(2)
        for number in range(20, 30):
            self.clock.advance(1)
            self.put(b"%d" % number, b"x", first)
        self.assertEqual(len(self.keys()), 20)
        first.stop()
        self.rounds(4, MANAGER_ROUND)
        self.assertTrue(second.manager)
        third = self.make_zone(**changes)
        for number in range(30, 40):
            self.put(b"%d" % number, b"x", third, stored=None)
            self.rounds(2, MANAGER_ROUND)
            self.assertGreaterEqual(third.size, len(self.keys()) * 4096)

    def test_min_free(self) -> None:
        self.zone.stop()
        self.zone = self.make_zone()
        for number in range(5):
            self.put(b"%d" % number)
        self.zone.stop()
        self.zone = self.make_zone(min_free=1 << 60)
        self.rounds(3)
        self.assertEqual((self.keys(), self.zone.size), ([], 0))

    def test_inactive(self) -> None:
        self.zone.stop()
        self.zone = self.make_zone(inactive=100.0)
        self.put(b"1")
        self.put(b"2")
        self.rounds(8, 12.0)
        self.assertEqual(self.get(b"1"), b"x")
        self.rounds(2, 12.0)
        self.assertEqual(self.keys(), [b"1"])
        self.rounds(10, 12.0)
        self.assertEqual((self.keys(), self.zone.entries), ([], 0))

    def test_what_another_process_uses_is_not_inactive(self) -> None:
        self.zone.stop()
        self.zone = self.make_zone(inactive=100.0)
        other = self.make_zone(inactive=100.0)
        self.put(b"1")
        for _ in range(15):
            self.rounds(1, self.zone.touch_interval + 2)
            self.assertEqual(self.get(b"1", other), b"x")
        self.assertEqual(self.keys(), [b"1"])

    def test_keys_zone_bounds_the_memory(self) -> None:
        self.zone.stop()
        self.zone = self.make_zone(keys=10)
        for number in range(20):
            self.clock.advance(1)
            self.put(b"%d" % number)
        self.assertEqual(len(self.zone.index), 10)
        self.assertEqual(set(self.keys()), {b"%d" % number for number in range(10, 20)})

    def test_keys_zone_bounds_the_memory_of_members(self) -> None:
        other = self.make_zone(keys=10)
        for number in range(20):
            self.clock.advance(1)
            self.put(b"%d" % number, b"x", other)
        self.assertEqual((len(other.index), len(self.keys())), (10, 20))


class LoaderTests(ZoneTests):
    def test_loads_in_slices(self) -> None:
        for number in range(200):
            self.put(b"%d" % number)
        self.zone.stop()
        fresh = self.make_zone(loader=PACE)
        loaded = [fresh.entries]
        for _ in range(100 * STEPS):
            self.clock.advance(PACE.sleep / STEPS)
            loaded.append(fresh.entries)
        self.assertEqual((fresh.entries, fresh.size), (200, 200 * 4096))
        steps = [after - before for before, after in pairwise(loaded)]
        self.assertLessEqual(max(steps), PACE.files)
        self.assertEqual(self.get(b"7", fresh), b"x")

    def test_removes_what_a_crash_left(self) -> None:
        whole, cut = self.put(b"1"), self.put(b"2")
        os.truncate(cut, 20)
        stray = os.path.join(self.path, "tmp", "dead.1.1")
        with open(stray, "w") as file:
            file.write("half")
        self.zone.stop()
        fresh = self.make_zone()
        self.rounds(3)
        self.assertEqual([os.path.exists(p) for p in (whole, cut, stray)], [True, False, False])
        self.assertEqual((fresh.entries, fresh.counters.corrupt), (1, 1))

    def test_least_recently_used_survives_a_restart(self) -> None:
        for number in range(10):
            self.clock.advance(20)
            self.put(b"%d" % number)
        self.get(b"0")
        self.zone.stop()
        self.make_zone(max_size=3 * 4096)
        self.rounds(3)
        self.assertEqual(set(self.keys()), {b"0", b"8", b"9"})

    def test_an_old_file_is_inactive_at_once(self) -> None:
        self.put(b"1")
        self.zone.stop()
        self.clock.advance(700)
        self.make_zone()
        self.rounds(2)
        self.assertEqual(self.keys(), [])


class TroubleTests(ZoneTests):
    def errors(self, logs: object) -> int:
        assert isinstance(logs, list)
        return sum(log["log_level"] is LogLevel.error for log in logs)

    def test_directory_removed(self) -> None:
        handler = self.make_handler(Upstream(image(b"1"), image(b"2")))
        self.now(handler(request()))
        shutil.rmtree(self.path)
        with capturedLogs() as logs:
            self.assertEqual(self.now(handler(request())).body, b"2")
            self.assertEqual(read(handler(request())), b"2")
        self.assertEqual(self.errors(logs), 0)
        self.rounds(2)
        self.assertTrue(self.zone.manager)
        self.assertEqual((self.zone.entries, len(self.files())), (1, 1))

    @skipIf(os.getuid() == 0, "root may write anywhere")
    def test_unwritable_as_a_user(self) -> None:
        self.unwritable(lambda: os.chmod(self.path, 0o500), lambda: os.chmod(self.path, 0o700))

    def test_a_file_where_the_directory_should_be(self) -> None:
        def spoil() -> None:
            shutil.rmtree(self.path)
            with open(self.path, "w"):
                pass

        self.unwritable(spoil, lambda: os.unlink(self.path))

    def unwritable(self, spoil: object, mend: object) -> None:
        assert callable(spoil)
        assert callable(mend)
        handler = self.make_handler(Upstream(*[image(b"%d" % n) for n in range(6)]))
        spoil()
        with capturedLogs() as logs:
            for number in range(4):
                response = self.now(handler(request()))
                self.assertEqual(response.body, b"%d" % number)
                self.assertEqual(response.headers.get(b"cache-status"), b"imagefarm; fwd=miss")
                self.rounds(1)
        self.assertEqual(self.errors(logs), 1)
        mend()
        self.assertEqual(self.now(handler(request())).body, b"4")
        self.assertEqual(read(handler(request())), b"4")

    def test_a_disk_that_is_nearly_full(self) -> None:
        """It refuses large answers and takes small ones in between."""
        full = OSError(errno.ENOSPC, "full")

        def refused(*args: object) -> None:
            raise full

        with capturedLogs() as logs:
            for _ in range(5):
                with_room = self.patch(Writer, "write", refused)
                self.put(b"large", stored=False)
                with_room.restore()
                self.put(b"small")
                self.clock.advance(10)
            self.assertEqual(self.errors(logs), 1)
            self.assertEqual(len(logs), 2)
            self.clock.advance(10)
            self.patch(Writer, "write", refused)
            self.put(b"large", stored=False)
            self.assertEqual(self.errors(logs), 2)
        self.assertEqual(self.zone.counters.errors, 6)

    def test_a_directory_that_cannot_be_made(self) -> None:
        with open(os.path.join(os.path.dirname(self.path), "file"), "w"):
            pass
        with capturedLogs() as logs:
            zone = self.make_zone(path=os.path.join(os.path.dirname(self.path), "file", "zone"))
            self.rounds(5)
        self.assertEqual(self.errors(logs), 1)
        self.assertFalse(zone.manager)

    def test_clock_set_back(self) -> None:
        handler = self.make_handler(Upstream(image(b"1"), image(b"2")))
        self.clock.advance(7200)
        self.now(handler(request()))
        self.clock.rightNow -= 7200
        self.assertEqual(self.now(handler(request())).body, b"2")
        self.assertEqual(read(handler(request())), b"2")
