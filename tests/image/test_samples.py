"""The sample images: all there, of the kinds promised, and the page shows no other."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from PIL import Image
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.image import samples
from imagefarm.image.dialects import iiif
from imagefarm.image.query import parse_query


class Samples(SynchronousTestCase):
    def test_they_are_drawn(self) -> None:
        root = Path(self.mktemp())
        made = samples.draw(root)
        files = sorted(path for path in root.rglob("*") if path.is_file())
        self.assertEqual(sorted(made), files, "nothing unfinished is left behind")
        self.assertEqual(made[-1], root / "index.html")
        kinds = set()
        for path in made:
            if path.suffix in (".html", ".js"):
                continue
            with Image.open(path) as image:
                image.load()
                frames = getattr(image, "n_frames", 1)
                orientation = image.getexif().get(0x0112, 1)
                kinds.add((image.format, image.mode, frames > 1, orientation))
        for kind in [
            ("JPEG", "RGB", False, 1), ("JPEG", "RGB", False, 6), ("JPEG", "L", False, 1),
            ("JPEG", "CMYK", False, 1), ("PNG", "RGB", False, 1), ("PNG", "RGBA", False, 1),
            ("GIF", "P", False, 1), ("GIF", "P", True, 1), ("WEBP", "RGB", False, 1),
            ("WEBP", "RGBA", True, 1), ("AVIF", "RGB", False, 1),
        ]:  # fmt: skip
            self.assertIn(kind, kinds)
        with Image.open(root / "photos/landscape.jpg") as image:
            self.assertGreater(image.width * image.height, 5_900_000)
        default = root / "theme/micro/common/img/player/profile_thmb_default.gif"
        self.assertTrue(default.is_file())
        self.check_page(root, made[-1].read_text())

    def check_page(self, root: Path, page: str) -> None:
        """All that the page shows is there, but for the profile that stands for a missing one."""
        urls = re.findall(r'src="([^"]+)"', page)
        self.assertGreater(len(urls), 20)
        for url in urls:
            parts = urlsplit(url.replace("&amp;", "&"))
            path = parts.path
            if path == "/resize":
                parse_query(parts.query.encode())
                path = parse_qs(parts.query)["src"][0]
            elif path.startswith("/iiif/"):
                path = iiif.parse(path.removeprefix("/iiif/").encode()).src.decode()
            self.assertEqual((root / path[1:]).is_file(), "nobody" not in path, url)

    def test_the_same_every_time(self) -> None:
        for name, paint in samples.FILES:
            if not name.startswith(("thumbnail/", "photos/landscape")):
                self.assertEqual(paint(), paint(), name)

    def test_a_directory_that_cannot_be_written(self) -> None:
        root = Path(self.mktemp())
        root.write_bytes(b"a file in the way")
        self.assertRaises(OSError, samples.draw, root)
