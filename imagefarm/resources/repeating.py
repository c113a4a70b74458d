"""The log lines of an answer that is repeated (`http.plans`): made once, but for what varies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attrs import frozen

from imagefarm.http.accesslog import Outlines, ask_name, write_again
from imagefarm.http.message import Facts, Request
from imagefarm.http.requestid import REQUEST_ID, fresh_id
from imagefarm.http.requestlog import RequestLogs, context, report

if TYPE_CHECKING:
    from .location import Location


@frozen
class Lines:
    """The lines of one answer to one client. ``named``: the request id stands in some of them.

    ``trusted`` is the id that the client may say, and does.
    """

    outlines: Outlines
    notes: tuple[Any, ...]
    logs: RequestLogs | None
    named: bool
    trusted: bytes | None

    def write(self, facts: Facts) -> None:
        """Write them once more."""
        if self.named and not facts[6]:
            facts = (*facts[:6], self.trusted or fresh_id(), *facts[7:])
        for note in self.notes:
            if self.logs is not None:
                self.logs.again(note, facts[5], facts[6])
        write_again(self.outlines, facts)


def lines_of(request: Request, name: bytes, *, one_of_many: bool) -> Lines | None:
    """The lines of a repeated answer; None if they are made, and written, each time.

    ``name`` is the request id, if somebody has been told of one.
    """
    location: Location = request.location
    request.variables.pop(REQUEST_ID, None)  # that of the request it was learnt from
    if name:
        request.variables[REQUEST_ID] = name
    if location.realip is not None:
        location.realip.apply(request)  # the server's own: see `build._plannable`
    outlines = location.logs.outlines(request, one_of_many=one_of_many)
    logs, trusted = location.error_log, location.trusted_id
    if outlines is None or (request.notes and logs is None):
        location.logs.write(request)
        for level, note in tuple(request.notes):  # `report` makes notes itself
            report(request, level, note)
        return None
    notes: list[Any] = []
    if logs is not None and request.notes:
        where = context(request)
        notes = [
            logs.outline(level, note, where)
            for level, note in request.notes
            if logs.wants(level, where.client)
        ]
    said = None if trusted is None else trusted.of(request)
    return Lines(outlines, tuple(notes), logs, bool(notes) or ask_name(outlines), said)
