"""How coarsely a JPEG keeps each frequency: by tables that keep photographs better than the usual.

Each value of the one for brightness is the finer of two: that of ITU-T T.81, table K.1, which
everybody has, but 12 at the finest, and 0.69 of what N. Robidoux has proposed, which mozjpeg has
by default and which keeps low and middle frequencies better. Alone it would coarsen the highest
ones, which drawings and letters are made of. Colours have table K.2.
"""

from __future__ import annotations

import functools
from typing import Final

#: For quality 50, row by row.
LUMA: Final = (
    12, 12, 12, 13, 18, 26, 39, 59,
    12, 12, 14, 19, 24, 28, 37, 52,
    12, 13, 16, 22, 30, 43, 63, 56,
    13, 17, 22, 28, 37, 52, 74, 62,
    18, 22, 30, 37, 48, 65, 91, 77,
    24, 28, 43, 52, 65, 86, 113, 92,
    39, 37, 63, 74, 91, 117, 120, 101,
    59, 52, 94, 98, 112, 100, 103, 99,
)  # fmt: skip
CHROMA: Final = (
    17, 18, 24, 47, 99, 99, 99, 99,
    18, 21, 26, 66, 99, 99, 99, 99,
    24, 26, 56, 99, 99, 99, 99, 99,
    47, 66, 99, 99, 99, 99, 99, 99,
    *(99,) * 32,
)  # fmt: skip


@functools.cache
def tables(quality: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The tables for brightness and for colours in a quality from 1 to 100.

    It means what it means to libjpeg (jpeg_quality_scaling): 50 is the tables as they are.
    """
    percent = 5000 // quality if quality < 50 else 200 - 2 * quality
    luma, chroma = (
        tuple(max(1, min((value * percent + 50) // 100, 255)) for value in table)
        for table in (LUMA, CHROMA)
    )
    return luma, chroma
