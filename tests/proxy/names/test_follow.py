"""Names that are followed, and the groups whose peers they are."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.config.errors import ConfigurationError
from imagefarm.http.headers import Headers
from imagefarm.http.upstream import ExchangeRules, NoLivePeers, Outgoing
from imagefarm.proxy.connection import HttpConnector
from imagefarm.proxy.group import Group
from imagefarm.proxy.groups import Groups
from imagefarm.proxy.names.cache import MAX_STALE, NameCache
from imagefarm.proxy.names.follow import Follower, Named, Place
from imagefarm.proxy.names.reply import Kind, Reply, Service
from imagefarm.proxy.names.resolver import Resolver
from imagefarm.proxy.names.resolvers import Resolvers
from imagefarm.proxy.peer import Address, Peer
from tests.proxy.support import load, make_request

from .test_resolver import Asked

A, SRV = Kind.A, Kind.SRV
ONE, TWO, THREE = (Address(f"192.0.2.{n}", 81) for n in (1, 2, 3))


class FollowTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = MemoryReactorClock()
        self.asked = Asked()
        self.lines: list[str] = []
        globalLogPublisher.addObserver(self.observe)
        self.addCleanup(globalLogPublisher.removeObserver, self.observe)

    def observe(self, event: dict[str, Any]) -> None:
        if "imagefarm" in event["log_namespace"]:
            self.lines.append(event["log_format"].format(**event))

    def resolver(self) -> Resolver:
        return Resolver(self.clock, self.asked, (A,), NameCache())


class FollowerTests(FollowTestCase):
    def follow(self, service: str = "") -> Follower:
        self.told: list[tuple[Place, ...]] = []
        named = Named("a", 81, service)
        follower = Follower(self.resolver(), named, "backend", self.told.append)
        follower.start()
        return follower

    def test_asked_again_when_it_expires(self) -> None:
        self.follow()
        self.asked.answer("a", A, "192.0.2.1", ttl=10)
        self.assertEqual(self.told, [(Place(ONE),)])
        self.clock.advance(9.9)
        self.assertEqual(len(self.asked.log), 1)
        self.clock.advance(0.1)
        self.asked.answer("a", A, "192.0.2.1", "192.0.2.2")
        self.assertEqual(self.told[1:], [(Place(ONE), Place(TWO))])

    def test_the_order_means_nothing(self) -> None:
        self.follow()
        self.asked.answer("a", A, "192.0.2.1", "192.0.2.2", ttl=1)
        self.clock.advance(1)
        self.asked.answer("a", A, "192.0.2.2", "192.0.2.1")
        self.assertEqual(len(self.told), 1)

    def test_old_addresses_stay_while_nobody_answers(self) -> None:
        self.follow()
        self.asked.answer("a", A, "192.0.2.1", ttl=10)
        for wait in (10, 1, 2, 4, 8, 8):
            self.clock.advance(wait)
            self.asked.fail("a", A)
        self.assertEqual(len(self.told), 1)
        self.assertEqual(
            self.lines[-1],
            "a could not be resolved (110: Operation timed out), its old addresses stay "
            'in upstream "backend"',
        )
        self.clock.advance(8)
        self.asked.answer("a", A, "192.0.2.2")
        self.assertEqual(self.told[1:], [(Place(TWO),)])

    def test_but_not_for_ever(self) -> None:
        self.follow()
        self.asked.answer("a", A, "192.0.2.1", ttl=10)
        self.clock.advance(10)
        self.asked.fail("a", A)
        self.clock.advance(MAX_STALE)
        self.asked.fail("a", A, 2)
        self.assertEqual(self.told[1:], [()])

    def test_a_name_that_is_gone(self) -> None:
        self.follow()
        self.asked.answer("a", A, "192.0.2.1", ttl=10)
        self.clock.advance(10)
        self.asked.reply("a", A, Reply(3, negative_ttl=7))
        self.assertEqual(self.told[1:], [()])
        self.assertEqual(
            self.lines, ['a could not be resolved (3: Host not found) in upstream "backend"']
        )
        self.clock.advance(6.9)
        self.assertEqual(len(self.asked.log), 2)
        self.clock.advance(0.1)
        self.asked.answer("a", A, "192.0.2.1")
        self.assertEqual(self.told[2:], [(Place(ONE),)])

    def test_failure_from_the_beginning(self) -> None:
        self.follow()
        for _ in range(4):
            self.asked.fail("a", A)
            self.clock.advance(1)
        self.assertEqual(self.told, [()])
        self.asked.answer("a", A, "192.0.2.1")
        self.assertEqual(self.told, [(), (Place(ONE),)])

    def test_stop(self) -> None:
        for answered in (False, True):
            follower = self.follow()
            if answered:
                self.asked.answer("a", A, "192.0.2.1")
            follower.stop()
            self.assertEqual(self.clock.getDelayedCalls(), [])
            self.asked.open.clear()
        self.assertEqual(self.told, [(Place(ONE),)])

    # Services (RFC 2782)

    def test_names_of_services(self) -> None:
        for service, name in (
            ("http", "_http._tcp.a"), ("_http._tcp", "_http._tcp.a"), ("one.two", "one.two.a")
        ):  # fmt: skip
            self.assertEqual(Named("a", 80, service).srv_name, name)

    def test_services(self) -> None:
        self.follow("http")
        self.asked.answer(
            "_http._tcp.a", SRV, Service(10, 5, 81, "b"), Service(10, 0, 82, "c"),
            Service(20, 1, 83, "b"), ttl=30,
        )  # fmt: skip
        self.asked.answer("b", A, "192.0.2.1", "192.0.2.2", ttl=20)
        self.assertEqual(self.told, [])
        self.asked.answer("c", A, "192.0.2.3", ttl=40)
        self.assertEqual(
            self.told,
            [
                (
                    Place(ONE, 5),
                    Place(TWO, 5),
                    Place(Address("192.0.2.3", 82), 0),
                    Place(Address("192.0.2.1", 83), 1, spare=True),
                    Place(Address("192.0.2.2", 83), 1, spare=True),
                )
            ],
        )
        self.clock.advance(20)
        self.assertEqual([question.name for question in self.asked.open], ["b"])

    def test_a_target_that_is_nowhere(self) -> None:
        self.follow("http")
        services = Service(1, 1, 81, "b"), Service(1, 1, 81, "c")
        self.asked.answer("_http._tcp.a", SRV, *services)
        self.asked.fail("b", A, 2)
        self.asked.answer("c", A, "192.0.2.1")
        self.assertEqual(self.told, [(Place(ONE, 1),)])
        self.assertEqual(
            self.lines, ['b could not be resolved (2: Server failure) in upstream "backend"']
        )

    def test_no_target_is_anywhere(self) -> None:
        """Nobody can say: what is known stays."""
        self.follow("http")
        self.asked.answer("_http._tcp.a", SRV, Service(1, 1, 81, "b"), ttl=5)
        self.asked.answer("b", A, "192.0.2.1", ttl=5)
        self.clock.advance(5)
        self.asked.answer("_http._tcp.a", SRV, Service(1, 1, 81, "c"), ttl=5)
        self.asked.fail("c", A, 2)
        self.assertEqual(self.told, [(Place(ONE, 1),)])

    def test_no_such_service(self) -> None:
        self.follow("http")
        self.asked.answer("_http._tcp.a", SRV)
        self.assertEqual(self.told, [()])


class GroupTests(FollowTestCase):
    """``upstream`` blocks with ``resolve``."""

    def groups(self, inside: str, outside: str = "resolver 127.0.0.1;") -> Groups:
        self.patch(Resolvers, "get", lambda _, settings: self.resolver())
        self.every = Groups.from_scope(load(f"{outside} upstream u {{ {inside} }}"), self.clock)
        self.every.start()
        return self.every

    def group(self, inside: str) -> Group:
        return self.groups(inside).find("u")

    def ask(self, group: Group) -> Any:
        self.request = make_request()
        outgoing = Outgoing(b"GET", b"/", Headers([(b"Host", b"h")]))
        return group.exchange(self.request, outgoing, ExchangeRules(HttpConnector(self.clock)))

    def test_peers_change_and_those_that_stay_keep_what_they_have(self) -> None:
        group = self.group("server a:81 resolve weight=3 max_fails=2; server 192.0.2.9;")
        (fixed,) = group.peers
        self.asked.answer("a", A, "192.0.2.1", "192.0.2.2", ttl=5)
        one, two, last = group.peers
        self.assertEqual((one.address, two.address, last), (ONE, TWO, fixed))
        self.assertEqual((one.weight, one.max_fails, one.server), (3, 2, b"a:81"))
        two.fails = 1
        self.clock.advance(5)
        self.asked.answer("a", A, "192.0.2.2", "192.0.2.3")
        self.assertEqual([peer.address for peer in group.peers][:2], [TWO, THREE])
        self.assertIs(next(iter(group.peers)), two)
        self.assertEqual(two.fails, 1)
        self.assertEqual(
            self.lines,
            [
                'addresses of a:81 in upstream "u": 192.0.2.1:81, 192.0.2.2:81; '
                "new: 192.0.2.1:81, 192.0.2.2:81; gone: none",
                'addresses of a:81 in upstream "u": 192.0.2.2:81, 192.0.2.3:81; '
                "new: 192.0.2.3:81; gone: 192.0.2.1:81",
            ],
        )

    def test_servers_that_others_have_added_stay(self) -> None:
        group = self.group("server a:81 resolve;")
        self.asked.answer("a", A, "192.0.2.1", ttl=5)
        added = Peer(Address("192.0.2.8", 80))
        group.replace([*group.peers, added])
        for address in ("192.0.2.2", "192.0.2.3"):
            self.clock.advance(5)
            self.asked.answer("a", A, address, ttl=5)
            self.assertEqual([peer.address.host for peer in group.peers], [address, "192.0.2.8"])
        self.assertIs(tuple(group.peers)[1], added)

    def test_services_have_ranks_and_weights(self) -> None:
        group = self.group("server a resolve service=http weight=4;")
        self.asked.answer(
            "_http._tcp.a", SRV, Service(1, 7, 81, "b"), Service(1, 0, 82, "b"),
            Service(2, 1, 83, "b"),
        )  # fmt: skip
        self.asked.answer("b", A, "192.0.2.1")
        seen = [(peer.address.port, peer.weight, peer.backup) for peer in group.peers]
        self.assertEqual(seen, [(81, 7, False), (82, 4, False), (83, 1, True)])

    def test_spare_services_of_a_backup_are_left_out(self) -> None:
        group = self.group("server 192.0.2.9; server a resolve service=http backup;")
        self.asked.answer("_http._tcp.a", SRV, Service(1, 1, 81, "b"), Service(2, 1, 82, "b"))
        self.asked.answer("b", A, "192.0.2.1")
        self.assertEqual([peer.address for peer in group.peers.backup], [ONE])

    def test_requests_wait_for_the_first_answer(self) -> None:
        group = self.group("server a:81 resolve; server b:81 resolve;")
        waiting, gone = self.ask(group), self.ask(group)
        self.request.on_gone[0]()
        self.failureResultOf(gone, CancelledError)
        self.asked.fail("b", A)
        self.assertEqual(self.clock.tcpClients, [])
        self.asked.answer("a", A, "192.0.2.1")
        self.assertEqual([client[:2] for client in self.clock.tcpClients], [("192.0.2.1", 81)])
        self.assertNoResult(waiting)

    def test_nor_longer_than_somebody_can_answer(self) -> None:
        group = self.group("server a:81 resolve; server b:81 resolve;")
        waiting = self.ask(group)
        self.asked.fail("b", A)
        self.assertNoResult(waiting)
        self.asked.fail("a", A)
        self.failureResultOf(waiting, NoLivePeers)
        self.failureResultOf(self.ask(group), NoLivePeers)

    def test_nobody_waits_where_another_server_is_there(self) -> None:
        group = self.group("server a:81 resolve; server 192.0.2.9:80;")
        self.ask(group)
        self.assertEqual([client[:2] for client in self.clock.tcpClients], [("192.0.2.9", 80)])

    def test_the_name_is_gone(self) -> None:
        for method in ("", "least_conn;", "ip_hash;", "hash $arg_k;", "hash $arg_k consistent;",
                       "random;", "random two;"):  # fmt: skip
            self.asked.log.clear()
            group = self.group(f"{method} server a:81 resolve;")
            self.asked.answer("a", A, "192.0.2.1", ttl=5)
            self.ask(group)
            self.clock.advance(5)
            self.asked.answer("a", A)
            self.failureResultOf(self.ask(group), NoLivePeers)
            self.clock.advance(5)
            self.asked.answer("a", A, "192.0.2.2")
            self.ask(group)
            self.assertEqual(self.clock.tcpClients[-1][:2], ("192.0.2.2", 81), method)
            self.every.stop()
            self.asked.open.clear()

    def test_stop(self) -> None:
        self.group("server a:81 resolve;")
        self.every.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_addresses_need_no_following(self) -> None:
        group = self.groups("server 192.0.2.1:81 resolve; server unix:/x resolve;", "").find("u")
        self.assertEqual([peer.name for peer in group.peers], [b"192.0.2.1:81", b"unix:/x"])
        self.assertEqual(self.asked.log, [])

    def test_resolvers_of_blocks(self) -> None:
        self.groups("resolver 192.0.2.5; server a resolve;", "")
        self.assertEqual(len(self.asked.log), 1)

    def test_errors(self) -> None:
        for inside, words in (
            ("server a resolve;",
             'no resolver defined to resolve names at run time in upstream "u"'),
            ("server a resolve backup;", 'no servers in upstream "u"'),
            ("server a service=;", "service is empty"),
            ("server a service=http;",
             'service upstream "a" requires "resolve" parameter'),
            ("server a:80 resolve service=http;", 'service upstream "a:80" may not have port'),
            ("server a resolve=on;", 'invalid parameter "resolve=on"'),
        ):  # fmt: skip
            with self.assertRaises(ConfigurationError) as caught:
                self.groups(inside, "")
            self.assertIn(f"{words} in nginx.conf:", str(caught.exception))
