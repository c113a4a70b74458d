import os
import subprocess
import sys

from twisted.logger import LogEvent, Logger, LogPublisher, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.process.console import FOREGROUND, Console
from imagefarm.process.supervisor import log_line

PRINTS = """
import sys
from twisted.application.service import Application, Service
from twisted.internet import reactor
class Speaker(Service):
    def startService(self):
        print("as it is")
        reactor.callLater(0, reactor.stop)
application = Application("speaker")
Speaker().setServiceParent(application)
"""


class ConsoleTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.fd, writer = os.pipe()
        self.addCleanup(os.close, self.fd)
        self.addCleanup(os.close, writer)
        os.set_blocking(self.fd, False)
        self.log = Logger(observer=LogPublisher(Console(writer)))

    def shown(self) -> str:
        try:
            return os.read(self.fd, 65536).decode()
        except BlockingIOError:
            return ""

    def test_notices_and_worse(self) -> None:
        self.log.info("of no interest")
        self.assertEqual(self.shown(), "")
        self.log.info("ready", severity="notice")
        self.assertRegex(self.shown(), r"\A\d{4}/\d\d/\d\d [\d:]{8} \[notice\] \d+#0: ready\n\Z")

    def test_printed_lines_as_they_are(self) -> None:
        self.log.info("{log_io}", log_io="The farm runs.")
        self.assertEqual(self.shown(), "The farm runs.\n")

    def test_twistd_takes_it(self) -> None:
        path = self.mktemp()
        with open(path, "w") as file:
            file.write(PRINTS)
        done = subprocess.run(
            [sys.executable, "-m", "imagefarm.process", *FOREGROUND, "--no_save", "-y", path],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "", "as it is\n"))


class LogLineTests(SynchronousTestCase):
    def test_the_child_s_name_stands_before_its_line(self) -> None:
        events: list[str] = []

        def observer(event: LogEvent) -> None:
            events.append(event.get("log_io", ""))

        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        log_line("slave01", b"caf\xc3\xa9 \xff")
        self.assertEqual(events, ["slave01: caf\u00e9 \ufffd"])
