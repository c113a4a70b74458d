"""``$request_id`` on the fast path: each request has its own, and all who write it down agree."""

import re
import shutil
import tempfile
import time
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from imagefarm.http.plans import Plans
from tests.app.test_relays import USUAL, Master, answer

HTTP = """
events {{ }} http {{ default_type image/jpeg; root PREFIX; {http}
log_format ids "$request_id $status $connection $request"; access_log PREFIX/logs/ids.log ids;
upstream g {{ server 127.0.0.1:1001; keepalive 2; }}
upstream b {{ server 127.0.0.1:1003; keepalive 2; }}
server {{ listen 8080; {server} }} }}
"""
ID = re.compile(r"X-Request-ID: ([0-9a-f]{32})\r\n")


class Case(SynchronousTestCase):
    def start(self, server: str, http: str = "") -> Master:
        base = Path(tempfile.mkdtemp(prefix="ids-"))
        self.addCleanup(shutil.rmtree, base, ignore_errors=True)
        (base / "a.jpg").write_bytes(b"picture")
        self.plans = Plans()
        text = HTTP.format(server=server, http=http)
        master = Master(base, text, time.time() + 10, self.plans)
        self.addCleanup(master.close)
        return master

    def logged(self, master: Master) -> list[str]:
        (text,) = (text for text in master.log() if text.startswith("ids.log"))
        return text.removeprefix("ids.log").splitlines()


def get(target: bytes, *fields: bytes) -> bytes:
    return b"\r\n".join((b"GET " + target + b" HTTP/1.1", b"Host: h", *fields, b"", b""))


class RelayedTests(Case):
    """The master: it makes the id, and tells the slave."""

    def asked(self, master: Master, data: bytes) -> str:
        seen = master.play(("ask", 0, data))
        sent = b"".join(what[2] for what in seen if len(what) == 4 and isinstance(what[2], bytes))
        found = ID.search(sent.decode())
        assert found is not None, sent
        return found[1]

    def test_each_has_its_own(self) -> None:
        master = self.start(
            "location / { proxy_pass http://g; proxy_set_header X-Request-ID $request_id; }"
        )
        data = get(b"/a.jpg")
        told = []
        for number in range(4):
            known = self.plans.relay(data, data.index(b"\r\n"))
            self.assertEqual(known is not None, number > 0)
            told.append(self.asked(master, data))
            master.play(("answer", USUAL[0], []))
        self.assertEqual(len(set(told)), 4)
        self.assertEqual([line.split()[0] for line in self.logged(master)], told)

    def test_an_answer_of_another_kind_keeps_the_id(self) -> None:
        master = self.start(
            "location / { proxy_pass http://g; proxy_set_header X-Request-ID $request_id; }"
        )
        data, told = get(b"/a.jpg"), []
        for what in (USUAL[0], answer(b"503 Busy", b"later"), b"garbage\r\n\r\n"):
            told.append(self.asked(master, data))
            master.play(("answer", what, []))
        self.assertEqual([line.split()[:2] for line in self.logged(master)], [
            [told[0], "200"], [told[1], "503"], [told[2], "502"],
        ])  # fmt: skip
        # The id leads to why.
        self.assertEqual(master.names, told[1:])
        self.assertIn("answered 503, as upstream 127.0.0.1:1001 did", master.errors[0][1])

    def test_one_that_the_client_said_is_passed_on(self) -> None:
        master = self.start(
            "request_id_from X-Request-ID 192.168.1.1/32;"
            "location / { proxy_pass http://g; proxy_set_header X-Request-ID $request_id; }"
        )
        for number in range(3):
            name = b"%032x" % number
            told = self.asked(master, get(b"/a.jpg", b"X-Request-ID: " + name))
            self.assertEqual(told, name.decode())
            master.play(("answer", USUAL[0], []))


class RepeatedTests(Case):
    """The slave: it takes the master's word, and repeats answers all the same."""

    RULE = "request_id_from X-Request-ID 192.168.1.1/32;"

    def ask(self, master: Master, target: bytes, *fields: bytes) -> int:
        return len(master.play(("ask", 0, get(target, *fields))))

    def test_it_is_taken_from_the_trusted(self) -> None:
        master = self.start(self.RULE)
        names = [b"%032x" % number for number in range(5)]
        for name in names:
            self.ask(master, b"/a.jpg", b"X-Request-ID: " + name, b"X-Other: b")
        lines = self.logged(master)
        self.assertEqual([line.split()[0].encode() for line in lines], names)
        self.assertEqual({line.partition(" ")[2] for line in lines}, {"200 1 GET /a.jpg HTTP/1.1"})
        self.assertEqual(len(self.plans._usual), 1)

    def test_missing_files(self) -> None:
        master = self.start(self.RULE)
        names = [f"{number:032x}" for number in range(4)]
        for name in names:
            self.ask(master, b"/none.jpg", b"X-Request-ID: " + name.encode())
        self.assertEqual([line.split()[0] for line in self.logged(master)], names)
        self.assertEqual(master.names, names)
        self.assertEqual(len({line for _, line in master.errors}), 1)

    def test_nobody_else_is_believed(self) -> None:
        for rule in ("", "request_id_from X-Request-ID 10.0.0.0/8;", "request_id_from Other;"):
            master = self.start(rule)
            for _ in range(3):
                self.ask(master, b"/a.jpg", b"X-Request-ID: " + b"0" * 32)
            names = [line.split()[0] for line in self.logged(master)]
            self.assertEqual((len(set(names)), "0" * 32 in names), (3, False), rule)

    def test_what_is_no_id_is_not_taken(self) -> None:
        master = self.start(self.RULE)
        for name in (b"short", b"x" * 129, b"a b c d e f g h", b'"quoted-quoted"', b""):
            for _ in range(2):
                self.ask(master, b"/a.jpg", b"X-Request-ID: " + name)
        for line in self.logged(master):
            self.assertRegex(line, r"^[0-9a-f]{32} 200")

    def test_two_of_them(self) -> None:
        master = self.start(self.RULE)
        for _ in range(3):
            self.ask(
                master, b"/a.jpg", b"x-request-id: " + b"1" * 32, b"X-Request-ID: " + b"2" * 32
            )
        self.assertEqual({line.split()[0] for line in self.logged(master)}, {"1" * 32})

    def test_a_log_of_the_field_itself(self) -> None:
        master = self.start(
            self.RULE + "access_log PREFIX/logs/ids.log own;",
            'log_format own "$request_id $http_x_request_id";',
        )
        names = [f"{number:032x}" for number in range(3)]
        for name in names:
            self.ask(master, b"/a.jpg", b"X-Request-ID: " + name.encode())
        self.assertEqual(self.logged(master), [f"{name} {name}" for name in names])
