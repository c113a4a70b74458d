"""The upstream block, addresses, and nginx's words for what is wrong with them."""

from __future__ import annotations

from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.config.errors import ConfigurationError, Invalid
from imagefarm.http.upstream import UnknownHost
from imagefarm.proxy.addresses import Authority, parse_authority, resolve
from imagefarm.proxy.destinations import MAX_DESTINATIONS
from imagefarm.proxy.groups import Groups
from imagefarm.proxy.peer import Address
from imagefarm.proxy.policies import (
    ConsistentHash,
    Hash,
    IpHash,
    LeastConn,
    Random,
    RoundRobin,
)
from imagefarm.proxy.settings import ProxySettings, location_prefix
from imagefarm.proxy.target import parse_url

from .support import load, load_location


def groups(text: str) -> Groups:
    return Groups.from_scope(load(text), MemoryReactorClock())


class UpstreamTests(SynchronousTestCase):
    def test_the_farms_upstream(self) -> None:
        group = groups(
            "upstream tving_image { server 127.0.0.1:8081; server 127.0.0.1:8082; keepalive 10; }"
        ).find("tving_image", 80)
        self.assertEqual(
            [peer.name for peer in group.peers.primary], [b"127.0.0.1:8081", b"127.0.0.1:8082"]
        )
        self.assertIsInstance(group.policy, RoundRobin)
        self.assertEqual(group._idle.settings.connections, 10)

    def test_parameters(self) -> None:
        group = groups(
            "upstream u { ip_hash; keepalive_requests 5; keepalive_timeout 1m; keepalive_time 1h;"
            "server 127.0.0.1 weight=3 max_fails=2 fail_timeout=5s max_conns=9;"
            "server [::1]:81 down; server unix:/run/x max_fails=0; }"
        ).find("u")
        self.assertIsInstance(group.policy, IpHash)
        first, second, third = group.peers.primary
        self.assertEqual(
            (first.weight, first.max_fails, first.fail_timeout, first.max_conns), (3, 2, 5.0, 9)
        )
        self.assertEqual((first.name, first.down, second.name, second.down),
                         (b"127.0.0.1:80", False, b"[::1]:81", True))  # fmt: skip
        self.assertEqual((third.address, third.max_fails), (Address(path="/run/x"), 0))
        settings = group._idle.settings
        self.assertEqual((settings.requests, settings.timeout, settings.time), (5, 60.0, 3600.0))
        self.assertEqual(settings.connections, 32)

    def test_methods(self) -> None:
        for words, kind in (
            ("", RoundRobin), ("least_conn;", LeastConn), ("hash $uri$arg_a;", Hash),
            ("hash $uri consistent;", ConsistentHash), ("ip_hash;", IpHash), ("random;", Random),
            ("random two;", Random), ("random two least_conn; zone z 64k; keepalive 4;", Random),
        ):  # fmt: skip
            made = groups(f"upstream u {{ {words} server 127.0.0.1; server 127.0.0.2; }}")
            self.assertIs(type(made.find("u").policy), kind)
            self.assertEqual(made.warnings, [])
        self.assertEqual(
            [random._two for word in ("", "two", "two least_conn")
             if isinstance(random := groups(f"upstream u {{ random {word}; server [::1]; }}")
                           .find("u").policy, Random)],
            [False, True, True],
        )  # fmt: skip

    def test_the_last_method_counts_and_nginx_warns(self) -> None:
        for words, kind in (
            ("least_conn; ip_hash;", IpHash),
            ("keepalive 4; least_conn;", LeastConn),
        ):
            made = groups(f"upstream u {{ {words} server 127.0.0.1; }}")
            self.assertIs(type(made.find("u").policy), kind)
            (warning,) = made.warnings
            self.assertIn("load balancing method redefined in nginx.conf:", str(warning))

    def test_slow_start_drain_and_the_name_for_the_ring(self) -> None:
        group = groups(
            "upstream u { least_conn; server localhost:81 slow_start=30s backup;"
            "server 127.0.0.1 drain; keepalive 7 local; }"
        ).find("u")
        self.assertEqual({p.slow_start for p in group.peers.backup}, {30.0})
        self.assertEqual({p.server for p in group.peers.backup}, {b"localhost:81"})
        (draining,) = group.peers.primary
        self.assertEqual((draining.state(0.0), draining.server), ("draining", b"127.0.0.1"))
        settings = group._idle.settings
        self.assertEqual((settings.connections, settings.local), (7, True))

    def test_a_name_becomes_a_peer_for_each_address(self) -> None:
        group = groups("upstream u { server localhost:81; }").find("u")
        self.assertIn(b"127.0.0.1:81", [peer.name for peer in group.peers.primary])

    def test_errors(self) -> None:
        for inside, words in (
            ("server 127.0.0.1 weight=0;", 'invalid parameter "weight=0"'),
            ("server 127.0.0.1 weight=x;", 'invalid parameter "weight=x"'),
            ("server 127.0.0.1 fail_timeout=x;", 'invalid parameter "fail_timeout=x"'),
            ("server 127.0.0.1 backup=1;", 'invalid parameter "backup=1"'),
            ("server 127.0.0.1 quickly;", 'invalid parameter "quickly"'),
            ("server 127.0.0.1:0;", 'invalid port in upstream "127.0.0.1:0"'),
            ("server 127.0.0.1:99999;", 'invalid port in upstream "127.0.0.1:99999"'),
            ("server :80;", 'no host in upstream ":80"'),
            ("server [::1;", 'invalid host in upstream "[::1"'),
            ("server [x]:1;", 'invalid IPv6 address in upstream "[x]:1"'),
            ("server a/b;", 'invalid host in upstream "a/b"'),
            ("server unix:;", 'no path in the unix domain socket in upstream "unix:"'),
            ("server nowhere.invalid;", 'host not found in upstream "nowhere.invalid"'),
            ("", "no servers are inside upstream"),
            ("server 127.0.0.1 backup;", 'no servers in upstream "u"'),
            ("ip_hash; server 127.0.0.1; server 127.0.0.2 backup;",
             'balancing method does not support parameter "backup"'),
            ("hash $uri; server 127.0.0.1 slow_start=5s;",
             'balancing method does not support parameter "slow_start"'),
            ("server 127.0.0.1; server 127.0.0.2 backup; random;",
             'balancing method does not support parameter "backup"'),
            ("hash $uri consistently; server 127.0.0.1;", 'invalid parameter "consistently"'),
            ("random three; server 127.0.0.1;", 'invalid parameter "three"'),
            ("random two ip_hash; server 127.0.0.1;", 'invalid parameter "ip_hash"'),
            ("server 127.0.0.1 slow_start=x;", 'invalid parameter "slow_start=x"'),
            ("keepalive x; server 127.0.0.1;", 'invalid value "x" in "keepalive" directive'),
            ("keepalive 1 global; server 127.0.0.1;", 'invalid parameter "global"'),
            ("zone a 1x; server 127.0.0.1;", 'invalid zone size "1x"'),
            ("zone a 4k; server 127.0.0.1;", 'zone "a" is too small'),
            ("server 127.0.0.1; } upstream u { server 127.0.0.1;", 'duplicate upstream "u"'),
        ):  # fmt: skip
            with self.assertRaises(ConfigurationError) as caught:
                groups(f"upstream u {{ {inside} }}")
            self.assertIn(f"{words} in nginx.conf:2", str(caught.exception))

    def test_implicit_groups_are_shared_and_keep_nothing(self) -> None:
        every = groups("upstream u { server 127.0.0.1; }")
        group = every.find("127.0.0.1:81", 80)
        self.assertIs(every.find("127.0.0.1:81", 80), group)
        self.assertEqual(group._idle.settings.connections, 0)
        self.assertIsNot(every.find("127.0.0.1", 80), every.find("127.0.0.1", 443))
        self.assertEqual(repr(every), "<Groups ['u']>")
        for authority, words in (
            ("u:80", 'upstream "u" may not have port 80'),
            ("127.0.0.1", 'no port in upstream "127.0.0.1"'),
            ("nowhere.invalid:1", 'host not found in upstream "nowhere.invalid"'),
        ):
            with self.assertRaises(Invalid) as caught:
                every.find(authority)
            self.assertEqual(str(caught.exception), words)

    def test_dynamic_groups(self) -> None:
        every = groups("upstream u { server 127.0.0.1; }")
        self.assertIs(every.dynamic("u"), every.find("u"))
        group = every.dynamic("127.0.0.1:81")
        self.assertIs(every.dynamic("127.0.0.1:81"), group)
        self.assertEqual(every.dynamic("unix:/x").peers.primary[0].name, b"unix:/x")
        with self.assertRaises(UnknownHost) as caught:
            every.dynamic("localhost", 80)
        self.assertEqual(str(caught.exception), "no resolver defined to resolve localhost")
        for port in range(1, MAX_DESTINATIONS + 5):
            every.dynamic(f"127.0.0.2:{port}")
        self.assertEqual(len(every._destinations._made), MAX_DESTINATIONS)
        every.stop()

    def test_a_variable_that_names_what_another_line_names_without(self) -> None:
        """As in nginx it is the same group, and its name was resolved at the start."""
        every = groups("upstream u { server 127.0.0.1; }")
        fixed = every.find("localhost", 80)
        self.assertIs(every.dynamic("localhost", 80), fixed)
        self.assertIs(every.dynamic("localhost:80", 80), fixed)
        with self.assertRaises(UnknownHost):
            every.dynamic("localhost:81", 80)
        with self.assertRaises(UnknownHost):
            every.dynamic("u:80", 80)


