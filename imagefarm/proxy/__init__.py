"""Upstreams: peers, balancing policies, the connection pool, the HTTP client."""
