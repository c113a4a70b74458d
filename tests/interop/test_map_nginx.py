"""`map`: the same blocks and requests on nginx and on imagefarm, and the same refusals."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from imagefarm.app.configuration import Options, read
from imagefarm.config.errors import ConfigurationError
from tests.support import beside, rawhttp, tools
from tests.support.processes import free_ports, wait_until
from tests.support.stages import StagedCase

CONFIGURATION = r"""
worker_processes 1; pid logs/daemon.pid; error_log logs/error.log;
events {{ }}
http {{
    map $arg_a $string {{
        default other; "" empty; one 1; TWO 2; "three four" "3 $arg_b 4";
        \default escaped; \hostnames host; \~x tilde; *.a star; .b dot; h\xc3\xa9 accent;
        one.  onedot;
    }}
    map $arg_a $pattern {{
        ~^r(\d+)(x)?$ "r[$1][$2]"; ~*^(?<word>case)(?<rest>.*)$ "$word-$rest";
        "~^(a b)$" blank; ~^()$ never; r1 first; ~([.]) dot; ~^(none)$ "";
    }}
    map $arg_a$arg_b $both {{ xy joined; }}
    map $http_host $name {{
        hostnames;
        default nobody; example.com exact; *.example.com star; .dot.example dot;
        *.sub.example.com longer; mail.* mail; mail.example.* longmail; ~^re\d regex;
        www.example.com www; ~example first;
    }}
    map $string $chain {{ 1 "$pattern/$both"; 2 "$string$string"; default $name; }}
    map $uri $kept {{ ~^/(.*)$ "k$1"; }}
    map $uri $fresh {{ volatile; ~^/(.*)$ "f$1"; }}
    map $arg_a $assigned {{ default mapped; }}
    map $args $plain {{ ~x yes; default no; }}
    map $request_method:$scheme $constant {{ GET:http get; }}
    map literal $literal {{ literal found; }}
    map $arg_a $included {{ include {directory}/lines.map; default none; }}
    map $arg_a $twice {{ default first; }}
    map $arg_a $twice {{ default second; }}
    map $http_user_agent $agent {{ ~Mozilla browser; default robot; }}
    map $status $loggable {{ ~^[23] 1; default 0; }}
    log_format short "$string $agent $loggable $word";
    access_log {directory}/logs/short.log short;
    access_log {directory}/logs/some.log short if=$loggable;
    server {{
        listen 127.0.0.1:{port};
        root {directory}/www;
        location / {{
            set $more "$constant|$literal|$included|$twice|$agent|$word|$rest|";
            return 200 "$string|$pattern|$both|$name|$chain|$plain|$more";
        }}
        location /early/ {{
            set $before "$kept $fresh";
            rewrite ^/early/(.*)$ /late/$1;
        }}
        location /late/ {{ return 200 "$before $kept $fresh $uri $1"; }}
        location /assigned/ {{
            set $before $assigned;
            if ($arg_b) {{ set $assigned mine; }}
            return 200 "$before $assigned";
        }}
        location /head/ {{
            add_header X-String $string; add_header X-Agent $agent; try_files /a.txt =404;
        }}
        # One after another: in one text nginx looks for $1 when it has looked for the others.
        location ~ ^/captured/(\w+) {{
            set $before $1; set $found $pattern; return 200 "$before $found $1 $string";
        }}
        location ~ ^/groupless/(\w+) {{ set $found $agent; return 200 "$1 $found"; }}
        location /choose/ {{ if ($plain = yes) {{ return 403; }} return 200 chosen; }}
    }}
}}
"""
LINES = "one included;\n~^r included-$arg_b;\n"
ARGUMENTS = (
    "", "a=one", "a=ONE", "a=two", "a=three%20four&b=x", "a=default", "a=hostnames", "a=~x",
    "a=*.a", "a=z.a", "a=.b", "a=x.b", "a=one.", "a=r1", "a=r12&b=q", "a=r12x", "a=CASEload",
    "a=a%20b", "a=none", "a=a.b", "a=x&b=y", "a=h%C3%A9", "a=x",
)  # fmt: skip
HOSTS = (
    "example.com", "EXAMPLE.com", "example.com.", "a.example.com", "b.a.example.com",
    "x.sub.example.com", "sub.example.com", "dot.example", "a.dot.example", "mail.org",
    "mail.example.org", "mail.example.com", "www.example.com", "re1", "re", "x",
    "notexample.org", "mail.",
)  # fmt: skip
PATHS = ("/early/x", "/early/x?a=1", "/late/y", "/assigned/", "/assigned/?b=1", "/choose/?x",
         "/choose/?y", "/none")  # fmt: skip
#: docs/variables.md gives the reasons.
DIFFERENT = {"/groupless/x"}
WRONG = (
    ("map $arg_a b {{ }}", 'invalid variable name "b"'),
    ("map $arg_a $ {{ }}", None),
    ("map $nobody $b {{ }}", 'unknown "nobody" variable'),
    ("map $arg_a $b {{ x $nobody; }}", 'unknown "nobody" variable'),
    ("map $arg_a $b {{ x; }}", "invalid number of the map parameters"),
    ("map $arg_a $b {{ x y z; }}", "invalid number of the map parameters"),
    ("map $arg_a $b {{ default y; default z; }}", "duplicate default map parameter"),
    ("map $arg_a $b {{ x y; X z; }}", 'conflicting parameter "x"'),
    ("map $arg_a $b {{ hostnames; .x y; *.x z; }}", 'conflicting parameter "*.x"'),
    ("map $arg_a $b {{ hostnames; .x y; x z; }}", 'conflicting parameter "x"'),
    ("map $arg_a $b {{ hostnames; a.*.x y; }}", 'invalid hostname or wildcard "a.*.x"'),
    ("map $arg_a $b {{ hostnames; a..x y; }}", 'invalid hostname or wildcard "a..x"'),
    ("map $arg_a $b {{ hostnames; * y; }}", 'invalid hostname or wildcard "*"'),
    ("map $arg_a $b {{ x {{ }} }}", None),
    ("map $arg_a $uri {{ }}", 'the duplicate "uri" variable'),
    ("map $arg_a {{ }}", 'invalid number of arguments in "map" directive'),
    ("server {{ map $arg_a $b {{ }} }}", '"map" directive is not allowed here'),
)
RIGHT = ("map $arg_a $b {{ }}", "map $arg_a $b {{ *.x y; .x z; x w; }}")


class Side:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        (directory / "logs").mkdir(parents=True)
        (directory / "logs").chmod(0o777)
        (directory / "www").mkdir()
        (directory / "www" / "a.txt").write_text("a file\n")
        (directory / "lines.map").write_text(LINES)
        (self.port,) = free_ports(1)
        self.config = directory / "map.conf"
        self.config.write_text(CONFIGURATION.format(directory=directory, port=self.port))

    def ask(self, target: str, host: str, *fields: str) -> tuple[object, ...]:
        data = f"GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n"
        data += "".join(f"{field}\r\n" for field in fields) + "\r\n"
        answer = rawhttp.exchange(self.port, data.encode())
        assert answer is not None
        body = answer.body if answer.status == 200 else b""
        return answer.status, answer.header("x-string"), answer.header("x-agent"), body

    def lines(self, name: str) -> list[str]:
        path = self.directory / "logs" / name
        return path.read_text().splitlines() if path.exists() else []


class MapTests(StagedCase):
    maxDiff = None

    def setUp(self) -> None:
        self.directory = beside.directory(self.addCleanup, "map")

    def test_same(self) -> None:
        theirs, ours = sides = [Side(self.directory / name) for name in ("nginx", "imagefarm")]
        beside.start(
            self.addCleanup, *((side.config, [side.port]) for side in sides), role="slave"
        )
        asked: list[tuple[str, ...]] = []
        for arguments in ARGUMENTS:
            asked += [(f"/?{arguments}", "x"), (f"/captured/one?{arguments}", "x")]
            asked += [(f"/head/?{arguments}", "x", f"User-Agent: {agent}")
                      for agent in ("Mozilla/5", "curl") for _ in range(2)]  # fmt: skip
        asked += [("/", host) for host in HOSTS] + [(path, "x") for path in PATHS]
        asked += [("/groupless/x", "x", "User-Agent: Mozilla/5")]
        differ = []
        for question in asked:
            expected, got = theirs.ask(*question), ours.ask(*question)
            if (expected != got) is not (question[0] in DIFFERENT):
                differ.append(f"{question}\n    {expected}\n    {got}")
        self.assertEqual(differ, [], "\n" + "\n".join(differ))
        for name in ("short.log", "some.log"):
            wait_until(lambda name=name: len(ours.lines(name)) >= len(theirs.lines(name)), 10)
            self.assertEqual(ours.lines(name), theirs.lines(name))
        self.assertLess(len(ours.lines("some.log")), len(ours.lines("short.log")))

    def test_same_refusals(self) -> None:
        (self.directory / "logs").mkdir()
        for text, message in (*WRONG, *((text, "") for text in RIGHT)):
            file = self.directory / "wrong.conf"
            file.write_text(f"pid x.pid; events {{ }} http {{ {text.format()} }}\n")
            command = [tools.nginx(), "-p", str(self.directory), "-c", str(file), "-t", "-q"]
            said = subprocess.run(command, capture_output=True, text=True, check=False).stderr
            theirs = re.findall(r"(?m)\[emerg\] \d+#\d+: (.*?)(?: in \S+:\d+)?$", said)
            try:
                problems = read(Options("slave", str(file), str(self.directory))).problems
            except ConfigurationError as error:
                problems = error.problems
            ours = [problem.message for problem in problems]
            self.assertEqual(bool(ours), bool(theirs), (text, theirs, ours))
            if message is not None:
                self.assertEqual((ours, theirs), ([message] * bool(message),) * 2, text)
