"""The resizer: recipes, geometry, the pixel pipeline, and the pool of processes that runs it.

Imports go down::

    service                 FastCGI parameters -> Response: conditional requests, statuses, headers
    pool  child             N worker processes, a bounded queue, deadlines   (Twisted)
    worker                  the process itself: jobs in, pictures out        (no Twisted)
    pipeline                probe, plan, the steps, encode                   (Pillow)
    source                  opening a file under the root and nowhere else
    job  validators         what travels to workers; ETag and 304
    asked  dialects         locations and the forms of URLs
    recipe  geometry  formats  limits  errors                                pure values

``directives`` are the ``resizer { }`` block; ``samples`` draws images for a farm without any.
"""
