import os
import socket
import stat
import tempfile

from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.process.sockets import (
    INHERITED,
    INHERITED_BY_NGINX,
    Endpoint,
    ListenError,
    adopt,
    hand_over,
    inherited_from_nginx,
    open_socket,
)

LOOPBACK = Endpoint("127.0.0.1")


class EndpointTests(SynchronousTestCase):
    def test_text_is_nginx_s(self) -> None:
        for address, text in (
            (("", 80), "0.0.0.0:80"),
            (("127.0.0.1", 8080), "127.0.0.1:8080"),
            (("::", 80), "[::]:80"),
            (("unix:/run/a.sock", 0), "unix:/run/a.sock"),
        ):
            self.assertEqual(str(Endpoint.from_address(address)), text)

    def test_options_left_alone_have_the_defaults(self) -> None:
        self.assertEqual(Endpoint.from_address(("127.0.0.1", 0)), LOOPBACK)
        self.assertEqual(Endpoint.from_address(("", 1), backlog=5).backlog, 5)


class OpenTests(SynchronousTestCase):
    def open(self, endpoint: Endpoint) -> socket.socket:
        sock = open_socket(endpoint)
        self.addCleanup(sock.close)
        return sock

    def unix_path(self) -> str:
        # trial's own directories may be longer than the 107 bytes of sockaddr_un.
        directory = tempfile.mkdtemp()
        self.addCleanup(os.rmdir, directory)
        path = os.path.join(directory, "s")
        self.addCleanup(lambda: os.path.exists(path) and os.unlink(path))
        return path

    def connects(self, sock: socket.socket) -> None:
        with socket.socket(sock.family) as client:
            client.connect(sock.getsockname())
            client.settimeout(5)
            sock.setblocking(True)
            sock.accept()[0].close()
            self.assertEqual(client.recv(1), b"")

    def test_listens_without_blocking(self) -> None:
        sock = self.open(LOOPBACK)
        self.assertFalse(sock.getblocking())
        self.assertFalse(sock.get_inheritable())
        self.assertRaises(BlockingIOError, sock.accept)
        self.connects(sock)

    def test_ipv6_leaves_ipv4_alone(self) -> None:
        sock = self.open(Endpoint("::1"))
        self.assertEqual(sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY), 1)
        self.connects(sock)

    def test_options(self) -> None:
        sock = self.open(
            Endpoint("127.0.0.1", reuseport=True, keepalive=True, rcvbuf=9000, sndbuf=9000)
        )
        self.assertEqual(sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT), 1)
        self.assertEqual(sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE), 1)
        # Linux doubles what is asked for (socket(7)).
        self.assertEqual(sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF), 18000)
        self.assertEqual(sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF), 18000)

    def test_keepalive_and_the_options_of_tcp(self) -> None:
        def option(sock: socket.socket, name: int, level: int = socket.IPPROTO_TCP) -> int:
            return sock.getsockopt(level, name)

        sock = self.open(evolve(LOOPBACK, keepalive=(600, 0, 4), fastopen=7, deferred=True))
        self.assertEqual(option(sock, socket.SO_KEEPALIVE, socket.SOL_SOCKET), 1)
        self.assertEqual(option(sock, socket.TCP_KEEPIDLE), 600)
        self.assertEqual(option(sock, socket.TCP_KEEPCNT), 4)
        plain = self.open(LOOPBACK)
        same = socket.TCP_KEEPINTVL
        self.assertEqual(option(sock, same), option(plain, same))
        self.assertEqual(option(sock, socket.TCP_FASTOPEN), 7)
        self.assertGreaterEqual(option(sock, socket.TCP_DEFER_ACCEPT), 1)
        for wanted, value in (True, 1), (False, 0), (None, 0):
            sock = self.open(evolve(LOOPBACK, keepalive=wanted))
            self.assertEqual(option(sock, socket.SO_KEEPALIVE, socket.SOL_SOCKET), value)

    def test_unix_sockets_take_the_options_that_they_know(self) -> None:
        path = self.unix_path()
        wanted = Endpoint(
            path=path, reuseport=True, keepalive=(1, 2, 3), fastopen=1, deferred=True
        )
        self.connects(self.open(wanted))

    def test_port_in_use(self) -> None:
        port = self.open(LOOPBACK).getsockname()[1]
        error = self.assertRaises(ListenError, open_socket, Endpoint("127.0.0.1", port))
        self.assertEqual(
            str(error), f"bind() to 127.0.0.1:{port} failed (98: Address already in use)"
        )

    def test_address_of_another_machine(self) -> None:
        error = self.assertRaises(ListenError, open_socket, Endpoint("192.0.2.1", 8080))
        self.assertEqual(
            str(error), "bind() to 192.0.2.1:8080 failed (99: Cannot assign requested address)"
        )

    def test_unix(self) -> None:
        path = self.unix_path()
        sock = self.open(Endpoint(path=path))
        self.assertTrue(stat.S_ISSOCK(os.stat(path).st_mode))
        self.connects(sock)

    def test_unix_left_behind_by_a_crash(self) -> None:
        path = self.unix_path()
        open_socket(Endpoint(path=path)).close()
        self.connects(self.open(Endpoint(path=path)))

    def test_unix_in_use(self) -> None:
        path = self.unix_path()
        self.open(Endpoint(path=path))
        error = self.assertRaises(ListenError, open_socket, Endpoint(path=path))
        self.assertEqual(str(error), f"bind() to unix:{path} failed (98: Address already in use)")

    def test_unix_name_of_a_file_is_no_reason_to_remove_it(self) -> None:
        path = self.unix_path()
        with open(path, "wb"):
            pass
        self.assertRaises(ListenError, open_socket, Endpoint(path=path))
        self.assertTrue(os.path.isfile(path))


