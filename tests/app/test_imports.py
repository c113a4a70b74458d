"""What a process of the daemon takes into memory before it has anything to do."""

from __future__ import annotations

import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase


class ImportsTests(SynchronousTestCase):
    def test_only_image_workers_have_pillow(self) -> None:
        """It is 8 MB in each process, and a tenth of the time that starting takes."""
        script = "import imagefarm.tap, sys; print('PIL.Image' in sys.modules)"
        told = subprocess.run(
            [sys.executable, "-c", script], check=True, capture_output=True, timeout=60
        )
        self.assertEqual(told.stdout, b"False\n")
