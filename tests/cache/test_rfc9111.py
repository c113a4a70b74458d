"""What RFC 9111 says, and what becomes of it here: the table in docs/cache.md, row by row."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, cast

from twisted.trial.unittest import SynchronousTestCase

from imagefarm.cache.filling import Filling
from imagefarm.cache.policy import ValidTime
from imagefarm.http import filters
from imagefarm.http.dates import format_http
from imagefarm.http.filters import FilterSettings
from imagefarm.http.headers import Headers
from imagefarm.http.message import Response, discard

from . import test_conduct
from .support import Sink, Stream, Upstream, image, request
from .test_conduct import MODIFIED, ConductCase, control, key_of

VALID = (ValidTime(None, 60.0),)


class Rfc9111Tests(ConductCase):
    """Off as nginx, on as the RFC."""

    def stored(self, *fields: tuple[bytes, bytes], strict: bool, asked: Any = ()) -> bool:
        inner = Upstream(image(b"1", *fields), image(b"2", *fields))
        handler = self.make_handler(inner, rfc9111=strict, key=key_of(fields, strict, asked))
        self.ask(handler, b"/a.jpg", *asked)
        return self.ask(handler, b"/a.jpg", *asked)[0] == b"HIT"

    def life(self, *fields: tuple[bytes, bytes], strict: bool) -> int:
        """The seconds for which an answer is fresh."""
        handler = self.make_handler(
            Upstream(image(b"1", *fields)),
            rfc9111=strict,
            key=key_of(fields, strict),
        )
        self.ask(handler)
        _, _, response = self.ask(handler)
        return round(float(self.cache_status(response).partition("ttl=")[2]))

    def both(self, *fields: tuple[bytes, bytes]) -> tuple[int, int]:
        return self.life(*fields, strict=False), self.life(*fields, strict=True)

    def test_age_shortens_life(self) -> None:
        fields = control(b"max-age=100"), (b"Age", b"40")
        self.assertEqual(self.both(*fields), (100, 60))
        old = control(b"max-age=100"), (b"Age", b"100")
        self.assertEqual([self.stored(*old, strict=strict) for strict in (False, True)], [1, 0])

    def test_an_old_date_shortens_life(self) -> None:
        date = format_http(self.clock.seconds() - 30)
        fields = control(b"max-age=100"), (b"Date", date)
        lax, strict = self.both(*fields)
        self.assertEqual(lax, 100)
        self.assertIn(strict, (69, 70))

    def test_expires_counts_from_date(self) -> None:
        now = self.clock.seconds()
        fields = (b"Date", format_http(now + 50)), (b"Expires", format_http(now + 80))
        lax, strict = self.both(*fields)
        self.assertIn(lax, (79, 80))
        self.assertIn(strict, (29, 30))

    def test_accel_expires_and_valid_count_from_now(self) -> None:
        age = (b"Age", b"40")
        self.assertEqual(self.both((b"X-Accel-Expires", b"100"), age), (100, 100))
        self.assertEqual(self.both(age), (60, 60))

    def test_age_is_told(self) -> None:
        for strict, told in ((False, b"40"), (True, b"57")):
            answer = image(b"1", control(b"max-age=100"), (b"Age", b"40"))
            handler = self.make_handler(Upstream(answer), rfc9111=strict)
            self.ask(handler)
            self.clock.advance(17)
            _, _, response = self.ask(handler)
            self.assertEqual(response.headers.getall(b"age"), [told])
            self.zone.directory.remove(self.zone.find(b"/a.jpg", Headers())[0])

    def test_authorization(self) -> None:
        asked = ((b"Authorization", b"Basic eDp5"),)
        for directive, strict, stored in (
            (b"max-age=9", False, True),
            (b"max-age=9", True, False),
            (b"max-age=9, public", True, True),
            (b"s-maxage=9", True, True),
            (b"max-age=9, must-revalidate", True, True),
        ):
            found = self.stored(control(directive), strict=strict, asked=asked)
            self.assertIs(found, stored, directive)

    def test_never_stale(self) -> None:
        for directive in (b"must-revalidate", b"proxy-revalidate", b"s-maxage=60"):
            for strict, status in ((False, 200), (True, 503)):
                told = control(b"max-age=60, stale-if-error=99, " + directive)
                handler = self.make_handler(
                    Upstream(image(b"1", told), image(status=503)),
                    rfc9111=strict,
                    use_stale=frozenset({"http_503", "updating"}),
                    key=key_of(directive, strict),
                )
                self.ask(handler)
                self.clock.advance(70)
                self.assertEqual(self.ask(handler)[2].status, status, directive)

    def test_unsafe_methods_invalidate(self) -> None:
        for strict, status, after in (
            (False, 204, b"HIT"),
            (True, 500, b"HIT"),
            (True, 204, b"MISS"),
        ):
            inner = Upstream(image(b"1"), image(b"", status=status), image(b"2"))
            handler = self.make_handler(inner, rfc9111=strict)
            self.ask(handler)
            self.ask(handler, method=b"DELETE")
            self.assertEqual(self.ask(handler)[0], after)
            self.zone.directory.remove(self.zone.find(b"/a.jpg", Headers())[0])

    def same_in_both(self, expected: bool, *fields: tuple[bytes, bytes]) -> None:
        for strict in (False, True):
            self.assertIs(self.stored(*fields, strict=strict), expected, fields)

    def test_what_forbids_to_store(self) -> None:
        for value in (
            b"no-cache", b"no-store", b"private", b'no-cache="Set-Cookie"', b'private="x"',
            b"No-Store",
        ):  # fmt: skip
            self.same_in_both(False, control(value))
            self.same_in_both(False, control(b"max-age=9"), control(value))
            self.same_in_both(False, control(b"max-age=9, " + value + b", public"))

    def test_must_understand(self) -> None:
        self.same_in_both(True, control(b"max-age=9, must-understand"))
        self.same_in_both(False, control(b"max-age=9, must-understand, no-store"))

    def test_set_cookie(self) -> None:
        self.same_in_both(False, (b"Set-Cookie", b"a=b"), control(b"max-age=9, public"))

    def test_vary_on_everything(self) -> None:
        self.same_in_both(False, (b"Vary", b"*"), control(b"max-age=9"))
        self.same_in_both(False, (b"Vary", b"Accept"), (b"Vary", b"*"), control(b"max-age=9"))

    def test_vary(self) -> None:
        vary = (b"Vary", b"Accept , x-a")
        for strict in (False, True):
            inner = Upstream(*(image(b"%d" % number, vary) for number in range(3)))
            handler = self.make_handler(inner, rfc9111=strict, key=key_of(strict))
            for fields, body in (
                ([(b"Accept", b"a, b")], b"0"),
                ([(b"Accept", b"b")], b"1"),
                ([(b"accept", b"a,  b"), (b"User-Agent", b"c")], b"0"),
                ([(b"Accept", b"a"), (b"Accept", b"b")], b"0"),
                ([(b"Accept", b"a, b"), (b"X-A", b"1")], b"2"),
            ):
                self.assertEqual(self.ask(handler, b"/a.jpg", *fields)[1], body, fields)

    def test_which_lifetime_counts(self) -> None:
        expires = (b"Expires", format_http(self.clock.seconds() + 30))
        for strict in (False, True):
            for fields, life in (
                ((control(b"max-age=20, s-maxage=10"), expires), 10),
                ((control(b"max-age=20"), expires), 20),
                ((control(b"max-age=20"), control(b"s-maxage=10")), 10),
                ((control(b'max-age="20"'), expires), 20),
                ((control(b"public"), expires), 30),
            ):
                self.assertIn(self.life(*fields, strict=strict), (life - 1, life))

    def test_what_is_no_lifetime(self) -> None:
        for fields in (
            control(b"max-age=soon"), control(b"max-age=-1"), control(b"max-age"),
            (b"Expires", b"0"), (b"Expires", b"soon"),
            (b"Expires", format_http(self.clock.seconds() - 9)),
        ):  # fmt: skip
            self.same_in_both(False, fields)

    def test_statuses(self) -> None:
        for strict in (False, True):
            for status, stored in ((200, 1), (203, 1), (204, 1), (404, 1), (410, 1), (414, 1),
                                   (206, 0), (304, 0), (500, 0), (503, 0)):  # fmt: skip
                told = [image(b"", control(b"max-age=9"), status=status) for _ in range(2)]

                def inner(asked: Any, told: Any = told) -> Response:
                    answer: Response = told.pop()
                    asked.outcome.upstream_headers = answer.headers
                    return answer

                handler = self.make_handler(
                    cast(Upstream, inner), rfc9111=strict, key=key_of(strict, status)
                )
                self.ask(handler)
                self.assertEqual(self.ask(handler)[0] == b"HIT", bool(stored), status)

    def test_incomplete(self) -> None:
        for strict in (False, True):
            cut = Stream(10)
            inner = Upstream(image(cast(bytes, cut)), image(b"whole"))
            handler = self.make_handler(inner, rfc9111=strict, key=key_of(strict))
            sink, response = Sink(), self.now(handler(request()))
            assert isinstance(response.body, Filling)
            response.body.start(sink)
            cut.send(b"half")
            cut.finish()
            self.assertIsNotNone(sink.error)
            self.assertEqual(self.ask(handler)[1], b"whole")

    def test_conditions_are_answered(self) -> None:
        for strict in (False, True):
            fields = (b"ETag", b'"1"'), MODIFIED
            handler = self.make_handler(
                Upstream(image(b"1", *fields)), rfc9111=strict, key=key_of(strict)
            )
            self.ask(handler)
            for condition, status in (
                ((b"If-None-Match", b'"0", W/"1"'), 304),
                ((b"If-None-Match", b'"2"'), 200),
                ((b"If-Modified-Since", MODIFIED[1]), 304),
                ((b"If-Match", b'"2"'), 412),
                ((b"Range", b"bytes=0-0"), 206),
            ):
                asked = request(b"/a.jpg", condition)
                answer = filters.run(asked, self.now(handler(asked)), FilterSettings())
                self.assertEqual(answer.status, status, condition)
                discard(answer.body)

    def test_head(self) -> None:
        for strict in (False, True):
            inner = Upstream(image(b"1"), image(b"2"))
            handler = self.make_handler(inner, rfc9111=strict, key=key_of(strict))
            for method in (b"HEAD", b"GET", b"HEAD"):
                response = self.now(handler(request(method=method)))
                self.assertEqual(response.headers.first(b"content-type"), b"image/jpeg")
                discard(response.body)
            self.assertEqual([asked.head.method for asked in inner.requests], [b"GET"])

    def test_pragma_and_warning(self) -> None:
        fields = (b"Pragma", b"no-cache"), (b"Warning", b'110 - "old"')
        self.same_in_both(True, *fields)
        handler = self.make_handler(Upstream(image(b"1", *fields)), rfc9111=True)
        self.ask(handler)
        _, _, response = self.ask(handler, b"/a.jpg", (b"Pragma", b"no-cache"))
        self.assertEqual(response.headers.first(b"warning"), fields[1][1])

    def test_no_heuristics(self) -> None:
        handler = self.make_handler(
            Upstream(*(image(b"1", MODIFIED) for _ in range(2))), valid=(), rfc9111=True
        )
        self.ask(handler)
        self.assertEqual(self.ask(handler)[0], b"MISS")

    def test_request_directives_are_advice(self) -> None:
        """RFC 9111 section 5.2.1: a client does not decide what a farm has to do again."""
        handler = self.make_handler(Upstream(image(b"1")), rfc9111=True, valid=VALID)
        self.ask(handler)
        for value in (b"no-cache", b"no-store", b"max-age=0"):
            self.assertEqual(self.ask(handler, b"/a.jpg", control(value))[0], b"HIT")


_ELSEWHERE = test_conduct.BackgroundTests, test_conduct.RevalidateTests


class TableTests(SynchronousTestCase):
    """Each row of the table in docs/cache.md names its test."""

    def test_rows(self) -> None:
        text = (Path(__file__).parents[2] / "docs/cache.md").read_text()
        section = text.partition("## RFC 9111\n")[2].partition("\n## ")[0]
        rows = [line for line in section.splitlines() if line.startswith("| ")][1:]
        named = {found for row in rows for found in re.findall(r"`(test_\w+)` \|$", row)}
        self.assertGreater(len(rows), 20)
        for row in rows:
            self.assertRegex(row, r"`test_\w+` \|$")
        ours = {name for name in dir(Rfc9111Tests) if name.startswith("test_")}
        others = {"test_304_refreshes", "test_stale_while_revalidate", "test_stale_if_error"}
        others.add("test_strict_takes_over_what_a_304_says")
        self.assertEqual(named - others, ours)
        for name in others:
            self.assertTrue(any(hasattr(case, name) for case in _ELSEWHERE), name)
