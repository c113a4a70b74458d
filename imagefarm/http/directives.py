"""All directives of this package, for the directive table."""

from __future__ import annotations

from typing import Final

from imagefarm.config.table import AnyRow

from . import accesslog, errorpages, filters, maps, realip, requestid, transfer, types

DIRECTIVES: Final[tuple[AnyRow, ...]] = (
    *transfer.DIRECTIVES,
    *types.DIRECTIVES,
    *filters.DIRECTIVES,
    *accesslog.DIRECTIVES,
    *errorpages.DIRECTIVES,
    *realip.DIRECTIVES,
    *maps.DIRECTIVES,
    requestid.REQUEST_ID_FROM,
)
