"""Twisted resources behind the engine: HEAD, backpressure, leaving, sessions, the directive."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase
from twisted.web.error import UnsupportedMethod
from twisted.web.server import NOT_DONE_YET

from imagefarm.app.configuration import directive_table, variables
from imagefarm.config.errors import ConfigurationError, Invalid
from imagefarm.config.loader import Loaded, convert
from imagefarm.config.parse import parse_text
from imagefarm.resources import directives, outflow
from imagefarm.resources.directives import LOCATION_BLOCK, RESOURCE, SERVER_BLOCK
from imagefarm.resources.mounted import mount_point
from tests.http.fakes import Client

from .mounting import Case, Leaf, Producer, Pulled


class Head(Case):
    def head(self) -> bytes:
        return self.client.send(b"HEAD / HTTP/1.1\r\nHost: h\r\n\r\n")

    def test_bytes(self) -> None:
        self.mount(lambda request: b"hello")
        answer = self.head()
        self.assertIn(b"Content-Length: 5\r\n", answer)
        self.assertEqual(self.body(answer), b"")

    def test_get_in_its_place(self) -> None:
        class GetOnly(Leaf):
            def render(self, request: Any) -> Any:
                if request.method != b"GET":
                    raise UnsupportedMethod([b"GET"])
                return b"hello"

        self.mount(GetOnly(lambda request: b""))
        self.assertIn(b"Content-Length: 5\r\n", self.head())

    def test_no_length_is_known(self) -> None:
        """It gets none; not "Content-Length: 0"."""
        client = self.mount(lambda request: NOT_DONE_YET)
        self.assertEqual(self.head(), b"")
        request = self.leaf.requests[0]
        request.write(b"abc")
        request.finish()
        answer = client.read()
        self.assertIn(b" 200 ", answer)
        self.assertNotIn(b"Content-Length", answer)
        self.assertEqual(self.body(answer), b"")
        self.assertFalse(client.closing)

    def test_pull_producer_runs_to_its_end(self) -> None:
        """Its writes go nowhere, and yet it is asked until it finishes."""

        def render(request: Any) -> int:
            request.registerProducer(Pulled(request, b"abc", 5), False)
            return NOT_DONE_YET

        client = self.mount(render)
        answer = self.head()
        for _ in range(5):
            answer += self.turn()
        self.assertIn(b" 200 ", answer)
        self.assertEqual(self.leaf.finished, [None])
        self.assertFalse(client.closing)

    def test_client_leaves(self) -> None:
        """A resource that goes on for ever hears of it."""
        client = self.mount(lambda request: NOT_DONE_YET)
        self.head()
        self.leaf.requests[0].write(b"event")
        client.leave()
        self.assertEqual(len(self.leaf.finished), 1)
        self.assertIsInstance(self.leaf.finished[0], Exception)


class Backpressure(Case):
    def test_push_producer(self) -> None:
        producer = Producer()
        client = self.mount(lambda request: NOT_DONE_YET)
        client.get()
        request = self.leaf.requests[0]
        request.registerProducer(producer, True)
        request.write(b"a")
        self.turn()
        self.assertEqual(producer.calls, [])
        client.connection.pauseProducing()
        self.assertEqual(producer.calls, ["pause"])
        request.write(b"b")
        self.assertEqual(client.read(), b"")
        client.connection.resumeProducing()
        self.assertEqual(producer.calls, ["pause", "resume"])
        self.assertEqual(client.read(), b"1\r\nb\r\n")
        request.unregisterProducer()
        client.connection.pauseProducing()
        self.assertEqual(producer.calls, ["pause", "resume"])

    def test_push_producer_before_the_answer_goes(self) -> None:
        """It is paused when there is enough, whoever reads."""
        producer = Producer()

        def render(request: Any) -> int:
            request.registerProducer(producer, True)
            request.write(bytes(outflow.ENOUGH))
            calls.extend(producer.calls)
            return NOT_DONE_YET

        calls: list[str] = []
        answer = self.mount(render).get()
        self.assertEqual(calls, ["pause"])
        self.assertEqual(producer.calls, ["pause", "resume"])
        self.assertIn(bytes(outflow.ENOUGH), answer)

    def pulled(self, chunk: bytes, count: int) -> Client:
        """A client of a resource whose pull producer will be ``self.producer``."""

        def render(request: Any) -> int:
            self.producer = Pulled(request, chunk, count)
            request.registerProducer(self.producer, False)
            self.assertEqual(self.producer.calls, [])
            return NOT_DONE_YET

        return self.mount(render)

    def test_small_pull_producer_is_bytes(self) -> None:
        answer = self.pulled(b"abc", 5).get()
        self.assertIn(b"Content-Length: 15\r\n", answer)
        self.assertEqual(self.body(answer), b"abc" * 5)

    def test_large_pull_producer(self) -> None:
        """None is asked for while the client does not read; else one chunk a turn."""
        client = self.pulled(bytes(50_000), 5)
        client.get()
        self.assertEqual(self.producer.count, 3)
        client.connection.pauseProducing()
        self.turn()
        self.assertEqual(self.producer.count, 3)
        client.connection.resumeProducing()
        self.assertEqual(self.producer.count, 3)
        seen: list[int] = []
        client.clock.callLater(0, lambda: seen.append(self.producer.count))
        self.assertTrue(self.turn().endswith(b"0\r\n\r\n"))
        self.assertEqual(seen, [2])
        self.assertEqual(self.leaf.finished, [None])
        self.assertFalse(client.closing)

    def test_pull_producer_that_raises(self) -> None:
        class Broken(Producer):
            def resumeProducing(self) -> None:
                raise ZeroDivisionError

        def render(request: Any) -> int:
            request.registerProducer(Broken(), False)
            return NOT_DONE_YET

        self.assertIn(b" 500 ", self.mount(render).get())
        self.flushLoggedErrors(ZeroDivisionError)

    def test_without_a_producer_there_is_a_limit(self) -> None:
        self.patch(outflow, "MAX_UNSENT", 1000)
        client = self.mount(lambda request: NOT_DONE_YET)
        client.get()
        request = self.leaf.requests[0]
        request.write(b"a")
        self.turn()
        client.connection.pauseProducing()
        request.write(bytes(1000))
        self.assertEqual(self.leaf.finished, [])
        request.write(b"more")
        self.assertIsInstance(self.leaf.finished[0], outflow.Unsent)
        client.connection.resumeProducing()
        self.assertTrue(client.transport.aborted)


class Leaving(Case):
    """The client goes away."""

    def test_before_the_answer(self) -> None:
        producer = Producer()
        client = self.mount(lambda request: NOT_DONE_YET)
        client.get()
        request = self.leaf.requests[0]
        request.registerProducer(producer, True)
        client.leave()
        self.assertEqual(producer.calls, ["stop"])
        self.assertEqual(len(self.leaf.finished), 1)
        self.assertIsInstance(self.leaf.finished[0], Exception)
        request.write(b"ignored")
        self.assertRaises(RuntimeError, request.finish)
        self.assertEqual(self.app.outcomes, [(b"/", 499, 0)])

    def test_while_it_is_made(self) -> None:
        """Between the first byte written and the next turn of the loop."""
        client = self.mount(lambda request: NOT_DONE_YET)
        client.get()
        self.leaf.requests[0].write(b"a")
        client.leave()
        self.assertEqual(self.turn(), b"")
        self.assertEqual(len(self.leaf.finished), 1)

    def test_during_the_answer(self) -> None:
        producer = Producer()
        client = self.mount(lambda request: NOT_DONE_YET)
        client.get()
        request = self.leaf.requests[0]
        request.registerProducer(producer, True)
        request.write(b"a")
        self.turn()
        client.leave()
        self.assertEqual(producer.calls, ["stop"])
        self.assertEqual(len(self.leaf.finished), 1)
        self.assertTrue(request.content.closed)
        self.assertEqual(self.app.outcomes, [(b"/", 200, 1)])

    def test_pull_producer(self) -> None:
        def render(request: Any) -> int:
            self.producer = Pulled(request, bytes(50_000), 50)
            request.registerProducer(self.producer, False)
            return NOT_DONE_YET

        client = self.mount(render)
        client.get()
        client.leave()
        self.assertEqual(self.producer.calls[-1], "stop")
        count = self.producer.count
        self.turn()
        self.assertEqual(self.producer.count, count)


class Sessions(Case):
    def test_session(self) -> None:
        def render(request: Any) -> bytes:
            session = request.getSession()
            session.count = getattr(session, "count", 0) + 1
            return b"%d" % session.count

        client = self.mount(render, b"/app/")
        first = client.get(b"/app/")
        self.assertEqual(self.body(first), b"1")
        cookie = first.partition(b"Set-Cookie: ")[2].partition(b";")[0]
        self.assertTrue(cookie.startswith(b"TWISTED_SESSION_app="), cookie)
        again = client.get(b"/app/x", b"Cookie: " + cookie + b"\r\n")
        self.assertEqual(self.body(again), b"2")
        self.assertNotIn(b"Set-Cookie", again)
        site = self.leaf.requests[0].site
        self.assertEqual(len(site.sessions), 1)
        client.clock.advance(1000)
        self.assertEqual(site.sessions, {})


# What the directive names in the tests below.
PAGE = Leaf(lambda request: b"page")
NUMBER = 7


def factory(reactor: Any) -> Leaf:
    return Leaf(lambda request: repr(reactor).encode())


def broken(reactor: Any) -> Leaf:
    raise LookupError("no\ndatabase")


def wrong(reactor: Any) -> int:
    return 7


class Directive(SynchronousTestCase):
    here = __name__

    def load(self, name: str, location: str = "location /app/") -> Any:
        text = f"http {{\nserver {{\n{location} {{\nresource {name};\n}} }} }}"
        loaded: Loaded = convert(
            parse_text(text, "f.conf"),
            table=directive_table(),
            variables=variables(),
            prefix="/",
            conf_dir="/",
        )
        (http,) = loaded.root.blocks(directives.HTTP_BLOCK)
        (server,) = http.blocks(SERVER_BLOCK)
        (scope,) = server.blocks(LOCATION_BLOCK)
        return scope

    def problem(self, name: str) -> str:
        error = self.assertRaises(ConfigurationError, self.load, name)
        (problem,) = error.problems
        return str(problem)

    def test_resource(self) -> None:
        named = self.load(f"{self.here}.PAGE")[RESOURCE]
        self.assertIs(named.resource("reactor"), PAGE)

    def test_callable(self) -> None:
        made = self.load(f"{self.here}.factory")[RESOURCE].resource("reactor")
        self.assertEqual(made.answer(None), b"'reactor'")

    def test_mount_point(self) -> None:
        for location, prefix in (
            ("location /app/", b"/app/"),
            ("location = /app", b"/app"),
            ("location ^~ /app", b"/app"),
            ("location ~ ^/app/", b"/"),
            ("location @app", b"/"),
        ):
            scope = self.load(f"{self.here}.PAGE", location)
            self.assertEqual(mount_point(scope), prefix, location)

    def test_import_errors(self) -> None:
        self.assertEqual(
            self.problem("no.such.module"),
            'resource "no.such.module" could not be imported: '
            "ObjectNotFound: 'no.such.module' does not name an object in f.conf:4",
        )
        self.assertRegex(self.problem(f"{self.here}.NOTHING"), "AttributeError.* in f.conf:4$")
        self.assertRegex(self.problem("..x"), "InvalidName.* in f.conf:4$")

    def test_module_that_raises(self) -> None:
        directory = Path(self.mktemp()).absolute()
        directory.mkdir()
        (directory / "mounted_and_broken.py").write_text("1/0\n")
        self.patch(sys, "path", [str(directory), *sys.path])
        self.assertRegex(
            self.problem("mounted_and_broken.x"), "ZeroDivisionError: .* in f.conf:4$"
        )

    def test_wrong_kind(self) -> None:
        self.assertEqual(
            self.problem(f"{self.here}.NUMBER"),
            f'"{self.here}.NUMBER" is neither a resource nor a callable in f.conf:4',
        )

    def test_callable_that_fails(self) -> None:
        for name, message in (
            ("broken", f'resource "{self.here}.broken" failed: LookupError: no database'),
            ("wrong", f'"{self.here}.wrong" made int, not a resource'),
        ):
            named = self.load(f"{self.here}.{name}")[RESOURCE]
            error = self.assertRaises(Invalid, named.resource, None)
            self.assertEqual(str(error), message)
