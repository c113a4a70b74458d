"""The handler of ``slice``: one request of a client, one for each piece to the handler inside.

See `filters.slice` for the pieces. nginx asks for them with sub-requests.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final, cast

from attrs import evolve
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.python.failure import Failure

from .body import EMPTY
from .dates import parse_http
from .filters.slice import (
    VARIABLE,
    BadSlice,
    Changed,
    Had,
    Next,
    Piece,
    Sliced,
    outdated,
    piece,
    range_of,
)
from .headers import Headers
from .message import Handler, Outcome, Request, Response, discard
from .requestlog import report

#: The connection is closed without an answer, as nginx does where the first piece does not fit.
_CLOSE: Final = 444
#: A piece's own fields; `Accept-Ranges` is the range filter's to say.
_OF_A_PIECE: Final = (b"content-range", b"accept-ranges")
_OF_A_BODY: Final = frozenset({b"content-length", b"transfer-encoding", b"expect"})


class Slicing:
    """A `Handler` around another one, which is asked for pieces of ``size`` bytes.

    Where nothing has asked for ``$slice_range``, or the answer is no part, it is passed on.
    """

    def __init__(self, inner: Handler, size: int) -> None:
        self.inner = inner
        self.size = size

    def __repr__(self) -> str:
        return f"<Slicing {self.size} {self.inner!r}>"

    def __call__(self, request: Request) -> Response | Deferred[Response]:
        """Answer ``request``. Fails as the inner handler fails."""
        return self._ask(request)

    def _ask(self, request: Request, *, again: bool = False) -> Response | Deferred[Response]:
        answer = self.inner(request)
        if isinstance(answer, Deferred):
            return answer.addCallback(self._assemble, request, again)
        return self._assemble(answer, request, again)

    def _assemble(
        self, response: Response, request: Request, again: bool
    ) -> Response | Deferred[Response]:
        """The whole, of which ``response`` is the first piece.

        One that does not fit, and was in the cache, is asked for ``again``: nothing was sent yet.
        """
        asked = request.variables.get(VARIABLE)
        if response.redirect is not None:
            return response
        if not asked or response.status != 206:
            request.variables[VARIABLE] = b""  # too late, from here on
            return response
        try:
            first = piece(response, int(asked[6 : asked.index(b"-")]), self.size)
        except BadSlice as reason:
            discard(response.body)
            stored = response.stored
            if stored is not None and stored.hit and not again:
                stored.drop()
                return self._ask(request, again=True)
            report(request, "error", str(reason))
            return Response(_CLOSE)
        headers = response.headers.copy()
        for name in _OF_A_PIECE:
            headers.remove(name)
        mtime = response.mtime
        if mtime is None and (modified := headers.first(b"last-modified")):
            mtime = parse_http(modified)
        request.plannable, request.route = False, None
        return evolve(
            response, status=200, headers=headers, mtime=mtime, length=None, ranges=True,
            single_range=True, headers_at=None, shared=False, alike=None, source=None, kept=None,
            stored=None, body=Sliced(first, response.body, self.size, self._asker(request, first)),
        )  # fmt: skip

    def _asker(self, request: Request, first: Piece) -> Next:
        head = request.head
        fields = (field for field in head.headers if field[0].lower() not in _OF_A_BODY)
        head = evolve(head, headers=Headers(fields))

        def ask(start: int, before: Piece) -> Deferred[Had]:
            again = evolve(
                request, head=head, body=EMPTY, outcome=Outcome(), on_gone=[], notes=[],
                witnesses=[], plannable=False, relayable=False,
                variables={**request.variables, VARIABLE: range_of(start, self.size)},
            )  # fmt: skip
            told: Deferred[Had] = Deferred(lambda _: _leave(again))
            self._next(again, start, (first, before)).addBoth(partial(_tell, told))
            return told

        return ask

    def _next(
        self, request: Request, start: int, sent: tuple[Piece, Piece], *, again: bool = False
    ) -> Deferred[Had]:
        asking = maybeDeferred(cast(Callable[..., Any], self.inner), request)
        return asking.addCallback(self._had, request, start, sent, again)

    def _had(
        self,
        response: Response,
        request: Request,
        start: int,
        sent: tuple[Piece, Piece],
        again: bool,
    ) -> Had | Deferred[Had]:
        """The piece in ``response``, after the first one and the last one in ``sent``.

        Of versions that disagree the old one leaves the cache. If that is this piece's, it is
        asked for ``again``, once; else what was sent can't be mended: the next request has a
        whole answer.
        """
        try:
            return piece(response, start, self.size, sent[-1]), response.body
        except BadSlice as reason:
            discard(response.body)
            if isinstance(reason, Changed):
                stored = response.stored
                if stored is not None and not again and outdated(stored, sent[-1].stored):
                    stored.drop()
                    return self._next(request, start, sent, again=True)
                for old in sent:
                    if old.stored is not None:
                        old.stored.drop()
            report(request, "error", str(reason))
            raise


def _tell(told: Deferred[Had], result: Had | Failure) -> None:
    """Pass on what came, unless the client has gone meanwhile."""
    if not told.called:
        told.callback(cast(Had, result))  # a failure takes the errbacks
    elif not isinstance(result, Failure):
        discard(result[1])


def _leave(request: Request) -> None:
    """The client has gone while a piece was waited for."""
    for callback in tuple(request.on_gone):
        callback()
