"""``fastcgi_pass``: a request goes to an application, its answer comes back as a `Response`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import attrs
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from imagefarm.config.errors import Invalid
from imagefarm.http.body import BodyError, BytesBody
from imagefarm.http.headers import Headers
from imagefarm.http.message import BodyStream, Request, Response
from imagefarm.http.requestlog import report
from imagefarm.http.upstream import (
    ExchangeRules,
    Fault,
    NoLivePeers,
    Outgoing,
    UpstreamError,
    UpstreamGroup,
)

from .client import ConnectionFactory
from .collect import TooMuch, collect
from .directives import FastCGISettings
from .params import build_params
from .wire import Clock

#: nginx's status for a client that has gone; nobody sees it but the access log.
_GONE: Final = 499

_log: Final = Logger(namespace="imagefarm.fastcgi")


class FastCGIPass:
    """A `Handler`. ``settings.address`` must be there; it is the group's name or an address.

    ``group_for`` finds the group of an address and may raise `Invalid` for one that a variable
    made. Retries, balancing and pooling are the group's; so are the log lines of its failures.
    """

    def __init__(
        self,
        settings: FastCGISettings,
        group_for: Callable[[bytes], UpstreamGroup],
        clock: Clock,
    ) -> None:
        if settings.address is None:
            raise ValueError("no fastcgi_pass")
        self._settings = settings
        self._address = settings.address
        self._group_for = group_for
        self._rules = ExchangeRules(
            connection=ConnectionFactory(
                clock, keep=settings.keep_conn, head_limit=settings.buffer_size
            ),
            timeouts=settings.timeouts,
            next_upstream=settings.next_upstream,
            tries=settings.next_upstream_tries,
            next_timeout=settings.next_upstream_timeout,
            scheme="fastcgi",
        )

    def __call__(self, request: Request) -> Response | Deferred[Response]:
        """Answer ``request``. The Deferred never fails; where the application does, 502 or 504."""
        address = self._address(request)
        try:
            group = self._group_for(address)
        except Invalid as error:
            report(request, "error", f"{error} while connecting to upstream")
            return Response(502)
        body = request.body
        if not self._settings.pass_request_body or body.length == 0:
            return self._exchange(request, group, None, None)
        if body.length is not None:
            return self._exchange(request, group, body, None)
        collecting: Deferred[Response] = collect(body).addCallback(
            lambda data: self._exchange(request, group, BytesBody(data), len(data))
        )
        return collecting.addErrback(self._failed)

    def _exchange(
        self,
        request: Request,
        group: UpstreamGroup,
        body: BodyStream | None,
        collected: int | None,
    ) -> Deferred[Response]:
        head = request.head
        outgoing = Outgoing(
            head.method,
            head.target,
            params=build_params(self._settings, request, collected),
            body=body,
        )
        exchange = group.exchange(request, outgoing, self._rules)
        return exchange.addCallbacks(self._answered, self._failed)

    def _answered(self, response: Response) -> Response:
        """The application's answer as the client may see it."""
        settings = self._settings
        hidden = settings.hidden
        headers = Headers(field for field in response.headers if field[0].lower() not in hidden)
        # Where nothing is intercepted, what the application says of an error is final; whether
        # something matches a precondition is for the application to say as well.
        final = not (settings.intercept_errors and response.status >= 300)
        return attrs.evolve(response, headers=headers, final=final, conditional=False)

    def _failed(self, failure: Failure) -> Response:
        error = failure.value
        if isinstance(error, UpstreamError):
            return Response(504 if error.fault is Fault.TIMEOUT else 502)
        if isinstance(error, NoLivePeers):
            return Response(502)
        if isinstance(error, BodyError):
            return Response(error.status)
        if isinstance(error, TooMuch):
            return Response(411)
        if isinstance(error, CancelledError):
            return Response(_GONE)
        _log.failure("fastcgi_pass broke", failure)
        return Response(500)

    def __repr__(self) -> str:
        return f"<FastCGIPass {self._address.source}>"
