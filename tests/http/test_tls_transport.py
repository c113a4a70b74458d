"""TLS on the socket: handshakes, and bytes both ways."""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from OpenSSL import SSL
from twisted.internet import reactor
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.interfaces import ISSLTransport
from twisted.internet.threads import deferToThread

from imagefarm.http.message import Request, Response
from imagefarm.http.openssl import RECORD
from imagefarm.http.tls_context import make_context
from imagefarm.http.tls_transport import TlsFactory
from tests.support.tlsclient import Client, trusting

from .fakes import ScriptedStream, text
from .tls_case import GET, TlsCase


class HandshakeTests(TlsCase):
    @inlineCallbacks
    def test_byte_by_byte(self) -> Any:
        def slowly(sock: socket.socket, data: bytes) -> None:
            for index in range(len(data)):
                sock.sendall(data[index : index + 1])

        def script(client: Client) -> bytes:
            client.handshake(lambda data: slowly(client.sock, data))
            slowly(client.sock, client.send(GET % b"/slow"))
            return client.answer()

        self.assertEqual((yield self.run_client(script)), b"GET /slow")

    @inlineCallbacks
    def test_cut_at_every_byte(self) -> Any:
        """Of the ClientHello, then of all that follows it: the server lets go each time."""

        def script(client: Client) -> int:
            hello = client.flight()
            for length in range(len(hello)):
                with self.connect() as sock:
                    sock.sendall(hello[:length])
                    if length % 2:
                        sock.shutdown(socket.SHUT_WR)
                        while sock.recv(4096):
                            pass
            rest = 1
            length = 0
            while length < rest:
                with self.connect() as sock:
                    other = Client(sock)
                    sock.sendall(other.flight())
                    other.more()
                    last = b""
                    while not (last := other.flight()):
                        other.more()
                    last += other.send(GET % b"/cut")
                    rest = len(last)
                    sock.sendall(last[:length])
                    sock.shutdown(socket.SHUT_WR)
                    while sock.recv(4096):
                        pass
                length += 1
            return rest

        self.assertGreater((yield self.run_client(script)), 50)
        self.assertEqual(self.app.requests, [])
        yield self.still_serves()
        yield self.factory.drain()
        self.assertEqual(self.factory.count, 0)

    @inlineCallbacks
    def test_garbage(self) -> Any:
        def script(client: Client) -> list[bytes]:
            answers = []
            for first in (b"\x16\x03\x01\x00\x05", b"\x16", b"\x80\x2e\x01", b"\xff"):
                with self.connect() as sock:
                    sock.sendall(first + os.urandom(600))
                    answer = b""
                    try:
                        sock.shutdown(socket.SHUT_WR)
                        while data := sock.recv(4096):
                            answer += data
                    except OSError:
                        pass  # it has been reset
                    answers.append(answer[:1])
            return answers

        answers = yield self.run_client(script)
        self.assertLessEqual(set(answers), {b"", b"\x15"})  # alerts at the most
        self.assertEqual(self.app.requests, [])
        yield self.still_serves()

    @inlineCallbacks
    def test_client_header_timeout_limits_it(self) -> Any:
        self.factory.client_header_timeout = 0.1

        def script(client: Client) -> bytes:
            client.sock.sendall(client.flight()[:-1])
            return client.sock.recv(100)

        self.assertEqual((yield self.run_client(script)), b"")
        self.assertEqual((yield self.run_client(lambda client: client.sock.recv(1))), b"")

    @inlineCallbacks
    def test_one_that_the_socket_does_not_take_at_once(self) -> Any:
        """A chain of certificates that is larger than the buffers on the way."""
        pem = Path(self.settings.pairs[0][0])
        pem.write_text(pem.read_text() * 80)
        yield self.close()
        self.serve(TlsFactory(self.factory, make_context(self.settings)))
        self.port.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)

        def script(client: Client) -> bytes:
            with socket.socket() as sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
                sock.settimeout(20)
                sock.connect(self.address)
                slow = Client(sock)
                slow.handshake()
                sock.sendall(slow.send(GET % b"/chain"))
                return slow.answer()

        self.factory.draining = False
        self.assertEqual((yield self.run_client(script)), b"GET /chain")

    @inlineCallbacks
    def test_renegotiation_is_refused(self) -> Any:
        def script(client: Client) -> bytes:
            context = SSL.Context(SSL.TLS_CLIENT_METHOD)
            context.set_max_proto_version(SSL.TLS1_2_VERSION)
            client.sock.setblocking(True)
            connection = SSL.Connection(context, client.sock)
            connection.set_connect_state()
            connection.do_handshake()
            connection.renegotiate()
            self.assertRaises(SSL.Error, connection.do_handshake)
            return bytes(str(connection.total_renegotiations()), "ascii")

        yield self.run_client(script)
        yield self.still_serves()

    @inlineCallbacks
    def test_resumption(self) -> Any:
        """Also of a session whose connection was broken off."""

        def visit(version: ssl.TLSVersion, options: int) -> list[bool]:
            context = trusting(version)
            context.options |= options
            reused = []
            session: ssl.SSLSession | None = None
            for _ in range(3):
                with self.connect() as sock:
                    client = Client(sock, context, session)
                    client.handshake()
                    sock.sendall(client.send(GET % b"/r"))
                    client.answer()
                    session = client.tls.session
                    reused.append(client.tls.session_reused)
            return reused

        for version, options in (
            (ssl.TLSVersion.TLSv1_2, ssl.OP_NO_TICKET),
            (ssl.TLSVersion.TLSv1_2, 0),
            (ssl.TLSVersion.TLSv1_3, 0),
        ):
            reused = yield deferToThread(visit, version, options)
            self.assertEqual(reused, [False, True, True], (version, options))


