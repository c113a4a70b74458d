"""Active health checks (ngx_http_upstream_hc_module).

From the outside in::

    directives   ``health_check`` and ``match``
    checker      a group's peers, each asked at intervals
    probe        one check of one peer
    records      what the outcomes make of a peer; sans-IO
    match        what an answer has to be; sans-IO
"""
