"""``resolver`` and ``resolver_timeout``, in nginx's words."""

from __future__ import annotations

from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.config.errors import ConfigurationError
from imagefarm.proxy.names.directives import Nameserving, ResolverSettings
from imagefarm.proxy.names.reply import Kind
from imagefarm.proxy.names.resolvers import Resolvers
from imagefarm.proxy.peer import Address
from tests.proxy.support import load, load_location


def settings(text: str) -> ResolverSettings | None:
    return ResolverSettings.from_scope(load_location("/", "", text))


class ResolverTests(SynchronousTestCase):
    def test_values(self) -> None:
        here = Address("127.0.0.1", 53)
        for words, nameserving in (
            ("127.0.0.1", Nameserving((here,))),
            ("127.0.0.1 [::1]:5353", Nameserving((here, Address("::1", 5353)))),
            ("127.0.0.1 127.0.0.1:53", Nameserving((here,))),
            ("valid=1m 127.0.0.1", Nameserving((here,), valid=60)),
            ("127.0.0.1 ipv6=off", Nameserving((here,), ipv6=False)),
            ("127.0.0.1 ipv4=off status_zone=z",
             Nameserving((here,), ipv4=False, status_zone="z")),
        ):  # fmt: skip
            found = settings(f"resolver {words};")
            assert found is not None
            self.assertEqual(found, ResolverSettings(nameserving, 30.0))

    def test_kinds(self) -> None:
        here = (Address("127.0.0.1", 53),)
        self.assertEqual(Nameserving(here).kinds, (Kind.A, Kind.AAAA))
        self.assertEqual(Nameserving(here, ipv6=False).kinds, (Kind.A,))
        self.assertEqual(Nameserving(here, ipv4=False).kinds, (Kind.AAAA,))

    def test_none(self) -> None:
        self.assertIsNone(settings("resolver_timeout 5s;"))

    def test_inherited(self) -> None:
        text = "resolver 127.0.0.1; resolver_timeout 5s;"
        scope = load_location("/", "resolver 127.0.0.2;", text)
        found = ResolverSettings.from_scope(scope)
        assert found is not None
        self.assertEqual((found.nameserving.servers[0].host, found.timeout), ("127.0.0.2", 5.0))

    def test_errors(self) -> None:
        """The messages are those of nginx 1.22, but for ``ipv4``, which is younger."""
        for words, message in (
            ("off", 'host not found in resolver "off"'),
            ("127.0.0.1:99999", 'invalid port in resolver "127.0.0.1:99999"'),
            ("127.0.0.1:x", 'invalid port in resolver "127.0.0.1:x"'),
            (":53", 'no host in resolver ":53"'),
            ("[::1", 'invalid host in resolver "[::1"'),
            ("127.0.0.1:53/x", 'invalid host in resolver "127.0.0.1:53/x"'),
            ("http://192.0.2.1", 'invalid host in resolver "http://192.0.2.1"'),
            ("unix:/x", 'invalid host in resolver "unix:/x"'),
            ("127.0.0.1 valid=x", "invalid parameter: valid=x"),
            ("127.0.0.1 valid=", "invalid parameter: valid="),
            ("127.0.0.1 ipv6=maybe", "invalid parameter: ipv6=maybe"),
            ("127.0.0.1 ipv6=off ipv4=off", '"ipv4" and "ipv6" cannot both be "off"'),
            ("valid=10s", "no name servers defined"),
            ("", 'invalid number of arguments in "resolver" directive'),
            ("127.0.0.1; resolver 127.0.0.2", '"resolver" directive is duplicate'),
        ):
            with self.assertRaises(ConfigurationError) as caught:
                load(f"resolver {words};")
            self.assertIn(f"{message} in nginx.conf:", str(caught.exception))

    def test_one_resolver_for_the_same_settings(self) -> None:
        resolvers = Resolvers(MemoryReactorClock())
        one, same = settings("resolver 127.0.0.1;"), settings("resolver 127.0.0.1;")
        other = settings("resolver 127.0.0.1; resolver_timeout 5s;")
        assert one is not None and same is not None and other is not None
        self.assertIs(resolvers.get(one), resolvers.get(same))
        self.assertIsNot(resolvers.get(one), resolvers.get(other))
