"""The whole configuration, all requests, and what may differ."""

from __future__ import annotations

from .files import ERRORS, FILES_SECTION, TRY_FILES
from .names import HOSTS, LOCATIONS, SERVERS
from .rules import IF, RETURN, REWRITE

SECTIONS = (REWRITE, RETURN, IF, FILES_SECTION, TRY_FILES, ERRORS, LOCATIONS)

CONFIGURATION = """
worker_processes 1;
error_log SITE/error.log notice;
pid SITE/server.pid;
events { worker_connections 512; }
http {
    types { text/html html; text/plain txt; }
    default_type application/octet-stream;
    access_log off;
    root SITE/www;
    server { listen 127.0.0.1:PORT default_server; server_name unheard;
        location / { return 200 "default\n"; } }
    server { listen 127.0.0.1:BACKEND; return 200 "backend $request_uri\n"; }
    SECTIONS
}
"""


#: Requests that are answered differently, and why; docs/differences.md says more.
DIFFERENT = {
    "return /304": "nginx gives a 304 by return a Content-Length of 0",
    "return /408": "nginx closes the connection without an answer",
    "return /499": "nginx closes the connection without an answer",
    "try /code200/x": "nginx closes the connection without an answer",
    "errors /444/x": "nginx sends 444 as a status",
    "errors GET /416/long.txt": "nginx sends two ETag fields",
}


def configuration(site: str, port: int, backend: int) -> str:
    """The whole nginx.conf; ``backend`` is a port of its own that proxy_pass may lead to."""
    servers = "".join(
        f"server {{ listen 127.0.0.1:PORT; server_name {section.name};"
        f"{section.configuration}\n}}\n"
        for section in SECTIONS
    )
    text = CONFIGURATION.replace("SECTIONS", servers + SERVERS)
    for name, value in (("SITE", site), ("PORT", str(port)), ("BACKEND", str(backend))):
        text = text.replace(name, value)
    return text


def requests() -> list[tuple[str, bytes]]:
    """Everything that is asked: a name and bytes."""
    return [asked for section in (*SECTIONS, HOSTS) for asked in section.asked()]
