"""``api``: who is let in, bodies, and where the directive may stand."""

from __future__ import annotations

import json
import os
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.app.configuration import Options, read
from imagefarm.app.web import WebWork
from imagefarm.config.errors import ConfigurationError
from imagefarm.http.message import BodyStream, ForwardedPeer, Peer, Request, Response
from imagefarm.process.directives import MainSettings
from imagefarm.resources.api import MAX_BODY
from imagefarm.resources.control import ApiSettings, control
from tests.proxy.support import Source, make_request

from .test_api import Remembering

TOKEN = b"0123456789abcdef"
OPEN, GUARDED, UNIX = ApiSettings(), ApiSettings(True, TOKEN), ApiSettings(True)
PATCH = "/api/9/http/upstreams/back/servers/4"


class _Place:
    prefix = b"/api"


class ControlTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.upstreams = Remembering()

    def ask(
        self,
        settings: ApiSettings,
        target: str = "/api/",
        method: str = "GET",
        token: bytes | None = None,
        body: BodyStream | None = None,
        **peer: Any,
    ) -> Response:
        fields = [] if token is None else [(b"Authorization", token)]
        request: Request = make_request(
            method.encode(), target.encode(), fields, body, location=_Place()
        )
        request.peer = evolve(request.peer, **peer)
        answer = control(settings, self.upstreams, lambda: 33)(request)
        if isinstance(answer, Deferred):
            answer = self.successResultOf(answer)
        assert isinstance(answer, Response)
        return answer

    def test_reading_is_free_without_a_token(self) -> None:
        self.assertEqual(
            self.ask(OPEN).body, json.dumps(list(range(1, 10))).replace(" ", "").encode()
        )
        self.assertEqual(self.ask(ApiSettings(False, TOKEN)).status, 401)

    def test_the_token(self) -> None:
        for given, status, challenge in (
            (None, 401, b'Bearer realm="upstreams"'),
            (b"Bearer", 401, b'Bearer realm="upstreams"'),
            (b"Basic " + TOKEN, 401, b'Bearer realm="upstreams"'),
            (b"Bearer x", 401, b'Bearer realm="upstreams", error="invalid_token"'),
            (b"Bearer " + TOKEN[:-1], 401, b'Bearer realm="upstreams", error="invalid_token"'),
            (b"Bearer \xff", 401, b'Bearer realm="upstreams", error="invalid_token"'),
            (b"Bearer " + TOKEN, 200, None),
            (b"bearer  " + TOKEN + b" ", 200, None),
        ):
            answer = self.ask(GUARDED, token=given)
            self.assertEqual(answer.status, status, given)
            self.assertEqual(answer.headers.get(b"www-authenticate"), challenge)
            self.assertTrue(status == 200 or answer.final)

    def test_users_of_a_unix_socket(self) -> None:
        for settings, uid, status in (
            (UNIX, 0, 200), (UNIX, 33, 200), (UNIX, 1000, 403), (UNIX, None, 403),
            (GUARDED, 33, 200), (GUARDED, 1000, 401),
        ):  # fmt: skip
            self.assertEqual(self.ask(settings, uid=uid).status, status, (settings, uid))

    def test_who_is_only_said_to_be_somebody(self) -> None:
        """``real_ip_header`` changes the address, not who is at the other end."""
        request = make_request(target=b"/api/", location=_Place())
        original = evolve(request.peer, uid=1000)
        forged = ForwardedPeer("unix:", 0, original.server, 1, uid=0, original=original)
        request.peer = forged
        answer = control(UNIX, self.upstreams, lambda: 33)(request)
        assert isinstance(answer, Response)
        self.assertEqual(answer.status, 403)

    def test_changing(self) -> None:
        body = Source([b'{"wei', b'ght": 5}'])
        answer = self.ask(UNIX, PATCH, "PATCH", body=body, uid=0)
        self.assertEqual((answer.status, answer.body), (200, b'{"id":4,"weight":5}'))
        self.assertEqual(answer.headers.get(b"content-type"), b"application/json")
        self.assertEqual(self.upstreams.calls, [("change", "back", 4, {"weight": 5})])

    def test_nothing_is_read_of_those_who_may_not(self) -> None:
        body = Source([b'{"weight": 5}'])
        self.assertEqual(self.ask(UNIX, PATCH, "PATCH", body=body, uid=1).status, 403)
        self.assertEqual((body.starts, self.upstreams.calls), (0, []))

    def test_bodies(self) -> None:
        big = b" " * (MAX_BODY + 1)
        for body, status in (
            (Source([]), 400), (Source([b"{"]), 400), (Source([big]), 413),
            (Source([big], known=False), 413), (Source([b"{}"], known=False), 200),
        ):  # fmt: skip
            self.assertEqual(self.ask(UNIX, PATCH, "PATCH", body=body, uid=0).status, status)

    def test_a_body_that_breaks_off(self) -> None:
        body = Source([], known=False, held=True)
        request = make_request(b"PATCH", PATCH.encode(), (), body, location=_Place())
        request.peer = evolve(request.peer, uid=0)
        answer = control(UNIX, self.upstreams, lambda: 33)(request)
        assert isinstance(answer, Deferred)
        assert body.sink is not None
        body.sink.fail(ValueError("gone"))
        self.assertEqual(self.successResultOf(answer).status, 400)

    def test_where_a_new_server_is(self) -> None:
        body = Source([b'{"server": "10.0.0.1:80"}'])
        path = "/api/9/http/upstreams/back/servers"
        answer = self.ask(UNIX, path, "POST", body=body, uid=0)
        self.assertEqual(answer.status, 201)
        self.assertEqual(answer.headers.get(b"location"), path.encode() + b"/8")

    def test_allow(self) -> None:
        answer = self.ask(OPEN, PATCH, "PUT")
        self.assertEqual(
            (answer.status, answer.headers.get(b"allow")), (405, b"GET, PATCH, DELETE, HEAD")
        )


class PlaceTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = self.mktemp()
        os.makedirs(os.path.join(self.directory, "logs"))
        self.token = self.file("token", TOKEN + b"\n")

    def file(self, name: str, text: bytes, mode: int = 0o600) -> str:
        path = os.path.abspath(os.path.join(self.directory, name))
        with open(path, "wb") as file:
            file.write(text)
        os.chmod(path, mode)
        return path

    def problems(
        self, listen: str, words: str, inside: str = "location /api { api %s; }"
    ) -> list[str]:
        text = f"events {{ }} http {{ server {{ {listen} {inside % words} }} }}"
        config = self.file("nginx.conf", text.encode())
        try:
            loaded = read(Options("master", config, os.path.abspath(self.directory)))
            work = WebWork(
                MemoryReactorClock(), loaded, MainSettings.from_scope(loaded.root), self.directory
            )
            work.stop()
        except ConfigurationError as error:
            return [problem.message for problem in error.problems]
        return []

    def test_where_changing_is_allowed(self) -> None:
        token = f"write=on token_file={self.token}"
        for listen, words in (
            ("listen 127.0.0.1:8090;", token),
            ("listen [::1]:8090;", token),
            ("listen 127.0.0.9:8090; listen unix:/run/x;", token),
            ("listen unix:/run/x;", "write=on"),
            ("listen 8090;", ""),
            ("listen 8090;", "write=off"),
        ):
            self.assertEqual(self.problems(listen, words), [], (listen, words))

    def test_where_it_is_not(self) -> None:
        token = f"write=on token_file={self.token}"
        public = (
            '"api write=on" is allowed only in a server that listens on nothing but loopback '
            "addresses and Unix sockets"
        )
        needs = '"api write=on" needs "token_file" in a server that listens on a loopback address'
        for listen, words, message in (
            ("listen 8090;", token, public),
            ("", token, public),
            ("listen 127.0.0.1:8090; listen 10.0.0.1:8090;", token, public),
            ("listen [::]:8090;", token, public),
            ("listen unix:/run/x; listen 80;", "write=on", public),
            ("listen 127.0.0.1:8090;", "write=on", needs),
            ("listen unix:/run/x; listen 127.0.0.1:8090;", "write=on", needs),
        ):
            self.assertEqual(self.problems(listen, words), [message], (listen, words))
            inner = "location / { location /api { api %s; } }"
            self.assertEqual(self.problems(listen, words, inner), [message])

    def test_where_purging_is_allowed(self) -> None:
        inside = "location /purge { cache_api %s; }"
        token = f"token_file={self.token}"
        for listen, words in (("listen 127.0.0.1:8090;", token), ("listen unix:/run/x;", "")):
            self.assertEqual(self.problems(listen, words, inside), [])
        (message,) = self.problems("listen 8090;", token, inside)
        self.assertIn('"cache_api" is allowed only in a server', message)
        (message,) = self.problems("listen 127.0.0.1:8090;", "", inside)
        self.assertIn('"cache_api" needs "token_file"', message)
        (message,) = self.problems("listen unix:/run/x;", "write=on", inside)
        self.assertEqual(message, 'invalid parameter "write=on"')

    def test_token_files(self) -> None:
        listen = "listen 127.0.0.1:8090;"
        for path, words in (
            (self.file("a", TOKEN, 0o640), "has mode 0640"),
            (self.file("b", TOKEN, 0o604), "has mode 0604"),
            (self.file("c", TOKEN[:-1]), "has to hold one word of at least 16"),
            (self.file("d", TOKEN + b" " + TOKEN), "has to hold one word"),
            ("/nonexistent/token", "cannot read token file"),
        ):
            (message,) = self.problems(listen, f"write=on token_file={path}")
            self.assertIn(words, message)

    def test_parameters(self) -> None:
        for words in ("write", "write=yes", "token_file=", "x=1"):
            problems = self.problems("listen unix:/run/x;", words)
            self.assertEqual(problems, [f'invalid parameter "{words}"'])

    def test_peer_of_a_plain_connection(self) -> None:
        self.assertIsNone(Peer("127.0.0.1", 1, ("127.0.0.1", 2), 1).uid)
