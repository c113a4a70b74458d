from __future__ import annotations

import hashlib
import os
import shutil
import tempfile

import attrs
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.cache.entry import CorruptEntry, Entry, encode
from imagefarm.cache.store import Directory, digest_of

ENTRY = Entry(b"http/a.jpg", 200, ((b"Content-Type", b"image/jpeg"),), 1000.0, 1060.0)


class StoreCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.base = tempfile.mkdtemp(prefix="imagefarm-store-")
        self.addCleanup(shutil.rmtree, self.base, True)
        self.path = os.path.join(self.base, "deep", "zone")
        self.directory = Directory(self.path, (1, 2))
        self.directory.create()

    def put(self, body: bytes, entry: Entry = ENTRY) -> bytes:
        """Store ``body``; the path of its file."""
        writer = self.directory.writer(entry)
        for place in range(0, len(body), 3):
            writer.write(body[place : place + 3])
        digest = digest_of(entry.key)
        entry = attrs.evolve(entry, body_length=len(body))
        writer.commit(encode(entry), digest, 2000.0)
        writer.close()
        return self.directory.file(digest)

    def get(self, key: bytes = ENTRY.key) -> tuple[Entry, bytes] | None:
        found = self.directory.open(digest_of(key))
        if found is None:
            return None
        body = os.pread(found.file.fd, found.entry.body_length, found.body_offset)
        found.file.close()
        return found.entry, body


class DirectoryTests(StoreCase):
    def test_names_are_nginx_s(self) -> None:
        name = hashlib.md5(ENTRY.key).hexdigest()
        expected = os.path.join(self.path, name[-1], name[-3:-1], name)
        self.assertEqual(self.put(b"x"), expected.encode())
        self.assertTrue(os.path.exists(expected))
        self.assertEqual(
            Directory("/c").file(digest_of(b"k")), b"/c/" + digest_of(b"k").hex().encode()
        )

    def test_nobody_else_may_look(self) -> None:
        path = self.put(b"x")
        for place in (os.path.dirname(self.path), self.path, os.path.dirname(path)):
            self.assertEqual(os.stat(place).st_mode & 0o777, 0o700)
        self.assertEqual(os.stat(path).st_mode & 0o777, 0o600)

    @given(st.binary(max_size=200))
    def test_round_trip(self, body: bytes) -> None:
        self.put(body)
        self.assertEqual(self.get(), (attrs.evolve(ENTRY, body_length=len(body)), body))
        self.assertEqual(os.listdir(os.path.join(self.path, "tmp")), [])

    def test_a_header_longer_than_the_first_read(self) -> None:
        entry = attrs.evolve(ENTRY, headers=((b"X", b"v" * 9000),), body_length=4)
        self.put(b"body", entry)
        self.assertEqual(self.get(), (entry, b"body"))

    def test_nothing_there(self) -> None:
        self.assertIsNone(self.get())
        self.assertFalse(self.directory.remove(digest_of(b"k")))
        self.assertIsNone(self.directory.used_at(digest_of(b"k")))

    def test_time_of_use(self) -> None:
        path = self.put(b"x")
        size = os.stat(path).st_size
        self.assertEqual(self.directory.used_at(digest_of(ENTRY.key)), (size, 2000.0))

    def test_a_reader_keeps_what_is_removed_or_replaced(self) -> None:
        self.put(b"old")
        found = self.directory.open(digest_of(ENTRY.key))
        assert found is not None
        self.put(b"newer")
        self.directory.remove(digest_of(ENTRY.key))
        self.assertEqual(os.pread(found.file.fd, 9, found.body_offset), b"old")
        found.file.close()

    def test_unfinished_is_nowhere_to_be_seen(self) -> None:
        writer = self.directory.writer(ENTRY)
        writer.write(b"half")
        self.assertIsNone(self.get())
        self.assertEqual(list(filter(None, self.directory.walk({}))), [])
        self.assertEqual(writer.read(1, 2), b"al")
        writer.abort()
        writer.abort()
        self.assertEqual(os.listdir(os.path.join(self.path, "tmp")), [])
        writer.close()
        writer.close()

    def test_directory_removed_underneath(self) -> None:
        shutil.rmtree(self.base)
        self.put(b"again")
        shutil.rmtree(self.path)
        found = self.get()
        self.assertIsNone(found)

    def test_removed_while_writing(self) -> None:
        writer = self.directory.writer(ENTRY)
        shutil.rmtree(self.path)
        block = encode(ENTRY)
        self.assertRaises(OSError, writer.commit, block, digest_of(ENTRY.key), 1.0)
        writer.close()
        self.assertIsNone(self.get())