class AddressTests(SynchronousTestCase):
    def test_parse(self) -> None:
        for text, authority in (
            ("a.example", Authority("a.example")),
            ("a.example:8080", Authority("a.example", 8080)),
            ("[::1]:80", Authority("::1", 80)),
            ("unix:/run/a:b", Authority(path="/run/a:b")),
        ):
            self.assertEqual(parse_authority(text), authority)

    def test_numeric_addresses_need_no_resolver(self) -> None:
        self.assertEqual(resolve(Authority("::0001", 5), 80, ""), (Address("::1", 5),))


class UrlTests(SynchronousTestCase):
    def test_parts(self) -> None:
        for text, scheme, authority, uri in (
            ("http://a", "http", "a", b""),
            ("HTTPS://a:1/", "https", "a:1", b"/"),
            ("http://a?x", "http", "a", b"/?x"),
            ("http://unix:/run/x", "http", "unix:/run/x", b""),
            ("http://unix:/run/x:/y:z", "http", "unix:/run/x", b"/y:z"),
        ):
            target = parse_url(text)
            self.assertEqual(
                (target.scheme, target.authority, target.uri), (scheme, authority, uri)
            )

    def test_errors(self) -> None:
        for text, words in (
            ("ftp://a", "invalid URL prefix"),
            ("127.0.0.1", "invalid URL prefix"),
            ("http://", 'no host in upstream ""'),
            ("http:///x", 'no host in upstream "/x"'),
            ("http://a:b", 'invalid port in upstream "a:b"'),
        ):
            with self.assertRaises(Invalid) as caught:
                parse_url(text)
            self.assertEqual(str(caught.exception), words)


