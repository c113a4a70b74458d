"""Geometry: sizes, crops and shrink factors hold for every picture and every box."""

from __future__ import annotations

from attrs import astuple
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.image.errors import OutsidePicture
from imagefarm.image.geometry import (
    SHRINK_FACTORS,
    Box,
    cropped,
    place,
    shrink_factor,
    stored_box,
    swaps_axes,
    turn_of,
    upright_box,
)
from imagefarm.image.recipe import Crop, Fit, Point
from imagefarm.image.steps import _TURNS as TURNS
from imagefarm.image.steps import transposed

from .test_recipe import CROPS, POINT

PIXELS = st.integers(1, 20_000)
SIDE = st.none() | PIXELS
FITS = st.sampled_from(Fit)


class Sizes(SynchronousTestCase):
    def test_examples(self) -> None:
        for size, box, fit, expected in [
            ((2725, 2225), (320, None), Fit.CONTAIN, (320, 261)),
            ((2725, 2225), (320, 240), Fit.CONTAIN, (294, 240)),
            ((2725, 2225), (320, 240), Fit.INSIDE, (294, 240)),
            ((2725, 2225), (320, 240), Fit.COVER, (320, 240)),
            ((2725, 2225), (320, 240), Fit.FILL, (320, 240)),
            ((2725, 2225), (None, 100), Fit.FILL, (122, 100)),
            ((2725, 2225), (None, None), Fit.COVER, (2725, 2225)),
            ((100, 50), (300, 300), Fit.CONTAIN, (100, 50)),
            ((100, 50), (300, 300), Fit.COVER, (50, 50)),
            ((100, 50), (80, 100), Fit.COVER, (40, 50)),
            ((100, 50), (200, 25), Fit.FILL, (100, 13)),
            ((1000, 1), (10, None), Fit.CONTAIN, (10, 1)),
        ]:
            with self.subTest(size=size, box=box, fit=fit):
                found = place(*size, *box, fit)
                self.assertEqual((found.width, found.height), expected)

    @given(PIXELS, PIXELS, SIDE, SIDE, FITS)
    def test_never_larger_than_asked_or_than_the_picture(
        self, width: int, height: int, w: int | None, h: int | None, fit: Fit
    ) -> None:
        found = place(width, height, w, h, fit)
        self.assertTrue(1 <= found.width <= width)
        self.assertTrue(1 <= found.height <= height)
        if fit is not Fit.OUTSIDE or w is None or h is None:
            self.assertTrue(found.width <= (w or width) and found.height <= (h or height))
        box = found.box
        self.assertTrue(0 <= box.left < box.right <= width)
        self.assertTrue(0 <= box.top < box.bottom <= height)
        # Never enlarged: each pixel made has at least one to be made from.
        self.assertGreaterEqual(box.width, found.width - 1e-6)
        self.assertGreaterEqual(box.height, found.height - 1e-6)

    @given(PIXELS, PIXELS, SIDE, SIDE)
    def test_contain_keeps_the_shape_and_touches_the_box(
        self, width: int, height: int, w: int | None, h: int | None
    ) -> None:
        found = place(width, height, w, h, Fit.CONTAIN)
        touches = found.width == min(width, w or width), found.height == min(height, h or height)
        self.assertIn(True, touches)
        # One side is given, the other within half a pixel of its true length, or a whole one.
        true_height = height * found.width / width
        true_width = width * found.height / height
        fits = (
            touches[0] and (abs(found.height - true_height) <= 0.5 or found.height == 1),
            touches[1] and (abs(found.width - true_width) <= 0.5 or found.width == 1),
        )
        self.assertIn(True, fits)
        self.assertEqual(found.box, Box(0, 0, width, height))

    @given(PIXELS, PIXELS, PIXELS, PIXELS)
    def test_cover_cuts_equally_from_one_pair_of_sides(
        self, width: int, height: int, w: int, h: int
    ) -> None:
        found = place(width, height, w, h, Fit.COVER)
        box = found.box
        self.assertAlmostEqual(box.left, width - box.right, places=4)
        self.assertAlmostEqual(box.top, height - box.bottom, places=4)
        self.assertTrue(
            abs(box.width - width) < 1e-4 or abs(box.height - height) < 1e-4,
            "one direction is kept whole",
        )
        # What is kept has the result's shape.
        self.assertAlmostEqual(
            box.width * found.height / (box.height * found.width), 1.0, places=6
        )
        if w <= width and h <= height:
            self.assertEqual((found.width, found.height), (w, h))

    @given(PIXELS, PIXELS, PIXELS, PIXELS)
    def test_fill_uses_the_whole_picture(self, width: int, height: int, w: int, h: int) -> None:
        found = place(width, height, w, h, Fit.FILL)
        self.assertEqual(found.box, Box(0, 0, width, height))
        if w <= width and h <= height:
            self.assertEqual((found.width, found.height), (w, h))

    @given(PIXELS, PIXELS, PIXELS, PIXELS, st.booleans())
    def test_outside_covers_the_box_as_tightly_as_can_be(
        self, width: int, height: int, w: int, h: int, enlarge: bool
    ) -> None:
        found = place(width, height, w, h, Fit.OUTSIDE, enlarge=enlarge)
        self.assertEqual(found.box, Box(0, 0, width, height))
        if not enlarge and (w >= width or h >= height):
            self.assertEqual(found.size, (width, height))
            return
        self.assertTrue(found.width >= w and found.height >= h)
        self.assertTrue(found.width == w or found.height == h)
        self.assertTrue(
            abs(found.height - height * found.width / width) <= 0.5
            or abs(found.width - width * found.height / height) <= 0.5
        )

    @given(PIXELS, PIXELS, PIXELS, PIXELS, st.booleans(), POINT)
    def test_pad_is_the_box_with_the_picture_within(
        self, width: int, height: int, w: int, h: int, enlarge: bool, focus: Point
    ) -> None:
        found = place(width, height, w, h, Fit.PAD, enlarge=enlarge, focus=focus)
        self.assertEqual(found.size, (w, h))
        inner = place(width, height, w, h, Fit.CONTAIN, enlarge=enlarge)
        self.assertEqual((found.width, found.height), (inner.width, inner.height))
        x, y = found.at
        self.assertTrue(0 <= x <= w - found.width and 0 <= y <= h - found.height)
        self.assertTrue(abs(x - (w - found.width) * focus.x) <= 0.5)

    @given(PIXELS, PIXELS, SIDE, SIDE, FITS)
    def test_enlarged_it_meets_the_box(
        self, width: int, height: int, w: int | None, h: int | None, fit: Fit
    ) -> None:
        found = place(width, height, w, h, fit, enlarge=True)
        if w is None and h is None:
            self.assertEqual(found.size, (width, height))
        elif w is None or h is None or fit in (Fit.CONTAIN, Fit.INSIDE, Fit.OUTSIDE):
            self.assertTrue(found.width == w or found.height == h)
        else:
            self.assertEqual(found.size, (w, h))

    @given(PIXELS, PIXELS, PIXELS, PIXELS, POINT, st.booleans())
    def test_cover_has_the_focus_in_its_middle_or_touches_a_side(
        self, width: int, height: int, w: int, h: int, focus: Point, enlarge: bool
    ) -> None:
        found = place(width, height, w, h, Fit.COVER, focus=focus, enlarge=enlarge)
        box = found.box
        self.assertTrue(0 <= box.left < box.right <= width)
        self.assertTrue(0 <= box.top < box.bottom <= height)
        middle = (box.left + box.right) / 2
        self.assertTrue(
            abs(middle - focus.x * width) < 1e-3
            or (box.left == 0 and middle > focus.x * width - 1e-3)
            or (abs(box.right - width) < 1e-3 and middle < focus.x * width + 1e-3)
        )


