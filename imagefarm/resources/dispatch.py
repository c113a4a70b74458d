"""The dispatcher: a request's way through the tree, nginx's phases in order.

real client -> server rewrite -> find location -> location rewrite (again while the URI changes)
-> real client, if not known yet -> access -> ``try_files`` -> content -> error pages -> filters.
Internal redirects start again at the server rewrite, named locations at the location rewrite;
`MAX_REDIRECTS` of either is nginx's bound.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, cast

from attrs import evolve
from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from imagefarm.config.variables import Template
from imagefarm.http import filters, relays, upstream_answer
from imagefarm.http.body import EMPTY
from imagefarm.http.errorpages import CLOSING, PLAIN_TO_TLS, error_response
from imagefarm.http.filters.headers import Kind, renewed
from imagefarm.http.filters.mediatypes import media_type
from imagefarm.http.headers import Headers
from imagefarm.http.message import Request, Response, discard
from imagefarm.http.requestlog import explain, printable, report, report_failure
from imagefarm.http.spool import SpooledBody
from imagefarm.http.uri import BadTarget, normalise, split_unsafe

from .accounts import Accounts
from .actions import (
    READ_ONLY,
    Action,
    InternalRedirect,
    NamedRedirect,
    Redirect,
    Result,
    not_allowed,
)
from .likeness import alike, alike_kept
from .location import Location
from .redirects import absolute_location
from .rewrite import Flow, Note, run
from .server import Farm, LocationLeaf, VirtualHost
from .tryfiles import try_files

MAX_REDIRECTS: Final = 10

#: Other answers have no Last-Modified in nginx, error pages that are files among them.
_DATED: Final = frozenset({200, 206, 304})

_OF_THE_PASSAGE: Final = frozenset({b"www-authenticate", b"cache-status"})
#: What stays with an answer whose page is replaced.
_CARRIED: Final = frozenset(
    {
        b"location", b"content-range", b"www-authenticate", b"retry-after", b"allow",
        b"cache-status",
    }
)  # fmt: skip


def _rewrite_note(text: str, request: Request) -> None:
    report(request, "notice", text)


def _note(wanted: bool) -> Note | None:
    return _rewrite_note if wanted else None


class Dispatcher(Accounts):
    """`http.message.Application`: answers out of a `Farm`. ``clock`` is the time of day."""

    def __init__(self, farm: Farm, clock: Callable[[], float] = time.time) -> None:
        super().__init__(clock)
        self.farm = farm

    # Application

    def respond(self, request: Request) -> Response | Deferred[Response]:
        """Route the request and settle what comes of it."""
        try:
            return self._settle(request, self._begin(request))
        except Exception:
            return self._broken(request, Failure())

    def reject(self, request: Request, status: int) -> Response | Deferred[Response]:
        """The error page for a request that could not be read."""
        try:
            if status == PLAIN_TO_TLS:  # it could well be read
                self._choose_server(request)
            else:
                self._use(request, self.farm.first(request))
            request.close = True
            try:
                self._normalise(request)
            except BadTarget:
                request.uri = b""
            return self._settle(request, not_allowed() if status == 405 else Response(status))
        except Exception:
            return self._broken(request, Failure())

    def finished(self, request: Request) -> None:
        """Count it, and write the access log of the location that answered."""
        if request.location is None:  # the head did not come
            self._use(request, self.farm.first(request))
        if request.outcome.status >= 500 and not request.explained:
            explain(request)
        self.account(request)

    # The phases

    def _choose_server(self, request: Request) -> VirtualHost:
        host = self.farm.getChild(b"", request)
        self._use(request, host)
        return host

    def _use(self, request: Request, host: VirtualHost) -> None:
        request.server = host
        self._enter(request, host.settings.fallback)

    def _normalise(self, request: Request) -> None:
        """Read the target, under the rules of the server in force before. Raises `BadTarget`."""
        merge_slashes = self.farm.first(request).settings.merge_slashes
        request.uri, request.args = normalise(request.head.target, merge_slashes=merge_slashes)

    @staticmethod
    def _enter(request: Request, location: Location) -> None:
        request.location = location
        request.relayable = request.plannable and location.relayable
        request.plannable = request.plannable and location.plannable
        request.transfer = location.transfer

    def _begin(self, request: Request) -> Result:
        host = self._choose_server(request)
        if request.head.target == b"*":
            # RFC 9110 section 9.3.7: OPTIONS asks what holds for all of the server.
            request.uri = b"*"
            return Response(200, Headers([(b"Allow", READ_ONLY + b", OPTIONS")]))
        try:
            self._normalise(request)
        except BadTarget as error:
            request.plannable = False
            self._use(request, self.farm.first(request))
            report(request, "info", f"client sent invalid request: {error}")
            return Response(400)
        if host.settings.client is not None:
            refusal = self.farm.refusal(request, host)
            if refusal is not None:
                request.close = True
                report(request, "info", refusal[1])
                return Response(refusal[0])
        if host.settings.fallback.realip is not None:
            host.settings.fallback.realip.apply(request)
        return self._route(request, host)

    def _route(self, request: Request, host: VirtualHost) -> Result:
        """From the server rewrite on."""
        settings = host.settings
        if settings.steps:
            request.plannable = False
            answer = run(settings.steps, request, _note(settings.rewrite_log))
            if not isinstance(answer, Flow):
                return answer
        return self._locate(request, host)

    def _locate(
        self, request: Request, host: VirtualHost, leaf: LocationLeaf | None = None
    ) -> Result:
        """From finding the location on; from ``leaf`` on where that has been found."""
        while True:
            answer = self._visit(request, leaf or host.getChild(b"", request))
            if answer is not Flow.SEARCH:
                return cast(Result, answer)
            leaf = None
            request.redirects += 1
            if request.redirects > MAX_REDIRECTS:
                return self._cycle(request)

    def _visit(self, request: Request, leaf: LocationLeaf) -> Result | Flow:
        """From the location rewrite on; `Flow.SEARCH` if the URI was changed."""
        location = leaf.location
        self._enter(request, location)
        request.valid_location = True
        if location.internal and not request.internal:
            return Response(404)
        limit = location.transfer.client_max_body_size
        if limit and (request.body.length or 0) > limit and request.error_status is None:
            report(
                request,
                "error",
                f"client intended to send too large body: {request.body.length} bytes",
            )
            return Response(413)
        if location.steps:
            answer = run(location.steps, request, _note(location.rewrite_log))
            if answer is not Flow.GO_ON:
                return answer
            location = request.location  # an `if` may have replaced it
            request.transfer = location.transfer
        if location.realip is not None:
            location.realip.apply(request)
        if location.access and _denied(request, location):
            report(request, "error", "access forbidden by rule")
            return Response(403)
        if location.try_files is not None:
            elsewhere = try_files(request, location.try_files)
            if elsewhere is not None:
                return elsewhere
        request.keepable = request.plannable and location.keeps and location.try_files is None
        if location.keeps:
            request.plannable = False  # but for a hit, nobody knows what it depends on
        return leaf.render(request)

    def _redirect(self, request: Request, target: Redirect) -> Result:
        host: VirtualHost = request.server
        request.redirects += 1
        if request.redirects > MAX_REDIRECTS:
            return self._cycle(request)
        request.internal = True
        if isinstance(target, InternalRedirect):
            request.uri, request.args = target.uri, target.args
            return self._route(request, host)
        leaf = host.locations.named.get(target.name)
        if leaf is None:
            name = printable(target.name)
            report(request, "error", f'could not find named location "{name}"')
            return Response(500)
        return self._locate(request, host, leaf)

    @staticmethod
    def _cycle(request: Request) -> Response:
        """The end of too many redirects: final, because an error page would be one more."""
        report(
            request, "error",
            "rewrite or internal redirection cycle while processing "
            f'"{printable(request.uri)}"',
        )  # fmt: skip
        request.error_status = None
        page = error_response(request, 500, padding=request.location.msie_padding)
        return evolve(page, final=True)

    # The end

    def _settle(self, request: Request, result: Result) -> Response | Deferred[Response]:
        """Follow redirects and error pages until there is a response; then filter it."""
        while True:
            if isinstance(result, Deferred):
                return self._later(request, cast("Deferred[Action]", result))
            if isinstance(result, InternalRedirect | NamedRedirect):
                result = self._redirect(request, result)
                continue
            page = None
            if not result.final and result.status >= 300:
                page = self._error_page(request, result)
            if page is None and result.redirect is not None:
                result = self._elsewhere(request, result, result.redirect)
                continue
            if result.final or result.status < 300:
                return self._complete(request, result)
            upstream_answer.describe_anew(request)
            if page is None and not _bare(result):
                if not _has_page(request, result):
                    return self._complete(request, result)  # an upstream's own page
                _carry(request, result, _OF_THE_PASSAGE)
                discard(result.body)
                result = Response(result.status)
            if page is None:
                return self._complete(request, _built_in(request, result), special=True)
            # What an upstream has said goes with its page, but for the challenge (nginx), and
            # what the cache has added.
            _carry(request, result, _CARRIED if _ours(result) else _OF_THE_PASSAGE)
            discard(result.body)
            result = page

    def _later(self, request: Request, result: Deferred[Action]) -> Deferred[Response]:
        def go_on(action: Action) -> Response | Deferred[Response]:
            return self._settle(request, action)

        def broken(failure: Failure) -> Response:
            return self._broken(request, failure)

        chained = result.addCallback(go_on)
        return cast("Deferred[Response]", chained.addErrback(broken))

    @staticmethod
    def _elsewhere(request: Request, response: Response, target: bytes) -> Action:
        """Where an upstream's X-Accel-Redirect leads."""
        upstream_answer.leave(response, request)
        request.plannable = False
        if not isinstance(request.body, SpooledBody):
            request.body = EMPTY  # the upstream has had it
        if target.startswith(b"@"):
            return NamedRedirect(target)
        if request.head.method not in (b"GET", b"HEAD"):
            request.received = request.received or request.head
            request.head = evolve(request.head, method=b"GET")
        try:
            return InternalRedirect(*split_unsafe(target))
        except BadTarget:
            report(request, "error", f'unsafe URI "{printable(target)}" was detected')
            return Response(404)

    def _error_page(self, request: Request, response: Response) -> Action | None:
        """Where ``error_page`` leads for this status, or None."""
        location: Location = request.location
        status = response.status
        if status in CLOSING and (_bare(response) or _has_page(request, response)):
            request.close = True
        if request.error_status is not None and not location.recursive_error_pages:
            return None
        for page in location.error_pages:
            if status not in page.codes:
                continue
            answer = status if page.answer is None else page.answer
            request.error_status = answer
            if isinstance(page.target, Template) and page.target.constant is None:
                request.plannable = False
            uri = b"" if isinstance(page.target, NamedRedirect) else page.target(request)
            if isinstance(page.target, NamedRedirect) or uri.startswith(b"@"):
                named = page.target
                return named if isinstance(named, NamedRedirect) else NamedRedirect(uri)
            if uri.startswith(b"/"):
                if request.head.method not in (b"GET", b"HEAD"):
                    request.received = request.received or request.head
                    request.head = evolve(request.head, method=b"GET")
                request.body = EMPTY  # the page is not what the body was meant for
                path, _, args = uri.partition(b"?")
                return InternalRedirect(path, args)
            code = answer if answer in (301, 302, 303, 307, 308) else 302
            request.error_status = code
            bare = Response(code, Headers([(b"Location", uri)]))
            return evolve(_built_in(request, bare), final=True)
        return None

    def _complete(
        self, request: Request, response: Response, *, special: bool = False
    ) -> Response | Deferred[Response]:
        """Filter the answer. What it holds is released where a filter fails."""
        try:
            return self._filtered(request, response, special)
        except Exception:
            discard(response.body)
            raise

    def _filtered(
        self, request: Request, response: Response, special: bool
    ) -> Response | Deferred[Response]:
        location: Location = request.location
        if request.error_status and not special:
            response = evolve(response, status=request.error_status)
        absolute_location(request, response)
        if request.preset:
            upstream_answer.complete(response, request)
        if request.close:
            response = evolve(response, close=True)
        filtered = filters.run(request, response, location.filters)
        if filtered.status in (412, 416) and response.status == 200:
            page = self._error_page(request, filtered)
            if page is not None:
                _carry(request, filtered)
                discard(filtered.body)
                return self._settle(request, page)
        if request.plannable:
            _plan(request, filtered, special=special)
        elif request.keepable and filtered.kept is not None and not special:
            _plan_kept(request, filtered)
        elif request.route is not None:
            _plan_relay(request, filtered)
        _trim(request, filtered)
        return filtered

    def _broken(self, request: Request, failure: Failure) -> Response:
        """A defect of ours, or a cancelled request: say so in the log, answer plainly."""
        if failure.check(CancelledError):
            return Response(499, final=True, close=True)
        report_failure(request, "while answering", failure)
        return error_response(request, 500)


