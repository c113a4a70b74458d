"""``state``: what is written is what was there, and what is read is what was written."""

from __future__ import annotations

import os
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.config.errors import ConfigurationError
from imagefarm.proxy.peer import Address, Peer
from imagefarm.proxy.statefile import line, save

from .test_directives import groups

PATHS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1).map(
    lambda text: Address(path="/" + text)
)
HOSTS = st.ip_addresses().map(str)
PEERS = st.builds(
    Peer,
    st.builds(Address, HOSTS, st.integers(1, 65535)) | PATHS,
    weight=st.integers(1, 1000),
    max_fails=st.integers(0, 9),
    max_conns=st.integers(0, 9),
    fail_timeout=st.integers(0, 10**7).map(lambda number: number / 1000),
    slow_start=st.integers(0, 10**7).map(lambda number: number / 1000),
    backup=st.booleans(),
    down=st.booleans(),
    draining=st.booleans(),
)


class StateTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.path = Path(self.mktemp()).absolute()
        self.path.mkdir()
        self.path /= "back.conf"

    def read(self, more: str = "") -> list[Peer]:
        group = groups(f"upstream back {{ {more} state {self.path}; }}").find("back")
        self.assertEqual(group.state, str(self.path))
        return list(group.peers)

    def error(self, text: str, more: str = "") -> str:
        self.path.write_text(text)
        failure = self.assertRaises(ConfigurationError, self.read, more)
        return failure.problems[0].message.replace(str(self.path), "FILE")

    @given(st.lists(PEERS, max_size=5))
    def test_round_trip(self, peers: list[Peer]) -> None:
        save(str(self.path), peers)
        self.assertEqual(self.path.read_bytes(), "".join(map(line, peers)).encode())
        found = self.read()
        every = [peer for peer in peers if not peer.backup]
        every += [peer for peer in peers if peer.backup]
        self.assertEqual(list(map(line, found)), list(map(line, every)))
        self.assertEqual([peer.address for peer in found], [peer.address for peer in every])
        self.assertEqual(os.listdir(self.path.parent), ["back.conf"])

    def test_lines(self) -> None:
        peer = Peer(Address("10.0.0.1", 80))
        self.assertEqual(line(peer), "server 10.0.0.1:80;\n")
        peer.set_weight(5)
        peer.set_limits(0.0, max_conns=2, fail_timeout=0.5)
        peer.drain()
        self.assertEqual(
            line(peer),
            "server 10.0.0.1:80 weight=5 max_conns=2 fail_timeout=500ms drain;\n",
        )

    def test_nothing_yet(self) -> None:
        """Without servers there is nobody to ask, whatever the method."""
        for method in ("", "ip_hash;", "least_conn;", "hash $uri;", "hash $uri consistent;",
                       "random two;"):  # fmt: skip
            self.assertEqual(self.read(method), [])
            group = groups(f"upstream back {{ {method} state {self.path}; }}").find("back")
            self.assertIsNone(group.policy.choose(group.peers, b"key", 0.0, ()), method)

    def test_errors(self) -> None:
        for text, more, expected in (
            ("keepalive 3;", "", 'state file "FILE": "keepalive" is no server in line 1'),
            ("server localhost;", "", 'state file "FILE": "localhost" is no address'),
            ("server 10.0.0.1 weight=0;", "", 'invalid parameter "weight=0"'),
            ("server 10.0.0.1; server 10.0.0.2 backup;", "ip_hash;",
             'balancing method does not support parameter "backup"'),
            ("", "server 10.0.0.1;",
             '"state" directive is incompatible with "server" directive'),
        ):  # fmt: skip
            self.assertEqual(self.error(text, more), expected)
        self.assertIn('state file "FILE": ', self.error("server {"))

    def test_what_cannot_be_written(self) -> None:
        save(str(self.path), [Peer(Address("10.0.0.1", 80))])
        missing = self.path.parent / "none" / "back.conf"
        self.assertRaises(OSError, save, str(missing), [])
        self.assertRaises(OSError, save, str(self.path.parent), [])
        self.assertEqual(os.listdir(self.path.parent), ["back.conf"])
        self.assertEqual(self.path.read_text(), "server 10.0.0.1:80;\n")
