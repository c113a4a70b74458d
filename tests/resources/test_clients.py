"""Servers that verify clients, and those who come by another name."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from attrs import frozen
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.http.tls_verify import ClientCheck
from imagefarm.resources.matching import ServerName, ServerNames
from imagefarm.resources.server import MISDIRECTED, Farm

ADDRESS = ("127.0.0.1", 443)


@frozen
class Check(ClientCheck):
    """Finds nothing wrong with anybody."""

    def problem(self, request: Any) -> None:
        return None


def host(check: ClientCheck | None) -> Any:
    return SimpleNamespace(settings=SimpleNamespace(client=check))


MINE, OTHERS = Check("on", ("mine",)), Check("on", ("others",))


class RefusalTests(SynchronousTestCase):
    def refused(self, hosts: dict[bytes, Any], sni: bytes | None, asked: bytes) -> bool:
        """Whether the request is misdirected; the first of ``hosts`` is the default server."""
        named = [((ServerName(name),), each) for name, each in hosts.items()]
        farm = Farm({ADDRESS: ServerNames(named, next(iter(hosts.values())))})
        peer = SimpleNamespace(server=ADDRESS, sni=sni, handle=object())
        request: Any = SimpleNamespace(peer=peer, host=asked)
        found = farm.refusal(request, hosts.get(asked) or next(iter(hosts.values())))
        if found is not None:
            self.assertEqual(found[0], MISDIRECTED)
        return found is not None

    def test_by_name(self) -> None:
        hosts = {b"open": host(None), b"mine": host(MINE), b"too": host(MINE)}
        for sni, asked, expected in (
            (b"mine", b"mine", False),
            (b"MINE", b"mine", False),
            (b"open", b"mine", True),
            (b"too", b"mine", True),
            (b"mine", b"open", False),
            (b"nobody", b"mine", False),  # nobody was asked for a certificate: 496
            (None, b"mine", False),
        ):
            self.assertEqual(self.refused(hosts, sni, asked), expected, (sni, asked))

    def test_without_a_name(self) -> None:
        """The default server has verified the client, by what it trusts."""
        hosts = {b"mine": host(MINE), b"too": host(MINE), b"others": host(OTHERS)}
        for asked, expected in ((b"mine", False), (b"too", False), (b"others", True)):
            for sni in (None, b"", b"nobody"):
                self.assertEqual(self.refused(hosts, sni, asked), expected, (sni, asked))

    def test_alone(self) -> None:
        for sni in (None, b"mine", b"nobody"):
            self.assertFalse(self.refused({b"mine": host(MINE)}, sni, b"any"))
