"""``cache_api``: what it purges, what it answers, who is let in."""

from __future__ import annotations

import json
from typing import Any

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.http.message import Response
from imagefarm.resources.control import ApiSettings
from imagefarm.resources.purging import purging
from tests.proxy.support import make_request

TOKEN = b"0123456789abcdef"


class Remembering:
    """A zone that only remembers."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.calls: list[Any] = []

    def key(self, key: bytes, *, soft: bool = False) -> int:
        self.calls.append(("key", key, soft))
        return self.count

    def source(self, source: bytes, *, soft: bool = False) -> int:
        if source == b"/full":
            raise OSError(28, "No space left on device")
        self.calls.append(("source", source, soft))
        return self.count

    def prefix(self, prefix: bytes, *, soft: bool = False) -> None:
        self.calls.append(("prefix", prefix, soft))


class PurgingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.zones = {"a": Remembering(2), "b": Remembering(3)}

    def ask(
        self, args: bytes, method: bytes = b"POST", token: bytes = TOKEN, uid: int | None = None
    ) -> Any:
        fields = [(b"Authorization", b"Bearer " + token)]
        request = make_request(method, b"/purge?" + args, fields)
        request.args = args
        request.peer = evolve(request.peer, uid=uid)
        answer = purging(ApiSettings(True, TOKEN), self.zones, lambda: 33)(request)
        assert isinstance(answer, Response)
        assert isinstance(answer.body, bytes)
        return answer.status, json.loads(answer.body)

    def test_an_original_in_the_resizer_s_form(self) -> None:
        counts = {"a": {"purged": 2}, "b": {"purged": 3}}
        for given in (b"/d/a%20b.jpg", b"d/a+b.jpg"):
            answer = self.ask(b"source=" + given)
            self.assertEqual(answer, (200, {"mode": "hard", "purged": 5, "zones": counts}))
        self.assertEqual(self.zones["a"].calls, [("source", b"/d/a%20b.jpg", False)] * 2)

    def test_one_zone_softly(self) -> None:
        status, value = self.ask(b"key=http%3A//x/&mode=soft&zone=b")
        self.assertEqual((status, value["zones"]), (200, {"b": {"purged": 3}}))
        self.assertEqual(self.zones["b"].calls, [("key", b"http://x/", True)])
        self.assertEqual(self.zones["a"].calls, [])

    def test_a_prefix_is_not_counted(self) -> None:
        status, value = self.ask(b"prefix=x&zone=a")
        self.assertEqual(
            (status, value["purged"], value["zones"]), (200, None, {"a": {"purged": None}})
        )

    def test_refusals(self) -> None:
        for args, status, code in (
            (b"", 400, "ArgumentError"), (b"source=", 400, "ArgumentError"),
            (b"source=a&key=b", 400, "ArgumentError"), (b"key=a&key=b", 400, "ArgumentError"),
            (b"key=a&mode=x", 400, "ArgumentError"), (b"key=a&x=y", 400, "ArgumentError"),
            (b"key=a&zone=c", 404, "ZoneNotFound"), (b"source=/full", 500, "CacheError"),
        ):  # fmt: skip
            found, value = self.ask(args)
            self.assertEqual((found, value["error"]["code"]), (status, code), args)
        self.assertEqual(self.ask(b"key=a", b"GET")[0], 405)

    def test_who_is_let_in(self) -> None:
        self.assertEqual(self.ask(b"key=a", token=b"x" * 16)[0], 401)
        self.assertEqual(self.ask(b"key=a", token=b"x" * 16, uid=33)[0], 200)
        self.assertEqual(len(self.zones["a"].calls), 1)