class Crops(SynchronousTestCase):
    def test_examples(self) -> None:
        for crop, within, box in [
            (None, None, Box(0, 0, 100, 60)),
            (Crop(10, 20, 30, 40), None, Box(10, 20, 40, 60)),
            (Crop(90, 50, 100, 100), None, Box(90, 50, 100, 60)),
            (Crop(25, 50, 50, 50, True), None, Box(25, 30, 75, 60)),
            (Crop(0, 0, 0.1, 0.1, True), None, Box(0, 0, 1, 1)),
            (Crop(100, 100, 5, 5, True), None, Box(99, 59, 100, 60)),
            (None, Box(5, 6, 50, 40), Box(5, 6, 50, 40)),
            (Crop(1, 2, 100, 3), Box(5, 6, 50, 40), Box(6, 8, 50, 11)),
        ]:
            with self.subTest(crop=crop, within=within):
                self.assertEqual(cropped(100, 60, crop, within), box)

    def test_nothing_of_the_picture(self) -> None:
        error = self.assertRaises(OutsidePicture, cropped, 100, 60, Crop(100, 0, 5, 5), None)
        self.assertEqual(error.reason, "crop must be within the picture of 100 x 60 pixels")

    @given(st.integers(1, 500), st.integers(1, 500), CROPS)
    def test_always_whole_pixels_inside(self, width: int, height: int, crop: Crop) -> None:
        try:
            box = cropped(width, height, crop, None)
        except OutsidePicture:
            self.assertFalse(crop.percent)
            return
        self.assertTrue(0 <= box.left < box.right <= width)
        self.assertTrue(0 <= box.top < box.bottom <= height)
        self.assertEqual([float(edge) for edge in astuple(box)], [int(e) for e in astuple(box)])


