"""``fastcgi_pass``: directives, variables, parameters, the handler."""

from __future__ import annotations

from typing import Any

from attrs import frozen
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.config.errors import ConfigurationError, Invalid
from imagefarm.config.loader import convert
from imagefarm.config.parse import parse_text
from imagefarm.config.table import (
    HTTP,
    MAIN,
    SERVER,
    BlockRow,
    DirectiveTable,
    Scope,
)
from imagefarm.fastcgi import directives
from imagefarm.fastcgi.directives import FastCGISettings
from imagefarm.fastcgi.handler import FastCGIPass
from imagefarm.fastcgi.params import build_params
from imagefarm.fastcgi.variables import VARIABLES
from imagefarm.http.body import ClientGone
from imagefarm.http.headers import Headers
from imagefarm.http.message import BodyStream, Peer, Request, RequestHead, Response
from imagefarm.http.spool import SpooledBody
from imagefarm.http.upstream import (
    ExchangeRules,
    Fault,
    NoLivePeers,
    Outgoing,
    Timeouts,
    UnknownHost,
    UpstreamError,
)
from imagefarm.http.variables import variable_table

from .fakes import Instant, Sink, Stream


def block(name: str, outside: str) -> BlockRow[None]:
    return BlockRow(
        name=name,
        contexts=frozenset({outside}),
        arity=(0, None),
        opens=name,
        convert=lambda directive, env: None,
        doc="",
    )


HTTP_BLOCK, SERVER_BLOCK, LOCATION_BLOCK = (
    block("http", MAIN),
    block("server", HTTP),
    block("location", SERVER),
)
BLOCKS = (HTTP_BLOCK, SERVER_BLOCK, LOCATION_BLOCK)
TABLE = DirectiveTable({"blocks": BLOCKS, "FastCGI": directives.DIRECTIVES})
VARIABLE_TABLE = variable_table(VARIABLES, clock=lambda: 0.0)


def location_scope(text: str, server: str = "") -> Scope:
    whole = f"http {{ server {{ {server} location / {{ {text} }} }} }}"
    parsed = parse_text(whole, "test.conf", conf_dir="/")
    loaded = convert(parsed, table=TABLE, variables=VARIABLE_TABLE, prefix="/", conf_dir="/")
    (http,) = loaded.root.blocks(HTTP_BLOCK)
    (server_scope,) = http.blocks(SERVER_BLOCK)
    (location,) = server_scope.blocks(LOCATION_BLOCK)
    return location


def settings(text: str = "", server: str = "") -> FastCGISettings:
    return FastCGISettings.from_scope(location_scope(text, server))


@frozen(eq=False)
class Place:
    """A location, as far as this package reads it."""

    fastcgi: FastCGISettings | None


def make_request(
    config: FastCGISettings | None = None,
    *,
    method: bytes = b"GET",
    uri: bytes = b"/x.php",
    fields: tuple[tuple[bytes, bytes], ...] = (),
    body: BodyStream | None = None,
) -> Request:
    head = RequestHead(method, uri, (1, 1), Headers(fields))
    peer = Peer("127.0.0.1", 1, ("127.0.0.1", 80), 1)
    body = SpooledBody(b"") if body is None else body
    return Request(head, peer, body, 0.0, uri=uri, location=Place(config))


