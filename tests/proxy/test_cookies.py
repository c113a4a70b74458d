"""``proxy_cookie_*``: which cookies change, and which stay byte for byte."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.config.errors import ConfigurationError
from imagefarm.proxy.cookies import CookieRules

from .support import load_location, make_request

_TEXTS = st.text("aA=; .", max_size=20).map(str.encode)


class CookieTests(SynchronousTestCase):
    def rewrite(self, inside: str, value: bytes, target: bytes = b"/") -> bytes:
        rules = CookieRules.from_scope(load_location("/", inside))
        return rules.rewrite(make_request(target=target), value)

    def test_domain(self) -> None:
        rule = "proxy_cookie_domain .up.example here.example;"
        for value, expected in (
            (b"a=1; Domain=UP.example", b"a=1; Domain=here.example"),
            (b"a=1;domain=.up.example ;x", b"a=1; domain=here.example; x"),
            (b"a=1;domain=x.up.example", b"a=1;domain=x.up.example"),
            (b"domain=up.example;x", b"domain=up.example;x"),
            (b"a;domain=up.example", b"a;domain=up.example"),
        ):
            self.assertEqual(self.rewrite(rule, value), expected)
        rule = r"proxy_cookie_domain ~\.?(\w+)\.UP$ $1.$arg_d;"
        self.assertEqual(self.rewrite(rule, b"a=1;domain=x.up", b"/?d=t"), b"a=1; domain=x.t")

    def test_path(self) -> None:
        rule = "proxy_cookie_path /two/ /; proxy_cookie_path ~*^/THREE(?<rest>.*) /t$rest;"
        for value, expected in (
            (b"a=1; Path=/two/x", b"a=1; Path=/x"),
            (b"a=1; Path=/three/x", b"a=1; Path=/t/x"),
            (b"a=1; Path=/x", b"a=1; Path=/x"),
            (b"a=1; Path", b"a=1; Path"),
        ):
            self.assertEqual(self.rewrite(rule, value), expected)

    def test_flags(self) -> None:
        rule = (
            "proxy_cookie_flags a secure samesite=strict; proxy_cookie_flags ~^[ab]$ nosecure"
            " nohttponly nosamesite; proxy_cookie_flags $arg_n httponly $arg_f;"
        )
        for value, expected in (
            (b"A=1", b"A=1; Secure; SameSite=Strict"),
            (b"a=1;secure;samesite=STRICT", b"a=1; secure; samesite=STRICT"),
            (b"a=1; SameSite=Lax; x", b"a=1; SameSite=Strict; x; Secure"),
            (b"b=1; Secure; HttpOnly; SameSite=Lax; x", b"b=1; x"),
            (b"c=1", b"c=1; HttpOnly; SameSite=None"),
            (b"d=1;x", b"d=1;x"),
        ):
            self.assertEqual(self.rewrite(rule, value, b"/?n=c&f=samesite=none"), expected)

    def test_off(self) -> None:
        for name in ("domain", "path", "flags"):
            self.assertFalse(
                CookieRules.from_scope(load_location("/", f"proxy_cookie_{name} off;"))
            )

    def test_refused(self) -> None:
        for line in ("domain on", "path on", "flags on", "flags a quick", "path ~( x"):
            with self.assertRaises(ConfigurationError):
                load_location("/", f"proxy_cookie_{line};")

    @given(_TEXTS)
    def test_no_rule_no_change(self, value: bytes) -> None:
        rule = (
            "proxy_cookie_domain other x; proxy_cookie_path /other x; proxy_cookie_flags b secure;"
        )
        self.assertEqual(self.rewrite(rule, value), value)

    @given(_TEXTS)
    def test_once_is_enough(self, value: bytes) -> None:
        rule = "proxy_cookie_flags ~ secure samesite=lax;"
        once = self.rewrite(rule, b"a=" + value)
        self.assertEqual(self.rewrite(rule, once), once)
