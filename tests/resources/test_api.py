"""The control API's paths, methods, JSON and errors, on upstreams that only remember."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from attrs import define, field
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.resources.api import ApiAnswer, ApiError, ApiRequest, parse_settings, serve


@define
class Remembering:
    """`Upstreams` with one group, "back", of two servers."""

    calls: list[tuple[Any, ...]] = field(factory=list)

    def names(self) -> Sequence[str]:
        return ["back"]

    def report(self, name: str) -> Mapping[str, Any]:
        self.servers(name)
        return {"peers": [{"id": 4}], "keepalive": 1}

    def servers(self, name: str) -> Sequence[Mapping[str, Any]]:
        if name != "back":
            raise ApiError(404, "UpstreamNotFound", "upstream not found")
        return [{"id": 4, "weight": 1}, {"id": 7, "weight": 2}]

    def change(self, name: str, number: int, changes: Mapping[str, Any]) -> Mapping[str, Any]:
        self.calls.append(("change", name, number, dict(changes)))
        return {"id": number, **changes}

    def add(self, name: str, settings: Mapping[str, Any]) -> Mapping[str, Any]:
        self.calls.append(("add", name, dict(settings)))
        return {"id": 8, **settings}

    def remove(self, name: str, number: int) -> Sequence[Mapping[str, Any]]:
        self.calls.append(("remove", name, number))
        return [{"id": 4}]


class ServeTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.upstreams = Remembering()

    def ask(
        self, path: str, method: str = "GET", value: Any = None, *, write: bool = True, **more: Any
    ) -> ApiAnswer:
        body = b"" if value is None else json.dumps(value).encode()
        return serve(ApiRequest(method, path, body=body, **more), self.upstreams, write=write)

    def refused(self, *arguments: Any, **more: Any) -> tuple[int, str]:
        error = self.assertRaises(ApiError, self.ask, *arguments, **more)
        self.assertEqual(error.value["error"]["code"], error.code)
        self.assertEqual(self.upstreams.calls, [])
        return error.status, error.code

    def test_the_tree(self) -> None:
        report = {"peers": [{"id": 4}], "keepalive": 1}
        servers = self.upstreams.servers("back")
        for path, value in (
            ("", list(range(1, 10))),
            ("9", ["http"]),
            ("9/http/", ["upstreams"]),
            ("9/http/upstreams/", {"back": report}),
            ("9/http/upstreams/back", report),
            ("1/http/upstreams/back/", report),
            ("9/http/upstreams/back/servers", servers),
            ("9/http/upstreams/back/servers/7/", servers[1]),
        ):
            for method in ("GET", "HEAD"):
                answer = self.ask(path, method, write=False)
                self.assertEqual((answer.status, answer.value), (200, value), path)

    def test_fields(self) -> None:
        chosen = frozenset({"keepalive"})
        self.assertEqual(self.ask("9/http/upstreams/back", fields=chosen).value, {"keepalive": 1})
        self.assertEqual(
            self.ask("9/http/upstreams", fields=chosen).value, {"back": {"keepalive": 1}}
        )

    def test_patch(self) -> None:
        changes = {"down": True, "weight": 5, "fail_timeout": "1m"}
        answer = self.ask("9/http/upstreams/back/servers/7", "PATCH", changes)
        self.assertEqual(
            self.upstreams.calls,
            [("change", "back", 7, {"down": True, "weight": 5, "fail_timeout": 60.0})],
        )
        self.assertEqual((answer.status, answer.value["id"]), (200, 7))

    def test_post(self) -> None:
        settings = {"server": "10.0.0.1:80", "backup": True, "slow_start": 5}
        answer = self.ask("7/http/upstreams/back/servers/", "POST", settings)
        self.assertEqual(self.upstreams.calls, [("add", "back", settings)])
        self.assertEqual(
            (answer.status, answer.location), (201, "7/http/upstreams/back/servers/8")
        )

    def test_delete(self) -> None:
        answer = self.ask("9/http/upstreams/back/servers/4", "DELETE")
        self.assertEqual(self.upstreams.calls, [("remove", "back", 4)])
        self.assertEqual((answer.status, answer.value), (200, [{"id": 4}]))

    def test_not_found(self) -> None:
        one = "9/http/upstreams/back/servers/"
        for path, method, expected in (
            ("10", "GET", (404, "UnknownVersion")),
            ("x/http", "GET", (404, "UnknownVersion")),
            ("9/stream", "GET", (404, "PathNotFound")),
            ("9/http/upstreams/back/servers/4/x", "GET", (404, "PathNotFound")),
            ("9/http/upstreams/nope", "GET", (404, "UpstreamNotFound")),
            ("9/http/upstreams/nope/servers", "POST", (404, "UpstreamNotFound")),
            ("9/http/upstreams/nope/servers/4", "PATCH", (404, "UpstreamNotFound")),
            (one + "5", "GET", (404, "UpstreamServerNotFound")),
            (one + "5", "DELETE", (404, "UpstreamServerNotFound")),
            (one + "-1", "PATCH", (400, "UpstreamBadServerId")),
            (one + "x", "GET", (400, "UpstreamBadServerId")),
        ):
            self.assertEqual(self.refused(path, method, {}), expected, path)

    def test_methods(self) -> None:
        for path, method, allow in (
            ("", "POST", "GET, HEAD"),
            ("9/http/upstreams/back", "PATCH", "GET, HEAD"),
            ("9/http/upstreams/back/servers", "DELETE", "GET, POST, HEAD"),
            ("9/http/upstreams/back/servers/4", "PUT", "GET, PATCH, DELETE, HEAD"),
        ):
            error = self.assertRaises(ApiError, self.ask, path, method)
            self.assertEqual((error.status, error.allow), (405, allow))
            self.assertEqual(error.code, "MethodNotSupported")

    def test_read_only(self) -> None:
        for path, method in (("servers", "POST"), ("servers/4", "PATCH"), ("servers/4", "DELETE")):
            found = self.refused(f"9/http/upstreams/back/{path}", method, {}, write=False)
            self.assertEqual(found, (405, "MethodDisabled"))


class SettingsTests(SynchronousTestCase):
    def refused(self, body: bytes, new: bool = False) -> str:
        error = self.assertRaises(ApiError, parse_settings, body, new=new)
        self.assertEqual(error.status, 400)
        return error.code

    def test_errors(self) -> None:
        for body, code in (
            (b"", "JsonError"),
            (b"{", "JsonError"),
            (b"\xff", "JsonError"),
            (b"[" * 5000, "JsonError"),
            (b"[]", "UpstreamConfFormatError"),
            (b"1", "UpstreamConfFormatError"),
            (b'{"x": 1}', "UpstreamConfFormatError"),
            (b'{"id": 1}', "UpstreamConfFormatError"),
            (b'{"server": "a"}', "UpstreamConfFormatError"),
            (b'{"backup": true}', "UpstreamConfFormatError"),
            (b'{"down": 1}', "UpstreamConfFormatError"),
            (b'{"down": {}}', "UpstreamConfFormatError"),
            (b'{"down": true, "drain": true}', "UpstreamConfFormatError"),
            (b'{"weight": 0}', "UpstreamBadWeight"),
            (b'{"weight": true}', "UpstreamBadWeight"),
            (b'{"weight": "5"}', "UpstreamBadWeight"),
            (b'{"weight": 1e3}', "UpstreamBadWeight"),
            (b'{"max_conns": -1}', "UpstreamBadMaxConns"),
            (b'{"max_fails": 9999999999}', "UpstreamBadMaxFails"),
            (b'{"fail_timeout": "x"}', "UpstreamBadFailTimeout"),
            (b'{"slow_start": null}', "UpstreamBadSlowStart"),
        ):
            self.assertEqual(self.refused(body), code, body)
        self.assertEqual(self.refused(b"{}", new=True), "UpstreamConfFormatError")
        self.assertEqual(self.refused(b'{"server": ""}', new=True), "UpstreamBadAddress")

    @given(st.one_of(st.binary(), st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["weight", "down", "server", "x"]), inner, max_size=3),
    ).map(lambda value: json.dumps(value).encode())), st.booleans())  # fmt: skip
    def test_property(self, body: bytes, new: bool) -> None:
        """Anything at all is either refused with 400 or gives values of the right types."""
        try:
            found = parse_settings(body, new=new)
        except ApiError as error:
            self.assertEqual(error.status, 400)
            return
        self.assertTrue(set(found) <= {"weight", "down", "server"})
        self.assertGreaterEqual(found.get("weight", 1), 1)
