"""The answers of IIIF locations: pictures with their links, info.json, and the way to it."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from typing import Protocol

from attrs import frozen
from twisted.internet.defer import Deferred, succeed

from imagefarm.http.dates import format_http
from imagefarm.http.headers import Headers
from imagefarm.http.message import Response

from .asked import Asked, Wish, service_uri
from .dialects import iiif, iiif_info
from .formats import Offer
from .job import Job, Rendered
from .limits import Limits
from .places import Confined, Place
from .recipe import Recipe
from .source import Identity
from .validators import not_modified

#: Sources whose size is remembered.
MAX_SIZES = 4096


class Kitchen(Protocol):
    """What makes the pictures: `service.ImageService`."""

    def find(self, recipe: Recipe) -> tuple[bytes, Identity]:
        """The root and the state of the recipe's source. Raises `ImageError`."""

    def work(self, job: Job, source: Identity) -> Deferred[Rendered]:
        """Have a job done for a source in that state. Raises `ImageError`, or errs with one."""

    def picture(self, wish: Wish, params: Mapping[bytes, bytes]) -> Deferred[Response]:
        """The picture, or that it has not changed, or why there is none. Never errs."""


@frozen
class Measured:
    """A source's size upright, in pixels, and its state."""

    width: int
    height: int
    source: Identity


class IIIFService:
    """Answers what `asked` found in an IIIF location."""

    def __init__(self, kitchen: Kitchen, limits: Limits) -> None:
        self._kitchen = kitchen
        self._limits = limits
        self._sizes: OrderedDict[tuple[bytes, bytes, Identity], Measured] = OrderedDict()

    def answer(self, asked: Asked, params: Mapping[bytes, bytes]) -> Deferred[Response]:
        """Raises `ImageError`, or errs with one."""
        request = iiif.parse(asked.rest)
        uri = service_uri(params, asked.place, iiif.identifier(request.src))
        if isinstance(request, iiif.BaseRequest):
            self._kitchen.find(Recipe(request.src))
            headers = Headers([(b"Location", f"{uri}/info.json".encode())])
            return succeed(Response(303, headers))
        measured = self._measure(request.src)
        if isinstance(request, iiif.InfoRequest):
            return measured.addCallback(self._info, uri, asked.place, params)
        return measured.addCallback(self._picture, request, uri, asked.place, params)

    def _measure(self, src: bytes) -> Deferred[Measured]:
        recipe = Recipe(src)
        root, source = self._kitchen.find(recipe)
        key = root, src, source
        known = self._sizes.get(key)
        if known is not None:
            self._sizes.move_to_end(key)
            return succeed(known)

        def remember(rendered: Rendered) -> Measured:
            measured = Measured(rendered.width, rendered.height, rendered.source)
            if rendered.source == source:
                self._sizes[key] = measured
                if len(self._sizes) > MAX_SIZES:
                    self._sizes.popitem(last=False)
            return measured

        job = Job(root, recipe, Offer(), measure=True)
        return self._kitchen.work(job, source).addCallback(remember)

    def _bounds(self, place: Place) -> iiif.Bounds:
        unsigned = place.unsigned
        return iiif.Bounds(
            min(unsigned.max_width or self._limits.max_width, self._limits.max_width),
            min(unsigned.max_height or self._limits.max_height, self._limits.max_height),
            unsigned.max_width is not None or unsigned.max_height is not None,
        )

    def _info(
        self, measured: Measured, uri: str, place: Place, params: Mapping[bytes, bytes]
    ) -> Response:
        document = iiif_info.info(uri, measured.width, measured.height, self._bounds(place))
        media = iiif_info.media_type(params.get(b"HTTP_ACCEPT", b""))
        etag = b'"%s"' % hashlib.blake2b(media + document, digest_size=12).hexdigest().encode()
        headers = Headers(
            [
                (b"Last-Modified", format_http(measured.source.seconds)),
                (b"ETag", etag),
                (b"Vary", b"Accept"),
            ]
        )
        if not_modified(params, etag, measured.source.seconds):
            return Response(304, headers)
        headers.add(b"Content-Type", media)
        return Response(200, headers, document)

    def _picture(
        self,
        measured: Measured,
        request: iiif.ImageRequest,
        uri: str,
        place: Place,
        params: Mapping[bytes, bytes],
    ) -> Deferred[Response]:
        resolved = iiif.resolve(
            request,
            measured.width,
            measured.height,
            self._bounds(place),
            strict=place.confined is Confined.STRICT,
        )
        recipe = iiif.to_recipe(request, resolved, self._limits)
        link = f'<{uri}/{resolved.canonical}>;rel="canonical", <{iiif_info.LEVEL}>;rel="profile"'

        def linked(response: Response) -> Response:
            if response.status == 200:
                response.headers.add(b"Link", link.encode("ascii"))
            return response

        wish = Wish(recipe, place, signed=False)
        place.unsigned.check(recipe)
        return self._kitchen.picture(wish, params).addCallback(linked)
