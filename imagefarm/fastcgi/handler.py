"""``fastcgi_pass``: a request goes to an application, its answer comes back as a `Response`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from imagefarm.config.errors import Invalid
from imagefarm.http.message import BodyStream, Request, Response
from imagefarm.http.spool import SpooledBody, spool
from imagefarm.http.upstream import (
    ExchangeRules,
    Outgoing,
    UnknownHost,
    UpstreamGroup,
)
from imagefarm.http.upstream_answer import Presenter, failure_response
from imagefarm.http.upstream_rows import exchange_rules

from .client import ConnectionFactory
from .directives import FastCGISettings
from .params import build_params
from .wire import Clock

#: nginx's status for a client that has gone; nobody sees it but the access log.
_GONE: Final = 499

_log: Final = Logger(namespace="imagefarm.fastcgi")


class FastCGIPass:
    """A `Handler`. ``settings.address`` must be there; it is the group's name or an address.

    ``group_for`` finds the group of an address and may raise `Invalid` for one that a variable
    made, or `UnknownHost`; where it has to ask for a name it answers later. Retries, balancing and
    pooling are the group's; so are the log lines of its failures.
    """

    def __init__(
        self,
        settings: FastCGISettings,
        group_for: Callable[[bytes], UpstreamGroup | Deferred[UpstreamGroup]],
        clock: Clock,
    ) -> None:
        if settings.address is None:
            raise ValueError("no fastcgi_pass")
        self._settings = settings
        self._address = settings.address
        self._group_for = group_for
        connection = ConnectionFactory(
            clock,
            keep=settings.keep_conn,
            head_limit=settings.buffer_size,
            catch_stderr=settings.catch_stderr,
        )
        self._rules = exchange_rules(settings, connection, "fastcgi")
        self._presenter = Presenter(settings, clock)

    def again(self, response: Response, request: Request) -> None:
        """`Presenter.again`."""
        self._presenter.again(response, request)

    def __call__(self, request: Request) -> Response | Deferred[Response]:
        """Answer ``request``. The Deferred never fails; where the application does, 502 or 504."""
        request.outcome.patient = self._settings.streaming.ignore_client_abort
        body = request.body
        if not self._settings.pass_request_body or body.length == 0:
            return self._ask(None, request)
        spooling = self._settings.streaming.spooling
        if isinstance(body, SpooledBody) or (body.length is not None and not spooling.enabled):
            return self._ask(body, request)
        # CGI applications read as many bytes as CONTENT_LENGTH says (RFC 3875 section 4.2), so
        # a chunked body is always read whole first.
        asking: Deferred[Response] = spool(body, request, spooling).addCallback(self._ask, request)
        return asking.addErrback(failure_response, request)

    def _ask(self, body: BodyStream | None, request: Request) -> Response | Deferred[Response]:
        address = self._address(request)
        try:
            group = self._group_for(address)
        except (Invalid, UnknownHost):
            return failure_response(Failure(), request)
        if isinstance(group, Deferred):
            if not self._settings.streaming.ignore_client_abort:
                request.on_gone.append(group.cancel)
            exchange: Deferred[Response] = group.addCallback(self._exchange, request, body)
            return exchange.addErrback(failure_response, request)
        return self._exchange(group, request, body)

    def probe(self, request: Request) -> tuple[Outgoing, ExchangeRules]:
        """`http.upstream.Probeable`: the parameters are the location's."""
        params = build_params(self._settings, request)
        return Outgoing(request.head.method, request.head.target, params=params), self._rules

    def _exchange(
        self,
        group: UpstreamGroup,
        request: Request,
        body: BodyStream | None,
    ) -> Deferred[Response]:
        head = request.head
        collected = body.length if isinstance(body, SpooledBody) else None
        outgoing = Outgoing(
            head.method,
            head.target,
            params=build_params(self._settings, request, collected),
            body=body,
        )
        exchange = group.exchange(request, outgoing, self._rules)
        return exchange.addCallbacks(
            self._presenter.present,
            failure_response,
            callbackArgs=(request,),
            errbackArgs=(request,),
        )

    def __repr__(self) -> str:
        return f"<FastCGIPass {self._address.source}>"
