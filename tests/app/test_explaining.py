import io
import json
import os
import tempfile
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from imagefarm.app.tools import explain, purge

CONFIG = """
http {
    proxy_cache_path PREFIX/cache levels=1:2 keys_zone=c:1m;
    upstream back { server 127.0.0.1:1001; server 127.0.0.1:1002 backup; }
    server { listen 8080; server_name a.test; root PREFIX/files; client_max_body_size 5m;
        location / { try_files $uri @away; }
        location @away { proxy_pass http://back; proxy_cache c; proxy_cache_bypass $arg_fresh;
            proxy_set_header X-Path $uri; }
        location /old/ { rewrite ^/old/(.*)$ /new/$1 last; }
        location ~ ^/new/ { fastcgi_pass unix:/run/app.sock; fastcgi_param URI $uri; }
        location /secret { deny 10.0.0.0/8; allow all; return 204; }
        location = /gone { return 410; }
        location /alias/ { alias PREFIX/files/; }
        location /agent { if ($http_user_agent ~ Bot) { return 403; } proxy_pass http://$host:81; }
        location /zone { proxy_pass http://back; proxy_cache $arg_zone; }
        error_page 410 /gone.html;
    }
    server { listen 8080; server_name .b.test; location = /hello { stub_status; } }
    server { listen 127.0.0.1:8090; location = /purge { cache_api; } }
}
"""


class Case(SynchronousTestCase):
    def setUp(self) -> None:
        holder = tempfile.TemporaryDirectory()
        self.addCleanup(holder.cleanup)
        self.base = Path(holder.name)
        (self.base / "files").mkdir()
        (self.base / "files" / "here.txt").write_text("here")
        self.config = self.base / "m.conf"
        self.config.write_text(CONFIG.replace("PREFIX", holder.name))

    def run_tool(self, main: Any, *words: str) -> tuple[int, str, str]:
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            status = main(["-c", str(self.config), "-p", str(self.base), *words])
        return status, out.getvalue(), err.getvalue()


