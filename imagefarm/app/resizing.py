"""The work of the resizer: FastCGI requests in front, a pool of image workers behind."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from attrs import asdict
from twisted.internet.defer import Deferred, DeferredList, succeed
from twisted.python.failure import Failure

from imagefarm.fastcgi.responder import ResponderFactory
from imagefarm.fastcgi.session import FastCGIRequest, ResponderLimits
from imagefarm.http.headers import Headers
from imagefarm.http.message import Response
from imagefarm.http.meter import Meter
from imagefarm.http.requestlog import Context, RequestLogs, quotable
from imagefarm.http.transport import listen
from imagefarm.image.directives import ResizerSettings
from imagefarm.image.pool import WorkerPool
from imagefarm.image.service import ImageService
from imagefarm.process.errorlog import ErrorLogSetting
from imagefarm.process.privileges import Belongings
from imagefarm.process.sockets import Endpoint
from imagefarm.resources.status import json_response, metrics_response

from .instance import Instance, Place
from .logs import Note
from .metrics import resizer_families
from .plan import PARTING
from .slowlog import SlowLog
from .totals import Figures, resizer_status

#: Gives the error logs of settings, and a witness of what they are told.
ErrorLogging = Callable[[Sequence[ErrorLogSetting], Note], RequestLogs]

#: Requests beyond those that are worked on and wait: they are refused with a word, or ask for
#: the status. What comes on top of them gets FCGI_OVERLOADED.
SPARE: Final = 64
#: Connections from web servers, at least.
CONNECTIONS: Final = 512
#: Originals that each worker tells of.
MAX_TOLD: Final = 50


class ResizerWork:
    """`Work` of the resizer's process."""

    def __init__(
        self,
        reactor: Any,
        settings: ResizerSettings,
        endpoints: Sequence[Endpoint],
        place: Place,
        error_logs: ErrorLogging,
    ) -> None:
        self._reactor = reactor
        self._settings = settings
        self._meter = Meter()
        self.instance = Instance(reactor, self, place)
        self._endpoints = tuple(endpoints)
        self._pool = WorkerPool(reactor, settings.pool)
        roots = [os.fsencode(settings.root)]
        self._images = ImageService(
            roots, self._pool, settings.pool.limits, settings.fallback, settings.places,
            report=self._say_why,
        )  # fmt: skip
        self._errors = error_logs((), self.instance.recent.write)
        places = settings.pool.processes + settings.pool.queue + SPARE
        self._factory = ResponderFactory(
            self._answer, reactor, ResponderLimits(places, max(places, CONNECTIONS))
        )
        self._slow: SlowLog | None = None
        if settings.slowlog:
            self._slow = SlowLog(settings.slowlog, settings.slow)
        self._ports: list[Any] = []

    def __repr__(self) -> str:
        return f"<ResizerWork {self._pool!r}>"

    def _say_why(
        self, params: Mapping[bytes, bytes], message: str, failure: Failure | None
    ) -> None:
        """For the error log: why a request is answered with 500 or more."""
        if failure is None:
            self._errors.write("error", message, _context(params))
        else:
            self._errors.fail(message, failure, _context(params))

    def _answer(self, request: FastCGIRequest) -> Deferred[Response]:
        settings, script = self._settings, request.params.get(b"SCRIPT_NAME")
        if settings.ping_path and script == settings.ping_path:
            return succeed(_pong(settings.ping_response))
        if settings.status_path and script == settings.status_path:
            if request.params.get(b"QUERY_STRING") == b"prometheus":
                return self.instance.report().addCallback(
                    lambda status: metrics_response(resizer_families(status))
                )
            return self.instance.report().addCallback(json_response)
        begun = self._reactor.seconds()

        def answered(response: Response) -> Response:
            sent = len(response.body) if isinstance(response.body, bytes) else 0
            took = self._reactor.seconds() - begun
            self._meter.count(response.status, took, 0, sent)
            if self._slow is not None:
                self._slow.answered(_context(request.params), response, took)
            return response

        return self._images(request.params).addCallback(answered)

    def figures(self) -> Figures:
        """`instance.Work`."""
        pool, tally = self._pool.report(), self._pool.tally
        return Figures(
            {
                "requests": self._meter.report(),
                "jobs": asdict(self._pool.counters),
                **tally.report(),
            },
            {
                **pool,
                "workers": 1,
                "quarantined": self._images.quarantined,
                "originals": {
                    name.decode("utf-8", "backslashreplace"): what
                    for name, what in tally.originals.most(MAX_TOLD).items()
                },
            },
        )

    def processes(self) -> Sequence[Mapping[str, Any]]:
        """`instance.Work`: those that decode and encode."""
        return self._pool.processes()

    def status(self, sums: Figures) -> Mapping[str, Any]:
        """`instance.Work`."""
        return resizer_status(sums, self._settings.pool)

    def start(self, sockets: Mapping[str, socket.socket]) -> None:
        """Start the image workers and listen; what comes early waits in the pool's queue."""
        if self._slow is not None:
            self._slow.open()
        self._pool.start()
        self.instance.start()
        for endpoint in self._endpoints:
            self._ports.append(listen(self._reactor, sockets[str(endpoint)], self._factory))

    def _stop_listening(self) -> list[Deferred[Any]]:
        ports, self._ports = self._ports, []
        return [port.stopListening() or succeed(None) for port in ports]

    def drain(self) -> Deferred[Any]:
        """QUIT: answer what has been asked."""
        self.instance.draining = True
        return DeferredList([*self._stop_listening(), self._factory.drain(PARTING)])

    def stop(self) -> Deferred[Any]:
        """TERM: drop everything."""
        self.instance.stop()
        return DeferredList([*self._stop_listening(), self._pool.stop()])

    def reopen(self) -> None:
        """USR1: the slow log was moved away."""
        if self._slow is not None:
            self._slow.open()

    def belongings(self) -> Belongings:
        """The slow log."""
        return Belongings((self._settings.slowlog,) if self._settings.slowlog else ())


def _pong(text: bytes) -> Response:
    headers = Headers([(b"Content-Type", b"text/plain"), (b"Cache-Control", b"no-store")])
    return Response(200, headers, text)


def _context(params: Mapping[bytes, bytes]) -> Context:
    """Whose request it is, as far as the web server has said it: the id in REQUEST_ID, or as it
    passes on its own client's X-Request-ID.
    """

    def said(*names: bytes) -> str:
        return quotable(next((params[name] for name in names if params.get(name)), b""))

    words = (said(b"REQUEST_METHOD"), said(b"REQUEST_URI"), said(b"SERVER_PROTOCOL"))
    return Context(
        client=said(b"REMOTE_ADDR"),
        server=said(b"SERVER_NAME"),
        request=" ".join(word for word in words if word),
        host=said(b"HTTP_HOST"),
        referrer=said(b"HTTP_REFERER"),
        request_id=said(b"REQUEST_ID", b"HTTP_X_REQUEST_ID"),
    )
