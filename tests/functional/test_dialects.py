"""All forms of URLs through real processes: one picture, and a 4xx for nonsense."""

from __future__ import annotations

import base64
import json
import random
import time

from imagefarm.image import signing
from imagefarm.image.dialects import imgproxy, thumbor
from imagefarm.image.query import parse_query
from tests.image.pictures import opened
from tests.support import farm, rawhttp
from tests.support.stages import Cleanup, StagedCase, shared

KEY = b"a key for these tests"
LOCATIONS = """
    preset  thumb  "w=240&h=160&fit=cover&fmt=jpeg";
    location /resize/signed/ { signature required; signing_key "a key for these tests"; }
    location /resize/small/  { unsigned_max_width 100; unsigned_max_height 100; }
    location /resize/presets { presets_only on; }
    location /resize/t/      { dialect thumbor; signature optional; thumbor_key tkey; }
    location /resize/p/      { dialect imgproxy; signature required; imgproxy_key 0a0b 0c0d; }
    location /resize/p-open/ { dialect imgproxy; }
"""
SRC = "photos/landscape.jpg"


@shared
def served(cleanup: Cleanup) -> farm.Prefix:
    """A farm that has a location for each dialect."""
    prefix = farm.temporary_prefix(cleanup)
    farm.write_samples(prefix.images)
    prefix.edit("resizer.conf", ("    location /iiif/ {", LOCATIONS + "    location /iiif/ {"))
    parts = farm.Parts(prefix)
    cleanup(parts.stop)
    parts.start()
    return prefix


def signed(query: str, expires: int | None = None) -> str:
    return signing.signed_query(KEY, query, parse_query(query.encode()), expires)


def imgproxy_signed(rest: str) -> str:
    sign = imgproxy.sign(bytes.fromhex("0a0b"), bytes.fromhex("0c0d"), rest.encode())
    return sign.decode() + rest


class OnePicture(StagedCase):
    def assert_alike(self, *targets: str) -> bytes:
        answers = [served().get(target) for target in targets]
        for target, answer in zip(targets, answers, strict=True):
            self.assertEqual(answer.status, 200, f"{target}: {answer.body[:200]!r}")
            self.assertEqual(answer.body, answers[0].body, target)
            self.assertEqual(answer.header("etag"), answers[0].header("etag"), target)
        return answers[0].body

    def test_a_width(self) -> None:
        encoded = base64.urlsafe_b64encode(SRC.encode()).decode().rstrip("=")
        body = self.assert_alike(
            f"/resize?src=/{SRC}&w=240&fmt=jpeg",
            f"/resize.php?src={SRC}&fmt=jpg&w=240",
            f"/resize/{SRC}?fmt=jpg&w=240",
            f"/resize/signed/{SRC}?" + signed(f"src=/{SRC}&w=240&fmt=jpeg"),
            "/iiif/photos%2Flandscape.jpg/full/240,/0/default.jpg",
            f"/resize/t/unsafe/fit-in/240x0/filters:format(jpeg)/{SRC}",
            f"/resize/p-open/_/w:240/plain/{SRC}@jpg",
            f"/resize/p-open/_/w:240/{encoded}.jpg",
            "/resize/p/" + imgproxy_signed(f"/w:240/plain/local:///{SRC}@jpg"),
        )
        self.assertEqual(opened(body).width, 240)

    def test_a_box(self) -> None:
        rest = f"240x160/filters:no_upscale():format(jpeg)/{SRC}"
        body = self.assert_alike(
            f"/resize?src=/{SRC}&w=240&h=160&fit=cover&fmt=jpeg",
            f"/resize?src=/{SRC}&preset=thumb",
            f"/resize/presets?src=/{SRC}&preset=thumb",
            f"/resize/t/unsafe/{rest}",
            f"/resize/t/{thumbor.sign(b'tkey', rest.encode()).decode()}/{rest}",
            f"/resize/p-open/_/rs:fill:240:160/plain/{SRC}@jpg",
            f"/resize/p-open/_/pr:thumb/plain/{SRC}",
        )
        self.assertEqual(opened(body).size, (240, 160))

    def test_a_part_turned(self) -> None:
        self.assert_alike(
            f"/resize?src=/{SRC}&crop=10,20,300,200&w=100&rotate=90&tone=gray&fmt=png",
            "/iiif/photos%2Flandscape.jpg/10,20,300,200/150,/90/gray.png",
        )
        self.assert_alike(
            f"/resize?src=/{SRC}&crop=10,20,300,200&w=100&rotate=90&fmt=png",
            f"/resize/p-open/_/c:300:200:nowe:10:20/rot:90/h:100/plain/{SRC}@png",
            f"/resize/t/unsafe/10x20:310x220/fit-in/0x100/filters:rotate(270):format(png)/{SRC}",
        )


