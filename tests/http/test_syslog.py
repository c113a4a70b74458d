import os
import socket
import tempfile
import time
from datetime import datetime

from twisted.trial.unittest import SynchronousTestCase

from imagefarm.config.errors import Invalid
from imagefarm.http.syslog import MAX_DATAGRAM, SILENCE, Syslog, SyslogTarget, parse_target


class TargetTests(SynchronousTestCase):
    def test_defaults_are_nginx_s(self) -> None:
        found = parse_target("server=127.0.0.1")
        self.assertEqual((found.family, found.address), (socket.AF_INET, ("127.0.0.1", 514)))
        self.assertEqual((found.facility, found.severity, found.tag), (23, 6, "nginx"))
        self.assertTrue(found.hostname)

    def test_parameters(self) -> None:
        found = parse_target(
            "server=[::1]:5140,facility=local3,severity=warn,tag=farm_1,nohostname"
        )
        self.assertEqual((found.family, found.address[:2]), (socket.AF_INET6, ("::1", 5140)))
        self.assertEqual((found.facility, found.severity, found.tag), (19, 4, "farm_1"))
        self.assertFalse(found.hostname)
        self.assertEqual(parse_target("server=unix:/dev/log").address, "/dev/log")

    def test_wrong(self) -> None:
        for text, message in (
            ("tag=a", "no syslog server specified"),
            ("server=127.0.0.1,server=127.0.0.1", 'duplicate syslog "server"'),
            ("server=127.0.0.1,tag=a,tag=b", 'duplicate syslog "tag"'),
            ("server=127.0.0.1:x", "invalid port in syslog server"),
            ("server=127.0.0.1:70000", "invalid port in syslog server"),
            ("server=unix:", "no path in the unix domain socket"),
            ("server=256.1.1.1", "host not found in syslog server"),
            ("server=127.0.0.1,facility=x", 'unknown syslog facility "x"'),
            ("server=127.0.0.1,severity=warning", 'unknown syslog severity "warning"'),
            ("server=127.0.0.1,tag=a-b", "only allows alphanumeric characters and underscore"),
            ("server=127.0.0.1,tag=" + "a" * 33, "syslog tag length exceeds 32"),
            ("server=127.0.0.1,x=y", 'unknown syslog parameter "x=y"'),
            ("server=127.0.0.1,", 'unknown syslog parameter ""'),
        ):
            self.assertIn(message, str(self.assertRaises(Invalid, parse_target, text)), text)

    def test_head(self) -> None:
        when = datetime(2026, 2, 3, 4, 5, 6).timestamp()
        target = parse_target("server=127.0.0.1,tag=x")
        self.assertEqual(target.head(6, when, "here"), b"<190>Feb  3 04:05:06 here x: ")
        target = parse_target("server=127.0.0.1,facility=kern,nohostname")
        self.assertEqual(target.head(0, when, "here"), b"<0>Feb  3 04:05:06 nginx: ")


class SendingTests(SynchronousTestCase):
    def setUp(self) -> None:
        holder = tempfile.TemporaryDirectory()
        self.addCleanup(holder.cleanup)
        self.path = os.path.join(holder.name, "log")
        self.complaints: list[str] = []
        target = SyslogTarget(socket.AF_UNIX, self.path, "unix:log", hostname=False)
        self.syslog = Syslog(target, self.complaints.append, lambda: "here")
        self.addCleanup(self.syslog.close)

    def listen(self) -> socket.socket:
        made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(made.close)
        made.bind(self.path)
        made.settimeout(5)
        return made

    def test_a_message_is_a_datagram(self) -> None:
        server = self.listen()
        now = time.time()
        self.syslog.send(b"one", now)
        self.syslog.send(b"two", now, 3)
        first, second = server.recv(4096), server.recv(4096)
        self.assertTrue(first.startswith(b"<190>") and first.endswith(b" nginx: one"), first)
        self.assertTrue(second.startswith(b"<187>") and second.endswith(b" nginx: two"), second)

    def test_long_ones_are_cut(self) -> None:
        server = self.listen()
        self.syslog.send(b"x" * 10000, 0.0)
        self.assertEqual(len(server.recv(20000)), MAX_DATAGRAM)

    def test_nobody_there_is_said_once_and_tried_again(self) -> None:
        self.syslog.send(b"a", 0.0)
        self.syslog.send(b"b", 1.0)
        self.assertEqual((len(self.complaints), self.syslog.lost), (1, 2))
        self.assertIn('sending to syslog server "unix:log" failed (2: No such', self.complaints[0])
        server = self.listen()
        self.syslog.send(b"c", 2.0)
        self.assertTrue(server.recv(100).endswith(b": c"))
        server.close()
        self.syslog.send(b"d", SILENCE)
        self.assertEqual((len(self.complaints), self.syslog.lost), (2, 3))

    def test_a_full_one_is_not_waited_for(self) -> None:
        self.listen()
        for _ in range(10000):
            self.syslog.send(b"x" * 2000, 0.0)
            if self.syslog.lost:
                break
        self.assertEqual(len(self.complaints), 1)
