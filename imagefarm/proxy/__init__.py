"""Upstreams: peers, balancing policies, the connection pool, the HTTP client.

From the outside in::

    handler         ProxyPass: a Request becomes an Outgoing, the upstream's answer our Response
      settings, directives, target, redirect, variables    what the configuration says
    groups, group   the upstream blocks; a group's connections, for every protocol
      exchange      one request's way from peer to peer
      peers, policies, pool, replay    what the decisions are made of, sans-IO
      connector     opening a connection
    connection      the HTTP/1.x client: request_writer, response_parser, response_body, watchdog
"""
