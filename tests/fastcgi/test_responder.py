"""The responder against scripted bytes, and against our own client in memory."""

from __future__ import annotations

import os
from collections.abc import Mapping

from imagefarm.fastcgi import records as fcgi
from imagefarm.fastcgi.answer import UnsafeField, encode_head
from imagefarm.fastcgi.records import EndRequest, RecordType
from imagefarm.fastcgi.session import FastCGIRequest
from imagefarm.http.headers import Headers
from imagefarm.http.message import FileBody, OpenFile, PartsBody, Response

from .fakes import Stream, content, lost, request
from .responding import DONE, ResponderCase


class AnswerTests(ResponderCase):
    def test_a_request(self) -> None:
        found = self.feed(request([(b"A", b"1"), (b"B", b""), (b"A", b"2")], b"body"))
        self.assertEqual(
            self.seen, [FastCGIRequest({b"A": b"2", b"B": b""}, b"body", request_id=1)]
        )
        self.assertEqual(
            content(found, RecordType.STDOUT),
            b"Status: 200 OK\r\nA: b\r\nContent-Length: 5\r\n\r\nhello",
        )
        self.assertEqual([r.type for r in found], [RecordType.STDOUT, RecordType.STDOUT, 3])
        self.assertEqual(self.ends(found), {1: DONE})
        self.assertFalse(self.wire.disconnecting)
        self.assertEqual(self.factory.active, 0)

    def test_without_keep_conn_the_connection_is_closed(self) -> None:
        self.assertEqual(self.ends(self.feed(request(keep=False))), {1: DONE})
        self.assertTrue(self.wire.disconnecting)
        self.assertIsNone(self.wire.producer)

    def test_kept_connections_serve_again(self) -> None:
        for number in range(5):
            self.assertEqual(
                self.ends(self.feed(request(request_id=number + 1))), {number + 1: DONE}
            )
        self.assertEqual(len(self.seen), 5)

    def test_head(self) -> None:
        found = self.feed(request([(b"REQUEST_METHOD", b"HEAD")]))
        out = content(found, RecordType.STDOUT)
        self.assertTrue(out.endswith(b"Content-Length: 5\r\n\r\n"))
        self.answer = Response(200, length=77)
        out = content(self.feed(request([(b"REQUEST_METHOD", b"HEAD")])), RecordType.STDOUT)
        self.assertTrue(out.endswith(b"Content-Length: 77\r\n\r\n"))

    def test_head_releases_the_body(self) -> None:
        body = Stream(10)
        self.answer = Response(200, body=body)
        self.feed(request([(b"REQUEST_METHOD", b"HEAD")]))
        self.assertTrue(body.cancelled)

    def test_not_modified(self) -> None:
        self.answer = Response(304, Headers([(b"ETag", b'"x"')]), b"")
        out = content(self.feed(request()), RecordType.STDOUT)
        self.assertEqual(out, b'Status: 304 Not Modified\r\nETag: "x"\r\n\r\n')

    def test_a_handler_that_fails(self) -> None:
        self.answer = None
        self.feed(request())
        self.pending[0].errback(ZeroDivisionError())
        found = self.wire.records()
        self.assertTrue(content(found, RecordType.STDOUT).startswith(b"Status: 500 "))
        self.assertEqual(self.ends(found), {1: EndRequest(1, 0)})
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_a_handler_that_raises(self) -> None:
        self.factory.handler = lambda _: 1 // 0  # type: ignore[assignment,return-value]
        out = content(self.feed(request()), RecordType.STDOUT)
        self.assertTrue(out.startswith(b"Status: 500 "))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_a_field_cannot_split_the_head(self) -> None:
        for name, value in ((b"A", b"b\r\nC: d"), (b"A", b"\n"), (b"A\n", b""), (b"", b"x")):
            with self.assertRaises(UnsafeField):
                encode_head(Response(200, Headers([(name, value)])), None)
        self.answer = Response(302, Headers([(b"Location", b"/\r\nSet-Cookie: x")]))
        out = content(self.feed(request()), RecordType.STDOUT)
        self.assertEqual(out, b"Status: 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n")
        self.assertEqual(len(self.flushLoggedErrors(UnsafeField)), 1)

    def test_unknown_statuses_have_no_reason(self) -> None:
        self.assertEqual(encode_head(Response(299), None), b"Status: 299\r\n\r\n")


