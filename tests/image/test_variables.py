"""``$image_formats``."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from imagefarm.image.variables import image_formats
from tests.http.samples import request


class ImageFormats(SynchronousTestCase):
    def test_what_matters_of_accept(self) -> None:
        for headers, expected in [
            ([], b"plain"),
            ([(b"Accept", b"*/*")], b"plain"),
            ([(b"Accept", b"image/avif,image/webp,*/*;q=0.8")], b"avif+webp"),
            ([(b"Accept", b"text/html"), (b"accept", b"image/webp")], b"webp"),
            ([(b"Accept", b"image/avif; q=1, image/webp;q=0")], b"avif"),
        ]:
            with self.subTest(headers=headers):
                self.assertEqual(image_formats(request(fields=headers)), expected)