def _denied(request: Request, location: Location) -> bool:
    """Whether the first access rule that speaks of the client denies it."""
    address = request.peer.address
    return next((not rule.allow for rule in location.access if rule.covers(address)), False)


def _ours(response: Response) -> bool:
    """Whether the answer is of our own making, not an upstream's."""
    return response.conditional and _bare(response)


def _carry(request: Request, response: Response, names: frozenset[bytes] = _CARRIED) -> None:
    """Keep what an answer said beside its page, for the error page that takes its place."""
    absolute_location(request, response)
    request.carried = tuple(field for field in response.headers if field[0].lower() in names)


def _trim(request: Request, response: Response) -> None:
    """Take off what does not fit the status, put on what an error page carries."""
    if not response.passed:
        if response.status not in _DATED:
            response.headers.remove(b"last-modified")
        if response.status == 204:
            response.headers.remove(b"content-type")
    for name, value in request.carried:
        fits = name.lower() != b"allow" or response.status == 405
        if fits and name.lower() not in response.headers:
            response.headers.add(name, value)


def _plan(request: Request, response: Response, *, special: bool) -> None:
    """Say how ``response`` may be remembered."""
    location: Location = request.location
    if location.named_field:
        return  # another one each time: that is for hits only
    response.headers_at = renewed(response, location.filters.expires)
    usual = response.status == 200 and not special
    response.shared = usual and not _compressible(response, location)
    if response.shared:
        response.alike = alike(request, response)


