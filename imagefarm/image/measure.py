"""Measuring a source: its size, as it lies before the viewer, from its header alone."""

from __future__ import annotations

import os
from typing import BinaryIO

from .formats import Offer, Wanted, choose
from .geometry import swaps_axes
from .job import Rendered
from .limits import Limits
from .pipeline import only_image_errors
from .probe import probe
from .source import identify


def measure(file: BinaryIO, limits: Limits) -> Rendered:
    """The size of a source, without a picture. Every failure is an `ImageError`."""
    source = identify(os.fstat(file.fileno()))
    with only_image_errors(limits):
        image, header = probe(file, limits)
        image.close()
    width, height = header.width, header.height
    if swaps_axes(header.orientation):
        width, height = height, width
    shown = choose(
        Wanted.SAME, Offer(), header.format, alpha=header.alpha, animated=header.animated
    )
    return Rendered(b"", shown, width, height, header.frames, source)
