"""The work of the resizer: FastCGI requests in front, a pool of image workers behind."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping, Sequence
from typing import Any

from twisted.internet.defer import Deferred, DeferredList, succeed

from imagefarm.fastcgi.responder import ResponderFactory
from imagefarm.fastcgi.session import FastCGIRequest
from imagefarm.http.message import Response
from imagefarm.image.directives import ResizerSettings
from imagefarm.image.pool import WorkerPool
from imagefarm.image.service import ImageService
from imagefarm.process.privileges import Belongings
from imagefarm.process.sockets import Endpoint


class ResizerWork:
    """`Work` of the resizer's process."""

    def __init__(
        self, reactor: Any, settings: ResizerSettings, endpoints: Sequence[Endpoint]
    ) -> None:
        self._reactor = reactor
        self._endpoints = tuple(endpoints)
        self._pool = WorkerPool(reactor, settings.pool)
        roots = [os.fsencode(settings.root)]
        self._images = ImageService(
            roots, self._pool, settings.pool.limits, settings.fallback, settings.places
        )
        self._factory = ResponderFactory(self._answer, reactor)
        self._ports: list[Any] = []

    def __repr__(self) -> str:
        return f"<ResizerWork {self._pool!r}>"

    def _answer(self, request: FastCGIRequest) -> Deferred[Response]:
        return self._images(request.params)

    def start(self, sockets: Mapping[str, socket.socket]) -> None:
        """Start the image workers and listen; what comes early waits in the pool's queue."""
        self._pool.start()
        for endpoint in self._endpoints:
            sock = sockets[str(endpoint)]
            port = self._reactor.adoptStreamPort(sock.fileno(), sock.family, self._factory)
            self._ports.append(port)

    def _stop_listening(self) -> list[Deferred[Any]]:
        ports, self._ports = self._ports, []
        return [port.stopListening() or succeed(None) for port in ports]

    def drain(self) -> Deferred[Any]:
        """QUIT: answer what has been asked."""
        return DeferredList([*self._stop_listening(), self._factory.drain()])

    def stop(self) -> Deferred[Any]:
        """TERM: drop everything."""
        return DeferredList([*self._stop_listening(), self._pool.stop()])

    def reopen(self) -> None:
        """No log files but the error log."""

    def belongings(self) -> Belongings:
        """Nothing but the error log."""
        return Belongings()