class SettingsTests(SynchronousTestCase):
    def test_no_proxy_pass(self) -> None:
        self.assertIsNone(ProxySettings.from_scope(load_location("/", "")))

    def test_errors(self) -> None:
        for inside, words in (
            ("proxy_pass x;", "invalid URL prefix"),
            ("proxy_pass http://$nothing;", 'unknown "nothing" variable'),
            ("proxy_redirect maybe;", 'invalid parameter "maybe"'),
            ("proxy_next_upstream error http_501;", 'invalid value "http_501"'),
            ("proxy_ignore_headers Cookie;", 'invalid value "Cookie"'),
            ("proxy_http_version 2;", 'invalid value "2"'),
            ("proxy_redirect ~( x;", 'missing ), unterminated subpattern in "("'),
        ):
            with self.assertRaises(ConfigurationError) as caught:
                load_location("/", inside)
            self.assertIn(words, str(caught.exception))

    def test_inheritance_of_lists(self) -> None:
        scope = load_location(
            "/", "proxy_pass http://u; proxy_set_header A 1;",
            "proxy_set_header B 2; proxy_hide_header X;",
        )  # fmt: skip
        settings = ProxySettings.from_scope(scope)
        assert settings is not None
        self.assertEqual([name for name, _ in settings.set_headers], [b"A"])
        self.assertIn(b"x", settings.hidden)

    def test_ignored_headers(self) -> None:
        scope = load_location("/", "proxy_pass http://u; proxy_ignore_headers Vary Expires;")
        settings = ProxySettings.from_scope(scope)
        assert settings is not None
        self.assertEqual(settings.ignore_headers, {b"vary", b"expires"})

    def test_prefixes(self) -> None:
        for words, prefix in (
            ("/a", b"/a"), ("= /a", b"/a"), ("=/a", b"/a"), ("^~ /a", b"/a"), ("~ /a", None),
            ("~*/a", None), ("@a", None),
        ):  # fmt: skip
            scope = load_location(words, "")
            self.assertEqual(location_prefix(scope.directive), prefix)
