"""PNG's pixels by ISA-L: a decoder for Pillow that takes the place of its own, ``zip``.

Pillow has the system's zlib, which takes three times as long to inflate. What is inflated becomes
pixels by Pillow's decoders: by ``raw`` as long as rows are not filtered, as those of drawings
often are not, and from then on by ``zip``, as a stream that is not compressed.

Everything else is Pillow's: reading the chunks, their order, and the last word on a stream that
is not perfect. This decoder gives up on those, and Pillow decodes the picture alone.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from typing import Any, Final

from PIL import Image, ImageFile
from PIL.PngImagePlugin import PngImageFile

from .deflate import Decompressor, InflateError, decompressor

#: Bits of a pixel by the form of a PNG's samples, as Pillow names it.
_BITS: Final[Mapping[object, int]] = {
    "1": 1, "L;2": 2, "L;4": 4, "L": 8, "I;16B": 16, "LA": 16, "LA;16B": 32,
    "P;1": 1, "P;2": 2, "P;4": 4, "P": 8,
    "RGB": 24, "RGB;16B": 48, "RGBA": 32, "RGBA;16B": 64,
}  # fmt: skip
_NAME = "imagefarm_png"
#: Bytes that are inflated at a time: they stay in the processor's cache until they are pixels.
_STRIP = 1 << 18
#: What a zlib stream begins with (RFC 1950), and a block in it that is not compressed (RFC 1951,
#: 3.2.4): the longest one, and its length and that length's complement.
_ZLIB, _STORED, _BLOCK = b"\x78\x01", 0xFFFF, struct.Struct("<xHH")
#: What a decoder returns: this many bytes were used and more are needed; the picture is complete;
#: the data is broken (`PIL.ImageFile.ERRORS`).
_Verdict = tuple[int, int]
_DONE: Final[_Verdict] = (-1, 0)
_BROKEN: Final[_Verdict] = (-1, -3)


def load(image: Image.Image) -> Image.Image:
    """``image`` with its pixels decoded, whatever its format. Raises as Pillow does."""
    if not isinstance(image, PngImageFile) or not _prepare(image):
        image.load()
        return image
    file = image.fp
    assert file is not None
    try:
        image.load()
    except MemoryError:
        raise
    except Exception:
        Image.Image.close(image)  # gives back the memory of its pixels, and leaves the file open
        file.seek(0)
        image = PngImageFile(file)
        image.load()
    return image


def _prepare(image: PngImageFile) -> bool:
    """Have ``image`` decoded by `PngDecoder`, if it can do that."""
    if decompressor is None or len(image.tile) != 1:
        return False
    (tile,) = image.tile
    if tile.codec_name != "zip" or tile.args not in _BITS or "interlace" in image.info:
        return False
    image.tile = [tile._replace(codec_name=_NAME)]
    return True


class PngDecoder(ImageFile.PyDecoder):
    """The decoder of one picture, whose argument is the form of its samples."""

    def init(self, args: tuple[Any, ...]) -> None:
        """Begin."""
        assert decompressor is not None
        self._form: str = args[0]
        self._stream: Decompressor = decompressor()
        self._row = 0
        #: The beginning of the next row.
        self._rest = bytearray()
        #: The last row, as long as none was filtered.
        self._before = b""
        #: Pillow's decoder, from the first filtered row on.
        self._zip: Any = None

    def decode(self, buffer: Image.DecoderInput) -> _Verdict:
        """Make pixels of ``buffer``, all of which is used."""
        assert isinstance(buffer, bytes)
        length = 1 + (self.state.xsize * _BITS[self._form] + 7) // 8
        data = buffer
        try:
            while self._row < self.state.ysize:
                rows = min(self.state.ysize - self._row, max(1, _STRIP // length))
                want = rows * length - len(self._rest)
                inflated = self._stream.decompress(data, want)
                data = self._stream.unconsumed_tail
                if not self._take(inflated, length):
                    return _BROKEN
                if len(inflated) < want:
                    return _BROKEN if self._stream.eof else (len(buffer), 0)
            beyond = not self._stream.eof and self._stream.decompress(data, 1)
        except InflateError:
            return _BROKEN
        if beyond:
            return _BROKEN
        return _DONE if self._stream.eof else (len(buffer), 0)

    def _take(self, inflated: bytes, length: int) -> bool:
        """Put what are whole rows by now into the picture. False if Pillow finds them broken."""
        count = (len(self._rest) + len(inflated)) // length
        if not count:
            self._rest += inflated
            return True
        data = b"".join((self._rest, inflated)) if self._rest else inflated
        end = count * length
        self._rest[:] = data[end:]
        if self._zip is None and any(data[:end:length]):
            # It has to know the row before.
            first = self._row - 1 if self._before else self._row
            self._zip = self._decoder("zip", first, self.state.ysize)
            self._zip.decode(_ZLIB + b"".join(_stored(self._before)))
        if self._zip is not None:
            _, error = self._zip.decode(b"".join(_stored(data[:end])))
        else:
            rows = self._decoder("raw", self._row, self._row + count, length, 1)
            _, error = rows.decode(memoryview(data)[1:end])
            self._before = data[end - length : end]
        self._row += count
        return bool(error >= 0)

    def _decoder(self, name: str, top: int, bottom: int, *more: int) -> Any:
        """One of Pillow's, for these rows."""
        decoder = Image._getdecoder(self.mode, name, (self._form, *more))
        left, above, right, _ = self.state.extents()
        assert self.im is not None
        decoder.setimage(self.im, (left, above + top, right, above + bottom))
        return decoder

    def cleanup(self) -> None:
        """Give memory back."""
        if self._zip is not None:
            self._zip.cleanup()


def _stored(data: bytes) -> Iterator[bytes]:
    """``data`` in blocks that are not compressed."""
    for begin in range(0, len(data), _STORED):
        block = data[begin : begin + _STORED]
        yield _BLOCK.pack(len(block), len(block) ^ _STORED)
        yield block


Image.register_decoder(_NAME, PngDecoder)
