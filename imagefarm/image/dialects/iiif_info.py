"""The documents of the IIIF Image API 3.0: info.json (section 5), and who gets which type."""

from __future__ import annotations

import json

from .iiif import FORMATS, QUALITIES, Bounds

#: Sides of a tile in pixels; what viewers ask for.
TILE = 512
CONTEXT = "http://iiif.io/api/image/3/context.json"
#: For the Link header (section 6).
LEVEL = "http://iiif.io/api/image/3/level2.json"
LD_JSON = f'application/ld+json;profile="{CONTEXT}"'.encode()
JSON = b"application/json"
#: What is supported beyond level 2 (section 5.7).
FEATURES = ("canonicalLinkHeader", "mirroring", "profileLinkHeader", "sizeUpscaling")


def media_type(accept: bytes) -> bytes:
    """The Content-Type of info.json: JSON for who names it and not JSON-LD (section 5.1)."""
    named = {item.split(b";")[0].strip() for item in accept.lower().split(b",")[:64]}
    return JSON if JSON in named and b"application/ld+json" not in named else LD_JSON


def info(uri: str, width: int, height: int, bounds: Bounds) -> bytes:
    """The document about a picture of ``width`` by ``height`` pixels whose service is ``uri``."""
    factors = scale_factors(width, height)
    document: dict[str, object] = {
        "@context": CONTEXT,
        "id": uri,
        "type": "ImageService3",
        "protocol": "http://iiif.io/api/image",
        "profile": "level2",
        "width": width,
        "height": height,
    }
    if bounds.declared_for(width, height):
        document |= {"maxWidth": bounds.width, "maxHeight": bounds.height}
    sizes = [(_up(width, factor), _up(height, factor)) for factor in reversed(factors)]
    document |= {
        "sizes": [
            {"type": "Size", "width": w, "height": h}
            for w, h in sizes
            if w <= bounds.width and h <= bounds.height
        ],
        "tiles": [
            {
                "type": "Tile",
                "width": min(TILE, bounds.width),
                "height": min(TILE, bounds.height),
                "scaleFactors": factors,
            }
        ],
        "extraFormats": [name for name in FORMATS if name not in ("jpg", "png")],
        "extraQualities": [name for name in QUALITIES if name != "default"],
        "extraFeatures": list(FEATURES),
    }
    return json.dumps(document, indent=2).encode("ascii") + b"\n"


def scale_factors(width: int, height: int) -> list[int]:
    """Powers of two, up to the one that makes the whole picture one tile."""
    factors = [1]
    while max(width, height) > TILE * factors[-1]:
        factors.append(factors[-1] * 2)
    return factors


def _up(value: int, factor: int) -> int:
    return -(-value // factor)
