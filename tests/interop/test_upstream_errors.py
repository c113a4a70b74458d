"""What is wrong with an ``upstream`` block, a target, a ``resolver``: nginx's words, and ours."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from twisted.internet import reactor

from imagefarm.config.errors import ConfigurationError
from imagefarm.proxy.groups import Groups
from imagefarm.proxy.handler import ProxyPass
from imagefarm.proxy.settings import ProxySettings
from tests.proxy.support import load, load_location
from tests.support.stages import StagedCase
from tests.support.tools import nginx

#: Each inside ``http``.
SERVERS = (
    "127.0.0.1:0", "127.0.0.1:99999", "127.0.0.1:x", "127.0.0.1:", ":80", "unix:", "127.0.0.1/x",
    "[::1", "[::g]", "[::1]x", "[::1]:0", "a b", "127.0.0.1:80:90", "1.2.3.4.5:80",
    "http://127.0.0.1", "127.0.0.1:80-90", "*:80", "nosuch.invalid", "127.0.0.1 weight=0",
    "127.0.0.1 weight=x", "127.0.0.1 weight=", "127.0.0.1 weight=-1",
    "127.0.0.1 weight=99999999999999999999", "127.0.0.1 max_fails=x", "127.0.0.1 max_fails=-1",
    "127.0.0.1 fail_timeout=x", "127.0.0.1 fail_timeout=", "127.0.0.1 max_conns=x",
    "127.0.0.1 backup=1", "127.0.0.1 foo", "127.0.0.1 backup", "",
    # Good ones.
    "127.0.0.1 down down", "127.0.0.1 weight=1 weight=2", "[::1]", "127.0.0.1:08", "unix:/a",
    "127.0.0.1 down",
)  # fmt: skip
RESOLVERS = (
    "off", "127.0.0.1:99999", "127.0.0.1:x", "nosuch.invalid", "127.0.0.1 valid=x",
    "127.0.0.1 valid=", "127.0.0.1 ipv6=maybe", "valid=10s", "[::1", "127.0.0.1 foo=bar", "$x",
    "127.0.0.1:53/x", ":53", "10.0.0.1-5", "http://1.2.3.4", "",
    "127.0.0.1 valid=0", "127.0.0.1 ipv6=off", "[::1]:53", "127.0.0.1 valid=1y",
)  # fmt: skip
BINDS = (
    "off off", "off transparent", "[::1]", "localhost", "127.0.0.1:0", "127.0.0.1:65536", "",
    "127.0.0.1:", "127.0.0.1 opaque", "127.0.0.1 transparent x", "unix:/x", "''", "1.2.3",
    "[::1]:x", "127.0.0.1; proxy_bind 127.0.0.1", "off; proxy_bind 127.0.0.1", ":80",
    "off; proxy_bind off", "127.0.0.1:80:90",
    "127.0.0.1 transparent", "127.0.0.1", "::1", "[::1]:80", "off",
)  # fmt: skip
COOKIES = (
    "proxy_cookie_path off; proxy_cookie_path / /a;",
    "proxy_cookie_path / /a; proxy_cookie_path off;",
    "proxy_cookie_path off; proxy_cookie_path off;", "proxy_cookie_path off off;",
    "proxy_cookie_domain off; proxy_cookie_domain a b;",
    "proxy_cookie_domain a b; proxy_cookie_domain off;",
    "proxy_cookie_flags off; proxy_cookie_flags a secure;",
    "proxy_cookie_flags a secure; proxy_cookie_flags off;",
    "proxy_cookie_flags off secure;", "proxy_cookie_flags a;",
    "proxy_cookie_path a;", "proxy_cookie_domain a;",
)  # fmt: skip
REDIRECTS = (
    "proxy_redirect off; proxy_redirect a b;", "proxy_redirect a b; proxy_redirect off;",
    "proxy_redirect off; proxy_redirect off;", "proxy_redirect off; proxy_redirect default;",
)  # fmt: skip
TEXTS = (
    *REDIRECTS,
    *(f"proxy_bind {words};" for words in BINDS),
    *COOKIES,
    *(f"upstream a {{ server {server}; }}" for server in SERVERS),
    *(f"resolver {words};" for words in RESOLVERS),
    "resolver 127.0.0.1; resolver 127.0.0.2;",
    "resolver_timeout x;",
    "upstream a { }",
    "upstream { server 127.0.0.1; }",
    "upstream a b { server 127.0.0.1; }",
    "upstream a { ip_hash; server 127.0.0.1 backup; server 127.0.0.2; }",
    "upstream a { server 127.0.0.1; } upstream a { server 127.0.0.1; }",
)
#: In a location.
TARGETS = (
    "http://a:80", "http://nosuch.invalid", "http://", "http://:80", "http://127.0.0.1:x",
    "ftp://a", "a", "http://[::1", "http://unix:", "http://127.0.0.1:0/",
    "http://a", "http://[::1]:80/x", "http://unix:/x:/y",
)  # fmt: skip
_EMERG = re.compile(r"\[emerg\] [^:]*: (.*) in [^\n]*/x\.conf:\d+\n")


class Errors(StagedCase):
    def setUp(self) -> None:
        self.nginx = nginx()
        self.directory = Path(tempfile.mkdtemp(prefix="errors-"))
        self.addCleanup(shutil.rmtree, self.directory, ignore_errors=True)
        (self.directory / "logs").mkdir()

    def judge(self, http: str) -> str:
        """nginx's error; empty if it finds none."""
        file = self.directory / "x.conf"
        temp = "".join(
            f"{name}_temp_path {self.directory}/{name};\n"
            for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        file.write_text(f"pid x.pid; events {{}} http {{ access_log off; {temp} {http} }}\n")
        done = subprocess.run(
            [self.nginx, "-t", "-p", str(self.directory), "-e", "stderr", "-c", str(file)],
            capture_output=True,
            check=False,
        )
        match = _EMERG.search(done.stderr.decode())
        assert (match is None) == (done.returncode == 0), done.stderr
        return "" if match is None else match[1]

    def first(self, problems: ConfigurationError) -> str:
        return problems.problems[0].message

    def test_blocks_and_resolvers(self) -> None:
        differing = []
        for text in TEXTS:
            try:
                Groups.from_scope(load(text), reactor)
                found = ""
            except ConfigurationError as error:
                found = self.first(error)
            judged = self.judge(text)
            if found != judged:
                differing.append((text, judged, found))
        self.assertEqual(differing, [], "\n".join(map(str, differing)))

    def test_targets(self) -> None:
        block = "upstream a { server 127.0.0.1; }"
        differing = []
        for target in TARGETS:
            line = f"proxy_pass {target};"
            try:
                location = load_location("/", line, block)
                http = location.parent and location.parent.parent
                assert http is not None
                settings = ProxySettings.from_scope(location)
                assert settings is not None
                ProxyPass(settings, Groups.from_scope(http, reactor))
                found = ""
            except ConfigurationError as error:
                found = self.first(error)
            judged = self.judge(f"{block} server {{ location / {{ {line} }} }}")
            if found != judged:
                differing.append((target, judged, found))
        self.assertEqual(differing, [], "\n".join(map(str, differing)))