class DirectiveTests(SynchronousTestCase):
    def problems(self, text: str) -> list[str]:
        with self.assertRaises(ConfigurationError) as caught:
            settings(text)
        return [problem.message for problem in caught.exception.problems]

    def test_defaults(self) -> None:
        found = settings()
        self.assertIsNone(found.address)
        self.assertEqual(found.timeouts, Timeouts(60, 60, 60))
        self.assertEqual(found.next_upstream, {"error", "timeout"})
        self.assertEqual(found.hidden, directives.HIDDEN)
        self.assertEqual((found.keep_conn, found.buffer_size), (False, 8192))

    def test_everything(self) -> None:
        found = settings(
            "fastcgi_pass unix:/run/x.sock; fastcgi_index i.php; fastcgi_keep_conn on;"
            "fastcgi_connect_timeout 1s; fastcgi_send_timeout 2; fastcgi_read_timeout 300ms;"
            "fastcgi_next_upstream error http_500 non_idempotent; fastcgi_next_upstream_tries 2;"
            "fastcgi_next_upstream_timeout 5; fastcgi_intercept_errors on;"
            "fastcgi_hide_header X-A; fastcgi_hide_header X-B; fastcgi_pass_header Status;"
            "fastcgi_pass_header x-b; fastcgi_ignore_headers Expires set-cookie;"
            "fastcgi_pass_request_headers off; fastcgi_pass_request_body off;"
            "fastcgi_buffer_size 16k; fastcgi_buffers 8 16k; fastcgi_buffering off;"
        )
        assert found.address is not None
        self.assertEqual(found.address.constant, b"unix:/run/x.sock")
        self.assertEqual(found.index, b"i.php")
        self.assertEqual(found.timeouts, Timeouts(1, 2, 0.3))
        self.assertEqual(found.next_upstream, {"error", "http_500", "non_idempotent"})
        self.assertEqual((found.next_upstream_tries, found.next_upstream_timeout), (2, 5))
        self.assertEqual(found.hidden, (directives.HIDDEN - {b"status"}) | {b"x-a"})
        self.assertEqual(found.ignore_headers, {b"expires", b"set-cookie"})
        self.assertTrue(found.keep_conn and found.intercept_errors)
        self.assertFalse(found.pass_request_headers or found.pass_request_body)
        self.assertEqual(found.buffer_size, 16384)

    def test_off(self) -> None:
        self.assertEqual(settings("fastcgi_next_upstream off;").next_upstream, frozenset())

    def test_params_are_inherited_if_there_are_none(self) -> None:
        outer = "fastcgi_param A 1; fastcgi_param B 2;"
        self.assertEqual([p.name for p in settings("", outer).params], [b"A", b"B"])
        self.assertEqual([p.name for p in settings("fastcgi_param C 3;", outer).params], [b"C"])

    def test_errors(self) -> None:
        for text, message in (
            ("fastcgi_pass a; fastcgi_pass b;", '"fastcgi_pass" directive is duplicate'),
            ("fastcgi_param A b if_empty;", 'invalid parameter "if_empty"'),
            ("fastcgi_param A $nope;", 'unknown "nope" variable'),
            ("fastcgi_split_path_info ^(.+)$;", 'pattern "^(.+)$" must have 2 captures'),
            ("fastcgi_next_upstream never;", 'invalid value "never"'),
            ("fastcgi_ignore_headers X-Other;", 'invalid value "X-Other"'),
            ("fastcgi_param A;", 'invalid number of arguments in "fastcgi_param" directive'),
        ):
            self.assertEqual(self.problems(text), [message])
        with self.assertRaises(ConfigurationError):
            settings("", "fastcgi_pass a;")

    def test_every_row_is_documented(self) -> None:
        for row in directives.DIRECTIVES:
            self.assertTrue(getattr(row, "doc", "") or getattr(row, "why", ""), row.name)


class VariableTests(SynchronousTestCase):
    def both(self, config: FastCGISettings | None, uri: bytes) -> tuple[bytes, bytes]:
        request = make_request(config, uri=uri)
        return (
            VARIABLES["fastcgi_script_name"](request),
            VARIABLES["fastcgi_path_info"](request),
        )

    def test_without_settings(self) -> None:
        self.assertEqual(self.both(None, b"/a/"), (b"/a/", b""))
        request = make_request()
        request.location = None
        self.assertEqual(VARIABLES["fastcgi_script_name"](request), b"/x.php")

    def test_index(self) -> None:
        config = settings("fastcgi_index i.php;")
        self.assertEqual(self.both(config, b"/a/"), (b"/a/i.php", b""))
        self.assertEqual(self.both(config, b"/a"), (b"/a", b""))

    def test_split(self) -> None:
        config = settings("fastcgi_index i.php; fastcgi_split_path_info ^(.+?\\.php)(/.*)$;")
        self.assertEqual(self.both(config, b"/a.php/b/c"), (b"/a.php", b"/b/c"))
        self.assertEqual(self.both(config, b"/a.php"), (b"/a.php", b""))
        self.assertEqual(self.both(config, b"/dir/"), (b"/dir/i.php", b""))

    def test_a_capture_that_took_no_part(self) -> None:
        config = settings("fastcgi_split_path_info ^(/a)(/b)?;")
        self.assertEqual(self.both(config, b"/a"), (b"/a", b""))