def _plan_kept(request: Request, response: Response) -> None:
    """Say how a hit may be remembered."""
    location: Location = request.location
    response.headers_at = renewed(response, location.filters.expires)
    response.shared = response.status == 200 and not _compressible(response, location)
    response.named = location.named_field
    if response.shared:
        response.alike = alike_kept(request, response)


def _plan_relay(request: Request, response: Response) -> None:
    """Say how an answer like this may be made of an upstream's, if it may."""
    source, body = response.source, response.body
    if source is None or body is not source.body or response.status != 200:
        return
    location: Location = request.location
    if _compressible(response, location):
        return  # it depends on the length
    head = request.outcome.upstream_headers
    one = len(request.outcome.attempts) == 1 and head is not None and relays.usual(head)
    dated = location.filters.expires.kind is Kind.MODIFIED or b"date" in response.headers
    if one and not dated and not request.internal and request.uri == request.head.target:
        response.headers_at = renewed(response, location.filters.expires)
        response.alike = request.server.locations.alike(request.uri, b"")


def _compressible(response: Response, location: Location) -> bool:
    """Whether the client's Accept-Encoding may have had a say in this answer."""
    gzip = location.filters.gzip
    if not gzip.on:
        return False
    kind = response.headers.first(b"content-type") or b""
    return bool(gzip.types & {media_type(kind), b"*"})


def _has_page(request: Request, response: Response) -> bool:
    """Whether ``error_page`` speaks of this status: an upstream's own page is not shown then."""
    location: Location = request.location
    return any(response.status in page.codes for page in location.error_pages)


def _bare(response: Response) -> bool:
    """Whether it is a status only, for which a page has to be found."""
    return response.body == b"" and response.length is None and not response.passed


def _built_in(request: Request, response: Response) -> Response:
    """The built-in page for a bare status, with what the bare response had to say."""
    location: Location = request.location
    page = error_response(request, response.status, padding=location.msie_padding)
    for name, value in response.headers:
        page.headers.add(name, value)
    return page
