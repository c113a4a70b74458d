"""``listen``, and what `Builder` makes of several of them."""

from __future__ import annotations

import os

from twisted.trial.unittest import SynchronousTestCase

from imagefarm.config.errors import ConfigurationError, Invalid
from imagefarm.resources.listen import Listen, parse_address, shared

from .site import Site


class AddressTests(SynchronousTestCase):
    def test_forms(self) -> None:
        for text, expected in {
            "8080": ("", 8080), "*:80": ("", 80), "*": ("", 80), "0.0.0.0:81": ("", 81),
            "127.0.0.1": ("127.0.0.1", 80), "127.0.0.1:1": ("127.0.0.1", 1),
            "localhost": ("127.0.0.1", 80), "localhost:65535": ("127.0.0.1", 65535),
            "[::]": ("::", 80), "[::1]:8080": ("::1", 8080), "[0:0::1]:1": ("::1", 1),
            "unix:/a b": ("unix:/a b", 0),
        }.items():  # fmt: skip
            self.assertEqual(parse_address(text), expected, text)

    def test_errors(self) -> None:
        of = ' of the "listen" directive'
        for text, expected in {
            "0": f'invalid port in "0"{of}', "65536": f'invalid port in "65536"{of}',
            "a:b": f'invalid port in "a:b"{of}', "127.0.0.1:": f'invalid port in "127.0.0.1:"{of}',
            "127.0.0.1:8_0": f'invalid port in "127.0.0.1:8_0"{of}',
            "[::1": f'invalid host in "[::1"{of}', "[::1]80": f'invalid host in "[::1]80"{of}',
            "[x]": f'host not found in "[x]"{of}', "nowhere": f'host not found in "nowhere"{of}',
            "300.0.0.1:1": f'host not found in "300.0.0.1:1"{of}',
            "unix:a": 'the "unix:a" socket path must be absolute in "listen" directive',
            "": f'host not found in ""{of}',
        }.items():  # fmt: skip
            error = self.assertRaises(Invalid, parse_address, text)
            self.assertEqual(str(error), expected, text)

    def test_text(self) -> None:
        for address, expected in {
            ("", 80): "0.0.0.0:80", ("::", 80): "[::]:80", ("unix:/s", 0): "unix:/s",
            ("127.0.0.1", 1): "127.0.0.1:1",
        }.items():  # fmt: skip
            self.assertEqual(Listen(address).text, expected)


