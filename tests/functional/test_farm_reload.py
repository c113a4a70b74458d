"""Every part of a farm is reloaded under load, the resizer too, and nobody notices."""

from __future__ import annotations

import signal
from collections import Counter

from PIL import Image

from tests.support import farm
from tests.support.load import Load, make_body
from tests.support.processes import descendants, running, wait_until
from tests.support.stages import StagedCase

ROUNDS = 3
IMAGES = [f"/load/{number}.jpg" for number in range(10)]
#: More than are asked for: what the master has cached says nothing about the resizer.
THUMBNAILS = [f"/resize?src=/photo.jpg&w={width}" for width in range(20, 1000)]


class FarmReload(StagedCase):
    def setUp(self) -> None:
        self.prefix = farm.temporary_prefix(self.addCleanup)
        (self.prefix.images / "load").mkdir(parents=True)
        for number, target in enumerate(IMAGES):
            (self.prefix.images / target[1:]).write_bytes(make_body(target, 4000 * number))
        Image.new("RGB", (1200, 800), (200, 0, 0)).save(self.prefix.images / "photo.jpg")
        self.parts = farm.Parts(self.prefix)
        self.addCleanup(self.parts.stop)
        self.parts.start()

    def reload(self, name: str) -> None:
        """Until the old workers have gone."""
        daemon = self.parts.running[name]
        old = descendants(daemon.pid)
        daemon.signal(signal.SIGHUP)
        wait_until(lambda: set(descendants(daemon.pid)) - set(old), 60, "new workers")
        wait_until(lambda: not any(map(running, old)), 60, "end of the old workers")

    def test_one_after_another(self) -> None:
        port = self.prefix.ports.http
        images = Load(port, 40, IMAGES)
        once = Load(port, 10, IMAGES, kept=1)
        thumbnails = Load(port, 6, THUMBNAILS)
        with images, once, thumbnails:
            wait_until(lambda: thumbnails.count() > 5, 30, "thumbnails")
            for _ in range(ROUNDS):
                for name in self.parts.running:
                    self.reload(name)
            seen = thumbnails.count()
            wait_until(lambda: thumbnails.count() > seen + 5, 30, "thumbnails")
        for load in (images, once, thumbnails):
            outcomes = Counter(answer.outcome for answer in load.answers)
            self.assertEqual({word.split()[0] for word in outcomes}, {"good"}, outcomes)