class ExplainTests(Case):
    def told(self, url: str, *words: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        status, out, err = self.run_tool(explain.main, "--json", *words, url)
        self.assertEqual((status, err), (0, ""))
        told = json.loads(out)
        return told["steps"], told["answer"]

    def step(self, steps: list[dict[str, Any]], what: str) -> dict[str, Any]:
        found = [step for step in steps if step["step"] == what]
        self.assertEqual(len(found), 1, steps)
        return found[0]

    def test_a_file(self) -> None:
        steps, answer = self.told("http://a.test:8080/here.txt")
        self.assertIn("its server_name fits the Host", self.step(steps, "server")["text"])
        self.assertEqual(self.step(steps, "location")["name"], "/")
        self.assertIn("here.txt: found", self.step(steps, "try_files")["text"])
        file = self.step(steps, "file")
        self.assertEqual((file["state"], file["by"]), ("found", "root"))
        self.assertEqual((answer["from"], answer["status"]), ("imagefarm", 200))
        self.assertEqual(self.step(steps, "limit")["text"], "client_max_body_size 5m")
        line = CONFIG.split("location / {")[0].count("\n") + 1
        self.assertEqual(self.step(steps, "location")["at"], f"{self.config}:{line}")

    def test_an_upstream_with_a_cache(self) -> None:
        steps, answer = self.told("http://a.test:8080/x?q=1")
        places = [step["name"] for step in steps if step["step"] == "location"]
        self.assertEqual(places, ["/", "@away"])
        self.assertIn("nothing is there", self.step(steps, "try_files")["text"])
        cache = self.step(steps, "cache")
        self.assertEqual((cache["zone"], cache["key"]), ("c", "http://back/x?q=1"))
        passed = self.step(steps, "proxy_pass")
        self.assertEqual(passed["servers"], ["127.0.0.1:1001", "127.0.0.1:1002"])
        self.assertEqual(passed["text"], "http://back/x?q=1")
        self.assertIn(["X-Path", "/x"], passed["headers"])
        self.assertEqual(answer, {"from": "http://back"})
        steps, _ = self.told("http://a.test:8080/zone?zone=c")
        self.assertEqual(self.step(steps, "cache")["zone"], "c")
        steps, _ = self.told("http://a.test:8080/zone?zone=d")
        self.assertEqual(self.step(steps, "cache")["text"], 'not used: proxy_cache is "d"')
        steps, _ = self.told("http://a.test:8080/x?fresh=1")
        self.assertIn("not asked: $arg_fresh is set", self.step(steps, "cache")["text"])
        steps, _ = self.told("http://a.test:8080/x", "-m", "POST")
        self.assertIn("not for POST", self.step(steps, "cache")["text"])

    def test_rewrites_step_by_step(self) -> None:
        steps, answer = self.told("http://a.test:8080/old/a.php?x")
        texts = [step["text"] for step in steps if step["step"] == "rewrite"]
        self.assertEqual(texts, [
            '"^/old/(.*)$" matches "/old/a.php"', 'rewritten data: "/new/a.php", args: "x"',
        ])  # fmt: skip
        passed = self.step(steps, "fastcgi_pass")
        self.assertIn(["URI", "/new/a.php"], passed["params"])
        self.assertEqual(answer["from"], "fastcgi://unix:/run/app.sock")

    def test_access(self) -> None:
        steps, answer = self.told("http://a.test:8080/secret", "-a", "10.1.1.1")
        limits = [step["text"] for step in steps if step["step"] == "limit"]
        self.assertEqual(limits, ["deny 10.0.0.0/8", "allow all", "client_max_body_size 5m"])
        self.assertEqual(answer["status"], 204)  # as in nginx, return comes before access

    def test_return_and_error_page(self) -> None:
        steps, answer = self.told("http://a.test:8080/gone")
        self.assertEqual(self.step(steps, "return")["text"], "410")
        self.assertEqual(self.step(steps, "error_page")["text"], "there is one for 410")
        texts = [step["text"] for step in steps if step["step"] == "redirect"]
        self.assertEqual(texts, ["internally to /gone.html", "internally to @away"])
        self.assertEqual(answer["from"], "http://back")

    def test_alias(self) -> None:
        steps, answer = self.told("http://a.test:8080/alias/none")
        file = self.step(steps, "file")
        self.assertEqual((file["by"], file["state"]), ("alias", "not found"))
        self.assertEqual(file["path"], str(self.base / "files" / "none"))
        self.assertEqual(answer["status"], 404)

    def test_header_and_if(self) -> None:
        _, answer = self.told("http://a.test:8080/agent", "-H", "User-Agent: Bot")
        self.assertEqual(answer["status"], 403)
        steps, _ = self.told("http://a.test:8080/agent")
        self.assertEqual(self.step(steps, "proxy_pass")["text"], "http://a.test:81/agent")

    def test_which_server(self) -> None:
        for url, words, expected in (
            ("http://x.b.test:8080/hello", (), ".b.test: its server_name fits the Host"),
            (
                "http://127.0.0.1:8080/hello",
                ("-H", "Host: b.test"),
                ".b.test: its server_name",
            ),
            (
                "http://c.test:8080/",
                (),
                "a.test: no server_name fits the Host",
            ),
            ("http://127.0.0.1:8090/", (), "(without name): "),
        ):
            steps, _ = self.told(url, *words)
            self.assertTrue(self.step(steps, "server")["text"].startswith(expected), steps)

    def test_nobody_listens_there(self) -> None:
        steps, _ = self.told("http://a.test/")
        self.assertIn("for nobody listens on port 80", self.step(steps, "listen")["text"])

    def test_nothing_is_made_or_asked(self) -> None:
        before = sorted(os.listdir(self.base))
        self.told("http://a.test:8080/x")
        self.assertEqual(sorted(os.listdir(self.base)), before)

    def test_text(self) -> None:
        status, out, _ = self.run_tool(
            explain.main, "http://a.test:8080/x", "http://a.test:8080/here.txt"
        )
        self.assertEqual(status, 0)
        self.assertIn("servers: 127.0.0.1:1001, 127.0.0.1:1002", out)
        self.assertIn("answer       from http://back\n", out)
        self.assertIn("answer       status 200\n", out)

    def test_wrong(self) -> None:
        for words, message in (
            (("/path",), '"/path" is not a URL with http:// or https://'),
            (("ftp://a/",), '"ftp://a/" is not a URL'),
            (("http://a:99999/",), '"http://a:99999/" is not a URL: Port out of range'),
            (("http://a:b/",), '"http://a:b/" is not a URL: Port could not be'),
            (("http://[::1/",), '"http://[::1/" is not a URL: Invalid IPv6 URL'),
            (("http://a/b c",), "can't be asked for: malformed request line (400)"),
            (("http://a/b\r\nX: y",), "can't be asked for: malformed request line (400)"),
            (("http://a/", "-m", "G T"), "can't be asked for: malformed request line (400)"),
            (("http://a/", "-H", "Host: a b"), "can't be asked for: "),
            (("http://a/", "-H", "X: a\nb"), "control character in a field line (400)"),
            (("http://a/", "-a", "10.0.0.256"), '"10.0.0.256" is not an address'),
        ):
            status, out, err = self.run_tool(explain.main, *words)
            self.assertEqual((status, out), (1, ""))
            self.assertIn(message, err)
        self.config.write_text("http { server { nonsense; } }")
        status, _, err = self.run_tool(explain.main, "http://a/")
        self.assertIn('unknown directive "nonsense"', err)
        self.config.write_text("events { }")
        status, _, err = self.run_tool(explain.main, "http://a/")
        self.assertIn('no "server" is defined', err)


class PurgeTests(Case):
    """What is wrong before anybody is asked; the rest is in tests.functional.test_purging."""

    def test_wrong(self) -> None:
        for words, message in (
            ((), "nothing to purge"),
            (("http://b.test:8080/hello",), "http://b.test:8080/hello is not cached under"),
            (("-u", "ftp://a/", "--key", "k"), "is not a URL with http://"),
            (("-u", "http://a:99999/", "--key", "k"), "is not a URL: Port out of range"),
            (("-u", "http://[::1", "--key", "k"), "is not a URL: Invalid IPv6 URL"),
            (("-t", "/nonexistent", "--key", "k"), "nonexistent"),
        ):
            status, out, err = self.run_tool(purge.main, *words)
            self.assertEqual((status, out), (1, ""), words)
            self.assertIn(message, err)
        self.config.write_text("http { server { listen 81; } }")
        status, _, err = self.run_tool(purge.main, "--key", "k")
        self.assertIn('there is no "cache_api" in', err)