class BuildTests(SynchronousTestCase):
    def listeners(self, text: str) -> list[Listen]:
        site = Site(self.addCleanup, text, whole=True)
        return [listener.listen for listener in site.tree.listeners]

    def test_parameters(self) -> None:
        (found,) = self.listeners(
            "server { listen 81 default_server ssl backlog=5 rcvbuf=8k sndbuf=1m reuseport; }"
        )
        self.assertEqual((found.address, found.default, found.ssl), (("", 81), True, True))
        self.assertEqual((found.backlog, found.rcvbuf, found.sndbuf), (5, 8192, 1 << 20))
        self.assertTrue(found.reuseport)

    def test_options_of_the_socket(self) -> None:
        (found,) = self.listeners(
            "server { listen [::]:81 proxy_protocol deferred fastopen=3 ipv6only=off"
            " so_keepalive=10m::3; } server { listen [::]:81 ssl default_server; }"
        )
        self.assertEqual(
            found,
            Listen(
                ("::", 81), default=False, ssl=True, proxy_protocol=True, explicit=True,
                fastopen=3, deferred=True, ipv6only=False, so_keepalive=(600, 0, 3),
            ),
        )  # fmt: skip
        for words, expected in {
            "so_keepalive=on": True, "so_keepalive=off": False, "so_keepalive=30": (30, 0, 0),
            "so_keepalive=:5s": (0, 5, 0), "so_keepalive=1m:2:3": (60, 2, 3), "bind": None,
        }.items():  # fmt: skip
            (found,) = self.listeners(f"server {{ listen 81 {words}; }}")
            self.assertEqual((found.so_keepalive, found.explicit), (expected, True), words)
        (found,) = self.listeners("server { listen 81 ssl default_server proxy_protocol; }")
        self.assertFalse(found.explicit)

    def test_accepted_without_effect(self) -> None:
        site = Site(self.addCleanup, "server { listen 81 http2 accept_filter=x; }", whole=True)
        self.assertEqual(len(site.warnings), 2)

    def test_which_addresses_are_bound(self) -> None:
        """A wildcard takes its port's other addresses along, but for those with options."""
        found = self.listeners(
            "server { listen 127.0.0.1:81; listen 81; listen 127.0.0.2:81 bind; listen [::1]:81;"
            " listen 127.0.0.1:82; listen 127.0.0.2:82; listen unix:/s; listen 127.0.0.3:81;"
            " listen [::]:83; listen [::1]:83; listen 127.0.0.1:83; }"
        )
        self.assertEqual(
            {a.text: [b.text for b in others] for a, others in shared(found).items()},
            {
                "0.0.0.0:81": ["127.0.0.1:81", "127.0.0.3:81"],
                "127.0.0.2:81": [],
                "[::1]:81": [],
                "127.0.0.1:82": [],
                "127.0.0.2:82": [],
                "unix:/s": [],
                "[::]:83": ["[::1]:83"],
                "127.0.0.1:83": [],
            },
        )

    def test_default(self) -> None:
        port = 80 if os.geteuid() == 0 else 8000
        self.assertEqual([found.address for found in self.listeners("server { }")], [("", port)])

    def test_ports_in_a_range(self) -> None:
        found = self.listeners("server { listen 127.0.0.1:81-83 ssl; listen [::1]:90-90; }")
        self.assertEqual(
            [(listen.address, listen.ports, listen.ssl) for listen in found],
            [
                (("127.0.0.1", 81), 1, True), (("127.0.0.1", 82), 1, True),
                (("127.0.0.1", 83), 1, True), (("::1", 90), 1, False),
            ],
        )  # fmt: skip

    def test_one_socket_for_servers_of_one_address(self) -> None:
        found = self.listeners(
            "server { listen 80; } server { listen *:80 ssl backlog=9; } server { listen 81; }"
        )
        self.assertEqual(
            [(listen.address, listen.ssl, listen.backlog) for listen in found],
            [(("", 80), True, 9), (("", 81), False, None)],
        )

    def test_which_server(self) -> None:
        site = Site(
            self.addCleanup,
            "server { listen 80; server_name a; return 200 a; }"
            "server { listen 80 default_server; listen 81; server_name b; return 200 b; }"
            "server { listen 81; server_name c ''; return 200 c; }",
            whole=True,
        )
        for port, host, expected in (
            (80, b"a", b"a"), (80, b"b", b"b"), (80, b"x", b"b"), (80, b"c", b"b"),
            (81, b"a", b"b"), (81, b"c", b"c"), (81, b"", b"c"), (80, b"", b"b"),
        ):  # fmt: skip
            shown = site.ask("/", host=host, server=("", port))
            self.assertEqual(shown.body, expected, (port, host))

    def test_errors(self) -> None:
        for words, expected in {
            "80 unheard": 'invalid parameter "unheard"',
            "80 ssl=on": 'invalid parameter "ssl=on"',
            "80:x": 'invalid port in "80:x" of the "listen" directive',
            "80 backlog=-1": 'invalid backlog "backlog=-1"',
            "80 backlog=0": 'invalid backlog "backlog=0"',
            "80 rcvbuf=x": 'invalid rcvbuf "rcvbuf=x"',
            "80 sndbuf=": 'invalid sndbuf "sndbuf="',
            "80 fastopen=x": 'invalid fastopen "fastopen=x"',
            "80 ipv6only=xx": 'invalid parameter "ipv6only=xx"',
            "80 so_keepalive=": 'invalid so_keepalive value: ""',
            "80 so_keepalive=::": 'invalid so_keepalive value: "::"',
            "80 so_keepalive=10m:x": 'invalid so_keepalive value: "10m:x"',
            "80 so_keepalive=1:2:3:4": 'invalid so_keepalive value: "1:2:3:4"',
            "80 deferred=on": 'invalid parameter "deferred=on"',
            "80 backlog": 'invalid parameter "backlog"',
            "80 setfib=1": 'invalid parameter "setfib=1"',
        }.items():
            error = self.assertRaises(
                ConfigurationError, self.listeners, f"server {{ listen {words}; }}"
            )
            self.assertEqual(error.problems[0].message, expected)