class BodyTests(ResponderCase):
    def body(self, response: Response) -> bytes:
        self.answer = response
        found = self.feed(request())
        while self.connection.paused:
            self.connection.resumeProducing()
            found += self.wire.records()
        self.assertEqual(self.ends(found), {1: DONE})
        return content(found, RecordType.STDOUT).partition(b"\r\n\r\n")[2]

    def file(self, data: bytes) -> OpenFile:
        path = self.mktemp()
        with open(path, "wb") as out:
            out.write(data)
        return OpenFile(os.open(path, os.O_RDONLY), len(data), 0.0, os.fsencode(path))

    def test_large_bytes(self) -> None:
        data = bytes(range(256)) * 1000
        self.assertEqual(self.body(Response(200, body=data)), data)

    def test_a_file(self) -> None:
        opened = self.file(b"0123456789" * 20000)
        body = FileBody(opened, 5, 150000)
        self.assertEqual(self.body(Response(200, body=body)), (b"0123456789" * 20000)[5:150005])
        self.assertEqual(opened.fd, -1)

    def test_parts(self) -> None:
        opened = self.file(b"0123456789")
        parts = PartsBody((b"--a", FileBody(opened, 2, 3), b"--b", FileBody(opened, 0, 1)), 10)
        self.assertEqual(self.body(Response(206, body=parts)), b"--a234--b0")
        self.assertEqual(opened.fd, -1)

    def test_a_file_that_shrinks_breaks_the_connection(self) -> None:
        opened = self.file(b"0123456789")
        self.answer = Response(200, body=FileBody(opened, 0, 11))
        self.assertEqual(self.ends(self.feed(request())), {})
        self.assertEqual(opened.fd, -1)
        self.assertDropped()

    def test_a_stream(self) -> None:
        body = Stream()
        self.answer = Response(200, body=body)
        found = self.feed(request())
        self.assertEqual(content(found, RecordType.STDOUT), b"Status: 200 OK\r\n\r\n")
        assert body.sink is not None
        body.sink.data(b"abc")
        self.assertEqual(content(self.wire.records(), RecordType.STDOUT), b"abc")
        self.connection.pauseProducing()
        self.assertTrue(body.paused)
        self.connection.resumeProducing()
        self.assertFalse(body.paused)
        body.sink.end()
        self.assertEqual(self.ends(self.wire.records()), {1: DONE})

    def test_a_stream_that_starts_while_paused(self) -> None:
        body = Stream()
        self.answer = None
        self.feed(request())
        self.connection.pauseProducing()
        self.pending[0].callback(Response(200, body=body))
        self.assertTrue(body.paused)

    def test_a_stream_that_fails_breaks_the_connection(self) -> None:
        body = Stream(5)
        self.answer = Response(200, body=body)
        self.feed(request())
        assert body.sink is not None
        body.sink.fail(OSError("gone"))
        self.assertEqual(self.ends(self.wire.records()), {})
        self.assertDropped()

    def test_backpressure_of_bytes(self) -> None:
        data = bytes(1000000)
        self.answer = None
        self.feed(request())
        self.connection.pauseProducing()
        self.pending[0].callback(Response(200, body=data))
        first = self.wire.records()
        self.assertLess(len(content(first, RecordType.STDOUT)), 70000)
        self.connection.resumeProducing()
        self.assertEqual(self.ends(self.wire.records()), {1: DONE})

    def test_a_lost_connection_releases_bodies(self) -> None:
        body = Stream()
        self.answer = Response(200, body=body)
        self.feed(request())
        lost(self.connection)
        self.assertTrue(body.cancelled)
        self.assertEqual((self.factory.active, self.clock.getDelayedCalls()), (0, []))