class Shrinking(SynchronousTestCase):
    def test_examples(self) -> None:
        photo = Box(0, 0, 2725, 2225)
        self.assertEqual(shrink_factor(photo, 320, 261), 8)
        self.assertEqual(shrink_factor(photo, 341, 279), 4, "2225 / 8 is less than 279")
        self.assertEqual(shrink_factor(photo, 681, 556), 4)
        self.assertEqual(shrink_factor(photo, 682, 557), 2)
        self.assertEqual(shrink_factor(photo, 1363, 1113), 1)
        self.assertEqual(shrink_factor(photo, 227, 185, margin=1.5), 8)
        self.assertEqual(shrink_factor(photo, 228, 186, margin=1.5), 4)
        self.assertEqual(shrink_factor(photo, 681, 556, margin=1.5), 4)

    def test_carefully(self) -> None:
        picture = Box(0, 0, 1000, 750)
        for width, height, factor in (
            (500, 375, 1), (334, 250, 1), (333, 250, 2), (250, 187, 2), (200, 150, 4),
            (125, 93, 4), (112, 84, 4), (111, 83, 8), (1000, 750, 1), (2000, 1500, 1),
        ):  # fmt: skip
            found = shrink_factor(picture, width, height, careful=True)
            self.assertEqual(found, factor, width)
        self.assertEqual(shrink_factor(picture, 100, 75, margin=1.5, careful=True), 4)
        self.assertEqual(shrink_factor(picture, 80, 60, margin=1.5, careful=True), 8)

    @given(PIXELS, PIXELS, PIXELS, PIXELS)
    def test_the_largest_that_covers(self, width: int, height: int, w: int, h: int) -> None:
        factor = shrink_factor(Box(0, 0, width, height), w, h)
        covering = [f for f in SHRINK_FACTORS if width >= w * f and height >= h * f]
        self.assertEqual(factor, max(covering, default=1))

    @given(PIXELS, PIXELS, st.sampled_from(SHRINK_FACTORS))
    def test_a_shrunk_box_stays_inside(self, width: int, height: int, factor: int) -> None:
        small = -(-width // factor), -(-height // factor)
        box = Box(width / 4, height / 4, width, height).shrunk(factor, *small)
        self.assertTrue(0 <= box.left < box.right <= small[0])
        self.assertTrue(0 <= box.top < box.bottom <= small[1])


class Orientation(SynchronousTestCase):
    def test_there_and_back(self) -> None:
        box = Box(1, 0, 3, 2)
        for orientation in range(1, 9):
            stored = stored_box(box, orientation, 5, 3)
            self.assertEqual(upright_box(stored, orientation, 5, 3), box)

    def test_turns_mean_what_they_say(self) -> None:
        picture = Image.new("L", (5, 3))
        picture.putdata(list(range(15)))
        for flip in (False, True):
            for degrees in (0, 90, 180, 270):
                expected = picture
                if flip:
                    expected = expected.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
                expected = expected.rotate(-degrees, expand=True)
                found = transposed(picture, turn_of(flip, degrees))
                self.assertEqual(
                    (found.size, found.tobytes()), (expected.size, expected.tobytes())
                )

    def test_a_box_cut_before_turning_is_the_box_cut_after(self) -> None:
        stored = Image.new("L", (5, 3))
        stored.putdata(list(range(15)))
        for orientation in range(1, 9):
            turn = TURNS.get(orientation)
            upright = stored if turn is None else stored.transpose(turn)
            swapped = swaps_axes(orientation)
            self.assertEqual(upright.size, (3, 5) if swapped else (5, 3))
            part = (1, 0, 3, 2)
            box = stored_box(Box(*part), orientation, 5, 3)
            cut = stored.crop((int(box.left), int(box.top), int(box.right), int(box.bottom)))
            turned = cut if turn is None else cut.transpose(turn)
            with self.subTest(orientation=orientation):
                self.assertEqual(turned.tobytes(), upright.crop(part).tobytes())