class ParamTests(SynchronousTestCase):
    def params(
        self, text: str, *fields: tuple[bytes, bytes], **more: Any
    ) -> list[tuple[bytes, bytes]]:
        config = settings(text)
        return list(build_params(config, make_request(config, fields=fields, **more)))

    def test_order_duplicates_and_empty_values(self) -> None:
        self.assertEqual(
            self.params(
                "fastcgi_param A 1; fastcgi_param E ''; fastcgi_param N '' if_not_empty;"
                "fastcgi_param S $fastcgi_script_name if_not_empty; fastcgi_param A 2;"
            ),
            [(b"A", b"1"), (b"E", b""), (b"S", b"/x.php"), (b"A", b"2")],
        )

    def test_header_fields(self) -> None:
        self.assertEqual(
            self.params(
                "",
                (b"Host", b"a"),
                (b"X-Two", b"1"),
                (b"Cookie", b"a=1"),
                (b"x-two", b"2"),
                (b"cookie", b"b=2"),
                (b"Empty", b""),
                (b"Content-Type", b"t"),
            ),
            [
                (b"HTTP_HOST", b"a"),
                (b"HTTP_X_TWO", b"1, 2"),
                (b"HTTP_COOKIE", b"a=1; b=2"),
                (b"HTTP_EMPTY", b""),
                (b"HTTP_CONTENT_TYPE", b"t"),
            ],
        )

    def test_what_is_never_passed(self) -> None:
        self.assertEqual(
            self.params(
                "",
                (b"Proxy", b"http://evil"),
                (b"PROXY", b"x"),
                (b"X_Real_IP", b"1"),
                (b"X.Y", b"2"),
                (b"X!", b"3"),
            ),
            [],
        )

    def test_a_param_takes_the_header_s_place(self) -> None:
        self.assertEqual(
            self.params("fastcgi_param HTTP_HOST safe;", (b"Host", b"evil"), (b"A", b"b")),
            [(b"HTTP_HOST", b"safe"), (b"HTTP_A", b"b")],
        )
        # As in nginx, also where it is not sent itself.
        self.assertEqual(self.params("fastcgi_param HTTP_X '' if_not_empty;", (b"X", b"evil")), [])

    def test_no_header_fields(self) -> None:
        off = "fastcgi_pass_request_headers off;"
        self.assertEqual(self.params(off, (b"A", b"b")), [])
        # But for what a cache asks with.
        config = settings(off)
        request = make_request(config, fields=[(b"A", b"b"), (b"If-None-Match", b'"1"')])
        request.validators = ((b"If-None-Match", b'"1"'),)
        self.assertEqual(build_params(config, request), ((b"HTTP_IF_NONE_MATCH", b'"1"'),))

    @examples(deadline=None)
    @given(st.lists(st.tuples(st.binary(max_size=12), st.binary(max_size=12)), max_size=6))
    def test_names_are_safe_whatever_comes(self, fields: list[tuple[bytes, bytes]]) -> None:
        pairs = build_params(FastCGISettings(), make_request(fields=tuple(fields)))
        names = [name for name, _ in pairs]
        self.assertEqual(len(names), len(set(names)))
        for name in names:
            self.assertRegex(name.decode("ascii"), r"\AHTTP_[A-Z0-9_]+\Z")
            self.assertNotEqual(name, b"HTTP_PROXY")


class Group:
    """An `UpstreamGroup` that waits for the test."""

    def __init__(self) -> None:
        self.asked: list[tuple[Outgoing, ExchangeRules]] = []
        self.answer: Deferred[Response] = Deferred()

    def exchange(
        self, request: Request, outgoing: Outgoing, rules: ExchangeRules
    ) -> Deferred[Response]:
        self.asked.append((outgoing, rules))
        return self.answer


class HandlerCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.group = Group()
        self.addresses: list[bytes] = []

    def group_for(self, address: bytes) -> Group:
        self.addresses.append(address)
        return self.group

    def ask(self, text: str = "", **request: Any) -> Deferred[Response]:
        config = settings("fastcgi_pass app; fastcgi_param CONTENT_LENGTH $content_length;" + text)
        handler = FastCGIPass(config, self.group_for, Clock())
        result = handler(make_request(config, **request))
        assert isinstance(result, Deferred)
        return result