class MultiplexingTests(ResponderCase):
    def test_requests_interleave(self) -> None:
        self.answer = None
        one, two = request(request_id=1), request(request_id=2)
        self.feed(one[:16], two[:16], one[16:], two[16:])
        self.assertEqual([r.request_id for r in self.seen], [1, 2])
        self.pending[1].callback(Response(200, body=b"two"))
        found = self.wire.records()
        self.assertEqual(self.ends(found), {2: DONE})
        self.assertTrue(content(found, RecordType.STDOUT, 2).endswith(b"two"))
        self.pending[0].callback(Response(200, body=b"one"))
        self.assertEqual(self.ends(self.wire.records()), {1: DONE})

    def test_the_connection_closes_after_the_last(self) -> None:
        self.answer = None
        self.feed(request(request_id=1, keep=False), request(request_id=2))
        self.pending[0].callback(Response(200))
        self.assertFalse(self.wire.disconnecting)
        self.pending[1].callback(Response(200))
        self.assertTrue(self.wire.disconnecting)

    def test_an_abort_cancels(self) -> None:
        self.answer = None
        self.feed(request())
        found = self.feed(fcgi.encode_record(RecordType.ABORT_REQUEST, 1))
        self.assertEqual(self.cancelled, 1)
        self.assertEqual(self.ends(found), {1: EndRequest(1, 0)})
        self.assertEqual(self.ends(self.feed(request(request_id=2))), {})
        self.assertEqual(self.factory.active, 1)

    def test_an_abort_of_a_streaming_answer(self) -> None:
        body = Stream()
        self.answer = Response(200, body=body)
        self.feed(request())
        found = self.feed(fcgi.encode_record(RecordType.ABORT_REQUEST, 1))
        self.assertTrue(body.cancelled)
        self.assertEqual(self.ends(found), {1: EndRequest(1, 0)})

    def test_an_abort_before_the_request_is_whole(self) -> None:
        found = self.feed(request()[:16], fcgi.encode_record(RecordType.ABORT_REQUEST, 1))
        self.assertEqual(self.ends(found), {1: EndRequest(0, 0)})
        self.assertEqual((self.seen, self.factory.active), ([], 0))

    def test_a_lost_connection_cancels_everything(self) -> None:
        self.answer = None
        self.feed(request(request_id=1), request(request_id=2), request(request_id=3)[:30])
        self.assertEqual(self.factory.active, 3)
        lost(self.connection)
        self.assertEqual((self.cancelled, self.factory.active), (2, 0))
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(repr(self.factory), "<ResponderFactory 0 connections, 0 requests>")


class ManagementTests(ResponderCase):
    def ask(self, *names: bytes) -> Mapping[bytes, bytes]:
        body = fcgi.encode_pairs((name, b"") for name in names)
        (record,) = self.feed(fcgi.encode_record(RecordType.GET_VALUES, 0, body))
        self.assertEqual((record.type, record.request_id), (RecordType.GET_VALUES_RESULT, 0))
        return dict(fcgi.decode_pairs(record.content))

    def test_get_values(self) -> None:
        self.assertEqual(
            self.ask(b"FCGI_MAX_CONNS", b"FCGI_MAX_REQS", b"FCGI_MPXS_CONNS", b"OTHER"),
            {b"FCGI_MAX_CONNS": b"2", b"FCGI_MAX_REQS": b"3", b"FCGI_MPXS_CONNS": b"1"},
        )
        self.assertEqual(self.ask(), {})

    def test_an_unknown_type(self) -> None:
        (record,) = self.feed(fcgi.encode_record(99, 0, b"x"))
        self.assertEqual((record.type, record.request_id), (RecordType.UNKNOWN_TYPE, 0))
        self.assertEqual(fcgi.decode_unknown(record.content), 99)

    def test_large_get_values(self) -> None:
        self.feed(fcgi.encode_record(RecordType.GET_VALUES, 0, bytes(5000)))
        self.assertDropped()
