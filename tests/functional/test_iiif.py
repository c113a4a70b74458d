"""The IIIF Image API 3.0 through master and resizer, with the public validator as judge."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from PIL import Image

from tests.support import farm, tools
from tests.support.stages import StagedCase

#: Seconds that the validator may take; it needs about five.
VALIDATOR_SECONDS = 120
IDENTIFIER = "67352ccc-d1b0-11e1-89ae-279075081939"


def validation_info() -> object:
    try:
        from iiif_validator.validator import ValidationInfo
    except ImportError:
        raise tools.missing("iiif-validator") from None
    return ValidationInfo()


def draw_squares(path: Path) -> None:
    """The validator's picture, 1000 x 1000: squares of 100 pixels in colours that it knows."""
    colours = vars(validation_info())["colorInfo"]
    image = Image.new("RGB", (1000, 1000))
    for x in range(10):
        for y in range(10):
            image.paste(colours[x][y], (x * 100, y * 100, x * 100 + 100, y * 100 + 100))
    image.save(path, "PNG")


class Validator(StagedCase):
    def run_level(self, level: int, tests: tuple[str, ...] = ()) -> str:
        prefix = farm.parts().prefix
        draw_squares(prefix.images / IDENTIFIER)
        script = Path(sys.executable).with_name("iiif-validate.py")
        named = [f"--test={test}" for test in tests]
        done = subprocess.run(
            [
                sys.executable, str(script), f"--server=127.0.0.1:{prefix.ports.http}",
                "--prefix=iiif", f"--identifier={IDENTIFIER}", "--version=3.0",
                f"--level={level}", "--verbose", *named,
            ],
            capture_output=True,
            text=True,
            timeout=VALIDATOR_SECONDS,
            check=False,
        )  # fmt: skip
        self.assertEqual(done.returncode, 0, done.stderr[-4000:])
        return done.stderr

    def test_level_2(self) -> None:
        self.assertIn(", 0 failures)", self.run_level(2))

    def test_beyond_level_2(self) -> None:
        """The optional parts that info.json promises; format_webp needs Python 2."""
        tests = (
            "format_gif", "linkheader_canonical", "linkheader_profile", "rot_mirror",
            "rot_mirror_180", "size_up",
        )  # fmt: skip
        self.assertIn(f"Done ({len(tests)} tests, 0 failures)", self.run_level(0, tests))
