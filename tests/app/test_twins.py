"""What ``proxy_*`` and ``fastcgi_*`` have in common means the same with either prefix."""

from __future__ import annotations

import attrs
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.config.loader import convert
from imagefarm.config.parse import parse_text
from imagefarm.config.table import BlockRow, DirectiveTable
from imagefarm.fastcgi.directives import COMMON as FASTCGI
from imagefarm.http.upstream_rows import UpstreamRows, common_settings
from imagefarm.http.variables import variable_table
from imagefarm.proxy.directives import COMMON as PROXY

#: Each with a value that is not the default, and what of the settings it changes.
LINES = {
    "connect_timeout 3s": "timeouts", "send_timeout 4s": "timeouts", "read_timeout 5s": "timeouts",
    "next_upstream http_500": "next_upstream", "next_upstream_tries 3": "next_upstream_tries",
    "next_upstream_timeout 6s": "next_upstream_timeout", "intercept_errors on": "intercept_errors",
    "hide_header X-A": "hidden", "pass_header X-Accel-Expires": "hidden",
    "ignore_headers Vary": "ignore_headers", "pass_request_headers off": "pass_request_headers",
    "pass_request_body off": "pass_request_body", "buffer_size 5k": "buffer_size",
    "force_ranges on": "force_ranges", "socket_keepalive on": "socket_keepalive",
    "bind 127.0.0.2": "bind", "limit_rate 7k": "streaming", "buffering off": "streaming",
    "buffers 9 8k": "streaming", "max_temp_file_size 1m": "streaming",
    "temp_file_write_size 64k": "streaming", "temp_path /elsewhere": "streaming",
    "request_buffering off": "streaming", "ignore_client_abort on": "streaming",
}  # fmt: skip


def settings(prefix: str, rows: UpstreamRows, line: str) -> dict[str, str]:
    """All settings where ``line`` stands, each as text."""
    http = BlockRow[None](
        name="http", contexts=frozenset({"main"}), opens="http", convert=lambda d, e: None, doc=""
    )
    root = convert(
        parse_text(f"http {{ {prefix}_{line}; }}" if line else "http { }", "x.conf"),
        table=DirectiveTable({"all": (http, *rows.every)}),
        variables=variable_table({}, clock=lambda: 0.0),
        prefix="/",
        conf_dir="/",
    ).root
    (scope,) = root.blocks(http)
    found = common_settings(rows, scope, prefix="/")
    return {name: text(value).replace(prefix, "PREFIX") for name, value in found.items()}


def text(value: object) -> str:
    if attrs.has(type(value)):
        parts = {name: text(getattr(value, name)) for name in attrs.fields_dict(type(value))}
        return str(parts)
    return str(sorted(value)) if isinstance(value, frozenset) else str(value)


class TwinsTests(SynchronousTestCase):
    def test_every_line(self) -> None:
        plain = settings("proxy", PROXY, "")
        for line, name in LINES.items():
            proxied = settings("proxy", PROXY, line)
            self.assertEqual(settings("fastcgi", FASTCGI, line), proxied, line)
            changed = {key for key in proxied if proxied[key] != plain[key]}
            self.assertEqual(changed, {name}, line)

    def test_no_line_is_missing(self) -> None:
        rows = {row.name.removeprefix("proxy_") for row in PROXY.every}
        tried = {line.split()[0] for line in LINES}
        self.assertEqual(rows - tried, {"busy_buffers_size", "send_lowat"})
        self.assertEqual({row.name.removeprefix("fastcgi_") for row in FASTCGI.every}, rows)
