"""Entity tags and preconditions."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.http.conditional import IfModifiedSince, Verdict, evaluate
from imagefarm.http.dates import format_http, parse_http
from imagefarm.http.etag import etag, listed, weaken
from imagefarm.http.headers import Headers

from .samples import NOW

TAG = b'"2ebc9da1-2710"'
BEFORE, SAME, AFTER = (format_http(NOW + delta) for delta in (-1, 0, 1))


class EtagTests(SynchronousTestCase):
    def test_nginx_form(self) -> None:
        """As nginx 1.22 gave it for a file of 4338 bytes."""
        mtime = parse_http(b"Sun, 22 Nov 2026 05:07:53 GMT") or 0
        self.assertEqual(etag(mtime + 0.75, 4338), b'"6b0278a9-10f2"')

    def test_listed(self) -> None:
        for tags in (TAG, b'"x", ' + TAG, TAG + b" , x", b"x," + TAG, b'"a,b",' + TAG, b"*"):
            self.assertTrue(listed(tags, TAG, weak=False), tags)
            self.assertTrue(listed(tags, TAG, weak=True), tags)
        for tags in (b"", b'"x"', TAG[:-1], TAG + b"x", b'"x" ' + TAG, b'*, "x"'):
            self.assertFalse(listed(tags, TAG, weak=False), tags)
            self.assertFalse(listed(tags, TAG, weak=True), tags)

    def test_weak_comparison(self) -> None:
        self.assertTrue(listed(b"W/" + TAG, TAG, weak=True))
        self.assertTrue(listed(TAG, b"W/" + TAG, weak=True))
        self.assertTrue(listed(b'"x", W/' + TAG, b"W/" + TAG, weak=True))
        self.assertFalse(listed(b"W/" + TAG, TAG, weak=False))
        self.assertFalse(listed(b"W/W/" + TAG, TAG, weak=True))

    def test_nothing_to_compare_with(self) -> None:
        self.assertTrue(listed(b"*", None, weak=True))
        self.assertFalse(listed(TAG, None, weak=True))

    def test_weaken(self) -> None:
        for before, after in ((TAG, b"W/" + TAG), (b"W/" + TAG, b"W/" + TAG), (b"x", None)):
            headers = Headers([(b"ETag", before)])
            weaken(headers)
            self.assertEqual(headers.get(b"etag"), after)
        headers = Headers()
        weaken(headers)
        self.assertEqual(len(headers), 0)

    @settings(deadline=None)
    @given(st.lists(st.text(alphabet='abc", W/', max_size=6)), st.booleans())
    def test_our_tag_is_found_wherever_an_element_begins(
        self, others: list[str], weak: bool
    ) -> None:
        quoted = [b'"' + other.replace('"', "").encode() + b'"' for other in others]
        self.assertTrue(listed(b", ".join([*quoted, TAG]), TAG, weak=weak))


class EvaluateTests(SynchronousTestCase):
    def check(
        self,
        expected: Verdict,
        *fields: tuple[bytes, bytes],
        tag: bytes | None = TAG,
        mtime: float | None = NOW,
        since: IfModifiedSince = IfModifiedSince.EXACT,
    ) -> None:
        found = evaluate(Headers(fields), etag=tag, mtime=mtime, since=since)
        self.assertEqual(found, expected, fields)

    def test_nothing_asked(self) -> None:
        self.check(Verdict.PROCEED)

    def test_if_none_match(self) -> None:
        self.check(Verdict.NOT_MODIFIED, (b"If-None-Match", TAG))
        self.check(Verdict.NOT_MODIFIED, (b"If-None-Match", b"W/" + TAG))
        self.check(Verdict.NOT_MODIFIED, (b"If-None-Match", b"*"), tag=None, mtime=None)
        self.check(Verdict.PROCEED, (b"If-None-Match", b'"x"'))
        self.check(Verdict.NOT_MODIFIED, (b"If-None-Match", b'"x"'), (b"If-None-Match", TAG))

    def test_if_modified_since(self) -> None:
        field = b"If-Modified-Since"
        self.check(Verdict.NOT_MODIFIED, (field, SAME))
        self.check(Verdict.PROCEED, (field, BEFORE))
        self.check(Verdict.PROCEED, (field, AFTER))  # exact
        self.check(Verdict.NOT_MODIFIED, (field, AFTER), since=IfModifiedSince.BEFORE)
        self.check(Verdict.PROCEED, (field, BEFORE), since=IfModifiedSince.BEFORE)
        self.check(Verdict.PROCEED, (field, SAME), since=IfModifiedSince.OFF)
        self.check(Verdict.PROCEED, (field, SAME), mtime=None)
        self.check(Verdict.PROCEED, (field, b"garbage"))
        self.check(Verdict.PROCEED, (field, b"garbage"), since=IfModifiedSince.BEFORE)

    def test_both_must_say_so(self) -> None:
        """Where nginx differs from RFC 9110 section 13.2.2."""
        same, other = (b"If-Modified-Since", SAME), (b"If-Modified-Since", BEFORE)
        self.check(Verdict.NOT_MODIFIED, same, (b"If-None-Match", TAG))
        self.check(Verdict.PROCEED, same, (b"If-None-Match", b'"x"'))
        self.check(Verdict.PROCEED, other, (b"If-None-Match", TAG))

    def test_if_match(self) -> None:
        self.check(Verdict.PROCEED, (b"If-Match", TAG))
        self.check(Verdict.PROCEED, (b"If-Match", b"*"))
        self.check(Verdict.FAILED, (b"If-Match", b'"x"'))
        self.check(Verdict.FAILED, (b"If-Match", b"W/" + TAG))
        self.check(Verdict.FAILED, (b"If-Match", TAG), tag=None)

    def test_if_unmodified_since(self) -> None:
        field = b"If-Unmodified-Since"
        self.check(Verdict.PROCEED, (field, SAME))
        self.check(Verdict.PROCEED, (field, AFTER))
        self.check(Verdict.FAILED, (field, BEFORE))
        self.check(Verdict.FAILED, (field, b"garbage"))
        self.check(Verdict.FAILED, (field, SAME), mtime=None)

    def test_failure_goes_first(self) -> None:
        self.check(Verdict.FAILED, (b"If-None-Match", TAG), (b"If-Match", b'"x"'))
        self.check(Verdict.FAILED, (b"If-None-Match", TAG), (b"If-Unmodified-Since", BEFORE))