class Refusals(StagedCase):
    def assert_refused(self, target: str, status: int, line: bytes) -> None:
        answer = served().get(target)
        self.assertEqual((answer.status, answer.body), (status, line + b"\n"), target)
        self.assertEqual(answer.header("cache-control"), "no-store")

    def test_signatures(self) -> None:
        base = f"/resize/signed/?src=/{SRC}&w=240"
        wrong = b"sig is wrong: it does not match the recipe and expires"
        self.assert_refused(base, 403, b"sig is missing: only signed URLs are answered here")
        self.assert_refused(f"{base}&sig=AAAA", 403, wrong)
        past, future = int(time.time()) - 5, int(time.time()) + 3600
        good = "/resize/signed/?" + signed(f"src=/{SRC}&w=240", future)
        self.assertEqual(served().get(good).status, 200)
        self.assert_refused(good.replace("w=240", "w=241"), 403, wrong)
        expired = "/resize/signed/?" + signed(f"src=/{SRC}&w=240", past)
        self.assert_refused(expired, 410, b"the URL has expired")

    def test_signatures_of_others(self) -> None:
        line = b"the signature is wrong: it does not match the path after it"
        self.assert_refused(f"/resize/t/{'A' * 27}=/240x0/{SRC}", 403, line)
        self.assert_refused(f"/resize/p/unsafe/w:240/plain/{SRC}", 403, line)
        good = imgproxy_signed(f"/w:240/plain/{SRC}")
        self.assert_refused("/resize/p/" + good.replace("w:240", "w:241"), 403, line)

    def test_without_signature(self) -> None:
        line = b"w must be at most 100 without a signature"
        self.assert_refused(f"/resize/small/{SRC}?w=101", 403, line)
        self.assert_refused(f"/resize/small/{SRC}", 403, line)
        self.assertEqual(served().get(f"/resize/small/{SRC}?w=100").status, 200)

    def test_no_way_around(self) -> None:
        for path in ("/resize/%73igned/", "/resize//signed/", "/resize/./signed/"):
            answer = served().get(f"{path}?src=/{SRC}&w=240")
            self.assertEqual(answer.status, 400, path)

    def test_presets(self) -> None:
        line = b"w must not be given here, only preset, one of: thumb"
        self.assert_refused(f"/resize/presets?src=/{SRC}&preset=thumb&w=9", 400, line)


