"""The URL forms that the resizer understands, one module each: bytes in, one recipe out.

``query`` is our own form. ``iiif`` is the IIIF Image API 3.0 with ``iiif_info`` for its
documents, ``thumbor`` and ``imgproxy`` are the forms of those servers. Each says what it has
read in the parameters of the query form and leaves those to `query.recipe_of`, so what means the
same becomes the same recipe, and every limit is checked in one place. None does I/O.
"""
