"""Names of upstream servers, resolved at run time (``resolver``).

From the inside out::

    reply       questions, and what a nameserver's reply says of one; sans-IO
    cache       what is known, for how long, and whether to ask; sans-IO
    codec       replies and queries as bytes: twisted.names
    query       one question, asked of the nameservers in turn over UDP and TCP
    resolver    cache and queries together: names to addresses
    follow      a ``server NAME resolve``, asked for again and again
    directives  what the configuration says
"""