class TransportTests(TlsCase):
    @inlineCallbacks
    def test_what_a_transport_tells(self) -> Any:
        def look(request: Request) -> Response:
            (connection,) = self.factory.connections
            transport = cast(Any, connection).transport
            self.assertTrue(ISSLTransport.providedBy(transport))
            self.assertIsNone(transport.getPeerCertificate())
            self.assertIsInstance(transport.getHandle(), SSL.Connection)
            self.assertEqual(transport.getHost().port, self.address[1])
            return text(f"{transport.getPeer().port}".encode())

        self.app.answers[b"/t"] = look

        def script(client: Client) -> tuple[bytes, int]:
            client.handshake()
            client.sock.sendall(client.send(GET % b"/t"))
            return client.answer(), client.sock.getsockname()[1]

        said, port = yield self.run_client(script)
        self.assertEqual(int(said), port)
        peer = self.app.requests[0].peer
        self.assertEqual((peer.port, peer.sni), (port, b"a.example"))
        assert peer.tls is not None
        self.assertEqual(peer.tls[0], "TLSv1.3")

    @inlineCallbacks
    def test_pipelined_in_records_of_all_sizes(self) -> Any:
        """Each in a record of its own, several in one, one in several; all in one segment."""

        def script(client: Client) -> list[bytes]:
            client.handshake()
            requests = [GET % f"/{number}".encode() for number in range(6)]
            data = b"".join(map(client.send, requests[:2]))
            data += client.send(b"".join(requests[2:4]))
            data += b"".join(client.send(requests[4][i : i + 1]) for i in range(len(requests[4])))
            client.sock.sendall(data + client.send(requests[5]))
            return [client.answer() for _ in requests]

        answers = yield self.run_client(script)
        self.assertEqual(answers, [f"GET /{number}".encode() for number in range(6)])

    @inlineCallbacks
    def test_whole_records(self) -> Any:
        """A body whose last record is full leaves nothing behind that nobody would fetch."""
        body = os.urandom(4 * RECORD)

        def echo(request: Request) -> Deferred[Response]:
            collected: Deferred[Response] = Deferred()
            pieces: list[bytes] = []

            class Sink:
                def data(_, chunk: bytes) -> None:
                    pieces.append(chunk)

                def end(_) -> None:
                    collected.callback(text(b"".join(pieces)))

                def fail(_, error: Exception) -> None:
                    collected.errback(error)

            request.body.start(Sink())
            return collected

        self.app.answers[b"/echo"] = echo

        def script(client: Client) -> bytes:
            client.handshake()
            head = b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body)
            client.sock.sendall(client.send(head) + client.send(body))
            return client.answer()

        self.assertEqual((yield self.run_client(script)), body)

    @inlineCallbacks
    def test_ends_with_close_notify(self) -> Any:
        def script(client: Client) -> bytes:
            client.handshake()
            client.sock.sendall(client.send(b"GET /x HTTP/1.0\r\n\r\n"))
            return client.take()  # raises SSLEOFError if there is none

        self.assertTrue((yield self.run_client(script)).endswith(b"\r\n\r\nGET /x"))

    @inlineCallbacks
    def test_lingers_after_close_notify(self) -> Any:
        """What refuses a body says so, and reads on, so that the answer is not reset away."""
        self.app.answers[b"/no"] = Response(403, body=b"no", close=True)

        def script(client: Client) -> bytes:
            client.handshake()
            head = b"POST /no HTTP/1.1\r\nHost: a\r\nContent-Length: 9000000\r\n\r\n"
            client.sock.sendall(client.send(head))
            answer = client.take()
            client.sock.sendall(client.send(bytes(RECORD)))  # nobody has closed it yet
            return answer

        self.assertTrue((yield self.run_client(script)).endswith(b"\r\n\r\nno"))

    @inlineCallbacks
    def test_an_answer_broken_off_has_no_close_notify(self) -> Any:
        stream = ScriptedStream()
        self.app.answers[b"/s"] = Response(200, body=stream, length=100)

        def begun() -> None:
            if stream.sink is None:
                reactor.callLater(0.01, begun)
            else:
                stream.sink.data(b"some")
                stream.sink.fail(OSError("lost"))

        begun()

        def script(client: Client) -> str:
            client.handshake()
            client.sock.sendall(client.send(b"GET /s HTTP/1.1\r\nHost: a\r\n\r\n"))
            try:
                client.take()
            except (ssl.SSLEOFError, ConnectionResetError):
                return "cut"
            return "whole"

        self.assertEqual((yield self.run_client(script)), "cut")

    @inlineCallbacks
    def half_closed(self, end: Callable[[Client], None]) -> Any:
        body = os.urandom(1_000_000)
        self.app.answers[b"/big"] = text(body)

        def script(client: Client) -> bytes:
            client.handshake()
            client.sock.sendall(client.send(GET % b"/a" + GET % b"/big"))
            end(client)
            return client.take()

        answer = yield self.run_client(script)
        self.assertEqual(answer[-len(body) :], body)

    def test_half_close(self) -> Any:
        """A client that only ends its stream gets its answers."""
        return self.half_closed(lambda client: client.sock.shutdown(socket.SHUT_WR))

    def test_half_close_with_close_notify(self) -> Any:
        """The same of one that says so before."""

        def end(client: Client) -> None:
            client.sock.sendall(client.flight(client.tls.unwrap))
            client.sock.shutdown(socket.SHUT_WR)

        return self.half_closed(end)

    @inlineCallbacks
    def test_draining_in_the_handshake(self) -> Any:
        def script(client: Client) -> bytes:
            client.sock.sendall(client.flight()[:100])
            reactor.callFromThread(self.factory.drain)
            try:
                return client.sock.recv(100)
            except ConnectionResetError:
                return b""

        self.assertEqual((yield self.run_client(script)), b"")
