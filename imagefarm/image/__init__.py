"""The resizer: recipes, geometry, the pixel pipeline, and the pool of processes that runs it.

Imports go down::

    service     FastCGI parameters -> Response: conditional requests, statuses, headers
    pool        N worker processes, a bounded queue, deadlines       (Twisted)
    worker      the child process: jobs in, pictures out             (no Twisted)
    pipeline    probe, guard, plan, the steps, encode                (Pillow)
    source      opening a file under the root and nowhere else
    recipe  geometry  formats  limits  wire  errors                  pure values
"""
