from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from imagefarm.http.browsers import disables_keepalive
from imagefarm.http.headers import Headers
from imagefarm.http.message import RequestHead

SAFARI = b"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) Version/17.4 Safari/605.1.15"
CHROME = b"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) Chrome/120.0 Safari/537.36"
MSIE6 = b"Mozilla/4.0 (compatible; MSIE 6.0; Windows NT 5.1)"


def head(agent: bytes, method: bytes = b"GET") -> RequestHead:
    return RequestHead(method, b"/", (1, 1), Headers([(b"User-Agent", agent)]))


class BrowserTests(SynchronousTestCase):
    def test_msie6_only_after_a_post(self) -> None:
        wanted = frozenset({"msie6"})
        self.assertTrue(disables_keepalive(wanted, head(MSIE6, b"POST")))
        self.assertFalse(disables_keepalive(wanted, head(MSIE6)))
        self.assertFalse(disables_keepalive(frozenset(), head(MSIE6, b"POST")))

    def test_which_msie(self) -> None:
        for agent, old in (
            (b"MSIE 4.01; Windows", True),
            (b"MSIE 5.5; Windows", True),
            (MSIE6 + b" SV1", False),
            (b"MSIE 7.0; Windows", False),
            (b"MSIE 10.0; Windows", False),
            (b"MSIE 6.", False),
            (MSIE6 + b" Opera 8", False),
            (CHROME, False),
            (b"", False),
        ):
            found = disables_keepalive(frozenset({"msie6"}), head(agent, b"POST"))
            self.assertIs(found, old, agent)

    def test_safari(self) -> None:
        for agent, found in (
            (SAFARI, True),
            (CHROME, False),
            (MSIE6 + SAFARI, False),
            (SAFARI + b" Gecko/2010", False),
            (SAFARI + b" Opera", False),
            (SAFARI.replace(b"Mac OS X", b"Linux"), False),
            (b"", False),
        ):
            self.assertIs(disables_keepalive(frozenset({"safari"}), head(agent)), found, agent)
