"""Upstreams: peers, balancing policies, the connection pool, the HTTP client.

From the outside in::

    handler         ProxyPass: a Request becomes an Outgoing, the upstream's answer our Response
      settings, directives, target, redirect, variables    what the configuration says
    groups, group   the upstream blocks; a group's connections, for every protocol
      exchange      one request's way from peer to peer
      peers, peer, policies    who gets a request, sans-IO
        turn, load, ring, tournament    how a choice is made without looking at all peers
      pool, replay    what is kept and what can be repeated, sans-IO
      connector     opening a connection
    connection      the HTTP/1.x client: request_writer, response_parser, response_body, watchdog
"""