class IIIF(StagedCase):
    def test_info(self) -> None:
        answer = served().get("/iiif/photos%2Flandscape.jpg/info.json")
        document = json.loads(answer.body)
        width, height = opened((served().images / SRC).read_bytes()).size
        self.assertEqual((document["width"], document["height"]), (width, height))
        self.assertEqual(document["id"], "http://localhost/iiif/photos%2Flandscape.jpg")
        self.assertEqual(answer.header("access-control-allow-origin"), "*")
        again = served().get(
            "/iiif/photos%2Flandscape.jpg/info.json", f"If-None-Match: {answer.header('etag')}"
        )
        self.assertEqual((again.status, again.body), (304, b""))

    def test_a_turned_original_is_measured_upright(self) -> None:
        answer = served().get("/iiif/photos%2Fportrait-exif6.jpg/info.json")
        document = json.loads(answer.body)
        self.assertGreater(document["height"], document["width"])

    def test_headers(self) -> None:
        answer = served().get("/iiif/photos%2Flandscape.jpg/pct:0,0,100,100/!240,240/0/color.jpg")
        width, height = opened(answer.body).size
        base = "http://localhost/iiif/photos%2Flandscape.jpg"
        self.assertEqual(
            answer.header("link"),
            f'<{base}/full/{width},{height}/0/default.jpg>;rel="canonical", '
            '<http://iiif.io/api/image/3/level2.json>;rel="profile"',
        )
        canonical = f"/iiif/photos%2Flandscape.jpg/full/{width},{height}/0/default.jpg"
        self.assertEqual(served().get(canonical).body, answer.body)

    def test_nobody_is_told_another_s_address(self) -> None:
        """The cache in front keeps apart what depends on Host, also where $host is the same."""
        target = "/iiif/photos%2Flandscape.jpg/info.json"
        there = f"http://apart.test{target}"
        for url, host in (
            (target, "apart.test:81"), (there, "other.test"), (target, "apart.test"),
        ):  # fmt: skip
            document = json.loads(served().get(url, host=host).body)
            self.assertEqual(document["id"], f"http://{host}/iiif/photos%2Flandscape.jpg")
            answer = served().get("/iiif/photos%2Flandscape.jpg/full/30,/0/gray.jpg", host=host)
            self.assertIn(f"<http://{host}/", answer.header("link") or "")

    def test_the_way_to_the_document(self) -> None:
        answer = served().get("/iiif/photos%2Flandscape.jpg")
        self.assertEqual(answer.status, 303)
        self.assertEqual(
            answer.header("location"), "http://localhost/iiif/photos%2Flandscape.jpg/info.json"
        )
        for target in ("/iiif/nobody.jpg", "/iiif/nobody.jpg/info.json", "/iiif/a/b/info.json"):
            refused = served().get(target)
            self.assertEqual(refused.status, 404)
            self.assertEqual(refused.header("access-control-allow-origin"), "*")

    def test_all_tiles(self) -> None:
        """Every tile that a viewer finds in info.json has the size that it expects."""
        base = "/iiif/photos%2Flandscape.jpg"
        document = json.loads(served().get(f"{base}/info.json").body)
        width, height = document["width"], document["height"]
        (tiles,) = document["tiles"]
        asked = 0
        for factor in tiles["scaleFactors"][1:]:
            step = tiles["width"] * factor
            for left in range(0, width, step):
                for top in range(0, height, step):
                    w, h = min(step, width - left), min(step, height - top)
                    size = -(-w // factor), -(-h // factor)
                    part = f"{left},{top},{w},{h}/{size[0]},{size[1]}"
                    answer = served().get(f"{base}/{part}/0/default.jpg")
                    self.assertEqual(opened(answer.body).size, size, part)
                    asked += 1
        self.assertGreater(asked, 1)


class Nonsense(StagedCase):
    def test_any_url(self) -> None:
        """Pieces of good URLs and of bad ones in any order: never a 5xx."""
        dice = random.Random(6)
        pieces = (
            "photos%2Flandscape.jpg", SRC, "info.json", "full", "square", "pct:0,0,1,1", "max",
            "^9,", "!9,9", "0", "!90", "default.jpg", "unsafe", "_", "plain", "fit-in", "9x9",
            "filters:rotate(90)", "filters:", "rs:fill:9:9", "g:sm", "c:.5:.5", "..", ".",
            "%2e%2e", "%00", "%", "%ff", "a:b", "NaN", "-1", "1e9", "99999999999", "\\", "'", '"',
            "<", "{}", "YQ", "enc", "trim", "smart", "?src=/a&w=9", "?w=-1", "?sig=%ff&expires=1",
            "&", "=",
        )  # fmt: skip
        for _ in range(300):
            place = dice.choice(("/iiif/", "/resize/t/unsafe/", "/resize/p-open/_/", "/resize/"))
            target = place + dice.choice(("/", "")).join(
                dice.choices(pieces, k=dice.randint(1, 6))
            )
            data = rawhttp.request(target, "Connection: close", host="localhost")
            answer = rawhttp.exchange(served().ports.http, data)
            assert answer is not None, target
            self.assertLess(answer.status, 500, target)