class DamageTests(StoreCase):
    def test_every_truncation_is_noticed(self) -> None:
        path = self.put(b"body")
        for size in reversed(range(os.stat(path).st_size)):
            os.truncate(path, size)
            self.assertRaises(CorruptEntry, self.directory.open, digest_of(ENTRY.key))

    def test_longer_than_promised(self) -> None:
        path = self.put(b"body")
        with open(path, "ab") as file:
            file.write(b"!")
        self.assertRaises(CorruptEntry, self.directory.open, digest_of(ENTRY.key))

    @given(st.data())
    def test_flipped_header_bytes(self, data: st.DataObject) -> None:
        path = self.put(b"body")
        place = data.draw(st.integers(0, len(encode(ENTRY)) - 1))
        flip = data.draw(st.integers(1, 255))
        with open(path, "r+b") as file:
            file.seek(place)
            old = file.read(1)[0]
            file.seek(place)
            file.write(bytes([old ^ flip]))
        self.assertRaises(CorruptEntry, self.directory.open, digest_of(ENTRY.key))

    def test_a_symbolic_link_is_not_followed(self) -> None:
        path = self.put(b"body")
        os.rename(path, path + b".real")
        os.symlink(path + b".real", path)
        self.assertRaises(OSError, self.directory.open, digest_of(ENTRY.key))


class WalkTests(StoreCase):
    def digests(self, seen: dict[bytes, int]) -> set[bytes]:
        return {item[0] for item in self.directory.walk(seen) if item is not None}

    def test_finds_all_and_only_cache_files(self) -> None:
        keys = [b"%d" % number for number in range(30)]
        for key in keys:
            self.put(b"x", attrs.evolve(ENTRY, key=key))
        for name in ("README", "a/bc/short", "a/UPPER", "f" * 32, "tmp/0"):
            os.makedirs(os.path.join(self.path, os.path.dirname(name)), exist_ok=True)
            with open(os.path.join(self.path, name), "w"):
                pass
        self.assertEqual(self.digests({}), {digest_of(key) for key in keys})

    def test_unchanged_directories_are_not_read_again(self) -> None:
        seen: dict[bytes, int] = {}
        paths = [self.put(b"x", attrs.evolve(ENTRY, key=b"%d" % n)) for n in range(9)]
        self.assertEqual(len(self.digests(seen)), 9)
        self.assertEqual(len(self.digests(seen)), 9)  # changed just now: not to be trusted yet
        for path in paths:
            os.utime(os.path.dirname(path), (1000, 1000))
        self.assertEqual(len(self.digests(seen)), 9)
        self.assertEqual(self.digests(seen), set())
        self.put(b"x", attrs.evolve(ENTRY, key=b"5"))
        self.assertIn(digest_of(b"5"), self.digests(seen))

    def test_a_directory_that_vanishes(self) -> None:
        for number in range(9):
            self.put(b"x", attrs.evolve(ENTRY, key=b"%d" % number))
        walk = self.directory.walk({})
        next(item for item in walk if item is not None)
        shutil.rmtree(self.path)
        self.assertLess(len(list(walk)), 9)


class LockTests(StoreCase):
    def test_only_strays_are_removed(self) -> None:
        writer = self.directory.writer(ENTRY)
        stray = os.path.join(self.path, "tmp", "dead.1.1")
        with open(stray, "w"):
            pass
        self.assertEqual(self.directory.remove_strays(), 1)
        self.assertFalse(os.path.exists(stray))
        writer.write(b"lives")
        writer.commit(encode(attrs.evolve(ENTRY, body_length=5)), digest_of(ENTRY.key), 1.0)
        writer.close()
        self.assertIsNotNone(self.get())
        self.assertEqual(self.directory.remove_strays(), 0)

    def test_one_manager(self) -> None:
        fd = self.directory.lock()
        other = Directory(self.path, (1, 2))
        self.assertRaises(BlockingIOError, other.lock)
        self.assertTrue(self.directory.holds(fd))
        shutil.rmtree(self.path)
        self.assertFalse(self.directory.holds(fd))
        second = other.lock()
        self.assertTrue(other.holds(second))
        os.close(fd)
        os.close(second)