class HandlerTests(HandlerCase):
    def test_what_is_sent(self) -> None:
        self.ask("fastcgi_keep_conn on; fastcgi_next_upstream_tries 2;", fields=((b"A", b"b"),))
        ((outgoing, rules),) = self.group.asked
        self.assertEqual(self.addresses, [b"app"])
        self.assertEqual((outgoing.method, outgoing.target), (b"GET", b"/x.php"))
        self.assertEqual(outgoing.params, ((b"CONTENT_LENGTH", b""), (b"HTTP_A", b"b")))
        self.assertIsNone(outgoing.body)
        self.assertEqual((rules.tries, rules.scheme), (2, "fastcgi"))

    def test_equal_locations_share_connections(self) -> None:
        clock = Clock()
        for _ in range(2):
            FastCGIPass(settings("fastcgi_pass app;"), self.group_for, clock)(make_request())
        (_, one), (_, two) = self.group.asked
        self.assertEqual(one.connection, two.connection)

    def test_the_answer_loses_what_is_hidden(self) -> None:
        answer = self.ask()
        fields = [(b"X-Accel-Expires", b"5"), (b"Status", b"x"), (b"A", b"b")]
        self.group.answer.callback(Response(200, Headers(fields), b"body"))
        response = self.successResultOf(answer)
        self.assertEqual(list(response.headers), [(b"A", b"b")])
        self.assertEqual((response.body, response.conditional), (b"body", False))

    def test_errors_of_the_application_are_final(self) -> None:
        for text, status, final in (
            ("", 200, True), ("", 404, True), ("fastcgi_intercept_errors on;", 404, False),
            ("fastcgi_intercept_errors on;", 302, False),
            ("fastcgi_intercept_errors on;", 200, True),
        ):  # fmt: skip
            self.setUp()
            answer = self.ask(text)
            self.group.answer.callback(Response(status))
            self.assertEqual(self.successResultOf(answer).final, final)

    def test_failures(self) -> None:
        for error, status in (
            (UpstreamError(Fault.TIMEOUT, "slow"), 504),
            (UpstreamError(Fault.CONNECT, "refused"), 502),
            (UpstreamError(Fault.INVALID_HEADER, "bad"), 502),
            (NoLivePeers(), 502),
            (ClientGone(), 499),
            (CancelledError(), 499),
        ):
            self.setUp()
            answer = self.ask()
            self.group.answer.errback(error)
            response = self.successResultOf(answer)
            self.assertEqual((response.status, response.final), (status, False))

    def test_a_defect_is_an_answer_and_a_traceback(self) -> None:
        answer = self.ask()
        self.group.answer.errback(ZeroDivisionError())
        self.assertEqual(self.successResultOf(answer).status, 500)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_an_address_that_a_variable_made(self) -> None:
        config = settings("fastcgi_pass $http_where;")

        for error, status in ((Invalid("no port"), 500), (UnknownHost("no resolver"), 502)):

            def refuse(address: bytes, error: Exception = error) -> Group:
                raise error

            request = make_request(config, fields=((b"Where", b"there"),))
            response = FastCGIPass(config, refuse, Clock())(request)
            assert isinstance(response, Response)
            self.assertEqual(response.status, status)

    def test_an_address_that_has_to_be_asked_for(self) -> None:
        config = settings("fastcgi_pass $http_where;")
        finding: list[Deferred[Any]] = []

        def ask(address: bytes) -> Deferred[Any]:
            finding.append(Deferred())
            return finding[-1]

        handler = FastCGIPass(config, ask, Clock())
        found = handler(make_request(config, fields=((b"Where", b"there"),)))
        missing = handler(make_request(config, fields=((b"Where", b"there"),)))
        gone_request = make_request(config, fields=((b"Where", b"there"),))
        gone = handler(gone_request)
        assert isinstance(found, Deferred) and isinstance(missing, Deferred)
        assert isinstance(gone, Deferred)
        finding[0].callback(self.group_for(b""))
        self.assertEqual(len(self.group.asked), 1)
        finding[1].errback(UnknownHost("there could not be resolved"))
        self.assertEqual(self.successResultOf(missing).status, 502)
        gone_request.on_gone[0]()
        self.assertEqual(self.successResultOf(gone).status, 499)
        self.assertNoResult(found)

    def test_no_address(self) -> None:
        with self.assertRaises(ValueError):
            FastCGIPass(settings(), self.group_for, Clock())


class BodyTests(HandlerCase):
    def test_a_known_length_streams_if_asked_to(self) -> None:
        body = Stream(5)
        self.ask("fastcgi_request_buffering off;", method=b"POST", body=body)
        self.assertIs(self.group.asked[0][0].body, body)

    def test_a_body_may_be_withheld(self) -> None:
        self.ask("fastcgi_pass_request_body off;", method=b"POST", body=Stream(5))
        self.assertIsNone(self.group.asked[0][0].body)

    def test_an_unknown_length_is_read_first(self) -> None:
        answer = self.ask(
            "fastcgi_request_buffering off;", method=b"POST", body=Instant([b"abc", b"de"])
        )
        ((outgoing, _),) = self.group.asked
        self.assertEqual(outgoing.params, ((b"CONTENT_LENGTH", b"5"),))
        sink = Sink()
        assert outgoing.body is not None
        self.assertEqual(outgoing.body.length, 5)
        outgoing.body.start(sink)
        self.assertEqual((sink.bytes, sink.outcome), (b"abcde", "end"))
        self.group.answer.callback(Response(200))
        self.assertEqual(self.successResultOf(answer).status, 200)

    def test_a_client_that_leaves_while_it_is_read(self) -> None:
        body = Stream()
        answer = self.ask(method=b"POST", body=body)
        assert body.sink is not None
        body.sink.fail(ClientGone())
        self.assertEqual(self.successResultOf(answer).status, 499)
