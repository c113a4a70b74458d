"""The demo page zooms into a picture, in a real browser."""

from __future__ import annotations

import re

from tests.support import browser, farm
from tests.support.processes import wait_until
from tests.support.stages import StagedCase

_TILE = re.compile(r"/iiif/photos%2Flandscape\.jpg/\d+,\d+,512,512/512,512/0/default\.jpg .* 200 ")


class Zoom(StagedCase):
    def setUp(self) -> None:
        self.prefix = farm.parts().prefix

    def page(self, query: str) -> str:
        """What the page becomes."""
        return browser.document(f"http://127.0.0.1:{self.prefix.ports.http}/zoom.html{query}")

    def test_near_enough_it_is_the_picture_itself(self) -> None:
        page = self.page("?zoom=5")
        self.assertIn('<span id="state">2816 x 2112</span>', page)
        wait_until(lambda: _TILE.search(self.prefix.log("master_access.log")), 10, "whole tiles")

    def test_no_such_picture(self) -> None:
        page = self.page("?src=nothing.jpg")
        self.assertRegex(page, '<span id="state">[^<]*404')