class InheritanceTests(SynchronousTestCase):
    def test_handed_over_and_adopted(self) -> None:
        sock = open_socket(LOOPBACK)
        inheritance = hand_over([(LOOPBACK, sock)], first=7)
        self.assertEqual(inheritance.environment, {INHERITED: "127.0.0.1:0=7;"})
        self.assertEqual(inheritance.fds, {7: sock.fileno()})
        # What the child does, where the number is the descriptor's own.
        [(name, adopted)] = adopt(f"127.0.0.1:0={sock.fileno()};")
        self.assertEqual(name, "127.0.0.1:0")
        self.assertEqual(adopted.getsockname(), sock.getsockname())
        self.assertFalse(adopted.get_inheritable())
        sock.detach()
        adopted.close()

    def test_from_nginx(self) -> None:
        """Numbers alone; what is no socket is left alone."""
        with open_socket(LOOPBACK) as sock, open("/dev/null", "rb") as other:
            environment = {INHERITED_BY_NGINX: f"{sock.fileno()};{other.fileno()}:x;"}
            address = f"127.0.0.1:{sock.getsockname()[1]}"
            self.assertEqual(inherited_from_nginx(environment), f"{address}={sock.fileno()};")
            self.assertEqual((environment, inherited_from_nginx(environment)), ({}, ""))

    def test_no_such_descriptor(self) -> None:
        error = self.assertRaises(ListenError, adopt, "a:1=9999;")
        self.assertEqual(str(error), 'inherited socket "a:1=9999" failed (9: Bad file descriptor)')

    def test_not_listening(self) -> None:
        with socket.socket() as sock:
            error = self.assertRaises(ListenError, adopt, f"a:1={sock.fileno()}")
            self.assertIn("is not listening", str(error))
            sock.detach()

    def test_empty(self) -> None:
        self.assertEqual(adopt(""), [])

    @given(st.text(alphabet="a:=;x", max_size=20))
    def test_malformed(self, text: str) -> None:
        if text.strip(";"):
            self.assertRaises(ListenError, adopt, text)
        else:
            self.assertEqual(adopt(text), [])
