"""Which requests share an answer when ``proxy_cache_key`` is not given: nginx's view and ours."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from tests.support import rawhttp, tools
from tests.support.farm import temporary_prefix
from tests.support.processes import Daemon, free_ports
from tests.support.stages import StagedCase

CONFIGURATION = """
events {{ }}
http {{
    access_log off;
    proxy_cache_path {directory}/cache keys_zone=one:1m;
    proxy_cache_path {directory}/other keys_zone=two:1m;
    proxy_cache one;
    proxy_cache_valid 1h;
    add_header X-Cache "$upstream_cache_status $proxy_host";
    server {{
        listen 127.0.0.1:{first};
        add_header X-From first;
        location / {{ return 200 "first $request_uri"; }}
        location /none/ {{ return 404 none; }}
        location /away/ {{ return 301 http://back/x; }}
    }}
    server {{
        listen 127.0.0.1:{second};
        add_header X-From second;
        location / {{ return 200 "second $request_uri"; }}
    }}
    upstream named {{ server 127.0.0.1:{second}; }}
    server {{
        listen 127.0.0.1:{port};
        server_name a;
        location / {{ proxy_pass http://127.0.0.1:{first}; }}
        location /chosen/ {{ proxy_pass http://$arg_host; }}
        location /key/ {{ proxy_pass http://$arg_host; proxy_cache_key $proxy_host; }}
    }}
    server {{
        listen 127.0.0.1:{port};
        server_name b;
        location / {{ proxy_pass http://127.0.0.1:{second}; }}
    }}
    server {{
        listen 127.0.0.1:{port};
        server_name c;
        location / {{ proxy_pass http://named; }}
    }}
    server {{
        listen 127.0.0.1:{port};
        server_name d;
        location / {{ proxy_pass http://127.0.0.1:{first}; }}
    }}
    server {{
        listen 127.0.0.1:{port};
        server_name e;
        location / {{ proxy_pass http://127.0.0.1:{first}; proxy_cache_key $scheme$request_uri; }}
    }}
    server {{
        listen 127.0.0.1:{port};
        server_name f;
        add_header X-Cache $upstream_cache_status;
        location / {{ proxy_pass http://127.0.0.1:{second}; }}
    }}
    server {{
        listen 127.0.0.1:{port};
        server_name g g2;
        proxy_redirect http://back/ http://$host/;
        location / {{ proxy_pass http://127.0.0.1:{first}; }}
        location /rewritten/ {{
            if ($arg_v) {{ rewrite ^/rewritten/(.*)$ /better/$1? break; }}
            proxy_pass http://127.0.0.1:{first};
        }}
        location /moved/ {{ proxy_pass http://127.0.0.1:{first}/elsewhere/; }}
        location /none/ {{
            proxy_pass http://127.0.0.1:{first};
            proxy_intercept_errors on;
            error_page 404 =200 /instead/?;
        }}
        location /chosen/ {{
            proxy_pass http://127.0.0.1:{first};
            proxy_cache $arg_zone;
            proxy_cache_key chosen;
        }}
        location /fixed/ {{ proxy_pass http://$arg_host/one; }}
    }}
    server {{
        listen 127.0.0.1:{port};
        server_name h;
        proxy_redirect off;
        add_header X-Cache "$upstream_cache_status $proxy_host";
        add_header X-Saw $upstream_http_x_from;
        location / {{
            proxy_pass http://127.0.0.1:{first};
            proxy_hide_header X-From;
        }}
    }}
}}
"""


class KeyTests(StagedCase):
    def setUp(self) -> None:
        nginx = tools.nginx()
        ports = free_ports(6)
        directory = Path(tempfile.mkdtemp(prefix="imagefarm-interop-"))
        self.addCleanup(shutil.rmtree, directory, True)
        prefix = temporary_prefix(self.addCleanup)
        self.sides = []
        for number, path in enumerate((directory, prefix.directory)):
            port, first, second = ports[3 * number : 3 * number + 3]
            text = CONFIGURATION.format(port=port, first=first, second=second, directory=path)
            self.sides.append((port, first, second))
            if number:
                prefix.write("keys.conf", text)
                daemon = prefix.start("master", ports=[port], config="keys.conf")
            else:
                (path / "keys.conf").write_text(
                    "daemon off; master_process off; pid nginx.pid; error_log error.log;" + text
                )
                command = [nginx, "-p", str(path), "-c", str(path / "keys.conf")]
                daemon = Daemon(command, path / "out", [port])
            self.addCleanup(daemon.stop)
            daemon.started()

    def ask(self, target: str, host: str) -> list[tuple[str, str]]:
        """Both sides' bodies, and what they say of the cache, ports by their order."""
        found = []
        for port, first, second in self.sides:
            names = {"FIRST": f"127.0.0.1:{first}", "SECOND": f"127.0.0.1:{second}"}
            asked = target
            for name, address in names.items():
                asked = asked.replace(name, address)
            request = rawhttp.request(asked, "Connection: close", host=host)
            answer = rawhttp.exchange(port, request)
            assert answer is not None
            body, cache = answer.body.decode(), answer.header("x-cache") or ""
            for name, address in names.items():
                body, cache = body.replace(address, name), cache.replace(address, name)
            found.append((body, cache))
        return found

    def test_who_shares(self) -> None:
        for turn in range(3):
            for target, host, body in (
                ("/x", "a", "first /x"),
                ("/x", "b", "second /x"),
                ("/x", "c", "second /x"),
                ("/x", "d", "first /x"),
                ("/y", "b", "second /y"),
                ("/y", "a", "first /y"),
                ("/chosen/x?host=FIRST", "a", "first /chosen/x?host=FIRST"),
                ("/chosen/x?host=SECOND", "a", "second /chosen/x?host=SECOND"),
                ("/key/1?host=FIRST", "a", "first /key/1?host=FIRST"),
                ("/key/2?host=SECOND", "a", "second /key/2?host=SECOND"),
                ("/key/3?host=FIRST", "a", "first /key/1?host=FIRST"),
                ("/key/4?host=SECOND", "a", "second /key/2?host=SECOND"),
            ):
                theirs, ours = self.ask(target, host)
                self.assertEqual(theirs, ours, (turn, target, host))
                self.assertEqual(ours[0], body, (turn, target, host))

    def test_the_url_that_is_asked_for(self) -> None:
        """What rewrites, the URI of ``proxy_pass`` and error pages have made of a request."""
        for target, body in (
            ("/rewritten/x", "first /rewritten/x"),
            ("/rewritten/x?v=1", "first /better/x"),
            ("/rewritten/x?v=2", "first /better/x"),
            ("/better/x", "first /better/x"),
            ("/moved/x", "first /elsewhere/x"),
            ("/elsewhere/x", "first /elsewhere/x"),
            ("/none/x", "first /instead/"),
            ("/none/y", "first /instead/"),
            ("/fixed/x?host=FIRST", "first /one"),
            ("/fixed/y?host=FIRST", "first /one"),
            ("/a%20b//c", "first /a%20b//c"),
            ("/a%20b/c", "first /a%20b/c"),
        ):
            for turn in range(3):
                theirs, ours = self.ask(target, "g")
                self.assertEqual(theirs, ours, (turn, target))
                self.assertEqual(ours[0], body, (turn, target))
        # The page that stood in for it is not what is cached of it.
        theirs, ours = self.ask("/none/x", "a")
        self.assertEqual(theirs, ours)
        self.assertEqual(ours[0], "none")

    def test_a_zone_that_a_variable_names(self) -> None:
        found = []
        for target, body in (
            ("/chosen/1?zone=one", "1?zone=one"),
            ("/chosen/2?zone=two", "2?zone=two"),
            ("/chosen/3?zone=one", "1?zone=one"),
            ("/chosen/4?zone=two", "2?zone=two"),
            ("/chosen/5", "5"),
            ("/chosen/6?zone=off", "6?zone=off"),
            ("/chosen/7?zone=off", "7?zone=off"),
        ):
            theirs, ours = self.ask(target, "g")
            self.assertEqual(theirs, ours, target)
            self.assertEqual(ours[0], f"first /chosen/{body}")
            found.append(ours[1].split(" ")[0])
        self.assertEqual(found, ["MISS", "MISS", "HIT", "HIT", *["FIRST"] * 3])
        for port, _, _ in self.sides:
            answer = rawhttp.exchange(
                port, rawhttp.request("/chosen/8?zone=three", "Connection: close", host="g")
            )
            self.assertEqual(answer and answer.status, 500)

    def test_who_shares_sees_it_as_its_own_location_has_it(self) -> None:
        """What is hidden, and where redirects lead, is not what who filled had of it."""
        asked = [("g", "/away/1"), ("g2", "/away/1"), ("h", "/away/1"), ("g", "/away/1")]
        asked += [("h", "/away/2"), ("g2", "/away/2")]
        asked += [(host, "/1") for host in "gghhhg"] + [(host, "/2") for host in "hhhgggh"]
        asked += [("h", f"/{number}.gif") for number in (3, 4, 3, 4, 5)]
        names = ("location", "x-from", "x-saw", "x-cache", "content-type")
        for host, target in asked:
            found = []
            for port, first, _ in self.sides:
                request = rawhttp.request(target, "Connection: close", host=host)
                answer = rawhttp.exchange(port, request)
                assert answer is not None
                told = [answer.header(name) or "" for name in names]
                told = [value.replace(f":{first}", "") for value in told]
                body = answer.body if answer.status != 301 else b""  # it names the server
                found.append((answer.status, told, body))
            self.assertEqual(*found, (host, target))

    def test_neighbours_of_what_is_remembered(self) -> None:
        """A file that was not asked for before has the key of its own location, too."""
        for target, host, body in (
            ("/a.jpg", "f", "second /a.jpg"),
            ("/a.jpg", "f", "second /a.jpg"),
            ("/a.jpg", "f", "second /a.jpg"),
            ("/b.jpg", "e", "first /b.jpg"),
            ("/b.jpg", "e", "first /b.jpg"),
            ("/b.jpg", "f", "second /b.jpg"),
            ("/b.jpg", "c", "second /b.jpg"),
            ("/c.jpg", "f", "second /c.jpg"),
            ("/c.jpg", "f", "second /c.jpg"),
        ):
            theirs, ours = self.ask(target, host)
            self.assertEqual(theirs, ours, (target, host))
            self.assertEqual(ours[0], body, (target, host))
